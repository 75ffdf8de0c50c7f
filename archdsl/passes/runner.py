"""Running passes, and holding them to their promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archdsl.ir.graph import Graph


@dataclass(frozen=True)
class Pass:
    """A rewrite by name. `run` returns a graph that computes the same function from the same inputs."""

    name: str
    run: Callable[[Graph], Graph]


@dataclass(frozen=True)
class PassReport:
    """What a pass did: the number of live nodes before and after, and whether the network's hash changed."""

    name: str
    nodes_before: int
    nodes_after: int
    changed: bool


class PassBroken(AssertionError):
    """A pass changed what it must not change. This is a bug in the pass, never the user's mistake."""


def run_passes(graph: Graph, passes: Sequence[Pass]) -> tuple[Graph, list[PassReport]]:
    """Run `passes` in order. Errors: PassBroken when inputs or outputs lose their name or type on the way."""
    reports = []
    for each in passes:
        after = each.run(graph)
        if _signature(after) != _signature(graph):
            raise PassBroken(f"{each.name} changed the signature:\n{_signature(graph)}\n{_signature(after)}")
        before_count, after_count = len(graph.live()), len(after.live())
        reports.append(PassReport(each.name, before_count, after_count, after.hash() != graph.hash()))
        graph = after
    return graph, reports


def _signature(graph: Graph) -> str:
    ends = [f"{node.path}: {node.type}" for node in graph.inputs]
    return "; ".join(ends + [f"-> {name}: {node.type}" for name, node in graph.outputs.items()])
