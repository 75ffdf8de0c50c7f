"""`search`: a space in, a folder with its front out. Everything the command does but parsing and printing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from archdsl.compiler import identity
from archdsl.errors import Problem, SpecError, StudyError, at_argument
from archdsl.latency import CacheWarning, Target, TimingCache, close_workers
from archdsl.report.front_rows import FrontRow, front_rows
from archdsl.report.live import Progress
from archdsl.report.run_folder import RunFolder
from archdsl.spec import Space, load_space
from archdsl.spec.aims import Train
from archdsl.spec.counting import count
from archdsl.spec.override import Overrides
from archdsl.study.campaign import Campaign
from archdsl.study.candidate import Assessor
from archdsl.study.events import StopReason
from archdsl.study.front import Front, front_of
from archdsl.study.measured import MeasuredLatency
from archdsl.study.objectives import Objective, chosen
from archdsl.study.plan import Plan
from archdsl.study.record import Record
from archdsl.study.samplers import settled
from archdsl.study.storage import forget_study, masked, open_storage
from archdsl.study.trainers import Trainers
from archdsl.training import Recipe, parse_recipe
from archdsl.training.data import parse_source

QUICKSTART = "quickstart"
MOST_COUNTED = 512
"""Spaces with at most so many settings are counted, to notice when every network has been seen."""


@dataclass(frozen=True)
class SearchResult:
    """A search that came to an end: why, every trial, and the front with the folder it was written to."""

    study: str
    folder: RunFolder
    storage: str
    objectives: tuple[Objective, ...]
    sampler: str
    reason: StopReason
    records: tuple[Record, ...]
    front: Front
    rows: tuple[FrontRow, ...]

    def as_json(self) -> dict[str, Any]:
        paid = [record for record in self.records if record.state != "open" and not record.cheap]
        return {
            "study": self.study,
            "stopped_by": self.reason,
            "folder": str(self.folder.path),
            "storage": self.storage,
            "objectives": [objective.name for objective in self.objectives],
            "sampler": self.sampler,
            "trials": len(self.records),
            "networks_paid_for": len(paid),
            "failed": [{"trial": r.number, "rule": r.rule, "reason": r.reason} for r in paid if r.state == "failed"],
            "front": [row.as_json() for row in self.rows],
            "within_noise_of_the_front": [point.record.name for point in self.front.contenders],
        }


def search(
    space: str | os.PathLike[str] | Space = QUICKSTART,
    *,
    objectives: Sequence[str] = (),
    trials: int | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    time_limit_s: float | None = None,
    set: Overrides | None = None,
    on: str | None = None,
    fresh: bool = False,
    quiet: bool = True,
) -> SearchResult:
    """Search a space for the networks that no other beats in every objective, and write them to a folder.

    objectives: names; accuracy comes first in any case where the space has it. trials, seed: win over the space's own
    out: by default `runs/<name of the space>`; the same arguments again go on with what is there
    storage: a journal file or a URL of Optuna's; by default a journal in the folder
    set: overrides of the space; on: another runtime than the space names; fresh: set the study that is there aside
    quiet: show no progress on stderr

    SIGINT and SIGTERM end the search with the front so far (`reason` is then `interrupted`).
    Errors: ArchError, before anything is paid for where that is possible
    """
    chosen_space = space if isinstance(space, Space) else load_space(space, set)
    parts = _Parts(chosen_space, objectives, on)
    trials = chosen_space.search.trials if trials is None else trials
    seed = chosen_space.search.seed if seed is None else seed
    sampler, why = settled(chosen_space.search.sampler, trials, chosen_space.locate("search.sampler"))
    fixed = parts.fixed()  # also finds out whether the runtime is there

    folder = RunFolder(out if out is not None else os.path.join("runs", chosen_space.name))
    folder.describe(
        {"study": chosen_space.name, "space": chosen_space.data, "storage": masked(storage or "study.journal")}
    )
    if fresh:
        folder.set_aside()
    opened = open_storage(storage or folder.journal)
    if fresh and storage:
        forget_study(opened, chosen_space.name)

    plan = Plan(chosen_space.name, parts.objectives, trials, seed, sampler, why, time_limit_s, fixed)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(parts.objectives, trials, quiet=quiet))
        stack.callback(close_workers)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("once", CacheWarning)
        trainers = parts.trainers(folder, progress.epoch)
        if trainers is not None:
            stack.callback(trainers.close)
        campaign = Campaign(
            chosen_space,
            plan,
            Assessor(
                chosen_space,
                parts.objectives,
                constraints=parts.constraints,
                latency=parts.latency,
                accuracy=trainers,
                seed=seed,
            ),
            opened,
            listen=progress,
            place=at_argument("--storage", masked(storage or str(folder.journal))),
            num_distinct=_num_distinct(chosen_space),
        )
        outcome = campaign.run()
    front = front_of(outcome.records, parts.objectives)
    rows = front_rows(front, chosen_space)
    title = f"{chosen_space.name}: {' against '.join(objective.name for objective in parts.objectives)}"
    folder.write_front(front, rows, chosen_space.name, title)
    return SearchResult(
        chosen_space.name,
        folder,
        masked(storage or str(folder.journal)),
        parts.objectives,
        sampler,
        outcome.reason,
        outcome.records,
        front,
        rows,
    )


class _Parts:
    """What the space's objectives and constraints name, looked up and checked."""

    def __init__(self, space: Space, asked: Sequence[str], on: str | None):
        self.space = space
        self.objectives = chosen(asked, space.objectives.names)
        bounds = {name: getattr(space.constraints, name) for name in type(space.constraints).model_fields}
        self.constraints = {name: bound for name, bound in bounds.items() if bound is not None}
        self.wanted = {objective.name for objective in self.objectives} | {*self.constraints}
        self.target = _target(space, on) if "latency" in self.wanted else None
        self.latency = MeasuredLatency(self.target, cache=TimingCache()) if self.target is not None else None
        self.train = self._train() if "accuracy" in self.wanted else None
        self.recipe = self._recipe(self.train) if self.train is not None else None

    def fixed(self) -> dict[str, Any]:
        """What a resumed study must share. Errors: MeasureError when the runtime is not installed"""
        data = {key: value for key, value in self.space.data.items() if key in ("choices", "constraints")}
        found: dict[str, Any] = {**data, "base": self.space.base.data, "start": [s.name for s in self.space.start]}
        if self.latency is not None:
            found["latency"] = self.latency.fingerprint()
        if self.train is not None and self.recipe is not None:
            recipe = self.recipe.model_dump(exclude={"name"})
            found["accuracy"] = {"data": self.train.data, "recipe": recipe, "seeds": self.train.seeds}
        return found

    def trainers(self, folder: RunFolder, report: Callable[[int, int, int], None]) -> Trainers | None:
        if self.train is None or self.recipe is None:
            return None
        return Trainers(
            self.train.data,
            self.recipe,
            results=folder.trainings,
            num_seeds=self.train.seeds,
            threads=self.train.threads,
            report=report,
        )

    def _train(self) -> Train:
        accuracy = self.space.objectives.accuracy
        if accuracy is None:
            message = "a constraint on accuracy needs to know how it is taken"
            hint = "add `accuracy: {train: {data: synthetic}}` to the objectives"
            raise StudyError(Problem(self.space.locate("constraints.accuracy"), "missing-key", message, hint))
        source = parse_source(accuracy.train.data, self.space.locate("objectives.accuracy.train.data"))
        source.open(self.space.base.input.size)  # finds out before anything is paid for whether the data are there
        return accuracy.train

    def _recipe(self, train: Train) -> Recipe:
        return parse_recipe(train.recipe, self.space.locate("objectives.accuracy.train.recipe"), epochs=train.epochs)


def _target(space: Space, on: str | None) -> Target:
    """The target that the space names, on another runtime if asked: precision and device are then that runtime's."""
    named = space.objectives.latency or ()
    if len(named) > 1:
        message = f"a study takes one latency, but the space names {len(named)} targets"
        raise StudyError(Problem(space.locate("objectives.latency"), "wrong-value", message, "keep one of them"))
    fields = named[0].model_dump() if named else {}
    if on is not None and on != fields.get("runtime", Target.runtime):
        return Target.parse({"runtime": on, "batch": fields.get("batch", 1), "threads": fields.get("threads", 1)})
    try:
        return Target.parse(fields, lambda field: space.locate(f"objectives.latency.{field}".rstrip(".")))
    except SpecError as error:
        hint = f"or time it on another runtime: --on {Target.runtime}"
        problems = [replace(p, hint=f"{p.hint}; {hint}" if p.hint else hint) for p in error.problems]
        raise SpecError(problems) from None


def _num_distinct(space: Space) -> int | None:
    """How many networks a small space holds; None for a large one."""
    if space.num_total > MOST_COUNTED:
        return None
    return count(space, identity, limit=MOST_COUNTED).distinct.value
