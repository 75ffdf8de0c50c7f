"""What a spec is once it is read: frozen pydantic models. The parts inside come from the registry of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SerializeAsAny, WithJsonSchema
from pydantic_core import PydanticCustomError

from archdsl.blocks.part import Block, Downsample, Head, Stem
from archdsl.errors import Place
from archdsl.ir.graph import Graph
from archdsl.spec import limits
from archdsl.spec.node import Node, Path, Source
from archdsl.spec.numbers import Count
from archdsl.spec.render import to_yaml

PART_SHORTHANDS = ("stem", "downsample", "head")
"""Keys whose value may be a part's bare name: `downsample: patch_merging` is `{type: patch_merging}`."""


def _both_sides(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple):
        return tuple(value)
    raise PydanticCustomError("size", "Input should be a whole number or [height, width]")


_Side = Annotated[int, Field(ge=1, le=limits.MAX_IMAGE_SIZE)]
_ImageSize = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(_both_sides),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": limits.MAX_IMAGE_SIZE},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1, "maximum": limits.MAX_IMAGE_SIZE},
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        }
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Input(_Model):
    """The image: `size` is (height, width), written as one number when square."""

    size: _ImageSize = (224, 224)
    channels: int = Field(default=3, ge=1, le=limits.MAX_CHANNELS)


class Expect(_Model):
    """What the spec must come to, in this package's counting: parameters and multiply-adds of one image."""

    params: Count | None = None
    macs: Count | None = None


class Header(_Model):
    """The plain fields of a spec."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=200)]
    source: Annotated[str, Field(max_length=2000)] | None = None
    expect: Expect | None = None
    input: Input = Input()
    drop_path: float = Field(default=0.0, ge=0, lt=1)


class Stage(_Model):
    """Blocks on one map size. `downsample` comes before them; `dim` is the width after it."""

    blocks: tuple[SerializeAsAny[Block], ...]
    downsample: SerializeAsAny[Downsample] | None = None
    dim: int | None = None

    @property
    def depth(self) -> int:
        return len(self.blocks)


class Spec(Header):
    """One architecture, validated. Two specs are equal when all their fields are; where they were written is no field.

    data: the merged plain mapping as it was written (`extends` and overrides applied), which `to_yaml` writes again
    """

    stem: SerializeAsAny[Stem]
    stages: tuple[Stage, ...]
    head: SerializeAsAny[Head]

    _tree: Node | None = PrivateAttr(default=None)
    _data: dict[str, Any] = PrivateAttr(default_factory=dict)
    _graph: Graph | None = PrivateAttr(default=None)

    @property
    def data(self) -> Mapping[str, Any]:
        return self._data

    @property
    def num_blocks(self) -> int:
        return sum(stage.depth for stage in self.stages)

    def to_yaml(self) -> str:
        """YAML that loads to an equal spec."""
        return to_yaml(self._data)

    def locate(self, path: Path | str = ()) -> Place:
        """Where the value at a path is written; for one that is not written, where its nearest parent is.

        Paths are those of the file (`stages.2.window`) or of the blocks (`stages.2.blocks.0.window`): the latter lead
        to the stage's field, to its element for that block, or to `defaults`, wherever the value came from.
        """
        parts: Path = tuple(part for part in path.split(".") if part) if isinstance(path, str) else path
        if self._tree is None:
            return Source(self.name).mark().place()
        return find(self._tree, parts).mark.place()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spec):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.name, self.input, self.stem, self.stages, self.head))


def find(tree: Node, path: Path) -> Node:
    """The node at a path of a spec, or the nearest one above it (see `Spec.locate`)."""
    defaults = tree.get("defaults")
    node = tree
    block: int | None = None
    in_part = False
    for part in path:
        if part == "blocks" and node.is_map and node.get("blocks") is None and node.get("block") is not None:
            block = -1  # blocks of a stage that is written as block + depth: the next part counts them
            continue
        if block == -1:
            block = int(part) if str(part).isdecimal() else None
            continue
        below = node.child(part)
        if below is None:
            default = defaults.get(str(part)) if defaults is not None and in_part else None
            return default or node
        if block is not None and below.is_list:
            below = below.child(block) or below
        block = None
        in_part = part in PART_SHORTHANDS or str(part).isdecimal()
        node = below
    return node
