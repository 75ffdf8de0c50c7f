"""Kill workers at random with `kill -9` while they search, and count what is lost: nothing finished may be.

    python benchmarks/kill_workers.py                                    # journal file, 4 workers, 50 kills
    python benchmarks/kill_workers.py --storage postgresql://me:pw@host/db
    python benchmarks/kill_workers.py --storage postgresql               # on a server that is started for this alone

Everything is real and public: `archdsl search --workers 4` leads, its workers are the processes that are killed, and it
starts them anew. The networks cost little (runtime `null`, no training), so that minutes hold many trials and kills.

What counts as finished is what a watcher, a reader of the storage like any other, has seen finished before a kill: it
writes number and values down at once. At the end each of these must be there, unchanged, once; no trial may be left
running; the numbers must have no gap and no double; and exactly the networks asked for must have been paid for, none
twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres import server

from archdsl.study.storage.opening import open_storage

SPACE = """
name: killed
base: micro_swin
choices:
  stages.*.window: [2, 4, 8]
  stages.*.shift: [true, false]
  stages.*.depth: {range: [1, 8]}
  stages.*.mlp_ratio: [1, 1.5, 2, 2.5, 3, 3.5, 4]
objectives: {latency: {runtime: "null"}, params: {}}
search: {trials: 10, sampler: random}
"""


def workers_of(leader: int) -> list[int]:
    """The workers that a leading process has now: children whose command line says `worker`."""
    found = []
    try:
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    except OSError:
        return []
    for child in children:
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"worker" in words:
            found.append(int(child))
    return found


def finished(storage: Any) -> dict[int, tuple[str, tuple[float, ...]]]:
    """Number -> (hash, values) of each finished trial, as any reader sees them; twice the same number is an error."""
    found: dict[int, tuple[str, tuple[float, ...]]] = {}
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id, deepcopy=False):
            if trial.state.is_finished():
                assert trial.number not in found
                found[trial.number] = (str(trial.user_attrs.get("archdsl:hash")), tuple(trial.values or ()))
    return found


def kill_workers(url: str | None, folder: Path, *, workers: int, kills: int, trials: int, seed: int) -> dict[str, Any]:
    """One study with its kills. -> what came of it, as counts"""
    rng = random.Random(seed)
    (folder / "space.yaml").write_text(SPACE)
    where = url or str(folder / "run" / "study.journal")
    command = [sys.executable, "-m", "archdsl", "search", str(folder / "space.yaml"), "--out", str(folder / "run")]
    command += ["--trials", str(trials), "--workers", str(workers), "--lease", "20s", "--json"]
    command += ["--storage", url] if url else []
    begun = time.monotonic()
    with open(folder / "log", "w") as log:
        leader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    while not workers_of(leader.pid) and leader.poll() is None:
        time.sleep(0.05)
    storage = open_storage(where)
    seen: dict[int, Any] = {}
    changed = num_kills = 0
    while leader.poll() is None:
        now = finished(storage)
        changed += sum(now.get(number) != found for number, found in seen.items())
        seen.update(now)
        victims = workers_of(leader.pid)
        if victims and num_kills < kills and len(seen) < trials:
            os.kill(rng.choice(victims), signal.SIGKILL)
            num_kills += 1
        time.sleep(rng.uniform(0.0, 2.0 if num_kills < kills else 0.5))
    out = leader.communicate()[0]
    now = finished(storage)
    states = [t for s in storage.get_all_studies() for t in storage.get_all_trials(s._study_id, deepcopy=False)]
    paid = [trial for trial in states if trial.state.is_finished() and not trial.user_attrs.get("archdsl:cheap")]
    hashes = [trial.user_attrs["archdsl:hash"] for trial in paid]
    return {
        "kills": num_kills,
        "acknowledged": len(seen),
        "lost": sum(number not in now for number in seen),
        "changed": changed + sum(now.get(number) != found for number, found in seen.items()),
        "paid_for": len(paid),
        "paid_for_twice": len(hashes) - len(set(hashes)),
        "numbers_missing_or_double": sum(trial.number != index for index, trial in enumerate(states)),
        "orphaned": sum(trial.state.name == "RUNNING" for trial in states),
        "put_back": sum(trial.user_attrs.get("archdsl:put_back", 0) for trial in states),
        "completed": leader.returncode == 0 and json.loads(out)["stopped_by"] == "trials" and len(paid) == trials,
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--storage",
        help="a URL whose database holds nothing, or `postgresql` for a server of its own; by default a journal file",
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = server() if options.storage == "postgresql" else nullcontext(options.storage)
    with started as storage, tempfile.TemporaryDirectory() as folder:
        found = kill_workers(
            storage,
            Path(folder),
            workers=options.workers,
            kills=options.kills,
            trials=options.trials,
            seed=options.seed,
        )
        if not found["completed"]:
            print((Path(folder) / "log").read_text()[-3000:], file=sys.stderr)
    kind = options.storage.partition("://")[0] if options.storage else "journal"
    print(f"| storage | workers | {' | '.join(word.replace('_', ' ') for word in found)} |")
    print(f"|---|---:|{'---:|' * len(found)}")
    print(f"| {kind} | {options.workers} | {' | '.join(str(value) for value in found.values())} |")
    bad = ("lost", "changed", "paid_for_twice", "numbers_missing_or_double", "orphaned")
    return 0 if found["completed"] and not any(found[name] for name in bad) else 1


if __name__ == "__main__":
    sys.exit(main())
