"""What measuring a network costs beyond its timed runs, and on what it is spent.

`LatencyEvaluator` is called again and again, as a search does: weights, the ONNX file, PyTorch's answer, then a warm
worker that loads the file, checks its output and measures it in several sessions. The overhead of a call is its
seconds less those of its timed runs, so noise that makes runs slow does not count, and what makes everything else slow
does. Medians over the calls; the first call, which starts the worker, is left out. A contended timing is taken again by
`LatencyEvaluator`; only the first measurement of each call counts.

Run: python benchmarks/measuring_overhead.py [--spec swin_t] [--calls 7] [--seconds 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

from archdsl.language.architecture.load import load
from archdsl.latency import Worker
from archdsl.runtimes.target import Target
from archdsl.study.latency_evaluator import LatencyEvaluator

LIMIT_S = 2.0


class WatchedWorker(Worker):
    """A worker that remembers of each job when it began and ended, and what its steps took."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[float, float, dict[str, float]]] = []

    def run(self, job: Mapping[str, Any], *, deadline_s: float) -> dict[str, Any]:
        begun = time.perf_counter()
        reply = super().run(job, deadline_s=deadline_s)
        ended = time.perf_counter()
        runs = sum(sum(readings["wall_ms"]) for readings in reply["readings"]) / 1e3
        steps = reply["seconds"]
        parts = {
            "loading": steps["loading"],
            "checking against PyTorch": steps["checking"],
            "warming up, loading for later sessions": steps["timing"] - runs,
            "messages and the rest of the job": ended - begun - sum(steps.values()),
            "timed runs": runs,
        }
        self.jobs.append((begun, ended, parts))
        return reply


def one_call(latency: LatencyEvaluator, worker: WatchedWorker, name: str) -> dict[str, float]:
    """Seconds of each part of one measurement."""
    worker.jobs.clear()
    spec = load(name)
    start = time.perf_counter()
    latency(spec)
    begun, ended, parts = worker.jobs[0]
    parts = {"weights, ONNX file, PyTorch's answer": begun - start, **parts}
    return {**parts, "overhead": ended - start - parts["timed runs"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="swin_t")
    parser.add_argument("--on", default="onnxruntime")
    parser.add_argument("--calls", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with WatchedWorker() as worker:
        latency = LatencyEvaluator(Target(options.on), budget_s=options.seconds, worker=worker)
        one_call(latency, worker, options.spec)
        calls = [one_call(latency, worker, options.spec) for _ in range(options.calls)]
    found = {part: statistics.median(call[part] for call in calls) for part in calls[0]}
    worst = max(call["overhead"] for call in calls)
    if options.json:
        print(json.dumps({"spec": options.spec, "calls": calls, "medians_s": found, "worst_overhead_s": worst}))
        return
    print(f"{options.spec} on {options.on}, {options.calls} calls, warm worker\n")
    print("| part | s |\n|---|---|")
    for part, seconds in found.items():
        print(f"| {part} | {seconds:.2f} |")
    print(f"\noverhead {found['overhead']:.2f} s (at most {worst:.2f} s), of at most {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
