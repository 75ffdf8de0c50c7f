"""What is known of the data that a network was trained on: read back from where trainings and builds wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from archdsl.errors import ArchError
from archdsl.language.architecture.model import Preprocessing, Spec

KEYS = ("classes", "preprocessing")
OURS = "archdsl_version"
"""In the metadata of an ONNX file that archdsl wrote."""

_CLASSES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
_PREPROCESSING: TypeAdapter[Preprocessing | None] = TypeAdapter(Preprocessing | None)


@dataclass(frozen=True)
class TrainingData:
    """The data behind a network's weights, as far as they are known.

    classes:       their names by output; None: not known
    preprocessing: how an image becomes what the network sees; None: not known, or they were no pixels
    said_by:       the file that says it, for people
    """

    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    said_by: str = ""

    @classmethod
    def read(cls, facts: Mapping[str, Any], said_by: str) -> TrainingData:
        """From the keys `classes` and `preprocessing`. Raises: ArchError (`damaged`) when they are of no known form"""
        try:
            classes = _CLASSES.validate_python(facts["classes"], strict=False) if facts.get("classes") else None
            # JSON has no tuples, so the strict model is read leniently
            preprocessing = _PREPROCESSING.validate_python(facts.get("preprocessing"), strict=False)
            return cls(classes, preprocessing, said_by)
        except ValidationError as error:
            first = error.errors()[0]
            what = ".".join(map(str, first["loc"])) or "they"
            message = f"{said_by} says of classes and preprocessing what cannot be read: {what}: {first['msg']}"
            raise ArchError.at(said_by, "", "damaged", message, "train or build it again") from error

    @classmethod
    def of_spec(cls, spec: Spec) -> TrainingData:
        """From the spec's key `trained_on`, as specs of a front have it."""
        said = spec.trained_on
        return cls() if said is None else cls(said.classes, said.preprocessing, spec.name)

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str], said_by: str) -> TrainingData:
        """From the metadata of an ONNX file, where the values are JSON. Others' entries of these names may be anything.

        Raises: as `read`, for a file that archdsl wrote
        """
        facts: dict[str, Any] = {}
        for key in KEYS:
            try:
                facts[key] = json.loads(metadata.get(key, "null"))
            except (ValueError, RecursionError):
                facts[key] = metadata[key]
        try:
            return cls.read(facts, said_by)
        except ArchError:
            if OURS in metadata:
                raise
            return cls(said_by=said_by)
