"""What is different between two networks: what is written, the ops, the costs, the latencies that are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archdsl.compiler import compile, cost, identity
from archdsl.ir.graph import Graph, Input
from archdsl.language import Spec
from archdsl.language.architecture.lower import lower
from archdsl.latency.cache.entry import Entry
from archdsl.passes.propagate_layouts import data_moving_reorders

UNSET = "–"
_DESCRIBING = ("name", "source", "expect", "trained_on")
"""Keys that say nothing about the network."""


@dataclass(frozen=True)
class FieldDifference:
    """A path of the specs, and what each has there as YAML; `UNSET` where it has nothing."""

    path: str
    one: str
    other: str


@dataclass(frozen=True)
class CountDifference:
    """A number of both networks: parameters, MACs, reorders. ratio: the other's in those of the one; None for 0"""

    name: str
    one: int
    other: int

    @property
    def ratio(self) -> float | None:
        """The other's in those of the one."""
        return self.other / self.one if self.one else None


@dataclass(frozen=True)
class LatencyDifference:
    """The latest timings of both networks on one target and in one form, in ms, as the cache has them.

    They were taken at different moments: `archdsl bench` takes them in turns.
    """

    target: str
    form: str
    one_ms: float
    other_ms: float


@dataclass(frozen=True)
class SpecDifference:
    """Two networks beside each other.

    same: whether they are one network, whatever the specs say
    fields: where the specs differ; ops: number of each kind of op in both, where they differ
    counts: parameters, MACs and data-moving reorders, as drawn and as compiled
    """

    one: Spec
    other: Spec
    same: bool
    fields: tuple[FieldDifference, ...]
    ops: tuple[CountDifference, ...]
    counts: tuple[CountDifference, ...]
    latencies: tuple[LatencyDifference, ...]

    def as_json(self) -> dict[str, Any]:
        """What `archdsl diff --json` prints."""
        return {
            "one": {"name": self.one.name, "hash": identity(self.one)},
            "other": {"name": self.other.name, "hash": identity(self.other)},
            "same": self.same,
            "fields": [asdict(field) for field in self.fields],
            "ops": [asdict(op) for op in self.ops],
            "counts": [{**asdict(count), "ratio": count.ratio} for count in self.counts],
            "latencies": [asdict(latency) for latency in self.latencies],
        }


def spec_difference(one: Spec, other: Spec, timings: Sequence[Entry] = ()) -> SpecDifference:
    """Compare two specs. timings: of the cache; those of either network are set side by side"""
    graphs, compiled = (lower(one), lower(other)), (compile(one), compile(other))
    costs = cost(one), cost(other)
    counts = [
        CountDifference("parameters", costs[0].params, costs[1].params),
        CountDifference("MACs", costs[0].macs, costs[1].macs),
        CountDifference("reorders as drawn", *(len(data_moving_reorders(graph)) for graph in graphs)),
        CountDifference("reorders as compiled", *(len(data_moving_reorders(graph)) for graph in compiled)),
    ]
    ops = _ops(graphs[0]), _ops(graphs[1])
    return SpecDifference(
        one,
        other,
        identity(one) == identity(other),
        tuple(_fields(one.data, other.data)),
        tuple(
            CountDifference(kind, ops[0][kind], ops[1][kind])
            for kind in sorted({*ops[0], *ops[1]})
            if ops[0][kind] != ops[1][kind]
        ),
        tuple(counts),
        tuple(_latencies(identity(one), identity(other), timings)),
    )


def _ops(graph: Graph) -> Counter[str]:
    return Counter(type(node.op).__name__ for node in graph.live() if not isinstance(node.op, Input))


def _fields(one: Any, other: Any) -> Iterator[FieldDifference]:
    """Where two specs differ, as they are written with all that they extend."""
    leaves = dict(_leaves(one, "")), dict(_leaves(other, ""))
    for path in dict.fromkeys([*leaves[0], *leaves[1]]):
        values = [each.get(path, UNSET) for each in leaves]
        if values[0] != values[1] and path.partition(".")[0] not in _DESCRIBING:
            yield FieldDifference(path, values[0], values[1])


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


def _latencies(one: str, other: str, timings: Sequence[Entry]) -> Iterator[LatencyDifference]:
    latest: dict[tuple[str, str, str], Entry] = {}
    for entry in sorted((entry for entry in timings if entry.timing is not None), key=lambda entry: entry.date):
        latest[entry.graph_hash, entry.fingerprint, entry.build] = entry
    for (graph_hash, fingerprint, build), entry in latest.items():
        beside = latest.get((other, fingerprint, build))
        if graph_hash != one or beside is None or entry.timing is None or beside.timing is None:
            continue
        timing = entry.timing
        target = f"{timing.runtime} on {timing.device}, {timing.precision}, batch {timing.batch}"
        yield LatencyDifference(target, build, timing.median_ms, beside.timing.median_ms)
