"""The accuracy of a network as it is deployed: `archdsl eval`, `archdsl.evaluate`, `build --data`."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fake_tensorrt import FakeTensorRT
from onnx import TensorProto, helper
from PIL import Image

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx.read import read_onnx
from archdsl.builds.config import BuildConfig
from archdsl.builds.write import write_build
from archdsl.cli.main import run
from archdsl.errors import ArchError, TrainingError
from archdsl.language import loads
from archdsl.runs import evaluate as evaluate_file
from archdsl.runs.trained_on import TrainingData
from archdsl.runs.validator import Validator
from archdsl.statistics import wilson_interval
from archdsl.training import parse_source
from archdsl.training.tasks.classification import Classification
from archdsl.weights.writing import write_weights

MICRO = """
name: micro
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: swin, depth: 2, heads: 2, window: 2, shift: true}]
head: {type: classifier, classes: 3}
"""
SPEC = loads(MICRO)
CLASSES = ("ant", "bee", "cat")
WRONG = 3
"""Of the 18 images of `pets`, how many look like another class."""


def pet(number: int, shade: int = 0, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """An image whose channel `number` is the brightest."""
    pixels = np.random.default_rng([number, shade]).integers(0, 90, (*size, 3))
    pixels[..., number] += 120
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Six images a class to train on and six to validate with, of which the first of each class is of the next."""
    for part in ("train", "val"):
        for number, name in enumerate(CLASSES):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for shade in range(6):
                wrong = part == "val" and shade == 0
                image = pet((number + wrong) % 3, shade + 10 * (part == "val"))
                image.save(tmp_path / "pets" / part / name / f"{shade}.png")
    return tmp_path / "pets"


def data_of(folder: Path, **fields: Any) -> dict[str, Any]:
    return {"type": "imagefolder", "path": str(folder), "workers": 0, **fields}


def write_colours(
    path: Path,
    shape: Sequence[int | str] = ("batch", 3, 16, 16),
    metadata: dict[str, str] | None = None,
    more_inputs: int = 0,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """An ONNX file of nobody's we know: it answers the mean of each channel."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["colours"], axes=[2, 3], keepdims=0)]
    inputs = [helper.make_tensor_value_info("image", kind, shape)]
    inputs += [helper.make_tensor_value_info(f"more{i}", kind, shape) for i in range(more_inputs)]
    outputs = [helper.make_tensor_value_info("colours", kind, shape[:2])]
    model = helper.make_model(
        helper.make_graph(nodes, "colours", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


# ---- what the numbers are


@pytest.mark.parametrize("shape", [("batch", 3, 16, 16), (1, 3, 16, 16), (4, 3, 16, 24), (5, 3, 16, 16)])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_of_somebody_else_has_its_accuracy_at_every_batch(shape, runtime, pets, tmp_path):
    path = write_colours(tmp_path / "colours.onnx", shape)
    found = archdsl.evaluate(path, data_of(pets), runtime=runtime, device="cpu", threads=1)
    assert (found.accuracy, found.num_images, found.num_independent) == (15 / 18, 18, 18)
    (top1,) = found.metrics  # of three classes five are always enough, so top-5 says nothing
    assert (top1.name, top1.low, top1.high) == ("top-1", *wilson_interval(15 / 18, 18))
    assert found.batch == (64 if shape[0] == "batch" else shape[0])
    assert (found.precision, found.ran, found.runtime) == ("fp32", str(path), runtime)
    assert found.preprocessing["size"] == list(shape[2:])


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights that let the signal through, so that answers differ from image to image."""
    weights = initial_weights(archdsl.compile(SPEC), 5)
    draw = np.random.default_rng(0)
    return {
        name: torch.tensor(value + 0.2 * draw.standard_normal(value.shape), dtype=torch.float32)
        for name, value in weights.items()
    }


def answers(state: dict[str, torch.Tensor], data: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What fp32 PyTorch answers to the validation images, and their labels."""
    opened = parse_source(data).open((16, 16))
    images, labels = zip(*opened.val_batches(64), strict=True)
    with torch.no_grad():
        return archdsl.build(SPEC, state).eval()(torch.cat(images)), torch.cat(labels)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        (None, None),
        ("onnxruntime", "fp16"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
        ("onnxruntime", "int8-weights"),
        ("onnxruntime", "fp8"),
        ("torch", "fp32"),
        ("torch", "bf16"),
    ],
)
def test_a_spec_is_made_for_the_runtime_and_its_answers_are_scored(runtime, precision, state, pets, monkeypatch):
    scored: list[torch.Tensor] = []
    counts = Classification.counts

    def kept(self: Classification, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scored.append(output)
        return counts(self, output, targets)

    monkeypatch.setattr(Classification, "counts", kept)
    how = {"runtime": runtime, "precision": precision, "device": "cpu", "threads": 1, "batch": 4}
    found = archdsl.evaluate(SPEC, data_of(pets), weights=state, **how)
    wanted, labels = answers(state, data_of(pets))
    assert (found.runtime, found.precision) == (runtime or "onnxruntime", precision or "fp32")
    output = torch.cat(scored)
    error = float((output - wanted).abs().max() / wanted.abs().max())
    limits = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2, "int8": 2e-1, "int8-weights": 5e-2, "fp8": 2e-1}
    assert error <= limits[found.precision] and (found.precision == "fp32" or error > 0)
    assert found.accuracy == float((output.argmax(1) == labels).double().mean())
    assert len(set(wanted.argmax(1).tolist())) > 1


def test_of_equal_logits_the_first_is_the_answer_and_top_5_needs_more_than_five_classes():
    task = Classification(7)
    output = torch.zeros(7, 7)
    assert task.counts(output, torch.arange(7)).tolist() == [1, 5]
    output[:, 6] = 1
    assert task.counts(output, torch.arange(7)).tolist() == [1, 5]
    top1, top5 = task.metrics(torch.tensor([1.0, 5.0]), 10, 5)
    assert (top1.value, top5.value) == (0.1, 0.5) and (top5.name, top5.low) == ("top-5", wilson_interval(0.5, 5)[0])
    assert [metric.name for metric in Classification(5).metrics(torch.tensor([1.0, 5.0]), 5, 5)] == ["top-1"]
    assert task.metric(torch.tensor([1.0, 5.0]), 10) == 0.1


@pytest.mark.parametrize(
    ("share", "n", "low", "high"), [(0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0), (0.5, 100, 0.4038, 0.5962)]
)
def test_wilsons_interval(share, n, low, high):
    assert wilson_interval(share, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_pairs_of_generated_images_count_once_in_the_interval():
    weights = archdsl.build("micro_swin").state_dict()
    data = {"type": "synthetic", "num_train": 12, "num_val": 40}
    found = archdsl.evaluate("micro_swin", data, weights=weights, device="cpu", threads=1)
    assert (found.num_images, found.num_independent, found.num_classes) == (40, 20, 12)
    assert found.metrics[1].high == wilson_interval(found.metrics[1].value, 20)[1]


def test_an_answer_that_is_no_number_is_a_failure(state, pets):
    broken = {**state, "head.fc.bias": torch.tensor([0.0, float("nan"), 0.0])}
    with pytest.raises(ArchError, match=r"not finite \[not-finite\]"):
        archdsl.evaluate(SPEC, data_of(pets), weights=broken, runtime="torch", device="cpu", threads=1)


def test_what_cannot_be_decoded_is_left_out_and_told(pets, tmp_path):
    (pets / "val/ant/0.png").write_bytes(b"nothing")
    found = archdsl.evaluate(write_colours(tmp_path / "c.onnx"), data_of(pets), device="cpu")
    assert (found.accuracy, found.num_images) == (15 / 17, 17)
    assert any("one file could not be decoded as an image and was skipped" in note for note in found.notes)


# ---- classes and preprocessing


@pytest.mark.parametrize(
    ("known", "outputs", "said"),
    [
        (("ant", "bee", "dog"), 3, r"the network has dog; only the data have cat \[classes\]"),
        (("ant", "bee"), 3, r"2 classes, as x says; the data have 3; only the data have cat \[classes\]"),
        (("ant", "bee", "cat", "dog"), 4, r"4 classes, as x says; the data have 3; only the network has dog"),
        (("1", "2", "3"), 3, r"only the network has 1, 2, 3; only the data have ant, bee, cat"),
        (None, 1000, r"answers 1000 classes, whose names are not known; the data have 3 \(ant, bee, cat\) \[classes\]"),
        (None, 2, r"answers 2 classes, whose names are not known"),
    ],
)
def test_data_of_other_classes_are_refused(known, outputs, said, pets):
    source = parse_source(data_of(pets))
    with pytest.raises(TrainingError, match=said):
        Validator(source, TrainingData(known, said_by="x"), (16, 16), 3, outputs)


def test_a_long_list_of_classes_is_cut(pets):
    trained_on = TrainingData(tuple(f"n{number:04}" for number in range(1000)), said_by="x")
    with pytest.raises(TrainingError) as caught:
        Validator(parse_source(data_of(pets)), trained_on, (16, 16), 3, 1000)
    assert "n0007, …; only the data have ant" in caught.value.problems[0].message


def test_classes_in_another_order_are_the_same_classes(pets, tmp_path):
    order = {"archdsl_version": "0", "classes": json.dumps(["bee", "cat", "ant"])}
    turned = archdsl.evaluate(write_colours(tmp_path / "c.onnx", metadata=order), data_of(pets), device="cpu")
    assert turned.accuracy == 0.0 and turned.num_images == 18
    same = {"archdsl_version": "0", "classes": json.dumps(CLASSES)}
    assert archdsl.evaluate(write_colours(tmp_path / "c.onnx", metadata=same), data_of(pets)).accuracy == 15 / 18


PREPROCESSING = {"mean": [0.5], "std": [0.25], "size": [16, 16], "crop": 1.0, "interpolation": "bilinear"}


def seen_by(trained: dict[str, Any], source: dict[str, Any]) -> tuple[Validator, torch.Tensor]:
    validator = Validator(parse_source(source), TrainingData.read({"preprocessing": trained}, "x"), (16, 16), 3, 3)
    return validator, next(validator.data.val_batches(1))[0][0]


@pytest.mark.parametrize(
    "changed", [{}, {"mean": [0.1, 0.2, 0.3], "std": [0.25] * 3}, {"crop": 0.5}, {"interpolation": "nearest"}]
)
def test_images_are_seen_as_in_training(changed, pets):
    trained = {**PREPROCESSING, **changed}
    validator, found = seen_by(trained, data_of(pets))
    image, half = Image.open(pets / "val/ant/0.png").convert("RGB"), 10 * trained["crop"]
    box = (12 - half, 10 - half, 12 + half, 10 + half)
    small = image.resize((16, 16), Image.Resampling[trained["interpolation"].upper()], box=box)
    wanted = (np.asarray(small, np.float32) / 255 - np.array(trained["mean"], np.float32)) / np.float32(0.25)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), wanted, atol=1e-5)
    assert validator.notes == [] and validator.preprocessing["interpolation"] == trained["interpolation"]


@pytest.mark.parametrize(
    ("said", "note"),
    [({"crop": 0.9}, "crop is 0.9"), ({"mean": [0.4]}, "mean is (0.4,)"), ({"interpolation": "bicubic"}, "bicubic")],
)
def test_what_the_data_say_themselves_wins_and_is_told(said, note, pets):
    validator, _ = seen_by(PREPROCESSING, data_of(pets, **said))
    assert (
        len(validator.notes) == 1
        and note in validator.notes[0]
        and "the network was trained with" in validator.notes[0]
    )
    (field,) = said
    assert list(validator.preprocessing[field]) == list(said[field]) * 3 if field == "mean" else said[field]


def test_training_and_results_know_the_preprocessing(pets):
    source = parse_source(data_of(pets, mean=[0.5], std=[0.5], interpolation="bilinear"))
    assert source.text().endswith("mean=(0.5,) std=(0.5,) interpolation=bilinear")
    opened, usual = source.open((16, 16)), parse_source(data_of(pets)).open((16, 16))
    assert opened.key() != usual.key() and "mean" not in usual.key() and "interpolation" not in usual.key()
    images, _ = next(opened.train_batches(4, seed=0, epoch=0))
    theirs, _ = next(usual.train_batches(4, seed=0, epoch=0))
    assert images.min() >= -1 and images.max() <= 1 and not torch.equal(images, theirs)
    with pytest.raises(TrainingError, match=r"mean has 2 numbers, but the network takes 3 channels"):
        parse_source(data_of(pets, mean=[0.5, 0.5])).open((16, 16))


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": "abc"},
        {"classes": [1, 2, 3]},
        {"preprocessing": [1]},
        {"preprocessing": {**PREPROCESSING, "std": [0.0]}},
        {"preprocessing": {**PREPROCESSING, "mean": [float("nan")]}},
        {"preprocessing": {**PREPROCESSING, "crop": 0}},
        {"preprocessing": {**PREPROCESSING, "interpolation": "magic"}},
    ],
)
def test_facts_of_no_known_form_are_refused_where_we_wrote_them_and_left_where_others_did(facts):
    with pytest.raises(ArchError, match=r"x says of classes and preprocessing what cannot be read.*\[damaged\]"):
        TrainingData.read(facts, "x")
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    assert TrainingData.of_metadata(metadata, "x") == TrainingData(said_by="x")
    assert TrainingData.of_metadata({"classes": "cat, dog"}, "x") == TrainingData(said_by="x")
    with pytest.raises(ArchError, match=r"\[damaged\]"):
        TrainingData.of_metadata({**metadata, "archdsl_version": "0"}, "x")


# ---- ONNX files


def no_onnx(path: Path) -> None:
    path.write_bytes(b"\xff\xff nothing")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_onnx, r"cannot be read as an ONNX model"),
        (lambda path: None, r"cannot be read as an ONNX model.*No such file"),
        (os.mkfifo, r"it is not a regular file"),
        (lambda path: write_colours(path, ("b", 3, 4)), r"fp32 images \[B, C, H, W\], but is FLOAT \[\?, 3, 4\]"),
        (lambda path: write_colours(path, kind=TensorProto.FLOAT16), r"but is FLOAT16 \[\?, 3, 16, 16\]"),
        (lambda path: write_colours(path, more_inputs=1), r"it has 2 inputs and 1 outputs"),
    ],
)
def test_a_file_that_takes_no_images_is_refused(make: Callable[[Path], object], said, tmp_path):
    make(tmp_path / "x.onnx")
    with pytest.raises(ArchError, match=said) as caught:
        read_onnx(tmp_path / "x.onnx")
    assert caught.value.exit_code == 1


def test_a_file_of_any_image_size_takes_that_of_its_training(pets, tmp_path):
    shape = ("batch", 3, "height", "width")
    with pytest.raises(ArchError, match=r"takes images of any size.*\[shape\]"):
        archdsl.evaluate(write_colours(tmp_path / "c.onnx", shape), data_of(pets), device="cpu")
    metadata = {"preprocessing": json.dumps({**PREPROCESSING, "size": [12, 8]})}
    found = archdsl.evaluate(write_colours(tmp_path / "c.onnx", shape, metadata), data_of(pets), device="cpu")
    assert found.preprocessing["size"] == [12, 8] and found.accuracy == 15 / 18


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_says_its_precision_also_where_its_metadata_are_gone(precision, tmp_path, state):
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    archdsl.export_onnx(SPEC, tmp_path / "m.onnx", state, True, precision, batch=2, images=images)
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    file = read_onnx(tmp_path / "m.onnx")
    assert (file.precision, file.batch, file.input_shape, file.outputs) == (precision, 2, (3, 16, 16), (3,))


# ---- folders and the command line


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What timm's trainer leaves, of a network of 1000 classes, with made-up weights."""
    (tmp_path / "micro.yaml").write_text(MICRO)
    wide = loads(MICRO, set={"head.classes": 1000})
    places = {"stem.": "patch_embed.", "stages.": "layers.", "head.norm.": "norm."}
    theirs = {}
    for name, tensor in archdsl.build(wide, seed=3).state_dict().items():
        place = next((place for place in places if name.startswith(place)), "")
        theirs[places.get(place, "") + name.removeprefix(place)] = tensor
    file = tmp_path / "model_best.pth.tar"
    saved = {"epoch": 299, "arch": "swin_tiny", "state_dict": theirs, "args": argparse.Namespace(lr=0.1)}
    torch.save({**saved, "optimizer": {"state": {}, "param_groups": []}, "metric": 81.2}, file)
    return file


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_a_checkpoint_of_timm_to_the_accuracy_of_int8_in_four_commands(checkpoint, pets, tmp_path, capsys):
    spec, out, built, data = str(tmp_path / "micro.yaml"), str(tmp_path / "run"), str(tmp_path / "int8"), str(pets)
    start = ["--set", "head.classes=3", "--weights", str(checkpoint), "--from", "timm", "--new-head", "--allow-pickle"]
    length = ["--recipe", "quick", "--epochs", "2", "--batch", "6", "--workers", "0", "--threads", "1"]
    assert run(["train", spec, *start, *length, "--data", data, "--out", out, "--json"]) == 0
    trained = told(capsys)
    assert trained["classes"] == list(CLASSES)
    assert run(["eval", out, "--data", data, "--json"]) == 0
    before = told(capsys)
    assert before["accuracy"] == trained["accuracy"]["mean"] and before["num_images"] == 18
    assert (before["precision"], before["runtime"], before["ran"]) == ("fp32", "onnxruntime", None)
    assert run(["build", out, "--precision", "int8", "--data", data, "-o", built, "--json"]) == 0
    facts = told(capsys)
    assert json.loads((tmp_path / "int8/build.json").read_text()) == facts
    assert facts["accuracy"]["fp32"]["accuracy"] == before["accuracy"]
    assert "18 images in val/" in facts["accuracy"]["scored_on"]
    made = next(each for each in facts["artefacts"] if each["kind"] == "onnx")
    assert made["accuracy"]["change"] == pytest.approx(made["accuracy"]["accuracy"] - before["accuracy"])
    assert run(["eval", built, "--data", data]) == 0
    printed = capsys.readouterr()
    accuracy = made["accuracy"]["accuracy"]
    assert printed.out.startswith(f"micro: top-1 {accuracy:.2%} (95 % interval ")
    assert "model.onnx, int8, on onnxruntime" in printed.out and "18 validation images of 3 classes" in printed.out
    assert "note: validation: the 18 images in val/" in printed.err
    assert run(["eval", f"{built}/model.onnx", "--data", data, "--json"]) == 0
    assert told(capsys)["accuracy"] == accuracy
    (pets / "train/ant").rename(pets / "train/ape")
    (pets / "val/ant").rename(pets / "val/ape")
    for subject in (out, built, f"{built}/model.onnx"):
        assert run(["eval", subject, "--data", data]) == 1
        assert "only the network has ant; only the data have ape [classes]" in capsys.readouterr().err


@pytest.fixture
def built(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A build of the micro network with an ONNX file in fp16, a program in fp16, and its weights."""
    config = BuildConfig(SPEC, weights=state, emit=("torch", "onnx", "pt2"), precision="fp16", batch=3)
    write_build(config, tmp_path / "built")
    return tmp_path / "built"


@pytest.mark.parametrize(
    ("wishes", "file", "precision"),
    [
        ([], "model.onnx", "fp16"),
        (["--on", "openvino"], "model.onnx", "fp16"),
        (["--on", "torch"], "model.pt2", "fp16"),
        (["--precision", "fp32"], None, "fp32"),
        (["--on", "torch:cpu", "--precision", "bf16"], None, "bf16"),
        (["--on", "onnxruntime", "--precision", "int8"], None, "int8"),
    ],
)
def test_of_a_build_the_file_that_fits_is_run_and_another_is_made(wishes, file, precision, built, pets, capsys):
    assert run(["eval", str(built), "--data", str(pets), "--workers", "0", "--threads", "1", "--json", *wishes]) == 0
    found = told(capsys)
    assert found["ran"] == (file and str(built / file)) and found["precision"] == precision
    assert found["weights"] == ("" if file else str(built / "model.safetensors"))
    assert found["batch"] == (3 if file else 64)


def test_a_build_without_weights_runs_what_it_has_and_nothing_else(built, pets, capsys):
    (built / "model.safetensors").unlink()
    assert run(["eval", str(built), "--data", str(pets), "--workers", "0"]) == 0
    assert run(["eval", str(built), "--data", str(pets), "--precision", "int8"]) == 1
    said = capsys.readouterr().err
    assert "there is model.onnx (fp16), model.pt2 (fp16) to run, and no weights to make it int8 from" in said


def test_a_folder_that_was_validated_on_other_images_is_noted(tmp_path, pets, state):
    write_weights(tmp_path / "model.safetensors", state)
    (tmp_path / "spec.yaml").write_text(MICRO)
    (tmp_path / "train.json").write_text(json.dumps({"validation": "4 images held out", "classes": CLASSES}))
    found = archdsl.evaluate(tmp_path, data_of(pets), device="cpu", threads=1)
    assert any("in training it was validated on 4 images held out; others may be" in note for note in found.notes)


def test_the_engine_of_a_build_is_run_as_it_was_saved(tmp_path, state):
    from test_runtimes import HostBuffers

    from archdsl.backends import backend
    from archdsl.backends.trt.options import Batches, EngineOptions
    from archdsl.runtimes.adapters.tensorrt_engine import EngineRun

    trt = FakeTensorRT("11.4.0.106")
    network = archdsl.deploy(SPEC, state)
    options = EngineOptions(batches=(Batches(1, 2, 4),))
    engine = backend("tensorrt").emit(network.graph, network.weights, options=options, trt=trt)
    engine.save(tmp_path / "model.engine")
    loaded = EngineRun(tmp_path / "model.engine", 2, trt, HostBuffers(), saved=True)
    assert loaded.outputs(np.zeros((2, 3, 16, 16), np.float32))[0].shape == (2, 5)  # the stand-in's


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["swin_t"], "swin_t has no weights, so there is nothing to evaluate [missing-key]", 1),
        (["swin_t", "--from", "timm"], "--from is about a weights file, and there is none [missing-key]", 1),
        (["PETS"], "is of no training or build: it has no spec.yaml [missing-file]", 1),
        (["BEGUN"], "end its training first: archdsl train", 1),
        (["C.onnx", "--weights", "x.safetensors"], "so --weights cannot change them [conflict]", 1),
        (["C.onnx", "--set", "head.classes=3"], "so --set cannot change them [conflict]", 1),
        (["C.onnx", "--on", "null"], "null computes latencies and runs no network [wrong-value]", 1),
        (["C.onnx", "--on", "onnxruntim"], "did you mean `onnxruntime`?", 1),
        (["C.onnx", "--on", "torch"], "there is C.onnx (fp32) to run, and no weights", 1),
        (["C.onnx", "--device", "gpu"], "a device is auto, cpu, cuda or cuda:N, but got 'gpu' [wrong-value]", 1),
        (["C.onnx", "--on", "openvino", "--device", "cuda"], "openvino knows the devices cpu, got 'cuda'", 1),
        (["C.onnx", "--data", "/nowhere"], "there is no folder `/nowhere/train` [missing-folder]", 1),
        (["C.onnx", "--on", "tensorrt"], "TensorRT is not installed [runtime-missing]", 2),
    ],
)
def test_wishes_that_make_no_sense_are_one_clear_message(arguments, said, code, pets, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colours(tmp_path / "C.onnx")
    (tmp_path / "BEGUN").mkdir()
    (tmp_path / "BEGUN/spec.yaml").write_text(MICRO)
    (tmp_path / "BEGUN/train.json").write_text('{"state": "training"}')
    pets.rename(tmp_path / "PETS")
    assert run(["eval", "--data", "PETS", "--json", *arguments]) == code
    printed = capsys.readouterr()
    assert said in printed.err and json.loads(printed.out)["ok"] is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(("runtime", "device"), [("torch", "cuda"), ("torch", "cuda:1"), ("onnxruntime", "cuda:1")])
def test_a_gpu_that_is_not_there_is_told_before_data_are_opened(runtime, device, state):
    with pytest.raises(ArchError, match=r"\[no-device\]") as caught:
        archdsl.evaluate(SPEC, data_of(Path("/nowhere")), weights=state, runtime=runtime, device=device)
    assert caught.value.exit_code == 1


def test_a_file_that_the_runtime_does_not_take_is_named_with_its_reason(tmp_path, pets, capsys):
    path = write_colours(tmp_path / "c.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, path)
    assert run(["eval", str(path), "--data", str(pets), "--workers", "0"]) == 1
    said = capsys.readouterr().err
    assert f"{path}:1:1: it cannot be loaded: onnxruntime failed: " in said and "[cannot-read]" in said


def test_a_file_that_cannot_be_run_on_its_images_is_wrong_input(tmp_path, built, pets, capfd):
    path = built / "model.onnx"
    model = onnx.load(path)
    (image,) = (value for value in model.graph.input if value.name == "image")
    image.type.tensor_type.shape.dim[0].dim_param = "batch"  # though the network inside is for three
    onnx.save(model, path)
    assert run(["eval", str(path), "--data", str(pets), "--workers", "0"]) == 1
    said = capfd.readouterr().err
    assert f"{path}:1:1: it cannot be run on images [" in said and "[cannot-run]" in said and "\x1b" not in said


def test_a_file_whose_answers_are_no_numbers_is_wrong_input(tmp_path, pets, capsys):
    path = write_colours(tmp_path / "c.onnx")
    model = onnx.load(path)
    (answer,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Log", [answer.name], ["log"]))  # of what may be negative
    model.graph.node.append(onnx.helper.make_node("Sub", [answer.name, answer.name], ["nothing"]))
    model.graph.node.append(onnx.helper.make_node("Div", ["log", "nothing"], ["answer"]))
    answer.name = "answer"
    onnx.save(model, path)
    assert run(["eval", str(path), "--data", str(pets), "--workers", "0"]) == 1
    said = capsys.readouterr().err
    assert f"{path}:1:1: it cannot be evaluated: the network's output holds numbers" in said and "[not-finite]" in said


def test_a_narrow_format_on_a_runtime_without_what_lies_between_is_refused_by_its_own_name(state, pets):
    with pytest.raises(ArchError, match="openvino runs bf16, fp32, but fp8 is fp16 between its linears") as caught:
        archdsl.evaluate(SPEC, data_of(pets), weights=state, runtime="openvino", precision="fp8", device="cpu")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_130(number, tmp_path, pets, monkeypatch, capsys):
    def validator_of(*_: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(evaluate_file, "validator_of", validator_of)
    assert run(["eval", str(write_colours(tmp_path / "c.onnx")), "--data", str(pets), "--json"]) == 130
    printed = capsys.readouterr()
    assert printed.out == "" and "interrupted" in printed.err


# ---- builds


@pytest.mark.parametrize(("after", "noted"), [(0.9, False), (0.9049, False), (0.8951, False), (0.894, True)])
def test_a_build_tells_the_change_and_notes_a_loss_beyond_half_a_point(after, noted, tmp_path, state):
    given = iter([0.9, after, after])

    def score(answer: Callable[[Any], Any]) -> dict[str, Any]:
        assert answer(np.zeros((5, 3, 16, 16), np.float32)).shape == (5, 3)
        return {"accuracy": next(given), "metrics": []}

    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    config = BuildConfig(
        SPEC, state, emit=("torch", "onnx", "pt2"), precision="fp16", batch=2, score=score, images=images
    )
    facts = write_build(config, tmp_path / "out")
    torch_file, *others = facts["artefacts"]
    assert "accuracy" not in torch_file and len(others) == 2
    for made in others:
        assert made["accuracy"]["change"] == after - 0.9
        assert ("accuracy_note" in made) == noted
    if noted:
        assert others[0]["accuracy_note"] == "fp16 costs 0.60 points of accuracy: 90.00% in fp32, 89.40% in fp16"


@pytest.mark.parametrize("more", [[], ["--weights", "W", "--new-head"]])
def test_weights_that_were_not_trained_are_not_scored(more, tmp_path, pets, state, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.safetensors", state)
    (tmp_path / "micro.yaml").write_text(MICRO)
    more = ["w.safetensors" if word == "W" else word for word in more]
    assert run(["build", "micro.yaml", "--precision", "int8", "--data", str(pets), "-o", "out", *more]) == 1
    assert (
        "--data measures the accuracy of trained weights" in capsys.readouterr().err and not (tmp_path / "out").exists()
    )


def test_int8_calibrates_with_images_to_train_on_from_all_classes(pets):
    sample = parse_source(data_of(pets)).open((16, 16)).sample(6)
    brightest = sample.mean(dim=(2, 3)).argmax(1)
    assert sample.shape == (6, 3, 16, 16) and sorted(brightest.tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(parse_source(data_of(pets)).open((16, 16)).sample(100)) == 18
    assert len(parse_source({"type": "synthetic", "num_train": 9, "num_val": 2}).open((16, 16)).sample(64)) == 9
