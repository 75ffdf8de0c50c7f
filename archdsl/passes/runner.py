"""Run passes in order; after each, check that inputs, outputs and tensors are what they must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archdsl.ir.graph import Graph
from archdsl.passes.network import Network


@dataclass(frozen=True)
class Pass:
    """A rewrite by name. `run` returns a network that computes the same function from the same inputs."""

    name: str
    run: Callable[[Network], Network]

    @classmethod
    def of_graph(cls, name: str, run: Callable[[Graph], Graph]) -> Pass:
        """A pass that changes no numbers: it rewrites the graph, and the tensors it keeps stay as they are."""

        def rewrite(network: Network) -> Network:
            after = run(network.graph)
            return network.fitted(after, network.weights) if network.weights else Network(after)

        return cls(name, rewrite)


@dataclass(frozen=True)
class PassReport:
    """What a pass did: the number of live nodes before and after, and whether the network's hash changed."""

    name: str
    nodes_before: int
    nodes_after: int
    changed: bool


class PassBroken(AssertionError):
    """A pass changed what it must not change. This is a bug in the pass, never the user's mistake."""


def run_passes(network: Network, passes: Sequence[Pass]) -> tuple[Network, list[PassReport]]:
    """Run `passes` in order.

    Raises: PassBroken when inputs or outputs lose their name or type on the way, or a tensor its numbers
    Example:
        >>> from archdsl.language import load
        >>> from archdsl.language.architecture.lower import lower
        >>> from archdsl.passes.pipelines import TRAINING
        >>> network, (report,) = run_passes(Network(lower(load("swin_t"))), TRAINING)
        >>> report.name, report.nodes_before > report.nodes_after
        ('propagate_layouts', True)
    """
    reports = []
    for each in passes:
        after = each.run(network)
        _check(each.name, network, after)
        counts = len(network.graph.live()), len(after.graph.live())
        reports.append(PassReport(each.name, *counts, after.graph.hash() != network.graph.hash()))
        network = after
    return network, reports


def _check(name: str, before: Network, after: Network) -> None:
    ends, new_ends = _signature(before.graph), _signature(after.graph)
    if ends != new_ends:
        raise PassBroken(f"{name} changed the signature:\n{ends}\n{new_ends}")
    if before.weights:
        shapes = {key: tuple(numbers.shape) for key, numbers in after.weights.items()}
        wanted = {key: tensor.shape for key, tensor in after.graph.tensors().items()}
        if shapes != wanted:
            wrong = sorted(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
            raise PassBroken(f"{name} left tensors that do not fit the graph: {', '.join(wrong)}")


def _signature(graph: Graph) -> str:
    ends = [f"{node.path}: {node.type}" for node in graph.inputs]
    return "; ".join(ends + [f"-> {name}: {node.type}" for name, node in graph.outputs.items()])
