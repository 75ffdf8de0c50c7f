"""`search`: a space in, a folder with its Pareto front out.

`prepare` checks everything, `run` searches and confirms the front, `write` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from archdsl.errors import StudyError, at_argument
from archdsl.evaluators.protocol import trust_of
from archdsl.events import Note
from archdsl.language import Space, load_space
from archdsl.language.architecture.override import Overrides
from archdsl.language.space.objectives import Confirm
from archdsl.outside_text import printable
from archdsl.report.front_confirmation import ConfirmationReport
from archdsl.report.front_page import front_page, page_facts
from archdsl.report.front_rows import FrontRow, differences, front_rows
from archdsl.report.live import Progress
from archdsl.report.stopped_early import stopped_early
from archdsl.runs.folder import RunFolder
from archdsl.runs.job import job_of, started_by
from archdsl.runs.reuse import Trainings, Wanted, fitting_trainings, reused_by_origin, take_over
from archdsl.runs.search_parts import SearchParts, num_distinct
from archdsl.study.campaign import Campaign, CampaignResult
from archdsl.study.config import StudyConfig
from archdsl.study.events import StopReason
from archdsl.study.front.pareto import Front, front_of
from archdsl.study.front.reevaluation import reevaluation_for
from archdsl.study.objectives import Objective
from archdsl.study.proposals.samplers import settled
from archdsl.study.record import Record
from archdsl.study.storage.leases import LEASE_S
from archdsl.study.storage.opening import forget_study, open_storage
from archdsl.study.storage.urls import check_storage, masked
from archdsl.study.workers.local import Workers

QUICKSTART = "quickstart"


@dataclass(frozen=True)
class SearchOptions:
    """How a space is searched. Each field is also a keyword of `search`.

    objectives:   names; where the space has accuracy, it comes first in any case. Empty: those of the space
    trials, seed: None: those of the space
    out:          the folder of the results, by default `runs/<name of the space>`. A search that is there is resumed
    storage:      a journal file or an Optuna URL; by default a journal in the folder
    time_limit_s: no trial begins that would probably end later. It does not limit the timings of the confirmation
                  (some seconds a network), but no training begins that would end later
    set:          overrides of the space
    on:           a runtime in place of the one that the space names
    fresh:        set an existing study aside and begin a new one
    reuse:        folders of other searches, whose finished trainings count where data, recipe and seed are the same
    workers:      processes of this machine that search together; 0 makes the study ready for `archdsl worker`
                  elsewhere, and nothing is confirmed until the same call with some workers
    launch:       `ray` or `ray://host:port`: a Ray cluster runs the workers
    lease_s:      seconds after which the trial of a silent worker is given to another
    confirm:      re-evaluate the networks of the front at the end, as the space says, beyond `trials`
    quiet:        show no progress on stderr

    Example:
        >>> SearchOptions(trials=20, workers=2).objectives
        ()
    """

    objectives: Sequence[str] = ()
    trials: int | None = None
    seed: int | None = None
    out: str | os.PathLike[str] | None = None
    storage: str | None = None
    time_limit_s: float | None = None
    set: Overrides | None = None
    on: str | None = None
    fresh: bool = False
    reuse: Sequence[str | os.PathLike[str]] = ()
    workers: int = 1
    launch: str | None = None
    lease_s: float = LEASE_S
    confirm: bool = True
    quiet: bool = True


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` as keywords, for type checkers."""

    objectives: Sequence[str]
    trials: int | None
    seed: int | None
    out: str | os.PathLike[str] | None
    storage: str | None
    time_limit_s: float | None
    set: Overrides | None
    on: str | None
    fresh: bool
    reuse: Sequence[str | os.PathLike[str]]
    workers: int
    launch: str | None
    lease_s: float
    confirm: bool
    quiet: bool


@dataclass(frozen=True)
class SearchResult:
    """A search that has ended.

    reason:       why it ended
    records:      all trials, with the values that the search found
    front:        the non-dominated networks, with their re-evaluated values where they were confirmed
    rows:         the front as plain facts
    predicted:    for each latency that could be predicted before it was measured: what that rests on, or why it was not
    confirmation: how the front changed by its confirmation; None where there was nothing to confirm
    evaluator:    where accuracies come from, and how far they can be trusted; None where there are none
    estimates:    of which GPU estimated latencies are, and that nobody measured them; None where there are none

    Example:
        >>> import archdsl, tempfile
        >>> costs = {"objectives": {"macs": {}, "params": {}}}
        >>> with tempfile.TemporaryDirectory() as out:
        ...     result = archdsl.search("quickstart", trials=1, set=costs, out=out)
        >>> [objective.name for objective in result.objectives], len(result.rows) == len(result.front.members)
        (['params', 'macs'], True)
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
    predicted: Mapping[str, str]
    confirmation: ConfirmationReport | None = None
    evaluator: str | None = None
    estimates: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What `archdsl search --json` prints."""
        evaluated = [record for record in self.records if record.state != "open" and not record.cheap]
        failed = [record for record in evaluated if record.state == "failed"]
        stopping, reused = stopped_early(self.records), reused_by_origin(self.records)
        return {
            "study": self.study,
            "stopped_by": self.reason,
            "folder": str(self.folder.path),
            "storage": self.storage,
            "objectives": [objective.name for objective in self.objectives],
            "sampler": self.sampler,
            "evaluator": self.evaluator,
            **({"latency_estimate": self.estimates} if self.estimates else {}),
            "foreseen": dict(self.predicted),
            "trials": len(self.records),
            "networks_paid_for": len(evaluated),
            "reused": {"trainings": sum(reused.values()), "by_origin": reused},
            "early_stopping": stopping.as_json() if stopping else None,
            "failed": [{"trial": r.number, "rule": r.rule, "reason": r.reason} for r in failed],
            "front": [row.as_json() for row in self.rows],
            "confirmation": self.confirmation.as_json() if self.confirmation else None,
            "within_noise_of_the_front": [point.record.name for point in self.front.contenders],
        }


def search(
    space: str | os.PathLike[str] | Space = QUICKSTART,
    options: SearchOptions = SearchOptions(),
    **changes: Unpack[SearchKeywords],
) -> SearchResult:
    """Search a space, confirm its Pareto front and write it to `options.out`.

    SIGINT and SIGTERM end the search with the front so far; `reason` is then `interrupted`.

    Args:
        space: the name or path of a space, or the `Space` itself
        options: budget, storage, workers
        changes: fields of `SearchOptions`, in place of those of `options`
    Returns: every trial, the confirmed front and why the search ended
    Raises: ArchError, before any network is evaluated where that can be known
    Example:
        >>> import archdsl, tempfile
        >>> costs = {"objectives": {"latency": {"runtime": "null"}, "params": {}}}
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = archdsl.search("quickstart", trials=4, set=costs, out=out)
        >>> found.reason, len(found.front.members) > 0
        ('trials', True)
    """
    prepared = prepare(space, replace(options, **changes))
    result = run(prepared)
    write(result, prepared)
    return result


@dataclass(frozen=True)
class PreparedSearch:
    """A search that is checked and ready to run.

    parts:   what its objectives need
    plan:    its budget, and what a resumed study must share
    storage: the opened storage of Optuna
    workers: who evaluates; None: this process, or no one yet where `options.workers` is 0
    taken:   how many finished trainings were taken over, by the folder they come from
    """

    space: Space
    options: SearchOptions
    parts: SearchParts
    plan: StudyConfig
    folder: RunFolder
    storage: Any
    workers: Workers | None
    taken: Mapping[str, int]

    @property
    def storage_name(self) -> str:
        """With passwords masked."""
        return masked(self.options.storage or str(self.folder.journal))


def prepare(space: str | os.PathLike[str] | Space, options: SearchOptions) -> PreparedSearch:
    """Look up and check all that the search needs, claim its folder and open its storage.

    Raises: ArchError for a wrong space, an unknown objective, a runtime or data that are not there, a folder in use
    """
    if options.storage is not None:
        check_storage(options.storage)
    space = space if isinstance(space, Space) else load_space(space, options.set)
    asked = space.search
    parts = SearchParts(space, options.objectives, options.on)
    space = parts.space
    trials = asked.trials if options.trials is None else options.trials
    seed = asked.seed if options.seed is None else options.seed
    sampler, why = settled(asked.sampler, trials, space.locate("search.sampler"))
    fixed = parts.fixed()  # also finds out whether the runtime is there
    plan = StudyConfig(
        space.name, parts.objectives, trials, seed, sampler, why, options.time_limit_s, fixed, asked.patience
    )

    reusable = _reusable(parts, plan, options)
    folder = RunFolder(options.out if options.out is not None else os.path.join("runs", space.name))
    described = masked(options.storage or "study.journal")
    folder.describe({"study": space.name, "space": space.data, "storage": described})
    if options.fresh:
        folder.set_aside()
    taken = take_over(reusable, folder.trainings)
    storage = open_storage(options.storage or folder.journal)
    if options.fresh and options.storage:
        forget_study(storage, space.name)
    workers = None
    if options.workers and (options.workers > 1 or options.launch is not None):
        workers = started_by(options.launch, space, folder, options.storage, options.workers, options.lease_s)
    return PreparedSearch(space, options, parts, plan, folder, storage, workers, taken)


def _reusable(parts: SearchParts, plan: StudyConfig, options: SearchOptions) -> dict[str, Trainings]:
    """The trainings of `options.reuse`. Errors: StudyError when they do not fit, or nothing is trained here"""
    if not options.reuse:
        return {}
    if parts.train is None or parts.recipe is None:
        message = "this search trains nothing, so there are no trainings to reuse"
        hint = "leave it out, or add accuracy to the objectives"
        raise StudyError.at("--reuse", os.fspath(options.reuse[0]), "conflict", message, hint)
    num_seeds = parts.train.seeds + parts.space.search.confirm.seeds
    start = parts.start.key() if parts.start is not None else ""
    wanted = Wanted(parts.data_key, parts.recipe.key(), range(plan.seed, plan.seed + num_seeds), start)
    return fitting_trainings(options.reuse, wanted)


def run(prepared: PreparedSearch) -> SearchResult:
    """Search until the budget is spent, confirm the front, and say what was found."""
    space, options, parts, plan = prepared.space, prepared.options, prepared.parts, prepared.plan
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(parts.objectives, plan.trials, quiet=options.quiet))
        if validation := parts.facts.get("validation"):
            progress(Note(f"validation: {validation}"))
        for run, number in prepared.taken.items():
            progress(Note(f"reuse: {number} finished trainings taken over from {printable(run)}"))
        assessor = stack.enter_context(parts.assessor(plan, prepared.folder, progress))
        reevaluation = reevaluation_for(space.search.confirm if options.confirm else Confirm(timings=False), assessor)
        campaign = Campaign(
            space,
            plan,
            assessor,
            prepared.storage,
            on_event=progress,
            place=at_argument("--storage", prepared.storage_name),
            num_distinct=num_distinct(space),
            lease_s=options.lease_s,
            job=job_of(
                space,
                plan,
                options.objectives,
                options.on,
                parts.recipe,
                parts.data_folder,
                parts.start.file if parts.start is not None else None,
            ),
            reevaluation=reevaluation,
        )
        if prepared.workers is not None:
            outcome = campaign.lead(prepared.workers)
        else:
            outcome = campaign.run() if options.workers else campaign.hand_over()
    front = front_of(outcome.known, parts.objectives)
    return SearchResult(
        study=space.name,
        folder=prepared.folder,
        storage=prepared.storage_name,
        objectives=parts.objectives,
        sampler=plan.sampler,
        reason=outcome.reason,
        records=outcome.records,
        front=front,
        rows=front_rows(front, space),
        predicted=assessor.predicted.notes if assessor.predicted is not None else {},
        confirmation=_confirmation(front, outcome, str(reevaluation)),
        evaluator=trust_of(assessor.accuracy) if assessor.accuracy is not None else None,
        estimates=str(parts.estimate) if parts.estimate is not None else None,
    )


def _confirmation(front: Front, outcome: CampaignResult, how: str) -> ConfirmationReport | None:
    """How the front changed. how: what was done for each of its networks, in words; '' for nothing"""
    if not front.members or not (how or any(record.is_confirmed for record in outcome.known)):
        return None
    return ConfirmationReport.of(front, outcome, how)


def write(result: SearchResult, prepared: PreparedSearch) -> None:
    """Write the front and the page of the search to its folder."""
    space = prepared.space
    title = f"{space.name}: {' against '.join(objective.name for objective in result.objectives)}"
    facts = page_facts(space, prepared.plan, result.records)
    if result.evaluator is not None:
        facts["evaluator"] = result.evaluator
    if result.estimates is not None:
        facts = {"latency_estimate": result.estimates, **facts}
    facts |= {f"{name} predicted": sentence for name, sentence in result.predicted.items()}
    if result.confirmation is not None:
        facts["front"] = str(result.confirmation)
    base = space.assignment_of(space.base)
    page = front_page(
        title,
        facts,
        result.front,
        result.rows,
        result.records,
        lambda record: differences(space, record.assignment, base),
    )
    result.folder.write_front(result.front, result.rows, space.name, title, prepared.parts.facts)
    result.folder.write_page(page)
