"""PyTorch, eager: Python calls op after op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from archdsl.latency.runtimes.protocol import Loaded, Runtime, library_version

if TYPE_CHECKING:
    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target

PRECISIONS = ("fp32", "fp16", "bf16")


class TorchEager(Runtime):
    name = "torch"
    kinds: tuple[ArtefactKind, ...] = ("spec", "pt2")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": PRECISIONS, "cuda": PRECISIONS}
    modules = ("torch", "archdsl.latency.runtimes.torch_network")

    def version(self) -> str:
        return library_version(self.name, ("torch",), bring="pip install torch")

    def device_name(self, device: str) -> str:
        from archdsl.latency.runtimes.torch_network import torch_device_name

        return torch_device_name(device, self.name)

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        from archdsl.latency.runtimes.torch_network import EagerNetwork

        return EagerNetwork(artefact, target)

    def load_again(self, loaded: Loaded, artefact: Artefact, target: Target) -> Loaded:
        from archdsl.latency.runtimes.torch_network import EagerNetwork

        assert isinstance(loaded, EagerNetwork)
        loaded.move()
        return loaded


RUNTIME = TorchEager()
