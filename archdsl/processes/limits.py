"""Memory limits of a process, set by itself. Systems without `resource` have none."""

from __future__ import annotations

import os
from typing import NamedTuple


class Limits(NamedTuple):
    """Most memory of a process in bytes; 0 for no limit. Beyond it allocations fail.

    address_space: everything that is mapped (RLIMIT_AS)
    data: what the process alone writes to (RLIMIT_DATA): files that it maps to read, and what CUDA reserves, are free
    """

    address_space: int = 0
    data: int = 0

    def apply(self) -> None:
        """Bound the memory of this process from now on, and write no core dumps."""
        try:
            import resource
        except ImportError:
            return
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for kind, most in ((resource.RLIMIT_AS, self.address_space), (resource.RLIMIT_DATA, self.data)):
            if most:
                resource.setrlimit(kind, (most, most))


UNLIMITED = Limits()


def memory_in_use(*, resident: bool = True) -> int:
    """Memory of this process in bytes, resident or mapped; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1 if resident else 0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
