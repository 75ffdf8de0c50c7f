"""PyTorch's kernels recorded as a CUDA graph and replayed: no Python between ops. Not yet run on a GPU by us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.runtimes.adapters.torch_eager import PRECISIONS, TorchRuntime
from archdsl.runtimes.protocol import LoadedNetwork, RunConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.adapters.torch_network import TorchNetwork
    from archdsl.runtimes.artefact import Artefact

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
            self.output = call()

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        from archdsl.runtimes.adapters.torch_network import parts_of

        self.timed(x_BX)()
        return [part.cpu().numpy() for part in parts_of(self.output)]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        """All runs share one input, so the same network must not be timed on two at once."""
        import torch

        from archdsl.runtimes.adapters.torch_network import finished_on

        self.x_BX.copy_(torch.tensor(x_BX))
        return finished_on(self.device, self.graph.replay)


class TorchCudaGraph(TorchRuntime):
    """PyTorch's kernels without Python between them, on a GPU only."""

    name = "torch-cudagraph"
    precisions: Mapping[str, tuple[str, ...]] = {"cuda": PRECISIONS}
    reloads = False  # the recorded kernels hold their addresses

    def version(self) -> str:
        found = super().version()
        self.device_name("cuda")
        return found

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        from archdsl.runtimes.adapters.torch_network import TorchNetwork

        return Replayed(TorchNetwork(artefact, config, self.name), (config.batch, *artefact.input_shape))


RUNTIME = TorchCudaGraph()
