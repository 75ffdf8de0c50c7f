"""Profiles: every op of a runtime is a node of ours or something the runtime put in, whatever it was fused into."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from archdsl.cli.main import run
from archdsl.errors import MeasureError
from archdsl.failures import failed, reason_of
from archdsl.ir.op import KINDS
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.latency import Worker, profile_networks
from archdsl.latency.profile.shares import UNATTRIBUTED, Attribution, kinds_of, rows_of
from archdsl.latency.sampling import Sampling
from archdsl.latency.worker.main import profiled
from archdsl.ops import OPS
from archdsl.runtimes.adapters.onnx_profile import OnnxNode, kernels_by_run, sources_of
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of, network_for, network_of
from archdsl.runtimes.op_names import KnownNames
from archdsl.runtimes.placeholder_weights import placeholder_weights
from archdsl.runtimes.protocol import OpProfile, OpTime, Profilable
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import Target

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}

KIND_OF_TYPE = {
    "MVN": "norm",
    "LayerNormalization": "norm",
    "SkipLayerNormalization": "norm",
    "aten::native_layer_norm": "norm",
    "Softmax": "attention",
    "FusedMatMul": "attention",
    "Split": "attention",
    "VariadicSplit": "attention",
    "FullyConnected": "linear",
    "Gemm": "linear",
    "aten::addmm": "linear",
    "BiasGelu": "activation",
    "Gelu": "activation",
    "aten::gelu": "activation",
    "Conv": "convolution",
    "Convolution": "convolution",
    "Gather": "reorder",
    "ReorderOutput": "layout",
    "Reorder": "layout",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
}
"""What some ops can only be, whatever they are called; of networks of Swin's kind."""


MOVE = ("reorder", "aten::index_select")


def rows(runtime_name, spec, form, folder, size=64):
    """A profile of two runs, taken in this process."""
    pytest.importorskip(PACKAGES[runtime_name], reason="the runtime is not installed")
    spec = load(spec, set=[f"input.size={size}"] if size else None)
    target = Target(runtime_name)
    artefact = artefact_of(spec, target, folder, form=form)
    image = np.random.default_rng(0).standard_normal((1, *artefact.input_shape), dtype=np.float32)
    loaded = runtime(runtime_name).load(artefact, target.config)
    assert isinstance(loaded, Profilable)
    profiler = loaded.profiler(image)
    for _ in range(3):
        profiler.run()
    return list(rows_of(profiler.finish([1, 2]), Attribution(network_for(spec, target, form).graph)))


@pytest.mark.parametrize("form", ["drawn", "train", "deploy"])
@pytest.mark.parametrize("spec", ["swin_t", "swin_free_t"])
@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
def test_nearly_all_of_the_time_is_attributed(runtime_name, spec, form, tmp_path):
    found = rows(runtime_name, spec, form, tmp_path, size=None)
    total = sum(row.ms for row in found)
    assert sum(row.ms for row in found if row.kind == UNATTRIBUTED) <= 0.05 * total
    assert {"norm", "attention", "linear", "convolution", "reorder", "add"} <= {row.kind for row in found}
    wrong = {(row.path, row.op_type, row.kind) for row in found if row.kind != KIND_OF_TYPE.get(row.op_type, row.kind)}
    assert not wrong


@pytest.mark.parametrize("spec", ["micro_swin", "convnext_t", "swin_free_t_br", "vit_ti_16"])
@pytest.mark.parametrize("runtime_name", list(PACKAGES))
def test_no_op_is_left_over(runtime_name, spec, tmp_path):
    found = rows(runtime_name, spec, "train", tmp_path, size=None if spec in ("micro_swin", "vit_ti_16") else 224)
    assert not [row for row in found if row.kind == UNATTRIBUTED]
    assert all(row.ms > 0 for row in found)


def test_torch_tells_the_ops_of_a_node_apart(tmp_path):
    found = rows("torch", "micro_swin", "train", tmp_path, size=None)
    wrong = {(row.path, row.op_type, row.kind) for row in found if row.kind != KIND_OF_TYPE.get(row.op_type, row.kind)}
    assert not wrong
    attend = {row.op_type for row in found if row.path and row.path.endswith("attend")}
    assert any("scaled_dot_product" in op_type for op_type in attend)


def test_a_fused_op_tells_its_partners(tmp_path):
    pytest.importorskip("openvino", reason="the runtime is not installed")
    found = rows("openvino", "micro_swin", "train", tmp_path, size=None)
    assert [row for row in found if row.kind == "linear" and "activation" in row.also]


def test_every_op_has_a_kind():
    assert {op.kind for op in OPS} == set(KINDS)


def test_what_only_attention_reads_is_part_of_it():
    kinds = kinds_of(lower(load("swin_t")))
    block = "stages.0.blocks.1"
    assert {kinds[f"{block}.attn.{name}"] for name in ("q", "k", "v", "attend")} == {"attention"}
    assert kinds[f"{block}.add"] == kinds[f"{block}.add_1"] == "add"
    biases = {path: kind for path, kind in kinds.items() if path.startswith(f"{block}.attn") and "bias" in path}
    assert set(biases.values()) == {"attention"}


def test_a_name_is_found_by_its_longest_beginning():
    known = KnownNames(["blocks.1", "blocks.1.add", "blocks.1.add_1", "blocks.10"])
    assert known.find("blocks.1.add_1/Add") == "blocks.1.add_1"
    assert known.find("blocks.1.add_nchwc") == "blocks.1.add"
    assert known.find("blocks.10.norm/out") == "blocks.10"
    assert known.find("blocks.11") is None
    assert known.find("blocks.2") is None
    assert known.find("blocks") is None


def test_a_fused_node_stands_for_what_lies_between_its_inputs_and_outputs():
    file = [
        OnnxNode("fc/MatMul", "MatMul", ("x", "w"), ("m",)),
        OnnxNode("fc", "Add", ("m", "b"), ("a",)),
        OnnxNode("act", "Gelu", ("a",), ("y",)),
        OnnxNode("view", "Reshape", ("y", "shape"), ("z",)),
    ]
    kept = OnnxNode("fc/MatMul", "MatMul", ("x", "w"), ("m",))
    fused = OnnxNode("BiasGelu_token_1", "BiasGelu", ("m", "b"), ("z",))
    made = OnnxNode("reshape_token", "Reshape", ("x", "s"), ("unknown",))
    found = sources_of(file, [kept, fused, made])
    assert found == {"fc/MatMul": ("fc/MatMul",), "BiasGelu_token_1": ("act", "fc")}


def test_kernels_are_told_apart_by_run():
    kernel = {"cat": "Node", "name": "a_kernel_time"}
    events = [kernel, kernel, {"cat": "Session", "name": "model_run"}, kernel, {"cat": "Session", "name": "model_run"}]
    assert [len(one) for one in kernels_by_run([{"cat": "Session", "name": "load"}, *events])] == [2, 1]


def test_a_profile_is_the_median_of_its_runs_and_survives_json():
    ops = [OpTime("a", "A", 0.0, ("b",)), OpTime("c", "C", 0.0), OpTime("free", "View", 0.0)]
    found = OpProfile.of_runs(ops, [[1.0, 5.0, 0.0], [2.0, 4.0, 0.0], [9.0, 3.0, 0.0]], "by hand")
    assert [(op.name, op.ms) for op in found.ops] == [("a", 2.0), ("c", 4.0)]
    assert (found.run_ms, found.runs) == (6.0, 3)
    assert OpProfile.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_time_that_nobody_knows_is_shown():
    attribution = Attribution(lower(load("micro_swin")))
    ops = (OpTime("Mystery_7", "Mystery", 1.0), OpTime("Reorder_7", "Reorder", 2.0, inserted=True))
    found = list(rows_of(OpProfile(ops, 3.0, 1, ""), attribution))
    assert [(row.kind, row.path) for row in found] == [(UNATTRIBUTED, None), ("layout", None)]
    assert [row.group("stage") for row in found] == [UNATTRIBUTED, "layout"]


def test_stand_in_weights_hold_no_ones_and_zeros():
    for name, numbers in placeholder_weights(lower(load("micro_swin_free_br"))).items():
        assert len(np.unique(numbers)) > 1, name
        assert name.split(".")[-1] != "running_var" or numbers.min() > 0


def test_forms_side_by_side_in_the_worker(tmp_path):
    spec, target = load("micro_swin"), Target("torch")
    networks = [
        (artefact_of(spec, target, tmp_path, form=form), network_of(spec, form).graph) for form in ("drawn", "train")
    ]
    with Worker() as worker:
        drawn, compiled = profile_networks(networks, target, seconds=0.1, worker=worker)
    assert (drawn.form, compiled.form) == ("drawn", "train")
    for one in (drawn, compiled):
        assert one.runs >= 5
        assert one.overhead > 0
        assert sum(share.share for share in one.shares("op")) == pytest.approx(1)
        assert sum(share.ms for share in one.shares("stage")) == pytest.approx(one.total_ms)
    moved = [
        sum(row.kind == "reorder" and row.op_type == "aten::index_select" for row in one.rows)
        for one in (drawn, compiled)
    ]
    assert moved[0] > moved[1]


def test_a_profile_counts_the_runs_that_the_latency_counts():
    class LoadedNetwork:
        known_ms, runs, counted = None, 0, ()

        def timed(self, x):
            return lambda: None

        def profiler(self, x):
            return self

        def run(self):
            self.runs += 1

        def finish(self, counted):
            self.counted = counted

    loaded = LoadedNetwork()
    (plain,), _ = profiled([(loaded, np.zeros(1))], Sampling(budget_s=0.05, max_runs=30), None, Target("null"))
    assert len(loaded.counted) == len(plain.wall_ms) == 30
    warmup = loaded.runs - 30 - 10  # ten turns, each with one to begin
    assert loaded.counted[:4] == (warmup + 1, warmup + 2, warmup + 3, warmup + 5)


@pytest.mark.parametrize(
    ("on", "device"),
    [(["torch:cuda"], "cuda"), (["torch", "--device", "cuda"], "cuda"), (["torch"], "cpu"), (["tensorrt"], "cuda")],
)
def test_a_profile_is_taken_on_the_device_that_is_asked_for(on, device, monkeypatch, capfd):
    asked = []

    def take(networks, target, **how):
        asked.append(target.target)
        raise failed("no-profile", "far enough")

    monkeypatch.setattr("archdsl.cli.profile.profile_networks", take)
    monkeypatch.setattr("archdsl.cli.profile.artefact_of", lambda *arguments, **how: None)
    monkeypatch.setattr("archdsl.cli.profile.resolve", lambda target: SimpleNamespace(target=target))
    assert run(["profile", "micro_swin", "--on", *on]) == 2
    assert [target.device for target in asked] == [device] and "far enough" in capfd.readouterr().err


def test_a_runtime_that_is_missing_is_told_before_anything_is_timed(capfd):
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed")
    assert run(["profile", "micro_swin", "--on", "tensorrt"]) == 2
    shown = capfd.readouterr().err
    assert "[runtime-missing]" in shown and "profiling on" not in shown


def test_a_runtime_without_a_profiler_says_so(tmp_path):
    artefact = Artefact("null", "h", (3, 8, 8), name="counts")
    with Worker() as worker, pytest.raises(MeasureError, match="does not tell what single ops take") as caught:
        profile_networks([(artefact, lower(load("micro_swin")))], Target("null"), worker=worker)
    assert reason_of(caught.value) == "no-profile"
    assert "null" in RUNTIMES


def test_the_command_prints_a_table_and_json(capfd):
    arguments = ["profile", "micro_swin", "--form", "drawn,train", "--on", "torch", "--seconds", "0.1"]
    assert run(arguments) == 0
    shown = capfd.readouterr().out
    for word in ("reorder", "attention", "total of ops", "latency without profiler", "ratio"):
        assert word in shown
    assert run([*arguments, "--by", "stage", "--json"]) == 0
    profiles = json.loads(capfd.readouterr().out)["profiles"]
    assert [one["form"] for one in profiles] == ["drawn", "train"]
    assert {"stem", "stages.0", "head"} <= {row["name"] for row in profiles[0]["rows"]}


def test_a_misspelt_form_is_answered_with_the_right_one(capfd):
    assert run(["profile", "micro_swin", "--form", "dawn"]) == 1
    assert "did you mean `drawn`?" in capfd.readouterr().err
