"""Training in child processes, one seed in each: all cores are used, and a crash costs one trial, not the search.

On two cores, two seeds in two processes with a thread each take 0.55 of the time of one process with two threads (7.1 s
and 13.4 s for micro_swin): these networks are too small for threads to share.

A child (`archdsl.processes`) is kept for the next network, since importing torch takes longer than some trainings. It
ends when its stdin closes, so with this process.
"""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from archdsl.errors import Problem, TrainingError
from archdsl.evaluators.agreement import RankAgreement
from archdsl.evaluators.protocol import Kind
from archdsl.evaluators.start_weights import StartWeights
from archdsl.events import EpochEnded, Listener, ignore
from archdsl.language.architecture.model import Spec
from archdsl.processes.child import ChildError
from archdsl.processes.limits import Limits
from archdsl.processes.warm import WarmProcess
from archdsl.telemetry.cpu import memory_bytes as memory_of_machine
from archdsl.telemetry.worker_environment import worker_environment
from archdsl.training import DataSource, Recipe, parse_source
from archdsl.training.failures import training_error
from archdsl.training.outcome import Accuracy, combined

START_S = 600.0
"""How long a training process may take to import torch and start, in seconds: from a cold network drive, minutes."""

SILENCE_S = 24 * 3600.0
"""The longest that a training may take over one epoch, in seconds, before it counts as hung."""


class Trainers:
    """An evaluator that trains a network `num_seeds` times, in as many processes at once as there are cores for.

    Args:
        data:      as the user wrote it, see `parse_source`
        recipe:    how the network is trained
        results:   file of finished runs, in which a run is looked up before it is done; `checkpoints/` lies beside it
        num_seeds: runs per network, with seeds `seed`, `seed + 1`, …
        threads:   CPU threads of each process; None: the cores are shared out
        device:    `cpu`, `cuda`, or `auto`: a GPU where there are some, another one for each process
        on_event:  receives an `EpochEnded` after each epoch, from a thread of its own
        start:     weights that trainings start from; None: initial ones
        memory_bytes: limit on what each process allocates, without the files that it maps; 0: none; None: the machine's
            memory
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
        on_event: Listener = ignore,
        start: StartWeights | None = None,
        memory_bytes: int | None = None,
    ):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = min(num_seeds, max(1, cores // (threads or 1)))
        self.data, self.recipe, self.results, self.num_seeds, self.on_event = data, recipe, results, num_seeds, on_event
        self.device, self.start = device, start
        self.threads = threads or max(1, cores // at_once)
        self.source: DataSource = parse_source(data)
        most = memory_of_machine() if memory_bytes is None else memory_bytes
        self._children = [_Child(self.threads, number, most) for number in range(at_once)]

    def __call__(self, spec: Spec, *, seed: int = 0) -> Accuracy:
        """The accuracy after the whole recipe.

        Raises: TrainingError: as the training; `crash` or `out-of-memory` when the process itself ended
        """
        return self.advance(spec, seed=seed, to_epoch=self.recipe.epochs)

    def advance(self, spec: Spec, *, seed: int = 0, to_epoch: int) -> Accuracy:
        """The accuracy after `to_epoch` epochs, from where an earlier call ended. Raises: as a call"""
        jobs = [{**self._job(spec, seed + index), "to_epoch": to_epoch} for index in range(self.num_seeds)]
        idle: SimpleQueue[_Child] = SimpleQueue()
        for child in self._children:
            idle.put(child)

        def run(job: dict[str, Any]) -> Accuracy:
            child = idle.get()
            try:
                return Accuracy.from_json(child.train(job, self.on_event))
            finally:
                idle.put(child)

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
        """Remove the kept states of this network's unfinished runs."""
        for index in range(self.num_seeds):
            self._children[0].train({**self._job(spec, seed + index), "discard": True}, ignore)

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
            "start": self.start.as_json() if self.start is not None else None,
        }


class _Child:
    """One process, started with its first job. memory_bytes: limit on what it allocates; 0 for none"""

    def __init__(self, threads: int, number: int, memory_bytes: int):
        self._number = number
        self._process = WarmProcess(
            "archdsl.evaluators.train_worker",
            partial(worker_environment, threads),
            name="the training",
            limits=Limits(data=memory_bytes),
            start_s=START_S,
        )

    def train(self, job: Mapping[str, Any], on_event: Listener) -> dict[str, Any]:
        """Train one network with one seed, or do what else the job says.

        Returns: the accuracy, as JSON
        Raises: TrainingError
        """

        def on_progress(message: Mapping[str, Any]) -> None:
            on_event(EpochEnded(job["seed"], message["epoch"], message["epochs"]))

        try:
            numbered = {**job, "number": self._number}
            reply = self._process.ask(numbered, deadline_s=SILENCE_S, on_progress=on_progress)
        except ChildError as error:
            raise _death(error) from error
        if "problems" in reply:
            raise TrainingError([Problem.from_json(data) for data in reply["problems"]])
        return dict(reply["accuracy"])

    def kill(self) -> None:
        self._process.kill()


def _death(error: ChildError) -> TrainingError:
    rule = "timeout" if error.reason == "timeout" else "crash"
    if error.signal == signal.SIGKILL:
        rule = "out-of-memory"
    return training_error(rule, error.message, hint=error.hint)
