"""Real training: data, recipes, the loop, and the evaluator that turns a spec into an accuracy.

Importing this imports no torch: recipes and data sources are read and checked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.training.data import SOURCES, Data, Source, parse_source
from archdsl.training.evaluator import Accuracy, Evaluator, TrainEvaluator
from archdsl.training.outcome import Epoch, Outcome
from archdsl.training.recipe import Recipe, parse_recipe
from archdsl.training.results import JsonLines, ResultStore

if TYPE_CHECKING:
    from archdsl.training.loop import Training, train
    from archdsl.training.recipe import RECIPES

_NEED_TORCH = ("Training", "train")

__all__ = [
    "RECIPES",
    "SOURCES",
    "Accuracy",
    "Data",
    "Epoch",
    "Evaluator",
    "JsonLines",
    "Outcome",
    "Recipe",
    "ResultStore",
    "Source",
    "TrainEvaluator",
    "Training",
    "parse_recipe",
    "parse_source",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        from archdsl.training import loop

        return getattr(loop, name)
    if name == "RECIPES":
        from archdsl.training import recipe

        return recipe.RECIPES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
