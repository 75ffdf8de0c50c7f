"""`archdsl status`: how far is a search?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from archdsl.runs.status import SearchStatus


@click.command(
    epilog="Examples: archdsl status runs/my_space · archdsl status postgresql://me:secret@db/studies --study my_space"
)
@click.argument("run", metavar="RUN|URL")
@options.study
@options.as_json
def status(run: str, study: str | None, as_json: bool) -> int:
    """Show how a search stands: trials by state, workers, rate, time left, and the front so far.

    RUN is the folder of a search, its journal, or the URL of its database. The study is only read, also while workers
    run.
    """
    from archdsl.runs.status import status as status_of

    found = status_of(run, study)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    return 0


def _print(found: SearchStatus) -> None:
    from archdsl.language.text.quantities import time_text
    from archdsl.language.text.words import number_of
    from archdsl.report.front_table import front_table

    evaluated = number_of(found.num_evaluated, "network")
    if found.num_wanted is not None:
        evaluated = f"{found.num_evaluated} of {number_of(found.num_wanted, 'network')}"
    states = ", ".join(f"{count} {state}" for state, count in found.trials.items())
    say(f"{found.study}: {evaluated} evaluated; trials: {states or 'none'}")
    for worker in found.workers:
        numbers = ", ".join(map(str, worker.trials))
        what = f"evaluates trial {numbers}" if worker.is_alive else f"left trial {numbers}: its lease has run out"
        say(f"worker {worker.pid} on {worker.host} {what}")
    if not any(worker.is_alive for worker in found.workers):
        say("no worker has a trial now")
    if found.stop_requested:
        say("the workers were asked to stop; the next `archdsl search` resumes")
    if found.an_hour is not None:
        done = found.num_wanted is not None and found.num_evaluated >= found.num_wanted
        left = f", about {time_text(found.left_s)} left" if found.left_s and not done else ""
        say(f"{found.an_hour:.3g} networks an hour lately{left}")
    if found.last_finished is not None:
        say(f"the last trial ended at {found.last_finished:%Y-%m-%d %H:%M:%S}")
    if found.rows:
        title = f"{found.study}: the front so far, {number_of(len(found.rows), 'network')}"
        print_table(front_table(found.rows, title, found.objectives))
    else:
        say("the front is empty so far")
