"""Latency: what it is (`Timing`), what it belongs to (`Target`), and how it is taken (`measure`, `compare`)."""

from archdsl.latency.artefact import Artefact, Reference
from archdsl.latency.cache.timings import CacheWarning, TimingCache
from archdsl.latency.clock.intervals import Ratio
from archdsl.latency.failure import REASONS, reason_of
from archdsl.latency.measurement import Comparison, close_workers, compare, measure
from archdsl.latency.networks import FORMS, artefact_of, network_for, network_of
from archdsl.latency.profile.shares import By, Profile, Share
from archdsl.latency.profile.shares import profile as profile_networks
from archdsl.latency.runtimes import RUNTIMES
from archdsl.latency.target import Target
from archdsl.latency.timing import Timing
from archdsl.latency.worker.warm import Worker

__all__ = [
    "FORMS",
    "REASONS",
    "RUNTIMES",
    "Artefact",
    "By",
    "CacheWarning",
    "Comparison",
    "Profile",
    "Ratio",
    "Reference",
    "Share",
    "Target",
    "Timing",
    "TimingCache",
    "Worker",
    "artefact_of",
    "close_workers",
    "compare",
    "measure",
    "network_for",
    "network_of",
    "profile_networks",
    "reason_of",
]
