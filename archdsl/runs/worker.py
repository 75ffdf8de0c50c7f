"""`worker`: one more process that evaluates networks of a study; the study says how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from archdsl.errors import StudyError, at_argument
from archdsl.events import Event
from archdsl.language import Space
from archdsl.report.live import Progress
from archdsl.runs.folder import RunFolder
from archdsl.runs.job import space_of, versions
from archdsl.runs.reading import chosen_study
from archdsl.runs.search_parts import SearchParts, num_distinct
from archdsl.study.campaign import Campaign
from archdsl.study.config import FINGERPRINT, StudyConfig
from archdsl.study.events import StopReason, TrialEnded, TrialLost
from archdsl.study.storage.leases import LEASE_S
from archdsl.study.storage.opening import attributes_of, open_storage
from archdsl.study.storage.study import storage_errors
from archdsl.study.storage.urls import masked


@dataclass(frozen=True)
class WorkResult:
    """What one worker did: how its work ended, the trials it finished, and those that others were given meanwhile."""

    study: str
    reason: StopReason
    finished: tuple[int, ...]
    lost: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The fields, with the reason as `stopped_by`; `ok` is what a worker's leader looks for."""
        numbers = {"finished": list(self.finished), "lost": list(self.lost)}
        return {"ok": True, "study": self.study, "stopped_by": self.reason, **numbers}


def work(
    storage: str,
    study: str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    lease_s: float = LEASE_S,
    quiet: bool = True,
) -> WorkResult:
    """Evaluate networks of a study, beside its other workers, until its budget is spent.

    Args:
        storage: a journal file or an Optuna URL
        study: the study's name, needed where the storage holds several
        out: the folder for finished trainings, by default `runs/<study>`
        force: work although the versions or the device differ from those that the study began with
        lease_s: seconds after which the trial of a silent worker is given to another
        quiet: show no progress on stderr
    Raises: ArchError, before any network is evaluated where that can be known
    """
    opened = open_storage(storage)
    with storage_errors(place := at_argument("--storage", masked(storage))):
        found = {name: kept for name, kept in attributes_of(opened).items() if "job" in kept}
    name = chosen_study(list(found), study)
    job, stored = found[name]["job"], found[name].get("plan") or {}
    if not force:
        _refuse_other_versions(job["versions"], name)
    space = space_of(job)
    folder_of_data = job.get("folder")
    if folder_of_data is not None and not os.path.isdir(folder_of_data):
        folder_of_data = None  # another machine: a relative path is then one of the working folder
    parts = SearchParts(space, job["objectives"], job["on"], folder_of_data)
    space = parts.space
    plan = _plan(name, job, stored, space, parts, force=force)
    folder = RunFolder(out if out is not None else os.path.join("runs", name))
    folder.describe_if_new({"study": name, "space": space.data, "storage": masked(storage)})
    finished: list[int] = []
    lost: list[int] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(parts.objectives, plan.trials, quiet=quiet))

        def on_event(event: Event) -> None:
            if isinstance(event, TrialEnded):
                finished.append(event.record.number)
            elif isinstance(event, TrialLost):
                lost.append(event.number)
            progress(event)

        campaign = Campaign(
            space,
            plan,
            stack.enter_context(parts.assessor(plan, folder, progress)),
            opened,
            on_event=on_event,
            place=place,
            num_distinct=num_distinct(space),
            lease_s=lease_s,
            joins=True,
        )
        outcome = campaign.run()
    return WorkResult(name, outcome.reason, tuple(finished), tuple(lost))


def _plan(
    name: str, job: Mapping[str, Any], stored: Mapping[str, Any], space: Space, parts: SearchParts, *, force: bool
) -> StudyConfig:
    """The study's plan, with this machine's data and, unless `force`, its latency and accuracy: they must be those of
    the study.
    """
    here = parts.fixed()
    fixed = {key: value for key, value in stored.items() if key not in ("objectives", "seed", "sampler")}
    if not force:
        fixed |= {key: here[key] for key in ("latency", "accuracy") if key in here}
    elif FINGERPRINT in here.get("accuracy", {}):
        fixed["accuracy"] = {**fixed.get("accuracy", {}), FINGERPRINT: here["accuracy"][FINGERPRINT]}
    patience, why = space.search.patience, "as the study says"
    return StudyConfig(name, parts.objectives, job["trials"], job["seed"], job["sampler"], why, None, fixed, patience)


def _refuse_other_versions(then: dict[str, str], study: str) -> None:
    now = versions()
    differences = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    if differences:
        message = f"the study was begun with other versions (then -> here): {', '.join(differences)}"
        hint = "install those, or take part all the same with --force"
        raise StudyError.at("--study", study, "other-study", message, hint)
