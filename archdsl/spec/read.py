"""A tree of nodes -> a Spec, or all that is wrong with it at once."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from archdsl.blocks.part import Block, Downsample, Head, Part, PartKind, Stem, parts
from archdsl.spec import limits
from archdsl.spec.explain import Complaints, explain
from archdsl.spec.model import Header, Spec, Stage
from archdsl.spec.node import Mark, Node, Path, is_finite
from archdsl.spec.parts import PartReader
from archdsl.spec.render import shown

SPEC_KEYS = (*Header.model_fields, "defaults", "stem", "stages", "head")
_SPACE_KEYS = ("choices", "base", "objectives", "constraints", "search")


def read_spec(tree: Node) -> Spec:
    """Validate a merged tree.

    Errors: SpecError with every problem of the spec, sorted by position
    """
    complaints = Complaints()
    spec = _Reader(tree, complaints).spec()
    error = complaints.error(tree.mark.source.file)
    if error is not None:
        raise error
    assert spec is not None
    return spec


def read_model(cls: type[BaseModel], node: Node, complaints: Complaints, path: Path, what: str) -> Any:
    """One plain pydantic model from a mapping; None (and complaints) when it is wrong."""
    if not node.is_map:
        name = f"`{path[-1]}`" if path else what
        complaints.add(node.mark, "wrong-type", f"{name} must be a mapping, but got {shown(node.plain())}", None, path)
        return None
    before = len(complaints)
    for where, leaf in node.scalars(path):
        if not is_finite(leaf.value):
            complaints.add(
                leaf.mark,
                "wrong-value",
                f"`{where[-1]}` must be a finite number, but got {shown(leaf.value)}",
                None,
                where,
            )
    if len(complaints) > before:
        return None
    try:
        return cls.model_validate_json(json.dumps(node.plain()))
    except ValidationError as error:
        homes = {key: (value, (*path, key)) for key, value in node.value.items()}
        errors = error.errors(include_url=False, include_input=False)
        explain(complaints, errors, homes, node, path, cls=cls, what=what)
        return None


class _Reader:
    def __init__(self, tree: Node, complaints: Complaints):
        self.tree = tree
        self.complaints = complaints
        self.parts = PartReader(complaints, tree.get("defaults"))

    def spec(self) -> Spec | None:
        tree = self.tree
        if not tree.is_map:
            self.complaints.add(tree.mark, "wrong-type", f"a spec is a mapping, but got {shown(tree.plain())}")
            return None
        for key in tree.value:
            if key not in SPEC_KEYS:
                if key in _SPACE_KEYS:
                    self.complaints.add(
                        tree.key_mark(key),
                        "unknown-key",
                        f"`{key}` belongs to a space, and this is read as a spec",
                        "a space has a `base` and `choices`; search it, or load it with load_space",
                        (key,),
                    )
                else:
                    self.complaints.unknown_key(tree, key, SPEC_KEYS, "A spec", ())
        for key in ("stem", "stages", "head"):
            if tree.get(key) is None and not self.parts.misspelt(tree, key, (), "A spec"):
                self.complaints.add(
                    tree.mark,
                    "missing-key",
                    f"`{key}` is missing: a spec needs it",
                    "or build on another spec with `extends`",
                    (key,),
                )
        self._defaults()
        header = self._header()
        stem = self._part("stem")
        stages = self._stages()
        head = self._part("head")
        if len(self.complaints) or header is None or stem is None or stages is None or head is None:
            return None
        fields = {name: getattr(header, name) for name in Header.model_fields}
        spec = Spec(stem=cast(Stem, stem), stages=_with_ramp(stages, header.drop_path), head=cast(Head, head), **fields)
        spec._tree = tree
        spec._data = tree.plain()
        return spec

    def _header(self) -> Header | None:
        tree = self.tree
        keys = {key: node for key, node in tree.value.items() if key in Header.model_fields}
        header = Node.mapping(keys, {key: tree.key_mark(key) for key in keys}, tree.mark)
        return cast(Header | None, read_model(Header, header, self.complaints, (), "a spec"))

    def _defaults(self) -> None:
        defaults = self.tree.get("defaults")
        if defaults is None or defaults.value is None:
            return
        if not defaults.is_map:
            message = f"`defaults` must be a mapping, but got {shown(defaults.plain())}"
            self.complaints.add(defaults.mark, "wrong-type", message, None, ("defaults",))
            return
        known = sorted({name for kind in _KINDS for part in parts(kind).values() for name in part.model_fields})
        for key in defaults.value:
            if key not in known:
                self.complaints.unknown_key(defaults, key, known, "`defaults`", ("defaults",))

    def _part(self, key: PartKind) -> Part | None:
        node = self.tree.get(key)
        return self.parts.one(key, node, (key,)) if node is not None else None

    def _stages(self) -> list[Stage] | None:
        node = self.tree.get("stages")
        if node is None:
            return None
        if not node.is_list or not node.value:
            message = f"`stages` must be a list of at least one stage, but got {shown(node.plain())}"
            self.complaints.add(node.mark, "wrong-type", message, None, ("stages",))
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
                self.complaints.add(self._depth_mark(stage), "limit", message, None, ("stages", index, "depth"))
                return None
        stages = [
            self._stage(stage, depth, ("stages", index))
            for index, (stage, depth) in enumerate(zip(node.value, depths, strict=True))
        ]
        whole = [stage for stage in stages if stage is not None]
        return whole if len(whole) == len(stages) else None

    def _depth_mark(self, stage: Node) -> Mark:
        depth = stage.get("depth") or stage.get("blocks")
        return depth.mark if depth is not None else stage.mark

    def _depth(self, stage: Node, path: Path) -> int | None:
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
                self.complaints.add(
                    stage.mark,
                    "missing-key",
                    "`depth` is missing: it says how many blocks the stage has",
                    None,
                    (*path, "depth"),
                )
            return None
        if not isinstance(depth.value, int) or isinstance(depth.value, bool):
            message = f"`depth` must be a whole number, but got {shown(depth.plain())}"
            self.complaints.add(depth.mark, "wrong-type", message, None, (*path, "depth"))
            return None
        if not 1 <= depth.value <= limits.MAX_DEPTH:
            rule, wanted = (
                ("out-of-range", "at least 1") if depth.value < 1 else ("limit", f"at most {limits.MAX_DEPTH}")
            )
            message = f"`depth` must be {wanted}, but got {shown(depth.value)}"
            self.complaints.add(depth.mark, rule, message, None, (*path, "depth"))
            return None
        return depth.value

    def _depth_of_list(self, blocks: Node, path: Path) -> int | None:
        here = (*path, "blocks")
        if not blocks.is_list or not blocks.value:
            message = f"`blocks` must be a list of at least one block, but got {shown(blocks.plain())}"
            self.complaints.add(blocks.mark, "wrong-type", message, None, here)
            return None
        if len(blocks.value) > limits.MAX_DEPTH:
            message = f"a stage may have at most {limits.MAX_DEPTH} blocks, this has {len(blocks.value)}"
            self.complaints.add(blocks.mark, "limit", message, None, here)
            return None
        return len(blocks.value)

    def _stage(self, stage: Node, depth: int | None, path: Path) -> Stage | None:
        if not stage.is_map:
            return None
        downsample, dim = self._downsample(stage, path), self._dim(stage, path)
        blocks = (
            self._listed_blocks(stage, path) if stage.get("blocks") is not None else self._blocks(stage, depth, path)
        )
        if blocks is None or len(self.complaints):
            return None
        return Stage(blocks=cast(tuple[Block, ...], tuple(blocks)), downsample=downsample, dim=dim)

    def _downsample(self, stage: Node, path: Path) -> Downsample | None:
        node = stage.get("downsample")
        if node is None or node.value is None:
            return None
        return cast(Downsample | None, self.parts.one("downsample", node, (*path, "downsample")))

    def _dim(self, stage: Node, path: Path) -> int | None:
        node = stage.get("dim")
        if node is None or node.value is None:
            return None
        value, here = node.value, (*path, "dim")
        if not isinstance(value, int) or isinstance(value, bool):
            self.complaints.add(
                node.mark, "wrong-type", f"`dim` must be a whole number, but got {shown(node.plain())}", None, here
            )
            return None
        if not 1 <= value <= limits.MAX_DIM:
            rule, wanted = ("out-of-range", "at least 1") if value < 1 else ("limit", f"at most {limits.MAX_DIM:_}")
            self.complaints.add(node.mark, rule, f"`dim` must be {wanted}, but got {shown(value)}", None, here)
            return None
        return value

    def _blocks(self, stage: Node, depth: int | None, path: Path) -> list[Part] | None:
        cls = self.parts.kind_of("block", stage, path, "block")
        if cls is None:
            return None
        return self.parts.many(cls, stage, depth, path)

    def _listed_blocks(self, stage: Node, path: Path) -> list[Part] | None:
        blocks = stage.get("blocks")
        assert blocks is not None
        for key in stage.value:
            if key in ("block", "depth"):
                message = f"`{key}` and `blocks` do not go together"
                self.complaints.add(
                    stage.key_mark(key),
                    "conflict",
                    message,
                    "a stage has `block` and `depth`, or a list of `blocks`",
                    (*path, key),
                )
            elif key not in ("blocks", "dim", "downsample"):
                self.complaints.unknown_key(stage, key, ("blocks", "dim", "downsample"), "A stage with `blocks`", path)
        if not blocks.is_list:
            return None
        found: list[Part | None] = []
        for index, block in enumerate(blocks.value[: limits.MAX_DEPTH]):
            here = (*path, "blocks", index)
            if block.is_map:
                found.append(self.parts.one("block", block, here, key="block"))
            else:
                self.complaints.add(
                    block.mark,
                    "wrong-type",
                    f"a block must be a mapping, but got {shown(block.plain())}",
                    "write {block: …, …}",
                    here,
                )
                found.append(None)
        whole = [block for block in found if block is not None]
        return whole if len(whole) == len(found) else None


_KINDS: tuple[PartKind, ...] = ("stem", "block", "downsample", "head")


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
