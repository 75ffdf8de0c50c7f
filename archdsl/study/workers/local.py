"""Worker processes of this machine, started and restarted by the process that leads a search.

Each is `archdsl worker`, as it would run anywhere else. It gets a share of the cores, so that none measures while
another trains on the same cores. It ends when the leading process does, however that ends, because its standard input
ends.
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
from typing import Protocol

from archdsl.errors import Place, Problem, StudyError
from archdsl.owned import open_own, own_folder, read_own
from archdsl.study.interrupts import EXIT_CODE

MOST_DEATHS = 4
"""After so many deaths for each worker, without a trial finished in between, the search ends with an error."""
STOP_S = 7.0
"""How long workers have to end; then they are killed."""
_RESTART_S = 0.5
_TAIL_BYTES = 2000


class Workers(Protocol):
    """Runs workers: as processes of this machine, or as tasks of a cluster."""

    def start(self) -> None:
        """Start all of them."""
        ...

    def poll(self, progress: int) -> bool:
        """Restart the workers that died, and return whether any worker runs.

        Args: progress: any number that grows while the study does
        Raises: StudyError with the problems that a worker has reported, or when workers keep dying
        """
        ...

    def stop(self) -> None:
        """End all of them, within ten seconds."""
        ...


class LocalWorkers:
    """`number` processes that run `command`.

    environment: of the processes; secrets belong there, since everybody can read a command line
    logs: folder for what they print: worker-1.log, worker-2.log, … and worker-1.json, …
    threads: cores that one needs for its measurements; where the shares are smaller, cores are not partitioned
    """

    def __init__(
        self, command: Sequence[str], number: int, *, environment: Mapping[str, str], logs: Path, threads: int = 1
    ):
        self._command, self._environment, self._logs = list(command), dict(environment), logs
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        shares = partition_cores(cores, number, threads)
        self._slots = [_Slot(logs / f"worker-{index}", share) for index, share in enumerate(shares, 1)]
        self._deaths, self._progress = 0, -1

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run now."""
        return [slot.process.pid for slot in self._slots if slot.process and slot.process.poll() is None]

    def start(self) -> None:
        own_folder(self._logs)
        for slot in self._slots:
            slot.start(self._command, self._environment)

    def poll(self, progress: int) -> bool:
        if progress != self._progress:
            self._progress, self._deaths = progress, 0
        for slot in self._slots:
            code = slot.code()
            if code is None or slot.ended:
                continue
            if code in (0, EXIT_CODE):
                slot.ended = True
            elif code in (1, 2) and (problems := printed_problems(read_own(slot.out).decode(errors="replace"))):
                raise StudyError(problems)
            elif time.monotonic() > slot.died_at(_RESTART_S):
                self._deaths += 1
                if self._deaths > MOST_DEATHS * len(self._slots):
                    raise StudyError(self._died(slot, code))
                slot.start(self._command, self._environment)
        return not all(slot.ended for slot in self._slots)

    def stop(self) -> None:
        running = [slot.process for slot in self._slots if slot.process is not None]
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

    def _died(self, slot: _Slot, code: int) -> Problem:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        lines = read_own(slot.log)[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        last = f"; the last line of one: {lines[-1]}" if lines else ""
        message = f"workers keep ending {how} before a trial is finished{last}"
        return Problem(Place(str(slot.log)), "worker-lost", message, "see the file; fewer --workers need less memory")


class _Slot:
    """One worker: the process that runs as it now. out, log: what it prints to its standard output and error"""

    def __init__(self, stem: Path, cores: frozenset[int] | None):
        self.out, self.log, self.cores = stem.with_suffix(".json"), stem.with_suffix(".log"), cores
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False
        self._died: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._died = None
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        new = os.O_WRONLY | os.O_CREAT
        with (
            open(open_own(self.out, new | os.O_TRUNC), "wb") as out,
            open(open_own(self.log, new | os.O_APPEND), "ab") as log,
        ):
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is the leader's to handle
            )
        if self.cores is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.process.pid, self.cores)

    def code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def died_at(self, plus_s: float) -> float:
        self._died = self._died or time.monotonic()
        return self._died + plus_s


def partition_cores(cores: Sequence[int] | None, number: int, least: int = 1) -> list[frozenset[int] | None]:
    """The cores of each of `number` workers, none in two shares; None for all cores, where shares would be too small.

    least: cores that a worker needs
    """
    if cores is None or number == 0 or len(cores) // number < least:
        return [None] * number
    each, more = divmod(len(cores), number)
    ends = [index * each + min(index, more) for index in range(number + 1)]
    return [frozenset(cores[ends[index] : ends[index + 1]]) for index in range(number)]


def printed_problems(output: str) -> list[Problem]:
    """The problems in what a worker with `--json` has printed: progress, then one JSON document."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        document, _ = json.JSONDecoder().raw_decode(output[output.find("{\n") :])
        return [Problem.from_json(data) for data in document["errors"]]
    return []
