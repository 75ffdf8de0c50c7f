"""Does a network need connections between windows? Three micro networks on the quickstart's task, over several seeds.

`micro_swin` shifts its windows, `micro_swin_free` has a larger one instead, `micro_swin_isolated` has neither: its
windows never learn of one another, and theory gives it at most 50 % (see `archdsl.training.data.synthetic`).

    python benchmarks/cross_window.py [--seeds 3] [--out runs/cross_window]

Prints a table in Markdown. Trainings that are done already (same network, data, recipe and seed) are not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import archdsl
from archdsl.evaluators.train_processes import Trainers
from archdsl.language import Spec, load_space
from archdsl.training import Accuracy, parse_recipe
from archdsl.training.data.synthetic import SyntheticPairs

BATCH_NORM = {"defaults.norm": "batch", "defaults.act": "relu"}
NETWORKS = (
    ("isolated windows", "micro_swin_isolated"),
    ("Swin (shift)", "micro_swin"),
    ("Swin-Free (larger window)", "micro_swin_free"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--out", type=Path, default=Path("runs/cross_window"), help="where finished trainings are kept")
    arguments = parser.parse_args()

    accuracy = load_space("quickstart").objectives.accuracy
    assert accuracy is not None
    recipe = parse_recipe(accuracy.train.recipe, epochs=accuracy.train.epochs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    trainers = Trainers(
        accuracy.train.data, recipe, results=arguments.out / "trainings.jsonl", num_seeds=arguments.seeds
    )
    try:
        print(table(trainers, arguments.seeds))
    finally:
        trainers.close()


def table(trainers: Trainers, num_seeds: int) -> str:
    """The networks with layer norm and GELU and with batch norm and ReLU, each against the isolated one of its kind."""
    source = trainers.source
    assert isinstance(source, SyntheticPairs)
    lines = [
        f"Data: {source.text()}; recipe {trainers.recipe.name}, {trainers.recipe.epochs} epochs; {num_seeds} seeds.",
        "Ceiling without a connection between windows: 0.500.",
        "",
        "| network | norm, act | accuracy (mean ± sd) | seeds | minus isolated (± 2 standard errors) |",
        "|---|---|---|---|---|",
    ]
    for words, changes in (("layer, gelu", {}), ("batch, relu", BATCH_NORM)):
        isolated: Accuracy | None = None
        for title, name in NETWORKS:
            spec: Spec = archdsl.load(name, set=changes)
            found = trainers(spec, seed=0)
            isolated = isolated or found
            values = " ".join(f"{value:.3f}" for value in found.values)
            spread = f"{found.mean:.3f} ± {found.sd or 0:.3f}"
            apart = "–" if found is isolated else difference(found.values, isolated.values)
            lines.append(f"| {title} | {words} | {spread} | {values} | {apart} |")
    return "\n".join(lines)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean of the differences seed by seed, and twice its standard error."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    reach = 2 * stdev(pairs) / sqrt(len(pairs)) if len(pairs) > 1 else float("nan")
    return f"+{mean(pairs):.3f} ± {reach:.3f}"


if __name__ == "__main__":
    main()
