"""Engines kept on disk: taken up where everything agrees, built anew where anything does not. On a stand-in."""

from __future__ import annotations

import json

import pytest
from fake_tensorrt import FakeTensorRT

from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.trt import engine_cache
from archdsl.backends.trt.cache import TimingCacheWarning, cache_file
from archdsl.backends.trt.engine import Batches, EngineOptions, build_engine, load_engine, sidecar
from archdsl.compiler import compile

OPTIONS = EngineOptions(batches=(Batches.only(2),))


@pytest.fixture
def model(tmp_path):
    return onnx_model.write(onnx_model.emit(compile("micro_swin"), batch=2), tmp_path / "model.onnx")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine whose GPU and driver can be told; its entries can be changed."""
    told = {"gpu": "a GPU", "driver": "600.1"}
    for module in ("engine_cache", "engine"):
        monkeypatch.setattr(f"archdsl.backends.trt.{module}.gpu_name", lambda: told["gpu"])
        monkeypatch.setattr(f"archdsl.backends.trt.{module}.gpu_driver", lambda: told["driver"])
    return told


@pytest.fixture
def built(monkeypatch):
    """What is built, in order."""
    found = []

    def build(*arguments, **how):
        found.append(build_engine(*arguments, **how))
        return found[-1]

    monkeypatch.setattr(engine_cache, "build_engine", build)
    return found


def engine(model, tmp_path, *, options=OPTIONS, version="10.16.1.11"):
    return engine_cache.cached_engine(model, options, tmp_path / "engines", trt=FakeTensorRT(version))


def test_an_engine_is_built_once(model, tmp_path, built):
    first = engine(model, tmp_path)
    second = engine(model, tmp_path)
    assert len(built) == 1
    assert second.plan == first.plan and second.driver == "600.1" and second.report == first.report


@pytest.mark.promise(36)
def test_a_mismatch_is_built_anew_and_never_loaded(model, tmp_path, built, machine):
    engine(model, tmp_path)
    changes = [
        lambda: machine.update(driver="601.0"),
        lambda: machine.update(gpu="another GPU"),
        lambda: model.write_bytes(model.read_bytes().replace(b"micro_swin", b"micro_swim")),
    ]
    for num, change in enumerate(changes, start=2):
        change()
        engine(model, tmp_path)
        assert len(built) == num
        engine(model, tmp_path)
        assert len(built) == num
    engine(model, tmp_path, version="11.4.0.106")
    engine(model, tmp_path, options=EngineOptions(batches=(Batches.only(2),), optimization_level=5))
    assert len(built) == 6
    timings = EngineOptions(batches=(Batches.only(2),), timing_cache=tmp_path / "timings")
    engine(model, tmp_path, options=timings)  # how long the build took is no difference
    assert len(built) == 6


def test_every_fact_of_the_sidecar_counts(model, tmp_path, built):
    """Each is changed in the file, as if the engine had come from elsewhere under the same name."""
    engine(model, tmp_path)
    (path,) = (tmp_path / "engines").glob("*.engine")
    sound = json.loads(sidecar(path).read_text())
    changed = {"tensorrt": "10.12.0", "gpu": "b", "driver": "1", "onnx_sha256": "0", "plan_sha256": "0"}
    options = {**sound["options"], "tf32": True}
    for num, (key, value) in enumerate([*changed.items(), ("options", options)], start=2):
        sidecar(path).write_text(json.dumps({**sound, key: value}))
        engine(model, tmp_path)
        assert len(built) == num, key
    path.write_bytes(path.read_bytes() + b" ")  # another plan under the same name
    engine(model, tmp_path)
    sidecar(path).unlink()
    engine(model, tmp_path)
    assert len(built) == 9
    assert load_engine(path).driver == "600.1"


@pytest.mark.parametrize("unknown", ["gpu", "driver"])
def test_where_the_machine_cannot_be_told_nothing_is_kept(model, tmp_path, built, machine, unknown):
    machine[unknown] = None
    engine(model, tmp_path)
    engine(model, tmp_path)
    assert len(built) == 2 and not (tmp_path / "engines").exists()


def test_engines_used_long_ago_make_room(model, tmp_path, built, monkeypatch):
    monkeypatch.setattr(engine_cache, "MAX_CACHED", 2)
    for level in (1, 2, 3):
        engine(model, tmp_path, options=EngineOptions(batches=(Batches.only(2),), optimization_level=level))
    engines = list((tmp_path / "engines").glob("*.engine"))
    assert len(engines) == 2 and all(sidecar(path).exists() for path in engines)
    assert len(list((tmp_path / "engines").iterdir())) == 4


def test_an_engine_that_cannot_be_kept_is_used_all_the_same(model, tmp_path, built):
    (tmp_path / "engines").write_text("in the way")
    with pytest.warns(TimingCacheWarning, match="could not be kept"):
        assert engine(model, tmp_path).plan


@pytest.mark.promise(36)
def test_the_sidecar_tells_the_driver_and_the_timings_it_was_built_from(model, tmp_path):
    import hashlib

    options = EngineOptions(batches=(Batches.only(2),), timing_cache=tmp_path / "timings")
    found = build_engine(model, options, trt=FakeTensorRT())
    told = json.loads(sidecar(found.save(tmp_path / "net.plan")).read_text())
    file = cache_file(tmp_path / "timings", "10.16.1.11", "a GPU")
    assert told["timing_cache_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["driver"] == "600.1"
    assert {"plan_sha256", "onnx_sha256", "tensorrt", "gpu", "options"} < set(told)


def test_a_sidecar_from_before_drivers_were_told_is_read_and_not_taken_up(model, tmp_path, built):
    engine(model, tmp_path)
    (path,) = (tmp_path / "engines").glob("*.engine")
    told = json.loads(sidecar(path).read_text())
    del told["driver"], told["timing_cache_sha256"]
    sidecar(path).write_text(json.dumps(told))
    assert load_engine(path).driver is None
    engine(model, tmp_path)
    assert len(built) == 2
