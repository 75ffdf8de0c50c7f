"""The state of a training run as one file: numbers as safetensors, everything else as JSON in its header. No pickle.

A file appears whole or not at all. It carries a checksum of its numbers, by which a damaged one is recognized.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from archdsl.errors import TrainingError
from archdsl.files import write_file

FORMAT = "archdsl checkpoint 1"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> Path:
    """Write `Training.state()`. Errors: ArchError (`cannot-write`); what was there before then stays"""
    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(_encoded(state, "", tensors), allow_nan=False)
    return write_file(path, save(tensors, {"format": FORMAT, "state": plain, "check": str(_checksum(tensors))}))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file that `write_checkpoint` wrote, on the CPU.

    Errors: TrainingError `missing-file`, or `damaged` when it is not one, not whole, or its checksum is another one
    """
    if not path.is_file():
        hint = "start without --resume"
        raise TrainingError.at("--resume", str(path), "missing-file", f"there is no {path}", hint)
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        if facts.get("format") != FORMAT:
            raise ValueError(f"its format is {facts.get('format')!r}, not {FORMAT!r}")
        if facts["check"] != str(_checksum(tensors)):
            raise ValueError("its numbers are not those that were written")
        state: dict[str, Any] = _decoded(json.loads(facts["state"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is no checkpoint that can be read: {error}"
        raise TrainingError.at(
            "--resume", str(path), "damaged", message, "remove it, and train from the start"
        ) from error
    return state


def _encoded(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Plain data; each tensor in it goes to `tensors` by the path at which it stood."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": name}
    if isinstance(value, Mapping):
        return {"$items": [[key, _encoded(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_encoded(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encoded(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state holds tensors and plain values, but at {name} there is a {type(value).__name__}")


def _decoded(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_decoded(item, tensors) for item in value["$tuple"])
    return {key: _decoded(item, tensors) for key, item in value["$items"]}


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    check = 0
    for name in sorted(tensors):
        check = zlib.crc32(name.encode(), check)
        check = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, check)
    return check
