"""`report`: the page of a search from its study, without evaluating anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.evaluators.protocol import REAL_TRAINING
from archdsl.files import write_file
from archdsl.report.front_confirmation import ConfirmationReport
from archdsl.report.front_csv import front_csv
from archdsl.report.front_page import front_page, page_facts
from archdsl.report.front_picture import front_svg
from archdsl.report.front_rows import differences
from archdsl.runs.folder import PAGE, RunFolder
from archdsl.runs.reading import OpenedSearch, open_search
from archdsl.runs.search_parts import targets_of
from archdsl.study.campaign import CampaignResult
from archdsl.study.config import StudyConfig
from archdsl.study.predicted_latencies import NAME, PredictedLatencies
from archdsl.study.storage.urls import is_url


@dataclass(frozen=True)
class WrittenReport:
    """study: its name; page: the file; num_front, num_trials: how many networks and finished trials it shows"""

    study: str
    page: Path
    num_front: int
    num_trials: int

    def as_json(self) -> dict[str, Any]:
        """What `archdsl report --json` prints."""
        counts = {"front": self.num_front, "trials": self.num_trials}
        return {"study": self.study, "page": str(self.page), **counts}


def write_report(
    run: str | os.PathLike[str], study: str | None = None, *, out: str | os.PathLike[str] | None = None
) -> WrittenReport:
    """Write report.html, front.csv and front.svg of a search as it stands. The study is only read.

    Args:
        run: its folder, its journal file, or the URL of the database
        study: its name, where several are kept there
        out: the folder to write into, by default that of the search, else `runs/<study>`
    Returns: the file that was written, and how many networks and trials it shows
    Raises: StudyError when there is no such study, or the folder holds somebody else's files
    Example:
        >>> import archdsl, tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = archdsl.search("quickstart", trials=3, set={"objectives": {"macs": {}, "params": {}}}, out=out)
        ...     written = archdsl.write_report(out)
        >>> written.page.name, written.num_trials
        ('report.html', 3)
    """
    opened = open_search(run, study)
    view = opened.view
    where = out if out is not None else opened.folder if opened.folder is not None else Path("runs", view.name)
    kept = opened.storage if is_url(opened.storage) else str(Path(opened.storage).absolute())
    folder_of_run = RunFolder(where)
    folder_of_run.describe_if_new({"study": view.name, "space": opened.space.data, "storage": kept})
    folder = folder_of_run.path
    title = f"{view.name}: {' against '.join(objective.name for objective in view.objectives)}"
    write_file(folder / "front.csv", front_csv(opened.rows))
    if len(view.objectives) >= 2 and opened.rows:
        write_file(folder / "front.svg", front_svg(opened.front, [row.name for row in opened.rows], title))
    else:
        (folder / "front.svg").unlink(missing_ok=True)
    write_file(folder / PAGE, _page(opened, title))
    finished = sum(record.state != "open" for record in view.records)
    return WrittenReport(view.name, folder / PAGE, len(opened.rows), finished)


def _page(opened: OpenedSearch, title: str) -> str:
    space, view = opened.space, opened.view
    base = space.assignment_of(space.base)
    return front_page(
        title,
        _facts(opened),
        opened.front,
        opened.rows,
        view.records,
        lambda record: differences(space, record.assignment, base),
    )


def _facts(opened: OpenedSearch) -> dict[str, str]:
    """What to know before believing the page; as after a search, but for what only its process knew."""
    space, view = opened.space, opened.view
    job = view.job or {}
    plan = StudyConfig(
        view.name,
        view.objectives,
        view.num_wanted or 0,
        int(view.plan.get("seed", job.get("seed", 0))),
        str(view.plan.get("sampler", job.get("sampler", "?"))),
        "as the study says",
    )
    facts = page_facts(space, plan, view.records)
    if any(objective.kind == "accuracy" for objective in view.objectives):
        facts["evaluator"] = f"train: {REAL_TRAINING}"
    estimate = view.plan.get("latency_estimate")
    if isinstance(estimate, dict):
        words = f"estimates for {estimate.get('gpu')}, not measured and not validated ({estimate.get('compiler')})"
        facts = {"latency_estimate": words, **facts}
    if NAME in view.attributes:
        predicted = PredictedLatencies(space, targets_of(space, job.get("on")))
        predicted.load(view.attributes[NAME])
        facts |= {f"{name} predicted": sentence for name, sentence in predicted.notes.items()}
    if any(record.is_confirmed for record in opened.known):
        outcome = CampaignResult("trials", view.records, opened.known)
        facts["front"] = str(ConfirmationReport.of(opened.front, outcome, "re-measured, interleaved"))
    return facts
