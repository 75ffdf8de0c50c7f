"""The worker: every fault is a failed measurement with its reason, in time, and the parent goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from archdsl.errors import ArchError, MeasureError
from archdsl.failures import REASONS, reason_of
from archdsl.latency import Worker, compare, measure
from archdsl.latency.measurement import close_workers, shared_worker
from archdsl.processes.frames import Decoder, FrameError, encode, pack_array, unpack_array
from archdsl.runtimes.artefact import Artefact, OutputShape, Reference
from archdsl.runtimes.protocol import library_version
from archdsl.runtimes.registry import RUNTIMES
from archdsl.runtimes.target import Target, resolve

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 10.0


@pytest.fixture(autouse=True)
def _faulty(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")


@pytest.fixture(scope="module")
def worker():
    with Worker() as one:
        yield one


def network(fault="none", **fields):
    return Artefact(
        **{"kind": "spec", "graph_hash": "h", "input_shape": (4, 2), "text": fault, "name": fault, **fields}
    )


def take(fault, worker, *, deadline_s=DEADLINE_S, **options):
    return measure(network(fault), Target("faulty"), worker=worker, budget_s=0.05, deadline_s=deadline_s, **options)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, limit_s=5.0):
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


FAULTS = [
    ("segfault", "crash", "SIGSEGV"),
    ("segfault while timing", "crash", "while timing"),
    ("abort", "crash", "SIGABRT"),
    ("kill", "crash", "SIGKILL"),
    ("os._exit", "exit", "exit code 7 while loading"),
    ("eat memory", "out-of-memory", "MemoryError"),
    ("library out of memory", "out-of-memory", "bad_alloc"),
    ("nan", "not-finite", "1 of 2 output values"),
    ("infinite", "not-finite", "NaN or infinite"),
    ("flood", "output-flood", "printed more than 32 MiB"),
    ("fail", "exception", "no kernel for this op"),
    ("write into the socket", "protocol", "not a frame"),
]


@pytest.mark.alone
@pytest.mark.parametrize(("fault", "reason", "words"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_a_fault_is_a_failed_measurement_with_its_reason(fault, reason, words):
    with Worker(memory_bytes=2**30) as worker:
        start = time.monotonic()
        with pytest.raises(MeasureError, match=words) as caught:
            take(fault, worker)
        assert reason_of(caught.value) == reason
        assert time.monotonic() - start < DEADLINE_S + 2
        assert str(take("none", worker))  # the next measurement is fine


@pytest.mark.alone
def test_a_hang_that_ignores_sigterm_ends_at_the_deadline():
    with Worker() as worker:
        take("none", worker)
        pid = worker.pid
        start = time.monotonic()
        with pytest.raises(MeasureError, match=r"no answer within 1 s while .* \(2 attempts\)") as caught:
            take("hang", worker, deadline_s=1.0)
        assert reason_of(caught.value) == "timeout"
        assert 2.0 <= time.monotonic() - start < 6.0  # each attempt has the deadline
        assert not is_running(pid)
        assert worker.pid is None


@pytest.mark.alone
def test_slow_runs_put_the_deadline_off_once_that_is_known(monkeypatch):
    """Two runs of 0.6 s to warm up, five that count: longer than the 2.6 s that there are by default."""
    monkeypatch.setattr("faulty_runtime.Faulty.loading_s", 2.5)
    with Worker() as worker:
        take("none", worker)
        taken = take("sleep: 0.6", worker, deadline_s=None)
        assert taken.median_ms > 590 and taken.sittings == 1
        monkeypatch.setattr("archdsl.latency.measurement.SLOWEST_S", 0.5)
        with pytest.raises(
            MeasureError, match=r"within 3\.2 s while timing sleep: 0\.6, which takes up to 3\.6\d* s"
        ) as caught:
            take("sleep: 0.6", worker, deadline_s=None)
        assert reason_of(caught.value) == "too-slow"
        assert "attempts" not in str(caught.value)  # a second would come out the same


@pytest.mark.alone
def test_a_deadline_that_somebody_gave_is_not_put_off():
    with Worker() as worker:
        take("none", worker)
        start = time.monotonic()
        with pytest.raises(MeasureError, match=r"no answer within 2 s .* which takes up to") as caught:
            take("sleep: 0.6", worker, deadline_s=2.0)
        assert time.monotonic() - start < 3.5
        assert "--deadline" in caught.value.problems[0].hint


@pytest.mark.alone
def test_what_the_worker_started_dies_with_it():
    with Worker() as worker:
        with pytest.raises(MeasureError, match="child") as caught:
            take("hang with a child", worker, deadline_s=3.0)
        child = int(caught.value.problems[0].hint.rsplit("child ", 1)[1])
        assert wait_until(lambda: not is_running(child))


def test_the_last_words_of_a_crash_are_told():
    with Worker() as worker, pytest.raises(MeasureError, match="SIGSEGV") as caught:
        take("segfault", worker)
    assert "Fatal Python error: Segmentation fault" in caught.value.problems[0].hint


def test_every_error_of_a_measurement_is_ours_and_has_a_place():
    with Worker() as worker, pytest.raises(ArchError, match=r"^faulty:1:1: ") as caught:
        take("fail", worker)
    assert caught.value.exit_code == 2
    assert reason_of(caught.value) in REASONS


def test_a_worker_that_prints_a_lot_is_fine(worker):
    assert take("speak", worker).median_ms > 0


def test_a_healthy_worker_is_used_again(worker):
    take("none", worker)
    pid = worker.pid
    with pytest.raises(MeasureError, match="no kernel"):
        take("fail", worker)  # an exception does not make it ill
    take("none", worker)
    assert worker.pid == pid is not None


def test_a_worker_is_replaced_after_its_last_job():
    with Worker(max_jobs=2) as worker:
        take("none", worker)
        first = worker.pid
        take("none", worker)
        take("none", worker)
        assert worker.pid not in (first, None)
        assert not is_running(first)


def test_a_worker_killed_while_idle_is_replaced(worker):
    take("none", worker)
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not is_running(pid))
    assert take("none", worker).runs >= 20
    assert worker.pid != pid


def test_the_worker_outlives_the_thread_that_started_it():
    with Worker() as worker:
        thread = threading.Thread(target=take, args=("none", worker))
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert is_running(worker.pid)


def test_ctrl_c_ends_the_worker_and_is_passed_on():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C from the start
    with Worker() as worker:
        take("none", worker)
        pid = worker.pid
        timer = threading.Timer(0.3, os.kill, args=(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            take("hang", worker, deadline_s=20)
        assert not is_running(pid)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["kill", "return"])
def test_the_worker_dies_with_its_parent(how):
    program = """
        import sys
        sys.path.insert(0, sys.argv[2])
        from archdsl.latency import Worker, measure
        from archdsl.runtimes.artefact import Artefact
        from archdsl.runtimes.registry import RUNTIMES
        from archdsl.runtimes.target import Target
        RUNTIMES["faulty"] = "faulty_runtime"
        worker = Worker()
        measure(Artefact("null", "h", (3,)), Target("null"), worker=worker)
        print(worker.pid, flush=True)
        if sys.argv[1] == "kill":  # while the worker is too busy to notice that nobody listens
            measure(Artefact("spec", "h", (3,), text="hang"), Target("faulty"), worker=worker)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), how, str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        if how == "kill":
            time.sleep(0.5)
            assert is_running(pid)
            parent.kill()
    assert wait_until(lambda: not is_running(pid), 3.0)


@pytest.mark.promise(35)
def test_the_environment_is_set_before_start_and_recorded(worker, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("GOMP_SPINCOUNT", "infinite")
    worker.close()
    timing = take("none", worker)
    assert timing.environment["OMP_NUM_THREADS"] == timing.environment["MKL_NUM_THREADS"] == "1"
    assert timing.environment["OMP_WAIT_POLICY"] == "passive"
    seen = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_WAIT_POLICY=passive" in seen
    assert not any(entry.startswith(b"GOMP_SPINCOUNT") for entry in seen)


def test_one_thread_is_pinned_to_one_core_and_that_is_recorded(worker):
    timing = take("none", worker)
    assert timing.cores is not None
    assert len(timing.cores) == 1
    assert os.sched_getaffinity(worker.pid) == set(timing.cores)


@pytest.mark.alone
@pytest.mark.promise(32)
def test_a_busy_neighbour_on_the_same_core_is_told():
    program = """
        import os, subprocess, sys
        sys.path.insert(0, sys.argv[1])
        from archdsl.latency import Worker, measure
        from archdsl.runtimes.artefact import Artefact
        from archdsl.runtimes.registry import RUNTIMES
        from archdsl.runtimes.target import Target
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # what follows has one core for both
        RUNTIMES["faulty"] = "faulty_runtime"
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            artefact = Artefact("spec", "h", (4, 2), text="none")
            print(measure(artefact, Target("faulty"), worker=Worker(), budget_s=0.5).model_dump_json())
        finally:
            busy.kill()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True, timeout=60)
    timing = json.loads(done.stdout)
    assert timing["contended"]
    assert "of its core" in timing["contention"] or "waited" in timing["contention"]


def reference(**changes):
    x = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32)
    return Reference(**{"inputs": x, "outputs": x.reshape(3, -1)[:, :2].copy(), **changes})


def test_the_expected_output_passes_the_gate_in_pieces_of_the_batch(worker):
    target = Target("faulty", batch=2)  # three examples: a full piece and one that is filled up
    assert measure(network(), target, worker=worker, budget_s=0.05, reference=reference()).batch == 2


def test_a_corrupt_weight_is_refused_though_the_network_is_fast(worker):
    with pytest.raises(MeasureError, match="differs by") as caught:
        take("corrupt weight", worker, reference=reference())
    assert reason_of(caught.value) == "numeric-gate"


def test_a_reference_of_another_shape_is_refused(worker):
    with pytest.raises(MeasureError, match="are expected") as caught:
        take("none", worker, reference=reference(outputs=np.zeros((3, 5), np.float32)))
    assert reason_of(caught.value) == "numeric-gate"


@pytest.mark.parametrize("shapes", [[(7,)], [(4, 2)], [(2,), (2,)]], ids=["size", "map", "two outputs"])
def test_outputs_of_other_shapes_than_promised_are_refused(worker, shapes):
    promised = tuple(OutputShape(f"y{i}", shape) for i, shape in enumerate(shapes))
    with pytest.raises(MeasureError, match=r"the output must be y0 \[1, ") as caught:
        measure(network(outputs=promised), Target("faulty"), worker=worker)
    assert reason_of(caught.value) == "wrong-artefact"


def test_an_artefact_that_the_runtime_cannot_run_starts_no_worker():
    with Worker() as worker:
        with pytest.raises(MeasureError, match="onnxruntime runs onnx, not spec") as caught:
            measure(network(), Target("onnxruntime"), worker=worker)
        assert reason_of(caught.value) == "wrong-artefact"
        assert worker.pid is None


@pytest.mark.alone
def test_networks_compared_in_turns_have_a_ratio_with_an_interval(worker):
    found = compare([network(), network("slow")], Target("faulty"), budget_s=0.3, worker=worker)
    assert found.ratios[0].verdict == "same"
    assert found.ratios[1].verdict == "slower"
    assert found.ratios[1].low < found.ratios[1].median < found.ratios[1].high
    assert [timing.runtime for timing in found.timings] == ["faulty", "faulty"]


def test_a_comparison_names_the_network_that_failed(worker):
    with pytest.raises(MeasureError, match="while loading segfault"):
        compare([network(), network("segfault")], Target("faulty"), worker=worker, deadline_s=10)


def test_a_computed_latency_is_the_documented_formula(worker):
    artefact = Artefact("null", "h", (3, 8, 8), macs=20_000_000, bytes_moved=10_000_000)
    timing = measure(artefact, Target("null", batch=3), worker=worker)
    assert timing.median_ms == pytest.approx(0.05 + 3 * (1 + 1))
    assert timing.ci_low_ms == timing.ci_high_ms == timing.median_ms
    assert not timing.contended


def test_shared_workers_are_one_for_each_runtime_and_thread_count():
    try:
        assert shared_worker(Target("null")) is shared_worker(Target("null", batch=8))
        assert shared_worker(Target("null")) is not shared_worker(Target("null", threads=2))
    finally:
        close_workers()


def test_a_message_survives_its_frame_in_any_pieces():
    message = {"kind": "result", "numbers": [1.5, 2], "text": "±"}
    frame, decoder = encode(message) * 2, Decoder()
    found = []
    for i in range(len(frame)):
        decoder.feed(frame[i : i + 1])
        if (one := decoder.next()) is not None:
            found.append(one)
    assert found == [message, message]


@pytest.mark.parametrize("position", [0, 3, 8, 20, 45, 50])
def test_a_changed_byte_is_noticed(position):
    frame = bytearray(encode({"kind": "result", "text": "abc"}))
    frame[position] ^= 0x55
    decoder = Decoder()
    decoder.feed(bytes(frame))
    with pytest.raises(FrameError):
        decoder.next()


def test_an_array_survives_json_and_a_short_one_is_refused():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = json.loads(json.dumps(pack_array(array)))
    assert (unpack_array(packed) == array).all()
    with pytest.raises(ValueError, match="do not fill"):
        unpack_array({**packed, "shape": [2, 4]})


def make_onnx(path, *, scale=1.0):
    """y = relu(x W), twice; [B, 3, 8, 8] -> [B, 10]."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    random = np.random.default_rng(0)
    first = random.standard_normal((192, 256)).astype(np.float32) / 14
    second = scale * random.standard_normal((256, 10)).astype(np.float32) / 16
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 10])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    save(model, path)
    x = random.standard_normal((2, 3, 8, 8)).astype(np.float32)
    return Reference(x, np.maximum(x.reshape(2, -1) @ first, 0) @ second)


def test_onnx_runtime_from_file_to_timing(worker, tmp_path):
    pytest.importorskip("onnxruntime")
    expected = make_onnx(tmp_path / "small.onnx")
    artefact = Artefact(
        "onnx", "h", (3, 8, 8), path=tmp_path / "small.onnx", outputs=(OutputShape("logits", (10,)),), name="small"
    )
    target = Target("onnxruntime", batch=2)
    timing = measure(artefact, target, reference=expected, worker=worker, budget_s=0.1)
    assert 0 < timing.median_ms < 50
    assert timing.runtime_version in resolve(target).fingerprint
    make_onnx(tmp_path / "small.onnx", scale=1.1)
    with pytest.raises(MeasureError, match=r"differs by 0\.1"):
        measure(artefact, target, reference=expected, worker=worker)


TINY_SPEC = """
name: tiny
input: {size: 16, channels: 3}
stem: {type: patch, patch: 4, dim: 16}
stages:
  - {block: vit, depth: 1, heads: 2}
head: {type: classifier, classes: 5}
"""


def test_torch_builds_the_network_in_the_worker_from_a_specs_text(worker):
    artefact = Artefact("spec", "h", (3, 16, 16), text=TINY_SPEC, outputs=(OutputShape("logits", (5,)),), name="tiny")
    timing = measure(artefact, Target("torch", batch=2), worker=worker, budget_s=0.1)
    assert 0 < timing.median_ms < 500
    assert timing.runtime == "torch"


def test_a_wrong_spec_in_an_artefact_is_a_failed_measurement(worker):
    artefact = Artefact("spec", "h", (3, 16, 16), text=TINY_SPEC.replace("heads", "haeds"), name="tiny")
    with pytest.raises(MeasureError, match="haeds") as caught:
        measure(artefact, Target("torch"), worker=worker)
    assert reason_of(caught.value) == "exception"


def test_a_library_that_is_not_installed_is_told_with_the_command_that_brings_it():
    with pytest.raises(MeasureError, match="the package no-such-package") as caught:
        library_version("torch", ("no-such-package",), bring="pip install torch")
    assert reason_of(caught.value) == "runtime-missing"
    assert caught.value.problems[0].hint == "pip install torch"


def test_weights_that_are_nan_are_refused_on_onnx_runtime(worker, tmp_path):
    pytest.importorskip("onnxruntime")
    make_onnx(tmp_path / "small.onnx", scale=float("nan"))
    artefact = Artefact("onnx", "h", (3, 8, 8), path=tmp_path / "small.onnx")
    with pytest.raises(MeasureError, match="NaN") as caught:
        measure(artefact, Target("onnxruntime"), worker=worker)
    assert reason_of(caught.value) == "not-finite"


@pytest.mark.promise(39)
def test_a_broken_onnx_file_is_a_failed_measurement(worker, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 not a model")
    artefact = Artefact("onnx", "h", (3, 8, 8), path=tmp_path / "broken.onnx")
    with pytest.raises(MeasureError, match="onnxruntime:1:1") as caught:
        measure(artefact, Target("onnxruntime"), worker=worker)
    assert reason_of(caught.value) == "exception"
