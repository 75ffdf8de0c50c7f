"""The table of search/quickstart.yaml: every network of the space, really trained and timed, so that whole searches can
be replayed in milliseconds (`archdsl.study.tabular`).

Three phases. All may be killed at any time: the same command goes on.

    python benchmarks/make_table.py --train --processes 2 --out DIR    deterministic; the machine may be busy
    python benchmarks/make_table.py --time --out DIR                   needs a quiet machine, about 10 min
    python benchmarks/make_table.py --write --out DIR                  -> benchmarks/tables/quickstart.csv.gz and .json

Two tasks are trained, by the same code as `archdsl search`:

- `quick` is the study as shipped: 2 epochs on the generated images. Four seeds, of which a study sees two.
- `long` is 9 epochs on noisier images (standard deviation 1.0, not 0.3), for rungs 1, 3, 9 of early stopping. With the
  shipped noise nearly all networks are perfect after 4 epochs: then there is nothing to find. With this noise they end
  between 0.3 and 1.0. Of every epoch the accuracy is kept.

Times are taken in groups, in turns with an anchor network that is in every group: what counts is the ratio to the
anchor, times the anchor's median over all groups. Each pass deals the networks into new groups.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import io
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import archdsl
from archdsl import compiler
from archdsl.language import Space, Spec, load_space
from archdsl.runtimes.target import Target
from archdsl.training import Data, JsonLines, Recipe, parse_recipe, parse_source

SPACE = Path(__file__).resolve().parent.parent / "search" / "quickstart.yaml"
TABLES = Path(__file__).resolve().parent / "tables"
ANCHOR = "micro_swin"
GROUP = 8


@dataclass(frozen=True)
class Task:
    """How accuracies are taken. data, recipe: as a study's file would say it"""

    data: dict[str, Any]
    recipe: dict[str, Any]

    def parsed(self) -> Recipe:
        return parse_recipe(self.recipe)


TASKS = {
    "quick": Task({"type": "synthetic"}, {"extends": "quick"}),
    "long": Task({"type": "synthetic", "noise": 1.0}, {"extends": "quick", "epochs": 9}),
}
ROUNDS = (("quick", 0), ("quick", 1), ("long", 0), ("long", 1), ("quick", 2), ("quick", 3), ("long", 2))
"""Tasks and seeds in the order of their training: after the first two, there is a table to work with."""


@cache
def space() -> Space:
    return load_space(str(SPACE))


@cache
def networks() -> tuple[list[dict[str, int]], list[int], list[str]]:
    """(assignment of each different network, for every assignment the index of its network, hash of each network)."""
    found: dict[str, int] = {}
    assignment, settings = [], []
    for setting in space().iterate():
        key = compiler.identity(space().spec(setting))
        if key not in found:
            found[key] = len(found)
            assignment.append(setting)
        settings.append(found[key])
    return assignment, settings, list(found)


def spec_of(network: int) -> Spec:
    return space().spec(networks()[0][network], name=f"{space().name}_{network:03d}")


def key_of(task: str, network: int, seed: int) -> str:
    """What a run is kept by: the assignment and not the hash, so that a change of the hash loses no training."""
    assignment = " ".join(f"{name}={index}" for name, index in networks()[0][network].items())
    return f"{task} | {assignment} | seed={seed}"


# --- training ---------------------------------------------------------------------------------------------------------


@cache
def data_of(task: str) -> Data:
    return parse_source(TASKS[task].data).open((32, 32))


def train_one(job: tuple[str, int, int, str]) -> tuple[str, float]:
    """Train one network and keep the result. -> its key, and the processor seconds that it took"""
    task, network, seed, path = job
    from archdsl.training import train

    key, begun = key_of(task, network, seed), time.process_time()
    model = compiler.build(spec_of(network), seed=seed)
    outcome = train(model, data_of(task), TASKS[task].parsed(), seed=seed, threads=1)
    seconds = time.process_time() - begun
    JsonLines(path)[key] = {
        "accuracies": [epoch.val_accuracy for epoch in outcome.history],
        "num_val_independent": outcome.num_val_independent,
        "seconds": round(seconds, 2),
    }
    return key, seconds


def train_all(out: Path, processes: int, most: int | None) -> None:
    path = out / "trainings.jsonl"
    known = JsonLines(path)
    order = list(range(len(networks()[0])))
    random.Random(0).shuffle(order)
    jobs = [(task, network, seed, str(path)) for task, seed in ROUNDS for network in order]
    left = [job for job in jobs if known.get(key_of(*job[:3])) is None][:most]
    print(f"{len(order)} networks, {len(jobs)} runs, {len(left)} to do", file=sys.stderr)
    begun = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number, (key, seconds) in enumerate(pool.imap_unordered(train_one, left), start=1):
            passed = time.monotonic() - begun
            rest = passed / number * (len(left) - number)
            print(f"{number}/{len(left)} {seconds:5.1f} s  {rest / 60:6.1f} min left at this rate  {key}", flush=True)


# --- timing -----------------------------------------------------------------------------------------------------------


def target_of_space() -> Target:
    """What latencies are taken on: the first that the space names."""
    named = space().objectives.latency
    assert named is not None
    fields = {field.name for field in dataclasses.fields(Target)}
    given = named[0].model_dump(exclude_none=True).items()
    return Target.parse({name: value for name, value in given if name in fields})


def time_all(out: Path, passes: int, budget_s: float, most: int | None) -> None:
    from archdsl.language.architecture.load import load
    from archdsl.latency import close_workers, compare
    from archdsl.runtimes.export import artefact_of
    from archdsl.runtimes.reference import reference_of

    target = target_of_space()
    known = JsonLines(out / "timings.jsonl")
    try:
        for number in range(passes):
            order = list(range(len(networks()[0])))
            random.Random(number).shuffle(order)
            groups = [order[start : start + GROUP] for start in range(0, len(order), GROUP)][:most]
            for at, group in enumerate(groups):
                key = f"pass={number} " + " ".join(map(str, group))
                if known.get(key) is not None:
                    continue
                with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
                    specs = [load(ANCHOR), *(spec_of(network) for network in group)]
                    artefacts = [artefact_of(spec, target, Path(folder)) for spec in specs]
                    references = [reference_of(spec, target.precision) for spec in specs]
                    found = compare(artefacts, target, references=references, budget_s=budget_s)
                anchor, *timings = found.timings
                known[key] = {
                    "networks": group,
                    "anchor_ms": anchor.median_ms,
                    "ratios": [ratio.median for ratio in found.ratios[1:]],
                    "contended": any(timing.contended for timing in found.timings),
                    "runtime_version": anchor.runtime_version,
                    "device_name": anchor.device_name,
                }
                busy = ", a busy machine!" if known.get(key)["contended"] else ""  # type: ignore[index]
                ms = " ".join(f"{timing.median_ms:.2f}" for timing in timings)
                print(
                    f"pass {number + 1}, group {at + 1}/{len(groups)}: {anchor.median_ms:.2f} | {ms}{busy}", flush=True
                )
    finally:
        close_workers()


def timed(out: Path) -> Iterator[dict[str, Any]]:
    """The groups that were timed."""
    with open(out / "timings.jsonl", "rb") as file:
        for line in file:
            try:
                yield json.loads(line)["value"]
            except (ValueError, KeyError):
                continue


# --- writing ----------------------------------------------------------------------------------------------------------


def write(out: Path, to: Path) -> None:
    """The table and its sidecar. Every round of training must be complete, and every network timed three times."""
    assignment, settings, hashes = networks()
    known = JsonLines(out / "trainings.jsonl")
    rounds = [(t, s) for t, s in ROUNDS if all(known.get(key_of(t, n, s)) is not None for n in range(len(assignment)))]
    for task in TASKS:
        if sum(task == name for name, _ in rounds) < 2:
            raise SystemExit(f"the task {task} is not trained with two seeds yet: run --train")
    groups = list(timed(out))
    anchor_ms = median(group["anchor_ms"] for group in groups)
    ratios: list[list[float]] = [[] for _ in assignment]
    for group in groups:
        for network, ratio in zip(group["networks"], group["ratios"], strict=True):
            ratios[network].append(ratio)
    if min(map(len, ratios)) < 3:
        raise SystemExit(f"some networks were timed {min(map(len, ratios))} times, not 3: run --time")
    columns = [f"{t}_s{s}_e{e + 1}" for t, s in rounds for e in range(TASKS[t].parsed().epochs)]
    choices = space().choices
    head = [
        "network",
        *(choice.name for choice in choices),
        "params",
        "macs",
        "latency_ms",
        "low_ms",
        "high_ms",
        *columns,
    ]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(head)
    for network, setting in enumerate(assignment):
        cost = compiler.cost(spec_of(network))
        times = [anchor_ms * ratio for ratio in ratios[network]]
        accuracies = [a for t, s in rounds for a in (known.get(key_of(t, network, s)) or {})["accuracies"]]
        labels = [choice.labels[setting[choice.name]] for choice in choices]
        shown = [f"{ms:.5f}" for ms in (median(times), min(times), max(times))]
        lines.writerow(
            [hashes[network][:16], *labels, cost.params, cost.macs, *shown, *(f"{a:.6f}" for a in accuracies)]
        )
    first = known.get(key_of(*rounds[0][:1], 0, rounds[0][1])) or {}
    about = {
        "format": 1,
        "name": space().name,
        "space": SPACE.name,
        "knobs": {choice.name: list(choice.labels) for choice in choices},
        "settings": settings,
        "tasks": {
            name: {
                "data": task.data,
                "recipe": task.parsed().model_dump(exclude={"name"}),
                "epochs": task.parsed().epochs,
                "seeds": [s for t, s in rounds if t == name],
                "num_val_independent": first["num_val_independent"],
                "core_seconds": round(
                    sum(
                        (known.get(key_of(name, n, s)) or {})["seconds"]
                        for t, s in rounds
                        for n in range(len(assignment))
                        if t == name
                    )
                ),
            }
            for name, task in TASKS.items()
        },
        "latency": {
            "target": target_of_space().as_json(),
            "anchor": ANCHOR,
            "anchor_ms": anchor_ms,
            "passes": min(map(len, ratios)),
            "contended_groups": sum(group["contended"] for group in groups),
            "low_ms, high_ms": "the smallest and the largest of the passes",
            "runtime_version": groups[0]["runtime_version"],
            "device_name": groups[0]["device_name"],
        },
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "numpy", "onnxruntime")}
        | {"python": platform.python_version(), "archdsl": archdsl.__version__},
        "written": datetime.fromtimestamp((out / "timings.jsonl").stat().st_mtime, UTC).date().isoformat(),
        "source": "our own: benchmarks/make_table.py",
    }
    to.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    (to / f"{space().name}.csv.gz").write_bytes(packed)
    (to / f"{space().name}.json").write_text(json.dumps(about, indent=1, sort_keys=False) + "\n")
    print(f"{len(assignment)} networks, {len(columns)} accuracies of each, {len(packed) / 1e3:.0f} kB -> {to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    phase = parser.add_mutually_exclusive_group(required=True)
    for name in ("--train", "--time", "--write"):
        phase.add_argument(name, action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is done so far")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once, a thread each")
    parser.add_argument("--passes", type=int, default=3, help="how often each network is timed")
    parser.add_argument("--seconds", type=float, default=0.5, help="timed runs of each network in each pass")
    parser.add_argument("--most", type=int, help="end after so many runs, or groups of each pass")
    parser.add_argument("--to", type=Path, default=TABLES, help="where the table is written")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.train:
        train_all(options.out, options.processes, options.most)
    elif options.time:
        time_all(options.out, options.passes, options.seconds, options.most)
    else:
        write(options.out, options.to)


if __name__ == "__main__":
    main()
