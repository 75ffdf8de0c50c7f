"""One training of one network: data, recipes, tasks and the loop.

Importing this imports no torch: recipes and data sources are read and checked without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from archdsl.training.data import SOURCES, Data, DataSource, parse_source
from archdsl.training.outcome import Accuracy, Epoch, TrainingResult
from archdsl.training.recipe import Recipe, parse_recipe
from archdsl.training.results import JsonLines, ResultStore

if TYPE_CHECKING:
    from archdsl.training.loop import Training, train
    from archdsl.training.recipe import RECIPES

_LAZY = {"RECIPES": "recipe", "Training": "loop", "train": "loop"}
"""Names that cost something: module by name."""

__all__ = [
    "RECIPES",
    "SOURCES",
    "Accuracy",
    "Data",
    "DataSource",
    "Epoch",
    "JsonLines",
    "Recipe",
    "ResultStore",
    "Training",
    "TrainingResult",
    "parse_recipe",
    "parse_source",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"archdsl.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
