"""A search as plain data, kept in its study: all that a worker on another machine needs to take part."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from archdsl.report.run_folder import RunFolder
from archdsl.spec import Space, load_space
from archdsl.spec.render import to_yaml
from archdsl.study.crew.workers import LocalWorkers, Workers
from archdsl.study.plan import Plan
from archdsl.training import Recipe

STORAGE_VARIABLE = "ARCHDSL_STORAGE"
"""Where `archdsl worker` finds the storage when its command line does not say; a URL may hold a password."""
_COUNTED = ("archdsl", "torch", "optuna")
"""Packages that decide what a study finds out; a latency's runtime is part of its target's fingerprint."""


def job_of(
    space: Space, plan: Plan, objectives: Sequence[str], on: str | None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """The search as plain data.

    objectives, on: as they were asked for; recipe: what the space names, which may be a file of this machine
    """
    data = copy.deepcopy({**space.data, "base": "base.yaml"})
    if recipe is not None:
        data["objectives"]["accuracy"]["train"]["recipe"] = recipe.model_dump(mode="json")
    return {
        "space": to_yaml(data),
        "base": to_yaml(space.base_tree.plain()),
        "objectives": list(objectives),
        "on": on,
        "seed": plan.seed,
        "sampler": plan.sampler,
        "trials": plan.trials,
        "versions": versions(),
    }


def space_of(job: Mapping[str, Any]) -> Space:
    """The space of a job. Its known designs are left out: they are in the study already."""
    with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
        Path(folder, "base.yaml").write_text(job["base"])
        path = Path(folder, "space.yaml")
        path.write_text(job["space"])
        return load_space(path, {"search.start": []})


def versions() -> dict[str, str]:
    """The versions of what decides a study's results."""
    found = {}
    for name in _COUNTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unreleased"
    return found


def started_by(
    launch: str | None, space: Space, folder: RunFolder, storage: str | None, number: int, lease_s: float
) -> Workers:
    """What will run a search's workers: this machine, or a Ray cluster.

    Errors: StudyError for a launcher that there is not, or a cluster that is not reached
    """
    target = str(folder.journal.absolute()) if storage is None else _absolute(storage)
    arguments = ["worker", "--study", space.name, "--lease", f"{lease_s}s", "--json", "--tied"]
    if launch is not None:
        from archdsl.study.crew.launch import ray_workers

        devices = {target.device for target in space.objectives.targets}
        needs_gpu = "cuda" in devices
        out = str(folder.path.absolute() / "workers")
        return ray_workers(launch, [*arguments, "--out", out], number, {STORAGE_VARIABLE: target}, needs_gpu=needs_gpu)
    threads = max((target.threads or 1 for target in space.objectives.targets), default=1)
    return LocalWorkers(
        [sys.executable, "-P", "-m", "archdsl", *arguments, "--out", str(folder.path.absolute())],
        number,
        environment={**os.environ, STORAGE_VARIABLE: target, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        logs=folder.path / "workers",
        threads=threads,
    )


def _absolute(storage: str) -> str:
    """A storage's name that holds in every folder."""
    return storage if "://" in storage else str(Path(storage).absolute())
