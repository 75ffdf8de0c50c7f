"""What a spec is once it is read: frozen pydantic models. The parts inside come from the registry of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from archdsl.errors import Place
from archdsl.ir.graph import Graph
from archdsl.language.text import limits
from archdsl.language.text.explain import broken
from archdsl.language.text.node import Path, SourceText, YamlNode
from archdsl.language.text.quantities import Count
from archdsl.language.text.render import to_yaml
from archdsl.language.text.words import NAME
from archdsl.parts.fields import NormName
from archdsl.parts.part import Block, Downsample, Head, Neck, Stem

PART_SHORTHANDS = ("stem", "downsample", "head")
"""Keys whose value may be a part's bare name: `downsample: patch_merging` is `{type: patch_merging}`."""


def spelt_out(node: YamlNode, key: str) -> YamlNode:
    """A part written by its bare name, as the mapping that the name stands for; anything else as it is."""
    if key in PART_SHORTHANDS and isinstance(node.value, str):
        return YamlNode.mapping({"type": node}, {"type": node.mark}, node.mark)
    return node


FIXED_SIZES = "heights and widths are fixed when a network is built, so dynamic ones are refused: build one a size"


def _both_sides(value: Any) -> Any:
    if "dynamic" in (value if isinstance(value, list | tuple) else [value]):
        raise PydanticCustomError("size", "Input should be a number: {rule}", {"rule": FIXED_SIZES})
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple):
        return tuple(value)
    raise PydanticCustomError("size", "Input should be a whole number or [height, width]")


_Side = Annotated[int, Field(ge=1, le=limits.MAX_IMAGE_SIZE)]
_SIDE_SCHEMA = {"type": "integer", "minimum": 1, "maximum": limits.MAX_IMAGE_SIZE}
_ImageSize = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(_both_sides),
    WithJsonSchema({"anyOf": [_SIDE_SCHEMA, {"type": "array", "items": _SIDE_SCHEMA, "minItems": 2, "maxItems": 2}]}),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputSpec(_Model):
    """The image: `size` is (height, width), written as one number when square."""

    size: _ImageSize = (224, 224)
    channels: int = Field(default=3, ge=1, le=limits.MAX_CHANNELS)


class Expect(_Model):
    """What the spec must come to, in this package's counting: parameters and multiply-adds of one image."""

    params: Count | None = None
    macs: Count | None = None


Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""How pixels are resized: Pillow's filters, which look at all pixels that become one."""

Mean = Annotated[float, Field(ge=-10, le=10)]
Std = Annotated[float, Field(gt=0, le=10)]


class Preprocessing(_Model):
    """How an image becomes what the network sees: the shorter side is resized to size / `crop`, the centre of `size`
    (height, width) is cut out, and pixels / 255 are normalised with `mean` and `std` of each channel.
    """

    mean: tuple[Mean, ...] = Field(min_length=1, max_length=4)
    std: tuple[Std, ...] = Field(min_length=1, max_length=4)
    size: _ImageSize
    crop: float = Field(gt=0, le=1)
    interpolation: Interpolation = "bicubic"

    @model_validator(mode="after")
    def _is_of_the_same_channels(self) -> Preprocessing:
        if len(self.mean) != len(self.std):
            message = f"`std` must have a number for each channel, as `mean` has {len(self.mean)}"
            raise broken("length", f"{message}, but it has {len(self.std)}", field="std")
        return self


class TrainedOn(_Model):
    """The data that the network was trained on: the names of its classes in the order of the outputs, and how images
    were prepared.
    """

    classes: tuple[Annotated[str, Field(max_length=1000)], ...] | None = Field(
        default=None, max_length=limits.MAX_CLASS_NAMES
    )
    preprocessing: Preprocessing | None = None


class Header(_Model):
    """The plain fields of a spec."""

    name: Annotated[str, Field(pattern=NAME, max_length=200)]
    source: Annotated[str, Field(max_length=2000)] | None = None
    expect: Expect | None = None
    trained_on: TrainedOn | None = None
    input: InputSpec = InputSpec()
    drop_path: float = Field(default=0.0, ge=0, lt=1)


class Stage(_Model):
    """Blocks on one map size. `downsample` comes before them; `dim` is the width after it.

    Example:
        >>> from archdsl.language import load
        >>> stage = load("swin_t").stages[2]
        >>> stage.depth, stage.downsample.type_name
        (6, 'patch_merging')
    """

    blocks: tuple[SerializeAsAny[Block], ...]
    downsample: SerializeAsAny[Downsample] | None = None
    dim: int | None = None

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.blocks)


class Features(_Model):
    """The maps that the neck and the heads see.

    taps: the parts that make them, finest first: `stem`, a stage (`stages.2`), a block (`stages.2.blocks.5`); by
        default every stage
    norm, norm_eps: of each of them, with weights of its own
    """

    taps: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(min_length=1, max_length=64)] | None = None
    norm: NormName = "none"
    norm_eps: float = Field(default=1e-5, gt=0, le=1)


class NamedHead(_Model):
    """One of several heads. name: of its output; tap: what it reads; train: whether only training reads its output."""

    name: Annotated[str, Field(pattern=NAME, max_length=200)]
    head: SerializeAsAny[Head]
    tap: Annotated[str, Field(max_length=100)] | None = None
    train: bool = False


class Spec(Header):
    """One architecture, validated. Two specs are equal when all their fields are; where they were written is no field.

    head: the one whose output `logits` is judged
    heads: all heads, where the spec names them (`heads:`); else none

    data: the merged plain mapping as it was written (`extends` and overrides applied), which `to_yaml` writes again

    Example:
        >>> from archdsl.language import load
        >>> spec = load("swin_t")
        >>> spec.name, spec.input.size, spec.stages[0].blocks[0].window
        ('swin_t', (224, 224), 7)
        >>> str(spec.locate("stages.2.depth")).rpartition("specs/")[2]
        'swin_t.yaml:12:26'
    """

    stem: SerializeAsAny[Stem]
    stages: tuple[Stage, ...]
    features: Features | None = None
    neck: tuple[SerializeAsAny[Neck], ...] = ()
    head: SerializeAsAny[Head]
    heads: tuple[NamedHead, ...] = ()

    _tree: YamlNode | None = PrivateAttr(default=None)
    _data: dict[str, Any] = PrivateAttr(default_factory=dict)
    _graph: Graph | None = PrivateAttr(default=None)

    @property
    def data(self) -> Mapping[str, Any]:
        """The merged plain mapping, for `to_yaml`."""
        return self._data

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
            return SourceText(self.name).mark().place()
        return find(self._tree, parts).mark.place()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spec):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((self.name, self.input, self.stem, self.stages, self.head))


def find(tree: YamlNode, path: Path) -> YamlNode:
    """The node at a path of a spec, or the nearest one above it (see `Spec.locate`)."""
    defaults = tree.get("defaults")
    if path[:1] == ("head",) and tree.get("head") is None and tree.get("heads") is not None:
        path = ("heads", "logits", *path[1:])
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
