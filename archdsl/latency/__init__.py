"""How latencies are measured: `measure`, `compare`, `profile_networks`, and what they return."""

from archdsl.latency.cache.timings import CacheWarning, TimingCache
from archdsl.latency.measurement import Comparison, close_workers, compare, measure
from archdsl.latency.profile.shares import By, Profile, Share
from archdsl.latency.profile.shares import profile as profile_networks
from archdsl.latency.statistics import Ratio
from archdsl.latency.timing import Timing
from archdsl.latency.worker.warm import Worker

__all__ = [
    "By",
    "CacheWarning",
    "Comparison",
    "Profile",
    "Ratio",
    "Share",
    "Timing",
    "TimingCache",
    "Worker",
    "close_workers",
    "compare",
    "measure",
    "profile_networks",
]
