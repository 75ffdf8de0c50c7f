"""A network's latency without measuring it: from the times of its segments and a few networks measured as a whole.

A predictor answers for one target, quickly and without side effects, so threads may share it. It never guesses: where
a segment was not measured, or the network is far from all that calibrate it, it raises an error that says what to
measure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from archdsl.compiler import AnySpec, as_spec, compile
from archdsl.errors import ArchError, MeasureError
from archdsl.failures import failed
from archdsl.language.text.quantities import decimals
from archdsl.latency.predictor.model import BytePrice, RatioModel, Sample, byte_price
from archdsl.latency.predictor.segments import distinct
from archdsl.latency.timing import Timing, utc_now
from archdsl.passes.segments import Segment, segments_of
from archdsl.runtimes.target import Target

SCHEMA = 1
"""Of what `Predictor.as_json` gives: raise it when the same data would come to mean another prediction."""
LEVEL = 0.9
FAR = 2.0
"""A network whose segments take this many times longer than those of any calibration network, or shorter, is far."""
FEW_NAMED = 4
MOST_JOINED = 4
"""A segment of more parts that takes most of a network is no segment any more."""


@dataclass(frozen=True)
class NetworkSegments:
    """A network as a predictor sees it: which segments, and how often each.

    name:     what messages call it
    counts:   how often each segment occurs, by segment key
    segments: one of each key; empty for a network that a stored predictor learnt from
    moves:    bytes of those that only move tokens, by segment key
    """

    name: str
    counts: Mapping[str, int]
    segments: Mapping[str, Segment]
    moves: Mapping[str, int]

    @classmethod
    def of(cls, spec: AnySpec) -> NetworkSegments:
        """The segments of a spec in its train form.

        Raises: SpecError, ShapeError when the spec is not valid; MeasureError (`not-cut`) for a network that can only
            be measured whole: of several outputs, or whose parts read each other's values everywhere
        """
        spec = as_spec(spec)
        graph = compile(spec)
        if len(graph.outputs) > 1:
            raise _not_cut(spec.name, f"it gives {len(graph.outputs)} outputs")
        segments = segments_of(graph)
        _check_cut(spec.name, segments)
        pieces = distinct(segments)
        moves = {key: segment.num_bytes for key, segment in pieces.items() if segment.only_moves}
        return cls(spec.name, Counter(segment.key for segment in segments), pieces, moves)


def _check_cut(name: str, segments: Sequence[Segment]) -> None:
    """Raises: MeasureError where one segment of many parts is most of the network, so that nothing is left to add up"""
    total = sum(segment.cost.macs for segment in segments)
    for segment in segments:
        parts = segment.name.split(" + ")
        if len(parts) > MOST_JOINED and 2 * segment.cost.macs > total:
            raise _not_cut(name, f"values go past each other from `{parts[0]}` to `{parts[-1]}`")


def _not_cut(name: str, why: str) -> MeasureError:
    message = f"{name} is not cut into segments, it is measured whole: {why}"
    return failed("not-cut", message, where="predictor", hint="`archdsl bench` measures it")


@dataclass(frozen=True)
class Prediction:
    """A predicted latency, in milliseconds for one whole batch.

    median_ms:       as likely above as below what a measurement would show
    low_ms, high_ms: what a measurement would show, beside those that were learnt from, lies between them with
                     probability `level`; how much faster or slower the machine is another day is not in it
    num_segments:    different segments of this network
    num_priced:      those of them priced by their bytes, not measured
    num_networks:    measured as a whole, from which the predictor learnt
    left_out_error:  mean relative error on those when each is predicted from the others; None for fewer than two
    date:            of the prediction
    """

    median_ms: float
    low_ms: float
    high_ms: float
    level: float
    target: Target
    num_segments: int
    num_priced: int
    num_networks: int
    left_out_error: float | None
    date: str

    def __str__(self) -> str:
        digits = decimals(self.high_ms - self.low_ms, 2)
        low, high = f"{self.low_ms:.{digits}f}", f"{self.high_ms:.{digits}f}"
        return f"≈ {self.median_ms:.{digits}f} ms ({low}–{high} predicted)"

    def as_json(self) -> dict[str, Any]:
        """The fields, `predicted: true`, and the text that is `shown`."""
        return {**asdict(self), "target": self.target.as_json(), "predicted": True, "shown": str(self)}


@dataclass(frozen=True)
class Calibrated:
    """A network measured as a whole: its segments, its median in ms and its timing, None in a stored predictor."""

    parts: NetworkSegments
    median_ms: float
    timing: Timing | None = None


class Predictor:
    """Predicts for one target.

    call_ms:     what calling the runtime takes
    segments_ms: measured medians by segment key, the call included
    calibration: networks measured as a whole
    sizes:       bytes of the measured segments that only move tokens: those not measured are priced by them
    """

    def __init__(
        self,
        target: Target,
        call_ms: float,
        segments_ms: Mapping[str, float],
        calibration: Sequence[Calibrated] = (),
        *,
        sizes: Mapping[str, int] | None = None,
    ):
        self.target, self.call_ms, self.segments_ms = target, call_ms, dict(segments_ms)
        self.calibration, self.sizes = tuple(calibration), dict(sizes or {})
        self.price: BytePrice | None = byte_price(
            list(self.sizes.values()), [self._beyond_call(key) for key in self.sizes]
        )
        samples = [self.sample(one.parts) for one in self.calibration]
        self.model = RatioModel(samples, [one.median_ms for one in self.calibration])
        self.date = utc_now()

    def learning(self, more: Sequence[Calibrated]) -> Predictor:
        """This predictor with more networks to learn from."""
        return Predictor(self.target, self.call_ms, self.segments_ms, (*self.calibration, *more), sizes=self.sizes)

    def as_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes a predictor that answers the same, to the last digit."""
        return {
            "schema": SCHEMA,
            "target": self.target.as_json(),
            "date": self.date,
            "call_ms": self.call_ms,
            "segments_ms": self.segments_ms,
            "sizes": self.sizes,
            "networks": [
                {
                    "name": one.parts.name,
                    "median_ms": one.median_ms,
                    "counts": dict(one.parts.counts),
                    "moves": {key: one.parts.moves[key] for key in self._priced(one.parts)},
                }
                for one in self.calibration
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Predictor:
        """The predictor that `as_json` described; how its networks were timed is forgotten. Raises: ValueError"""
        try:
            if data["schema"] != SCHEMA:
                raise ValueError(f"its schema is {data['schema']!r}, not {SCHEMA}")
            networks = [
                Calibrated(
                    NetworkSegments(
                        one["name"], {key: int(n) for key, n in one["counts"].items()}, {}, dict(one["moves"])
                    ),
                    float(one["median_ms"]),
                )
                for one in data["networks"]
            ]
            times_ms = {key: float(ms) for key, ms in data["segments_ms"].items()}
            target = Target.parse(data["target"])
            made = cls(target, float(data["call_ms"]), times_ms, networks, sizes=data["sizes"])
            made.date = str(data["date"])
        except (KeyError, TypeError, AttributeError, ArchError) as error:
            raise ValueError(f"this is no predictor: {type(error).__name__}: {error}") from error
        return made

    def predict(self, network: AnySpec | NetworkSegments, target: Target | None = None) -> Prediction:
        """The latency of a spec (or of its parts, where they are known), with its interval.

        target: to be sure that it is the predictor's
        Raises: MeasureError: `unknown-segment`, `extrapolation`, `other-target`; what the spec itself raises
        """
        if target is not None and target != self.target:
            message = f"this predictor is for {self.target}, not for {target}"
            raise failed("other-target", message, where="predictor", hint=f"measure segments on {target}")
        parts = network if isinstance(network, NetworkSegments) else NetworkSegments.of(network)
        sample = self.sample(parts)
        self._check_near(parts, sample)
        found = self.model.quantiles(sample, LEVEL)
        return Prediction(
            median_ms=found.median,
            low_ms=found.low,
            high_ms=found.high,
            level=LEVEL,
            target=self.target,
            num_segments=len(parts.counts),
            num_priced=len(self._priced(parts)),
            num_networks=len(self.calibration),
            left_out_error=self.left_out_error,
            date=self.date,
        )

    @cached_property
    def left_out_error(self) -> float | None:
        """Mean relative error on the calibration networks, each predicted from the others."""
        return self.model.left_out_error

    def missing(self, parts: NetworkSegments) -> list[Segment]:
        """The segments without which the network is not predicted."""
        return [
            segment
            for key, segment in parts.segments.items()
            if key not in self.segments_ms and not (key in parts.moves and self.price)
        ]

    def next_networks(self, candidates: Sequence[NetworkSegments], count: int) -> list[int]:
        """Which `count` candidates to measure next: the shortest and the longest if they lie beyond what the
        calibration reaches, then those whose measurement lowers the variance of all predictions most."""
        known = {frozenset(one.parts.counts.items()) for one in self.calibration}
        free = {
            i: self.sample(parts)
            for i, parts in enumerate(candidates)
            if not self.missing(parts) and frozenset(parts.counts.items()) not in known
        }
        names, samples = list(free), list(free.values())
        ends = self._ends([sample.sum_ms for sample in samples])[:count]
        chosen = ends + self.model.choose(samples, count - len(ends), given=ends)
        return [names[i] for i in chosen]

    def sample(self, parts: NetworkSegments) -> Sample:
        """The network as the model sees it. Raises: MeasureError (`unknown-segment`)"""
        if missing := self.missing(parts):
            named = ", ".join(segment.name for segment in missing[:FEW_NAMED])
            more = f" and {len(missing) - FEW_NAMED} more" if len(missing) > FEW_NAMED else ""
            message = f"{parts.name} has segments that were not measured on {self.target}: {named}{more}"
            raise failed(
                "unknown-segment", message, where="predictor", hint="measure them first, or the network itself"
            )
        times_ms = {key: count * self._time_of(key, parts) for key, count in parts.counts.items()}
        sum_ms = self.call_ms + sum(times_ms.values())
        shares = {key: ms / sum_ms for key, ms in times_ms.items()}
        spread = self.price.spread if self.price else 0.0
        loose = sum((shares[key] * spread) ** 2 for key in self._priced(parts))
        return Sample(sum_ms, shares, loose)

    def _time_of(self, key: str, parts: NetworkSegments) -> float:
        if key in self.segments_ms:
            return self._beyond_call(key)
        assert self.price is not None  # else the segment is missing
        return self.price.ms(parts.moves[key])

    def _beyond_call(self, key: str) -> float:
        """What a segment takes among others, where nobody calls it. Short ones may seem to take less than nothing."""
        return max(0.0, self.segments_ms[key] - self.call_ms)

    def _priced(self, parts: NetworkSegments) -> list[str]:
        return [key for key in parts.counts if key not in self.segments_ms]

    def _check_near(self, parts: NetworkSegments, sample: Sample) -> None:
        if not self.calibration:
            message = f"no network was measured as a whole on {self.target}, so nothing says how far off a sum is"
            raise failed("extrapolation", message, where="predictor", hint=f"measure {parts.name} or another network")
        sums = [one.sum_ms for one in self.model.samples]
        if not min(sums) / FAR <= sample.sum_ms <= max(sums) * FAR:
            message = (
                f"the segments of {parts.name} take {sample.sum_ms:.3g} ms together, those of the networks that "
                f"calibrate the predictor {min(sums):.3g} to {max(sums):.3g} ms: too far to predict it"
            )
            raise failed("extrapolation", message, where="predictor", hint=f"measure {parts.name} as a whole")

    def _ends(self, sums: Sequence[float]) -> list[int]:
        """Where the largest and the smallest sum stand, if they are more than sqrt(FAR) beyond the calibration."""
        reach = FAR**0.5
        if not sums or max(sums) < reach * min(sums):
            return []
        known = [one.sum_ms for one in self.model.samples]
        ends = []
        if not known or max(sums) > reach * max(known):
            ends.append(sums.index(max(sums)))
        if not known or min(sums) * reach < min(known):
            ends.append(sums.index(min(sums)))
        return ends


def predicted_or_why(predictor: Predictor, network: AnySpec | NetworkSegments) -> Prediction | MeasureError:
    """The prediction, or the error that says why there is none."""
    try:
        return predictor.predict(network)
    except MeasureError as error:
        return error
