"""How the CPU waits for the GPU: blocked, or spinning.

`ARCHDSL_GPU_WAIT` says which, for every runtime on a GPU:

- `auto` (the default): CUDA chooses. It spins while there are no more CUDA contexts than cores, as is usual here.
- `spin`: the thread asks until the GPU is done. The shortest and steadiest times, for a core that does nothing else;
  NVIDIA's own benchmarks do it (`trtexec --useSpinWait`).
- `block`: the thread sleeps until it is woken, which costs some microseconds a run and leaves the core to others.

It is a flag of the device's primary context, which PyTorch, ONNX Runtime and TensorRT share, so it is set once, through
the driver, before any of them starts. A timing carries the variable in its environment, and where it is not `auto` it
is a part of the target's fingerprint. Exercised with a stand-in for the driver; not yet run on a GPU by us.

Source: CUDA Driver API, `cuDevicePrimaryCtxSetFlags` and `CUctx_flags`
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from archdsl.errors import ArchError
from archdsl.failures import failed

VARIABLE = "ARCHDSL_GPU_WAIT"
FLAGS: Mapping[str, int] = {"auto": 0, "spin": 1, "block": 4}
"""CU_CTX_SCHED_AUTO, CU_CTX_SCHED_SPIN, CU_CTX_SCHED_BLOCKING_SYNC."""


def chosen_wait() -> str:
    """The value of the variable. Raises: ArchError when it is none of `FLAGS`"""
    found = os.environ.get(VARIABLE, "") or "auto"
    if found not in FLAGS:
        message = f"{VARIABLE} is one of {', '.join(FLAGS)}, got {found!r}"
        hint = f"unset {VARIABLE}, or set it to spin"
        raise ArchError.at("environment", f"{VARIABLE}={found}", "unknown-name", message, hint)
    return found


@cache
def prepare_gpu() -> None:
    """`set_gpu_wait`, once in a process. Raises: as there"""
    set_gpu_wait()


def set_gpu_wait(driver: Any = None) -> None:
    """Have the first GPU waited for as the variable says. To be called before a library makes the GPU's context.

    driver: NVIDIA's library `libcuda`, loaded if not given
    Raises: ArchError as `chosen_wait`; MeasureError (`runtime-missing`) when there is no driver, or it refuses
    """
    how = chosen_wait()
    if how == "auto":
        return
    driver = driver or _driver()
    device = ctypes.c_int()
    steps: dict[str, Callable[[], int]] = {
        "cuInit": lambda: driver.cuInit(0),
        "cuDeviceGet": lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        "cuDevicePrimaryCtxSetFlags": lambda: driver.cuDevicePrimaryCtxSetFlags_v2(device, FLAGS[how]),
    }
    for name, step in steps.items():
        code = step()
        if code:
            message = f"the GPU cannot be waited for with `{how}`: {name} gave the error {code}"
            hint = f"unset {VARIABLE}; `nvidia-smi` shows the GPUs and the driver"
            raise failed("runtime-missing", message, where="cuda", hint=hint)


def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        message = f"{VARIABLE} needs NVIDIA's driver, which cannot be loaded: {error}"
        raise failed("runtime-missing", message, where="cuda", hint=f"unset {VARIABLE}") from error
