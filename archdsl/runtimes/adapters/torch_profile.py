"""Attribute PyTorch's profile to the nodes of our graph.

The module is run node by node by `fx.Interpreter`, each node within a range that bears its name. The time of an op is
its own time within that range. What lies between ops (Python finding the next one) belongs to none of them; so the ops
of a network of many small ones add up to less than its latency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.profiler import ProfilerActivity, profile, record_function

from archdsl.runtimes.op_names import KnownNames
from archdsl.runtimes.protocol import OpProfile, OpTime

RANGE = "archdsl:"


class _Named(fx.Interpreter):
    """Runs a module, every node within a range of the profiler."""

    def run_node(self, n: fx.Node) -> Any:
        with record_function(RANGE + n.name):
            return super().run_node(n)


class ModuleProfiler:
    """Profiles `module`. paths: of our graph's nodes, after which the module's are named"""

    def __init__(self, module: fx.GraphModule, paths: Iterable[str], x: torch.Tensor):
        self.origins, self.x = node_origins(module.graph, paths), x
        self.interpreter = _Named(module)
        self._runs: list[profile] = []

    def run(self) -> object:
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as taken:
            y = self.interpreter.run(self.x)
        self._runs.append(taken)
        return y

    def finish(self, counted: Sequence[int]) -> OpProfile:
        runs = [_times(_events(self._runs[number])) for number in counted]
        keys = list(dict.fromkeys(key for run in runs for key in run))
        ops = [OpTime(self.origins.get(node, node), op_type, 0.0) for node, op_type in keys]
        times = [[run.get(key, 0.0) for key in keys] for run in runs]
        method = "torch.profiler over the nodes of the graph, median of runs; Python's own time is in no op"
        return OpProfile.of_runs(ops, times, method)


def _events(taken: profile) -> Iterable[Any]:
    found: Iterable[Any] = taken.events() or ()  # type: ignore[no-untyped-call]
    return found


def _times(events: Iterable[Any]) -> dict[tuple[str, str], float]:
    """The ms of (node of the module, op) in one run."""
    times: dict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        above = event.cpu_parent
        while above is not None and not above.name.startswith(RANGE):
            above = above.cpu_parent
        if above is not None:
            times[above.name.removeprefix(RANGE), event.name] += event.self_cpu_time_total / 1000
    return times


def node_origins(graph: fx.Graph, paths: Iterable[str]) -> dict[str, str]:
    """From the names of a module's nodes to our paths. A node without a name of ours belongs to what reads it."""
    by_name = {path.replace(".", "_"): path for path in paths}
    known = KnownNames(by_name)
    origins: dict[str, str] = {}
    for node in reversed(graph.nodes):
        found = known.find(node.name)
        if found is not None:
            origins[node.name] = by_name[found]
        else:
            readers = [origins[user.name] for user in node.users if user.name in origins]
            origins.update({node.name: readers[0]} if readers else {})
    return origins
