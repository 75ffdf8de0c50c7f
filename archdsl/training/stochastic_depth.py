"""A recipe's drop path in place of the spec's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.spec.load import loads
from archdsl.spec.model import Spec
from archdsl.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


def with_drop_path(spec: Spec, recipe: Recipe) -> Spec:
    """The spec as `recipe` trains it: the rate rises linearly over all blocks, from 0 to the recipe's `drop_path`.

    Blocks with a rate of their own keep it. Without a rate in the recipe, the spec as it is. At inference both are the
    same network. Source: https://arxiv.org/abs/1603.09382
    """
    if recipe.drop_path is None or recipe.drop_path == spec.drop_path:
        return spec
    return loads(spec.to_yaml(), spec.name, set={"drop_path": recipe.drop_path}, check=False)


class BuildFor:
    """Spec and seed -> the network that `recipe` trains."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __call__(self, spec: Spec, *, seed: int) -> nn.Module:
        from archdsl import compiler

        return compiler.build(with_drop_path(spec, self.recipe), seed=seed)
