"""Cut a network into segments that can be run, and timed, one by one.

A cut lies where exactly one value that depends on the image crosses, and where the network goes from one group of
paths to the next: a block (`stages.1.blocks.0`), a downsampling (`stages.1.downsample`), or the first word of any other
path (`stem`, `head`). A reorder between two groups is a segment of its own, for who moves tokens depends on both. Where
several values cross, as in networks with two streams, neighbouring groups stay one segment.

What does not depend on the image (a position bias, a mask) belongs to the segment that reads it; one that several read
is in each of them.

Two segments that differ only in the order of their tokens get the same key where that makes no difference: where
each op does the same to every token, or takes the mean of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Graph, Input, Node, Value, total_cost
from archdsl.ir.op import Cost
from archdsl.ir.order import Groups2x2, Order, Raster, Windows
from archdsl.ir.paths import part_of
from archdsl.ops.tokens import Reorder
from archdsl.passes.drop_train_only import drop_train_only

INPUT, OUTPUT = "x", "y"
"""What the ends of every segment are called."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a network as a network of its own, with one input and one output.

    name: the groups it is made of (`stages.1.blocks.0`), or the path of a reorder between two
    """

    name: str
    graph: Graph

    @cached_property
    def key(self) -> str:
        """Equal for segments that do the same work: the graph's hash as at inference, its order left out if it may."""
        graph = _in_raster(self.graph) or self.graph
        return graph.hash(training=False)

    @cached_property
    def cost(self) -> Cost:
        """Of one image."""
        return work_of(self.graph)

    @property
    def only_moves(self) -> bool:
        """Whether nothing is multiplied: the segment takes the time that its bytes take."""
        return self.cost.macs == 0

    @property
    def num_bytes(self) -> int:
        """Read and written for one image."""
        return self.cost.bytes_read + self.cost.bytes_written


def work_of(graph: Graph) -> Cost:
    """The cost of a graph's nodes but its inputs, which somebody else wrote; so the costs of segments add up."""
    return total_cost([node for node in graph.live() if not isinstance(node.op, Input)])


def segments_of(graph: Graph) -> tuple[Segment, ...]:
    """The segments of a network with one input and one output, from first to last, without what only training needs.

    Chained, they compute what the network does at inference.
    Raises: ValueError for a graph with other ends
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError(f"one input and one output are needed, got {len(graph.inputs)} and {len(graph.outputs)}")
    graph = drop_train_only(graph)
    (start,) = graph.inputs
    made, before = [], start
    for run in _runs(graph):
        made.append(Segment(run.name, _cut_out(run, before)))
        before = run.end
    return tuple(made)


@dataclass(frozen=True)
class _Run:
    """Neighbouring nodes that depend on the image, the last of which alone is read later; groups: of their paths."""

    nodes: tuple[Node, ...]
    groups: tuple[str, ...]

    @property
    def end(self) -> Node:
        return self.nodes[-1]

    @property
    def only_reorders(self) -> bool:
        return all(isinstance(node.op, Reorder) for node in self.nodes)

    @property
    def name(self) -> str:
        return self.end.path if self.only_reorders else " + ".join(self.groups)

    def joined(self, other: _Run) -> _Run:
        groups = (*self.groups, *(group for group in other.groups if group not in self.groups))
        return _Run((*self.nodes, *other.nodes), groups)


def _runs(graph: Graph) -> list[_Run]:
    """The shortest runs, joined while they share a group; those that only reorder join their group or stay alone."""
    shortest = list(_shortest_runs(graph))
    joined: list[_Run] = []
    for i, run in enumerate(shortest):
        last = joined[-1] if joined else None
        if last is not None and _belong_together(last, run, shortest[i + 1 :]):
            joined[-1] = last.joined(run)
        else:
            joined.append(run)
    return joined


def _belong_together(last: _Run, run: _Run, later: Sequence[_Run]) -> bool:
    if last.only_reorders and run.only_reorders:
        return True
    if not set(last.groups) & set(run.groups):
        return False
    if run.only_reorders:  # its path is the producer's; it is inside that group if the group goes on behind it
        following = next((each for each in later if not each.only_reorders), None)
        return following is None or bool(set(last.groups) & set(following.groups))
    return not last.only_reorders


def _shortest_runs(graph: Graph) -> Iterator[_Run]:
    """Cut wherever one value crosses."""
    data = [node for node in graph.live() if node.type.batched]
    last_read = {x: i for i, node in enumerate(data) for x in node.inputs if x.type.batched}
    last_read |= {node: len(data) for node in graph.outputs.values()}
    alive: set[Node] = set()
    nodes: list[Node] = []
    for i, node in enumerate(data):
        alive = {x for x in (*alive, node) if last_read.get(x, -1) > i}
        if not isinstance(node.op, Input):
            nodes.append(node)
        if nodes and alive == {node}:
            yield _Run(tuple(nodes), _groups(nodes))
            nodes = []


def _groups(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Without those of reorders, which bear the path of whoever made what they move, where there is something else."""
    working = [node for node in nodes if not isinstance(node.op, Reorder)] or nodes
    return tuple(dict.fromkeys(part_of(node.path) for node in working))


def _cut_out(run: _Run, before: Node) -> Graph:
    """The run as a graph that starts from the value before it."""
    new = Graph(run.name)
    made: dict[Node, Value] = {before: new.input(INPUT, before.type)}

    def make(node: Node) -> Value:
        """The value, its inputs first: the run's are made already, what does not depend on the image may not be."""
        if node not in made:
            made[node] = new.add(node.op, *[make(x) for x in node.inputs], path=node.path)
        return made[node]

    for node in run.nodes:
        make(node)
    new.output(OUTPUT, made[run.end])
    return new


def _in_raster(graph: Graph) -> Graph | None:
    """The same work on tokens in raster order, or None where the order matters to some op."""
    (start,) = graph.inputs
    order = None if start.type.order is None else _raster_like(start.type.order)
    if order is None or order == start.type.order:
        return None
    if any(node.op.order_rule == "fixed" for node in graph.live() if node.type.batched and node is not start):
        return None

    def make(new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        op = Input(replace(node.type, order=order)) if node is start else node.op
        return new.add(op, *inputs, path=node.path)

    try:
        return graph.rebuild(make)
    except RuleBroken:
        return None


def _raster_like(order: Order) -> Order | None:
    """Raster order for windows without padding, also as the order of groups; None for what holds padding or planes."""
    if isinstance(order, Windows | Raster) and not order.padded:
        return Raster(order.height, order.width)
    if isinstance(order, Groups2x2) and not order.padded:
        return Groups2x2(order.height, order.width, Raster(order.outer.height, order.outer.width))
    return None
