"""PyTorch, eager, on the network that the worker builds itself from a spec's text: there is no pickle to trust."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl.latency.machine import cpu_name
from archdsl.latency.runtimes.protocol import Profiler, library_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target


class Module:
    """A network in eval mode, run without autograd, with the weights that stand in for trained ones."""

    known_ms: float | None = None

    def __init__(self, artefact: Artefact, threads: int):
        import torch

        from archdsl.backends import backend
        from archdsl.latency.networks import network_of
        from archdsl.spec.load import loads

        torch.set_num_threads(threads)
        form = artefact.build or "deploy"
        network = network_of(loads(artefact.text or "", artefact.name), form)
        self.paths = [node.path for node in network.graph.live()]
        options = {"deploy": True} if form == "deploy" else {}
        self.module = backend("torch").emit(network.graph, network.weights, **options).eval()

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        import torch

        with torch.inference_mode():
            y = self.module(torch.from_numpy(x_BX))
        return [part.numpy() for part in (y if isinstance(y, tuple | list) else (y,))]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        import torch

        module, x = self.module, torch.from_numpy(x_BX)

        def run() -> object:
            with torch.inference_mode():
                return module(x)

        return run

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        import torch

        from archdsl.latency.runtimes.torch_profile import ModuleProfiler

        return ModuleProfiler(self.module, self.paths, torch.from_numpy(x_BX))


class TorchEager:
    name = "torch"
    kinds: tuple[ArtefactKind, ...] = ("spec",)
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)
    analytic = False
    bounded_memory = True

    def version(self) -> str:
        return library_version(self.name, ("torch",), bring="pip install torch")

    def device_name(self, device: str) -> str:
        return cpu_name()

    def load(self, artefact: Artefact, target: Target) -> Module:
        return Module(artefact, target.threads)


RUNTIME = TorchEager()
