"""Every runtime of the table, on each device and in each precision it knows: it answers as the network does, or it says
what is missing. What needs a GPU is exercised with stand-ins."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import fake_tensorrt
import numpy as np
import pytest
import torch
from fake_tensorrt import FakeTensorRT

from archdsl.backends.precision import precision_named
from archdsl.cli.main import run
from archdsl.errors import BackendError, MeasureError, SpecError
from archdsl.failures import reason_of
from archdsl.language.architecture.load import loads
from archdsl.latency import Worker, measure
from archdsl.latency.measurement import close_workers, default_deadline_s, shared_worker
from archdsl.runtimes.artefact import Reference
from archdsl.runtimes.export import artefact_of, network_for
from archdsl.runtimes.reference import reference_of
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import Target, resolve

TINY = loads(
    """
name: tiny
input: {size: 16, channels: 3}
stem: {type: patch, patch: 4, dim: 16}
stages:
  - {block: swin, depth: 2, heads: 2, window: 2, shift: true}
head: {type: classifier, classes: 5}
""",
    "tiny.yaml",
)
BATCH = 2

CHOICES = [
    (name, device, precision)
    for name in RUNTIMES
    for device, precisions in runtime(name).precisions.items()
    for precision in precisions
]
PACKAGES = {"onnxruntime": "onnxruntime", "onnxruntime-tensorrt": "onnxruntime", "openvino": "openvino"}
MEASURED = [choice for choice in CHOICES if not runtime(choice[0]).analytic]


def lacks(name, device, precision):
    """What this machine lacks for that, or nothing."""
    if name == "openvino" and precision == "bf16":
        from openvino import Core

        return "" if "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "arithmetic in bf16"
    if device == "cuda" and name.startswith("onnxruntime"):
        from onnxruntime import get_available_providers

        provider = "CUDAExecutionProvider" if name == "onnxruntime" else "TensorrtExecutionProvider"
        return "" if provider in get_available_providers() else "a provider"
    if name == "tensorrt" and find_spec("tensorrt") is None:
        return "a library"
    if name == "torch-compile" and shutil.which(os.environ.get("CXX", "g++")) is None:
        return "a compiler"
    return "a GPU" if device == "cuda" and not torch.cuda.is_available() else ""


def target_of(name, device, precision, batch=BATCH):
    return Target(name, device=device, precision=precision, batch=batch)


# ---- the contract


def test_the_table_names_each_runtime_as_it_calls_itself():
    assert [runtime(name).name for name in RUNTIMES] == list(RUNTIMES)


def test_reading_the_table_imports_no_library():
    program = (
        "import sys; from archdsl.runtimes.registry import RUNTIMES, runtime; [runtime(name) for name in RUNTIMES]; "
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_target_without_a_device_is_on_the_runtimes_first(name):
    assert Target.parse(name).device == runtime(name).devices[0]


@pytest.mark.parametrize(("name", "device", "precision"), MEASURED, ids=["-".join(choice) for choice in MEASURED])
def test_it_answers_as_the_network_does_or_says_what_is_missing(name, device, precision, tmp_path):
    pytest.importorskip(PACKAGES.get(name, "torch"), reason="the runtime is not installed")
    target = target_of(name, device, precision)
    artefact = artefact_of(TINY, target, tmp_path)
    if lacks(name, device, precision):
        with pytest.raises(MeasureError) as caught:
            measure(artefact, target)
        assert reason_of(caught.value) in ("runtime-missing", "wrong-artefact")
        assert caught.value.problems[0].hint
        return
    resolve(target)
    loaded = runtime(name).load(artefact, target.config)
    expected = reference_of(TINY, precision)
    for _ in range(2):
        (answer,) = loaded.outputs(expected.inputs)
        worst = np.abs(answer - expected.outputs).max() / np.abs(expected.outputs).max()
        assert answer.dtype == np.float32
        assert worst <= expected.tolerance
        assert precision == "fp32" or worst > 1e-5, "this is fp32 arithmetic on fp32 numbers"
    timed = loaded.timed(expected.inputs)
    timed()
    timed()


@pytest.mark.parametrize(("name", "device", "precision"), CHOICES, ids=["-".join(choice) for choice in CHOICES])
def test_the_artefact_names_its_form_and_the_precision_of_its_graph(name, device, precision, tmp_path):
    artefact = artefact_of(TINY, target_of(name, device, precision), tmp_path)
    of_the_graph = precision if runtime(name).typed else "fp32"
    assert artefact.build == f"deploy {of_the_graph}"
    assert artefact.form == "deploy"
    if artefact.kind == "onnx":
        import onnx

        weights = onnx.load(artefact.path).graph.initializer
        held = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in weights if len(weight.dims) > 1}
        assert {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16"}[of_the_graph] in held


def test_artefacts_of_many_targets_share_a_folder(tmp_path):
    artefacts = [artefact_of(TINY, target_of(*choice), tmp_path) for choice in CHOICES]
    files = {choice: one.path for choice, one in zip(CHOICES, artefacts, strict=True) if one.path is not None}
    files.pop(("openvino", "cpu", "bf16"))  # the file is fp32, and the same
    assert len(set(files.values())) == len(files)


@pytest.mark.parametrize("form", ["drawn", "train"])
def test_only_the_deploy_form_has_precisions(form, tmp_path):
    with pytest.raises(BackendError, match=f"the form {form} is fp32"):
        artefact_of(TINY, Target("onnxruntime", precision="fp16"), tmp_path, form=form)
    assert artefact_of(TINY, Target("onnxruntime"), tmp_path, form=form).form == form


def test_a_file_for_openvino_stays_fp32(tmp_path):
    """It takes precisions as a hint, and refuses where the processor does not follow."""
    build = artefact_of(TINY, Target("openvino", precision="bf16"), tmp_path).build
    assert build == artefact_of(TINY, Target("openvino"), tmp_path).build == "deploy fp32"


def test_a_worker_for_a_gpu_may_reserve_any_address_space():
    try:
        on_gpu, on_cpu = shared_worker(Target("torch", device="cuda")), shared_worker(Target("torch"))
        assert on_gpu.memory_bytes == 0
        assert on_cpu.memory_bytes > 0
    finally:
        close_workers()


# ---- the command


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.to_yaml())
    return str(path)


def test_bench_walks_precisions(tiny_file, capsys):
    command = ["bench", tiny_file, "--on", "onnxruntime", "--precision", "fp32,fp16", "--seconds", "0.1"]
    assert run([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["target"]["precision"] for row in rows] == ["fp32", "fp16"]


def test_bench_does_not_count_a_network_that_answers_something_else(tiny_file, capsys, monkeypatch):
    expected = reference_of(TINY)
    wrong = Reference(expected.inputs, 2 * expected.outputs)
    monkeypatch.setattr("archdsl.runtimes.reference.reference_of", lambda spec: wrong)
    assert run(["bench", tiny_file, "--seconds", "0.1"]) == 2
    assert "differs by" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_bench_tells_what_is_missing(tiny_file, capsys):
    assert run(["bench", tiny_file, "--on", "torch", "--device", "cuda"]) == 2
    told = capsys.readouterr()
    assert "runtime-missing" in told.out + told.err
    assert "timing on" not in told.err
    run(["bench", tiny_file, "--on", "null,torch-cudagraph"])
    told = capsys.readouterr()
    assert "torch-cudagraph" in told.out + told.err and "runtime-missing" in told.out + told.err


# ---- what a target's problems say


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"runtime": "onnxruntime", "precision": "bf16"}, "knows the precisions fp32, fp16 on cpu, got 'bf16'"),
        ({"runtime": "torch-cudagraph", "device": "cpu"}, "knows the devices cuda, got 'cpu'"),
        ({"runtime": "openvino", "precision": "fp16"}, "knows the precisions fp32, bf16 on cpu, got 'fp16'"),
        ({"runtime": "torch", "device": "gpu"}, "knows the devices cpu, cuda, got 'gpu'"),
        ({"runtime": "torch", "device": ["cuda"]}, "knows the devices cpu, cuda, got"),
    ],
    ids=str,
)
def test_a_device_or_precision_that_is_not_known_is_answered_with_those_that_are(fields, words):
    with pytest.raises(SpecError) as caught:
        Target.parse(fields)
    assert words in str(caught.value)


# ---- ONNX Runtime


def test_onnx_runtime_on_a_cpu_still_has_no_bf16(tmp_path):
    """When this fails, bf16 can be added to what the runtime knows."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from archdsl.compiler import export_onnx

    export_onnx(TINY, tmp_path / "bf16.onnx", precision="bf16")
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(tmp_path / "bf16.onnx", providers=["CPUExecutionProvider"])


def test_a_session_that_fell_back_to_the_cpu_is_refused():
    from archdsl.runtimes.adapters.onnx_runtime import check_providers

    check_providers("CUDAExecutionProvider", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(MeasureError, match="would have used CPUExecutionProvider") as caught:
        check_providers("CUDAExecutionProvider", ["CPUExecutionProvider"])
    assert reason_of(caught.value) == "runtime-missing"


def test_a_library_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MeasureError, match="`import onnxruntime` fails") as caught:
        resolve(Target("onnxruntime", device="cuda"))
    assert reason_of(caught.value) == "runtime-missing"


def test_no_provider_for_gpus_is_told_with_the_command_that_brings_it():
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this library has one")
    with pytest.raises(MeasureError, match="no CUDAExecutionProvider") as caught:
        resolve(Target("onnxruntime", device="cuda"))
    assert "onnxruntime-gpu" in caught.value.problems[0].hint


def test_a_session_with_bound_memory_runs_on_the_given_input(tmp_path, monkeypatch):
    """The way of GPUs, on the memory of the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from archdsl.runtimes.adapters.onnx_runtime import BoundSession

    bindings = []
    make = onnxruntime.InferenceSession.io_binding
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "io_binding", lambda self: bindings.append(make(self)) or bindings[-1]
    )
    expected = reference_of(TINY)
    session = BoundSession(str(artefact_of(TINY, Target(batch=BATCH), tmp_path).path), 1)
    session.timed(expected.inputs)()
    (found,) = bindings[0].copy_outputs_to_cpu()
    assert np.abs(found - expected.outputs).max() <= expected.tolerance * np.abs(expected.outputs).max()


def test_casts_that_the_runtime_puts_in_are_its_own():
    pytest.importorskip("onnxruntime")
    from archdsl.runtimes.adapters.onnx_profile import CAST, _ops

    kernels = [
        {"name": f"{CAST}stem.proj_kernel_time", "args": {"op_name": "Cast"}},
        {"name": "stem.norm.f16_kernel_time", "args": {"op_name": "Cast"}},
        {"name": f"{CAST}stem.proj_nchwc_kernel_time", "args": {"op_name": "Conv"}},
    ]
    ops = list(_ops(kernels, {"stem.norm.f16": ("stem.norm.f16",)}))
    assert [op.inserted for op in ops] == [True, False, False]
    assert [op.name for op in ops] == ["stem.proj", "stem.norm.f16", "stem.proj_nchwc"]


# ---- PyTorch


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["torch", "torch-compile", "torch-cudagraph"])
def test_a_gpu_that_torch_does_not_see_is_told(name, tmp_path):
    target = Target(name, device="cuda")
    for take in (
        lambda: resolve(target),
        lambda: runtime(name).load(artefact_of(TINY, target, tmp_path), target.config),
    ):
        with pytest.raises(MeasureError, match=r"built without CUDA|sees no GPU") as caught:
            take()
        assert reason_of(caught.value) == "runtime-missing"


def test_a_missing_compiler_is_told_before_a_worker_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    target = Target("torch-compile")
    with Worker() as worker:
        with pytest.raises(MeasureError, match="there is no no-such-compiler") as caught:
            measure(artefact_of(TINY, target, tmp_path), target, worker=worker)
        assert worker.pid is None
    assert reason_of(caught.value) == "runtime-missing"
    assert "CXX" in caught.value.problems[0].hint


def test_compiling_is_a_part_of_loading_alone(tmp_path):
    counts = torch._dynamo.utils.counters["stats"]
    target = Target("torch-compile", batch=BATCH)
    before = counts["unique_graphs"]
    loaded = runtime("torch-compile").load(artefact_of(TINY, target, tmp_path), target.config)
    assert counts["unique_graphs"] == before + 1
    x_BCHW = np.ones((BATCH, 3, 16, 16), np.float32)
    loaded.outputs(x_BCHW)
    loaded.timed(x_BCHW)()
    assert counts["unique_graphs"] == before + 1


def test_compiling_fits_into_the_workers_time_and_is_not_in_the_latency(tmp_path):
    target = Target("torch-compile")
    with Worker() as worker:
        expected = reference_of(TINY)
        timing = measure(artefact_of(TINY, target, tmp_path), target, reference=expected, worker=worker, budget_s=0.1)
    assert 0 < timing.p95_ms < 500
    assert default_deadline_s(runtime(target.runtime), 2.0) > 5 * default_deadline_s(runtime("onnxruntime"), 2.0)


def test_a_precision_goes_through_the_gate_in_the_worker(tmp_path):
    target = Target("torch", precision="bf16", batch=BATCH)
    expected = reference_of(TINY, "bf16")
    with Worker() as worker:
        artefact = artefact_of(TINY, target, tmp_path)
        assert measure(artefact, target, reference=expected, worker=worker, budget_s=0.1).precision == "bf16"
        strict = Reference(expected.inputs, expected.outputs, precision_named("fp32").tolerance)
        with pytest.raises(MeasureError, match="differs by") as caught:
            measure(artefact, target, reference=strict, worker=worker)
    assert reason_of(caught.value) == "numeric-gate"


class FakeCuda:
    """What is called of `torch.cuda` to record and replay, on a CPU; `did` is the order of what happened."""

    def __init__(self, monkeypatch):
        self.did, self.recording = [], None
        cuda = self

        class Stream:
            def wait_stream(self, other):
                cuda.did.append("wait for a stream")

        class Event:
            def record(self):
                cuda.did.append("record an event")

            def synchronize(self):
                cuda.did.append("wait for the event")

        class CUDAGraph:
            def replay(self):
                cuda.did.append("replay")
                self.work()

        @contextlib.contextmanager
        def graph(one):
            self.recording = one
            yield
            self.recording = None

        fakes = {"Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "graph": graph}
        fakes |= {"current_stream": Stream, "stream": contextlib.nullcontext}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)


def test_on_a_gpu_a_run_is_over_when_an_event_behind_it_is_reached(monkeypatch):
    from archdsl.runtimes.adapters.torch_network import finished_on

    cuda = FakeCuda(monkeypatch)
    assert finished_on(torch.device("cuda"), lambda: cuda.did.append("call") or "y")() == "y"
    assert cuda.did == ["call", "record an event", "wait for the event"]
    call = object()
    assert finished_on(torch.device("cpu"), call) is call


def test_a_cuda_graph_is_recorded_after_warm_up_and_replayed_on_the_given_input(monkeypatch):
    from archdsl.runtimes.adapters.torch_cudagraph import WARM_UP, Replayed

    cuda, calls = FakeCuda(monkeypatch), []

    class Network:
        device = torch.device("cpu")  # but see `finished_on` below

        def call_on(self, x):
            y = torch.zeros(len(x), 1)

            def call():
                calls.append(cuda.recording is not None)
                if cuda.recording is not None:
                    cuda.recording.work = lambda: y.copy_(2 * x.sum(dim=1, keepdim=True))
                return y

            return call

    loaded = Replayed(Network(), (2, 3))
    assert calls == [False] * WARM_UP + [True]
    loaded.device = torch.device("cuda")
    for factor in (1, 5):
        x = factor * np.arange(6, dtype=np.float32).reshape(2, 3)
        (answer,) = loaded.outputs(x)
        assert (answer == 2 * x.sum(axis=1, keepdims=True)).all()
    assert cuda.did[-3:] == ["replay", "record an event", "wait for the event"]
    assert len(calls) == WARM_UP + 1


# ---- TensorRT


class HostBuffers:
    """The GPU's memory on the host; recorded work is work done again."""

    def __init__(self):
        self.stream, self.arrays, self.did = 7, {}, []

    def allocate(self, shape, dtype):
        assert dtype == "FLOAT"
        self.arrays[len(self.arrays) + 1] = np.zeros(shape, np.float32)
        return len(self.arrays)

    def wait(self):
        self.did.append("wait")

    def put(self, address, x):
        self.arrays[address][...] = x

    def get(self, address):
        return self.arrays[address].copy()

    def recorded(self, queue):
        self.did.append("record")
        queue()
        return lambda: self.did.append("replay")


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def trt(request):
    return FakeTensorRT(request.param)


def test_the_layers_of_an_engine_are_told_by_the_nodes_they_compute(trt, tmp_path):
    from archdsl.latency.profile.shares import Attribution, rows_of
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun

    target = Target("tensorrt", device="cuda", batch=BATCH)
    artefact = artefact_of(TINY, target, tmp_path)
    loaded = EngineRun(artefact.path, BATCH, trt, HostBuffers())
    profiler = loaded.profiler(np.ones((BATCH, 3, 16, 16), np.float32))
    for _ in range(4):
        profiler.run()
    found = profiler.finish([1, 2, 3])
    assert found.runs == 3 and len(found.ops) == len(loaded.layers) > 0
    rows = list(rows_of(found, Attribution(network_for(TINY, target).graph)))
    assert {"linear", "attention"} <= {row.kind for row in rows}
    assert sum(row.ms for row in rows) == pytest.approx(0.01 * BATCH * len(loaded.layers))


def test_a_layer_of_several_nodes_is_told_by_the_first_and_one_that_is_not_known_by_itself(trt, tmp_path):
    from archdsl.backends.trt.report import Layer
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun
    from archdsl.runtimes.adapters.tensorrt_profile import EngineProfiler

    artefact = artefact_of(TINY, Target("tensorrt", device="cuda", batch=BATCH), tmp_path)
    loaded = EngineRun(artefact.path, BATCH, trt, HostBuffers()).loaded
    fused = (
        Layer("stem.proj", "kgen", "region", ("stages.0.norm", "stages.0.fc")),
        Layer("stem.proj.reorder", "", "cast"),
    )
    profiler = EngineProfiler(loaded, fused, np.ones((BATCH, 3, 16, 16), np.float32), HostBuffers())
    profiler.run()
    first, second, *others = sorted(profiler.finish([0]).ops, key=lambda op: (op.op_type == "unknown", op.op_type))
    assert (second.name, second.also, second.op_type, second.inserted) == (
        "stages.0.norm",
        ("stages.0.fc",),
        "region",
        False,
    )
    assert (first.name, first.op_type, first.inserted) == ("stem.proj.reorder", "cast", True)
    assert {op.op_type for op in others} == {"unknown"} and not any(op.inserted for op in others)


def test_an_engine_is_built_warmed_up_recorded_and_replayed(trt, tmp_path):
    from archdsl.runtimes.adapters.tensorrt_engine import WARM_UP, EngineRun

    buffers = HostBuffers()
    artefact = artefact_of(TINY, Target("tensorrt", device="cuda", batch=BATCH), tmp_path)
    loaded = EngineRun(artefact.path, BATCH, trt, buffers)
    assert buffers.did == ["wait"] + ["wait"] * WARM_UP + ["record"]  # the first for the optimisation profile
    x_BCHW = np.random.default_rng(0).standard_normal((BATCH, 3, 16, 16), dtype=np.float32)
    (answer,) = loaded.outputs(x_BCHW)
    assert answer.shape == (BATCH, 5)
    assert (buffers.arrays[loaded.input] == x_BCHW).all()
    assert buffers.did[-1] == "replay"
    loaded.timed(x_BCHW)()
    assert buffers.did[-2:] == ["replay", "replay"]


def test_copies_to_and_from_an_engine_go_through_pinned_memory_and_are_waited_for():
    from archdsl.runtimes.adapters.tensorrt_engine import CudaBuffers

    did = []

    class Tensor:
        """An array that knows where it is, and notes what is done to it."""

        def __init__(self, array, where):
            self.array, self.where, self.shape, self.dtype = array, where, array.shape, array.dtype

        def pin_memory(self):
            return Tensor(self.array, "pinned")

        def copy_(self, other, non_blocking=False):
            did.append(f"{other.where} to {self.where}{', not waited for' if non_blocking else ''}")
            self.array[...] = other.array
            return self

        def data_ptr(self):
            return 4096

        def numpy(self):
            return self.array

    class FakeTorch:
        cuda = SimpleNamespace(current_stream=lambda: SimpleNamespace(synchronize=lambda: did.append("wait")))

        @staticmethod
        def tensor(x):
            return Tensor(x.copy(), "pageable")

        @staticmethod
        def empty(shape, dtype, pin_memory):
            return Tensor(np.empty(shape, dtype), "pinned" if pin_memory else "pageable")

    buffers = object.__new__(CudaBuffers)
    buffers._torch, buffers._kept = FakeTorch, [Tensor(np.zeros((2, 3), np.float32), "gpu")]
    x_BX = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffers.put(4096, x_BX)
    assert did == ["pinned to gpu, not waited for", "wait"]
    found = buffers.get(4096)
    assert did[2:] == ["gpu to pinned, not waited for", "wait"]
    assert (found == x_BX).all()


def test_an_engine_that_does_not_run_says_what_tensorrt_said(trt, tmp_path, monkeypatch):
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun

    class NoAddresses(HostBuffers):
        def allocate(self, shape, dtype):
            return super().allocate(shape, dtype) - 1  # 0: what no buffer has

    path = artefact_of(TINY, Target("tensorrt", device="cuda"), tmp_path).path
    with pytest.raises(BackendError, match="took a buffer"):
        EngineRun(path, 1, trt, NoAddresses())


def test_an_engine_that_refuses_a_run_is_not_timed(trt, tmp_path, monkeypatch):
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "execute_async_v3", lambda self, stream: False)
    path = artefact_of(TINY, Target("tensorrt", device="cuda"), tmp_path).path
    with pytest.raises(BackendError, match="while it ran the engine"):
        EngineRun(path, 1, trt, HostBuffers())


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        ({"gpu": False}, "runtime-missing"),
        ({"build_fails": True, "build_messages": [("ERROR", "CUDA error: out of memory")]}, "out-of-memory"),
        ({"build_fails": True}, "exception"),
    ],
    ids=str,
)
def test_what_stops_tensorrt_is_a_failed_measurement_with_its_reason(fake, reason, tmp_path):
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun, as_measured

    path = artefact_of(TINY, Target("tensorrt", device="cuda"), tmp_path).path
    with pytest.raises(MeasureError, match="TensorRT") as caught, as_measured():
        EngineRun(path, 1, FakeTensorRT(**fake), HostBuffers())
    assert reason_of(caught.value) == reason


def test_tensorrt_that_is_not_installed_is_told_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MeasureError, match="TensorRT is not installed") as caught:
        runtime("tensorrt").version()
    assert reason_of(caught.value) == "runtime-missing"
    assert caught.value.problems[0].hint == "pip install 'archdsl[tensorrt]'"
