"""The race of the samplers: how many networks must be paid for until the hypervolume is 95 % of the true front's?

On the table of search/quickstart.yaml (benchmarks/make_table.py): a hundred seeds of every sampler take some minutes.

- A study sees the mean accuracy over two of the table's training seeds (which two depends on the study's seed) and the
  table's latency. It is judged by the true values of the networks it paid for: the means over all seeds.
- `auto` is archdsl's. All others are Optuna's samplers with their defaults, asked and told directly. Costs (params,
  MACs, latency) of untried networks are known to `auto` alone: Optuna's samplers have no place for them. Here they are
  known exactly; in a search a predictor foresees the latency to a percent or so. `auto, latency unknown` is the same
  sampler where nothing foresees it.
- `paid`: a network that was paid for before costs nothing again, for all samplers alike. `asked`: for Optuna's samplers
  as they are, every trial counts. `auto` never asks for a network twice.
- With and without the four known designs of the study as first trials, for all alike.

Run: python benchmarks/search_race.py [--seeds 100] [--processes 2] [--svg docs/race.svg]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna

from archdsl.language import Space, load_space
from archdsl.study.candidate import KnownCosts
from archdsl.study.objectives import Objective, chosen
from archdsl.study.proposals.parameters import suggest, value_of
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.record import Record
from archdsl.study.tabular import Table, TableRow, TabularAssessor

GOALS = (0.90, 0.95, 0.99)
MOST_ASKED = 2000
OURS = "auto"
BLIND = "auto, latency unknown"
OPTUNA: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "Optuna NSGA-II": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "Optuna TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
COLOURS = {OURS: "#0b6", BLIND: "#a80", "Optuna NSGA-II": "#d33", "Optuna TPE": "#36c", "random": "#888"}


@dataclass(frozen=True)
class Race:
    """What is searched. folder: where the table lies; None: the shipped one"""

    task: str
    objectives: tuple[str, ...]
    starts: bool
    folder: str | None = None


@dataclass(frozen=True)
class Course:
    """One study: its hypervolume after each network paid for, and how many trials had been asked for by then."""

    sampler: str
    seed: int
    volumes: tuple[float, ...]
    asked: tuple[int, ...]
    ask_s: float

    def paid_until(self, goal: float) -> int | None:
        return next((i for i, volume in enumerate(self.volumes, start=1) if volume >= goal), None)

    def asked_until(self, goal: float) -> int | None:
        paid = self.paid_until(goal)
        return None if paid is None else self.asked[paid - 1]


@cache
def ground(race: Race) -> tuple[Space, Table, tuple[Objective, ...]]:
    table = Table.load("quickstart", Path(race.folder) if race.folder else None)
    return load_space(table.name), table, chosen(race.objectives, race.objectives)


def course(job: tuple[Race, str, int]) -> Course:
    """Run one study until the last goal is reached."""
    race, name, seed = job
    _, table, objectives = ground(race)
    pairs = sorted(table.tasks[race.task]["seeds"])
    seen = tuple(random.Random(f"{race.task} {seed}").sample(pairs, 2))
    rows: list[TableRow] = []
    volumes: list[float] = []
    asked: list[int] = []
    begun = time.perf_counter()
    asks = _optuna(race, name, seed, seen) if name in OPTUNA else _ours(race, seed, seen, blind=name == BLIND)
    for number, row in enumerate(asks, start=1):
        if row not in rows:
            rows.append(row)
            volumes.append(table.hypervolume(rows, race.task, objectives))
            asked.append(number)
        if volumes[-1] >= GOALS[-1] or len(rows) == len(table.rows) or number == MOST_ASKED:
            break
    return Course(name, seed, tuple(volumes), tuple(asked), (time.perf_counter() - begun) / asked[-1])


def _values(race: Race, row: TableRow, seen: tuple[int, ...]) -> list[float]:
    """What a study is told about a network."""
    _, _, objectives = ground(race)
    accuracy = row.accuracy(race.task, seeds=seen)
    return [accuracy if o.name == "accuracy" else row.value(o.name, race.task) for o in objectives]


def _ours(race: Race, seed: int, seen: tuple[int, ...], *, blind: bool) -> Iterator[TableRow]:
    space, table, objectives = ground(race)
    assessor = TabularAssessor(space, objectives, table, task=race.task, seeds=seen)

    def counted(assignment: Mapping[str, int]) -> KnownCosts:
        known = assessor.known_costs(assignment)
        return KnownCosts(known.hash, {name: known.values[name] for name in ("params", "macs")})

    proposer = Proposer(space, objectives, counted if blind else assessor.known_costs, seed=seed)
    records: list[Record] = []
    queue = [start.assignment for start in space.start] if race.starts else []
    while True:
        assignment = queue.pop(0) if queue else proposer.propose(records, len(records))
        if assignment is None:
            return
        row = table.row(assignment)
        values = tuple(_values(race, row, seen))
        records.append(
            Record(len(records), "complete", assignment, row.hash, params=row.params, macs=row.macs, values=values)
        )
        yield row


def _optuna(race: Race, name: str, seed: int, seen: tuple[int, ...]) -> Iterator[TableRow]:
    space, table, objectives = ground(race)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=OPTUNA[name](seed), directions=[o.direction for o in objectives])
        for start in space.start if race.starts else ():
            study.enqueue_trial(
                {choice.name: value_of(choice, start.assignment[choice.name]) for choice in space.choices}
            )
        while True:
            trial = study.ask()
            row = table.row({choice.name: suggest(trial, choice) for choice in space.choices})
            study.tell(trial, _values(race, row, seen))
            yield row


# --- what came of it --------------------------------------------------------------------------------------------------


def interval(values: np.ndarray, of: Callable[[np.ndarray], float] = np.mean) -> tuple[float, float]:
    """95 %, by the percentiles of 2000 bootstrap resamples (Efron 1979)."""
    draw = np.random.default_rng(0)
    found = [of(draw.choice(values, len(values))) for _ in range(2000)]
    return float(np.percentile(found, 2.5)), float(np.percentile(found, 97.5))


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """ours / theirs of the means, with its bootstrap interval."""
    draw = np.random.default_rng(0)
    found = [draw.choice(ours, len(ours)).mean() / draw.choice(theirs, len(theirs)).mean() for _ in range(2000)]
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{ours.mean() / theirs.mean():.2f} [{low:.2f}, {high:.2f}]"


def print_race(race: Race, courses: list[Course], most: int) -> None:
    what = " × ".join(race.objectives)
    start = "after the four known designs" if race.starts else "without known designs"
    print(f"\n### task {race.task}, {what}, {start}\n")
    goals = " | ".join(f"paid until {goal:.0%}" for goal in GOALS)
    print(f"| sampler | {goals} | `auto` / this at 95 % | asked until 95 % | not reached | ms an ask |")
    print("|---|---|---|---|---|---|---|---|")

    def until(name: str, goal: float, how: str = "paid_until") -> np.ndarray:
        """Networks, or trials, of each seed; where the goal was not reached, the most there could be: a lower bound."""
        limit = most if how == "paid_until" else MOST_ASKED
        return np.array([getattr(c, how)(goal) or limit for c in courses if c.sampler == name], dtype=float)

    for name in dict.fromkeys(course.sampler for course in courses):
        cells = []
        for goal in GOALS:
            counts = until(name, goal)
            low, high = interval(counts)
            cells.append(f"{counts.mean():.1f} [{low:.1f}, {high:.1f}]")
        missed = sum(c.sampler == name and c.paid_until(0.95) is None for c in courses)
        ms = 1e3 * fmean(c.ask_s for c in courses if c.sampler == name)
        asks = until(name, 0.95, "asked_until").mean()
        share = ratio(until(OURS, 0.95), until(name, 0.95))
        print(f"| {name} | {' | '.join(cells)} | {share} | {asks:.1f} | {missed} | {ms:.1f} |")


def picture(courses: list[Course], title: str, most: int = 100) -> str:
    """Mean hypervolume against networks paid for, with the middle half of the seeds, as SVG."""
    wide, high, left, low = 640, 360, 56, 44

    def x(paid: float) -> float:
        return left + (wide - left - 16) * paid / most

    def y(volume: float) -> float:
        return high - low - (high - low - 32) * volume

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{high}" fill="white"/><text x="{left}" y="18" font-size="14">{title}</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path d="M{left} {y(tick):.1f}H{wide - 16}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    ticks = range(0, most + 1, 20)
    parts += [f'<text x="{x(t):.1f}" y="{high - low + 18}" text-anchor="middle">{t}</text>' for t in ticks]
    parts.append(f'<text x="{(left + wide) / 2:.0f}" y="{high - 8}" text-anchor="middle">networks paid for</text>')
    parts.append(f'<path d="M{left} {y(0.95):.1f}H{wide - 16}" stroke="#000" stroke-dasharray="4 4"/>')
    for number, name in enumerate(dict.fromkeys(course.sampler for course in courses)):
        mine = [one.volumes for one in courses if one.sampler == name]
        rows = [[*volumes[:most], *[volumes[-1]] * (most - len(volumes))] for volumes in mine]
        mean, (q1, q3) = np.mean(rows, axis=0), np.percentile(rows, [25, 75], axis=0)
        line = " ".join(f"{x(i + 1):.1f},{y(v):.1f}" for i, v in enumerate(mean))
        band = [f"{x(i + 1):.1f},{y(v):.1f}" for i, v in enumerate(q1)]
        band += [f"{x(i + 1):.1f},{y(v):.1f}" for i, v in reversed(list(enumerate(q3)))]
        parts.append(f'<polygon points="{" ".join(band)}" fill="{COLOURS[name]}" opacity="0.15"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        at = high - low - 16 - 16 * number
        parts.append(f'<text x="{wide - 24}" y="{at}" text-anchor="end" fill="{COLOURS[name]}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", help="folder of the table [default: the shipped one]")
    parser.add_argument("--tasks", default="quick,long")
    parser.add_argument("--objectives", default="accuracy,latency", help="of the race; accuracy first")
    parser.add_argument("--svg", type=Path, help="write the first race's picture here")
    parser.add_argument("--json", type=Path, help="write every study's course here")
    options = parser.parse_args()
    objectives = tuple(options.objectives.split(","))
    races = [Race(task, objectives, starts, options.table) for task in options.tasks.split(",") for starts in (0, 1)]
    told: list[dict[str, object]] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for race in races:
            jobs = [(race, name, seed) for name in (OURS, BLIND, *OPTUNA) for seed in range(options.seeds)]
            courses = pool.map(course, jobs, chunksize=4)
            _, table, _ = ground(race)
            print_race(race, courses, len(table.rows))
            sys.stdout.flush()
            told += [{**asdict(race), **asdict(one)} for one in courses]
            if options.svg and race is races[0]:
                options.svg.write_text(picture(courses, f"{table.name}: hypervolume, mean of {options.seeds} studies"))
    if options.json:
        options.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
