"""Training in child processes, one seed in each: all cores are used, and a crash costs one trial, not the search.

On two cores, two seeds in two processes with a thread each take 0.55 of the time of one process with two threads (7.1 s
and 13.4 s for micro_swin): these networks are too small for threads to share.

A child is a new Python (`subprocess`, never a fork) that answers jobs, one JSON object a line. It is kept for the next
network, since importing torch takes longer than some trainings. It ends when this process does, however that ends.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from archdsl.errors import Place, Problem, TrainingError
from archdsl.latency.worker.environment import worker_environment
from archdsl.spec.model import Spec
from archdsl.training import Accuracy, Recipe, parse_source
from archdsl.training.agreement import RankAgreement
from archdsl.training.data import Source
from archdsl.training.evaluator import Kind, accuracy_of, combined

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from archdsl.study.crew.trainer_main import main; main()"
)

Report = Callable[[int, int, int], None]
"""Called with a run's seed, its finished epochs, and how many there will be. From a thread of its own."""


class Trainers:
    """An evaluator: trains a network `num_seeds` times, in as many processes at once as there are cores for.

    data: as the user wrote it; recipe: how; results: file of finished runs, which are not done again
    threads: CPU threads of each process; by default the cores are shared out
    device: `cpu`, `cuda`, or `auto`, which takes GPUs where there are some, another one for each process
    """

    name: str = "train"
    kind: Kind = "train"
    agreement: RankAgreement | None = None

    def __init__(
        self,
        data: str | Mapping[str, Any],
        recipe: Recipe,
        *,
        results: Path,
        num_seeds: int = 1,
        threads: int | None = None,
        device: str = "auto",
        report: Report | None = None,
    ):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = min(num_seeds, max(1, cores // (threads or 1)))
        self.data, self.recipe, self.results, self.num_seeds, self.report = data, recipe, results, num_seeds, report
        self.device = device
        self.threads = threads or max(1, cores // at_once)
        self.source: Source = parse_source(data)
        self._children = [_Child(self.threads, number) for number in range(at_once)]

    def __call__(self, spec: Spec, *, seed: int = 0) -> Accuracy:
        """Raises TrainingError: whatever the training says, or `crash` or `out-of-memory` for the process itself."""
        return self.advance(spec, seed=seed, to_epoch=self.recipe.epochs)

    def advance(self, spec: Spec, *, seed: int = 0, to_epoch: int) -> Accuracy:
        """Train as far as `to_epoch`, from where an earlier call ended. Errors: as a call, and TrainEvaluator's"""
        jobs = [{**self._job(spec, seed + index), "to_epoch": to_epoch} for index in range(self.num_seeds)]
        idle = list(self._children)
        lock = threading.Lock()

        def run(job: dict[str, Any]) -> Accuracy:
            with lock:
                child = idle.pop()
            try:
                return accuracy_of(child.train(job, self.report))
            finally:
                with lock:
                    idle.append(child)

        pool = ThreadPoolExecutor(len(self._children), thread_name_prefix="archdsl-training")
        try:
            futures = [pool.submit(run, job) for job in jobs]
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in futures if future in ended and future.exception() is not None]
            found = [future.result() for future in failed or futures]
        except BaseException:  # one failed, or Ctrl-C: the others train for nothing
            pool.shutdown(wait=False, cancel_futures=True)  # before a seed that waits gets the process of one that ends
            self.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return combined(found)

    def with_seeds(self, num_seeds: int) -> Trainers:
        """This evaluator for another number of seeds; the processes are shared."""
        other = copy.copy(self)
        other.num_seeds = num_seeds
        return other

    def discard(self, spec: Spec, *, seed: int = 0) -> None:
        """This network will not be trained on: the kept states of its runs may go."""
        for index in range(self.num_seeds):
            self._children[0].train({**self._job(spec, seed + index), "discard": True}, None)

    def close(self) -> None:
        """End the processes. The next call starts new ones."""
        for child in self._children:
            child.kill()

    def _job(self, spec: Spec, seed: int) -> dict[str, Any]:
        return {
            "spec": spec.to_yaml(),
            "data": self.data,
            "recipe": self.recipe.model_dump(),
            "results": str(self.results.absolute()),
            "checkpoints": str(self.results.absolute().with_name("checkpoints")),
            "device": self.device,
            "seed": seed,
            "threads": self.threads,
        }


class _Child:
    """One process, started with its first job."""

    def __init__(self, threads: int, number: int):
        self._threads, self._number = threads, number
        self._process: subprocess.Popen[str] | None = None

    def train(self, job: Mapping[str, Any], report: Report | None) -> dict[str, Any]:
        """Train one network with one seed, or do what else the job says. -> the accuracy, as JSON"""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**job, "number": self._number}) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._death(process) from None
        for line in process.stdout:
            answer = json.loads(line)
            if "epoch" in answer:
                if report is not None:
                    report(job["seed"], answer["epoch"], answer["epochs"])
            elif "problems" in answer:
                raise TrainingError([_problem(data) for data in answer["problems"]])
            else:
                return dict(answer["accuracy"])
        raise self._death(process)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOTSTRAP, path],
                env=worker_environment(self._threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle
            )
        return self._process

    def _death(self, process: subprocess.Popen[str]) -> TrainingError:
        code = process.wait()
        if code == -signal.SIGKILL:
            message = "the training was killed, by a person or because the system ran out of memory"
            return TrainingError(Problem(Place("training"), "out-of-memory", message))
        name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else f"exit code {code}"
        return TrainingError(Problem(Place("training"), "crash", f"the training process died ({name})"))


def _problem(data: Mapping[str, Any]) -> Problem:
    place = Place(str(data["file"]), int(data["line"]), int(data["column"]))
    return Problem(place, data["rule"], data["message"], data["hint"], data["path"])
