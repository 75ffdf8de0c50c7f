"""A part is a named piece of network: a stem, a block, a downsampling or a head.

It is a pydantic class of fields (what a user may write in YAML) and one `lower` (what it means as a graph). The class
is registered under its kind and name, so that the language, its JSON Schema and its errors know it; nothing else in
archdsl knows a part by name.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from archdsl.errors import ArchError, Problem, at_argument

if TYPE_CHECKING:
    from archdsl.blocks.flow import Flow
    from archdsl.ir.graph import Scope

PLUGINS_VARIABLE = "ARCHDSL_PLUGINS"
"""The environment variable that names plug-in files, so that worker processes know them too."""

PartKind = Literal["stem", "block", "downsample", "head"]


class Part(BaseModel):
    """Fields of one part. Unknown fields are errors; a validated part does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: ClassVar[PartKind]
    type_name: ClassVar[str]

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        """What a scalar means for each of `depth` blocks: by default the same for all."""
        return [value] * depth


class Stem(Part):
    """Image -> first feature map."""

    kind = "stem"

    @abstractmethod
    def lower(self, g: Scope, flow: Flow) -> Flow:
        """Write the nodes of this part into `g` and return what flows on."""


class Block(Part):
    """Features -> features of the same shape; `depth` of them make a stage."""

    kind = "block"

    @abstractmethod
    def lower(self, g: Scope, flow: Flow) -> Flow:
        """Write the nodes of this part into `g` and return what flows on."""


class Downsample(Part):
    """Features -> a smaller map of width `dim`, before a stage's blocks."""

    kind = "downsample"

    @abstractmethod
    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        """Write the nodes of this part into `g` and return what flows on."""


class Head(Part):
    """Features -> what the network is for."""

    kind = "head"

    @abstractmethod
    def lower(self, g: Scope, flow: Flow) -> Flow:
        """Write the nodes of this part into `g` and return what flows on."""


P = TypeVar("P", bound=type[Part])

_REGISTRY: dict[PartKind, dict[str, type[Part]]] = {"stem": {}, "block": {}, "downsample": {}, "head": {}}


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make a part known by `name` in YAML."""

    def add(cls: P) -> P:
        known = _REGISTRY[cls.kind]
        if name in known and known[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"two {cls.kind}s are called {name!r}: {known[name].__module__} and {cls.__module__}")
        cls.type_name = name
        known[name] = cls
        return cls

    return add


def parts(kind: PartKind) -> dict[str, type[Part]]:
    """All registered parts of one kind by name, those of plug-ins included."""
    _load_plugins()
    return _REGISTRY[kind]


@cache
def _load_plugins() -> None:
    """Import installed plug-ins (entry points `archdsl.blocks`) and the files named in PLUGINS_VARIABLE."""
    for entry in entry_points(group="archdsl.blocks"):
        entry.load()
    for path in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
        load_plugin(Path(path))


def load_plugin(path: Path) -> None:
    """Run a Python file that registers parts. Errors: ArchError when it is missing or fails."""
    spec = spec_from_file_location(f"archdsl_plugin_{path.stem}", path)
    problem: str | None = None
    if spec is None or spec.loader is None or not path.is_file():
        problem = "there is no such Python file"
    else:
        try:
            spec.loader.exec_module(module_from_spec(spec))
        except Exception as error:
            problem = f"it failed: {type(error).__name__}: {error}"
    if problem:
        place = at_argument("--plugin", str(path))
        raise ArchError(Problem(place, "plugin", f"the plug-in {path} cannot be loaded: {problem}"))
