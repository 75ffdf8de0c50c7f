"""A PyTorch network that the worker builds itself from a spec's text: there is no pickle to trust.

On a GPU inputs and outputs stay in its memory: a run is from an input there to an output there, and is over when a CUDA
event behind it is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from archdsl.backends import backend
from archdsl.failures import failed
from archdsl.language.architecture.load import loads
from archdsl.runtimes.export import network_of
from archdsl.runtimes.protocol import Profiler, RunConfig
from archdsl.telemetry.cpu import cpu_name
from archdsl.weights.reading import read_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact


class TorchNetwork:
    """A network in eval mode, run without autograd, with the artefact's weights.

    module: fp32 images [B, C, H, W] -> fp32 logits, in the precision of `config` between them
    runtime: what errors call the runtime
    """

    known_ms: float | None = None

    def __init__(self, artefact: Artefact, config: RunConfig, runtime: str):
        self.device = device_of(config.device, runtime)
        torch.set_num_threads(config.threads)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # here fp32 is fp32
        self.paths: list[str] = []
        if artefact.kind == "pt2":
            self.module = _program(str(artefact.path), self.device)
            return
        weights = None if artefact.weights is None else read_weights(artefact.weights)
        spec = loads(artefact.text or "", artefact.name)
        network = network_of(spec, artefact.form, weights, precision=config.precision)
        self.paths = [node.path for node in network.graph.live()]
        options = {"deploy": True} if artefact.form == "deploy" else {}
        module = backend("torch").emit(network.graph, network.weights, **options)
        self.module = module.eval().to(self.device)

    def outputs(self, x_BX: NDArray[Any]) -> list[NDArray[Any]]:
        return [part.cpu().numpy() for part in parts_of(self.call_on(self.held(x_BX))())]

    def timed(self, x_BX: NDArray[Any]) -> Callable[[], object]:
        return finished_on(self.device, self.call_on(self.held(x_BX)))

    def held(self, x_BX: NDArray[Any]) -> torch.Tensor:
        """The input in the device's memory."""
        return torch.tensor(x_BX, device=self.device)

    def call_on(self, x: torch.Tensor) -> Callable[[], Any]:
        """What starts one run on `x` and returns its output, which may not be there yet."""
        module = self.module

        def call() -> Any:
            with torch.inference_mode():
                return module(x)

        return call


def parts_of(output: Any) -> list[torch.Tensor]:
    """The tensors that a module gives: one, or several in a sequence or by name."""
    if isinstance(output, dict):
        return list(output.values())
    return list(output) if isinstance(output, tuple | list) else [output]


def _program(path: str, device: torch.device) -> Any:
    """An exported program as a module, which is in the mode it was exported in."""
    program = torch.export.load(path)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


class EagerNetwork(TorchNetwork):
    """A network whose ops Python calls one after another, so that a profiler can time each (on a CPU)."""

    def move(self) -> None:
        """Copy every parameter and buffer to another place in memory."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            tensor.data = tensor.data.clone()

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        from archdsl.runtimes.adapters.torch_profile import ModuleProfiler

        if self.device.type != "cpu":
            raise failed("no-profile", "single ops are distinguished on a CPU only", where="torch")
        return ModuleProfiler(self.module, self.paths, self.held(x_BX))


def finished_on(device: torch.device, call: Callable[[], Any]) -> Callable[[], Any]:
    """`call`, and after it the wait until the device has done what was queued."""
    if device.type == "cpu":
        return call
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def run() -> Any:
        y = call()
        done.record()
        done.synchronize()
        return y

    return run


def device_of(name: str, runtime: str) -> torch.device:
    """PyTorch's device. Raises: MeasureError (`runtime-missing`) for a GPU where torch sees none"""
    if name == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None:
            message, hint = f"torch {torch.__version__} is built without CUDA", "install a torch that is built for CUDA"
        else:
            message, hint = "torch sees no GPU", "`nvidia-smi` shows the GPUs and the driver"
        raise failed("runtime-missing", message, where=runtime, hint=hint)
    return torch.device(name)


def torch_device_name(name: str, runtime: str) -> str:
    """The device as its maker calls it. Raises: as `device_of`"""
    device = device_of(name, runtime)
    return cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
