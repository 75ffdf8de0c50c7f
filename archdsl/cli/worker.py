"""`archdsl worker`: one more process at a search that goes on elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import click

from archdsl.cli import options
from archdsl.cli.output import INTERRUPTED, print_json, say

_GRACE_S = 10.0


@click.command(
    epilog="Examples: archdsl worker --storage postgresql://me:secret@db/studies · "
    "srun -n 16 archdsl worker --storage /shared/runs/my_space/study.journal"
)
@click.option(
    "--storage",
    required=True,
    envvar="ARCHDSL_STORAGE",
    metavar="URL",
    help="Where the study is kept: a journal file, sqlite:///…, postgresql://… [default: $ARCHDSL_STORAGE].",
)
@options.study
@click.option("--out", type=click.Path(path_type=Path), help="Folder for finished trainings [default: runs/NAME].")
@options.lease_s
@click.option("--force", is_flag=True, help="Work although versions or the device differ from the study's.")
@click.option("--tied", is_flag=True, hidden=True, help="End when standard input ends.")
@options.as_json
def worker(
    storage: str, study: str | None, out: Path | None, lease_s: float, force: bool, tied: bool, as_json: bool
) -> int:
    """Evaluate networks of a study that `archdsl search` has begun, until its budget is spent.

    The study says how. Any number of workers may share a study, on any machines; each network is evaluated once. When
    a worker dies, another takes over its network.
    """
    if tied:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    from archdsl.runs.worker import work

    result = work(storage, study, out=out, force=force, lease_s=lease_s, quiet=False)
    if as_json:
        print_json(result.as_json())
    else:
        lost = f", {len(result.lost)} given to others meanwhile" if result.lost else ""
        say(f"{result.study}: {len(result.finished)} trials finished here{lost}; ended: {result.reason}")
    return INTERRUPTED if result.reason == "interrupted" else 0


def _end_with_stdin() -> None:
    """End this process cleanly when who started it is gone; by force when that takes too long."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):  # not `sys.stdin`: its lock, held here, would break the end of the process
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(INTERRUPTED)
