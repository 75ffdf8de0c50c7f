"""Worker processes of this machine, started and looked after by the process that leads a search.

Each is `archdsl worker`, as it would run anywhere else. It gets a share of the cores, so that none takes a time while
another trains on the same ones. It ends when the leading process does, however that ends: its standard input ends then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from archdsl.errors import Place, Problem, StudyError

MOST_DEATHS = 4
"""So many deaths for each worker, without a trial finished in between, and it is no accident."""
STOP_S = 7.0
"""How long workers have to end by themselves; then they are killed."""
_RESTART_S = 0.5
_INTERRUPTED = 130
_TAIL_BYTES = 2000


class Workers(Protocol):
    """Whatever runs workers: processes here, or tasks of a cluster."""

    def start(self) -> None: ...

    def look(self, progress: int) -> bool:
        """Whether any work goes on. Starts those anew that died.

        progress: any number that grows while the study does
        Errors: StudyError when a worker says what is wrong, or they keep dying
        """
        ...

    def stop(self) -> None:
        """End all of them, within ten seconds."""
        ...


class LocalWorkers:
    """`number` processes that run `command`.

    environment: of the processes; secrets belong there, since everybody can read a command line
    logs: folder of what they print: worker-1.log, worker-2.log, … and worker-1.json, …
    threads: cores that one needs to take its times; where the shares are smaller, cores are not shared out
    """

    def __init__(
        self, command: Sequence[str], number: int, *, environment: Mapping[str, str], logs: Path, threads: int = 1
    ):
        self._command, self._environment, self._logs = list(command), dict(environment), logs
        shares = shared_out(_cores(), number, threads)
        self._places = [_Place(index + 1, share) for index, share in enumerate(shares)]
        self._deaths, self._progress = 0, -1

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run now."""
        return [place.process.pid for place in self._places if place.process and place.process.poll() is None]

    def start(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        for place in self._places:
            place.start(self._command, self._environment, self._logs)

    def look(self, progress: int) -> bool:
        if progress != self._progress:
            self._progress, self._deaths = progress, 0
        for place in self._places:
            code = place.code()
            if code is None or place.ended:
                continue
            if code in (0, _INTERRUPTED):
                place.ended = True
            elif code in (1, 2) and (problems := _problems(place.said(self._logs))):
                raise StudyError(problems)
            elif time.monotonic() > place.died_at(_RESTART_S):
                self._deaths += 1
                if self._deaths > MOST_DEATHS * len(self._places):
                    raise StudyError(self._died(place, code))
                place.start(self._command, self._environment, self._logs)
        return not all(place.ended for place in self._places)

    def stop(self) -> None:
        running = [place.process for place in self._places if place.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, end - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _died(self, place: _Place, code: int) -> Problem:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        path = self._logs / f"worker-{place.number}.log"
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        said = f"; the last said: {lines[-1]}" if lines else ""
        message = f"workers keep ending {how} before a trial is finished{said}"
        return Problem(Place(str(path)), "worker-lost", message, "see the file; fewer --workers need less memory")


class _Place:
    """One worker: the process that has its place now."""

    def __init__(self, number: int, cores: frozenset[int] | None):
        self.number, self.cores = number, cores
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False
        self._died: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        self._died = None
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        with open(self._out(logs), "wb") as out, open(logs / f"worker-{self.number}.log", "ab") as log:
            self.process = self._popen(command, environment, out, log)
        if self.cores is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.process.pid, self.cores)

    def _popen(
        self, command: Sequence[str], environment: Mapping[str, str], out: IO[bytes], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is the leader's to handle
        )

    def code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def died_at(self, plus_s: float) -> float:
        self._died = self._died or time.monotonic()
        return self._died + plus_s

    def said(self, logs: Path) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._out(logs).read_bytes())
        return None

    def _out(self, logs: Path) -> Path:
        return logs / f"worker-{self.number}.json"


def shared_out(cores: Sequence[int] | None, number: int, least: int = 1) -> list[frozenset[int] | None]:
    """The cores of each of `number` workers, none in two shares; None for all cores, where shares would be too small.

    least: cores that a worker needs
    """
    if cores is None or number == 0 or len(cores) // number < least:
        return [None] * number
    each, more = divmod(len(cores), number)
    ends = [index * each + min(index, more) for index in range(number + 1)]
    return [frozenset(cores[ends[index] : ends[index + 1]]) for index in range(number)]


def _cores() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _problems(said: Any) -> list[Problem]:
    """The problems that a worker's `--json` told."""
    try:
        return [problem_from(data) for data in said["errors"]]
    except (TypeError, KeyError, ValueError):
        return []


def problem_from(data: Mapping[str, Any]) -> Problem:
    """The problem that `Problem.as_json` described."""
    place = Place(str(data["file"]), int(data["line"]), int(data["column"]))
    return Problem(place, str(data["rule"]), str(data["message"]), data.get("hint"), data.get("path"))
