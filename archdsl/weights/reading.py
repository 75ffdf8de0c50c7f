"""Weights files, which may come from anywhere: read within limits, and never run.

safetensors files hold nothing but numbers; their header is bounded here before the library sees it. PyTorch's own files
are pickles: they are refused unless asked for, and then opened by a child process (`archdsl.weights.unpickle`).
Large models come in several files and an index (`model.safetensors.index.json`), which is read as one file.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor

from archdsl.errors import Place, Problem, WeightsError
from archdsl.processes.child import ChildError
from archdsl.processes.warm import WarmProcess
from archdsl.weights.checkpoints import Chosen

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
MAX_FILE_BYTES = 64 * 2**30
CHILD_MEMORY_BYTES = 2**30
"""What the child that opens a pickle may take, beside four times the size of the file."""
CHILD_SECONDS = 600

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
INDEX = ".index.json"
"""How the name of an index ends: of files with the parts of one state dict."""
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\n", b"\x80\x02}", b"\x80\x04\x95")
"""A zip, an old torch file, plain pickles: read as the length of a header, each is beyond the limit."""
OLDEST_TORCH = (2, 10)
"""Older ones have known holes in `torch.load(weights_only=True)`: CVE-2025-32434, CVE-2026-24747."""


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file held.

    tensors: by the file's names, on the CPU
    averaged: whether they are a moving average (EMA)
    notes: which were taken, where there was a choice
    """

    tensors: dict[str, Tensor]
    averaged: bool = False
    notes: tuple[str, ...] = ()


def read_weights(path: str | os.PathLike[str], *, allow_pickle: bool = False, ema: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU. Arguments and errors as of `read_weights_file`.

    Example:
        >>> import tempfile, torch
        >>> from archdsl.weights.writing import write_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_weights(path := Path(folder) / "w.safetensors", {"fc.bias": torch.zeros(3)})
        ...     sorted(read_weights(path))
        ['fc.bias']
    """
    return read_weights_file(path, allow_pickle=allow_pickle, ema=ema).tensors


def read_weights_file(path: str | os.PathLike[str], *, allow_pickle: bool = False, ema: bool = False) -> WeightsFile:
    """Read a weights file.

    Args:
        path: .safetensors, or an index of several such files; with `allow_pickle` also .pth, .pt, .bin, .ckpt and
            .pth.tar, in which trainers wrap the state dict (see `checkpoints.PLAIN`)
        ema: take the moving average where a pickle holds one beside the plain weights
    Raises: WeightsError when the file is missing, damaged, too large, of another kind, or a pickle that was not allowed
    """
    file = Path(path)
    suffix = file.suffix.lower()
    size = _size_of(file)
    if file.name.lower().endswith(INDEX):
        return WeightsFile(_of_index(file, size, allow_pickle))
    if suffix == ".safetensors":
        return WeightsFile(_safetensors(file))
    if suffix not in PICKLES:
        kinds = ", ".join((".safetensors", INDEX, *PICKLES))
        raise _refused(file, "wrong-value", f"a weights file ends in one of {kinds}, but got {suffix or 'no suffix'!r}")
    if not allow_pickle:
        raise _refused(
            file,
            "pickle",
            f"{suffix} files are pickles, which can run code when they are opened, so they are not read",
            "convert it to safetensors; if you trust its author, say --allow-pickle (allow_pickle=True)",
        )
    return _pickled(file, size, ema)


def _of_index(file: Path, size: int, allow_pickle: bool) -> dict[str, Tensor]:
    """The tensors of the files that an index names, which stand beside it. Each is in the file that the index says."""
    if size > MAX_HEADER_BYTES:
        raise _refused(file, "limit", f"an index may have at most {MAX_HEADER_BYTES:_} bytes, this has {size:_}")
    try:
        places = json.loads(file.read_bytes())["weight_map"]
        parts = sorted({str(part) for part in places.values()})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise _refused(file, "damaged", "it is no index: a mapping `weight_map` of tensors to files is due") from None
    if len(places) > MAX_TENSORS:
        raise _refused(file, "limit", f"a model may have at most {MAX_TENSORS:_} tensors, this has {len(places):_}")
    found: dict[str, Tensor] = {}
    for part in parts:
        if Path(part).name != part or part.lower().endswith(INDEX):
            hint = "the files of an index stand beside it"
            raise _refused(file, "wrong-value", f"it names the file {_clean(part)!r}, which is not beside it", hint)
        wanted = {name for name, place in places.items() if place == part}
        there = read_weights(file.parent / part, allow_pickle=allow_pickle)
        if lost := sorted(wanted - there.keys()):
            hint = "fetch its files again; they may belong to different models"
            message = f"{len(lost)} tensors are not in {part}, where they are due, such as {_clean(lost[0])!r}"
            raise _refused(file, "damaged", message, hint)
        found |= {name: there[name] for name in wanted}
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    """The file is read once: what was checked is what is used."""
    try:
        data = file.read_bytes()
    except (OSError, MemoryError) as error:
        raise _refused(file, "missing-file", f"it cannot be read: {error or 'not enough memory'}") from None
    _check_header(file, data)
    try:
        return parse_safetensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise _damaged(file, str(error) or type(error).__name__) from None


def _check_header(file: Path, data: bytes) -> None:
    """Refuse a header that is not one, or is large enough to keep the library busy."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        if data.startswith(_PICKLE_STARTS):
            hint = f"name it as what it is ({', '.join(PICKLES)}), or convert it to safetensors"
            raise _refused(file, "pickle", "this is a PyTorch file, not safetensors", hint)
        raise _refused(file, "limit", f"a header may have at most {MAX_HEADER_BYTES:_} bytes, this says {length:_}")
    if 8 + length > len(data):
        raise _damaged(file, f"its header should end at byte {8 + length}, but the file has {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _damaged(file, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a mapping")
    if len(header) > MAX_TENSORS:
        raise _refused(file, "limit", f"a file may hold at most {MAX_TENSORS:_} tensors, this has {len(header):_}")


def _pickled(file: Path, size: int, ema: bool) -> WeightsFile:
    """A pickle, converted to safetensors by a child process and read from that."""
    if torch.__version__ < OLDEST_TORCH:  # type: ignore[operator]
        oldest = ".".join(map(str, OLDEST_TORCH))
        message = f"pickles are opened by torch {oldest} or newer only, and this is {torch.__version__}"
        raise _refused(file, "version", message, "update torch, or convert the file to safetensors")
    with tempfile.TemporaryDirectory(prefix="archdsl-weights-") as folder:
        out = Path(folder) / "weights.safetensors"
        memory = CHILD_MEMORY_BYTES + 4 * size
        job = {"path": os.path.abspath(file), "out": str(out), "memory_bytes": memory, "ema": ema}
        try:
            with WarmProcess("archdsl.weights.unpickle", _environment, name="the process that opened it") as child:
                reply = child.ask(job, deadline_s=CHILD_SECONDS)
        except ChildError as error:
            if error.reason == "timeout":
                raise _refused(file, "limit", f"opening it took longer than {CHILD_SECONDS} s") from None
            raise _damaged(file, error.message) from None
        if reply["kind"] != "result":
            hint = "only state dicts of tensors are read: torch.save(model.state_dict(), …), or better safetensors"
            raise _refused(file, "pickle", f"it is not read: {_clean(reply['reason'])}", hint)
        found = Chosen(_safetensors(out), reply["key"], reply["averaged"], tuple(reply["beside"]))
        note = found.note()
        return WeightsFile(found.state, found.averaged, (_clean(note),) if note else ())


def _environment() -> dict[str, str]:
    """The child's environment: no GPU, one thread, and nothing that switches the restricted reader off."""
    kept = {key: value for key, value in os.environ.items() if key != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def _size_of(file: Path) -> int:
    """Bytes of a regular file. Errors: WeightsError when it is none, or too large."""
    try:
        info = file.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(file, "missing-file", f"it cannot be read: {reason}") from None
    if not stat.S_ISREG(info.st_mode):
        raise _refused(file, "not-a-file", "it is not a regular file")
    if info.st_size > MAX_FILE_BYTES:
        raise _refused(file, "limit", f"a file may have at most {MAX_FILE_BYTES:_} bytes, this has {info.st_size:_}")
    return info.st_size


def _damaged(file: Path, reason: str) -> WeightsError:
    hint = "fetch the file again; it may have been cut off on the way"
    return _refused(file, "damaged", f"this is no whole safetensors file: {_clean(reason)}", hint)


def _refused(file: Path, rule: str, message: str, hint: str | None = None) -> WeightsError:
    return WeightsError(Problem(Place(str(file)), rule, message, hint))


def _clean(text: str) -> str:
    """One printable line."""
    return "".join(char if char.isprintable() else " " for char in text)[:500]
