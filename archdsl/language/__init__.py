"""The language: YAML text -> Spec and Space, with the place of everything that is wrong."""

from archdsl.language.architecture.load import load, loads, shipped_specs
from archdsl.language.architecture.model import Expect, InputSpec, Spec, Stage
from archdsl.language.space.load import load_any, load_space, loads_space, shipped_spaces
from archdsl.language.space.space import Space

__all__ = [
    "Expect",
    "InputSpec",
    "Space",
    "Spec",
    "Stage",
    "load",
    "load_any",
    "load_space",
    "loads",
    "loads_space",
    "shipped_spaces",
    "shipped_specs",
]
