"""The language: YAML text -> Spec and Space, with the place of everything that is wrong."""

from archdsl.spec.load import load, loads, shipped_specs
from archdsl.spec.model import Expect, Input, Spec, Stage
from archdsl.spec.space import Space
from archdsl.spec.space_file import load_any, load_space, loads_space, shipped_spaces

__all__ = [
    "Expect",
    "Input",
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
