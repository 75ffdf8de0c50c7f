"""PyTorch's kernels recorded as a CUDA graph and replayed: no Python between ops. Not yet run on a GPU by us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.latency.runtimes.protocol import Loaded, Runtime, library_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.runtimes.torch_network import TorchNetwork
    from archdsl.latency.target import Target

WARM_UP = 3
"""Runs before the recording: libraries choose and load their kernels in the first ones."""


class Replayed:
    """A network's kernels, recorded once on an input and an output that stay where they are."""

    known_ms: float | None = None

    def __init__(self, network: TorchNetwork, shape: tuple[int, ...]):
        import torch

        self.device = network.device
        self.x_BX = torch.zeros(shape, device=self.device)
        call = network.call_on(self.x_BX)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # what is set up at first calls must not be recorded
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.y_BC = call()

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        self.timed(x_BX)()
        return [self.y_BC.cpu().numpy()]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """All runs share one input, so the same network must not be timed on two at once."""
        import torch

        from archdsl.latency.runtimes.torch_network import finished_on

        self.x_BX.copy_(torch.tensor(x_BX))
        return finished_on(self.device, self.graph.replay)


class TorchCudaGraph(Runtime):
    name = "torch-cudagraph"
    kinds: tuple[ArtefactKind, ...] = ("spec", "pt2")
    precisions: Mapping[str, tuple[str, ...]] = {"cuda": ("fp32", "fp16", "bf16")}
    modules = ("torch", "archdsl.latency.runtimes.torch_network")
    reloads = False  # the recorded kernels hold their addresses

    def version(self) -> str:
        found = library_version(self.name, ("torch",), bring="pip install torch")
        self.device_name("cuda")
        return found

    def device_name(self, device: str) -> str:
        from archdsl.latency.runtimes.torch_network import torch_device_name

        return torch_device_name(device, self.name)

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        from archdsl.latency.runtimes.torch_network import TorchNetwork

        return Replayed(TorchNetwork(artefact, target), (target.batch, *artefact.input_shape))


RUNTIME = TorchCudaGraph()
