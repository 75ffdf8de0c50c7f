"""NVIDIA's TensorRT for RTX, the real one: it builds every family ahead of time, on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import FakeTensorRT

import archdsl
from archdsl.backends.onnx.dialects import dialect_for
from archdsl.backends.trt import gpus
from archdsl.backends.trt.build import built_for
from archdsl.backends.trt.build_log import kernels_of
from archdsl.backends.trt.engine import (
    RTX,
    Batches,
    Engine,
    EngineOptions,
    build_engine,
    build_status,
    emit,
    load_engine,
)
from archdsl.backends.trt.library import load_tensorrt
from archdsl.builds.config import BuildConfig
from archdsl.cli.main import run
from archdsl.compiler import deploy
from archdsl.errors import ArchError, BackendError
from archdsl.passes.runner import run_passes
from archdsl.runtimes.target import Target, resolve

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for Linux on x86-64 alone")

SMALLEST = {
    "swin": ("micro_swin", {}),
    "swin_free": ("micro_swin_free", {}),
    "swin_free_br": ("micro_swin_free_br", {}),
    "vit": ("vit_ti_16", {"input.size": 32, "stages.0.depth": 2}),
    "t2t": ("t2t_vit_7", {"input.size": 64, "stages.0.depth": 2}),
    "t2t_softmax": ("t2t_vit_t_14", {"input.size": 64, "stages.0.depth": 2}),
    "levit": ("levit_128s", {"input.size": 64, **{f"stages.{i}.depth": 1 for i in range(3)}}),
    "convnext": ("convnext_t", {"input.size": 64, **{f"stages.{i}.depth": 1 for i in range(4)}}),
}
"""The smallest spec of each family; where none is small, one cut down."""

APART = {"levit": 5, "t2t_softmax": 2}
"""Attentions that TensorRT does not fuse: those of LeViT, whose values are wider than its keys, and T2T's of one head,
whose values are added to the result."""


def engine_of(name: str, sets: dict, precision: str = "fp16", batch: int = 1, gpu: str = "sm86") -> Engine:
    network, dialect = deploy(archdsl.load(name, set=sets), precision=precision), dialect_for("tensorrt-rtx")
    network = run_passes(network, dialect.passes(batch or None))[0]
    batches = Batches.only(batch) if batch else Batches(1, 4, 16)
    options = EngineOptions.ahead((gpu,), {}, batches=(batches,))
    return emit(network.graph, network.weights, options=options, product=RTX, dialect=dialect)


@pytest.mark.parametrize("family", SMALLEST)
def test_the_smallest_spec_of_each_family_is_built_in_fp16_with_every_attention_fused_that_can_be(family):
    engine = engine_of(*SMALLEST[family])
    assert len(engine.plan) > 100_000 and engine.notes == ()
    assert engine.gpu == "sm86" and "neither loaded nor run" in engine.not_run
    assert len(engine.report.attentions) - engine.report.num_fused == APART.get(family, 0)
    assert bool(engine.report.attentions) == (family != "convnext")
    nodes = {origin.partition("/")[0] for kernel in engine.kernels for origin in kernel.origins}
    assert {node.split(".")[0] for node in nodes} >= {"stem", "stages", "head"}


def test_swin_b_is_built_as_it_is():
    report = archdsl.compile_engine("swin_b", gpu="rtx3080", precision="fp16")
    assert report.attentions_fused == report.attentions == 24
    assert report.kernels <= 182 and report.bytes_moved < 0.37e9  # timm's export: 629 kernels, 0.536 GB


@pytest.mark.parametrize("family", ["swin_free_br", "vit", "convnext"])
@pytest.mark.parametrize(
    "how", [{"precision": "fp32"}, {"precision": "bf16"}, {"batch": 8}, {"batch": 0}, {"gpu": "sm120"}], ids=str
)
def test_families_are_built_in_other_precisions_batches_and_for_other_gpus(family, how):
    engine = engine_of(*SMALLEST[family], **how)
    assert len(engine.plan) > 100_000 and engine.kernels
    assert "fp32" in how.values() or engine.report.num_fused == len(engine.report.attentions)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "Float"), ("bf16", "BFloat16")])
def test_other_precisions_reach_the_kernels(precision, dtype):
    engine = engine_of(*SMALLEST["swin"], precision)
    products = [kernel for kernel in engine.kernels if any(origin.endswith("/MatMul") for origin in kernel.origins)]
    typed = [kernel for kernel in products if dtype in {tensor.dtype for tensor in kernel.inputs}]
    assert len(products) > 10 and len(typed) >= len(products) - 1  # the head may be an island of fp32


def test_int8_is_built_from_its_onnx_file(tmp_path):
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    archdsl.export_onnx("micro_swin", path := tmp_path / "int8.onnx", precision="int8", images=images)
    options = EngineOptions.ahead(("sm86",), {}, batches=(Batches.only(1),))
    engine = build_engine(path, options, product=RTX)
    assert any(tensor.dtype == "Int8" for kernel in engine.kernels for tensor in kernel.inputs + kernel.outputs)


def test_batches_of_one_size_are_static_and_a_range_is_open():
    eight, several = (engine_of(*SMALLEST["swin"], batch=batch) for batch in (8, 0))
    for engine, size in ((eight, 8), (several, -1)):
        (image,) = {tensor for kernel in engine.kernels for tensor in kernel.inputs if tensor.name == "image"}
        assert image.shape == (size, 3, 32, 32) and image.dtype == "Float"
    assert several.report.num_fused == 4


def test_one_engine_serves_several_capabilities(tmp_path):
    out = tmp_path / "o"
    assert run(["build", "micro_swin", "--emit", "tensorrt-rtx", "--gpu", "rtx3080,sm120", "-o", str(out)]) == 0
    engine = load_engine(out / "model.rtx.engine")
    assert engine.options.capabilities == ("sm86", "sm120") and engine.gpu == "sm86, sm120"
    assert "neither loaded nor run" in json.loads((out / "model.rtx.engine.json").read_text())["not_run"]
    (made,) = json.loads((out / "build.json").read_text())["artefacts"]
    assert made["parity"] is None and "neither loaded nor run" in made["unmeasured"]
    assert made["kernels"] == len(engine.report.layers) and made["engine_bytes"] == len(engine.plan)


def test_the_data_file_names_the_capabilities_of_the_installed_release():
    assert tuple(built_for(load_tensorrt(RTX))) == gpus.BUILT_FOR
    for gpu in gpus.known_gpus().values():
        assert gpu.is_built_for == (gpu.figures is not None), gpu.name
        assert gpu.figures is None or "NVIDIA" in gpu.figures.source
        assert gpus.find_gpu(gpu.name) is gpu


@pytest.mark.parametrize(
    ("word", "capability"),
    [
        ("sm86", "sm86"),
        ("8.6", "sm86"),
        ("SM_120", "sm120"),
        ("12.0", "sm120"),
        ("RTX 3080", "sm86"),
        ("sm121", "sm121"),
    ],
)
def test_a_gpu_is_named_by_capability_or_name(word, capability):
    assert gpus.find_gpu(word).capability == capability
    assert gpus.gpu_problem(word) is None


@pytest.mark.parametrize(
    ("word", "rule", "said"),
    [
        ("h100", "wrong-value", "not for NVIDIA H100 (sm90)"),
        ("jetson-orin", "wrong-value", "not for Jetson Orin (sm87)"),
        ("sm90", "wrong-value", "not for NVIDIA H100 (sm90)"),
        ("rtx308", "unknown-name", "got 'rtx308'"),
        ("sm999", "unknown-name", "got 'sm999'"),
    ],
)
def test_a_gpu_that_it_does_not_build_for_is_refused_with_the_reason(word, rule, said, capsys):
    for command in (
        ["build", "micro_swin", "--emit", "tensorrt-rtx", "--gpu", word, "-o", "nowhere"],
        ["bench", "micro_swin", "--on", f"tensorrt-rtx:{word}"],
    ):
        assert run(command) == 1
        err = capsys.readouterr().err
        assert said in err and f"[{rule}]" in err
    with pytest.raises(ArchError, match=said.replace("(", r"\(").replace(")", r"\)")):
        Target("tensorrt-rtx", device="cuda", gpu=word)


def test_wishes_that_this_compiler_cannot_grant_are_refused():
    spec = archdsl.load("micro_swin")
    for config, said in (
        (BuildConfig(spec, emit=("onnx",), gpus=("sm86",)), "--gpu is about tensorrt-rtx"),
        (BuildConfig(spec, emit=("tensorrt-rtx",), engine={"refit": True}), "has no option refit"),
        (BuildConfig(spec, emit=("tensorrt-rtx",), deploy=False), "made from the deploy form"),
    ):
        with pytest.raises(ArchError, match=said):
            config.check()
    with pytest.raises(BackendError, match="no option timing_cache"):
        EngineOptions.ahead((), {"timing_cache": "x"}, batches=())
    with pytest.raises(BackendError, match="does not build for sm90, but for sm75"):
        engine_of("micro_swin", {}, gpu="sm90")
    with pytest.raises(ArchError, match="only tensorrt-rtx compiles for a GPU by its name"):
        Target("tensorrt", device="cuda", gpu="sm86")


def test_an_engine_for_another_gpu_is_not_timed_here():
    with pytest.raises(ArchError, match="what it made is not run here"):
        resolve(Target("tensorrt-rtx", device="cuda", gpu="sm86"))
    assert "gpu" not in Target("null").as_json()
    assert str(Target("tensorrt-rtx", device="cuda", gpu="sm86")) == "tensorrt-rtx for sm86, fp32, batch 1"


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_doctor_tells_building_and_running_apart(capsys):
    assert run(["doctor", "--json"]) == 0
    found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    building, running = found["engines for other GPUs"], found["runtime tensorrt-rtx"]
    assert building["ready"] and "sm86" in building["found"]
    assert not running["ready"] and "no NVIDIA GPU to run them on" in running["found"]
    assert "--on tensorrt-rtx:sm86" in running["fix"]


def test_a_missing_library_says_what_brings_it():
    def none():
        raise BackendError.at("tensorrt", "tensorrt", "missing-library", "it is not installed", RTX.install)

    assert build_status(none) == (False, "it is not installed", "pip install 'archdsl[tensorrt-rtx]'")
    assert not build_status(lambda: FakeTensorRT("1.7.0")).ready


def test_our_protocols_agree_with_its_bindings():
    """As `test_trt_surface.py` does for the two TensorRTs, whose bindings must be downloaded."""
    program = [sys.executable, str(Path(__file__).with_name("trt_comparison.py")), "tensorrt_rtx"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert found["wrong"] == [] and len(found["compared"]) > 90


def test_lines_of_the_log_that_describe_no_layer_are_left_out():
    line = (
        "Name: a+b, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,49,96], Strides: [4704,96,1], StrideOrder: "
        "[2,1,0], Datatype: Half, Format: (Linear) }], Constants: [ { Name: w, Dimensions: [1,96,8], Datatype: Half }]"
        ", Outputs: [ { Name: y, Dimensions: [1,49,8], Datatype: Float }], TacticName: t, StreamId: 0, "
        "Metadata: [ONNX Layer: a/MatMul][ONNX Layer: b]"
    )
    (kernel,) = kernels_of(["Engine generation completed", line, "Name: half a line, LayerType: gemm"])
    assert (kernel.name, kernel.type, kernel.tactic, kernel.origins) == ("a+b", "gemm", "t", ("a/MatMul", "b"))
    assert [tensor.shape for tensor in kernel.inputs + kernel.constants] == [(1, 49, 96), (1, 96, 8)]
    assert [tensor.size_bytes for tensor in kernel.inputs + kernel.constants + kernel.outputs] == [9408, 1536, 1568]
