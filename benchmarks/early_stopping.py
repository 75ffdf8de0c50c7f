"""Early stopping with several objectives: how many epochs must be trained until a hypervolume is reached, with it and
without?

The real campaign on the table of search/quickstart.yaml (benchmarks/make_table.py, task `long`: 9 epochs, so rungs at
epochs 1 and 3). For each sampler and seed a study with all networks trained to the end, and one with early stopping.
What counts is the epochs that were paid for; the hypervolume is a share of the true front's, by the true values of the
networks that were trained to the end.

- The same hypervolume: both go on until they have reached the goals.
- The same trials: both try equally many networks, 16 as the quickstart does, or more.

Run: python benchmarks/early_stopping.py [--seeds 3] [--eta 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from archdsl.language import load_space
from archdsl.study.campaign import Campaign
from archdsl.study.config import StudyConfig
from archdsl.study.early_stopping import SuccessiveHalving
from archdsl.study.objectives import chosen
from archdsl.study.record import Record
from archdsl.study.tabular import Table, TableRow, TabularAssessor

OBJECTIVES = chosen((), ("accuracy", "latency"))


def studied(
    table: Table, task: str, sampler: str, seed: int, halving: SuccessiveHalving | None, trials: int
) -> Sequence[Record]:
    """The trials of one study."""
    space = load_space(table.name)
    seeds = np.random.default_rng(seed).choice(table.tasks[task]["seeds"], 2, replace=False).tolist()
    assessor = TabularAssessor(space, OBJECTIVES, table, task=task, seeds=seeds, early_stopping=halving)
    plan = StudyConfig(table.name, OBJECTIVES, trials, seed, sampler)
    return (
        Campaign(space, plan, assessor, optuna.storages.InMemoryStorage(), num_distinct=len(table.rows)).run().records
    )


def totals(records: Sequence[Record], table: Table, task: str) -> tuple[int, float]:
    """(epochs paid for, hypervolume) of a whole study."""
    trained = [record for record in records if record.accuracy is not None and record.duplicate_of is None]
    epochs = sum(record.accuracy.epochs * len(record.accuracy.seeds) for record in trained if record.accuracy)
    rows = [table.row(record.assignment) for record in trained if record.state == "complete"]
    return epochs, table.hypervolume(rows, task, OBJECTIVES)


def epochs_until(records: Sequence[Record], table: Table, task: str, goals: Sequence[float]) -> list[float]:
    """Epochs paid until each goal; nan where it was not reached."""
    found, spent, rows = [float("nan")] * len(goals), 0, list[TableRow]()
    for record in records:
        if record.accuracy is None or record.duplicate_of is not None:
            continue
        spent += record.accuracy.epochs * len(record.accuracy.seeds)
        if record.state == "complete":
            rows.append(table.row(record.assignment))
            volume = table.hypervolume(rows, task, OBJECTIVES)
            found = [spent if old != old and volume >= goal else old for old, goal in zip(found, goals, strict=True)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", default="long")
    parser.add_argument("--table", type=Path, help="folder of the table [default: the shipped one]")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--eta", type=int, default=3)
    parser.add_argument("--samplers", default="ehvi,nsga2,random")
    parser.add_argument("--goals", default="0.9,0.95,0.99")
    parser.add_argument("--trials", default="16,48")
    options = parser.parse_args()
    table = Table.load("quickstart", options.table)
    halving = SuccessiveHalving(table.tasks[options.task]["epochs"], options.first, options.eta)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        f"task {options.task}: {halving.epochs} epochs, rungs {halving.rungs}, eta {halving.eta}, {options.seeds} seeds"
    )
    samplers = options.samplers.split(",")

    def pairs(sampler: str, trials: int) -> list[tuple[Sequence[Record], Sequence[Record]]]:
        """For each seed the study without early stopping and the one with it."""

        def one(seed: int, how: SuccessiveHalving | None) -> Sequence[Record]:
            return studied(table, options.task, sampler, seed, how, trials)

        return [(one(seed, None), one(seed, halving)) for seed in range(options.seeds)]

    print("\nThe same hypervolume:\n")
    print("| sampler | goal | epochs without | epochs with | with / without, median [range] | not reached with |")
    print("|---|---|---|---|---|---|")
    goals = [float(goal) for goal in options.goals.split(",")]
    for sampler in samplers:
        found = [
            [epochs_until(study, table, options.task, goals) for study in pair]
            for pair in pairs(sampler, len(table.rows))
        ]
        for column, goal in enumerate(goals):
            plain, halved = np.array([[pair[0][column], pair[1][column]] for pair in found]).T
            both = ~np.isnan(halved)
            share = _ratios(halved[both], plain[both]) if both.any() else "-"
            cells = f"{np.nanmedian(plain):.0f} | {np.nanmedian(halved):.0f} | {share} | {int((~both).sum())}"
            print(f"| {sampler} | {goal:.0%} | {cells} |", flush=True)
    print("\nThe same trials:\n")
    print("| sampler | trials | epochs without | with | with / without, median [range] | hypervolume without | with |")
    print("|---|---|---|---|---|---|---|")
    for sampler in samplers:
        for trials in map(int, options.trials.split(",")):
            ends = [[totals(study, table, options.task) for study in pair] for pair in pairs(sampler, trials)]
            (plain, before), (halved, after) = np.array(ends, dtype=float).transpose(1, 2, 0)
            cells = f"{np.median(plain):.0f} | {np.median(halved):.0f} | {_ratios(halved, plain)}"
            print(f"| {sampler} | {trials} | {cells} | {_percent(before)} | {_percent(after)} |", flush=True)


def _ratios(ours: np.ndarray, theirs: np.ndarray) -> str:
    shares = ours / theirs
    return f"{np.median(shares):.2f} [{shares.min():.2f}, {shares.max():.2f}]"


def _percent(volumes: np.ndarray) -> str:
    return f"{np.median(volumes):.1%} [{volumes.min():.1%}, {volumes.max():.1%}]"


if __name__ == "__main__":
    main()
