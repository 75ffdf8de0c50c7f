"""ONNX Runtime with TensorRT, on a stand-in for the library: what it is told, what it keeps, how it refuses."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from archdsl.errors import MeasureError
from archdsl.failures import reason_of
from archdsl.latency.measurement import default_deadline_s
from archdsl.runtimes.adapters import onnx_tensorrt
from archdsl.runtimes.adapters.onnx_runtime import LEFT_TO_CPU
from archdsl.runtimes.adapters.onnx_tensorrt import PROVIDER, TensorRtSession, engines_folder, provider_settings
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.protocol import Profilable
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target, resolve

GPU = ("CUDAExecutionProvider", "CPUExecutionProvider")


class FakeOnnxRuntime:
    """The members of `onnxruntime` that sessions use. Making a session leaves an engine in the folder it is told."""

    def __init__(self, available=(PROVIDER, *GPU), used=(PROVIDER, "CPUExecutionProvider"), leaves_nodes=False):
        self.available, self.used, self.leaves_nodes = list(available), list(used), leaves_nodes
        self.made, self.did, self.loaded = [], [], []
        library = self

        class SessionOptions:
            def __init__(self):
                self.entries = {}

            def add_session_config_entry(self, key, value):
                self.entries[key] = value

        class Binding:
            def bind_ortvalue_input(self, name, value):
                library.did.append(f"input {name} on {value}")

            def bind_output(self, name, device):
                library.did.append(f"output {name} on {device}")

            def synchronize_outputs(self):
                library.did.append("wait")

        class InferenceSession:
            def __init__(self, path, options, *, providers, enable_fallback=1):
                entries = dict(options.entries)
                library.made.append({"entries": entries, "providers": providers, "fallback": enable_fallback})
                if library.leaves_nodes and entries["session.disable_cpu_ep_fallback"] == "1":
                    raise RuntimeError(f"nodes are assigned to the CPU EP, but {LEFT_TO_CPU} by the user")
                folder = providers[0][1].get("trt_engine_cache_path")
                if folder:
                    (onnx_tensorrt.Path(folder) / "piece_1.engine").write_bytes(b"an engine")

            def get_providers(self):
                return library.used

            def get_inputs(self):
                return [SimpleNamespace(name="x", type="tensor(float)")]

            def get_outputs(self):
                return [SimpleNamespace(name="y")]

            def io_binding(self):
                return Binding()

            def run_with_iobinding(self, binding):
                library.did.append("run")

        self.SessionOptions, self.InferenceSession = SessionOptions, InferenceSession
        self.ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)
        self.GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL=99)
        self.OrtValue = SimpleNamespace(ortvalue_from_numpy=lambda x, device, number: f"{device}:{number}")

    def get_available_providers(self):
        return self.available

    def preload_dlls(self):
        self.loaded.append("libraries of CUDA")


@pytest.fixture
def fake(monkeypatch):
    def make(**how):
        found = FakeOnnxRuntime(**how)
        monkeypatch.setitem(sys.modules, "onnxruntime", found)
        return found

    return make


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an ONNX file")
    return path


@pytest.fixture
def folder(model, tmp_path):
    return engines_folder(model, "1.31.1 with TensorRT 10.16", "a GPU", "600.1", tmp_path)


def engine_in(folder):
    return (folder / "piece_1.engine").read_bytes()


def test_all_nodes_are_tensorrts_and_the_precision_is_the_files(fake, model, folder):
    library = fake()
    TensorRtSession(str(model), 1, folder)
    (made,) = library.made
    ((name, settings),) = made["providers"]
    assert name == PROVIDER and made["fallback"] == 0
    assert made["entries"]["session.disable_cpu_ep_fallback"] == "1"
    assert settings["trt_fp16_enable"] == settings["trt_int8_enable"] == settings["trt_engine_hw_compatible"] == "False"
    assert settings["trt_engine_cache_path"] == str(folder)
    assert settings["trt_timing_cache_path"] == str(folder.parent)
    assert library.loaded == ["libraries of CUDA"]
    assert all(isinstance(value, str) for value in provider_settings(folder).values())


def test_a_run_is_from_the_gpus_memory_to_the_gpus_memory(fake, model, folder):
    library = fake()
    run = TensorRtSession(str(model), 1, folder).timed(np.ones((1, 3), np.float32))
    run()
    assert library.did == ["input x on cuda:0", "output y on cuda", "run", "wait"]


@pytest.mark.parametrize("used", [GPU, GPU[1:]], ids=["CUDA", "CPU"])
def test_a_session_on_another_provider_is_refused(used, fake, model, folder):
    fake(used=used)
    with pytest.raises(MeasureError, match=f"could not set up {PROVIDER}, and would have used {used[0]}") as caught:
        TensorRtSession(str(model), 1, folder)
    assert reason_of(caught.value) == "runtime-missing"
    assert "TensorRT versions" in caught.value.problems[0].hint


def test_nodes_that_tensorrt_leaves_over_are_an_error_and_not_a_detour(fake, model, folder):
    fake(leaves_nodes=True)
    with pytest.raises(MeasureError, match="does not run all nodes") as caught:
        TensorRtSession(str(model), 1, folder)
    assert reason_of(caught.value) == "wrong-artefact"
    fake(leaves_nodes=True, used=GPU[1:])  # the provider's own libraries are not there: it takes no node at all
    with pytest.raises(MeasureError, match="could not set up") as caught:
        TensorRtSession(str(model), 1, folder)
    assert reason_of(caught.value) == "runtime-missing"


def test_other_errors_of_a_session_stay_as_they_are(fake, model, folder, monkeypatch):
    library = fake()

    def broken(*_, **__):
        raise RuntimeError("engine build failed")

    monkeypatch.setattr(library, "InferenceSession", broken)
    with pytest.raises(RuntimeError, match="engine build failed"):
        TensorRtSession(str(model), 1, folder)


def test_engines_are_taken_up_again_only_as_they_were_left(fake, model, folder, monkeypatch):
    fake()
    TensorRtSession(str(model), 1, folder)
    seen = []
    real = onnx_tensorrt.take_up
    monkeypatch.setattr(onnx_tensorrt, "take_up", lambda f: (real(f), seen.append(sorted(p.name for p in f.iterdir()))))
    TensorRtSession(str(model), 1, folder)
    assert seen.pop() == ["contents.json", "piece_1.engine"]
    for damage in (
        lambda: (folder / "piece_1.engine").write_bytes(b"another engine"),
        lambda: (folder / "piece_2.engine").write_bytes(b"from somewhere"),
        lambda: (folder / "contents.json").write_text("{}"),
        lambda: (folder / "contents.json").unlink(),
    ):
        damage()
        TensorRtSession(str(model), 1, folder)
        assert seen.pop() == []
        assert engine_in(folder) == b"an engine"


def test_another_file_version_gpu_or_driver_has_another_folder(model, tmp_path):
    first = engines_folder(model, "1.31.1", "a GPU", "600.1", tmp_path)
    assert first == engines_folder(model, "1.31.1", "a GPU", "600.1", tmp_path)
    others = [("1.32.0", "a GPU", "600.1"), ("1.31.1", "b GPU", "600.1"), ("1.31.1", "a GPU", "601.0")]
    found = {engines_folder(model, *other, tmp_path) for other in others}
    model.write_bytes(b"other weights, the same names")
    found.add(engines_folder(model, "1.31.1", "a GPU", "600.1", tmp_path))
    assert len(found | {first}) == 5


def test_engines_used_long_ago_make_room(fake, tmp_path, monkeypatch):
    fake()
    monkeypatch.setattr(onnx_tensorrt, "MOST_KEPT", 2)
    folders = []
    for i in range(4):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(bytes([i]))
        folders.append(engines_folder(path, "1", "a GPU", "600", tmp_path))
        TensorRtSession(str(path), 1, folders[-1])
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_its_single_ops_are_not_told(fake, model, folder):
    fake()
    session = TensorRtSession(str(model), 1, folder)
    assert isinstance(session, Profilable)
    with pytest.raises(MeasureError, match="as one op") as caught:
        session.profiler(np.ones((1, 3), np.float32))
    assert reason_of(caught.value) == "no-profile"


def test_a_library_without_the_provider_is_told_with_what_brings_it(fake):
    fake(available=GPU)
    one = runtime("onnxruntime-tensorrt")
    for ask in (
        one.version,
        lambda: one.device_name("cuda"),
        lambda: resolve(Target("onnxruntime-tensorrt", device="cuda")),
    ):
        with pytest.raises(MeasureError) as caught:
            ask()
        assert reason_of(caught.value) == "runtime-missing"
        assert "pip install onnxruntime-gpu tensorrt" in caught.value.problems[0].hint


def test_a_network_is_loaded_from_the_users_cache_folder(fake, model, tmp_path, monkeypatch):
    library = fake()
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx_tensorrt, "library_version", lambda *_, **__: "1.31.1")
    monkeypatch.setattr("archdsl.backends.trt.library.gpu_name", lambda: "a GPU")
    target = Target("onnxruntime-tensorrt", device="cuda")
    runtime("onnxruntime-tensorrt").load(Artefact("onnx", "h", (3,), path=model), target.config)
    path = library.made[0]["providers"][0][1]["trt_engine_cache_path"]
    assert path.startswith(str(tmp_path / "cache" / "onnxruntime-tensorrt"))
    assert "a-GPU" in path


def test_a_measurement_waits_for_an_engine_to_be_built():
    target = Target("onnxruntime-tensorrt", device="cuda")
    assert default_deadline_s(runtime(target.runtime), 2.0) >= default_deadline_s(runtime("tensorrt"), 2.0) > 600
