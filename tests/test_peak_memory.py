"""How much memory a network takes: more for a larger one, nothing for what the worker held already."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from test_worker import make_onnx

from archdsl.latency import Worker, compare, measure
from archdsl.runtimes.artefact import Artefact, OutputShape
from archdsl.runtimes.target import Target
from archdsl.telemetry import peak_memory as module
from archdsl.telemetry.peak_memory import memory_meter

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


ALONE = """
import numpy as np
from archdsl.telemetry.peak_memory import memory_meter
MIB = 2**20
def held(mebibytes):
    return np.ones(mebibytes * MIB, np.uint8)
before = held(200)
meter = memory_meter("cpu", torch_tensors=False)
del before
_ = held(60).sum()
print(meter())
meter = memory_meter("cpu", torch_tensors=False)
_ = held(60).sum()
print(meter())
"""


@linux
def test_the_peak_counts_what_was_freed_again_and_not_what_was_there_before():
    """In a process of its own: in one that ran many tests, the allocator keeps pages or not, as it likes."""
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    less, more = map(int, ended.stdout.split())
    assert less < 40 * MIB  # 60 more than 200 less
    assert 55 * MIB < more < 80 * MIB


@linux
def test_where_the_mark_may_not_be_set_back_a_new_height_is_told_and_a_lower_one_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CLEAR", tmp_path / "no" / "such" / "file")
    status = tmp_path / "status"
    monkeypatch.setattr(module, "_STATUS", status)

    def says(resident, mark):
        status.write_text(f"Name:\tx\nVmHWM:\t {mark} kB\nVmRSS:\t {resident} kB\n", encoding="ascii")

    says(100_000, 300_000)
    meter = memory_meter("cpu", torch_tensors=False)
    assert meter() is None
    says(90_000, 350_000)
    assert meter() == 250_000 * 1024


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CLEAR", tmp_path / "no" / "file")
    monkeypatch.setattr(module, "_STATUS", tmp_path / "none")
    assert memory_meter("cpu", torch_tensors=False)() is None


def test_on_a_gpu_that_is_not_there_there_is_no_peak():
    assert memory_meter("cuda", torch_tensors=False)() is None


def make_large(path, width):
    """x [B, 3, 8, 8] -> relu(x first) second, with `width` hidden units."""
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    first = random.standard_normal((192, width)).astype(np.float32) / 14
    second = random.standard_normal((width, 10)).astype(np.float32) / 16
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 10])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return Artefact(
        "onnx", f"h{width}", (3, 8, 8), path=path, outputs=(OutputShape("logits", (10,)),), name=f"{width} units"
    )


@linux
@pytest.mark.alone
def test_a_network_twice_as_large_needs_more_in_whatever_order_they_are_loaded(tmp_path):
    pytest.importorskip("onnxruntime")
    small, large = make_large(tmp_path / "s.onnx", 30_000), make_large(tmp_path / "l.onnx", 60_000)
    weights = 202 * 30_000 * 4
    with Worker() as worker:
        for pair in ((small, large), (large, small)):
            found = compare(pair, Target(), worker=worker, budget_s=0.05)
            peaks = dict(zip([one.name for one in pair], [t.peak_memory_bytes for t in found.timings], strict=True))
            assert peaks[large.name] > peaks[small.name] + 0.5 * weights
            assert peaks[small.name] > weights


@linux
@pytest.mark.alone
def test_the_library_is_not_counted_for_the_first_network_of_a_worker(tmp_path):
    pytest.importorskip("onnxruntime")
    make_onnx(tmp_path / "tiny.onnx")
    artefact = Artefact(
        "onnx", "h", (3, 8, 8), path=tmp_path / "tiny.onnx", outputs=(OutputShape("logits", (10,)),), name="tiny"
    )
    with Worker() as worker:
        first, later = (measure(artefact, Target(), worker=worker, budget_s=0.05) for _ in range(2))
    assert first.peak_memory_bytes < 16 * MIB
    assert later.peak_memory_bytes < 16 * MIB
