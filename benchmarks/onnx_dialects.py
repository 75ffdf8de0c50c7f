"""Which dialect of ONNX is fastest for whole networks; `backends.onnx.dialects` has what wins here.

    python benchmarks/onnx_dialects.py [--spec swin_t] [--timm swin_tiny_patch4_window7_224] [--batch 1]
                                            [--runtime openvino-bf16] [--rounds 30] [--threads 1]

The networks hold the same weights, in their deploy form, and must give the same logits. They take turns; each row says
how many times as fast as the first (timm's export, where --timm names one) by the median of paired ratios, with
quartiles. With one thread CPU time is compared, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from paired import compare

import archdsl
from archdsl import compiler
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.onnx.dialects import Dialect

Run = Callable[[], Any]
DRAW = np.random.default_rng(0)


def on_onnxruntime(path: Path, x: Any, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)[0]


def on_openvino(path: Path, x: Any, threads: int, precision: str = "f32") -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    how = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", how | {"ENABLE_CPU_PINNING": False}).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def run() -> Any:
        request.infer()
        return request.get_output_tensor().data.copy()

    return run


RUNTIMES: Mapping[str, Callable[[Path, Any, int], Run]] = {
    "onnxruntime": on_onnxruntime,
    "openvino": on_openvino,
    "openvino-bf16": lambda path, x, threads: on_openvino(path, x, threads, "bf16"),
}
TOLERANCE = {"openvino-bf16": 0.05}
"""Of the largest logit; else 1e-4."""


def files(spec: str, timm: str | None, batch: int, folder: Path) -> dict[str, Path]:
    """Each form's model by name; timm's first, where there is one."""
    paths: dict[str, Path] = {}
    weights = None
    if timm:
        import torch
        from timm_models import timm_model

        torch.manual_seed(0)
        model = timm_model(timm)
        side = archdsl.load(spec).input.size
        images = torch.randn(batch, 3, *((side, side) if isinstance(side, int) else side))
        paths["timm's export"] = folder / "timm.onnx"
        torch.onnx.export(
            model, (images,), str(paths["timm's export"]), dynamo=True, external_data=False, verbose=False
        )
        weights = archdsl.import_weights(archdsl.load(spec), model.state_dict(), "timm")
    network = compiler.deploy(spec, weights)
    choices = itertools.product(*(get_args(kind) for kind in get_type_hints(Dialect).values()))
    for dialect in itertools.starmap(Dialect, choices):
        name = " ".join(astuple(dialect))
        paths[name] = path = folder / f"{name}.onnx"
        onnx_model.save(network.graph, path, network.weights, batch=batch, dialect=dialect)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="swin_t")
    parser.add_argument("--timm", help="timm's name of the same network")
    parser.add_argument("--runtime", choices=list(RUNTIMES))
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    clock = time.process_time if given.threads == 1 else time.perf_counter
    for batch in given.batch or (1, 8):
        with tempfile.TemporaryDirectory() as folder:
            paths = files(given.spec, given.timm, batch, Path(folder))
            shape = compiler.compile(given.spec).inputs[0].type.shape
            x = DRAW.standard_normal((batch, *shape), dtype=np.float32)
            for runtime in [given.runtime] if given.runtime else RUNTIMES:
                runs = {name: RUNTIMES[runtime](path, x, given.threads) for name, path in paths.items()}
                first, *others = (run() for run in runs.values())
                limit = TOLERANCE.get(runtime, 1e-4) * np.abs(first).max()
                assert all(np.abs(other - first).max() <= limit for other in others), "the dialects differ"
                for name, taken in compare(runs, rounds=given.rounds, clock=clock).items():
                    low, high = taken.spread
                    faster = f"x {1 / taken.ratio:.3f} [{1 / high:.3f}, {1 / low:.3f}]"
                    print(f"{runtime:14} batch {batch}  {name:28} {1e3 * taken.median:8.2f} ms  {faster}", flush=True)
                del runs


if __name__ == "__main__":
    main()
