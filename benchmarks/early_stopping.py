"""Early stopping with several objectives: how many epochs must be trained until a hypervolume is reached, with it and
without?

The real campaign on the table of search/quickstart.yaml (benchmarks/make_table.py, task `long`: 9 epochs, so rungs at
epochs 1 and 3). For each sampler and seed a study with all networks trained to the end, and one with early stopping;
both go on until they have reached the goals, a share of the true front's hypervolume by the true values of the networks
that were trained to the end. What counts is the epochs that were paid for.

Run: python benchmarks/early_stopping.py [--seeds 3] [--eta 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from archdsl.spec import load_space
from archdsl.study.campaign import Campaign
from archdsl.study.halving import Halving
from archdsl.study.objectives import chosen
from archdsl.study.plan import Plan
from archdsl.study.record import Record
from archdsl.study.table import Row, Table, TabularAssessor

OBJECTIVES = chosen((), ("accuracy", "latency"))


def studied(table: Table, task: str, sampler: str, seed: int, halving: Halving | None, trials: int) -> Sequence[Record]:
    """The trials of one study."""
    space = load_space(table.name)
    seeds = np.random.default_rng(seed).choice(table.tasks[task]["seeds"], 2, replace=False).tolist()
    assessor = TabularAssessor(space, OBJECTIVES, table, task=task, seeds=seeds, halving=halving)
    plan = Plan(table.name, OBJECTIVES, trials, seed, sampler)
    return (
        Campaign(space, plan, assessor, optuna.storages.InMemoryStorage(), num_distinct=len(table.rows)).run().records
    )


def epochs_until(records: Sequence[Record], table: Table, task: str, goals: Sequence[float]) -> list[float]:
    """Epochs paid until each goal; nan where it was not reached."""
    found, spent, rows = [float("nan")] * len(goals), 0, list[Row]()
    for record in records:
        if record.accuracy is None or record.duplicate_of is not None:
            continue
        spent += record.accuracy.epochs * len(record.accuracy.seeds)
        if record.state == "complete":
            rows.append(table.row(record.picks))
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
    options = parser.parse_args()
    table = Table.load("quickstart", options.table)
    goals = [float(goal) for goal in options.goals.split(",")]
    halving = Halving(table.tasks[options.task]["epochs"], options.first, options.eta)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"task {options.task}: {halving.epochs} epochs, rungs {halving.rungs}, eta {halving.eta}\n")
    print("| sampler | goal | epochs without | epochs with | with / without, median [range] | not reached with |")
    print("|---|---|---|---|---|---|")
    for sampler in options.samplers.split(","):
        found = []
        for seed in range(options.seeds):
            pair = [
                epochs_until(
                    studied(table, options.task, sampler, seed, how, len(table.rows)), table, options.task, goals
                )
                for how in (None, halving)
            ]
            found.append(pair)
        for column, goal in enumerate(goals):
            plain, halved = np.array([[pair[0][column], pair[1][column]] for pair in found]).T
            both = ~np.isnan(halved)
            shares = halved[both] / plain[both]
            share = f"{np.median(shares):.2f} [{shares.min():.2f}, {shares.max():.2f}]" if both.any() else "-"
            print(
                f"| {sampler} | {goal:.0%} | {np.nanmedian(plain):.0f} | "
                f"{np.median(halved[both]) if both.any() else float('nan'):.0f} | {share} | {int((~both).sum())} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
