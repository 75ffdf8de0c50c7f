"""Making like parts alike: steps that do nothing are written where a sister of the block has the step.

The first block of a stage may lack a drop path, an unshifted Swin block lacks the mask of a shifted one, a block whose
window is the whole map cuts no windows, and the first block after a convolution turns planes into tokens. For the
function none of this matters; for the reader it is the difference between one class and four.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Graph, Node
from archdsl.ir.op import Op
from archdsl.ir.order import Planes, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.ops import Add, Dropout, DropPath, Reorder, ShiftMask

PART = re.compile(r"(stages\.\d+\.(?:downsample|blocks\.\d+)|stem|head)(?:\.|$)")


@dataclass(frozen=True)
class Layout(Reorder):
    """Tokens or planes -> what `to` says, written down even where the input is laid out so already."""


@dataclass(frozen=True)
class MaskIfShifted(Op):
    """bias + the mask of a shifted window; the bias itself where the window is not shifted."""

    order: Windows

    def infer(self, *inputs: TensorType) -> TensorType:
        (bias,) = inputs
        return replace(bias, shape=(self.order.num_windows, *bias.shape[1:])) if self.order.shifted else bias


def part_of(path: str) -> str:
    """The part that a node belongs to: `stem`, `stages.0.downsample`, `stages.0.blocks.1`, `head`, or "" for none."""
    found = PART.match(path)
    return found[1] if found else ""


def make_alike(graph: Graph, kinds: Mapping[str, str]) -> Graph:
    """The same function, with parts of one kind written alike where steps that do nothing suffice for that.

    kinds: what each part is, by path
    """
    graph = _first_layout_in_stem(graph)
    plans = _plans(graph, kinds)
    while True:
        try:
            return _Rebuilding(graph, plans).graph
        except _NotAlike as stopped:
            plans = {path: plan for path, plan in plans.items() if plan.bucket != stopped.bucket}


def _first_layout_in_stem(graph: Graph) -> Graph:
    """A change between planes and tokens that is the only reader of the stem's result becomes the stem's last step."""
    readers: dict[Node, list[Node]] = {}
    for node in graph.live():
        for x in node.inputs:
            readers.setdefault(x, []).append(node)

    def make(new: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        path = node.path
        if _category(node) in ("to_tokens", "to_planes"):
            (x,) = node.inputs
            if part_of(x.path) == "stem" and part_of(path) != "stem" and readers[x] == [node]:
                path = f"stem.{path.rpartition('.')[2]}"
        return new.add(node.op, *inputs, path=path)

    return graph.rebuild(make)


def _category(node: Node) -> str | None:
    """What kind of step without parameters this is, if it is one that can be left out or written in another form."""
    match node.op:
        case DropPath() | Dropout():
            return type(node.op).__name__
        case Add() if isinstance(node.inputs[1].op, ShiftMask):
            return "mask"
        case Reorder(to):
            source = node.inputs[0].type.order
            if isinstance(source, Raster) and isinstance(to, Planes):
                return "to_planes"
            if isinstance(source, Planes) and isinstance(to, Raster):
                return "to_tokens"
            if isinstance(source, Raster | Windows) and isinstance(to, Raster | Windows):
                return "windows"
    return None


Step = tuple[str, str]
"""What a step that may be missing is, and the scope in its part that it is written in."""


@dataclass(frozen=True, eq=False)
class _Edge:
    """How a value comes to its reader: from a step that is never missing, through steps that may be."""

    source: Node
    through: tuple[Node, ...]

    def steps(self, part: str) -> tuple[Step, ...]:
        return tuple((_category(node) or "", _relative(node, part).rpartition(".")[0]) for node in self.through)


@dataclass(eq=False)
class _Plan:
    """One part of the graph: what its readers must go through, some of it new."""

    part: str
    bucket: int
    edges: dict[tuple[Node | None, int], _Edge]
    wanted: dict[tuple[Node | None, int], tuple[Step, ...]] = field(default_factory=dict)
    forced: set[tuple[Node | None, int, int]] = field(default_factory=set)
    """steps (reader, input, position) that must be written in their general form"""


class _NotAlike(Exception):
    def __init__(self, bucket: int):
        super().__init__()
        self.bucket = bucket


def _relative(node: Node, part: str) -> str:
    return node.path[len(part) + 1 :]


def _plans(graph: Graph, kinds: Mapping[str, str]) -> dict[str, _Plan]:
    """What to do, for each part that has sisters."""
    members: dict[str, list[Node]] = {}
    for node in graph.live():
        members.setdefault(part_of(node.path), []).append(node)
    buckets: dict[object, list[_Plan]] = {}
    for part, nodes in members.items():
        if part:
            edges = dict(_edges(graph, part, nodes))
            buckets.setdefault((kinds.get(part), _skeleton(part, nodes, edges)), []).append(_Plan(part, 0, edges))
    plans: dict[str, _Plan] = {}
    for number, bucket in enumerate(buckets.values()):
        for plan in bucket:
            plan.bucket = number
        if len(bucket) > 1 and _unite(bucket):
            plans |= {plan.part: plan for plan in bucket}
    return plans


def _edges(graph: Graph, part: str, nodes: list[Node]) -> Iterator[tuple[tuple[Node | None, int], _Edge]]:
    """The edges into each step that is never missing, and (reader None) to what the part hands out."""
    for node in nodes:
        if not _optional(node):
            yield from (((node, index), _edge(x, part)) for index, x in enumerate(node.inputs))
    outside = [x for node in graph.live() if part_of(node.path) != part for x in node.inputs]
    handed = {x for x in (*outside, *graph.outputs.values()) if part_of(x.path) == part}
    yield from (((None, index), _edge(x, part)) for index, x in enumerate(n for n in nodes if n in handed))


def _optional(node: Node) -> bool:
    return _category(node) is not None or isinstance(node.op, ShiftMask)


def _edge(x: Node, part: str) -> _Edge:
    through: list[Node] = []
    while part_of(x.path) == part and _category(x) is not None:
        through.insert(0, x)
        x = x.inputs[0]
    return _Edge(x, tuple(through))


def _skeleton(part: str, nodes: list[Node], edges: Mapping[tuple[Node | None, int], _Edge]) -> object:
    """The part without its optional steps: what must be equal in parts that are to be made alike."""
    numbers: dict[Node, int] = {}

    def number(node: Node) -> int:
        return numbers.setdefault(node, len(numbers))

    lines: list[object] = []
    for node in nodes:
        if not _optional(node):
            name = _relative(node, part) if node.op.tensors() else ""
            sources = tuple(number(edges[node, index].source) for index in range(len(node.inputs)))
            lines.append((type(node.op), name, sources, number(node)))
    lines.append(tuple(number(edge.source) for (reader, _), edge in edges.items() if reader is None))
    return tuple(lines)


def _unite(bucket: list[_Plan]) -> bool:
    """Agree on the steps of each edge. False when there is nothing to do, or no agreement."""
    changed = False
    keys = [list(plan.edges) for plan in bucket]
    for position in zip(*keys, strict=True):
        edges = [plan.edges[key] for plan, key in zip(bucket, position, strict=True)]
        steps = [edge.steps(plan.part) for plan, edge in zip(bucket, edges, strict=True)]
        longest = max(steps, key=len)
        if len(set(longest)) < len(longest) or not all(_is_within(own, longest) for own in steps):
            return False
        for plan, key in zip(bucket, position, strict=True):
            plan.wanted[key] = longest
        for place, (category, _) in enumerate(longest):
            if any(longest[place] not in own for own in steps):
                forced = category != "windows"
            else:
                ops = [edge.through[own.index(longest[place])].op for edge, own in zip(edges, steps, strict=True)]
                forced = category == "windows" and len({type(op.to) for op in ops if isinstance(op, Reorder)}) > 1
            if any(own != longest for own in steps) or forced:
                changed = True
            if forced:
                for plan, key in zip(bucket, position, strict=True):
                    plan.forced.add((*key, place))
    return changed


def _is_within(steps: tuple[Step, ...], longest: tuple[Step, ...]) -> bool:
    rest = iter(longest)
    return all(step in rest for step in steps)


class _Rebuilding:
    """The graph made anew, with the planned steps."""

    def __init__(self, graph: Graph, plans: Mapping[str, _Plan]):
        self.graph, self.plans = Graph(graph.name, notes=list(graph.notes)), plans
        self.made: dict[Node, Node] = {}
        self.steps: dict[object, Node] = {}
        self.handed: dict[Node, tuple[_Plan, int]] = {}
        for plan in plans.values():
            for (reader, index), edge in plan.edges.items():
                if reader is None:
                    end = edge.through[-1] if edge.through else edge.source
                    self.handed[end] = (plan, index)
        for node in graph.live():
            planned = plans.get(part_of(node.path))
            if planned is None:
                inputs = [self._from_outside(x, part_of(node.path)) for x in node.inputs]
                self.made[node] = self.graph.add(node.op, *inputs, path=node.path)
            elif isinstance(node.op, ShiftMask):
                self.made[node] = self.graph.add(node.op, path=node.path)
            elif not _optional(node):
                self._add(planned, node)
        for name, node in graph.outputs.items():
            self.graph.output(name, self._from_outside(node, ""))
        self.graph = self.graph.swept()

    def _add(self, plan: _Plan, node: Node) -> None:
        inputs: list[Node] = []
        for index in range(len(node.inputs)):
            inputs.append(self._along(plan, node, index, inputs))
        try:
            self.made[node] = self.graph.add(node.op, *inputs, path=node.path)
        except RuleBroken as broken:
            raise _NotAlike(plan.bucket) from broken

    def _from_outside(self, node: Node, reader_part: str) -> Node:
        """The value that `node` of another part hands out."""
        if node in self.handed and part_of(node.path) != reader_part:
            plan, index = self.handed[node]
            return self._along(plan, None, index, [])
        return self.made[node]

    def _along(self, plan: _Plan, reader: Node | None, index: int, before: list[Node]) -> Node:
        """Go from the source of an edge through all its steps."""
        edge = plan.edges[reader, index]
        x = self._from_outside(edge.source, plan.part)
        own = dict(zip(edge.steps(plan.part), edge.through, strict=True))
        for place, step in enumerate(plan.wanted[reader, index]):
            node = own.get(step)
            key = node if node is not None else (plan.part, x, step)
            if key not in self.steps:
                self.steps[key] = self._step(plan, x, step, node, (reader, index, place) in plan.forced, before)
            x = self.steps[key]
        return x

    def _step(self, plan: _Plan, x: Node, step: Step, node: Node | None, forced: bool, before: list[Node]) -> Node:
        category, scope = step
        name = node.path.rpartition(".")[2] if node is not None else category.lower()
        path = ".".join(filter(None, (plan.part, scope, name)))
        op, more = self._op(plan, x, category, node, forced, before)
        try:
            return self.graph.add(op, x, *more, path=path)
        except RuleBroken as broken:
            raise _NotAlike(plan.bucket) from broken

    def _op(
        self, plan: _Plan, x: Node, category: str, node: Node | None, forced: bool, before: list[Node]
    ) -> tuple[Op, list[Node]]:
        order = x.type.order
        match category:
            case "DropPath":
                return (node.op if node else DropPath(0.0)), []
            case "Dropout":
                return (node.op if node else Dropout(0.0)), []
            case "mask":
                if not forced and node is not None:
                    return node.op, [self.made[node.inputs[1]]]
                if node is not None and isinstance(node.inputs[1].op, ShiftMask):
                    return MaskIfShifted(node.inputs[1].op.order), []
                windows = before[0].type.order if before else None
                if isinstance(windows, Windows) and not windows.shifted:
                    return MaskIfShifted(windows), []
            case "to_tokens" | "to_planes" if order is not None:
                wanted = Planes if category == "to_planes" else Raster
                if node is not None or isinstance(order, wanted):
                    to = wanted(order.height, order.width)
                    return (Layout(to) if forced else Reorder(to)), []
            case "windows" if node is not None and isinstance(node.op, Reorder):
                to_order = node.op.to
                if forced and isinstance(order, Raster) and isinstance(to_order, Raster):
                    size = (order.height, order.width)
                    return Reorder(Windows(*size, size)), []
                return node.op, []
        raise _NotAlike(plan.bucket)
