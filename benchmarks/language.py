"""Spec -> validated, costed graph, in one process and from a cold start; nothing here imports torch.

Run: python benchmarks/language.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from archdsl.compiler import cost
from archdsl.language.architecture.load import load

SPEC = Path(__file__).parents[1] / "specs" / "swin_b.yaml"


def warm(seconds: float = 5.0) -> list[float]:
    """Seconds for each load + cost of Swin-B."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        cost(load(SPEC))
        times.append(time.perf_counter() - start)
    return times


def cold(command: list[str], runs: int = 9) -> list[float]:
    """Wall seconds of a whole process."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times


def peak_mib(command: list[str]) -> float:
    """Largest resident size of a command's process, in MiB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(before, after) / 1024


def main() -> None:
    assert "torch" not in sys.modules
    archdsl = str(Path(sys.executable).with_name("archdsl"))
    check, show = [archdsl, "check", str(SPEC)], [archdsl, "show", str(SPEC)]
    print("| what | median | best | worst |\n|---|---|---|---|")
    times = warm()
    per_second = [1 / t for t in times]
    row = statistics.median(per_second), max(per_second), min(per_second)
    print(f"| Swin-B, spec -> costed graph, specs/s ({len(times)} runs) | {row[0]:.0f} | {row[1]:.0f} | {row[2]:.0f} |")
    for name, command in (("check", check), ("show", show)):
        found = cold(command)
        row = statistics.median(found), min(found), max(found)
        print(f"| `archdsl {name}` Swin-B, cold, s ({len(found)} runs) | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.2f} |")
    # the largest child so far is what RUSAGE_CHILDREN tells, so the smaller command comes first
    print(f"| peak memory of check, MiB | {peak_mib(check):.0f} | | |")
    print(f"| peak memory of show, MiB | {peak_mib(show):.0f} | | |")
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main()
