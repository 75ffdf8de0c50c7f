"""The libraries TensorRT and TensorRT for RTX: import, supported versions, log messages, and the GPU they would use."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from archdsl.backends.trt import api as api
from archdsl.errors import BackendError


@dataclass(frozen=True)
class Product:
    """One of NVIDIA's two TensorRTs, whose Python modules have the same members.

    module: its name in Python; title: its maker's name for it
    oldest, newest: the oldest minor and the newest major version that this backend is written for
    install: the command that brings it
    ahead_of_time: it builds engines for GPUs by their compute capability, without one and without a driver
    """

    module: str
    title: str
    oldest: tuple[int, int]
    newest: int
    install: str
    ahead_of_time: bool = False


CLASSIC = Product("tensorrt", "TensorRT", (10, 12), 11, "pip install 'archdsl[tensorrt]'")
RTX = Product("tensorrt_rtx", "TensorRT for RTX", (1, 7), 1, "pip install 'archdsl[tensorrt-rtx]'", ahead_of_time=True)


class TensorRT(api.Constructors, Protocol):
    """The module of a product, as far as we use it."""

    __version__: str
    BuilderFlag: api.BuilderFlag
    HardwareCompatibilityLevel: api.HardwareCompatibilityLevel
    ILogger: type[Any]  # to be subclassed, as api.ILogger
    IProfiler: type[Any]  # to be subclassed, as api.IProfiler
    LayerInformationFormat: api.LayerInformationFormat
    MemoryPoolType: api.MemoryPoolType
    NetworkDefinitionCreationFlag: api.NetworkDefinitionCreationFlag
    ProfilingVerbosity: api.ProfilingVerbosity
    TensorIOMode: api.TensorIOMode


def failure(rule: str, message: str, hint: str | None = None, *, at: str = "tensorrt") -> BackendError:
    """A BackendError about TensorRT."""
    return BackendError.at("tensorrt", at, rule, message, hint)


def load_tensorrt(product: Product = CLASSIC) -> TensorRT:
    """The module of a product. Errors: BackendError when it is missing, incomplete, or of a version we do not know."""
    try:
        found = import_module(product.module)
    except ModuleNotFoundError as error:
        in_part = f"{product.title} is installed in part: there is no module {error.name}"
        message = f"{product.title} is not installed" if error.name == product.module else in_part
        raise failure("missing-library", message, product.install) from error
    except Exception as error:  # the bindings load shared libraries, and say in many ways that they cannot
        message = f"{product.title}'s Python bindings are there, but its libraries cannot be loaded: {_line(error)}"
        hint = f"{product.install} brings them; a system-wide {product.title} must be on LD_LIBRARY_PATH"
        raise failure("missing-library", message, hint) from error
    trt = cast(TensorRT, found)
    check_version(str(getattr(trt, "__version__", "")), product)
    return trt


def check_version(version: str, product: Product = CLASSIC) -> None:
    """Errors: BackendError when this is not a version of the product that the backend is written for."""
    match = re.match(r"(\d+)\.(\d+)", version)
    title, install = product.title, product.install
    known = f"this backend needs {title} {product.oldest[0]}.{product.oldest[1]} to {product.newest}.x"
    if not match:
        raise failure("version", f"the module `{product.module}` has no version; {known}", install)
    number = (int(match[1]), int(match[2]))
    if number < product.oldest:
        raise failure("version", f"{title} {version} is too old; {known}", f"{install} --upgrade")
    if number[0] > product.newest:
        raise failure("version", f"{title} {version} is newer than this release of archdsl; {known}", install)


# ---- messages

ERRORS = ("INTERNAL_ERROR", "ERROR")
LAYER, TYPE = "Name: ", ", LayerType: "
"""What marks a line of the log that describes a layer of the finished engine."""
_MEMORY = re.compile(r"out.?of.?memory|insufficient memory|bad_alloc|cudaErrorMemoryAllocation", re.IGNORECASE)


@dataclass
class Log:
    """The last errors and warnings of TensorRT, in order. `logger` is the object that TensorRT calls.

    The logger must live as long as anything that was made with it.

    layers: the lines in which the builder describes the layers of a finished engine, in order (`build_log` reads them)
    """

    messages: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=200))
    layers: list[str] = field(default_factory=list)
    logger: api.ILogger = field(init=False)

    def note(self, severity: api.Member, text: str) -> None:
        """Keep a message, unless it is chatter. Never raises: the caller is C++."""
        with contextlib.suppress(Exception):
            name = severity.name
            if name in ERRORS or name == "WARNING":
                self.messages.append((name, text.strip()))
            elif TYPE in text:
                self.layers += [line for line in text.split("\n") if line.startswith(LAYER) and TYPE in line]

    def errors(self, last: int = 5) -> list[str]:
        """The last errors, without repetitions."""
        found = dict.fromkeys(text for severity, text in list(self.messages) if severity in ERRORS)
        return list(found)[-last:]

    def warnings(self) -> list[str]:
        """The warnings, without repetitions."""
        return list(dict.fromkeys(text for severity, text in list(self.messages) if severity == "WARNING"))

    def reason(self, otherwise: str = "TensorRT gave no reason") -> str:
        """The last errors as one text."""
        return "; ".join(self.errors()) or otherwise

    def memory_ran_out(self) -> bool:
        """Whether an error says that memory, of the GPU or the host, ran out."""
        return any(_MEMORY.search(text) for text in self.errors())


def open_log(trt: TensorRT) -> Log:
    """A log with a logger for TensorRT to write to."""
    log = Log()
    # A base known only at run time. No __init__ of our own: the bindings insist that theirs runs, and so it does.
    methods = {"log": lambda _self, severity, msg: log.note(severity, msg)}
    log.logger = type("Logger", (trt.ILogger,), methods)()
    return log


def gave_up(what: str, log: Log, error: BaseException | None = None) -> BackendError:
    """The error for something TensorRT returned nothing for, or raised."""
    reason = log.reason(_line(error)) if error else log.reason()
    if log.memory_ran_out() or isinstance(error, MemoryError) or (error and _MEMORY.search(str(error))):
        hint = "use a smaller batch or `workspace_bytes`, or end what else uses the GPU"
        return failure("out-of-memory", f"memory ran out while TensorRT {what}: {reason}", hint)
    return failure("tensorrt", f"TensorRT failed while it {what}: {reason}")


def make_builder(trt: TensorRT, log: Log) -> api.Builder:
    """A builder. Errors: BackendError when there is no GPU that TensorRT can use."""
    try:
        return trt.Builder(log.logger)
    except Exception as error:
        raise no_gpu(trt, log, error) from error


def make_runtime(trt: TensorRT, log: Log) -> api.IRuntime:
    """A runtime. Errors: BackendError when there is no GPU that TensorRT can use."""
    try:
        return trt.Runtime(log.logger)
    except Exception as error:
        raise no_gpu(trt, log, error) from error


def no_gpu(trt: TensorRT, log: Log, error: BaseException) -> BackendError:
    """The error for a class of TensorRT that could not be made: no usable GPU, or no memory."""
    if log.memory_ran_out() or isinstance(error, MemoryError):
        return gave_up("started", log, error)
    title = next((each.title for each in (RTX,) if each.module == getattr(trt, "__name__", "")), CLASSIC.title)
    message = f"{title} {trt.__version__} found no GPU that it can use: {log.reason(_line(error))}"
    return failure("no-gpu", message, "`nvidia-smi` shows the GPUs and the driver; TensorRT runs on NVIDIA GPUs only")


def gpu_name() -> str | None:
    """The GPU that torch, or else NVIDIA's own library, would use first; None when there is none. Never raises."""
    for ask in (_gpu_by_torch, _gpu_by_nvml):
        with contextlib.suppress(Exception):
            name = ask()
            if name:
                return name
    return None


DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")
"""What Linux has where NVIDIA's driver is loaded; the last is Windows's, for Linux inside it."""


def has_gpu_driver() -> bool:
    """Whether this machine may have an NVIDIA GPU although nobody can name it: its libraries are not installed, or
    CUDA_VISIBLE_DEVICES hides it."""
    return sys.platform != "linux" or any(map(os.path.exists, DRIVERS))


def _gpu_by_torch() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _gpu_by_nvml() -> str:
    return _of_nvml(lambda nvml: nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)))


def gpu_driver() -> str | None:
    """The version of NVIDIA's driver; None where NVIDIA's library cannot be asked. Never raises."""
    with contextlib.suppress(Exception):
        return _of_nvml(lambda nvml: nvml.nvmlSystemGetDriverVersion())
    return None


def _of_nvml(ask: Callable[[Any], str | bytes]) -> str:
    """A text that NVIDIA's management library gives. Raises: whatever that library raises"""
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    try:
        found = ask(nvml)
        return found.decode() if isinstance(found, bytes) else str(found)
    finally:
        nvml.nvmlShutdown()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
