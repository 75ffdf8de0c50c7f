"""A network stage by stage: the facts behind `archdsl show`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from archdsl.ir.graph import Graph, Input, Node, total_cost
from archdsl.ir.op import Cost
from archdsl.ir.order import Windows
from archdsl.ir.paths import part_of, stage_of
from archdsl.ops.attention import Attention
from archdsl.ops.performer import LinearAttention
from archdsl.passes.propagate_layouts import data_moving_reorders


@dataclass(frozen=True)
class StageFacts:
    """One row.

    name: `stem`, `stages.0`, …, `head`
    map: height x width of its result, `-` where that is no map
    dim: its width
    blocks: how many blocks it has
    attention: how many blocks attend how: {"windows 7x7, shift 3x3": 1}
    reorders: how many times it moves tokens, as the papers draw it and after the passes
    """

    name: str
    map: str
    dim: int
    blocks: int
    attention: dict[str, int]
    cost: Cost
    reorders_before: int
    reorders_after: int


def stage_facts(graph: Graph, settled: Graph) -> list[StageFacts]:
    """The rows of a network. `graph` is the spec's, `settled` the same after the passes."""
    moves_before = Counter(stage_of(node.path) for node in data_moving_reorders(graph))
    moves_after = Counter(stage_of(node.path) for node in data_moving_reorders(settled))
    stages: dict[str, list[Node]] = {}
    for node in graph.live():
        if not isinstance(node.op, Input):
            stages.setdefault(stage_of(node.path), []).append(node)
    return [
        StageFacts(
            name=name,
            map=_map_of(nodes[-1]),
            dim=nodes[-1].type.channels,
            blocks=len({part_of(node.path) for node in nodes if ".blocks." in node.path}),
            attention=dict(
                Counter(_attention_of(node) for node in nodes if isinstance(node.op, Attention | LinearAttention))
            ),
            cost=total_cost(nodes),
            reorders_before=moves_before[name],
            reorders_after=moves_after[name],
        )
        for name, nodes in stages.items()
    ]


def _map_of(node: Node) -> str:
    order = node.type.order
    return f"{order.height}x{order.width}" if order else "-"


def _attends(node: Node) -> bool:
    return isinstance(node.op, Attention | LinearAttention)


def _attention_of(node: Node) -> str:
    order = node.inputs[0].type.order
    if not isinstance(order, Windows):
        return "global" if isinstance(node.op, Attention) else "linear"
    shift = f", shift {order.shift[0]}x{order.shift[1]}" if order.shifted else ""
    return f"windows {order.window[0]}x{order.window[1]}{shift}"
