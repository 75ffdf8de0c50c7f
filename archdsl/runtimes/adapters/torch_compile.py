"""`torch.compile` with its default backend, Inductor. Compiling is a part of loading, never of a timed run."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from archdsl.failures import failed
from archdsl.runtimes.adapters.torch_eager import TorchRuntime
from archdsl.runtimes.protocol import LoadedNetwork, RunConfig

if TYPE_CHECKING:
    from archdsl.runtimes.artefact import Artefact


class TorchCompile(TorchRuntime):
    """It generates C++, so it needs a compiler. On one busy core a Swin-T takes minutes to compile."""

    name = "torch-compile"
    loading_s = 900.0
    reloads = False  # compiling takes minutes

    def version(self) -> str:
        found = super().version()
        check_compiler()
        return found

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        """The network, compiled for the one shape of input that it will get."""
        import torch

        from archdsl.runtimes.adapters.torch_network import TorchNetwork

        check_compiler()
        network = TorchNetwork(artefact, config, self.name)
        torch._inductor.config.compile_threads = 1  # no pool of processes beside the timed runs
        network.module = torch.compile(network.module, dynamic=False, fullgraph=True)
        network.call_on(torch.zeros((config.batch, *artefact.input_shape), device=network.device))()
        return network


def check_compiler() -> None:
    """Raise MeasureError (`runtime-missing`) when there is no C++ compiler where Inductor looks for one"""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        message = f"torch.compile needs a C++ compiler, and there is no {compiler}"
        hint = f"install {compiler}, or let the variable CXX name another C++ compiler"
        raise failed("runtime-missing", message, where=TorchCompile.name, hint=hint)


RUNTIME = TorchCompile()
