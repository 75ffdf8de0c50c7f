"""Give archdsl broken input of every kind and see that it is refused in peace.

    python benchmarks/fuzz.py                                       # ten minutes, all kinds, seed 0
    python benchmarks/fuzz.py --seconds 60 --only journals --seed 7
    python benchmarks/fuzz.py --only journals --seed 7 --case 123   # once more, with what was printed

Every case is made from its seed, kind and number alone (`fuzz_inputs.py`). Its commands run in one process per kind, a
sample of them as `python -m archdsl` in a process of their own. What counts as a finding:

- an exit code other than 0 and 1, a traceback, an internal error, the death of the process;
- an error without its place, control characters in the output, a library's warning;
- more than 5 s for one command, twice;
- any change outside the folders that the command was given to write: the inputs, the working directory, the home
  directory, the temporary files, and what links and paths in the input point at;
- a build that is refused but leaves something behind.

Case 0 of each kind is not broken, and must be accepted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

LONGEST_S = 5.0
"""For one command. Where a new process is started, it may take START_S longer, until its libraries are loaded; then
processor time is what counts, since that takes any time on a busy machine."""
START_S = 30.0
HUNG_S = 60.0
"""After so long a case is ended; after five times as long, where its commands are processes of their own."""
MEMORY_BYTES = 16 << 30
CHILD_EVERY = 40
"""Every so many cases the commands run in processes of their own."""

LOCATED = re.compile(r"^\S.*?:\d+:\d+: ", re.MULTILINE)
CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]|[\u2028\u2029\u202a-\u202e\u2066-\u2069]")
ALARMS = ("Traceback (most", "[internal]", "this is a bug", "Warning: ", "Exception ignored", "Segmentation fault")
OURS = "CacheWarning: "


def outcome(code: int, out: str, err: str) -> list[str]:
    """What is wrong with how a command ended."""
    found = [] if code in (0, 1) else [f"exit code {code}"]
    for alarm in ALARMS:
        line = next((line for line in (out + err).splitlines() if alarm in line and OURS not in line), None)
        if line is not None:
            found.append(f"it printed {line.strip()[:200]!r}")
    if code == 1 and not LOCATED.search(err):
        found.append(f"an error without a place: {err[-200:]!r}")
    if control := CONTROL.search(out + err):
        found.append(f"it printed the character {control[0]!r}")
    return found


def snapshot(root: Path, without: set[Path]) -> dict[str, Any]:
    """Everything below `root`: kind, size, time, and for what is not a folder its content or target."""
    found: dict[str, Any] = {}
    for at, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(at, name) not in without]
        for name in [*folders, *files]:
            path = Path(at, name)
            info = path.lstat()
            content: Any = None
            if stat.S_ISREG(info.st_mode):
                content = info.st_mtime_ns, path.read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, root)] = info.st_mode, content
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of files that came, went or changed."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


class Runner:
    """Runs the cases of one kind in this process: a job per line of stdin, what came of it per line of stdout."""

    def __init__(self, root: Path, kind: str, seed: int):
        from fuzz_case import Place

        self.place = Place(root, root / "inputs", root / "out", root / "cache", root / "victim" / "file")
        self.root, self.kind, self.seed = root, kind, seed
        self.may_change = {self.place.out, self.place.cache, root / "said"}
        (root / "said").mkdir()

    def case(self, number: int, as_child: bool) -> dict[str, Any]:
        """Make the case and run its commands. -> JSON: what was found, and how it went."""
        from fuzz_case import Breaker
        from fuzz_inputs import KINDS

        for folder in (self.place.inputs, self.place.out, self.place.cache, self.place.victim.parent):
            shutil.rmtree(folder, ignore_errors=True) if not folder.is_symlink() else folder.unlink()
        for folder in (self.place.inputs, self.place.cache, self.place.victim.parent):
            folder.mkdir()
        self.place.victim.write_text("untouched")
        rng = random.Random(f"{self.seed} {self.kind} {number}") if number else None
        commands = KINDS[self.kind](self.place, Breaker(rng))
        findings: list[str] = []
        codes, slowest = [], 0.0
        for command in commands:
            as_child = as_child and _can_be_typed(command)
            before, left = snapshot(self.root, self.may_change), snapshot(self.place.out, set())
            code, out, err, seconds = self._run(command, as_child)
            wrong = outcome(code, out, err)
            if number == 0 and code != 0:
                wrong.append(f"the valid input is refused: {err[-300:]}")
            most = LONGEST_S + START_S * (as_child or "--allow-pickle" in command)
            if seconds > most and self._run(command, as_child)[3] > most:
                wrong.append(f"it took {seconds:.1f} s")
            if changed := changes(before, snapshot(self.root, self.may_change)):
                wrong.append(f"it changed {', '.join(changed[:5])}")
            if code == 1 and command[0] == "build" and changes(left, snapshot(self.place.out, set())):
                wrong.append("refused, it left something in its output folder")
            findings += [f"{' '.join(command)}\n      {each}" for each in wrong]
            codes.append(code)
            slowest = max(slowest, seconds)
            self.last = out, err
        return {"findings": findings, "codes": codes, "seconds": slowest}

    def _run(self, command: list[str], as_child: bool) -> tuple[int, str, str, float]:
        """-> exit code, stdout, stderr, seconds"""
        said = [self.root / "said" / name for name in ("out", "err")]
        clock = _cpu_of_children if as_child else time.monotonic
        begun = clock()
        with said[0].open("wb") as out, said[1].open("wb") as err:
            if as_child:
                whole = [sys.executable, "-m", "archdsl", *(os.fsencode(word) for word in command)]
                code = subprocess.run(whole, stdout=out, stderr=err, stdin=subprocess.DEVNULL).returncode
            else:
                from archdsl.cli.main import run

                kept = os.dup(1), os.dup(2)
                os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
                try:
                    code = run(command)
                except BaseException as error:
                    code = -1
                    print(f"Traceback (most recent call last): {type(error).__name__}: {error}", file=sys.stderr)
                finally:
                    sys.stdout.flush(), sys.stderr.flush()
                    os.dup2(kept[0], 1), os.dup2(kept[1], 2)
                    os.close(kept[0]), os.close(kept[1])
        seconds = clock() - begun
        return code, *(path.read_bytes().decode(errors="surrogateescape") for path in said), seconds


def _can_be_typed(command: list[str]) -> bool:
    """Whether an operating system hands these words to a process: no zero byte, no halves of a pair of UTF-16."""
    try:
        return not any(b"\0" in os.fsencode(word) for word in command)
    except UnicodeEncodeError:
        return False


def _cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def serve(root: Path, kind: str, seed: int) -> None:
    """The process of a kind."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runner = Runner(root, kind, seed)
    for line in sys.stdin:
        answers.write(json.dumps(runner.case(*json.loads(line))) + "\n")
        answers.flush()


class Kind:
    """Cases of one kind, in a process that is started anew when it dies or hangs."""

    def __init__(self, kind: str, seed: int, folder: Path):
        self.kind, self.seed, self.folder = kind, seed, folder
        self.process: subprocess.Popen[str] | None = None
        self.root = folder
        self.restarts = 0

    def case(self, number: int, as_child: bool) -> dict[str, Any]:
        process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([number, as_child]) + "\n")
        process.stdin.flush()
        longest_s = HUNG_S * (5 if as_child else 1)
        ready, _, _ = select([process.stdout], [], [], longest_s)
        line = process.stdout.readline() if ready else ""
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.stop()
        how = f"the process died, code {process.returncode}" if ready else f"no end after {longest_s:.0f} s"
        last = [path.read_text(errors="replace")[-500:] for path in (self.root / "said" / "err", self.root / "stderr")]
        return {"findings": [f"{how}: {' | '.join(last)}"], "codes": [-1], "seconds": longest_s}

    def _start(self) -> subprocess.Popen[str]:
        self.root = self.folder / f"{self.kind}{self.restarts}"
        self.restarts += 1
        for name in ("cwd", "home", "tmp"):
            (self.root / name).mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARCHDSL", "XDG"))}
        own = {"HOME": self.root / "home", "TMPDIR": self.root / "tmp", "ARCHDSL_CACHE_DIR": self.root / "cache"}
        own["TORCHINDUCTOR_CACHE_DIR"] = self.root / "cache"
        paths = os.pathsep.join(
            [*sys.path[:1], str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
        )
        environment = kept | {name: str(path) for name, path in own.items()} | {"PYTHONPATH": paths}
        command = [sys.executable, __file__, "--serve", str(self.root), "--only", self.kind, "--seed", str(self.seed)]
        with (self.root / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.root / "cwd",
                env={**environment, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
        return self.process

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def fuzz(kind: str, seed: int, seconds: float, folder: Path, only: int | None = None) -> dict[str, Any]:
    """Run cases of a kind for so many seconds, or one case. -> what becomes its row of the table"""
    row: dict[str, Any] = {"kind": kind, "cases": 0, "refused": 0, "accepted": 0, "findings": 0, "slowest_s": 0.0}
    cases = Kind(kind, seed, folder)
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < seconds if only is None else row["cases"] == 0:
            number = row["cases"] if only is None else only
            found = cases.case(number, number % CHILD_EVERY == CHILD_EVERY - 1)
            row["cases"] += 1
            row["refused" if any(found["codes"]) else "accepted"] += 1
            row["findings"] += bool(found["findings"])
            row["slowest_s"] = max(row["slowest_s"], round(found["seconds"], 1))
            for finding in found["findings"]:
                print(f"FOUND --only {kind} --seed {seed} --case {number}: {finding}", flush=True)
    finally:
        cases.stop()
    return row


def main() -> int:
    from fuzz_inputs import KINDS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, action="append", help="a kind; may be given several times")
    parser.add_argument("--case", type=int, help="only this case of the kind")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and leave it")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.only or list(KINDS)
    if options.serve:
        serve(options.serve, kinds[0], options.seed)
        return 0
    with tempfile.TemporaryDirectory(prefix="archdsl-fuzz-") as made:
        folder = options.keep or Path(made)
        share = options.seconds / len(kinds)
        rows = [fuzz(kind, options.seed, share, folder, options.case) for kind in kinds]
        if options.case is not None:
            for path in sorted(folder.glob("*/said/*")):
                print(f"--- {path.name}\n{path.read_text(errors='backslashreplace')}")
    print(f"| {' | '.join(name.replace('_', ' ') for name in rows[0])} |\n|---|{'---:|' * (len(rows[0]) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")
    return 1 if any(row["findings"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
