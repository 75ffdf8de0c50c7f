"""`torch.compile` with its default backend, Inductor. Compiling is a part of loading, never of a timed run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from archdsl.latency.failure import failed
from archdsl.latency.runtimes.protocol import Loaded, Runtime, library_version

if TYPE_CHECKING:
    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target

PRECISIONS = ("fp32", "fp16", "bf16")


class TorchCompile(Runtime):
    """It generates C++, so it needs a compiler. On one busy core a Swin-T takes minutes to compile."""

    name = "torch-compile"
    kinds: tuple[ArtefactKind, ...] = ("spec", "pt2")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": PRECISIONS, "cuda": PRECISIONS}
    loading_s = 900.0
    modules = ("torch", "archdsl.latency.runtimes.torch_network")
    reloads = False  # compiling takes minutes

    def version(self) -> str:
        found = library_version(self.name, ("torch",), bring="pip install torch")
        check_compiler()
        return found

    def device_name(self, device: str) -> str:
        from archdsl.latency.runtimes.torch_network import torch_device_name

        return torch_device_name(device, self.name)

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        """The network, compiled for the one shape of input that it will get."""
        import torch

        from archdsl.latency.runtimes.torch_network import TorchNetwork

        check_compiler()
        network = TorchNetwork(artefact, target)
        torch._inductor.config.compile_threads = 1  # no pool of processes beside the timed runs
        network.module = torch.compile(network.module, dynamic=False, fullgraph=True)
        network.call_on(torch.zeros((target.batch, *artefact.input_shape), device=network.device))()
        return network


def check_compiler() -> None:
    """Errors: MeasureError (`runtime-missing`) when there is no C++ compiler where Inductor looks for one"""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        message = f"torch.compile needs a C++ compiler, and there is no {compiler}"
        hint = f"install {compiler}, or let the variable CXX name another C++ compiler"
        raise failed("runtime-missing", message, where=TorchCompile.name, hint=hint)


RUNTIME = TorchCompile()
