"""The estimated latency of a spec: NVIDIA's compiler builds its engine for a GPU that need not be here; nothing is run.

An estimate is an objective of its own, `latency_estimate`, and is never mixed with a measured `latency`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from archdsl.backends.trt.gpus import Gpu, find_gpu
from archdsl.backends.trt.library import RTX, load_tensorrt
from archdsl.errors import BackendError
from archdsl.language.architecture.model import Spec
from archdsl.latency.engine.compile import compile_engine
from archdsl.latency.engine.roofline import METHOD
from archdsl.runtimes.target import Target


@dataclass(frozen=True)
class EngineEstimator:
    """Estimates networks on the GPU of one target. target: of a runtime that compiles ahead of time, with its `gpu`"""

    target: Target

    @cached_property
    def gpu(self) -> Gpu:
        """The GPU that is estimated for."""
        found = find_gpu(self.target.gpu or "")
        assert found is not None
        return found

    @cached_property
    def compiler(self) -> str:
        """Name and version. Raises: BackendError when it is not installed"""
        return f"{RTX.title} {load_tensorrt(RTX).__version__}"

    def __call__(self, spec: Spec) -> float:
        """Milliseconds for one batch, by a roofline that was not validated.

        Raises: BackendError when the compiler refuses the network, or the figures of the GPU are not known
        """
        target = self.target
        report = compile_engine(spec, target.gpu or "", target.precision, target.batch)
        if report.estimate_ms is None:
            message = f"the figures of {target.gpu} are not in the data file, so its latencies cannot be estimated"
            raise BackendError.at("gpu", str(target.gpu), "wrong-value", message, "name another GPU, such as rtx3080")
        return report.estimate_ms

    def identity(self) -> dict[str, Any]:
        """What must be equal for estimates to be compared. Raises: BackendError as `compiler`, and without figures"""
        if self.gpu.figures is None:
            message = f"there are no figures of a GPU with {self.target.gpu}, so its latencies cannot be estimated"
            raise BackendError.at(
                "gpu", str(self.target.gpu), "wrong-value", message, "name another GPU: rtx3080, l4, …"
            )
        return {**self.target.as_json(), "gpu": self.gpu.name, "compiler": self.compiler, "method": METHOD}

    def __str__(self) -> str:
        where = self.gpu.title if self.gpu.name == self.gpu.title else f"{self.gpu.title} ({self.gpu.capability})"
        return (
            f"estimates for {where}, not measured and not validated: a roofline over the kernels that {self.compiler} "
            f"made, {self.target.precision}, batch {self.target.batch}; nothing was run"
        )
