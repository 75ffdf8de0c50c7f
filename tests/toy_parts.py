"""A vocabulary of its own, so that tests of the language show that it knows no architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from archdsl.errors import RuleBroken
from archdsl.parts import part
from archdsl.parts.part import Block, Downsample, Head, Stem

Norm = Literal["layer", "batch", "none"]


class Unused:
    """The tests of the language build no graph, so the toys mean nothing."""

    def lower(self, g: object, flow: Any, *more: object) -> Any:
        return flow


class Tiles(Unused, Stem):
    tile: int = Field(default=4, ge=1)
    dim: int = Field(ge=1)
    norm: Norm = "none"


class Weave(Unused, Block):
    """A block with most kinds of field."""

    heads: int = Field(ge=1)
    window: int | Literal["map"] = 7
    shift: bool = False
    norm: Norm = "layer"
    act: Literal["gelu", "relu"] = "gelu"
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    kernel: tuple[int, int] = (3, 3)
    note: Annotated[str, Field(max_length=5)] | None = None
    drop_path: float | None = Field(default=None, ge=0, lt=1)

    @classmethod
    def spread(cls, field: str, value: Any, depth: int) -> Sequence[Any]:
        if field == "shift" and value is True:
            return [index % 2 == 1 for index in range(depth)]
        if field == "note" and value == "once":
            raise RuleBroken("a note cannot be spread", hint="write a list", rule="spread")
        return super().spread(field, value, depth)

    @model_validator(mode="after")
    def _map_is_not_shifted(self) -> Weave:
        if self.window == "map" and self.shift:
            raise RuleBroken("a window that is the map has no shift", field="shift", rule="conflict")
        return self


class Plain(Unused, Block):
    size: int = Field(default=3, ge=1)
    norm: Norm = "batch"


class Fold(Unused, Downsample):
    norm: Literal["layer", "none"] = "layer"


class Halve(Unused, Downsample):
    factor: int = 2


class Classes(Unused, Head):
    classes: int = Field(default=10, ge=1)
    pool: Literal["avg", "token"] = "avg"


TOYS: dict[str, dict[str, type]] = {
    "neck": {},
    "stem": {"tiles": Tiles},
    "block": {"weave": Weave, "plain": Plain},
    "downsample": {"fold": Fold, "halve": Halve},
    "head": {"labels": Classes},
}

SPEC = """\
name: toy
source: https://example.org/toy
expect: {params: 28_288_354, macs: 4.5G}
input: {size: 224, channels: 3}
drop_path: 0.3
defaults: {norm: layer, act: gelu}
stem: {type: tiles, tile: 4, dim: 96}
stages:
  - {block: weave, depth: 2, heads: 3, window: 7, shift: true}
  - {block: weave, depth: 2, heads: [6, 8], window: [7, 14], downsample: fold, dim: 200}
  - {blocks: [{block: weave, heads: 6, shift: true}, {block: plain, size: 5}], downsample: {type: fold, norm: none}}
head: {type: labels, classes: 1000, pool: avg}
"""


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of parts holds the toys and nothing else."""
    part.parts("block")  # plug-ins register now, not among the toys
    for known in TOYS.values():
        for name, cls in known.items():
            cls.type_name = name
    monkeypatch.setattr(part, "_REGISTRY", TOYS)
