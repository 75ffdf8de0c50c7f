"""A search as plain data, kept in its study: all that a worker on another machine needs to take part."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archdsl.language import Space, load_space
from archdsl.language.text.render import to_yaml
from archdsl.processes.imports import import_path
from archdsl.runs.folder import RunFolder
from archdsl.study.config import StudyConfig
from archdsl.study.storage.urls import is_url
from archdsl.study.workers.local import LocalWorkers, Workers
from archdsl.training import Recipe
from archdsl.versions import installed_version

STORAGE_VARIABLE = "ARCHDSL_STORAGE"
"""Where `archdsl worker` finds the storage when its command line does not say; a URL may hold a password."""
_COUNTED = ("archdsl", "torch", "optuna")
"""Packages that decide what a study finds out; a latency's runtime is part of its target's fingerprint."""


def job_of(
    space: Space,
    plan: StudyConfig,
    objectives: Sequence[str],
    on: str | None,
    recipe: Recipe | None = None,
    folder: str | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """The search as plain data.

    objectives, on: as they were asked for; recipe: what the space names, which may be a file of this machine
    folder: that the path of its data is relative to; weights: the file that trainings start from
    """
    data = copy.deepcopy({**space.data, "base": "base.yaml"})
    if recipe is not None:
        data["objectives"]["accuracy"]["train"]["recipe"] = recipe.model_dump(mode="json")
    if weights is not None:
        data["objectives"]["accuracy"]["train"]["weights"]["file"] = weights
    return {
        "space": to_yaml(data),
        "base": to_yaml(space.base_tree.plain()),
        **({"classes": space.num_classes} if space.num_classes is not None else {}),
        "objectives": list(objectives),
        "on": on,
        "folder": folder,
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
        return load_space(path, {"search.start": []}).with_classes(job.get("classes"))


def versions() -> dict[str, str]:
    """The versions of what decides a study's results."""
    return {name: installed_version(name) or "unreleased" for name in _COUNTED}


def started_by(
    launch: str | None, space: Space, folder: RunFolder, storage: str | None, number: int, lease_s: float
) -> Workers:
    """What will run a search's workers: this machine, or a Ray cluster.

    Errors: StudyError for a launcher that there is not, or a cluster that is not reached
    """
    target = storage or str(folder.journal)
    if not is_url(target):  # a path that holds in every folder
        target = str(Path(target).absolute())
    arguments = ["worker", "--study", space.name, "--lease", f"{lease_s}s", "--json", "--tied"]
    if launch is not None:
        from archdsl.study.workers.ray import ray_workers

        needs_gpu = any(target.device == "cuda" for target in space.objectives.targets)
        out = str(folder.path.absolute() / "workers")
        return ray_workers(launch, [*arguments, "--out", out], number, {STORAGE_VARIABLE: target}, needs_gpu=needs_gpu)
    threads = max((target.threads or 1 for target in space.objectives.targets), default=1)
    return LocalWorkers(
        [sys.executable, "-P", "-m", "archdsl", *arguments, "--out", str(folder.path.absolute())],
        number,
        environment={**os.environ, STORAGE_VARIABLE: target, "PYTHONPATH": os.pathsep.join(import_path())},
        logs=folder.path / "workers",
        threads=threads,
    )
