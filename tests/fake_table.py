"""A table of the quickstart's space whose numbers are a formula: in the files' format, made in a second."""

from __future__ import annotations

import csv
import gzip
import json
from functools import cache
from math import exp
from pathlib import Path
from random import Random

from archdsl.compiler import cost, identity
from archdsl.language import Space, load_space

SEEDS = (0, 1, 2)
EPOCHS = 9


@cache
def quickstart() -> Space:
    return load_space("quickstart")


@cache
def distinct() -> tuple[list[dict[str, int]], list[int], list[str]]:
    """Assignment of each network, the network of each assignment, hash of each network."""
    found: dict[str, int] = {}
    assignment, settings = [], []
    for setting in quickstart().iterate():
        key = identity(quickstart().spec(setting, check=False))
        if key not in found:
            found[key] = len(found)
            assignment.append(setting)
        settings.append(found[key])
    return assignment, settings, list(found)


def write_fake_table(folder: Path, name: str = "fake", noise: float = 0.01) -> Path:
    """Accuracy grows with width, depth and connected windows, and over the epochs; latency is that of the MACs."""
    space, (assignment, settings, hashes) = quickstart(), distinct()
    head = ["network", *(choice.name for choice in space.choices), "params", "macs", "latency_ms", "low_ms", "high_ms"]
    head += [f"toy_s{seed}_e{epoch}" for seed in SEEDS for epoch in range(1, EPOCHS + 1)]
    with gzip.open(folder / f"{name}.csv.gz", "wt", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(head)
        for index, setting in enumerate(assignment):
            counts = cost(space.spec(setting, check=False))
            ms = 0.1 + counts.macs / 4e6 + 0.05 * (setting["stages.0.depth"] + setting["stages.1.depth"])
            curves = [f"{accuracy(setting, seed, e, noise):.5f}" for seed in SEEDS for e in range(1, EPOCHS + 1)]
            labels = [choice.labels[setting[choice.name]] for choice in space.choices]
            lines.writerow([hashes[index], *labels, counts.params, counts.macs, ms, 0.98 * ms, 1.02 * ms, *curves])
    task = {"data": {}, "recipe": {}, "epochs": EPOCHS, "seeds": list(SEEDS), "num_val_independent": 512}
    target = {"runtime": "onnxruntime", "device": "cpu", "precision": "fp32", "batch": 8, "threads": 1}
    about = {
        "format": 1,
        "name": name,
        "knobs": {choice.name: list(choice.labels) for choice in space.choices},
        "settings": settings,
        "tasks": {"toy": task},
        "latency": {"target": target, "passes": 3, "runtime_version": "0", "device_name": "none"},
        "written": "2026-01-01",
    }
    (folder / f"{name}.json").write_text(json.dumps(about))
    return folder


def accuracy(setting: dict[str, int], seed: int, epoch: int, noise: float) -> float:
    reach = setting["stages.0.window"] * 0.4 + setting["stages.1.window"] * 0.6 + (1 - setting["stages.*.shift"]) * 1.0
    size = setting["stem.dim"] * 0.7 + setting["stages.0.depth"] * 0.3 + setting["stages.1.depth"] * 0.3
    final = 0.25 + 0.7 * (1 - exp(-0.9 * reach)) * (1 - exp(-0.6 - size))
    shake = Random(f"{sorted(setting.items())} {seed}").gauss(0, noise)
    return min(1.0, max(0.0, final * (1 - exp(-epoch * (0.3 + 0.1 * size))) + shake))
