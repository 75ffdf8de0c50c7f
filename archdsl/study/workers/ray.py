"""Workers as tasks of a Ray cluster: Ray places each on a free core, and on a free GPU where one is needed."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from archdsl.errors import StudyError
from archdsl.processes.imports import import_path
from archdsl.study.interrupts import EXIT_CODE
from archdsl.study.storage.urls import masked
from archdsl.study.workers.local import MOST_DEATHS, STOP_S, printed_problems

_RAY = "ray"


def ray_workers(
    launch: str, arguments: Sequence[str], number: int, environment: Mapping[str, str], *, needs_gpu: bool = False
) -> RayWorkers:
    """Workers on the cluster that `launch` names: `ray` for the one this machine is part of, or `ray://host:port`.

    Args:
        arguments: of `archdsl` on the machines of the cluster, which must have it installed
        environment: variables that are added there
    Raises: StudyError for another launcher, when Ray is not installed, or when the cluster is not reached
    """
    if launch != _RAY and not launch.startswith(f"{_RAY}://"):
        hint = "write --launch ray, or --launch ray://host:port"
        raise StudyError.at("--launch", launch, "unknown-name", f"there is no launcher `{launch}`", hint)
    try:
        ray = importlib.import_module(_RAY)
    except ImportError as error:
        hint = "Ray comes with the `dist` extra: pip install 'archdsl[dist]'"
        raise StudyError.at("--launch", launch, "not-installed", f"Ray cannot be used: {error}", hint) from error
    if not ray.is_initialized():
        try:
            address = launch if launch != _RAY else os.environ.get("RAY_ADDRESS", "auto")
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
            lines = masked(str(error)).strip().splitlines()
            message = f"the Ray cluster is not reached: {lines[0] if lines else type(error).__name__}"
            hint = "start one with `ray start --head`, or name it: --launch ray://host:10001"
            raise StudyError.at("--launch", launch, "launch", message, hint) from None
    return RayWorkers(ray, arguments, number, environment, num_gpus=1 if needs_gpu else 0)


class RayWorkers:
    """`number` tasks, each one worker process. One that is lost with its machine is placed again.

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
        self._running = [self._submit() for _ in range(self._number)]

    def poll(self, progress: int) -> bool:
        if progress != self._progress:
            self._progress, self._deaths = progress, 0
        ended, self._running = self._ray.wait(self._running, num_returns=len(self._running), timeout=0)
        for task in ended:
            try:
                code, output, node = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                code, output, node = -1, type(error).__name__, ""
            if code in (0, EXIT_CODE):
                self.nodes.append(node)
            elif problems := printed_problems(output):
                raise StudyError(problems)
            else:
                self._deaths += 1
                if self._deaths > MOST_DEATHS * self._number:
                    message = f"workers keep ending with exit code {code} before a trial is finished: {output[-500:]}"
                    raise StudyError.at("--launch", _RAY, "worker-lost", message)
                self._running.append(self._submit())
        return bool(self._running)

    def stop(self) -> None:
        for task in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(task, force=False)
        if self._running:
            _, running = self._ray.wait(self._running, num_returns=len(self._running), timeout=STOP_S + 1)
            for task in running:  # Ray's signal is sometimes lost; a worker ends when its task's process does
                with contextlib.suppress(Exception):
                    self._ray.cancel(task, force=True)
        self._running = []

    def _submit(self) -> Any:
        return self._task.remote(self._arguments, self._environment)


def run_worker(arguments: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Run one worker to its end, on a machine of the cluster.

    Returns: exit code, what it printed, the machine's id in Ray
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "archdsl", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path()), **environment},
        stdin=subprocess.PIPE,  # it ends when this task does, however that ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        output = "".join(process.stdout)  # its standard input stays open meanwhile
        return process.wait(), output, node
    finally:
        if process.poll() is None:  # cancelled
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=STOP_S)
            process.kill()
            process.wait()
