"""The estimated latency of a spec: NVIDIA's compiler builds its engine for a GPU that need not be here; nothing is run.

An estimate is an objective of its own, `latency_estimate`, and is never mixed with a measured `latency`. Engines are
compiled in a child process: one that the compiler dies of costs one trial.
"""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from archdsl.backends.trt.gpus import Gpu, find_gpu
from archdsl.backends.trt.library import RTX, load_tensorrt
from archdsl.errors import BackendError
from archdsl.failures import failed
from archdsl.language.architecture.model import Spec
from archdsl.latency.engine.roofline import METHOD
from archdsl.processes.child import ChildError
from archdsl.processes.warm import WarmProcess
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import Target

DEADLINE_S = 900.0
"""For one network. The largest take seconds, on a busy machine a minute."""
START_S = 120.0


class EngineEstimator:
    """Estimates networks on the GPU of one target.

    Args:
        target: of a runtime that compiles ahead of time, with its `gpu`
        worker: the module of the process that compiles
    """

    def __init__(self, target: Target, *, worker: str = "archdsl.latency.engine.worker"):
        found = find_gpu(target.gpu or "")
        if found is None:
            raise ValueError(f"an estimate needs a GPU, got {target}")
        self.target = target
        self.gpu: Gpu = found
        self._process = WarmProcess(worker, os.environ.copy, name="the compiler's process", start_s=START_S)

    @cached_property
    def compiler(self) -> str:
        """Name and version. Raises: BackendError when it is not installed"""
        return f"{RTX.title} {load_tensorrt(RTX).__version__}"

    def __call__(self, spec: Spec) -> float:
        """Milliseconds for one batch, by a roofline that was not validated.

        Raises: BackendError when the compiler refuses the network; MeasureError (`crash`, `timeout`, …) when it dies
        """
        with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
            path = artefact_of(spec, self.target, Path(folder)).path
            job = {"path": str(path), "gpu": self.gpu.name, "batch": self.target.batch}
            try:
                reply = self._process.ask(job, deadline_s=DEADLINE_S)
            except ChildError as error:
                raise failed(error.reason, error.message, where=self.target.runtime, hint=error.hint) from error
        if reply["kind"] == "failure":
            raise BackendError.at("tensorrt", spec.name, reply["rule"], reply["message"], reply["hint"])
        return float(reply["estimate_ms"])

    def identity(self) -> dict[str, Any]:
        """What must be equal for estimates to be compared.

        Raises: BackendError when the compiler is not installed, or the figures of the GPU are not known
        """
        if self.gpu.figures is None:
            message = f"there are no figures of a GPU with {self.target.gpu}, so its latencies cannot be estimated"
            raise BackendError.at(
                "gpu", str(self.target.gpu), "wrong-value", message, "name another GPU: rtx3080, l4, …"
            )
        return {**self.target.as_json(), "gpu": self.gpu.name, "compiler": self.compiler, "method": METHOD}

    def close(self) -> None:
        """End the process that compiles."""
        self._process.close()

    def __str__(self) -> str:
        where = self.gpu.title if self.gpu.name == self.gpu.title else f"{self.gpu.title} ({self.gpu.capability})"
        return (
            f"estimates for {where}, not measured and not validated: a roofline over the kernels that {self.compiler} "
            f"made, {self.target.precision}, batch {self.target.batch}; nothing was run"
        )
