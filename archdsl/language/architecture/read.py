"""A tree of nodes -> a Spec, or all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from archdsl.language.architecture.ends import EndsReader, read_model
from archdsl.language.architecture.model import Header, Spec, Stage, find
from archdsl.language.architecture.part_reader import DEFAULTED, PartReader, blocks_take_dim
from archdsl.language.text import limits
from archdsl.language.text.explain import Complaints
from archdsl.language.text.node import Path, YamlNode
from archdsl.language.text.render import shown
from archdsl.parts.part import Block, Downsample, Part, PartKind, Stem, parts

_T = TypeVar("_T")

SPEC_KEYS = (*Header.model_fields, "defaults", "stem", "stages", "features", "neck", "head", "heads")
M = TypeVar("M", bound=BaseModel)
_SPACE_KEYS = ("choices", "base", "objectives", "constraints", "search")


def read_spec(tree: YamlNode) -> Spec:
    """Validate a merged tree.

    Raises: SpecError with every problem of the spec, sorted by position
    """
    complaints = Complaints()
    spec = _Reader(tree, complaints).spec()
    complaints.raise_if_any(tree.mark.source.file)
    assert spec is not None
    return spec


class KnownParts:
    """Stages, stems and heads that were found right, by the nodes that they were read from: reading many specs that
    differ in one place takes the time of what differs."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], tuple[tuple[YamlNode | None, ...], Any]] = {}

    def get(self, *nodes: YamlNode | None) -> Any:
        """What was read from these very nodes; None where nothing was."""
        known = self._found.get(tuple(map(id, nodes)))
        return known[1] if known is not None else None

    def put(self, found: Any, *nodes: YamlNode | None) -> None:
        """Remember what was read from these nodes, and keep them, so that no other gets their identity."""
        self._found[tuple(map(id, nodes))] = nodes, found


def check_tree(tree: YamlNode, known: KnownParts) -> None:
    """Raises: SpecError as `read_spec`; known: of other trees that share nodes with this one"""
    complaints = Complaints()
    _Reader(tree, complaints, known).read()
    complaints.raise_if_any(tree.mark.source.file)


def read_fields(cls: type[M], node: YamlNode, what: str) -> M:
    """A mapping on its own as a plain pydantic model; what: how the model is called in a sentence.

    Raises: SpecError with every problem, sorted by position
    """
    complaints = Complaints()
    model = read_model(cls, node, complaints, (), what)
    complaints.raise_if_any(node.mark.source.file)
    return cast(M, model)


class _Reader:
    def __init__(self, tree: YamlNode, complaints: Complaints, known: KnownParts | None = None):
        self.tree = tree
        self.known = known or KnownParts()
        self.complaints = complaints
        self.parts = PartReader(complaints, tree.get("defaults"))

    def spec(self) -> Spec | None:
        """The spec; None (and complaints) when anything is wrong."""
        found = self.read()
        if found is None:
            return None
        header, stem, stages, ends = found
        fields = {name: getattr(header, name) for name in Header.model_fields}
        spec = Spec(stem=stem, stages=_with_ramp(stages, header.drop_path), **ends, **fields)
        spec._tree = self.tree
        spec._data = self.tree.plain()
        return spec

    def read(self) -> tuple[Header, Stem, list[Stage], dict[str, Any]] | None:
        """The pieces of the spec, the last as its fields; None (and complaints) when anything is wrong."""
        tree = self.tree
        if not tree.is_map:
            self.complaints.add(tree.mark, "wrong-type", f"a spec is a mapping, but got {shown(tree.plain())}")
            return None
        for key in tree.value:
            if key in _SPACE_KEYS:
                message = f"`{key}` belongs to a space, and this is read as a spec"
                hint = "a space has a `base` and `choices`; search it, or load it with load_space"
                self.complaints.add(tree.key_mark(key), "unknown-key", message, hint, (key,))
            elif key not in SPEC_KEYS:
                self.complaints.unknown_key(tree, key, SPEC_KEYS, "A spec", ())
        for key in ("stem", "stages", "head"):
            if key == "head" and tree.get("heads") is not None:
                continue
            if tree.get(key) is None and not self.parts.misspelt(tree, key, (), "A spec"):
                self.complaints.missing(tree, "a spec needs it", (key,), "or build on another spec with `extends`")
        self._defaults()
        header = self._header()
        stem = self._part("stem")
        stages = self._stages()
        depths = [stage.depth for stage in stages] if stages is not None else None
        ends = EndsReader(tree, self.complaints, self.parts, self._part).read(depths)
        if header is not None and ends is not None:
            self._class_names(header, ends["head"])
        if len(self.complaints) or header is None or stem is None or stages is None or ends is None:
            return None
        return header, cast(Stem, stem), stages, ends

    def _header(self) -> Header | None:
        header = self.tree.only(Header.model_fields)
        return cast(Header | None, read_model(Header, header, self.complaints, (), "a spec"))

    def _class_names(self, header: Header, head: Part) -> None:
        """There is a name for each class, where classes are named."""
        names = header.trained_on.classes if header.trained_on is not None else None
        num_classes = getattr(head, "classes", None)
        if names is not None and isinstance(num_classes, int) and len(names) != num_classes:
            path = ("trained_on", "classes")
            message = f"{len(names)} classes are named, but the head has {num_classes}"
            hint = "name them all, or leave the names out"
            self.complaints.add(find(self.tree, path).mark, "length", message, hint, path)

    def _defaults(self) -> None:
        defaults = self.tree.get("defaults")
        if defaults is None or defaults.value is None:
            return
        if not defaults.is_map:
            self.complaints.must_be("a mapping", defaults, ("defaults",))
            return
        classes = [part for kind in DEFAULTED for part in parts(kind).values()]
        known = sorted({name for part in classes for name in part.model_fields})
        for key in defaults.value:
            if key not in known:
                self.complaints.unknown_key(defaults, key, known, "`defaults`", ("defaults",))

    def _part(self, key: PartKind) -> Part | None:
        node, defaults = self.tree.get(key), self.tree.get("defaults")
        if node is None:
            return None
        found: Part | None = self.known.get(node, defaults)
        if found is None:
            found = self.parts.one(key, node, (key,))
            if not len(self.complaints):
                self.known.put(found, node, defaults)
        return found

    def _stages(self) -> list[Stage] | None:
        node = self.tree.get("stages")
        if node is None:
            return None
        if not node.is_list or not node.value:
            self.complaints.must_be("a list of at least one stage", node, ("stages",))
            return None
        if len(node.value) > limits.MAX_STAGES:
            message = f"a spec may have at most {limits.MAX_STAGES} stages, this has {len(node.value)}"
            self.complaints.add(node.value[limits.MAX_STAGES].mark, "limit", message, None, ("stages",))
            return None
        depths = [self._depth(stage, ("stages", index)) for index, stage in enumerate(node.value)]
        total = 0
        for index, (stage, depth) in enumerate(zip(node.value, depths, strict=True)):
            total += depth or 0
            if total > limits.MAX_BLOCKS:
                message = f"a spec may have at most {limits.MAX_BLOCKS} blocks, and this stage makes it {total}"
                mark = (stage.get("depth") or stage.get("blocks") or stage).mark
                self.complaints.add(mark, "limit", message, None, ("stages", index, "depth"))
                return None
        stages = [
            self._stage(stage, depth, ("stages", index))
            for index, (stage, depth) in enumerate(zip(node.value, depths, strict=True))
        ]
        return _all_of(stages)

    def _depth(self, stage: YamlNode, path: Path) -> int | None:
        """How many blocks a stage has; None when that is wrong (and said)."""
        if not stage.is_map:
            message = f"a stage must be a mapping, but got {shown(stage.plain())}"
            self.complaints.add(stage.mark, "wrong-type", message, "write {block: …, depth: …, …}", path)
            return None
        blocks, depth = stage.get("blocks"), stage.get("depth")
        if blocks is not None:
            return self._depth_of_list(blocks, path)
        if depth is None:
            if not self.parts.misspelt(stage, "depth", path, "A stage"):
                self.complaints.missing(stage, "it says how many blocks the stage has", (*path, "depth"))
            return None
        return self._whole_number(depth, (*path, "depth"), limits.MAX_DEPTH, str(limits.MAX_DEPTH))

    def _whole_number(self, node: YamlNode, path: Path, most: int, most_text: str) -> int | None:
        """A number from 1 to `most`; None when it is another (and said)."""
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            self.complaints.must_be("a whole number", node, path)
        elif node.value < 1:
            self.complaints.must_be("at least 1", node, path, rule="out-of-range")
        elif node.value > most:
            self.complaints.must_be(f"at most {most_text}", node, path, rule="limit")
        else:
            return node.value
        return None

    def _depth_of_list(self, blocks: YamlNode, path: Path) -> int | None:
        here = (*path, "blocks")
        if not blocks.is_list or not blocks.value:
            self.complaints.must_be("a list of at least one block", blocks, here)
            return None
        if len(blocks.value) > limits.MAX_DEPTH:
            message = f"a stage may have at most {limits.MAX_DEPTH} blocks, this has {len(blocks.value)}"
            self.complaints.add(blocks.mark, "limit", message, None, here)
            return None
        return len(blocks.value)

    def _stage(self, stage: YamlNode, depth: int | None, path: Path) -> Stage | None:
        if not stage.is_map:
            return None
        defaults = self.tree.get("defaults")
        known: Stage | None = self.known.get(stage, defaults)
        if known is not None:
            return known
        downsample, dim = self._downsample(stage, path), self._dim(stage, path)
        listed = stage.get("blocks")
        blocks = self._blocks(stage, depth, path) if listed is None else self._listed_blocks(stage, listed, path)
        if blocks is None or len(self.complaints):
            return None
        found = Stage(blocks=cast(tuple[Block, ...], tuple(blocks)), downsample=downsample, dim=dim)
        self.known.put(found, stage, defaults)
        return found

    def _downsample(self, stage: YamlNode, path: Path) -> Downsample | None:
        node = stage.get("downsample")
        if node is None or node.value is None:
            return None
        return cast(Downsample | None, self.parts.one("downsample", node, (*path, "downsample")))

    def _dim(self, stage: YamlNode, path: Path) -> int | None:
        node = stage.get("dim")
        name = stage.get("block")
        cls = parts("block").get(name.value) if name is not None and isinstance(name.value, str) else None
        if node is None or node.value is None or (cls is not None and blocks_take_dim(cls, stage)):
            return None
        return self._whole_number(node, (*path, "dim"), limits.MAX_DIM, f"{limits.MAX_DIM:_}")

    def _blocks(self, stage: YamlNode, depth: int | None, path: Path) -> list[Part] | None:
        cls = self.parts.kind_of("block", stage, path, "block")
        return self.parts.many(cls, stage, depth, path) if cls is not None else None

    def _listed_blocks(self, stage: YamlNode, blocks: YamlNode, path: Path) -> list[Part] | None:
        for key in stage.value:
            if key in ("block", "depth"):
                message = f"`{key}` and `blocks` do not go together"
                hint = "a stage has `block` and `depth`, or a list of `blocks`"
                self.complaints.add(stage.key_mark(key), "conflict", message, hint, (*path, key))
            elif key not in ("blocks", "dim", "downsample"):
                self.complaints.unknown_key(stage, key, ("blocks", "dim", "downsample"), "A stage with `blocks`", path)
        if not blocks.is_list:
            return None
        found: list[Part | None] = []
        for index, block in enumerate(blocks.value[: limits.MAX_DEPTH]):
            here = (*path, "blocks", index)
            if not block.is_map:
                message = f"a block must be a mapping, but got {shown(block.plain())}"
                self.complaints.add(block.mark, "wrong-type", message, "write {block: …, …}", here)
            found.append(self.parts.one("block", block, here, key="block") if block.is_map else None)
        return _all_of(found)


def _all_of(found: Sequence[_T | None]) -> list[_T] | None:
    """What was found, when nothing is missing."""
    whole = [one for one in found if one is not None]
    return whole if len(whole) == len(found) else None


def _with_ramp(stages: list[Stage], drop_path: float) -> tuple[Stage, ...]:
    """Give each block that has a `drop_path` and does not set it its value of the ramp 0 -> `drop_path`."""
    last = sum(stage.depth for stage in stages) - 1
    done, number = [], 0
    for stage in stages:
        blocks = []
        for block in stage.blocks:
            if "drop_path" in type(block).model_fields and getattr(block, "drop_path", 0.0) is None:
                rate = drop_path * number / last if last else 0.0
                block = block.model_copy(update={"drop_path": rate})
            blocks.append(block)
            number += 1
        done.append(stage.model_copy(update={"blocks": tuple(blocks)}))
    return tuple(done)
