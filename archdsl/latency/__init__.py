"""Latency: what it is (`Timing`), what it belongs to (`Target`), and how it is taken (`measure`, `compare`)."""

from archdsl.latency.artefact import Artefact, Reference
from archdsl.latency.cache import CacheWarning, TimingCache
from archdsl.latency.failure import REASONS, reason_of
from archdsl.latency.intervals import Ratio
from archdsl.latency.measurement import Comparison, close_workers, compare, measure
from archdsl.latency.runtimes import RUNTIMES
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing
from archdsl.latency.worker import Worker

__all__ = [
    "REASONS",
    "RUNTIMES",
    "Artefact",
    "CacheWarning",
    "Comparison",
    "Ratio",
    "Reference",
    "Target",
    "Timing",
    "TimingCache",
    "Worker",
    "close_workers",
    "compare",
    "measure",
    "reason_of",
]
