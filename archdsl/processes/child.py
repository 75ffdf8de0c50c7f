"""One child process as its parent sees it: started, sent jobs, watched and killed. `warm.py` decides when."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from archdsl.processes.frames import Decoder, FrameError, Message
from archdsl.processes.imports import import_path
from archdsl.processes.limits import Limits

START_S = 30.0
"""How long a process may take to start, where its owner says nothing else."""
GRACE_S = 0.5
"""How long a process may take over SIGTERM before it is killed."""
TAIL_BYTES = 16 * 1024
LOOK_S = 0.1
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main(sys.argv[3:])"
)

ChildReason = Literal[
    "crash",  # the child died by a signal
    "exit",  # it left by itself, or could not be started
    "timeout",  # the deadline passed
    "too-slow",  # the deadline passed, and the child had said that the step takes longer
    "output-flood",  # it printed more than its limit
    "protocol",  # its reply was not a message
]
OnProgress = Callable[[Message], None]


class ChildError(Exception):
    """Why a child did not reply to a job. hint: the last lines that it printed, or None; signal: that it died by"""

    def __init__(self, reason: ChildReason, message: str, hint: str | None = None, signal: int | None = None):
        super().__init__(message)
        self.reason, self.message, self.hint, self.signal = reason, message, hint, signal


class Child:
    """One started process: its socket, what it printed, and its end. Arguments as of `WarmProcess`."""

    def __init__(
        self, module: str, environment: Mapping[str, str], name: str, limits: Limits, max_output_bytes: int | None
    ):
        ours, theirs = socket.socketpair()
        path = json.dumps(import_path())
        arguments = map(str, (theirs.fileno(), os.getpid(), *limits))
        try:
            command = [sys.executable, "-P", "-c", _BOOTSTRAP, path, module, *arguments]
            self._process = _start(command, environment, theirs)
        except OSError as error:
            ours.close()
            raise ChildError("exit", f"{name} could not be started: {error}") from error
        finally:
            theirs.close()
        self.pid, self._name = self._process.pid, name
        self.dead = False
        self._owner = os.getpid()
        self._socket, self._decoder, self._step = ours, Decoder(), "starting"
        self._late: float | None = None  # the seconds of a step that does not fit before the deadline
        self._output = Output(self._process, max_output_bytes)
        self._undo = weakref.finalize(self, _kill_group, self._process, self._owner)

    def usable(self) -> bool:
        return not self.dead and self._owner == os.getpid() and not _has_ended(self._process)

    def wait_ready(self, end: float, deadline_s: float, start_s: float) -> None:
        """Wait until the process takes jobs: until `end`, which is `deadline_s` after the job came, or for `start_s`.

        Raises: ChildError, and then the child is dead
        """
        soonest = min(end, time.monotonic() + start_s)
        reply = self._receive(soonest, deadline_s if soonest == end else start_s)
        if reply.get("kind") != "ready":
            raise self._failure("protocol", f"{self._name} answered {str(reply)[:200]}")

    def ask(
        self, frame: bytes, end: float, deadline_s: float, more_s: float = 0.0, on_progress: OnProgress | None = None
    ) -> Message:
        """Send a job and wait for what is not a progress message; arguments as of `WarmProcess.ask`.

        Args:
            end: when the reply is due, in seconds of `time.monotonic`
        Raises: ChildError, and then the child is dead
        """
        self._step, self._late = "taking the job", None
        self._output.start_job()
        try:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            self._socket.sendall(frame)
        except TimeoutError:
            raise self._timeout(deadline_s) from None
        except OSError:
            pass  # it has died; the next lines find out how
        while True:
            reply = self._receive(end, deadline_s)
            if reply.get("kind") != "progress":
                return reply
            self._step = str(reply.get("step"))[:200]
            if on_progress is not None:
                on_progress(reply)
                end = time.monotonic() + deadline_s
            most_s = reply.get("most_s") or 0.0
            needed_s = max(0.0, time.monotonic() + most_s - end)
            later_s = min(needed_s, more_s)
            end, deadline_s, more_s = end + later_s, deadline_s + later_s, more_s - later_s
            self._late = most_s if needed_s > later_s else None

    def _receive(self, end: float, deadline_s: float) -> Message:
        while True:
            try:
                message = self._decoder.next()
            except FrameError as error:
                raise self._failure("protocol", f"the answer of {self._name} is broken: {error}") from error
            if message is not None:
                return message
            left = end - time.monotonic()
            if left <= 0:
                raise self._timeout(deadline_s)
            ended = _has_ended(self._process)
            self._socket.settimeout(0.001 if ended else min(left, LOOK_S))
            try:
                data = self._socket.recv(2**20)
            except TimeoutError:
                if not ended:
                    continue
                data = b""
            except OSError:
                data = b""
            if not data:
                raise self._death()
            self._decoder.feed(data)

    def _timeout(self, deadline_s: float) -> ChildError:
        message = f"no answer within {deadline_s:.4g} s while {self._step}"
        if self._late is None:
            return self._failure("timeout", message, terminate=True)
        self.kill(terminate=True)
        return ChildError("too-slow", f"{message}, which takes up to {self._late:.4g} s")

    def _death(self) -> ChildError:
        """The error for a child that hung up: it crashed, left, was killed, or printed too much."""
        self.kill()
        code = self._process.returncode
        doing = f"while {self._step}"
        if self._output.flooded:
            limit = (self._output.limit or 0) // 2**20
            return self._failure("output-flood", f"{self._name} printed more than {limit} MiB {doing}")
        if code is None or code >= 0:
            return self._failure("exit", f"{self._name} left with exit code {code} {doing}")
        name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else f"signal {-code}"
        if -code == signal.SIGKILL:
            message = f"{self._name} was killed ({name}) {doing}, by a person or because the system ran out of memory"
            return self._failure("crash", message, number=-code)
        return self._failure("crash", f"{self._name} crashed ({name}) {doing}", number=-code)

    def _failure(
        self, reason: ChildReason, message: str, *, terminate: bool = False, number: int | None = None
    ) -> ChildError:
        self.kill(terminate=terminate)
        last = self._output.last_lines()
        return ChildError(reason, message, f"the last it printed: {last}" if last else None, number)

    def signal_kill(self) -> None:
        """Send SIGKILL from another thread than the one that waits for the child, which then notices its death."""
        if self._owner == os.getpid():
            _signal_group(self._process, signal.SIGKILL)

    def kill(self, *, terminate: bool = False) -> None:
        """End the child and all it started: at once, or with SIGTERM and `GRACE_S` first."""
        if self.dead:
            return
        self.dead = True
        self._socket.close()
        if terminate and self._owner == os.getpid():
            _signal_group(self._process, signal.SIGTERM)
            end = time.monotonic() + GRACE_S
            while not _has_ended(self._process) and time.monotonic() < end:
                time.sleep(0.02)
        self._undo()
        self._output.thread.join(timeout=0.5)


class Output:
    """Reads what the child prints, so that it never blocks; keeps the end of it."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int | None):
        self.limit, self.flooded = limit, False
        self._process, self._count, self._tail = process, 0, b""
        self.thread = threading.Thread(target=self._read, name="archdsl-child-output", daemon=True)
        self.thread.start()

    def start_job(self) -> None:
        self._count, self._tail = 0, b""

    def last_lines(self, num: int = 4) -> str:
        """The end of what was printed, or the start of Python's report of a crash, on one line of plain characters."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        crash = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python error")), len(lines) - num)
        text = " | ".join(lines[max(0, crash) :][:num])
        return "".join(c if c.isprintable() else " " for c in text)[:400]

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with contextlib.suppress(OSError, ValueError), stream:
            while data := os.read(stream.fileno(), 2**16):
                self._count += len(data)
                self._tail = (self._tail + data)[-TAIL_BYTES:]
                if self.limit is not None and self._count > self.limit and not self.flooded:
                    self.flooded = True
                    _signal_group(self._process, signal.SIGKILL)


_STARTERS: dict[int, ThreadPoolExecutor] = {}
_STARTERS_LOCK = threading.Lock()


def _start(command: list[str], environment: Mapping[str, str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process from a thread that lives as long as we do.

    Linux sends the parent-death signal when the starting *thread* ends, so the caller's own thread would not do.
    """
    with _STARTERS_LOCK:
        starter = _STARTERS.get(os.getpid())
        if starter is None:
            starter = _STARTERS[os.getpid()] = ThreadPoolExecutor(1, thread_name_prefix="archdsl-child-start")
    return starter.submit(
        subprocess.Popen,
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        bufsize=0,
    ).result()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended, without collecting it: until then nobody else can get its id."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _kill_group(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill the process and its children, and collect it; nothing in a process that only inherited it by a fork."""
    if os.getpid() != owner:
        return
    _signal_group(process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
