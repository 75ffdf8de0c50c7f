"""A build is whole or not there at all, and nothing in it computes anything but its network."""

import hashlib
import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fake_tensorrt import FakeTensorRT

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx import file as onnx_file
from archdsl.backends.onnx import run as onnx_run
from archdsl.backends.onnx.opsets import newest_opset
from archdsl.backends.parity import in_batches, parity_of
from archdsl.builds import makers
from archdsl.builds.config import KINDS, BuildConfig
from archdsl.builds.folder import new_contents, write_marker
from archdsl.builds.makers import MAKERS
from archdsl.builds.write import write_build
from archdsl.cli.main import run
from archdsl.errors import ArchError, BackendError
from archdsl.language import loads
from archdsl.weights.writing import write_weights

MICRO = """
name: micro
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: swin, depth: 2, heads: 2, window: 2, shift: true}]
head: {type: classifier, classes: 3}
"""
SPEC = loads(MICRO)


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    path = tmp_path / "micro.yaml"
    path.write_text(MICRO)
    return path


def other_weights(seed: int = 5) -> dict[str, np.ndarray]:
    return initial_weights(archdsl.compile(SPEC), seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_whole(folder: Path) -> bool:
    """Whether build.json is there and every file is as it says."""
    if not (folder / "build.json").exists():
        return False
    files = json.loads((folder / "build.json").read_text())["files"]
    assert all(hashlib.sha256((folder / f["name"]).read_bytes()).hexdigest() == f["sha256"] for f in files)
    return True


# ---- what is made


def test_there_is_a_maker_for_every_kind():
    assert set(MAKERS) == set(KINDS)


@pytest.mark.parametrize(
    ("how", "form", "precision"),
    [
        ({}, "deploy", "fp32"),
        ({"deploy": False}, "train", "fp32"),
        ({"precision": "fp16", "batch": None}, "deploy", "fp16"),
        ({"precision": "bf16", "batch": 3}, "deploy", "bf16"),
    ],
)
def test_every_artefact_says_what_it_is_and_was_run(how, form, precision, tmp_path):
    facts = write_build(BuildConfig(SPEC, emit=("torch", "source", "onnx", "pt2"), **how), tmp_path / "out")
    made = {each["kind"]: each for each in facts["artefacts"]}
    assert {kind: (each["form"], each["precision"]) for kind, each in made.items()} == {
        "torch": ("train", "fp32"),
        "source": ("train", "fp32"),
        "onnx": (form, precision),
        "pt2": (form, precision),
    }
    for each in made.values():
        assert each["parity"]["passed"] and each["parity"]["images"] == 4 and each["run_by"]
    assert made["onnx"]["batch"] == made["pt2"]["batch"] == (how.get("batch", 1) or "dynamic")
    assert is_whole(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "build.json").read_text()) == facts
    named = {name for each in made.values() for name in each["files"]} | {"spec.yaml", "build.json"}
    assert set(contents(tmp_path / "out")) == named


def test_a_dynamic_batch_takes_any(tmp_path):
    write_build(BuildConfig(SPEC, emit=("onnx", "pt2"), batch=None), tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    want = archdsl.build(SPEC).eval()
    for size in (1, 2, 7):
        x = torch.randn(size, 3, 16, 16)
        for got in (session.run(None, {"image": x.numpy()})[0], program(x).detach().numpy()):
            np.testing.assert_allclose(got, want(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("batch", "sizes"), [(None, [1, 6]), (1, [1] * 5), (2, [2, 2, 2]), (16, [16])])
def test_images_are_given_in_the_batches_that_are_asked_for(batch, sizes):
    seen: list[int] = []
    images = np.arange(5.0).reshape(5, 1, 1, 1)
    got = in_batches(lambda piece: seen.append(len(piece)) or piece * 2, images, batch)
    assert seen == sizes and (got == images * 2).all()


def test_large_weights_lie_beside_the_model_and_belong_to_the_build(tmp_path, monkeypatch):
    monkeypatch.setitem(onnx_file.write.__kwdefaults__, "external_bytes", 1000)
    monkeypatch.setattr(onnx_file, "INLINE_BYTES", 500)
    out = tmp_path / "out"
    first = write_build(BuildConfig(SPEC, emit=("onnx",)), out)
    second = write_build(BuildConfig(SPEC, other_weights(), emit=("onnx",)), out)
    names = [[name for name in each["artefacts"][0]["files"] if name.endswith(".data")] for each in (first, second)]
    assert [len(found) for found in names] == [1, 1] and names[0] != names[1]
    assert sorted(contents(out)) == sorted(["build.json", "spec.yaml", "model.onnx", *names[1]])
    assert is_whole(out)


def test_an_onnx_file_found_on_a_disk_says_what_it_is(tmp_path):
    for deploy, precision in ((False, "fp32"), (True, "fp16")):
        archdsl.export_onnx(SPEC, tmp_path / "found.onnx", deploy=deploy, precision=precision)
        said = {entry.key: entry.value for entry in onnx.load(tmp_path / "found.onnx").metadata_props}
        assert archdsl.identity(loads(said["spec_yaml"])) == said["identity"] == archdsl.identity(SPEC)
        assert (said["form"], said["precision"]) == ("deploy" if deploy else "train", precision)
        assert said["archdsl_version"] and said["graph_hash"] and said["spec"] == "micro"


def test_an_engine_is_built_for_the_batch_but_not_said_to_have_been_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT("11.4.0.106"))
    facts = write_build(BuildConfig(SPEC, emit=("tensorrt",), batch=4), tmp_path / "out")
    (made,) = facts["artefacts"]
    assert made["files"] == ["model.engine", "model.engine.json"] and made["parity"] is None and made["unmeasured"]
    told = json.loads((tmp_path / "out" / "model.engine.json").read_text())
    assert told["options"]["batches"] == [{"min": 4, "opt": 4, "max": 4}]


def test_without_a_runtime_for_it_a_file_is_kept_as_unmeasured(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_run, "find_spec", lambda name: None if name == "openvino" else object())
    (made,) = write_build(BuildConfig(SPEC, emit=("onnx",), precision="bf16"), tmp_path / "out")["artefacts"]
    assert made["parity"] is None and "openvino" in made["unmeasured"]


def test_the_folder_of_a_build_builds_again(micro, tmp_path):
    write_build(BuildConfig(SPEC, other_weights()), tmp_path / "first")
    assert run(["build", str(tmp_path / "first"), "-o", str(tmp_path / "second")]) == 0
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert all(first[name] == second[name] for name in ("model.safetensors", "model.onnx", "spec.yaml"))
    (tmp_path / "first" / "model.safetensors").unlink()
    assert run(["build", str(tmp_path / "first"), "-o", str(tmp_path / "third")]) == 1


# ---- the numeric gate


def other_network(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Let one maker write a network with other numbers, as a bug might."""
    real_export, real_build, real_write, weights = (
        makers.export_onnx,
        makers.build,
        makers.write_weights,
        {name: torch.from_numpy(x) for name, x in other_weights().items()},
    )
    if kind == "onnx":
        monkeypatch.setattr(makers, "export_onnx", lambda s, p, w, *a, **k: real_export(s, p, weights, *a, **k))
    elif kind == "pt2":
        monkeypatch.setattr(makers, "build", lambda s, w, **k: real_build(s, weights, **k))
    else:
        monkeypatch.setattr(makers, "write_weights", lambda path, state: real_write(path, weights))


@pytest.mark.parametrize("kind", ["torch", "source", "onnx", "pt2"])
def test_an_artefact_that_answers_differently_is_refused_and_nothing_of_it_stays(kind, tmp_path, monkeypatch):
    write_build(BuildConfig(SPEC), tmp_path / "out")
    before = contents(tmp_path / "out")
    other_network(monkeypatch, kind)
    for out in (tmp_path / "out", tmp_path / "new" / "folder"):
        with pytest.raises(BackendError, match=rf"the {kind} artefact .* does not compute the network") as error:
            write_build(BuildConfig(SPEC, emit=("onnx", kind)), out)
        assert error.value.problems[0].rule == "numeric-gate"
    assert contents(tmp_path / "out") == before
    assert not (tmp_path / "new").exists()


def test_a_file_that_no_runtime_can_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "export_onnx", lambda s, path, *a, **k: path.write_bytes(b"not a model"))
    with pytest.raises(BackendError, match=r"no runtime here can run model\.onnx: onnxruntime: ") as error:
        write_build(BuildConfig(SPEC, emit=("onnx",)), tmp_path / "out")
    assert error.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_outputs_of_another_shape_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "run_onnx", lambda path, images, precision: ("onnxruntime", np.zeros((4, 7))))
    with pytest.raises(BackendError, match=r"outputs \[4, 3\] are due"):
        write_build(BuildConfig(SPEC, emit=("onnx",)), tmp_path / "out")


def test_parity_of_outputs_that_are_zero_or_not_numbers():
    zeros = np.zeros((2, 3))
    assert parity_of(zeros, zeros, "fp32").passed
    assert not parity_of(zeros + 1e-3, zeros, "fp32").passed
    assert not parity_of(np.full((2, 3), np.nan), zeros + 1, "int8").passed


def test_weights_that_are_not_numbers_are_named(micro, tmp_path, capsys):
    weights = {name: torch.from_numpy(x) for name, x in other_weights().items()}
    weights["head.fc.weight"][0, 0] = torch.nan
    write_weights(tmp_path / "nan.safetensors", weights)
    command = ["build", str(micro), "--weights", str(tmp_path / "nan.safetensors"), "-o", str(tmp_path / "out")]
    assert run(command) == 1
    assert "head.fc.weight holds numbers that are not finite [not-finite]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- wishes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--emit onnx --precision int8", "int8 takes its ranges from real images"),
        ("--emit pt2 --precision int8", "int8 is made as ONNX only, not as pt2"),
        ("--emit onnx --precision fp8", "fp8 takes its ranges from real images"),
        ("--emit pt2 --precision int8-weights", "int8-weights is made as ONNX only, not as pt2"),
        ("--emit onnx --precision fp16 --no-deploy", "the train form is fp32, so fp16 needs the deploy form"),
        ("--emit tensorrt --no-deploy", "an engine is always made from the deploy form"),
        ("--emit source --precision bf16", "--precision is about onnx, pt2, tensorrt"),
        ("--emit torch --batch 8", "--batch is about onnx, pt2, tensorrt"),
        ("--emit pt2 --for openvino", "--for is about onnx, but pt2 is what is made"),
        ("--emit onnx --for openvino --no-deploy", "the train form is written in one way for all runtimes"),
        ("--emit onnx --opset 12", f"the onnx backend writes opsets 13 to {newest_opset()} here, but got 12"),
        ("--emit onnx --opset 4000", f"the onnx backend writes opsets 13 to {newest_opset()} here, but got 4000"),
        ("--emit onnx --opset 17 --precision bf16", "bf16 convolutions came with 22, but got 17"),
        ("--emit onnx --opset 18 --precision int8-weights", "their scales came with 19, but got 18"),
        ("--emit onnx --opset new", "'new' is not a valid integer"),
        ("--emit torch --opset 17", "--opset is about onnx, but torch is what is made"),
        ("--emit onnx --engine refit=true", "--engine is about tensorrt, tensorrt-rtx, but onnx is what is made"),
        ("--from timm", "--from is about a weights file, and there is none"),
        ("--allow-pickle", "--allow-pickle is about a weights file, and there is none"),
        ("--batch 0", "a batch is a whole number from 1 to 4096, or `dynamic`, but got '0'"),
        ("--batch ²", "a batch is a whole number from 1 to 4096"),
        ("--emit onnx --images nowhere.npy", "nowhere.npy cannot be read as images"),
    ],
)
def test_wishes_that_make_no_sense_are_one_clear_message(options, message, micro, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["build", str(micro), "-o", "out", *options.split()]) == 1
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("hint:") == 1 and shown.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", ["--emit onnx", "--precision fp16", "--for openvino", "--batch 8", "--opset 17"])
def test_what_to_write_needs_a_place_to_write_it(options, micro, capsys):
    assert run(["build", str(micro), *options.split()]) == 1
    assert "says what to write, but not where" in capsys.readouterr().err


def test_all_that_is_wrong_with_a_plan_is_told_at_once():
    with pytest.raises(ArchError) as error:
        BuildConfig(SPEC, emit=("onxx", "pt2"), precision="int8", deploy=False, batch=0).check()
    assert len(error.value.problems) == 4


def test_without_tensorrt_an_engine_is_refused_before_anything_is_made(micro, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("archdsl.builds.write.make_ready", lambda config: pytest.fail("something was made"))
    assert run(["build", str(micro), "--emit", "onnx", "--emit", "tensorrt", "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert "TensorRT is not installed" in shown and "pip install 'archdsl[tensorrt]'" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((4, 3, 8, 16), np.float32),
            r"images must be floats \[N, 3, 16, 16\], but these are float32\[4, 3, 8",
        ),
        (np.zeros((4, 3, 16, 16), np.uint8), "these are uint8"),
        (np.zeros((0, 3, 16, 16), np.float32), r"these are float32\[0"),
        (np.float32(3), "these are float32"),
        (np.full((1, 3, 16, 16), np.inf), "some pixels are not finite"),
        (np.array([{}], object), "cannot be read as images"),
    ],
    ids=str,
)
def test_images_that_do_not_fit_are_refused(array, message, micro, tmp_path, capsys):
    np.save(tmp_path / "x.npy", array)
    assert run(["build", str(micro), "--images", str(tmp_path / "x.npy"), "-o", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert re.search(message, shown) and "hint:" in shown


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(64)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"PK\x03\x04 a damaged archive", b"\x93NUMPY", b"text"),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,\n"),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 3, 16, 16)}\n"),
        _npy(b"{'descr': [('x', '<f4', 'y')], 'fortran_order': False, 'shape': (1,)}\n"),
        _npy(b"(" * 9000 + b"\n"),
    ],
)
def test_a_file_that_holds_no_images_is_refused(data, micro, tmp_path, capsys):
    (tmp_path / "x.npz").write_bytes(data)
    assert run(["build", str(micro), "--images", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert "cannot be read as images" in shown and "[cannot-read]" in shown and "internal" not in shown


def test_images_of_a_folder_are_taken_from_all_classes(tmp_path, monkeypatch):
    from PIL import Image

    from archdsl.cli import build_images
    from archdsl.runs.trained_on import TrainingData

    monkeypatch.setattr(build_images, "MOST_IMAGES", 4)
    for part in ("train", "val"):
        for shade, name in enumerate("abcd"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20, 20), (60 * shade,) * 3).save(tmp_path / part / name / f"{number}.png")
    images, _ = build_images.images_of(tmp_path, SPEC, TrainingData(), None)
    assert images.shape == (4, 3, 16, 16) and len({float(image.mean()) for image in images}) == 4


# ---- the folder


def test_files_of_the_build_before_go_and_those_of_others_stay(tmp_path):
    out = tmp_path / "out"
    write_build(BuildConfig(SPEC, emit=("source", "onnx")), out)
    (out / "notes.txt").write_text("mine")
    write_build(BuildConfig(SPEC, emit=("torch",)), out)
    assert set(contents(out)) == {"model.safetensors", "spec.yaml", "build.json", "notes.txt"}
    assert is_whole(out)


def test_a_source_file_that_its_owner_changed_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    write_build(BuildConfig(SPEC, emit=("source",)), out)
    (out / "model.py").write_text("# my own ideas\n")
    for emit in ("source", "torch"):
        with pytest.raises(ArchError, match=r"model\.py was changed after it was built"):
            write_build(BuildConfig(SPEC, emit=(emit,)), out)
    assert (out / "model.py").read_text() == "# my own ideas\n"
    assert not list(out.glob(".archdsl*"))


@pytest.mark.parametrize("thing", ["file", "folder", "link"])
def test_something_of_somebody_else_in_the_way_is_not_overwritten(thing, tmp_path):
    out = tmp_path / "out"
    write_build(BuildConfig(SPEC, emit=("torch",)), out)
    match thing:
        case "file":
            (out / "model.onnx").write_text("theirs")
        case "folder":
            (out / "model.onnx").mkdir()
        case _:
            (out / "model.onnx").symlink_to(tmp_path / "micro.yaml")
    with pytest.raises(ArchError, match=r"model\.onnx was not written by archdsl"):
        write_build(BuildConfig(SPEC, emit=("onnx",)), out)
    assert is_whole(out)


@pytest.mark.parametrize("more", [[], [{"name": 3, "sha256": ""}], ["text"], [{}]], ids=str)
def test_a_marker_that_lists_files_elsewhere_removes_nothing(more, tmp_path):
    (tmp_path / "precious").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    digest = hashlib.sha256(b"x").hexdigest()
    files = [{"name": name, "sha256": digest} for name in ("../precious", str(tmp_path / "precious"), "..", "")]
    (out / "build.json").write_text(json.dumps({"files": [*files, *more]}))
    write_build(BuildConfig(SPEC, emit=("torch",)), out)
    assert (tmp_path / "precious").exists() and is_whole(out)


def test_two_builds_at_once_do_not_mix(tmp_path):
    with new_contents(tmp_path / "out", "build.json") as making:
        with (
            pytest.raises(ArchError, match="another process is building"),
            new_contents(tmp_path / "out", "build.json"),
        ):
            pytest.fail("both were let in")
        write_marker(making, "build.json", {})
    assert is_whole(tmp_path / "out")


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(micro, capsys):
    assert run(["build", str(micro), "-o", "/proc/archdsl/out"]) == 1
    shown = capsys.readouterr().err
    assert "/proc/archdsl/out cannot be used" in shown and "hint: choose another folder" in shown


def test_a_folder_that_became_read_only_is_an_error_of_the_user(micro, tmp_path, monkeypatch, capsys):
    def refuse(self: Path, *how: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    write_build(BuildConfig(SPEC, emit=("torch",)), tmp_path / "out")
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("archdsl.builds.folder.claim_folder", lambda path, marker: Path(path))
    assert run(["build", str(micro), "--emit", "torch", "-o", str(tmp_path / "out")]) == 1
    assert "cannot be written: Permission denied [output-folder]" in capsys.readouterr().err


@pytest.mark.promise(42)
@pytest.mark.parametrize(("kind", "limit"), [("torch", 4000), ("onnx", 9000), ("pt2", 9000)])
def test_a_full_disk_is_a_clear_error_and_leaves_the_build_before(kind, limit, micro, tmp_path, capsys):
    """A limit on the size of files stands in for the disk."""
    out = tmp_path / "out"
    sizes = [each["bytes"] for each in write_build(BuildConfig(SPEC, emit=(kind,)), tmp_path / "full")["files"]]
    assert max(sizes) > limit
    write_build(BuildConfig(SPEC, emit=("source",)), out)
    before = contents(out)
    usual, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        code = run(["build", str(micro), "--emit", kind, "-o", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)
    shown = capsys.readouterr().err
    assert code == 1 and "cannot be written" in shown and "make room" in shown
    assert contents(out) == before


REPLACING = """
import os, sys
from pathlib import Path
from archdsl.builds.folder import new_contents, write_marker
left = int(sys.argv[2])
def dying(call):
    def count(*how, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return call(*how, **more)
    return count
for name in ("replace", "rename", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
with new_contents(sys.argv[1], "build.json") as making:
    for name in ("a", "b", "new"):
        (making / name).write_text("new " + name)
    os.replace(making / "new", making / "new")
    write_marker(making, "build.json", {"state": "new"})
"""


def replaced(folder: Path, cut: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", REPLACING, str(folder), str(cut)]
    return subprocess.run(command, capture_output=True, text=True)


def test_kill_9_at_any_step_leaves_the_build_before_or_one_that_the_next_finishes(tmp_path):
    states = []
    for cut in range(1, 100):
        out = tmp_path / str(cut)
        with new_contents(out, "build.json") as making:
            for name in ("a", "b", "old"):
                (making / name).write_text(f"old {name}")
            write_marker(making, "build.json", {"state": "old"})
        (out / "notes").write_text("mine")
        done = replaced(out, cut)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        before = json.loads((out / "build.json").read_text())["state"] if is_whole(out) else "between"
        after = "old" if before == "old" and not (out / ".archdsl-made").exists() else "new"
        states.append(before)
        with pytest.raises(KeyboardInterrupt), new_contents(out, "build.json"):
            raise KeyboardInterrupt  # the next build only tidies up
        assert is_whole(out) and not list(out.glob(".archdsl*"))
        assert json.loads((out / "build.json").read_text())["state"] == after
        assert set(contents(out)) - {"notes", "build.json"} == {"a", "b", after}
        assert (out / "notes").read_text() == "mine"
    else:
        pytest.fail("it never got to the end")
    assert len(states) > 8
    assert states == sorted(states, key=["old", "between", "new"].index) and set(states) == {"old", "between", "new"}


def test_kill_9_in_a_first_build_leaves_a_folder_that_can_be_built_in(tmp_path):
    assert replaced(tmp_path / "out", 1).returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".archdsl-making"]
    assert replaced(tmp_path / "out", 99).returncode == 0
    assert is_whole(tmp_path / "out") and set(contents(tmp_path / "out")) == {"a", "b", "new", "build.json"}


def test_a_hidden_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "out" / ".git").mkdir(parents=True)
    with pytest.raises(ArchError, match="did not write"):
        write_build(BuildConfig(SPEC), tmp_path / "out")
    assert (tmp_path / "out" / ".git").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "speed=5"], "the TensorRT builder has no option 'speed'"),
        (["--engine", "optimization_level=high"], "optimization_level is int, but got 'high'"),
        (["--engine", "refit=1"], "refit is bool, but got '1'"),
    ],
)
def test_an_engine_option_that_is_none_is_refused(words, said, tmp_path, capsys):
    assert run(["build", "micro_swin", "--emit", "tensorrt", "-o", str(tmp_path / "out"), *words]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_model_for_a_runtime_has_its_forms(tmp_path):
    folders = {}
    for runtime in ("onnxruntime", "openvino"):
        folders[runtime] = tmp_path / runtime
        arguments = ["build", "micro_swin", "--emit", "onnx", "--for", runtime, "-o", str(folders[runtime])]
        assert run(arguments) == 0
    ops = {name: [n.op_type for n in onnx.load(path / "model.onnx").graph.node] for name, path in folders.items()}
    assert "Attention" in ops["onnxruntime"] and "Softmax" in ops["openvino"]


@pytest.mark.parametrize(
    ("options", "opset"),
    [
        ("", 20),
        ("--precision bf16", 22),
        ("--for onnxruntime", 23),
        ("--opset 13 --no-deploy", 13),
        ("--opset 15 --precision fp16", 15),
        ("--opset 17 --for onnxruntime --batch dynamic", 17),
        ("--opset 13 --precision int8 --images images.npy", 13),
        ("--precision int8-weights --opset 19", 19),
        ("--precision fp8 --images images.npy", 20),
        ("--opset 18 --precision int8 --images images.npy", 18),
    ],
)
def test_a_build_says_its_opset(options, opset, micro, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    assert run(["build", str(micro), "--emit", "onnx", "-o", "out", *options.split()]) == 0
    (made,) = json.loads(Path("out/build.json").read_text())["artefacts"]
    model = onnx.load("out/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", made["opset"])] == [("", opset)]
    assert made["parity"]["passed"]


def test_an_opset_too_new_for_the_runtimes_here_is_kept_as_unmeasured_but_not_in_int8(micro, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("unsupported opset")

    newest = newest_opset()
    monkeypatch.setattr(onnx_run, "_by_onnxruntime", refuse)
    monkeypatch.setattr(onnx_run, "_by_openvino", refuse)
    (made,) = write_build(BuildConfig(SPEC, emit=("onnx",), opset=newest), tmp_path / "out")["artefacts"]
    assert made["opset"] == newest and made["parity"] is None and "unsupported opset" in made["unmeasured"]
    with pytest.raises(BackendError, match="no runtime here can run"):
        write_build(BuildConfig(SPEC, emit=("onnx",), opset=17), tmp_path / "older")
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    images = np.zeros((2, 3, 16, 16), np.float32)
    with pytest.raises(BackendError, match=rf"the quantizer failed(.|\n)*use --opset 20: .* may not know {newest} yet"):
        write_build(BuildConfig(SPEC, emit=("onnx",), opset=newest, precision="int8", images=images), tmp_path / "int8")
