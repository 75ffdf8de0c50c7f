"""Where a network's time goes: a runtime's own profile, attributed to the nodes of our graph and to kinds of work.

The kinds are the lines of the table that opens the Swin-Free paper. `layout` is for what a runtime inserts, a change of
memory layout or number format (and for our own casts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from archdsl.ir.graph import Graph, Node
from archdsl.ir.op import KINDS, Kind
from archdsl.ir.paths import stage_of
from archdsl.latency.measurement import profile_runs
from archdsl.latency.timing import Timing
from archdsl.latency.worker.warm import Worker
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.op_names import KnownNames
from archdsl.runtimes.protocol import OpProfile
from archdsl.runtimes.target import ResolvedTarget, Target, resolve

By = Literal["kind", "op", "stage", "node"]
UNATTRIBUTED = "unattributed"


@dataclass(frozen=True)
class ProfiledOp:
    """One op of one run.

    path: the node of our graph it is or is named for; None when it is none of ours
    kind: of that node; `layout` for what the runtime put in, `unattributed` for what nobody knows
    also: kinds of the nodes that the runtime fused into it, where they are of another kind
    """

    path: str | None
    kind: str
    op_type: str
    ms: float
    also: tuple[str, ...] = ()

    def group(self, by: By) -> str:
        """What the row is counted under."""
        if self.kind == UNATTRIBUTED:
            return UNATTRIBUTED
        match by:
            case "kind":
                return self.kind
            case "op":
                return f"{self.kind}: {self.op_type}"
            case "stage":
                return self.kind if self.path is None else stage_of(self.path)
            case "node":
                return self.kind if self.path is None else self.path


@dataclass(frozen=True)
class Share:
    """What some rows take together, of how many there are ops, and what is fused into them, by kind."""

    name: str
    ms: float
    share: float
    ops: int
    fused: dict[str, int]


@dataclass(frozen=True)
class Profile:
    """A network's time op by op, and how it was taken.

    form:    the stage of its graph (`export.FORMS`)
    latency: of the same network without the profiler, its runs interleaved with the profiled ones
    run_ms:  the median, over the runs, of the sum of their ops (`total_ms` is the sum of the ops' own medians)
    runs:    how many runs each median is of; method: how the runtime tells
    """

    network: str
    form: str
    target: Target
    rows: tuple[ProfiledOp, ...]
    latency: Timing
    run_ms: float
    runs: int
    method: str

    @property
    def total_ms(self) -> float:
        """The sum of all ops."""
        return sum(row.ms for row in self.rows)

    @property
    def unattributed_ms(self) -> float:
        return sum(row.ms for row in self.rows if row.kind == UNATTRIBUTED)

    @property
    def overhead(self) -> float:
        """run_ms / latency without the profiler: above 1 it slows the ops down, below 1 some time is in no op."""
        return self.run_ms / self.latency.median_ms if self.latency.median_ms else 0.0

    def shares(self, by: By = "kind") -> list[Share]:
        """The rows added up, the longest first; kinds in their own order."""
        groups: dict[str, list[ProfiledOp]] = {}
        for row in self.rows:
            groups.setdefault(row.group(by), []).append(row)
        total = self.total_ms or 1.0
        found = []
        for name, rows in groups.items():
            ms = sum(row.ms for row in rows)
            found.append(Share(name, ms, ms / total, len(rows), dict(Counter(k for row in rows for k in row.also))))
        if by == "kind":
            order = (*KINDS, UNATTRIBUTED)
            return sorted(found, key=lambda share: order.index(share.name))
        return sorted(found, key=lambda share: -share.ms)

    def as_json(self, by: By = "kind") -> dict[str, Any]:
        """The facts as plain data; `rows` are added up by `by`."""
        return {
            "spec": self.network,
            "form": self.form,
            "target": self.target.as_json(),
            "runtime_version": self.latency.runtime_version,
            "method": self.method,
            "runs": self.runs,
            "total_ms": self.total_ms,
            "run_ms": self.run_ms,
            "latency": self.latency.as_json(),
            "overhead": self.overhead,
            "unattributed_ms": self.unattributed_ms,
            "unattributed_share": self.unattributed_ms / (self.total_ms or 1.0),
            "by": by,
            "rows": [vars(share) for share in self.shares(by)],
        }


def profile(
    networks: Sequence[tuple[Artefact, Graph]],
    target: Target | ResolvedTarget,
    *,
    seconds: float = 2.0,
    deadline_s: float | None = None,
    worker: Worker | None = None,
) -> list[Profile]:
    """Profile networks, interleaved with runs of the same networks without a profiler, all in one worker.

    networks: what is run, and the graph it was made from
    seconds:  of runs with, and as many without a profiler, for each network

    Raises: MeasureError; its rule is `no-profile` for a runtime that does not tell what single ops take
    """
    on = resolve(target)
    artefacts = [artefact for artefact, _ in networks]
    taken = profile_runs(artefacts, on, budget_s=seconds, deadline_s=deadline_s, worker=worker)
    return [
        Profile(
            network=artefact.name,
            form=artefact.form,
            target=on.target,
            rows=tuple(rows_of(ops, Attribution(graph))),
            latency=latency,
            run_ms=ops.run_ms,
            runs=ops.runs,
            method=ops.method,
        )
        for (artefact, graph), (latency, ops) in zip(networks, taken, strict=True)
    ]


def rows_of(profile: OpProfile, attribution: Attribution) -> Iterable[ProfiledOp]:
    """The ops of a runtime by our nodes."""
    for op in profile.ops:
        node = attribution.node(op.name)
        if op.inserted:
            yield ProfiledOp(None if node is None else node.path, "layout", op.op_type, op.ms)
        elif node is None:
            yield ProfiledOp(None, UNATTRIBUTED, op.op_type, op.ms)
        else:
            kind = attribution.kind(node)
            partners = {other.path: attribution.kind(other) for name in op.also if (other := attribution.node(name))}
            yield ProfiledOp(node.path, kind, op.op_type, op.ms, tuple(k for k in partners.values() if k != kind))


class Attribution:
    """From a runtime's names to the nodes of one graph and their kinds."""

    def __init__(self, graph: Graph):
        self.nodes = {node.path: node for node in graph.live()}
        self._known = KnownNames(self.nodes)
        self._kinds = kinds_of(graph)

    def node(self, name: str) -> Node | None:
        """The node whose path `name` is or begins with."""
        path = self._known.find(name)
        return None if path is None else self.nodes[path]

    def kind(self, node: Node) -> Kind:
        return self._kinds[node.path]


def kinds_of(graph: Graph) -> dict[str, Kind]:
    """The kind of each live node, by path."""
    found: dict[str, Kind] = {}
    readers: dict[str, list[Node]] = {node.path: [] for node in graph.live()}
    for node in reversed(graph.live()):
        read_by = {found[reader.path] for reader in readers[node.path]}
        serves = node.op.serves_attention and read_by == {"attention"}
        found[node.path] = "attention" if serves else node.op.kind
        for x in node.inputs:
            readers[x.path].append(node)
    return found
