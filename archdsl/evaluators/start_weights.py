"""The weights from which each training of a study starts: one file, of which every network takes what fits it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.errors import WeightsError
from archdsl.json_fields import JsonFields
from archdsl.language.architecture.model import Spec
from archdsl.training.recipe import BuildFor, Recipe

if TYPE_CHECKING:
    from torch import nn

    from archdsl.weights.importing import ImportedWeights
    from archdsl.weights.reading import WeightsFile


@dataclass(frozen=True)
class StartWeights(JsonFields):
    """A weights file as it is used.

    file:          its absolute path; sha256: of its bytes, and those of the files that it names where it is an index
    source:        whose names it uses (`weights.importing.import_weights`)
    ema, new_head: as there
    """

    file: str
    source: str
    sha256: str
    ema: bool = False
    new_head: bool = False

    @classmethod
    def of(cls, spec: Spec, file: str, source: str, *, ema: bool, new_head: bool) -> StartWeights:
        """The weights in a file, all of which must fit `spec`, from which the networks of a study are made.

        Raises: WeightsError, as `weights_from_file`; a pickle is refused in any case
        """
        path = os.path.abspath(os.path.expanduser(file))
        found = cls(path, source, _digest(path), ema, new_head)
        found.fitted_to(spec, 0, partly=False)
        return found

    def fitted_to(self, spec: Spec, seed: int, *, partly: bool = True) -> ImportedWeights:
        """The weights of a network: what fits comes from the file, the rest are initial weights of `seed`.

        partly: else everything must fit
        Raises: WeightsError; `other-study` when the file is not the one of the study any more
        """
        from archdsl.weights.from_file import weights_of_file

        return weights_of_file(
            spec,
            _read(self.file, self.ema, self.sha256),
            self.file,
            self.source,
            ema=self.ema,
            new_head=self.new_head,
            seed=seed,
            partly=partly,
        )

    def identity(self) -> dict[str, Any]:
        """What a study that goes on must share: everything but where the file is."""
        return {name: value for name, value in self.as_json().items() if name != "file"}

    def key(self) -> str:
        """The same as one line, for the keys of finished trainings."""
        chosen = "".join(f" {name}" for name in ("ema", "new_head") if getattr(self, name))
        return f"weights={self.sha256[:24]} from={self.source}{chosen}"


class BuildFrom:
    """Spec and seed -> the network that `recipe` trains, with weights to start from."""

    def __init__(self, recipe: Recipe, start: StartWeights):
        self.build, self.start = BuildFor(recipe), start

    def __call__(self, spec: Spec, *, seed: int) -> nn.Module:
        return self.build(spec, seed=seed, weights=self.start.fitted_to(spec, seed).weights)


@lru_cache(maxsize=1)
def _read(path: str, ema: bool, sha256: str) -> WeightsFile:
    """The tensors of a file, read once. Errors: WeightsError when it is no longer the file of that digest"""
    from archdsl.weights.reading import read_weights_file

    try:
        found = read_weights_file(path, ema=ema)
    except WeightsError as error:
        raise WeightsError([replace(each, hint=_HINTS.get(each.rule, each.hint)) for each in error.problems]) from error
    if _digest(path) != sha256:
        message = f"{path} is not the file that the study began with: its contents have changed"
        raise WeightsError.at("--weights", path, "other-study", message, "bring it back, or begin another study")
    return found


_HINTS = {
    "pickle": "build it as safetensors first: archdsl build SPEC --weights FILE --allow-pickle --emit torch -o DIR"
}


def _digest(path: str) -> str:
    """SHA-256 of the file's bytes, and of the files that an index names. Whether it can be read, its reader says."""
    digest = hashlib.sha256()
    for part in _files(path):
        try:
            if os.path.exists(part) and not os.path.isfile(part):  # a pipe would be waited for
                raise OSError("it is not a regular file")
            with open(part, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except (OSError, ValueError) as error:
            message = f"{part} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise WeightsError.at("--weights", path, "missing-file", message, "name a weights file") from error
    return digest.hexdigest()


def _files(path: str) -> Iterable[str]:
    yield path
    if path.endswith(".json"):
        try:
            names = set(json.loads(Path(path).read_bytes())["weight_map"].values())
            yield from (str(Path(path).with_name(name)) for name in sorted(names))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
