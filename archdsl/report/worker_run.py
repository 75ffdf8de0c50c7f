"""`worker`: one more process at a study that is there; the study itself says what is to be done."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from archdsl.errors import Problem, StudyError, at_argument
from archdsl.report.live import Progress
from archdsl.report.run_folder import RunFolder
from archdsl.report.search_job import space_of, versions
from archdsl.report.search_run import Parts, num_distinct
from archdsl.spec.words import did_you_mean, joined
from archdsl.study.campaign import Campaign
from archdsl.study.events import Event, StopReason, TrialEnded, TrialLost
from archdsl.study.plan import Plan
from archdsl.study.storage.leases import LEASE_S
from archdsl.study.storage.opening import attributes_of, masked, open_storage


@dataclass(frozen=True)
class WorkResult:
    """What one worker did: how its work ended, the trials it finished, and those that others were given meanwhile."""

    study: str
    reason: StopReason
    finished: tuple[int, ...]
    lost: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": True,
            "study": self.study,
            "stopped_by": self.reason,
            "finished": list(self.finished),
            "lost": list(self.lost),
        }


def work(
    storage: str,
    study: str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    lease_s: float = LEASE_S,
    quiet: bool = True,
) -> WorkResult:
    """Work at a study until its budget is spent, beside whoever else does.

    storage: where it is kept; study: its name, needed where the storage holds several
    out: folder for finished trainings, by default `runs/<study>`
    force: work although versions or the device are not those the study began with
    Errors: ArchError, before anything is done where that is possible
    """
    opened = open_storage(storage)
    place = at_argument("--storage", masked(storage))
    found = {name: kept for name, kept in attributes_of(opened).items() if "job" in kept}
    name = _chosen(list(found), study)
    job, said = found[name]["job"], found[name].get("plan") or {}
    if not force:
        _refuse_other_versions(job["versions"], name)
    space = space_of(job)
    parts = Parts(space, job["objectives"], job["on"])
    here = parts.fixed()
    fixed = {key: value for key, value in said.items() if key not in ("objectives", "seed", "sampler")}
    if not force:
        fixed |= {name: here[name] for name in ("latency", "accuracy") if name in here}
    patience, why = space.search.patience, "as the study says"
    plan = Plan(name, parts.objectives, job["trials"], job["seed"], job["sampler"], why, None, fixed, patience)
    folder = RunFolder(out if out is not None else os.path.join("runs", name))
    folder.describe_if_new({"study": name, "space": space.data, "storage": masked(storage)})
    finished: list[int] = []
    lost: list[int] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(parts.objectives, job["trials"], quiet=quiet))

        def listen(event: Event) -> None:
            if isinstance(event, TrialEnded):
                finished.append(event.record.number)
            elif isinstance(event, TrialLost):
                lost.append(event.number)
            progress(event)

        campaign = Campaign(
            space,
            plan,
            stack.enter_context(parts.assessor(plan, folder, progress.epoch)),
            opened,
            listen=listen,
            place=place,
            num_distinct=num_distinct(space),
            lease_s=lease_s,
            joins=True,
        )
        outcome = campaign.run()
    return WorkResult(name, outcome.reason, tuple(finished), tuple(lost))


def _chosen(names: list[str], asked: str | None) -> str:
    """The study to work at. Errors: StudyError when there is none, or several and none was named"""
    if asked in names:
        return str(asked)
    if asked is None and len(names) == 1:
        return names[0]
    hint: str | None
    if not names:
        message = "there is no study here that archdsl has begun"
        hint = "begin it with `archdsl search SPACE --storage …`; --workers 0 leaves all the work to workers"
    elif asked is None:
        message, hint = "several studies are kept here", f"choose one with --study: {', '.join(sorted(names))}"
    else:
        message = f"there is no study `{asked}` here"
        hint = joined(did_you_mean(asked, names), f"Studies: {', '.join(sorted(names))}.")
    raise StudyError(Problem(at_argument("--study", asked or ""), "unknown-name", message, hint))


def _refuse_other_versions(then: dict[str, str], study: str) -> None:
    now = versions()
    differences = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    if differences:
        message = f"the study was begun with other versions (then -> here): {', '.join(differences)}"
        hint = "install those, or take part all the same with --force"
        raise StudyError(Problem(at_argument("--study", study), "other-study", message, hint))
