"""`archdsl report`: the page of a search as it stands."""

from __future__ import annotations

import time
from pathlib import Path

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, say
from archdsl.cli.parameters import Seconds


@click.command(
    epilog="Examples: archdsl report runs/my_space · archdsl report runs/my_space --watch · "
    "archdsl report postgresql://me:secret@db/studies --study my_space --out page/"
)
@click.argument("run", metavar="RUN|URL")
@options.study
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into [default: that of the search].")
@click.option("--watch", is_flag=True, help="Write it anew whenever a trial has ended, until all are evaluated.")
@click.option("--every", type=Seconds(1.0), default="10s", show_default=True, help="How often --watch looks.")
@options.as_json
def report(run: str, study: str | None, out: Path | None, watch: bool, every: float, as_json: bool) -> int:
    """Write the page of a search, its front as CSV and its picture, without evaluating anything.

    RUN is the folder of a search, its journal, or the URL of its database. The study is only read, also while workers
    run.
    """
    from archdsl.language.text.words import number_of
    from archdsl.runs.report import write_report
    from archdsl.runs.status import status

    written = write_report(run, study, out=out)
    shown = written.num_trials
    while watch:
        now = status(run, study)
        finished = sum(count for state, count in now.trials.items() if state not in ("running", "waiting"))
        if finished != shown:
            written, shown = write_report(run, study, out=out), finished
            say(f"{now.num_evaluated} networks evaluated: written to {written.page}", err=True)
        if now.num_wanted is not None and now.num_evaluated >= now.num_wanted:
            break
        time.sleep(every)
    if as_json:
        print_json(written.as_json())
    else:
        front, trials = number_of(written.num_front, "network"), number_of(written.num_trials, "trial")
        say(f"{written.study}: {front} on the front, {trials}: {written.page}")
    return 0
