"""The progress of a search: a live display on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archdsl.events import EpochEnded, Event, Note, Step
from archdsl.outside_text import printable
from archdsl.report.front_table import value_text
from archdsl.study.events import (
    Began,
    Confirmed,
    Confirming,
    Ended,
    NotConfirmed,
    StepBegan,
    TrialBegan,
    TrialEnded,
    TrialLost,
)
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import Objective
from archdsl.study.record import Record

MOST_SHOWN = 8
_DOING = {"latency": "taking its latency", "latency_estimate": "compiling it", "training": "training"}


class Progress:
    """Listens to a campaign and shows it. Use as a context manager.

    trials: networks to evaluate; quiet: show nothing
    """

    def __init__(self, objectives: Sequence[Objective], trials: int, *, quiet: bool = False):
        self.objectives, self.trials = tuple(objectives), trials
        self._candidates: list[Record] = []  # for the front: its members, and what came since it was drawn
        self._num_evaluated = 0
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live: Live | None = None
        self._doing, self._runs = "", {}  # type: tuple[str, dict[int, tuple[int, int]]]
        self._started, self._evaluated_before = time.monotonic(), 0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal and not self._console.quiet:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Show an event. Epochs may come from other threads."""
        match event:
            case Began(sampler, why, known):
                self._candidates = list(known)
                self._num_evaluated = sum(not record.cheap for record in known)
                self._started, self._evaluated_before = time.monotonic(), self._num_evaluated
                resumed = f", going on after {len(known)} trials" if known else ""
                self._line(f"sampler {sampler}: {why}{resumed}")
            case Step(text):
                self._doing = text
                self._line(f"{text} …")
            case Note(text):
                self._doing = ""
                self._print(text)
            case TrialBegan(number, name):
                self._doing, self._runs = f"{name} (trial {number})", {}
            case StepBegan(_, step):
                self._doing = f"{self._doing.partition(':')[0]}: {_step(step)}"
            case EpochEnded(seed, done, of):
                self._runs = {**self._runs, seed: (done, of)}
            case TrialEnded(record):
                self._candidates = [*self._candidates, record]
                self._num_evaluated += not record.cheap
                self._done(self._ended(record))
            case TrialLost(number):
                self._done(f"trial {number} was given to another worker; the result found here does not count")
            case Confirming(names, step):
                self._runs = {}
                whom = names[0] if len(names) == 1 else f"{len(names)} networks of the front"
                self._doing = f"confirming {whom}: {_step(step)}{', interleaved' if len(names) > 1 else ''}"
                self._line(self._doing)
            case Confirmed(record):
                self._done(f"confirmed {record.name}: {self._compared(record)}")
            case NotConfirmed(name, reason):
                self._done(f"{name} is not confirmed: {reason}")
            case Ended():
                self._doing = ""

    def _done(self, text: str) -> None:
        self._doing = ""
        self._line(text)

    def _line(self, text: str) -> None:
        if self._live is None:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def _ended(self, record: Record) -> str:
        head = f"[{self._num_evaluated}/{self.trials}] {record.name or f'trial {record.number}'}"
        if record.duplicate_of is not None:
            return f"{head}: duplicate of trial {record.duplicate_of}"
        if record.state == "complete":
            seconds = f" ({record.seconds:.0f} s)" if record.seconds is not None else ""
            values = ", ".join(f"{o.name} {value_text(record, o)}" for o in self.objectives)
            return f"{head}: {values}{seconds}"
        return f"{head}: {record.state}, {record.reason}"

    def _compared(self, record: Record) -> str:
        """Each value, behind an arrow where the search had found another."""
        before = record.before or record
        moved = [
            f"{o.name} {value_text(before, o)} → {value_text(record, o)}"
            for o, then, now in zip(self.objectives, before.values or (), record.values or (), strict=True)
            if then != now
        ]
        return ", ".join(moved) or "as before"

    def _left(self) -> str:
        done = self._num_evaluated - self._evaluated_before
        if not done:
            return "…"
        seconds = (time.monotonic() - self._started) / done * max(0, self.trials - self._num_evaluated)
        return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

    def _picture(self) -> Group:
        elapsed = time.monotonic() - self._started
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self.trials), completed=min(self._num_evaluated, self.trials), width=32)
        numbers = f"{self._num_evaluated}/{self.trials} networks  {elapsed:.0f} s, about {self._left()} left"
        head.add_row(bar, Text(numbers))
        doing = self._doing
        if self._runs:
            doing += "".join(f", {done}/{of}" for _, (done, of) in sorted(self._runs.items())) + " epochs"
        return Group(head, Text(printable(doing) or " ", style="dim"), self._front())

    def _front(self) -> Table | Text:
        self._candidates = [member.record for member in front_of(self._candidates, self.objectives).members]
        members = self._candidates
        if not members:
            return Text("no network has finished yet", style="dim")
        table = Table(box=None, padding=(0, 2), title=f"front so far: {len(members)}", title_justify="left")
        table.add_column("network")
        for objective in self.objectives:
            table.add_column(objective.name, justify="right")
        for member in members[:MOST_SHOWN]:
            table.add_row(
                Text(printable(member.name or "")), *(value_text(member, objective) for objective in self.objectives)
            )
        return table


def _step(step: str) -> str:
    """`latency@openvino` -> `taking its latency on openvino`."""
    kind, _, target = step.partition("@")
    return _DOING.get(kind, kind) + (f" on {target}" if target else "")
