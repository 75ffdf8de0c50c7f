"""PyTorch, eager: Python calls op after op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from archdsl.runtimes.protocol import LoadedNetwork, RunConfig, Runtime, library_version

if TYPE_CHECKING:
    from archdsl.runtimes.artefact import Artefact, ArtefactKind

PRECISIONS = ("fp32", "fp16", "bf16")


class TorchRuntime(Runtime):
    """What the runtimes that run PyTorch's networks share."""

    kinds: tuple[ArtefactKind, ...] = ("spec", "pt2")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": PRECISIONS, "cuda": PRECISIONS}
    modules = ("torch", "archdsl.runtimes.adapters.torch_network")

    def version(self) -> str:
        return library_version(self.name, ("torch",), bring="pip install torch")

    def device_name(self, device: str) -> str:
        from archdsl.runtimes.adapters.torch_network import torch_device_name

        return torch_device_name(device, self.name)


class TorchEager(TorchRuntime):
    """PyTorch without compiling or recording."""

    name = "torch"

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        from archdsl.runtimes.adapters.torch_network import EagerNetwork

        return EagerNetwork(artefact, config, self.name)

    def load_again(self, loaded: LoadedNetwork, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        from archdsl.runtimes.adapters.torch_network import EagerNetwork

        assert isinstance(loaded, EagerNetwork)
        loaded.move()
        return loaded


RUNTIME = TorchEager()
