"""The process that opens a PyTorch checkpoint: one checkpoint in, one safetensors file out.

A checkpoint is a pickle, which may be made to run code or to use up memory. So it is opened here, by torch's restricted
reader (`weights_only=True`) and within limits, and nothing but plain tensors leaves the process. For the usual settings
beside them (`checkpoints.PLAIN_OBJECTS`) the reader makes empty objects; their own classes are not imported.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from archdsl.processes.channel import connect
from archdsl.processes.frames import Message
from archdsl.processes.limits import Limits, memory_in_use
from archdsl.weights.checkpoints import MAPPINGS, PLAIN_OBJECTS, TYPES, chosen

MOST_LISTED_BYTES = 2**26
"""How much of a pickle is looked through for the name of what was refused."""
_NAMED = re.compile(r"(?:GLOBAL|Unsupported class|reduce for unrecognized function|but got) (<class '[\w.]+'>|[\w.]+)")


def main(arguments: list[str]) -> None:
    """Answer jobs until the parent hangs up. arguments: as `channel.connect` takes them."""
    channel = connect(arguments)
    while (job := channel.receive()) is not None:
        channel.send(convert(**job))


def convert(path: str, out: str, memory_bytes: int, ema: bool) -> Message:
    """Convert the checkpoint `path` to the safetensors file `out`.

    Args:
        memory_bytes: for it, beside what torch takes
        ema: take a moving average where there is one
    Returns: a `result` with the fields of `checkpoints.Chosen` but the tensors; `refused` with the reason
    """
    import torch
    from safetensors.torch import save_file

    Limits(address_space=memory_in_use(resident=False) + memory_bytes).apply()
    try:
        with torch.serialization.safe_globals(_stand_ins()):
            found = chosen(torch.load(path, map_location="cpu", weights_only=True), ema=ema)
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in found.state.items()}, out)
    except Exception as error:
        return {"kind": "refused", "reason": _reason(error, path)}
    return {"kind": "result", "key": found.key, "averaged": found.averaged, "beside": list(found.beside)}


class _Ignored:
    """Stands for an object that is no weight: takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainMapping:
    """Stands for a kind of dict: makes one of a kind that the restricted reader fills."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def _stand_ins() -> list[Any]:
    ignored = [(_Ignored, name) for name in (PLAIN_OBJECTS | TYPES)]
    return [*ignored, *((_PlainMapping, name) for name in MAPPINGS)]


def _reason(error: Exception, path: str) -> str:
    """One line: the global that was refused, or the first sentence of torch's long text, without its advice."""
    text = str(error)
    named = _NAMED.search(text)
    what = named[1].removeprefix("<class '").removesuffix("'>") if named else None
    if what is None and "memory" not in text and "its entry" not in text:
        what = next((name for name in _globals(path) if not name.startswith(("torch._utils.", "collections."))), None)
    if what is not None:
        return f"it needs {what}, which is neither a tensor nor one of the settings that trainers keep"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    plain = [line for line in lines if "weights_only" not in line and "torch.load" not in line]
    return re.split(r" Please |, please ", (plain or ["torch's restricted reader does not open it"])[0])[0][:500]


def _globals(path: str) -> Iterator[str]:
    """The functions and classes that a file's first pickle names. Nothing is called: the opcodes are only listed."""
    try:
        strings: list[str] = []
        for opcode, argument, _ in pickletools.genops(io.BytesIO(_pickle_in(path))):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(argument, str):
                strings.append(argument)
    except (OSError, ValueError, zipfile.BadZipFile, MemoryError):
        return


def _pickle_in(path: str) -> bytes:
    if not zipfile.is_zipfile(path):
        with Path(path).open("rb") as file:
            return file.read(MOST_LISTED_BYTES)
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("data.pkl")), "")
        with archive.open(name) if name else io.BytesIO() as file:
            return file.read(MOST_LISTED_BYTES)
