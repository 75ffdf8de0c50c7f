"""Whether a measurement can be believed: does another one agree with it, and is a disturbed one told?

Agreement: `archdsl bench SPEC --json` again and again, each a process of its own, with a timing cache that is empty at
first: so the first says what is assumed, and later ones what was learnt. Counted is how many of the printed 95 %
intervals hold the median of all the medians. Once on the machine as it is, and once while another process keeps a core
busy (a free one, where the system puts it).

Contention: short measurements of one network in a worker that shares its only core with a busy process, which must be
flagged, and without that process, which must not.

Run: python benchmarks/repeatability.py [--spec swin_t] [--repeats 20] [--flags 40] [--json]   (about 10 minutes)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archdsl.language.architecture.load import load
from archdsl.latency import Worker, measure
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import Target
from archdsl.telemetry.cpu import pin_to

BUSY = "while True: pass"
FLAGGED_SPEC, FLAGGED_SECONDS = "micro_swin", 0.5


@contextmanager
def busy_core(core: int | None = None) -> Iterator[None]:
    """A process that never waits, on `core` or wherever the system puts it."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as neighbour:
        try:
            if core is not None:
                os.sched_setaffinity(neighbour.pid, {core})
            yield
        finally:
            neighbour.kill()


def repeats(spec: str, runtime: str, number: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """The rows that as many processes print, all with the timing cache in `folder`."""
    command = [sys.executable, "-m", "archdsl", "bench", spec, "--on", runtime, "--seconds", str(seconds), "--json"]
    environment = {**os.environ, "ARCHDSL_CACHE_DIR": str(folder)}
    rows = []
    for i in range(number):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        (row,) = json.loads(done.stdout)["results"]
        rows.append(row)
        print(f"{i + 1}/{number}: {row['shown']}  {'; '.join(row['notes'])}", file=sys.stderr)
    return rows


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the medians differ, and how many of the intervals hold their median."""
    medians = [row["median_ms"] for row in rows]
    middle = statistics.median(medians)
    reach = [(row["ci_high_ms"] - row["ci_low_ms"]) / 2 / row["median_ms"] for row in rows]
    return {
        "repeats": len(rows),
        "median_ms": middle,
        "lowest_ms": min(medians),
        "highest_ms": max(medians),
        "sd": statistics.stdev(medians) / middle,
        "held": sum(row["ci_low_ms"] <= middle <= row["ci_high_ms"] for row in rows),
        "first_reach": reach[0],
        "median_reach": statistics.median(reach),
        "last_reach": reach[-1],
        "contended": sum(row["contended"] for row in rows),
    }


def flags(number: int) -> dict[str, int]:
    """How many of as many measurements are called contended, with a busy process on their core and without."""
    ours = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        target = Target()
        artefact = artefact_of(load(FLAGGED_SPEC), target, Path(folder))

        def count() -> int:
            with Worker() as worker:
                timings = [measure(artefact, target, worker=worker, budget_s=FLAGGED_SECONDS) for _ in range(number)]
            return sum(timing.contended for timing in timings)

        found["alone"] = count()
        pin_to((ours,))  # every thread of ours, so the one that starts workers too, which inherit it
        try:
            with busy_core(ours):
                found["neighbour"] = count()
        finally:
            pin_to(tuple(before))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="swin_t")
    parser.add_argument("--on", default="onnxruntime")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed runs of each")
    parser.add_argument("--flags", type=int, default=40, help="short measurements with and without a busy neighbour")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"spec": options.spec, "on": options.on}
    with tempfile.TemporaryDirectory(prefix="archdsl-repeatability-") as folder:
        arguments = options.spec, options.on, options.repeats, options.seconds
        quiet = repeats(*arguments, Path(folder, "quiet"))
        with busy_core():
            loaded = repeats(*arguments, Path(folder, "busy"))
    found["agreement"] = {"the machine as it is": agreement(quiet), "one core busy": agreement(loaded)}
    found["flags"] = {"of": options.flags, **flags(options.flags)} if options.flags else None
    if options.json:
        print(json.dumps({**found, "rows": {"quiet": quiet, "busy": loaded}}))
        return
    print(f"{options.spec} on {options.on}, {options.repeats} processes each\n")
    print("| machine | median ms | lowest–highest | sd | ± printed: first, median, last | intervals that hold it |")
    print("|---|---|---|---|---|---|")
    for name, row in found["agreement"].items():
        reach = ", ".join(f"{row[key]:.1%}" for key in ("first_reach", "median_reach", "last_reach"))
        spread = f"{row['lowest_ms']:.1f}–{row['highest_ms']:.1f}"
        held = f"{row['held']} of {row['repeats']}"
        print(f"| {name} | {row['median_ms']:.1f} | {spread} | {row['sd']:.1%} | {reach} | {held} |")
    if found["flags"]:
        told = found["flags"]
        print(f"\nflagged as contended, busy process on the same core: {told['neighbour']} of {told['of']}")
        print(f"flagged as contended, without it: {told['alone']} of {told['of']}")


if __name__ == "__main__":
    main()
