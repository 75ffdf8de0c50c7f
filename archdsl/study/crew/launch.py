"""Workers as tasks of a Ray cluster: Ray finds a place with a free core, and a free GPU where one is needed."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.errors import Problem, StudyError, at_argument
from archdsl.study.crew.workers import MOST_DEATHS, STOP_S, problem_from
from archdsl.study.storage.opening import masked

_RAY = "ray"
_INTERRUPTED = 130


def ray_workers(
    launch: str, arguments: Sequence[str], number: int, environment: Mapping[str, str], *, needs_gpu: bool = False
) -> RayWorkers:
    """Workers on the cluster that `launch` names: `ray` for the one this machine is part of, or `ray://host:port`.

    arguments: of `archdsl` on the machines of the cluster, which must have it installed; environment: more of it
    Errors: StudyError for another launcher, when Ray is not installed, or when the cluster is not reached
    """
    place = at_argument("--launch", launch)
    if launch != _RAY and not launch.startswith(f"{_RAY}://"):
        hint = "write --launch ray, or --launch ray://host:port"
        raise StudyError(Problem(place, "unknown-name", f"there is no launcher `{launch}`", hint))
    try:
        ray = importlib.import_module(_RAY)
    except ImportError as error:
        hint = "Ray comes with the `dist` extra: pip install 'archdsl[dist]'"
        raise StudyError(Problem(place, "not-installed", f"Ray cannot be used: {error}", hint)) from error
    if not ray.is_initialized():
        try:
            address = launch if launch != _RAY else os.environ.get("RAY_ADDRESS", "auto")
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
            said = masked(str(error)).strip().splitlines()
            message = f"the Ray cluster is not reached: {said[0] if said else type(error).__name__}"
            hint = "start one with `ray start --head`, or name it: --launch ray://host:10001"
            raise StudyError(Problem(place, "launch", message, hint)) from None
    return RayWorkers(ray, arguments, number, environment, num_gpus=1 if needs_gpu else 0)


class RayWorkers:
    """`number` tasks, each one worker process. One that is lost with its machine is placed anew.

    nodes: where the finished ones ran, as Ray calls its machines
    """

    def __init__(
        self, ray: Any, arguments: Sequence[str], number: int, environment: Mapping[str, str], *, num_gpus: int
    ):
        self._ray, self._arguments, self._environment, self._number = ray, list(arguments), dict(environment), number
        self._task = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=0)(run_worker)
        self._running: list[Any] = []
        self._deaths, self._progress = 0, -1
        self.nodes: list[str] = []

    def start(self) -> None:
        self._running = [self._placed() for _ in range(self._number)]

    def look(self, progress: int) -> bool:
        if progress != self._progress:
            self._progress, self._deaths = progress, 0
        ended, self._running = self._ray.wait(self._running, num_returns=len(self._running), timeout=0)
        for task in ended:
            try:
                code, said, node = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                code, said, node = -1, type(error).__name__, ""
            if code in (0, _INTERRUPTED):
                self.nodes.append(node)
            elif problems := _problems(said):
                raise StudyError(problems)
            else:
                self._deaths += 1
                if self._deaths > MOST_DEATHS * self._number:
                    message = f"workers keep ending with exit code {code} before a trial is finished: {said[-500:]}"
                    raise StudyError(Problem(at_argument("--launch", _RAY), "worker-lost", message))
                self._running.append(self._placed())
        return bool(self._running)

    def stop(self) -> None:
        for task in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(task, force=False)
        if self._running:
            _, deaf = self._ray.wait(self._running, num_returns=len(self._running), timeout=STOP_S + 1)
            for task in deaf:  # Ray's signal is now and then lost; a worker ends when its task's process does
                with contextlib.suppress(Exception):
                    self._ray.cancel(task, force=True)
        self._running = []

    def _placed(self) -> Any:
        return self._task.remote(self._arguments, self._environment)


def run_worker(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """On a machine of the cluster: run one worker to its end. -> exit code, what it printed, the machine's id in Ray"""
    import ray

    node = ray.get_runtime_context().get_node_id()
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "archdsl", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdin=subprocess.PIPE,  # it ends when this task does, however that ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        return _ended(process, node)
    finally:
        if process.poll() is None:  # cancelled
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            process.kill()
            process.wait()


def _ended(process: subprocess.Popen[str], node: str) -> tuple[int, str, str]:
    """Wait for a process; its standard input stays open meanwhile. -> as `run_worker`"""
    assert process.stdout is not None
    said = "".join(process.stdout)
    return process.wait(), said, node


def _problems(said: str) -> list[Problem]:
    """The problems in what a worker printed: progress, then one JSON document."""
    start = said.find("{\n")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [problem_from(data) for data in json.JSONDecoder().raw_decode(said[start:])[0]["errors"]]
    return []
