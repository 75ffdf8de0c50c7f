"""A script, run as a child process: one PyTorch checkpoint in, one safetensors file out.

A checkpoint is a pickle, which may be made to run code or to use up memory. So it is opened here, by torch's restricted
reader (`weights_only=True`) and within limits, and nothing but plain tensors leaves the process. It imports nothing of
archdsl, so that it starts the same whatever is installed.

    python unpickle.py CHECKPOINT OUT MEMORY_BYTES        # the memory is what reading may take, beside torch itself

Exit status: 0 done; 3 the file is refused, and the last line on stderr says why.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

REFUSED = 3
WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the state dict beside other things."""


def main(path: str, out: str, memory_bytes: int) -> int:
    """Convert, and return the exit status."""
    import torch
    from safetensors.torch import save_file

    _limit(memory_bytes)
    try:
        state = state_dict_in(torch.load(path, map_location="cpu", weights_only=True))
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, out)
    except Exception as error:
        print(_reason(error), file=sys.stderr)
        return REFUSED
    return 0


def state_dict_in(loaded: Any) -> dict[str, Any]:
    """The state dict itself: the file's content, or what it holds under one of WRAPPERS."""
    import torch

    if isinstance(loaded, Mapping):
        for key in WRAPPERS:
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
                break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"it holds a {type(loaded).__name__}, not a state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"its entry {str(name)[:80]!r} is a {type(value).__name__}, not a tensor by name")
    return dict(loaded)


def _limit(memory_bytes: int) -> None:
    """Bound the memory taken from now on and switch off core dumps, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes, taken + memory_bytes))


def _reason(error: Exception) -> str:
    """One line: of torch's long text the sentence that names what it refused."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    telling = [line for line in lines if "Unsupported" in line or ("weights_only" in line and "Cannot" in line)]
    return (telling or lines)[0][:500]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
