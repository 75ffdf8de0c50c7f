"""Engines of NVIDIA's TensorRT for RTX read kernel by kernel: whose work it is, what it moves, what it may take."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import archdsl
from archdsl.backends.trt.build_log import Kernel, Tensor
from archdsl.backends.trt.gpus import Figures, find_gpu
from archdsl.cli.main import run
from archdsl.errors import ArchError, BackendError
from archdsl.latency.engine.report import EngineReport, moves_by_line
from archdsl.latency.engine.roofline import CACHE, COMPUTE, GRAPH_S, MEMORY, STREAM_S, estimates_of
from archdsl.latency.engine.work import padding_of, products_of, work_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for Linux on x86-64 alone")

SMALL = {
    "micro_swin": {},
    "vit_ti_16": {"input.size": 64, "stages.0.depth": 1},
    "convnext_t": {"input.size": 64, **{f"stages.{i}.depth": 1 for i in range(4)}},
}


@pytest.fixture(scope="module")
def reports() -> dict[str, EngineReport]:
    return {name: archdsl.compile_engine(archdsl.load(name, set=sets)) for name, sets in SMALL.items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_products_of_the_kernels_are_the_networks(reports, name, tmp_path):
    """In the plain form exactly; the form for this compiler holds biases in products, which are a little deeper."""
    spec = archdsl.load(name, set=SMALL[name])
    archdsl.export_onnx(spec, path := tmp_path / "plain.onnx", precision="fp16")
    report = archdsl.compile_engine(path)
    size, patch = spec.input.size[0], spec.data["stem"]["patch"]
    stem = (size // patch) ** 2 * spec.data["stem"]["dim"] * 3 * patch**2  # there TensorRT adds a fourth channel
    beyond = [layer for layer in report.layers if not (layer.path or "").startswith("stem")]
    flops = 2 * (archdsl.cost(spec).macs - stem)
    assert sum(layer.flops for layer in beyond) == flops
    shaped = sum(layer.flops for layer in reports[name].layers if not (layer.path or "").startswith("stem"))
    assert flops <= shaped < 1.1 * flops


@pytest.mark.parametrize("name", SMALL)
def test_every_kernel_has_a_node_of_ours_a_line_of_the_spec_and_an_estimate(reports, name):
    report, spec = reports[name], archdsl.load(name)
    text = Path(spec.locate("stages").file).read_text().splitlines()
    assert report.kernels == len(report.layers) == sum(report.counts.values())
    assert report.bytes_moved == sum(layer.bytes_moved for layer in report.layers)
    for layer in report.layers:
        assert layer.path is not None and layer.spec_line is not None, layer
        line = text[int(layer.spec_line.rpartition(":")[2]) - 1]
        assert layer.path.startswith(("stem", "head")) == line.lstrip().startswith(("stem", "head")), (layer.path, line)
    assert report.estimate_ms == pytest.approx(sum(layer.estimate_us for layer in report.layers) / 1e3)
    assert report.estimate_stream_ms - report.estimate_ms == pytest.approx((STREAM_S - GRAPH_S) * 1e3 * report.kernels)


def test_what_only_moves_data_is_named_with_its_line():
    report = archdsl.compile_engine("micro_swin", precision="fp32", form="train")  # deployed blocks hardly move data
    assert 0 < len(report.moves) < report.kernels and report.attentions == 4
    rows = moves_by_line(report)
    assert sum(row[1] for row in rows) == len(report.moves)
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert any(part.startswith("stages.0.blocks.") for row in rows for part in row[3])


def test_gpus_precisions_and_batches_change_what_is_reported():
    spec = archdsl.load("micro_swin")
    eight = archdsl.compile_engine(spec, "rtx4090", "bf16", 8)
    assert (eight.gpu, eight.gpu_title, eight.precision, eight.batch) == ("rtx4090", "GeForce RTX 4090", "bf16", 8)
    assert "BFloat16[8, " in str(eight.layers[5].inputs + eight.layers[4].inputs) or "BFloat16" in str(eight.layers)
    unknown = archdsl.compile_engine(spec, "sm121")
    assert unknown.estimate_ms is None and unknown.kernels > 30  # no figures of such a GPU, so no estimate


def test_an_onnx_file_of_anybody_is_read_by_its_own_nodes(tmp_path, reports):
    archdsl.export_onnx("micro_swin", path := tmp_path / "theirs.onnx", precision="fp16", runtime="tensorrt-rtx")
    report = archdsl.compile_engine(path)
    assert (report.network, report.precision) == (str(path), "fp16")
    assert report.attentions == 4 and report.kernels == reports["micro_swin"].kernels
    assert any((layer.path or "").startswith("stages.0.blocks.0.attn.qkv") for layer in report.layers)
    assert all(layer.spec_line is None for layer in report.layers)
    with pytest.raises(BackendError, match="batch"):
        archdsl.compile_engine(path, batch=4)


def test_what_cannot_be_compiled_is_refused():
    for arguments, said in (
        ({"gpu": "h100"}, r"not for NVIDIA H100 \(sm90\)"),
        ({"gpu": "rtx308"}, "got 'rtx308'"),
        ({"precision": "fp17"}, "fp17"),
        ({"form": "drawn"}, "the form drawn is fp32"),
    ):
        with pytest.raises(ArchError, match=said):
            archdsl.compile_engine("micro_swin", **arguments)


# ---- the command


def test_profile_prints_kernels_and_says_that_nothing_was_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archdsl.export_onnx("micro_swin", path := "other.onnx", deploy=False)
    assert run(["profile", "micro_swin", "--on", "tensorrt-rtx:rtx3080", "--against", path]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "attentions fused 4 of 4" in out and "estimate, ms (not validated)" in out
    assert "only move data" in out and "micro_swin.yaml:" in out and "of attention tiles" in out
    assert "for rtx3080 (GeForce RTX 3080), without that GPU; not run" in out and "±" not in out
    assert "other.onnx: fp32" in out


@pytest.mark.parametrize("by", ["stage", "node", "op"])
def test_profile_groups_kernels_in_other_ways(capsys, by):
    assert run(["profile", "micro_swin", "--on", "tensorrt-rtx:sm86", "--by", by, "--top", "3"]) == 0
    out = capsys.readouterr().out
    assert {"stage": "stages.0", "node": " more", "op": "product: gemm"}[by] in out


def test_profile_gives_the_fields_of_the_report_as_json(capsys, reports):
    assert run(["profile", "micro_swin", "--on", "tensorrt-rtx:sm86", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["profiles"]
    report = reports["micro_swin"]
    for name in ("kernels", "bytes_moved", "attentions", "attentions_fused", "estimate_ms"):
        assert found[name] == getattr(report, name)
    assert len(found["layers"]) == report.kernels and found["moves"] == len(report.moves)
    assert found["target"]["gpu"] == "sm86" and found["target"]["precision"] == "fp16"
    assert "not run" in found["not_run"] and "not validated" in found["estimate"]


def test_profile_refuses_what_is_for_engines_alone(capsys, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    for words, said in (
        (["micro_swin", "--against", "timm:resnet18"], "--against is for engines of a named GPU"),
        ([str(tmp_path / "x.onnx")], "profile takes specs"),
        ([str(tmp_path / "none.onnx"), "--on", "tensorrt-rtx:sm86"], "there is no file"),
        (["micro_swin", "--on", "tensorrt-rtx:sm86", "--against", "none.onnx"], "there is no file none.onnx"),
        ([str(tmp_path / "x.onnx"), "--on", "tensorrt-rtx:sm86"], "holds no network"),
    ):
        assert run(["profile", *words]) == 1
        assert said in capsys.readouterr().err


# ---- single kernels


def kernel(name: str, *inputs, type_="kgen", constants=(), outputs=((1, 64, 96),), dtype="Half") -> Kernel:
    made = [
        tuple(Tensor(f"{name}.{kind}{i}", shape, dtype) for i, shape in enumerate(shapes))
        for kind, shapes in (("in", inputs), ("const", constants), ("out", outputs))
    ]
    return Kernel(name, type_, *made)


HALF, BIAS = (1, 64, 96), (1, 1, 96)


@pytest.mark.parametrize(
    ("made", "work"),
    [
        (kernel("__myl_AddReshTranReshMove_myl0_4", HALF, constants=(BIAS,)), "data movement"),
        (kernel("__myl_AddAddTran_myl0_4", HALF, HALF, constants=(BIAS,)), "pointwise"),
        (kernel("__myl_CastConc_myl0_0", HALF), "data movement"),
        (kernel("__myl_AddCast_myl0_0", HALF, constants=(BIAS,)), "pointwise"),
        (kernel("__myl_CastReshMulSum_myl0_50", (1, 1, 64), constants=((64, 12),)), "product"),
        (kernel("__myl_Cast_myl0_0", HALF), "data movement"),
        (kernel("__myl_bb1_1_GathCastMeanSubMulMeanAddSqrtDivMulMulAddCast_myl0_7", HALF), "norm"),
        (kernel("__myl_AddMaxrSubExpSumDivMul_myl0_7", HALF), "softmax"),
        (kernel("__myl_FcAddDivCastErfCastAddMulMul_myl0_7", HALF, type_="runtime_fusion"), "product"),
        (kernel("__mye1+__mye2_myl0_3", HALF, type_="gemm"), "product"),
        (kernel("_gemm_mha_v2_myl0_7", HALF, HALF, HALF), "attention"),
        (kernel("stem.proj_U50_myl0_1", HALF, type_="correlation"), "convolution"),
    ],
    ids=lambda value: value.name if isinstance(value, Kernel) else value,
)
def test_a_kernel_is_told_by_the_ops_that_are_fused_into_it(made, work):
    assert work_of(made) == work


def test_windows_of_49_tokens_leave_41_percent_of_the_attentions_tiles_empty():
    attention = kernel("_gemm_mha_v2_myl0_7", (192, 49, 32), (192, 32, 49), (192, 49, 32), outputs=((192, 49, 32),))
    assert sum(product.flops for product in products_of(attention)) == 4 * 192 * 49 * 49 * 32
    useful, tiles = padding_of(attention)
    assert useful / tiles == pytest.approx((49 / 64) ** 2)


def test_convolutions_are_counted_by_their_groups():
    def conv(weight, channels):
        return kernel(
            "c_U1_myl0_1", (1, channels, 8, 8), type_="correlation", constants=(weight,), outputs=((1, 32, 8, 8),)
        )

    flops = {
        name: products_of(made) for name, made in {"dw": conv((32, 1, 7, 7), 32), "g": conv((32, 4, 3, 3), 32)}.items()
    }
    assert sum(product.flops for product in flops["dw"]) == 2 * 64 * 32 * 49
    assert sum(product.flops for product in flops["g"]) == 2 * 64 * 32 * 4 * 9
    assert not flops["dw"][0].tensor_cores and padding_of(conv((32, 1, 7, 7), 32)) is None


GPU = Figures(sms=10, clock_mhz=1000, bandwidth_gb_s=100, l2_mb=1, fp16_tflops=10, fp32_tflops=1, source="made up")


def test_bytes_come_from_memory_unless_the_cache_still_has_them():
    wide = (1024, 1024)  # 2 MiB in fp16: more than the cache
    first = kernel("__myl_Move_myl0_0", wide, outputs=((64, 96),))
    second = Kernel("__myl_Move_myl0_1", "kgen", first.outputs, (), (Tensor("y", (64, 96), "Half"),))
    one, two = estimates_of([first, second], GPU)
    rate, small = 100e9 * MEMORY, 64 * 96 * 2
    assert one.memory_bytes == 2 * 1024 * 1024 and one.cache_bytes == small and one.bound == "memory"
    assert two.memory_bytes == 0 and two.cache_bytes == 2 * small and two.bound == "launch"
    assert one.seconds == pytest.approx((2 * 1024 * 1024 + small / CACHE) / rate + GRAPH_S)


def test_products_take_whole_waves_of_whole_tiles():
    def seconds(rows: int) -> float:
        product = kernel("a", (rows, 64), type_="gemm", constants=((64, 128),), outputs=((rows, 128),))
        (found,) = estimates_of([product], Figures(**{**vars(GPU), "bandwidth_gb_s": 1e9}))
        return found.seconds - GRAPH_S

    tile_s = 2 * 128 * 128 * 64 / (10e12 / 10 * COMPUTE)
    assert seconds(1280) == pytest.approx(tile_s)  # 10 tiles of 128 x 128 on 10 SMs
    assert seconds(1281) == pytest.approx(17 * 32 * 32 / 128**2 * tile_s)  # 41 x 4 tiles of 32 x 32: 17 waves, not 16.4
    assert seconds(1279) == seconds(1280)


def test_depthwise_convolutions_and_fp32_are_plain_arithmetic():
    fast = Figures(**{**vars(GPU), "bandwidth_gb_s": 1e9})
    shape = (1, 32, 64, 64)
    conv = kernel("c_U1_myl0_1", shape, type_="correlation", constants=((32, 1, 7, 7),), outputs=(shape,))
    assert estimates_of([conv], fast)[0].seconds - GRAPH_S == pytest.approx(2 * 32 * 64 * 64 * 49 / (1e12 * COMPUTE))
    products = [
        kernel("a", (1280, 64), type_="gemm", constants=((64, 128),), outputs=((1280, 128),), dtype=dtype)
        for dtype in ("Half", "Float")
    ]
    half, single = (estimates_of([each], fast)[0].seconds - GRAPH_S for each in products)
    assert single == pytest.approx(10 * half)


def test_products_of_fp8_values_take_half_the_time_and_stored_weights_do_not_matter():
    fast, values, weight = Figures(**{**vars(GPU), "bandwidth_gb_s": 1e9}), (1280, 64), (64, 128)
    half, narrow, stored = (
        Kernel("a", "gemm", (Tensor("x", values, x),), (Tensor("w", weight, w),), (Tensor("y", (1280, 128), "Half"),))
        for x, w in (("Half", "Half"), ("FP8", "FP8"), ("Half", "Int8"))
    )
    seconds = [estimates_of([each], fast)[0].seconds - GRAPH_S for each in (half, narrow, stored)]
    assert seconds[1] == pytest.approx(seconds[0] / 2) and seconds[2] == pytest.approx(seconds[0])


def test_fp8_reaches_the_products_and_leaves_attention_fused():
    report = archdsl.compile_engine("micro_swin", gpu="sm89", precision="fp8", batch=2)
    assert report.attentions_fused == report.attentions > 0
    narrow = [layer for layer in report.layers if layer.work == "product" and any("FP8" in x for x in layer.inputs)]
    assert len(narrow) >= 3 * report.attentions


def test_stored_int8_weights_make_the_engine_smaller_and_no_kernel_more():
    whole, narrow = (
        archdsl.compile_engine(archdsl.load("swin_t", set={"stages.*.depth": 1}), precision=precision)
        for precision in ("fp16", "int8-weights")
    )
    assert narrow.attentions_fused == whole.attentions_fused == 4
    assert narrow.kernels <= whole.kernels and narrow.bytes_moved < whole.bytes_moved
    assert narrow.engine_bytes < 0.9 * whole.engine_bytes


def test_a_swin_block_is_seven_kernels_and_none_of_them_only_moves_data():
    def blocks(depth: int) -> EngineReport:
        return archdsl.compile_engine(archdsl.load("swin_t", set={"stages.*.depth": depth}))

    two, four = blocks(2), blocks(4)
    assert four.kernels - two.kernels == 7 * 8
    inside = [layer for layer in four.layers if layer.work == "data movement" and ".blocks." in (layer.path or "")]
    assert inside == []


@pytest.mark.parametrize(
    ("gpu", "precision", "said"),
    [("sm86", "fp8", "fp8 needs sm89 or newer, got sm86"), ("t4", "int8-weights", "int8-weights needs sm80 or newer")],
)
def test_a_gpu_without_products_of_a_precision_is_refused(gpu, precision, said, capsys, tmp_path):
    with pytest.raises(BackendError, match=said):
        archdsl.compile_engine("micro_swin", gpu=gpu, precision=precision)
    assert run(["profile", "micro_swin", "--on", f"tensorrt-rtx:{gpu}", "--precision", precision]) == 1
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((2, 3, 32, 32), np.float32))
    wish = ["--emit", "tensorrt-rtx", "--gpu", gpu, "--precision", precision, "--images", str(images)]
    assert run(["build", "micro_swin", *wish, "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count(said) == 2 and not (tmp_path / "out").exists()


def test_profile_says_whether_a_narrow_format_pays(capsys):
    assert run(["profile", "micro_swin", "--on", "tensorrt-rtx:sm86", "--precision", "int8-weights", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["profiles"]
    (note,) = [note for note in one["notes"] if "fp16" in note]
    assert "faster than fp16 by the estimate" in note and "(int8-weights:" in note


@pytest.mark.parametrize("precision", ["fp8", "int8-weights"])
def test_an_engine_in_a_narrow_format_is_built_for_a_gpu(precision, tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32))
    wish = ["--emit", "tensorrt-rtx", "--gpu", "rtx4090", "--precision", precision]
    wish += ["--images", str(tmp_path / "images.npy"), "-o", str(tmp_path / "out")]
    assert run(["build", "micro_swin", *wish]) == 0
    (made,) = json.loads((tmp_path / "out" / "build.json").read_text())["artefacts"]
    assert (made["precision"], made.get("calibrated_on")) == (precision, 2 if precision == "fp8" else None)
    assert made["attentions_fused"] == made["attentions"] == 4


def test_the_first_gpu_of_a_capability_stands_for_it():
    assert find_gpu("sm86").figures is find_gpu("rtx3080").figures
    assert find_gpu("sm121").figures is None


# ---- the table of many engines


def test_the_benchmark_of_engines_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[1] / "benchmarks" / "tensorrt_engines.py"
    out = tmp_path / "engines.jsonl"

    def table(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [str(script), *words, "--out", str(out)])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    assert table("micro_swin", "--gpu", "sm86")[0].startswith("micro_swin sm86 batch 1: ")
    out.write_text(out.read_text() + '{"network": "cut sho')  # as an interruption leaves it
    again = table("micro_swin", "--gpu", "sm86,sm120")
    assert again[0].startswith("micro_swin sm120 batch 1: ")
    assert [line.split(" | ")[:2] for line in again[3:]] == [["| micro_swin", "sm86"], ["| micro_swin", "sm120"]]
    assert "4 of 4" in again[-1] and "estimate, ms (not validated)" in again[1]


@pytest.mark.parametrize("weight", [(2048, 512), (512, 2048)], ids=["in by out", "out by in"])
def test_a_layer_of_one_row_is_one_product_whichever_way_its_weight_lies(weight: tuple[int, int]) -> None:
    """As in a pyramid's pooled path: a vector of 2048 becomes one of 512."""
    made = kernel(
        "__myl_FcAddRelu_myl0_78", (1, 2048, 1), type_="gemm", constants=(weight, (1, 512, 1)), outputs=((1, 512, 1),)
    )
    (product,) = products_of(made)
    assert product.flops == 2 * 2048 * 512 and (product.rows, product.columns, product.depth) == (1, 512, 2048)
