"""TensorRT for RTX: the runtime `tensorrt` with NVIDIA's other compiler, which builds engines without a GPU as well.

What is built for a GPU by its name (`Target.gpu`) is read (`archdsl.latency.engine`), not run. Without one the engine
is for the GPU of this machine and runs as on `tensorrt`: that part has not been run by us.
"""

from __future__ import annotations

from archdsl.backends.trt.library import RTX
from archdsl.failures import failed
from archdsl.runtimes.adapters.tensorrt_engine import TensorRt, as_measured


class TensorRtRtx(TensorRt):
    """Kernels are not timed when an engine is built, so a build takes seconds."""

    name = "tensorrt-rtx"
    product = RTX
    loading_s = 300.0
    ahead_of_time = True
    ahead_precisions = ("int8-weights", "fp8")

    def version(self) -> str:
        """Errors: MeasureError (`runtime-missing`) when the library is missing, or the GPU, on which engines run"""
        from archdsl.backends.trt.library import gpu_name, load_tensorrt

        with as_measured():
            found = str(load_tensorrt(RTX).__version__)
        if gpu_name() is None:
            message = f"TensorRT for RTX {found} builds engines here, but there is no NVIDIA GPU to run them on"
            hint = "name the GPU to build for: `archdsl profile … --on tensorrt-rtx:sm86`"
            raise failed("runtime-missing", message, where=self.name, hint=hint)
        self.device_name("cuda")
        return found


RUNTIME = TensorRtRtx()
