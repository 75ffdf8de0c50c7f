"""Our deployed networks against timm's export of the same networks with the same weights, on every runtime here.

    OMP_WAIT_POLICY=passive python benchmarks/deploy.py [--on onnxruntime,openvino-fp32,openvino-bf16,torch,compile]
                                                        [--batch 1,8] [--threads 1] [--rounds 25]

ONNX Runtime and OpenVINO get timm's network as `torch.onnx.export(dynamo=True)` writes it (static shapes, its optimiser
on) and ours as `archdsl.export_onnx` does; `torch` is eager mode, `compile` is torch.compile, both in inference mode.
The networks take turns, in a new order each round; a ratio is the median over rounds of timm's time / ours, with the
99 % interval of that median. Before any time counts, outputs are compared.

On a machine with an NVIDIA GPU, `--on cuda` times Swin-T/B, Swin-Free-T/B, BR and DR12 in fp32 and fp16, eager,
compiled and as a CUDA graph, at batch 1 and 32, by CUDA events. `--on cuda --rehearse` runs the same code on the CPU
with small networks, to see that it works; its times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from timm_models import timm_model

import archdsl
from archdsl.backends.parity import parity_of
from archdsl.language.architecture.lower import lower
from archdsl.latency.statistics import paired_ratio
from archdsl.runtimes.placeholder_weights import placeholder_weights

SWIN_T, SWIN_B = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"
Run = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """A network of ours and the timm model it is compared with (with its weights, where both are the same network)."""

    spec: str
    timm: str
    free: bool = False

    def reference(self, **fields: object) -> torch.nn.Module:
        """timm's model; a Swin-Free is timm's Swin with Swin-Free's windows and no shift."""
        if not self.free:
            return timm_model(self.timm, **fields)
        model = timm_model(self.timm, window_size=[7, 14, 14, 7], **fields)
        for stage in model.layers:
            for block in stage.blocks:
                block.shift_size, block.attn_mask = (0, 0), None
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="onnxruntime,openvino-fp32,openvino-bf16,torch,compile")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "onnxruntime", "openvino"))
    print(f"{versions}; {options.threads} thread(s), {options.rounds} rounds at batch 1\n")
    if options.on == "cuda":
        on_cuda(options.rounds, rehearse=options.rehearse)
        return
    print("| runtime | batch | network | ms | the first's time / this [99 %] |\n|---|---|---|---|---|")
    for runtime in options.on.split(","):
        for batch in map(int, options.batch.split(",")):
            rounds = max(7, options.rounds // batch)
            report(runtime, batch, race(swin_t_runs(runtime, batch, options.threads), rounds))
            if runtime == "openvino-bf16":
                report(runtime, batch, race(swin_b_runs(runtime, batch, options.threads), rounds))


# ---- what races


def swin_t_runs(runtime: str, batch: int, threads: int) -> dict[str, Run]:
    """timm's Swin-T, ours, and Swin-Free-T and its BR form."""
    reference = timm_model(SWIN_T)
    weights = archdsl.import_weights("swin_t", reference.state_dict(), "timm")
    images = torch.randn(batch, 3, 224, 224)
    runs = {
        "timm Swin-T": timm_run(runtime, reference, images, threads),
        "archdsl Swin-T": our_run(runtime, "swin_t", images, threads, weights),
    }
    agree(runs, "bf16" if runtime.endswith("bf16") else "fp32")
    for spec in ("swin_free_t", "swin_free_t_br"):
        runs[f"archdsl {spec}"] = our_run(runtime, spec, images, threads)
    return runs


def swin_b_runs(runtime: str, batch: int, threads: int) -> dict[str, Run]:
    """Our Swin-B and what Swin-Free makes of it."""
    images = torch.randn(batch, 3, 224, 224)
    specs = ("swin_b", "swin_free_b", "swin_free_b_br", "swin_free_b_br_dr12")
    return {f"archdsl {spec}": our_run(runtime, spec, images, threads) for spec in specs}


def our_run(runtime: str, spec: str, images: torch.Tensor, threads: int, weights: dict[str, Any] | None = None) -> Run:
    if weights is None:
        weights = placeholder_weights(lower(archdsl.load(spec)))
    if runtime in ("torch", "compile"):
        return torch_run(archdsl.build(spec, weights, deploy=True), images, compiled=runtime == "compile")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.onnx"
        archdsl.export_onnx(spec, path, weights, batch=len(images), runtime=runtime.partition("-")[0])
        return file_run(runtime, path, images, threads)


def timm_run(runtime: str, model: torch.nn.Module, images: torch.Tensor, threads: int) -> Run:
    if runtime in ("torch", "compile"):
        return torch_run(model, images, compiled=runtime == "compile")
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "theirs.onnx"
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False)
        return file_run(runtime, path, images, threads)


def torch_run(model: torch.nn.Module, images: torch.Tensor, *, compiled: bool) -> Run:
    called = torch.compile(model) if compiled else model

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return called(images)

    return run


def file_run(runtime: str, path: Path, images: torch.Tensor, threads: int) -> Run:
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: images.numpy()}
        return lambda: session.run(None, feed)[0]
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": {"openvino-fp32": "f32", "openvino-bf16": "bf16"}[runtime],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", hints).create_infer_request()
    request.set_input_tensor(openvino.Tensor(images.numpy(), shared_memory=True))

    def run() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return run


# ---- how they race


def agree(runs: dict[str, Run], precision: str) -> None:
    """The first two compute the same, within the precision's gate."""
    first, second = (np.array(run()).astype(np.float64) for run in list(runs.values())[:2])
    found = parity_of(second, first, precision)
    if not found.passed:
        raise SystemExit(f"the networks do not agree: {found}")


def race(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round; the order is drawn anew each round."""
    for run in runs.values():
        for _ in range(3):
            run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in random.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name]()
            taken[name].append(time.perf_counter() - start)
    return taken


def report(runtime: str, batch: int, taken: dict[str, list[float]]) -> None:
    """One row a network; speed-ups over the first."""
    first = next(iter(taken.values()))
    for name, seconds in taken.items():
        ratio = paired_ratio(first, seconds)
        shown = f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if seconds is not first else "1"
        print(f"| {runtime} | {batch} | {name} | {statistics.median(seconds) * 1e3:.2f} | {shown} |", flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch's exporter talks a lot."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


# ---- on a GPU

ON_CUDA = (
    Pair("swin_t", SWIN_T),
    Pair("swin_free_t", SWIN_T, free=True),
    Pair("swin_b", SWIN_B),
    Pair("swin_free_b", SWIN_B, free=True),
)
OURS_ALONE = ("swin_free_t_br", "swin_free_b_br", "swin_free_b_br_dr12")


def on_cuda(rounds: int, *, rehearse: bool) -> None:
    """fp32 and fp16; eager, compiled, CUDA graph; batch 1 and 32."""
    if not rehearse and not torch.cuda.is_available():
        raise SystemExit("no NVIDIA GPU that torch can use; --rehearse runs the same code on the CPU")
    device = torch.device("cpu" if rehearse else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{'rehearsal on the CPU' if rehearse else torch.cuda.get_device_name()}; TF32 off\n")
    print("| format | mode | batch | network | ms | timm's time / this [99 %] |\n|---|---|---|---|---|---|")
    depths = {"depths": (2, 2, 2, 2)} if rehearse else {}
    shallow = {"stages.2.depth": 2} if rehearse else {}
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        for batch in (1, 2) if rehearse else (1, 32):
            images = torch.randn(batch, 3, 224, 224, device=device)
            for mode in ("eager",) if rehearse else ("eager", "compiled", "CUDA graph"):
                for pair in ON_CUDA[:2] if rehearse else ON_CUDA:
                    spec = archdsl.load(pair.spec, set=shallow)
                    reference = pair.reference(**depths)
                    weights = archdsl.import_weights(spec, reference.state_dict(), "timm")
                    ours = archdsl.build(spec, weights, deploy=True, precision=precision)
                    runs = {
                        f"timm {pair.spec}": on_device(reference.to(device, dtype), images.to(dtype), mode),
                        f"archdsl {pair.spec}": on_device(ours.to(device), images, mode),
                    }
                    _agree_on_device(reference, ours, images, precision)
                    _cuda_rows(precision, mode, batch, race(runs, max(5, rounds // batch)))
                alone = {}
                for name in OURS_ALONE[:1] if rehearse else ("swin_b", *OURS_ALONE):
                    module = archdsl.build(archdsl.load(name, set=shallow), deploy=True, precision=precision)
                    alone[f"archdsl {name}"] = on_device(module.to(device), images, mode)
                _cuda_rows(precision, mode, batch, race(alone, max(5, rounds // batch)))


@torch.inference_mode()
def _agree_on_device(reference: torch.nn.Module, ours: torch.nn.Module, images: torch.Tensor, precision: str) -> None:
    theirs = reference(images.to(next(reference.parameters()).dtype))
    found = parity_of(ours(images).float().cpu().numpy(), theirs.float().cpu().numpy(), precision)
    if not found.passed:
        raise SystemExit(f"the networks do not agree: {found}")


def on_device(model: torch.nn.Module, images: torch.Tensor, mode: str) -> Run:
    """One forward pass, finished when it returns."""
    model = model.eval()
    called: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if mode == "compiled" else model
    wait = torch.cuda.synchronize if images.is_cuda else lambda: None
    with torch.inference_mode():
        if mode == "CUDA graph":
            for _ in range(3):
                called(images)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                called(images)
            return partial(_then, graph.replay, wait)

    def run() -> None:
        with torch.inference_mode():
            called(images)

    return partial(_then, run, wait)


def _then(run: Run, wait: Run) -> None:
    run()
    wait()


def _cuda_rows(precision: str, mode: str, batch: int, taken: dict[str, list[float]]) -> None:
    first = next(iter(taken.values()))
    for name, seconds in taken.items():
        ratio = paired_ratio(first, seconds)
        row = f"{statistics.median(seconds) * 1e3:.3f} | {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        print(f"| {precision} | {mode} | {batch} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
