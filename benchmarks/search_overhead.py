"""What the search itself costs: everything in a trial but training, timing, and Optuna's (or the proposer's) asking.

    python benchmarks/search_overhead.py                                  # journal, 1,000 and 10,000 trials
    python benchmarks/search_overhead.py --storage postgresql://me:pw@host/db --trials 1000

The studies are real: the campaign of `archdsl search` on networks of micro_swin, with latencies computed from counts
(runtime `null`, in this process) and accuracies from hashes, so that neither takes time. Asking is taken apart: the
draw of a trial's parameters is Optuna's or the proposer's, and reported beside the rest. The figures are those of the
last trials before each mark, when the study is as long as the mark says.

With --fill each mark is a study of its own: a few real trials, copies of them under other hashes until the mark is
near, and real trials again, which are measured. That takes minutes for a mark of 10,000 where the real way takes hours
of somebody's patience; what the search reads is the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_study import FakeTraining, fake_campaign, fake_space

from archdsl.spec import Space
from archdsl.study.campaign import Campaign
from archdsl.study.events import TrialEnded
from archdsl.study.storage.opening import forget_study, masked, open_storage

LAST = 200
HEAD = """| storage | sampler | trials | ours, median ms | ours, p95 ms | asking, median ms |
|---|---|---:|---:|---:|---:|"""
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


class Clock:
    """Seconds of each trial, and of those the seconds that were spent asking."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self.asking: list[float] = []
        self._asked, self._last = 0.0, time.perf_counter()

    def listen(self, event: Any) -> None:
        if isinstance(event, TrialEnded):
            now = time.perf_counter()
            self.all.append(now - self._last)
            self.asking.append(self._asked)
            self._asked, self._last = 0.0, now

    def asks(self, function: Any) -> Any:
        def timed(*arguments: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                self._asked += time.perf_counter() - begun

        return timed


def of(storage: str | None, folder: Path, trials: int, sampler: str, space: Space, clock: Clock) -> Campaign:
    return fake_campaign(
        folder,
        training=FakeTraining(),
        trials=trials,
        sampler=sampler,
        space=space,
        storage=storage,
        listen=clock.listen,
    )


def filled(storage: str | None, folder: Path, mark: int, sampler: str, space: Space, last: int) -> None:
    """Make a study of nearly `mark` trials; `last` are left to do."""
    real = min(50, mark - last)
    campaign = of(storage, folder, real, sampler, space, Clock())
    campaign.run()
    study = campaign._study
    originals = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    with campaign._turns.together():
        for index in range(len(study.get_trials(deepcopy=False)), mark - last):
            trial = originals[index % len(originals)]
            attributes = {**trial.user_attrs, "archdsl:hash": f"{trial.user_attrs['archdsl:hash']}-{index}"}
            copy = optuna.trial.create_trial(
                values=trial.values, params=trial.params, distributions=trial.distributions, user_attrs=attributes
            )
            study.add_trial(copy)


def measured(storage: str | None, folder: Path, trials: int, sampler: str, space: Space) -> Clock:
    clock = Clock()
    campaign = of(storage, folder, trials, sampler, space, clock)
    campaign._picks = clock.asks(campaign._picks)  # type: ignore[method-assign]
    campaign._sampler = clock.asks(campaign._sampler)  # type: ignore[method-assign]
    clock._last = time.perf_counter()
    campaign.run()
    return clock


def row(kind: str, sampler: str, clock: Clock, mark: int) -> str:
    if not clock.all:
        return f"| {kind} | {sampler} | {mark:,} | – | – | – |"
    end = min(mark, len(clock.all))
    last = range(max(0, end - LAST), end)
    ours = [1e3 * (clock.all[index] - clock.asking[index]) for index in last]
    asking = [1e3 * clock.asking[index] for index in last]
    p95 = quantiles(ours, n=20)[-1] if len(ours) > 1 else ours[0]
    return f"| {kind} | {sampler} | {mark:,} | {median(ours):.1f} | {p95:.1f} | {median(asking):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="a URL; by default a journal file in a temporary folder")
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000], help="marks")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--fill", action="store_true", help="fill the studies with copies instead of real trials")
    parser.add_argument("--last", type=int, default=LAST, help="with --fill: real trials to measure")
    parser.add_argument("--profile", action="store_true", help="print where the time of the whole run went")
    options = parser.parse_args()
    marks = sorted(options.trials)
    kind = masked(options.storage).partition("://")[0] if options.storage else "journal"
    if options.fill:
        print_filled(options, kind, marks)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = lambda: measured(options.storage, Path(folder), marks[-1], options.sampler, fake_space(SPACE))  # noqa: E731
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


def print_filled(options: argparse.Namespace, kind: str, marks: list[int]) -> None:
    print(HEAD)
    for mark in marks:
        with tempfile.TemporaryDirectory() as folder:
            space = fake_space(SPACE)
            if options.storage:
                forget_study(open_storage(options.storage), "fake")
            filled(options.storage, Path(folder), mark, options.sampler, space, options.last)
            clock = measured(options.storage, Path(folder), mark, options.sampler, space)
            print(row(kind, options.sampler, clock, mark), flush=True)


if __name__ == "__main__":
    main()
