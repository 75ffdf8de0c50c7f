"""The worker's environment. Thread pools read it before `main`, so it is set from outside, before Python starts.

A spinning OpenMP pool beside a busy neighbour was seen to turn 22 ms into 192 ms: `OMP_WAIT_POLICY=passive` lets idle
threads sleep.
"""

from __future__ import annotations

import os

_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_FIXED = {
    "OMP_WAIT_POLICY": "passive",
    "OMP_DYNAMIC": "false",
    "OMP_PROC_BIND": "false",
    "MKL_DYNAMIC": "false",
    "KMP_BLOCKTIME": "0",
}
_REMOVED = ("GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_AFFINITY", "OMP_PLACES", "OMP_THREAD_LIMIT")
_ONLY_RECORDED = ("LD_PRELOAD", "MALLOC_CONF", "CUDA_VISIBLE_DEVICES", "ARCHDSL_GPU_WAIT")

RECORDED = (*_THREAD_COUNTS, *_FIXED, *_ONLY_RECORDED)
"""The variables that each timing carries, as the worker saw them."""


def worker_environment(threads: int) -> dict[str, str]:
    """Our own environment with everything that steers threads replaced."""
    kept = {name: value for name, value in os.environ.items() if name not in _REMOVED}
    return {**kept, **dict.fromkeys(_THREAD_COUNTS, str(threads)), **_FIXED, "PYTHONUNBUFFERED": "1"}
