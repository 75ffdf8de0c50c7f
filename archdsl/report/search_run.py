"""`search`: a space in, a folder with its front out. Everything the command does but parsing and printing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from archdsl.compiler import identity
from archdsl.errors import ArchError, MeasureError, Problem, SpecError, StudyError, at_argument
from archdsl.latency import CacheWarning, Target, TimingCache, close_workers
from archdsl.report.front_confirmation import Confirmation
from archdsl.report.front_page import front_page, page_facts
from archdsl.report.front_rows import FrontRow, differences, front_rows
from archdsl.report.live import Progress
from archdsl.report.run_folder import RunFolder
from archdsl.report.search_job import job_of, started_by
from archdsl.report.stopped_early import stopped_early
from archdsl.spec import Space, load_space
from archdsl.spec.aims import MEASURED, Confirm, TargetObjective, Train
from archdsl.spec.counting import count
from archdsl.spec.override import Overrides
from archdsl.spec.words import did_you_mean, joined
from archdsl.study.again import again_for
from archdsl.study.campaign import Campaign
from archdsl.study.candidate import Assessor
from archdsl.study.confirmation import front_change
from archdsl.study.crew.trainers import Trainers
from archdsl.study.events import StopReason
from archdsl.study.foresight import Effort, Foresight
from archdsl.study.front import Front, front_of
from archdsl.study.halving import Halving
from archdsl.study.measured import MeasuredLatency
from archdsl.study.objectives import Objective, chosen, named
from archdsl.study.plan import Plan
from archdsl.study.proposals.samplers import EHVI, settled
from archdsl.study.record import Record
from archdsl.study.storage.leases import LEASE_S
from archdsl.study.storage.opening import forget_study, masked, open_storage
from archdsl.training import Recipe, parse_recipe
from archdsl.training.data import check_channels, parse_source
from archdsl.training.evaluator import trust_of

QUICKSTART = "quickstart"
MOST_COUNTED = 512
"""Spaces with at most so many settings are counted, to notice when every network has been seen."""


@dataclass(frozen=True)
class SearchResult:
    """A search that came to an end: why, every trial, and the front with the folder it was written to.

    foreseen: for each latency that could be learnt before it is measured, what that rests on, or why it was not
    records: as the search found them; confirmation: what became of their front, whose networks have in `front` the
        values of a second evaluation; None where there was nothing to confirm
    evaluator: where accuracies come from, and how far that can be trusted; None where there are none
    """

    study: str
    folder: RunFolder
    storage: str
    objectives: tuple[Objective, ...]
    sampler: str
    reason: StopReason
    records: tuple[Record, ...]
    front: Front
    rows: tuple[FrontRow, ...]
    foreseen: Mapping[str, str] = field(default_factory=dict)
    confirmation: Confirmation | None = None
    evaluator: str | None = None

    def as_json(self) -> dict[str, Any]:
        paid = [record for record in self.records if record.state != "open" and not record.cheap]
        stopping = stopped_early(self.records)
        return {
            "study": self.study,
            "stopped_by": self.reason,
            "folder": str(self.folder.path),
            "storage": self.storage,
            "objectives": [objective.name for objective in self.objectives],
            "sampler": self.sampler,
            "evaluator": self.evaluator,
            "foreseen": dict(self.foreseen),
            "trials": len(self.records),
            "networks_paid_for": len(paid),
            "early_stopping": stopping.as_json() if stopping else None,
            "failed": [{"trial": r.number, "rule": r.rule, "reason": r.reason} for r in paid if r.state == "failed"],
            "front": [row.as_json() for row in self.rows],
            "confirmation": self.confirmation.as_json() if self.confirmation else None,
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
    workers: int = 1,
    launch: str | None = None,
    lease_s: float = LEASE_S,
    confirm: bool = True,
    quiet: bool = True,
) -> SearchResult:
    """Search a space for the networks that no other beats in every objective, and write them to a folder.

    objectives: names; accuracy comes first in any case where the space has it. trials, seed: win over the space's own
    out: by default `runs/<name of the space>`; the same arguments again go on with what is there
    storage: a journal file or a URL of Optuna's; by default a journal in the folder
    set: overrides of the space; on: another runtime than the space names; fresh: set the study that is there aside
    workers: processes of this machine that do it together; 0 makes the study ready for `archdsl worker` elsewhere
    launch: `ray` or `ray://host:port` to let a Ray cluster run the workers; lease_s: seconds after which a silent
    worker's network is given to another. quiet: show no progress on stderr
    confirm: evaluate again what stands on the front at the end, as the space says, beyond `trials`. A time limit ends
        the search, not the timings of the confirmation (some seconds for each network), but no training begins that
        would end later. With no workers here nothing is confirmed; the same call with some does it

    SIGINT and SIGTERM end the search with the front so far (`reason` is then `interrupted`).
    Errors: ArchError, before anything is paid for where that is possible
    """
    chosen_space = space if isinstance(space, Space) else load_space(space, set)
    parts = Parts(chosen_space, objectives, on)
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

    patience = chosen_space.search.patience
    plan = Plan(chosen_space.name, parts.objectives, trials, seed, sampler, why, time_limit_s, fixed, patience)
    alone = workers == 1 and launch is None
    crew = None if alone or not workers else started_by(launch, chosen_space, folder, storage, workers, lease_s)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(parts.objectives, trials, quiet=quiet))
        assessor = stack.enter_context(parts.assessor(plan, folder, progress.epoch))
        again = again_for(chosen_space.search.confirm if confirm else Confirm(timings=False), assessor)
        campaign = Campaign(
            chosen_space,
            plan,
            assessor,
            opened,
            listen=progress,
            place=at_argument("--storage", masked(storage or str(folder.journal))),
            num_distinct=num_distinct(chosen_space),
            lease_s=lease_s,
            job=job_of(chosen_space, plan, objectives, on, parts.recipe),
            again=again,
        )
        outcome = campaign.lead(crew) if crew else campaign.run() if alone else campaign.hand_over()
    foreseen = assessor.foresight.told if assessor.foresight is not None else {}
    evaluator = trust_of(assessor.accuracy) if assessor.accuracy is not None else None
    front = front_of(outcome.known, parts.objectives)
    confirmation = None
    if front.members and (again or any(record.is_confirmed for record in outcome.known)):
        change = front_change(outcome.records, outcome.known, parts.objectives, outcome.failed)
        confirmation = Confirmation(change, str(again) if change.num_confirmed else "", parts.objectives)
    rows = front_rows(front, chosen_space)
    title = f"{chosen_space.name}: {' against '.join(objective.name for objective in parts.objectives)}"
    folder.write_front(front, rows, chosen_space.name, title)
    base = chosen_space.picks_of(chosen_space.base)
    folder.write_page(
        front_page(
            title,
            {**page_facts(chosen_space, plan, outcome.records), **_facts(evaluator, foreseen, confirmation)},
            front,
            rows,
            outcome.records,
            lambda record: differences(chosen_space, record.picks, base),
        )
    )
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
        foreseen,
        confirmation,
        evaluator,
    )


def _facts(evaluator: str | None, foreseen: Mapping[str, str], confirmation: Confirmation | None) -> dict[str, str]:
    known = {} if evaluator is None else {"evaluator": evaluator}
    known |= {f"{name} foreseen": sentence for name, sentence in foreseen.items()}
    return known if confirmation is None else {**known, "front": str(confirmation)}


class Parts:
    """What the space's objectives and constraints name, looked up and checked."""

    def __init__(self, space: Space, asked: Sequence[str], on: str | None):
        self.space = space
        labels = tuple(target.label for target in space.objectives.targets)
        self.objectives = chosen(asked, space.objectives.names, labels if len(labels) > 1 else ())
        self.constraints = _constraints(space, labels)
        self.wanted = {objective.name for objective in self.objectives} | {*self.constraints}
        self.cache = TimingCache()
        self.latencies = {
            label: MeasuredLatency(target, cache=self.cache, energy=named("energy", label) in self.wanted)
            for label, target in _targets(space, on).items()
            if self.wanted & {named(kind, label) for kind in MEASURED}
        }
        self.train = self._train() if "accuracy" in self.wanted else None
        self.recipe = self._recipe(self.train) if self.train is not None else None

    def fixed(self) -> dict[str, Any]:
        """What a resumed study must share. Errors: StudyError when a runtime is not installed, or no energy is told"""
        data = {key: value for key, value in self.space.data.items() if key in ("choices", "constraints")}
        found: dict[str, Any] = {**data, "base": self.space.base.data, "start": [s.name for s in self.space.start]}
        try:
            fingerprints = {label: latency.fingerprint() for label, latency in self.latencies.items()}
        except MeasureError as error:
            raise StudyError(_or_elsewhere(error) if len(self.latencies) == 1 else error.problems) from None
        self._check_energy()
        if fingerprints:
            found["latency"] = fingerprints.get("", fingerprints)
        if self.train is not None and self.recipe is not None:
            recipe = self.recipe.model_dump(exclude={"name"})
            found["accuracy"] = {"data": self.train.data, "recipe": recipe, "seeds": self.train.seeds}
        if (halving := self.halving()) is not None:
            found["early_stopping"] = {"first": halving.first, "eta": halving.eta}
        if not self.space.search.foresee:
            found["foresee"] = False
        return found

    def _check_energy(self) -> None:
        """Errors: StudyError when an energy is asked for that nobody tells: then every trial would fail"""
        for label, latency in self.latencies.items():
            why = latency.why_no_energy() if latency.energy else None
            if why is not None:
                name = named("energy", label)
                message = f"nobody tells how much energy a network needs in {latency.target}: {why}"
                hint = f"leave {name} out, or search on a machine that tells it"
                asking = "objectives" if self.space.objectives.energy is not None else "constraints"
                raise StudyError(Problem(self.space.locate(f"{asking}.energy"), "no-energy", message, hint))

    def halving(self) -> Halving | None:
        """When trainings are stopped early. Errors: StudyError when the first look would be after their end"""
        asked = self.space.search.early_stopping
        if asked is None or self.recipe is None:
            return None
        if asked.first > self.recipe.epochs:
            message = f"the first look is after {asked.first} epochs, but the training ends after {self.recipe.epochs}"
            place = self.space.locate("search.early_stopping.first")
            raise StudyError(Problem(place, "out-of-range", message, "look earlier, or train longer"))
        return Halving(self.recipe.epochs, asked.first, asked.eta)

    @contextmanager
    def assessor(self, plan: Plan, folder: RunFolder, report: Callable[[int, int, int], None]) -> Iterator[Assessor]:
        """What finds out the values of the study's networks; the processes that it starts end with the context.

        report: told of trainings, as `Trainers` tells
        """
        with ExitStack() as stack:
            stack.callback(close_workers)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("once", CacheWarning)
            trainers = self._trainers(folder, report)
            if trainers is not None:
                stack.callback(trainers.close)
            yield Assessor(
                self.space,
                self.objectives,
                constraints=self.constraints,
                latency=self.latencies,
                accuracy=trainers,
                seed=plan.seed,
                halving=self.halving(),
                foresight=self._foresight(plan),
            )

    def _foresight(self, plan: Plan) -> Foresight | None:
        """What the sampler can know of latencies before they are measured.

        Learning pays where a trial trains: where it only measures, it would be over by then.
        """
        if plan.sampler != EHVI or not self.space.search.foresee:
            return None
        counting = {
            label: latency.target
            for label, latency in self.latencies.items()
            if self.wanted & {named("latency", label), named("throughput", label)}
        }
        effort = Effort.for_trials(plan.trials) if "accuracy" in self.wanted else None
        return Foresight(self.space, counting, effort=effort, cache=self.cache, seed=plan.seed)

    def _trainers(self, folder: RunFolder, report: Callable[[int, int, int], None]) -> Trainers | None:
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
        check_channels(self.space.base.input.channels, self.space.locate("base"))
        source = parse_source(accuracy.train.data, self.space.locate("objectives.accuracy.train.data"))
        source.open(self.space.base.input.size)  # finds out before anything is paid for whether the data are there
        return accuracy.train

    def _recipe(self, train: Train) -> Recipe:
        return parse_recipe(train.recipe, self.space.locate("objectives.accuracy.train.recipe"), epochs=train.epochs)


def _constraints(space: Space, labels: Sequence[str]) -> dict[str, Any]:
    """The space's bounds by the names that they have in the study.

    labels: of the targets that the space names. Errors: StudyError for bounds on another target
    """
    found: dict[str, Any] = {}
    for kind in type(space.constraints).model_fields:
        bounds = getattr(space.constraints, kind)
        if bounds is None:
            continue
        if kind not in MEASURED:
            found[kind] = bounds
            continue
        problems = [
            Problem(
                space.locate(f"constraints.{kind}.{label}"),
                "unknown-name",
                f"there is no target `{label}`",
                joined(did_you_mean(label, labels), f"Targets: {', '.join(labels) or 'none'}."),
                f"constraints.{kind}.{label}",
            )
            for label in bounds.labels
            if label not in labels
        ]
        if problems:
            raise StudyError(problems)
        for label in labels or ("",):
            if bounds.on(label) is not None:
                found[named(kind, label if len(labels) > 1 else "")] = bounds.on(label)
    return found


def _targets(space: Space, on: str | None) -> dict[str, Target]:
    """The study's targets by label, '' for the only one.

    on: a runtime that takes the place of the only target's; precision and device are then that runtime's
    Errors: SpecError; StudyError when two targets are one, or when `on` does not say which it means
    """
    written = space.objectives.targets or (TargetObjective(),)
    if len(written) == 1:
        fields = written[0].fields()
        if on is not None and on != written[0].runtime:
            return {"": Target.parse({"runtime": on, "batch": fields["batch"], "threads": fields["threads"]})}
        return {"": _target(space, written[0])}
    if on is not None:
        message = f"--on takes the place of one target, but the space names {len(written)}"
        hint = "leave it out, or change one of them, e.g. --set objectives.latency.0.runtime=openvino"
        raise StudyError(Problem(at_argument("--on", on), "wrong-value", message, hint))
    found = {target.label: _target(space, target) for target in written}
    for one, other in combinations(found, 2):
        if found[one] == found[other]:
            message = f"`{one}` and `{other}` are the same target: {found[one]}"
            place = space.locate("objectives")
            raise StudyError(Problem(place, "wrong-value", message, "leave one of them out", "objectives"))
    return found


def _target(space: Space, written: TargetObjective) -> Target:
    _, where = _place_of(space, written)
    try:
        return Target.parse(written.fields(), lambda field: space.locate(f"{where}.{field}".rstrip(".")))
    except SpecError as error:
        raise SpecError(_or_elsewhere(error)) from None


def _or_elsewhere(error: ArchError) -> list[Problem]:
    """The problems of a target, with one more way out."""
    hint = f"or time it on another runtime: --on {Target.runtime}"
    return [replace(p, hint=f"{p.hint}; {hint}" if p.hint else hint) for p in error.problems]


def _place_of(space: Space, written: TargetObjective) -> tuple[str, str]:
    """(objective, path in the space's file) of a target."""
    for kind in MEASURED:
        given = getattr(space.objectives, kind) or ()
        for index, target in enumerate(given):
            if target is written:
                listed = isinstance((space.data.get("objectives") or {}).get(kind), list)
                return kind, f"objectives.{kind}" + (f".{index}" if listed else "")
    return "latency", "objectives.latency"


def num_distinct(space: Space) -> int | None:
    """How many networks a small space holds; None for a large one."""
    if space.num_total > MOST_COUNTED:
        return None
    return count(space, identity, limit=MOST_COUNTED).distinct.value
