"""What the search itself costs: everything in a trial but training, timing, and Optuna's (or the proposer's) asking.

    python benchmarks/search_overhead.py                                  # journal, 1,000 and 10,000 trials
    python benchmarks/search_overhead.py --storage postgresql://me:pw@host/db --trials 1000
    python benchmarks/search_overhead.py --storage postgresql --fill      # on a server that is started for this alone

The studies are real: the campaign of `archdsl search` on networks of micro_swin, with latencies computed from counts
and accuracies from hashes in place of timings and trainings, whose few milliseconds count for nothing here. Asking is
taken apart: `Study.ask` and the draw of a trial's parameters are Optuna's or the proposer's, and reported beside the
rest. The figures are those of the last trials before each mark, when the study is as long as the mark says. Statements
are what was sent to a database for a trial, asking and the beginnings and ends of transactions included.

With --fill each mark is a study of its own: a few real trials, copies of them under other hashes until the mark is
near, and real trials again, which are measured. That takes minutes for a mark of 10,000 where the real way takes hours
of somebody's patience; what the search reads is the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_study import FakeTraining, fake_campaign, fake_space
from postgres import server

from archdsl.language import Space
from archdsl.study.campaign import Campaign
from archdsl.study.events import TrialEnded
from archdsl.study.storage.opening import forget_study, masked, open_storage

LAST = 200
HEAD = """| storage | sampler | trials | ours, median ms | ours, p95 ms | asking, median ms | statements: ours, asking |
|---|---|---:|---:|---:|---:|---:|"""
SPACE = """
name: fake
base: micro_swin
choices:
  stages.*.window: [2, 4, 8]
  stages.*.shift: [true, false]
  stages.*.depth: {range: [1, 8]}
  stages.*.mlp_ratio: [1, 1.5, 2, 2.5, 3, 3.5, 4]
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu}]
objectives: {accuracy: {train: {data: synthetic}}, latency: {runtime: "null"}}
search: {trials: 10, start: [micro_swin]}
"""


@dataclass
class Spent:
    """Seconds and statements, of a trial or of a part of it."""

    seconds: float = 0.0
    statements: int = 0

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.seconds - other.seconds, self.statements - other.statements)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.statements + other.statements)


class Clock:
    """What each trial took, and of that what was spent asking and what stands for timing and training.

    now: what tells the seconds
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.ours: list[Spent] = []
        self.asking: list[Spent] = []
        self._now, self._statements = now, 0
        self._asked = self._paid = Spent()
        self._inside = False
        self.start()

    def start(self) -> None:
        self._last = self._read()

    def _read(self) -> Spent:
        return Spent(self._now(), self._statements)

    def count(self, *_anything: Any) -> None:
        """Called for each statement that is sent to a database."""
        self._statements += 1

    def listen(self, event: Any) -> None:
        if isinstance(event, TrialEnded):
            now = self._read()
            self.ours.append(now - self._last - self._asked - self._paid)
            self.asking.append(self._asked)
            self._asked, self._paid, self._last = Spent(), Spent(), now

    def asks(self, function: Any) -> Any:
        """The function, with what it takes told apart as asking; one within another counts once."""

        def timed(*arguments: Any, **more: Any) -> Any:
            if self._inside:
                return function(*arguments, **more)
            begun, self._inside = self._read(), True
            try:
                return function(*arguments, **more)
            finally:
                self._asked, self._inside = self._asked + (self._read() - begun), False

        return timed

    def pays(self, function: Any) -> Any:
        """The function, with what it takes told apart as what a timing or a training would take."""

        def timed(*arguments: Any, **more: Any) -> Any:
            begun = self._read()
            try:
                return function(*arguments, **more)
            finally:
                self._paid += self._read() - begun

        return timed


@contextmanager
def statements_told(count: Callable[..., None]) -> Iterator[None]:
    """Tell of each statement that this process sends to any database, and of each begin, commit and rollback."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    names = ("before_cursor_execute", "begin", "commit", "rollback")
    for name in names:
        event.listen(Engine, name, count)
    try:
        yield
    finally:
        for name in names:
            event.remove(Engine, name, count)


def of(storage: str | None, folder: Path, trials: int, sampler: str, space: Space, clock: Clock) -> Campaign:
    return fake_campaign(
        folder,
        training=FakeTraining(),
        trials=trials,
        sampler=sampler,
        space=space,
        storage=storage,
        on_event=clock.listen,
    )


def filled(storage: str | None, folder: Path, mark: int, sampler: str, space: Space, last: int) -> None:
    """Make a study of nearly `mark` trials; `last` are left to do."""
    real = min(50, mark - last)
    campaign = of(storage, folder, real, sampler, space, Clock())
    campaign.run()
    study = campaign._store.study
    originals = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    first = len(study.get_trials(deepcopy=False))
    database = getattr(study._storage, "_backend", None)
    if isinstance(database, optuna.storages.RDBStorage) and database.engine.name == "postgresql":
        copy_within(database, study._study_id, [trial.number for trial in originals], range(first, mark - last))
        return
    with campaign._store.batch():
        for index in range(first, mark - last):
            trial = originals[index % len(originals)]
            attributes = {**trial.user_attrs, "archdsl:hash": f"{trial.user_attrs['archdsl:hash']}-{index}"}
            copy = optuna.trial.create_trial(
                values=trial.values, params=trial.params, distributions=trial.distributions, user_attrs=attributes
            )
            study.add_trial(copy)


def copy_within(database: optuna.storages.RDBStorage, study_id: int, originals: list[int], numbers: range) -> None:
    """Copy the `originals` over and over under these numbers, in PostgreSQL: Optuna takes 65 statements for each."""
    from sqlalchemy import text

    of = "o.study_id = :study AND o.number = (CAST(:originals AS int[]))[1 + {} % CAST(:several AS int)]"
    copies = f"FROM trials t JOIN trials o ON {of.format('t.number')} JOIN {{0}} p ON p.trial_id = o.trial_id"
    copies += " WHERE t.study_id = :study AND t.number >= :first"
    other_hash = (
        "CASE p.key WHEN 'archdsl:hash' THEN left(value_json, -1) || '-' || t.number || '\"' ELSE value_json END"
    )
    children = {
        "trial_params": {name: name for name in ("param_name", "param_value", "distribution_json")},
        "trial_values": {name: name for name in ("objective", "value", "value_type")},
        "trial_user_attributes": {"key": "key", "value_json": other_hash},
    }
    given = {
        "study": study_id,
        "originals": originals,
        "several": len(originals),
        "first": numbers.start,
        "last": numbers.stop - 1,
    }
    fields = "study_id, state, datetime_start, datetime_complete"
    with database.engine.begin() as connection:
        series = "generate_series(CAST(:first AS int), CAST(:last AS int)) g"
        source = f"FROM {series} JOIN trials o ON {of.format('g')} ORDER BY g"
        connection.execute(text(f"INSERT INTO trials (number, {fields}) SELECT g, {fields} {source}"), given)
        for table, columns in children.items():
            taken = f"SELECT t.trial_id, {', '.join(columns.values())} {copies.format(table)}"
            connection.execute(text(f"INSERT INTO {table} (trial_id, {', '.join(columns)}) {taken}"), given)
        connection.execute(text("ANALYZE"))


def measured(
    storage: str | None,
    folder: Path,
    trials: int,
    sampler: str,
    space: Space,
    now: Callable[[], float] = time.perf_counter,
) -> Clock:
    clock = Clock(now)
    campaign = of(storage, folder, trials, sampler, space, clock)
    campaign._trials._assignment = clock.asks(campaign._trials._assignment)  # type: ignore[method-assign]
    campaign._sampler = clock.asks(campaign._sampler)  # type: ignore[method-assign]
    campaign._store.study.ask = clock.asks(campaign._store.study.ask)  # type: ignore[method-assign]
    assessor = campaign.assessor
    assessor.latencies = {target: clock.pays(take) for target, take in assessor.latencies.items()}
    assessor.accuracy = clock.pays(assessor.accuracy)
    with statements_told(clock.count):
        clock.start()
        campaign.run()
    return clock


def row(kind: str, sampler: str, clock: Clock, mark: int) -> str:
    if not clock.ours:
        return f"| {kind} | {sampler} | {mark:,} | – | – | – | – |"
    end = min(mark, len(clock.ours))
    last = slice(max(0, end - LAST), end)
    ours, asking = clock.ours[last], clock.asking[last]
    ours_ms = [1e3 * spent.seconds for spent in ours]
    p95 = quantiles(ours_ms, n=20)[-1] if len(ours) > 1 else ours_ms[0]
    asking_ms = median(1e3 * spent.seconds for spent in asking)
    sent = ", ".join(f"{median(spent.statements for spent in part):.0f}" for part in (ours, asking))
    return f"| {kind} | {sampler} | {mark:,} | {median(ours_ms):.1f} | {p95:.1f} | {asking_ms:.1f} | {sent} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="a URL, or `postgresql` for a server of its own; by default a journal")
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000], help="marks")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--fill", action="store_true", help="fill the studies with copies instead of real trials")
    parser.add_argument("--last", type=int, default=LAST, help="with --fill: real trials to measure")
    parser.add_argument(
        "--cpu", action="store_true", help="seconds of this process's CPU, whatever else the machine does"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time of the whole run went")
    options = parser.parse_args()
    marks = sorted(options.trials)
    now = time.process_time if options.cpu else time.perf_counter
    kind = masked(options.storage).partition("://")[0] if options.storage else "journal"
    with server() if options.storage == "postgresql" else nullcontext(options.storage) as options.storage:
        (print_filled if options.fill else print_grown)(options, kind, marks, now)


def print_grown(options: argparse.Namespace, kind: str, marks: list[int], now: Callable[[], float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = lambda: measured(options.storage, Path(folder), marks[-1], options.sampler, fake_space(SPACE), now)  # noqa: E731
        if options.profile:
            import cProfile
            import pstats

            profile = cProfile.Profile()
            clock = profile.runcall(run)
            pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
        else:
            clock = run()
    print(HEAD)
    for mark in marks:
        print(row(kind, options.sampler, clock, mark))


def print_filled(options: argparse.Namespace, kind: str, marks: list[int], now: Callable[[], float]) -> None:
    print(HEAD)
    for mark in marks:
        with tempfile.TemporaryDirectory() as folder:
            space = fake_space(SPACE)
            if options.storage:
                forget_study(open_storage(options.storage), "fake")
            filled(options.storage, Path(folder), mark, options.sampler, space, options.last)
            clock = measured(options.storage, Path(folder), mark, options.sampler, space, now)
            print(row(kind, options.sampler, clock, mark), flush=True)


if __name__ == "__main__":
    main()
