"""A part is a named piece of network: a stem, a block, a downsampling, a neck or a head.

It is a pydantic class of fields (what a user may write in YAML) and one `lower` (what it means as a graph). The class
is registered under its kind and name, so that the language, its JSON Schema and its errors know it; nothing else in
archdsl knows a part by name.
"""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from archdsl.errors import ArchError, Problem, RuleBroken, at_argument
from archdsl.parts.plugin_code import HINT, PluginFailed, run_plugin_code
from archdsl.parts.weight_names import WeightNames

if TYPE_CHECKING:
    from archdsl.ir.graph import Scope
    from archdsl.parts.flow import Flow

PLUGINS_VARIABLE = "ARCHDSL_PLUGINS"
"""The environment variable that names plug-in files, so that worker processes know them too."""

PartKind = Literal["stem", "block", "downsample", "neck", "head"]


class Part(BaseModel):
    """Fields of one part. Unknown fields are errors; a validated part does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: ClassVar[PartKind]
    type_name: ClassVar[str]
    weight_names: ClassVar[Mapping[str, WeightNames]] = {}
    """Source of weights (`timm`, …) -> how it names the tensors of networks with this part."""

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        """The values of a field for each of `depth` blocks, from one scalar: by default the scalar itself.

        Raises: RuleBroken when the scalar has no such meaning
        """
        return [value] * depth


class PlainPart(Part):
    """A part that needs nothing but what flows into it: all but a downsampling."""

    @abstractmethod
    def lower(self, g: Scope, flow: Flow) -> Flow:
        """Add the nodes of this part to `g` and return the flow after it. Raises: RuleBroken where it does not fit."""


class Stem(PlainPart):
    """Image -> first feature map."""

    kind = "stem"


class Block(PlainPart):
    """Features -> features of the same shape; `depth` of them make a stage."""

    kind = "block"


class Downsample(Part):
    """Features -> a smaller map of width `dim`, before a stage's blocks."""

    kind = "downsample"

    @abstractmethod
    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        """Add the nodes of this part to `g` and return the flow after it. Raises: RuleBroken where it does not fit."""


class Neck(PlainPart):
    """Feature maps -> other feature maps, for heads that need more than the last one: it rewrites `flow.maps`."""

    kind = "neck"


class Head(PlainPart):
    """Features -> what the network is for. reads_maps: whether it reads the feature maps beside the last one"""

    kind = "head"
    reads_maps: ClassVar[bool] = False


P = TypeVar("P", bound=type[Part])

_REGISTRY: dict[PartKind, dict[str, type[Part]]] = {kind: {} for kind in get_args(PartKind)}


def register(name: str) -> Callable[[P], P]:
    """Class decorator: register a part under `name`, its name in YAML.

    Raises: ValueError when another class of that kind has the name
    """

    def add(cls: P) -> P:
        known = _REGISTRY[cls.kind]
        if name in known and known[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"two {cls.kind}s are called {name!r}: {known[name].__module__} and {cls.__module__}")
        cls.type_name = name
        known[name] = cls
        return cls

    return add


def parts(kind: PartKind) -> dict[str, type[Part]]:
    """All registered parts of one kind by name, including those of plug-ins."""
    _load_plugins()
    return _REGISTRY[kind]


@cache
def _load_plugins() -> None:
    """Import installed plug-ins (entry points `archdsl.blocks`) and the files named in PLUGINS_VARIABLE."""
    problems: list[Problem] = []
    for entry in entry_points(group="archdsl.blocks"):
        try:
            run_plugin_code(entry.load)
        except PluginFailed as failed:
            message = f"the installed plug-in {entry.name} cannot be loaded: it failed: {failed}"
            hint = f"mend or uninstall the package that names `{entry.value}` in the entry points archdsl.blocks"
            problems.append(Problem(at_argument("archdsl.blocks", entry.value), "plugin", message, hint))
    for path in filter(None, os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep)):
        try:
            load_plugin(Path(path))
        except ArchError as error:
            problems += error.problems
    if problems:
        raise ArchError(problems)


def load_plugin(path: Path) -> None:
    """Run a Python file that registers parts. Raises: ArchError when it is missing or fails."""
    name = f"archdsl_plugin_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise _unloaded(path, "there is no such Python file", None)
    sys.modules[name] = module = module_from_spec(spec)  # where pydantic looks up the types of fields
    try:
        run_plugin_code(partial(spec.loader.exec_module, module), spec.origin)
    except (PluginFailed, RuleBroken) as failed:
        del sys.modules[name]
        raise _unloaded(path, f"it failed: {failed}", HINT) from failed.__cause__


def _unloaded(path: Path, why: str, hint: str | None) -> ArchError:
    return ArchError.at("--plugin", str(path), "plugin", f"the plug-in {path} cannot be loaded: {why}", hint)
