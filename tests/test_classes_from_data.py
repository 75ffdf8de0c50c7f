"""`head.classes: data`, and what a spec says of the data of its training."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from PIL import Image

from archdsl.cli.main import run
from archdsl.errors import ArchError
from archdsl.language import load, load_space, loads, loads_space
from archdsl.language.architecture.from_data import with_classes, with_trained_on
from archdsl.language.architecture.schema import spec_schema
from archdsl.language.text import limits
from archdsl.runs.job import job_of, space_of
from archdsl.runs.search import SearchOptions, prepare
from archdsl.training import parse_source
from archdsl.training.data.facts import data_facts, with_classes_of

SPEC = """
name: tiny
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: swin, depth: 1, heads: 2, window: 2}]
head: {type: classifier, classes: data}
"""
CLASSES = ["1", "null", "ünï"]
"""Names that YAML reads as something else when they are not quoted."""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec `tiny.yaml`, and images of three classes in `pets/`."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in CLASSES:
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(draw.integers(0, 255, (20, 24, 3)).astype(np.uint8))
                image.save(tmp_path / "pets" / split / name / f"{index}.png")
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return tmp_path


def space_of_pets(folder: Path, choices: str = "stages.0.window: [2, 4]") -> Path:
    train = "{data: imagefolder:pets, recipe: quick, epochs: 1, seeds: 1}"
    objectives = f"{{accuracy: {{train: {train}}}, params: {{}}}}"
    search = "{trials: 1, sampler: random, confirm: {timings: false}}"
    text = f"base: tiny.yaml\nchoices: {{{choices}}}\nobjectives: {objectives}\nsearch: {search}\n"
    (folder / "space.yaml").write_text(text)
    return folder / "space.yaml"


# ---- without data


@pytest.mark.parametrize("command", ["check", "show", "bench", "build", "profile", "predict", "build -o out"])
def test_commands_without_data_refuse_it_at_its_line(command, tiny, capsys):
    word, *more = command.split()
    assert run([word, "tiny.yaml", *more]) == 1
    shown = capsys.readouterr()
    assert "tiny.yaml:6:35: `classes: data` takes the number of classes from data" in shown.err
    assert "[needs-data]" in shown.err and "--set head.classes=N" in shown.err and not (tiny / "out").exists()
    assert run(["check", "tiny.yaml", "--set", "head.classes=7"]) == 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{name: a, extends: micro_swin, head: {classes: data}}", "<text>:1:48"),
        (SPEC.replace("{type: classifier, classes: data}", "classifier\ndefaults: {classes: data}"), "<text>:7:21"),
        ("name: a\nextends: micro_swin\nhead: {classes: data}\nstem: {patch: 5}", "<text>:3:17"),
    ],
    ids=["in the head", "in defaults", "beside another mistake"],
)
def test_wherever_it_is_written_it_is_told_there(text, place):
    with pytest.raises(ArchError) as error:
        loads(text)
    assert place in [str(problem.place) for problem in error.value.problems]


@pytest.mark.parametrize("value", ["dat", "Data", "1.5", "true", "[data]"])
def test_another_word_is_no_number_of_classes(value):
    with pytest.raises(ArchError, match="`classes` must be a whole number"):
        loads(f"{{name: a, extends: micro_swin, head: {{classes: {value}}}}}")


def test_editors_know_it():
    spec = {"extends": "micro_swin", "head": {"type": "classifier", "classes": "data"}}
    jsonschema.validate(spec, spec_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**spec, "head": {"type": "classifier", "classes": "dat"}}, spec_schema())


def test_a_space_without_data_refuses_it_and_one_with_data_still_finds_other_mistakes(tiny):
    (tiny / "bare.yaml").write_text("base: tiny.yaml\nchoices: {stages.0.window: [2, 4]}")
    with pytest.raises(ArchError, match=r"tiny\.yaml:6:35: .*\[needs-data\]"):
        load_space("bare.yaml")
    assert load_space(space_of_pets(tiny)).base.head.classes == "data"
    (tiny / "tiny.yaml").write_text(SPEC.replace("patch: 4", "patch: 5"))
    with pytest.raises(ArchError, match=r"tiny\.yaml:4"):
        load_space("space.yaml")


# ---- with data


@pytest.mark.parametrize("colours", [2, 3, 5])
def test_the_number_comes_from_the_data_and_expectations_go(colours):
    source = parse_source({"type": "synthetic", "colours": colours})
    wanting = loads("{name: a, extends: micro_swin, head: {classes: data}, expect: {params: 5}}", check=False)
    found = with_classes_of(wanting, source)
    assert found.head.classes == colours * (colours - 1) and found.expect is None
    assert loads(found.to_yaml()) == found
    given = load("micro_swin")
    assert with_classes_of(given, source) is given


def test_train_writes_the_number_and_what_it_trained_on(tiny, capsys):
    command = "train tiny.yaml --data pets --recipe quick --epochs 1 --batch 8 --workers 0 --device cpu --out run"
    assert run(command.split()) == 0
    assert "note: head.classes is 3, as in the data" in capsys.readouterr().err
    spec, told = load("run/spec.yaml"), json.loads(Path("run/train.json").read_text())
    assert spec.head.classes == 3 and list(spec.trained_on.classes) == told["classes"] == CLASSES
    assert spec.trained_on.model_dump(mode="json")["preprocessing"] == told["preprocessing"]
    assert run([*command.split(), "--resume"]) == 0
    assert run(["build", "run", "-o", "out", "--emit", "onnx"]) == 0
    built, model = json.loads(Path("out/build.json").read_text()), onnx.load("out/model.onnx")
    assert built["output"] == ["batch", 3] and built["classes"] == CLASSES
    assert json.loads({x.key: x.value for x in model.metadata_props}["classes"]) == CLASSES
    assert run(["train", "tiny.yaml", "--data", "imagefolder:nowhere", "--out", "other"]) == 1
    assert not Path("other").exists()


def test_search_resolves_it_for_workers_too_and_its_front_is_built_with_what_it_says(tiny, capsys):
    choices = "stages.0.window: [2, 4], head: [{type: classifier, classes: data, norm: batch}]"
    path = str(space_of_pets(tiny, choices))
    prepared = prepare(path, SearchOptions(out="prepared"))
    assert prepared.space.base.head.classes == 3 and prepared.plan.fixed["base"]["head"]["classes"] == 3
    elsewhere = space_of(job_of(prepared.space, prepared.plan, (), None, prepared.parts.recipe))
    for space in (prepared.space, elsewhere):
        specs = [space.spec(assignment) for assignment in space.iterate()]
        assert {spec.head.classes for spec in specs} == {3}
    assert run(["search", path, "--out", "found"]) == 0
    (front,) = Path("found/front").glob("*.yaml")
    spec = load(front)
    assert spec.head.classes == 3 and list(spec.trained_on.classes) == CLASSES
    assert run(["build", str(front), "-o", "out", "--emit", "onnx", "--images", "pets"]) == 0
    built = json.loads(Path("out/build.json").read_text())
    assert built["classes"] == CLASSES and built["preprocessing"]["size"] == [16, 16]


# ---- trained_on

FACTS = {
    "classes": ["a", "b"],
    "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": [16, 16], "crop": 1.0, "interpolation": "bicubic"},
}
TWO = with_classes(loads(SPEC, check=False), 2)


def test_a_build_expects_images_as_the_spec_says(tiny, capsys):
    Path("two.yaml").write_text(with_trained_on(TWO, FACTS).to_yaml())
    np.save("images.npy", np.random.default_rng(0).uniform(-2, 2, (4, 3, 16, 16)).astype(np.float32))
    assert run(["build", "two.yaml", "-o", "right", "--emit", "onnx", "--images", "images.npy"]) == 0
    assert "note" not in capsys.readouterr().err
    np.save("images.npy", np.random.default_rng(0).uniform(0, 255, (4, 3, 16, 16)).astype(np.float32))
    assert run(["build", "two.yaml", "-o", "wrong", "--emit", "onnx", "--images", "images.npy"]) == 0
    assert (
        "seem pixels from 0 to 255; the network expects (x / 255 - mean) / std with mean 0.5" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"name": "other"}, True),
        ({"source": "here"}, True),
        ({"head.classes": 5}, False),
        ({"input.size": 32}, False),
        ({"stages.0.depth": 2}, False),
    ],
)
def test_a_changed_network_was_not_trained_on_anything(changes, kept, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(with_trained_on(TWO, FACTS).to_yaml())
    assert (load(path, changes).trained_on is not None) == kept
    (tmp_path / "child.yaml").write_text("extends: two.yaml")
    assert load(tmp_path / "child.yaml").trained_on is None


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        (FACTS, {"classes", "preprocessing"}),
        ({"preprocessing": None}, set()),
        ({**FACTS, "validation": "some"}, {"classes", "preprocessing"}),
        ({**FACTS, "classes": ["a", "b", "c"]}, {"preprocessing"}),
        ({**FACTS, "preprocessing": {**FACTS["preprocessing"], "mean": [0.5], "std": [0.5]}}, {"classes"}),
    ],
)
def test_only_what_fits_the_network_is_said(facts, kept):
    spec = with_trained_on(TWO, facts)
    assert set(spec.data.get("trained_on", ())) == kept and loads(spec.to_yaml()) == spec
    assert with_trained_on(spec, {}).trained_on is None


def test_more_names_than_a_file_can_hold_are_left_out():
    most = limits.MAX_CLASS_NAMES
    for number, said in ((most, True), (most + 1, False)):
        many = with_classes(loads(SPEC, check=False), number)
        names = [f"n{index:08d}, some kind of animal" for index in range(number)]
        spec = with_trained_on(many, {"classes": names})
        assert (spec.trained_on is not None) == said
        if said:
            assert len(spec.to_yaml()) < limits.MAX_FILE_BYTES


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{classes: [a]}", r"1 classes are named, but the head has 2 \[length\]"),
        ("{classes: [a, 2]}", "must be text"),
        ("{classes: a}", "must be a list"),
        ("{preprocessing: {mean: [0.5]}}", "std"),
        ("{pre: 3}", "unknown key"),
        (
            "{preprocessing: {mean: [0.5, 1], std: [1], size: 16, crop: 1, interpolation: bicubic}}",
            r"`std` must have a number for each channel, as `mean` has 2, but it has 1 \[length\]",
        ),
        ("{preprocessing: {mean: [0.5], std: [0], size: 16, crop: 1, interpolation: bicubic}}", "std"),
    ],
)
def test_what_is_wrong_with_it_is_told(said, message):
    with pytest.raises(ArchError, match=message):
        loads(f"{SPEC.replace('data', '2')}trained_on: {said}\n")


def test_generated_images_have_no_preprocessing():
    data = parse_source("synthetic").open((16, 16))
    facts = data_facts(data)
    assert facts["preprocessing"] is None and len(facts["classes"]) == 12 and "validation" not in facts
    assert with_trained_on(TWO, facts).to_yaml() == TWO.to_yaml(), "its two classes are not these twelve"


def test_a_space_in_text_takes_a_number_once(tmp_path):
    space = loads_space("{base: micro_swin, choices: {stages.0.depth: [1, 2]}}")
    assert space.with_classes(None) is space
    assert space.with_classes(5).spec({"stages.0.depth": 0}).head.classes == 12
