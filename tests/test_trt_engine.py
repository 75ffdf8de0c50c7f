"""The TensorRT backend on a stand-in for TensorRT 10 and 11: what it asks for, what it reports, how it fails."""

from __future__ import annotations

import json
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from fake_tensorrt import FakeTensorRT, ParserError

from archdsl.backends import backend
from archdsl.backends.onnx import file as onnx_file
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.trt import engine as trt_engine
from archdsl.backends.trt import library as trt_library
from archdsl.backends.trt.attention import attention_cores
from archdsl.backends.trt.cache import TimingCacheWarning, cache_file
from archdsl.backends.trt.engine import Batches, EngineOptions, build_engine, emit, load_engine, status
from archdsl.backends.trt.report import AttentionCore, kind_of, report_of
from archdsl.backends.trt.run import load_plan
from archdsl.compiler import compile, deploy
from archdsl.errors import ArchError, BackendError
from archdsl.runtimes.adapters.tensorrt_profile import EngineProfiler

VERSIONS = ("10.16.1.11", "11.4.0.106")


@pytest.fixture(scope="module")
def graph():
    return compile("micro_swin")


@pytest.fixture(scope="module")
def dynamic(graph):
    return onnx_model.serialize(onnx_model.emit(graph, batch=None))


@pytest.fixture(scope="module")
def static(graph):
    return onnx_model.serialize(onnx_model.emit(graph, batch=4))


@pytest.fixture(params=VERSIONS)
def trt(request):
    return FakeTensorRT(request.param)


def asked(engine) -> dict:
    """What the stand-in was asked for."""
    return json.loads(engine.plan)


def refusal(*args, **how) -> BackendError:
    with pytest.raises(BackendError) as caught:
        build_engine(*args, **how)
    return caught.value


def rules(error: ArchError) -> list[str]:
    return [problem.rule for problem in error.problems]


# ---- what it asks for


def test_networks_are_strongly_typed_and_fp32_is_fp32_on_every_version(graph, trt):
    engine = emit(graph, trt=trt)
    assert asked(engine)["strongly_typed"]
    assert asked(engine)["flags"] == []  # TF32 is on unless it is taken away
    assert asked(engine)["detailed"] and asked(engine)["level"] == 3 and asked(engine)["pools"] == {}
    assert engine.tensorrt == trt.__version__


def test_every_option_reaches_the_builder(static, trt):
    options = EngineOptions(
        workspace_bytes=1 << 28,
        optimization_level=5,
        tf32=True,
        version_compatible=True,
        hardware_compatible=True,
        refit=True,
        strip_weights=True,
    )
    got = asked(build_engine(static, options, trt=trt))
    assert got["flags"] == ["REFIT", "STRIP_PLAN", "TF32", "VERSION_COMPATIBLE"]
    assert got["pools"] == {"WORKSPACE": 1 << 28}
    assert (got["level"], got["hardware"]) == (5, "AMPERE_PLUS")


def test_a_stripped_plan_without_refit_takes_back_the_same_weights_only(static, trt):
    assert asked(build_engine(static, EngineOptions(strip_weights=True), trt=trt))["flags"] == [
        "REFIT_IDENTICAL",
        "STRIP_PLAN",
    ]


def test_one_batch_size_gives_static_shapes_and_several_give_profiles(graph, trt):
    default, eight = (emit(graph, options=EngineOptions(batches=b), trt=trt) for b in ((), (Batches.only(8),)))
    for engine, batch in ((default, 1), (eight, 8)):
        assert asked(engine)["profiles"] == []
        assert [shape[0] for shape in asked(engine)["inputs"].values()] == [batch]
    both = asked(emit(graph, options=EngineOptions(batches=(Batches(1, 2, 4), Batches.only(32))), trt=trt))
    (name, shape) = next(iter(both["inputs"].items()))
    assert shape[0] == -1
    sizes = [[low[0] for low in profile[name]] for profile in both["profiles"]]
    assert sizes == [[1, 2, 4], [32, 32, 32]]
    assert all(side[1:] == shape[1:] for profile in both["profiles"] for side in profile[name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Batches(2, 1, 4), "1 <= min <= opt <= max"),
        (lambda: Batches(0, 1, 4), "1 <= min <= opt <= max"),
        (lambda: EngineOptions(optimization_level=6), "0 to 5"),
        (lambda: EngineOptions(workspace_bytes=0), "1 or more"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(BackendError, match=message):
        wrong()


def test_batches_must_fit_the_model(dynamic, static, trt):
    assert "must say which sizes" in str(refusal(dynamic, trt=trt))
    assert "the model's batch is 4" in str(refusal(static, EngineOptions(batches=(Batches.only(8),)), trt=trt))
    assert asked(build_engine(static, EngineOptions(batches=(Batches.only(4),)), trt=trt))["profiles"] == []


def test_only_the_batch_may_be_dynamic(dynamic, trt):
    model = onnx.load_model_from_string(dynamic)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    error = refusal(model.SerializeToString(), EngineOptions(batches=(Batches.only(1),)), trt=trt)
    assert rules(error) == ["dynamic-shape"]


def test_weights_beyond_protobuf_go_through_files(graph, trt, monkeypatch):
    monkeypatch.setattr(onnx_file, "EXTERNAL_BYTES", 1000)
    monkeypatch.setattr(onnx_file.write, "__kwdefaults__", {**onnx_file.write.__kwdefaults__, "external_bytes": 1000})
    monkeypatch.setattr(onnx_file, "INLINE_BYTES", 100)
    files = []

    def look(config):
        (folder,) = {Path(path).parent for path in seen}
        files.extend(path.suffix for path in folder.iterdir())

    seen: list[str] = []
    trt._while_building = look
    taken = trt.OnnxParser

    class Watching:
        def __new__(cls, network, logger):
            parser = taken(network, logger)
            parse = parser.parse_from_file
            parser.parse_from_file = lambda model: seen.append(model) or parse(model)
            return parser

    trt.OnnxParser = Watching
    assert emit(graph, trt=trt).report.layers
    assert sorted(files) == [".data", ".onnx"]
    assert not Path(seen[0]).exists()


# ---- what it reports


def test_the_report_tells_which_attentions_are_one_kernel(graph):
    fused = emit(graph, trt=FakeTensorRT(fuses=True)).report
    apart = emit(graph, trt=FakeTensorRT(fuses=False)).report
    paths = [node.path for node in graph.live() if type(node.op).__name__ == "Attention"]
    assert len(paths) > 1
    assert fused.attentions == dict.fromkeys(paths, "fused")
    assert apart.attentions == dict.fromkeys(paths, "apart")
    assert fused.counts()["attention"] == len(paths)
    assert fused.text().count("\n") < apart.text().count("\n")


def test_attention_cores_are_found_through_bias_casts_and_as_one_op():
    def value(name):
        return ir.Value(name=name)

    q, k, v, bias = map(value, ("q", "k", "v", "bias"))
    nodes, x = [], None
    for name, op, inputs in (
        ("a.attn/logits", "MatMul", (q, k)),
        ("a.attn/Add", "Add", (None, bias)),
        ("a.attn/Cast", "Cast", (None,)),
        ("a.attn/Softmax", "Softmax", (None,)),
        ("a.attn/Cast_2", "Cast", (None,)),
        ("a.attn/mixed", "MatMul", (None, v)),
        ("head/Softmax", "Softmax", (None,)),
        ("b.attn", "Attention", (None, k, v)),
    ):
        nodes.append(ir.Node("", op, [x if i is None else i for i in inputs], name=name, num_outputs=1))
        x = nodes[-1].outputs[0]
    model = ir.Model(ir.Graph([q, k, v, bias], [x], nodes=nodes, opset_imports={"": 23}), ir_version=10)
    assert attention_cores(model) == (
        AttentionCore("a.attn", ("a.attn/logits", "a.attn/Softmax", "a.attn/mixed")),
        AttentionCore("b.attn", ("b.attn",)),
    )


CORE = AttentionCore("attn", ("attn/logits", "attn/Softmax", "attn/mixed"))
WHOLE = "".join(f"\x1f[ONNX Layer: {name}]" for name in CORE.nodes)


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        ([{"Name": "_gemm_mha_v2_myl0_3", "LayerType": "kgen", "Metadata": WHOLE}], "fused"),
        ([{"Name": "__myl_Fc_myl0_3", "LayerType": "kgen", "Metadata": WHOLE}], "fused"),
        ([{"Name": "_gemm_mha_v2_myl0_3", "LayerType": "kgen", "Metadata": "[ONNX Layer: attn/Softmax]"}], "fused"),
        ([{"Name": "k", "LayerType": "gemm", "TacticName": "fmha_sm89", "Metadata": WHOLE[:30]}], "fused"),
        ([{"Name": "attn/logits + attn/Softmax + attn/mixed", "LayerType": "kgen"}], "fused"),
        ([{"Name": "m", "LayerType": "gemm", "Metadata": "[ONNX Layer: attn/logits]"}], "apart"),
        (["attn/logits", "attn/Softmax", "attn/mixed"], "apart"),
        ([{"Name": "{ForeignNode[attn/logits...attn/mixed]}", "LayerType": "Myelin", "Metadata": WHOLE}], "unknown"),
        ([{"Name": "Reformatting CopyNode for Input", "Metadata": "[ONNX Layer: attn/logits]"}], "unknown"),
        (
            [
                {"Name": "_gemm_mha_v2_myl0_3", "LayerType": "kgen", "Metadata": WHOLE},
                {"Name": "m [profile 1]", "LayerType": "gemm", "Metadata": "[ONNX Layer: attn/logits]"},
            ],
            "apart",
        ),
        ([], "unknown"),
    ],
)
def test_an_attention_is_fused_apart_or_unknown(layers, verdict):
    assert report_of(json.dumps({"Layers": layers}), [CORE]).attentions == {"attn": verdict}


@pytest.mark.parametrize(("kernels", "verdict"), [(["kgen"], "fused"), (["gemm", "kgen"], "apart")])
def test_an_attention_op_that_became_several_kernels_is_apart(kernels, verdict):
    layers = [{"Name": f"k{i}", "LayerType": type, "Metadata": "[ONNX Layer: a]"} for i, type in enumerate(kernels)]
    assert report_of(json.dumps({"Layers": layers}), [AttentionCore("a", ("a",))]).attentions == {"a": verdict}


@pytest.mark.parametrize(
    ("name", "type", "kind"),
    [
        ("_gemm_mha_v2_myl3_6", "kgen", "attention"),
        ("_gemv_mha_v1_myl0_1", "kgen", "attention"),
        ("__myl_TranReshMove_myl3_4", "kgen", "shuffle"),
        ("__myl_bb1_2_TraSliSliResTraResMovSli", "kgen", "shuffle"),
        ("__myl_Cast_myl0_2", "kgen", "cast"),
        ("__myl_ConcAddCastMeanSubMul_myl3_1", "kgen", "pointwise"),
        ("stages.0.blocks.0.attn.qkv/MatMul_myl0_4", "gemm", "linear"),
        ("Reformatting CopyNode for Input Tensor 0 to stem", "Reformat", "reformat"),
        ("stem", "CaskConvolution", "convolution"),
        ("{ForeignNode[stem...head]}", "Myelin", "region"),
        ("__mye6944", "wait", "wait"),
        ("dynamo", "Flux", "other"),
        ("", "", "other"),
    ],
)
def test_a_layer_is_of_the_kind_its_kernel_or_type_says(name, type, kind):
    assert kind_of(name, type) == kind


def test_layers_of_no_known_kind_are_counted_and_named():
    report = report_of(json.dumps({"Layers": [{"Name": "a", "LayerType": "Flux"}, {"Name": "b", "LayerType": "gemm"}]}))
    assert report.counts() == {"linear": 1, "other": 1}
    assert report.others == ("Flux: a",)
    assert "other: Flux: a" in report.text()


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "null", '{"Layers": null}', '{"Layers": [1, null, []]}', '{"Layers": {"a": 1}}', "{}"],
)
def test_what_is_no_report_gives_an_empty_one(text):
    report = report_of(text, [CORE])
    assert report.layers == () and report.attentions == {"attn": "unknown"}


def test_odd_entries_in_a_report_are_read_as_far_as_they_go():
    layers = [{"Name": 3, "Outputs": [{"Format/Datatype": "Half"}, "x", {}]}, {"Outputs": "y", "Metadata": None}]
    first, second = report_of(json.dumps({"Layers": layers})).layers
    assert first.name == "3" and first.formats == ("Half",) and second.name == ""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_attentions_of_deployed_networks_are_found(graph, precision):
    network = deploy("micro_swin", precision=precision)
    report = emit(network.graph, network.weights, trt=FakeTensorRT()).report
    assert len(report.attentions) == sum(type(node.op).__name__ == "Attention" for node in graph.live())
    assert set(report.attentions.values()) == {"fused"}


# ---- on disk


def test_a_saved_engine_reads_back_equal(graph, tmp_path, trt):
    engine = emit(graph, options=EngineOptions(batches=(Batches(1, 2, 4),), timing_cache=tmp_path / "t"), trt=trt)
    path = engine.save(tmp_path / "net.plan")
    assert load_engine(path) == engine.__class__(**{**engine.__dict__, "build_s": round(engine.build_s, 3)})


@pytest.mark.promise(38)
def test_a_plan_that_is_not_its_sidecars_is_refused(graph, tmp_path):
    path = emit(graph, trt=FakeTensorRT()).save(tmp_path / "net.plan")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BackendError, match=r"is not the plan that net\.plan\.json tells of"):
        load_engine(path)
    for broken in ("", "[]", '{"tensorrt": 1}'):
        (tmp_path / "net.plan.json").write_text(broken)
        with pytest.raises(BackendError, match="is no saved engine"):
            load_engine(path)
    with pytest.raises(BackendError, match="is no saved engine"):
        load_engine(tmp_path / "nothing.plan")


# ---- how it fails


def test_the_backend_is_in_the_table_and_loads_without_tensorrt():
    assert backend("tensorrt") is trt_engine


def test_tensorrt_missing_is_told_with_what_brings_it(static, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    error = refusal(static)
    assert rules(error) == ["missing-library"]
    assert "pip install 'archdsl[tensorrt]'" in str(error)


def import_raising(monkeypatch, error: Exception) -> None:
    real = trt_library.import_module
    fake = lambda name: (_ for _ in ()).throw(error) if name == "tensorrt" else real(name)  # noqa: E731
    monkeypatch.setattr(trt_library, "import_module", fake)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ImportError("libnvinfer.so.11: cannot open shared object file: No such file or directory"),
            "libnvinfer.so.11",
        ),
        (OSError("libcudart.so.13 is missing"), r"libcudart\.so\.13"),
        (ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings"), "in part"),
    ],
    ids=["library", "cuda", "bindings"],
)
def test_bindings_without_their_libraries_are_told(monkeypatch, error, message):
    import_raising(monkeypatch, error)
    with pytest.raises(BackendError, match=message) as caught:
        trt_library.load_tensorrt()
    assert rules(caught.value) == ["missing-library"]


@pytest.mark.parametrize("version", ["8.6.1", "10.11.0.33", "12.0.0", "", "unknown"])
def test_versions_outside_the_range_are_refused(version, monkeypatch):
    module = ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BackendError, match=r"10\.12 to 11\.x") as caught:
        trt_library.load_tensorrt()
    assert rules(caught.value) == ["version"]


@pytest.mark.parametrize("version", ["10.12.0.36", "10.16.1.11", "11.0.0", "11.4.0.106"])
def test_versions_inside_the_range_are_taken(version):
    trt_library.check_version(version)


def test_no_gpu_is_told_with_the_drivers_words(static):
    error = refusal(static, trt=FakeTensorRT(gpu=False))
    assert rules(error) == ["no-gpu"]
    assert "CUDA initialization failure with error: 100" in str(error)


def test_all_parser_errors_are_told_each_at_its_node_and_path(static):
    errors = [
        ParserError("UNSUPPORTED_NODE", "no importer for Flux", "stages.0.blocks.1.attn/Flux", "Flux"),
        ParserError("INVALID_NODE", "bad axes", "head.norm", "ReduceMean"),
    ]
    error = refusal(static, trt=FakeTensorRT(parser_errors=errors))
    assert rules(error) == ["parser", "parser"]
    assert [problem.path for problem in error.problems] == ["stages.0.blocks.1.attn", "head.norm"]
    assert "no importer for Flux (UNSUPPORTED_NODE)" in str(error) and "ReduceMean 'head.norm'" in str(error)


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path):
    assert rules(refusal(b"\xff\xff\xff", trt=FakeTensorRT())) == ["not-onnx"]
    assert rules(refusal(tmp_path / "missing.onnx", trt=FakeTensorRT())) == ["not-onnx"]


def test_a_builder_that_gives_up_is_told_with_its_last_errors(static):
    messages = [("WARNING", "odd"), ("ERROR", "Error Code 10: Could not find any implementation for node x")]
    error = refusal(static, trt=FakeTensorRT(build_fails=True, build_messages=messages))
    assert rules(error) == ["tensorrt"]
    assert "Could not find any implementation for node x" in str(error) and "odd" not in str(error)
    assert "gave no reason" in str(refusal(static, trt=FakeTensorRT(build_fails=True)))


@pytest.mark.parametrize(
    "how",
    [
        {"build_fails": True, "build_messages": [("ERROR", "Error Code 1: Cuda Runtime (out of memory)")]},
        {"build_fails": True, "build_messages": [("ERROR", "Error Code 2: OutOfMemory (requested 8 GiB)")]},
        {"build_raises": MemoryError()},
        {"build_raises": RuntimeError("std::bad_alloc")},
    ],
    ids=str,
)
def test_memory_that_ran_out_is_told_as_such(static, how):
    error = refusal(static, trt=FakeTensorRT(**how))
    assert rules(error) == ["out-of-memory"] and "workspace_bytes" in str(error)


def test_whatever_the_bindings_raise_is_an_error_of_ours(static):
    error = refusal(static, trt=FakeTensorRT(build_raises=RuntimeError("pybind says no")))
    assert rules(error) == ["tensorrt"] and "pybind says no" in str(error)


def test_an_engine_that_cannot_be_inspected_is_still_an_engine(static):
    trt = FakeTensorRT()
    trt._inspected = lambda plan: (_ for _ in ()).throw(RuntimeError("no inspector"))
    engine = build_engine(static, trt=trt)
    assert engine.report is None and engine.notes == (
        "no report: TensorRT failed while it inspected the engine: no inspector",
    )


def test_warnings_are_kept_with_the_engine(static):
    assert build_engine(static, trt=FakeTensorRT(build_messages=[("WARNING", "slow")] * 2)).notes == ("slow",)


# ---- timing cache


def test_a_second_build_times_nothing_again(static, tmp_path, trt):
    options = EngineOptions(timing_cache=tmp_path / "new" / "timings")
    first, second = (asked(build_engine(static, options, trt=trt))["timed"] for _ in range(2))
    assert first > 10 and second == 0
    assert [path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")] == ["timings"]


def test_a_folder_holds_a_file_for_each_version_and_gpu(tmp_path):
    one, two = (cache_file(tmp_path, version, "NVIDIA H100 80GB") for version in VERSIONS)
    assert one != two and one.name == "tensorrt-10.16.1.11-NVIDIA-H100-80GB.timings"
    assert cache_file(tmp_path / "file", "10.16.1.11", "any") == tmp_path / "file"


def foreign(tmp_path: Path, static: bytes, **how) -> bytes:
    path = tmp_path / "other"
    build_engine(static, EngineOptions(timing_cache=path), trt=FakeTensorRT(**how))
    return path.read_bytes()


@pytest.mark.parametrize("case", ["damaged", "not a cache", "cut", "another version", "another device"])
def test_a_cache_that_tensorrt_refuses_is_moved_aside_and_a_new_one_begun(case, static, tmp_path):
    data = {
        "damaged": lambda: foreign(tmp_path, static)[:-1] + b"?",
        "not a cache": lambda: b"my only copy of something else",
        "cut": lambda: foreign(tmp_path, static)[:100],
        "another version": lambda: foreign(tmp_path, static, version="11.4.0.106"),
        "another device": lambda: foreign(tmp_path, static, device="another"),
    }[case]()
    path = tmp_path / "timings"
    path.write_bytes(data)
    options = EngineOptions(timing_cache=path)
    with pytest.warns(TimingCacheWarning, match=r"cannot use the timing cache .* it is now timings\.unused-"):
        assert asked(build_engine(static, options, trt=FakeTensorRT()))["timed"] > 10
    assert [aside.read_bytes() for aside in tmp_path.glob("timings.unused-*")] == [data]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asked(build_engine(static, options, trt=FakeTensorRT()))["timed"] == 0


def other_model(static: bytes) -> bytes:
    model = onnx.load_model_from_string(static)
    for node in model.graph.node:
        node.name = f"other.{node.name}"
    return model.SerializeToString()


def test_two_builds_at_once_keep_the_timings_of_both(static, tmp_path):
    options = EngineOptions(timing_cache=tmp_path / "timings")
    together = threading.Barrier(2, timeout=60)  # both have read the file before either writes it
    models = [static, other_model(static)]
    failures = []

    def build(model):
        try:
            build_engine(model, options, trt=FakeTensorRT(while_building=lambda config: together.wait()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=build, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [asked(build_engine(model, options, trt=FakeTensorRT()))["timed"] for model in models] == [0, 0]


def test_a_cache_that_was_damaged_during_the_build_costs_no_build(static, tmp_path):
    path = tmp_path / "timings"
    trt = FakeTensorRT(while_building=lambda config: path.write_bytes(b"damage"))
    with pytest.warns(TimingCacheWarning, match="cannot use"):
        build_engine(static, EngineOptions(timing_cache=path), trt=trt)
    assert asked(build_engine(static, EngineOptions(timing_cache=path), trt=FakeTensorRT()))["timed"] == 0


def test_a_cache_that_cannot_be_written_costs_no_build(static, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(TimingCacheWarning, match="cannot be read: Not a directory"):
        assert build_engine(static, EngineOptions(timing_cache=tmp_path / "file" / "timings"), trt=FakeTensorRT()).plan
    trt = FakeTensorRT(while_building=lambda config: (tmp_path / "timings").mkdir())
    with pytest.warns(TimingCacheWarning, match="could not be saved"):
        assert build_engine(static, EngineOptions(timing_cache=tmp_path / "timings"), trt=trt).plan


def test_a_lock_that_is_never_given_back_costs_no_build(static, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("archdsl.backends.trt.cache.LOCK_S", 0.05)
    with open(tmp_path / ".timings.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.warns(TimingCacheWarning, match="could not be saved: another build has held the lock"):
            build_engine(static, EngineOptions(timing_cache=tmp_path / "timings"), trt=FakeTensorRT())
    assert not (tmp_path / "timings").exists()


# ---- on the GPU, or what stands for it


class HostMemory:
    stream = 7

    def __init__(self):
        self.shapes = []

    def allocate(self, shape, dtype):
        self.shapes.append((*shape, dtype))
        return 4096 * len(self.shapes)

    def wait(self):
        pass

    def put(self, address, x):
        assert self.shapes[address // 4096 - 1][:-1] == x.shape


def profile(loaded, batch, runs=1, layers=()):
    """The times of an engine's layers, and the buffers that it was given."""
    memory = HostMemory()
    profiler = EngineProfiler(loaded, layers, np.zeros((batch, 3, 32, 32), np.float32), memory)
    for _ in range(runs):
        profiler.run()
    return profiler.finish(range(runs)).ops, memory


def test_the_time_of_each_layer_is_taken_over_runs_at_each_batch(graph, trt):
    engine = emit(graph, options=EngineOptions(batches=(Batches(1, 1, 2), Batches(4, 8, 8))), trt=trt)
    loaded = load_plan(trt, engine.plan)
    one, _ = profile(loaded, 1, runs=4, layers=engine.report.layers)
    eight, memory = profile(loaded, 8, runs=4, layers=engine.report.layers)
    assert len(one) == len([layer for layer in engine.report.layers if layer.profile == 0])
    assert sum(op.ms for op in eight) == pytest.approx(8 * sum(op.ms for op in one))
    assert one[0].ms == pytest.approx(0.01)
    assert sum(op.op_type == "attention" for op in one) == engine.report.counts()["attention"]
    assert memory.shapes[0][0] == 8 and memory.shapes[0][-1] == "FLOAT"
    with pytest.raises(BackendError, match="was not built for batch 3"):
        profile(loaded, 3)


def test_an_engine_of_one_batch_runs_at_that_one(static, trt):
    loaded = load_plan(trt, build_engine(static, trt=trt).plan)
    assert profile(loaded, 4)[0]
    with pytest.raises(BackendError, match="was not built for batch 1"):
        profile(loaded, 1)


def test_a_stripped_plan_runs_once_it_has_its_weights(static, trt):
    engine = build_engine(static, EngineOptions(strip_weights=True), trt=trt)
    with pytest.raises(BackendError, match="weights are missing"):
        profile(load_plan(trt, engine.plan), 4)
    assert profile(load_plan(trt, engine.plan, weights=static), 4)[0]
    with pytest.raises(BackendError, match="does not take the model's weights: the model is another one"):
        load_plan(trt, engine.plan, weights=other_model(static))


@pytest.mark.promise(38)
def test_a_version_compatible_plan_may_bring_code_only_when_it_is_trusted(static, trt):
    engine = build_engine(static, EngineOptions(version_compatible=True), trt=trt)
    assert engine.report
    with pytest.raises(BackendError, match="host code"):
        load_plan(trt, engine.plan)


def test_a_plan_of_another_version_or_of_nothing_is_refused(static):
    old = build_engine(static, trt=FakeTensorRT("10.16.1.11")).plan
    for plan, message in ((old, "not compatible with this version"), (b"?", "magic tag")):
        with pytest.raises(BackendError, match=message):
            load_plan(FakeTensorRT("11.4.0.106"), plan)


# ---- status


def test_status_never_raises_and_names_what_helps():
    def missing():
        raise trt_library.failure("missing-library", "TensorRT is not installed", trt_library.CLASSIC.install)

    def broken():
        raise RuntimeError("odd")

    assert status(missing) == (False, "TensorRT is not installed", "pip install 'archdsl[tensorrt]'")
    assert status(broken) == (False, "TensorRT cannot be asked: odd", None)
    assert status(FakeTensorRT, lambda: None) == (
        False,
        "TensorRT 10.16.1.11, but no NVIDIA GPU was found",
        "nvidia-smi",
    )
    ready = status(FakeTensorRT, lambda: "a GPU")
    assert ready.ready and "TensorRT 10.16.1.11 on a GPU" in ready.found
