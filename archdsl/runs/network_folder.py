"""The folder of a training or of a build, as a later command takes it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError
from archdsl.language.text.files import shipped_names
from archdsl.runs.trained_on import TrainingData
from archdsl.runtimes.artefact import ArtefactKind

BUILD, TRAINING = "build.json", "train.json"
SPEC, WEIGHTS = "spec.yaml", "model.safetensors"
KIND_OF: Mapping[str, ArtefactKind] = {"onnx": "onnx", "pt2": "pt2", "tensorrt": "engine"}
"""Of the kinds of a build, those that a runtime takes, and what they are to it."""


@dataclass(frozen=True)
class BuiltFile:
    """One file of a build that a runtime can run. batch: images at once, None where any number is taken"""

    path: Path
    kind: ArtefactKind
    precision: str
    batch: int | None
    form: str


@dataclass(frozen=True)
class NetworkFolder:
    """What such a folder holds.

    facts:      what build.json or train.json says; empty without
    trained_on: the same about the data behind the weights
    built:      what a runtime can run, in the order in which it was made
    """

    path: Path
    facts: Mapping[str, Any]
    trained_on: TrainingData
    built: tuple[BuiltFile, ...] = ()

    @classmethod
    def read(cls, path: Path) -> NetworkFolder:
        """Raises: ArchError (`damaged`) when a file says of classes or preprocessing what cannot be read"""
        for name in (BUILD, TRAINING):
            facts = _json_in(path / name)
            if facts:
                return cls(path, facts, TrainingData.read(facts, str(path / name)), tuple(_built(path, facts)))
        return cls(path, {}, TrainingData())

    @property
    def weights(self) -> Path | None:
        """The weights by archdsl's names, where there are any."""
        found = self.path / WEIGHTS
        return found if found.is_file() else None

    def needed_weights(self) -> Path:
        """The weights. Raises: ArchError (`missing-file`) where there are none, with how to come by them"""
        if self.weights is not None:
            return self.weights
        message = f"{self.path} has no {WEIGHTS}, so its weights are not known"
        hint = f"build it with --emit torch, or name {self.path / SPEC} with --weights"
        if (self.path / TRAINING).is_file():
            hint = f"end its training first: archdsl train … --out {self.path} --resume"
        raise ArchError.at("spec", str(self.path), "missing-file", message, hint)


def folder_of(name: str | os.PathLike[str]) -> NetworkFolder | None:
    """The folder of a training or a build that `name` leads to; None where it leads to none, but may to a spec.

    Raises: ArchError (`missing-file`) for another folder, and as `read`
    """
    path = Path(name)
    if (path / SPEC).is_file():
        return NetworkFolder.read(path)
    if path.is_dir() and os.fspath(name) not in shipped_names("specs"):
        message = f"the folder {path} is of no training or build: it has no {SPEC}"
        hint = "name a spec, or the folder that `archdsl train --out` or `archdsl build -o` wrote"
        raise ArchError.at("spec", str(name), "missing-file", message, hint)
    return None


def _json_in(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _built(folder: Path, facts: Mapping[str, Any]) -> list[BuiltFile]:
    """Those of the artefacts whose files are there and lie in the folder."""
    found = []
    listed = facts.get("artefacts")
    for made in listed if isinstance(listed, list) else ():
        match made:
            case {"kind": str(kind), "precision": str(precision), "form": str(form), "files": [str(file), *_]}:
                path = folder / Path(file).name
                batch = made.get("batch")
                if kind in KIND_OF and path.is_file():
                    size = batch if isinstance(batch, int) else None
                    found.append(BuiltFile(path, KIND_OF[kind], precision, size, form))
    return found
