"""From a weights file to the weights of a spec: read, choose, import, and say what was done."""

from __future__ import annotations

import os
from dataclasses import replace

from archdsl.errors import WeightsError
from archdsl.language.architecture.model import Spec
from archdsl.weights.importing import ImportedWeights, import_with_notes
from archdsl.weights.reading import WeightsFile, read_weights_file


def weights_from_file(
    spec: Spec,
    path: str | os.PathLike[str],
    source: str = "archdsl",
    *,
    allow_pickle: bool = False,
    ema: bool = False,
    new_head: bool = False,
    seed: int = 0,
) -> ImportedWeights:
    """The weights of `spec` from a file. Arguments as of `reading.read_weights_file` and `importing.import_weights`.

    Raises: WeightsError as theirs, and when averages are asked for and there are none
    """
    file = read_weights_file(path, allow_pickle=allow_pickle, ema=ema)
    return weights_of_file(spec, file, path, source, ema=ema, new_head=new_head, seed=seed)


def weights_of_file(
    spec: Spec,
    file: WeightsFile,
    path: str | os.PathLike[str],
    source: str,
    *,
    ema: bool,
    new_head: bool,
    seed: int,
    partly: bool = False,
) -> ImportedWeights:
    """`weights_from_file` for a file that was read from `path` already. partly: as of `importing.import_with_notes`"""
    chosen = ema and not file.averaged
    found = import_with_notes(spec, file.tensors, source, new_head=new_head, ema=chosen, seed=seed, partly=partly)
    if ema and not (file.averaged or found.averaged):
        message = f"there are no averaged weights (EMA) in {os.fspath(path)}"
        raise WeightsError.at("--ema", "", "missing-key", message, "leave out --ema")
    return replace(found, notes=(*file.notes, *found.notes))
