"""Weights to a safetensors file, which appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

from archdsl.files import write_file


def write_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Write tensors by name; `read_weights` gives them back. A file of that name is replaced.

    Errors: ArchError (`cannot-write`) when the folder is missing or the disk is full; then nothing has changed
    """
    write_file(path, save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in sorted(state.items())}))
