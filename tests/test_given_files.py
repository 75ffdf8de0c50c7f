"""What a user names: ONNX files, build folders, standard input, files that are no YAML, names taken from files."""

import io
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from archdsl.cli.main import run
from archdsl.errors import SpecError
from archdsl.language import load, load_any, loads, loads_space
from archdsl.language.space.counting import count
from archdsl.language.text import yaml_text
from archdsl.training import parse_recipe

MICRO = """
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: swin, depth: 1, heads: 2, window: 2}]
head: {type: classifier, classes: 3}
"""


def onnx_file(path: Path, *, shape=("B", 4), kind=TensorProto.FLOAT, weights=np.float32, inputs=1) -> Path:
    """A file of one product of [B, 4] with [4, 3]."""
    numbers = np.ones((4, 3), weights)
    given = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)]
    result = helper.make_tensor_value_info("y", kind, (shape[0], 3))
    nodes = [helper.make_node("MatMul", ["x0", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", given, [result], [numpy_helper.from_array(numbers, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def benched(capsys, *arguments: object) -> dict:
    capsys.readouterr()
    assert run(["bench", *map(str, arguments), "--seconds", "0.1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))


# --- bench -----------------------------------------------------------------------------------------------------------


def test_files_and_build_folders_are_benched_beside_specs(tmp_path, capsys):
    spec = tmp_path / "micro.yaml"
    spec.write_text(MICRO)
    assert run(["build", str(spec), "-o", str(tmp_path / "out"), "--emit", "torch", "--emit", "onnx"]) == 0
    theirs = onnx_file(tmp_path / "theirs.onnx")
    found = benched(capsys, theirs, tmp_path / "out", spec)
    names = [one["spec"] for one in found["results"]]
    assert names == [str(theirs), str(tmp_path / "out"), "micro"] and found["failed"] == []
    assert [one["macs"] is None for one in found["results"]] == [True, False, False]
    compared = [
        not any("nothing says what it must answer" in note for note in one["notes"]) for one in found["results"]
    ]
    assert compared == [False, True, True]


def test_the_answers_of_a_built_file_are_those_of_its_weights(tmp_path, capsys):
    spec = tmp_path / "micro.yaml"
    spec.write_text(MICRO)
    for name, seed in (("a", 1), ("b", 2)):
        assert run(["build", str(spec), "-o", str(tmp_path / name), "--seed", str(seed)]) == 0
    (tmp_path / "a" / "model.onnx").write_bytes((tmp_path / "b" / "model.onnx").read_bytes())
    capsys.readouterr()
    assert run(["bench", str(tmp_path / "a"), "--seconds", "0.1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["errors"][0]["rule"] == "numeric-gate"


@pytest.mark.parametrize(
    ("options", "made", "said"),
    [
        (["--batch", "2"], {"shape": (1, 4)}, "is for batches of 1, and the target for 2"),
        (["--precision", "fp32"], {"kind": TensorProto.FLOAT16, "weights": np.float16}, "needs one fp32 input"),
        ([], {"shape": ("B", "N")}, "whose other sizes are numbers; it has x0"),
        ([], {"inputs": 2}, "needs one fp32 input"),
        (["--on", "torch"], {}, "torch is not for ONNX files"),
        (["--on", "null"], {}, "null is not for ONNX files: it computes latencies"),
        (["--set", "stages.0.depth=1"], {}, "--set is about specs"),
        (["--form", "train"], {}, "--form is about specs"),
        (["--predict"], {}, "--predict is about our own networks"),
    ],
)
def test_an_onnx_file_that_does_not_fit_says_what_it_is(options, made, said, tmp_path, capsys):
    path = onnx_file(tmp_path / "x.onnx", **made)
    assert run(["bench", str(path), *options]) in (1, 2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x08\x07abc", b"PK\x03\x04", b"name: a\n", b"\xff" * 50])
def test_what_is_no_onnx_model_is_said_before_anything_is_timed(content, tmp_path, capsys):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert run(["bench", "micro_swin", str(path)]) == 1
    shown = capsys.readouterr().err
    assert "[cannot-read]" in shown and "timing on" not in shown and "Traceback" not in shown


def test_a_pipe_in_place_of_an_onnx_file_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "x.onnx")
    assert run(["bench", str(tmp_path / "x.onnx")]) == 1
    assert "it is not a regular file [cannot-read]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/dev/zero", "names `/dev/zero`, which is not in its folder"),
        ("../secret", "names `../secret`, which is not in its folder"),
        ("link", "names `link`, which is not in its folder"),
        ("pipe", "names `pipe`, which is not a regular file"),
        ("none", "needs `none` beside it"),
    ],
)
def test_only_files_beside_an_onnx_file_hold_its_tensors(location, said, tmp_path, capsys):
    (tmp_path / "secret").write_bytes(b"\0" * 48)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    model = onnx.load(onnx_file(folder / "x.onnx"))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    assert run(["bench", str(folder / "x.onnx"), "--seconds", "0.1"]) == 1
    assert said in capsys.readouterr().err


def test_missing_files_and_other_folders_are_told(tmp_path, capsys):
    assert run(["bench", str(tmp_path / "none.onnx")]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert run(["bench", str(tmp_path)]) == 1
    assert "a folder without spec.yaml" in capsys.readouterr().err


# --- files that are no YAML ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x80\x02}q\x00", "a Python pickle"),
        (b"\x1f\x8b\x08", "a file that gzip compressed"),
        (b"\x89PNG\r\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a": 1}', "a safetensors file"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
    ],
)
@pytest.mark.parametrize("size", [0, 2_000_000])
def test_a_file_that_is_no_yaml_says_what_it_is(content, kind, size, tmp_path, capsys):
    path = tmp_path / "net.bin"
    path.write_bytes(content + bytes(size))
    assert run(["check", str(path)]) == 1
    shown = capsys.readouterr().err
    assert kind in shown and "not YAML" in shown and "save the file as UTF-8" not in shown


def test_an_onnx_model_given_as_a_spec_names_the_command_that_takes_it(tmp_path, capsys):
    assert run(["check", str(onnx_file(tmp_path / "x.onnx"))]) == 1
    assert "this is an ONNX model, not YAML" in (shown := capsys.readouterr().err) and "`archdsl bench`" in shown


def test_a_build_folder_given_as_a_spec_names_the_spec_in_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/spec.yaml").write_text(MICRO)
    assert run(["check", "out"]) == 1
    assert "its spec is out/spec.yaml" in capsys.readouterr().err


# --- standard input --------------------------------------------------------------------------------------------------


def piped(monkeypatch, text: str | bytes) -> None:
    raw = io.BytesIO(text.encode() if isinstance(text, str) else text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "-"],
        ["show", "-", "--json"],
        ["build", "-"],
        ["bench", "-", "--on", "null"],
        ["train", "-", "--data", "nosuch"],
        ["profile", "-", "--on", "null"],
        ["predict", "-", "--on", "null"],
        ["search", "-"],
    ],
)
def test_every_command_that_takes_a_spec_reads_it_from_standard_input(arguments, monkeypatch, capsys):
    piped(monkeypatch, "name: mine\nextends: micro_swin\nwidht: 3\n")
    assert run(arguments) == 1
    shown = capsys.readouterr().err
    assert "<stdin>:3:1: unknown key `widht`" in shown or "<stdin>:2:1: `extends` belongs to a spec" in shown


def test_what_is_piped_in_is_read_once_and_named_so(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(MICRO)
    piped(monkeypatch, "extends: ./base.yaml\n")
    assert run(["check", "-", "-"]) == 0
    assert capsys.readouterr().out.count("<stdin>: fine") == 2
    piped(monkeypatch, "base: micro_swin\nchoices: {stages.0.depth: [1, 2]}\n")
    assert run(["show", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "stdin"


@pytest.mark.parametrize(
    ("text", "said"), [("", "there is nothing in it"), (b"\xff", "not UTF-8"), (b"#" * 2_000_000, "at most 1_048_576")]
)
def test_what_is_piped_in_is_read_as_carefully_as_a_file(text, said, monkeypatch, capsys):
    piped(monkeypatch, text)
    assert run(["check", "-"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("<stdin>:1:1: ") and said in shown


def test_a_closed_standard_input_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["check", "-"]) == 1
    assert "standard input cannot be read: it is closed" in capsys.readouterr().err


# --- names and dashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["two words", "-dash", "ü", "a(1)"])
def test_a_name_taken_from_the_file_says_so(stem, tmp_path):
    spec, space, recipe = (tmp_path / kind / f"{stem}.yaml" for kind in ("spec", "space", "recipe"))
    for path, text in ((spec, MICRO), (space, "base: micro_swin\nchoices: {stages.0.depth: [1, 2]}\n")):
        path.parent.mkdir()
        path.write_text(text)
        with pytest.raises(SpecError, match="no `name` is written, and the name of the file cannot be one") as caught:
            load_any(path)
        assert "or rename the file" in str(caught.value.problems[0].hint) and len(caught.value.problems) == 1
    recipe.parent.mkdir()
    recipe.write_text("extends: quick\n")
    with pytest.raises(SpecError, match="no `name` is written"):
        parse_recipe(str(recipe))


def test_a_written_name_is_not_blamed_on_the_file(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text("name: two words" + MICRO)
    with pytest.raises(SpecError, match=r"`name` must be letters, digits and `_\.\+-`") as caught:
        load(path)
    assert "name of the file" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("extends: swin_t\nstages:\n- {}\n- {}\n- {depth: 4}\n-\n", ["6:1"]),
        ("extends: swin_t\nstages:\n  - {}\n  -   # nothing\n  - {}\n  - {}\n", ["4:3"]),
        ("extends: swin_t\nstages:\n- {}\n-\n- {}\n-\n", ["4:1", "6:1"]),
        ("extends: swin_t\ninput:\n  size:\n  - 224\n  -\n", ["5:3"]),
        ("extends: swin_t\nstages:\n- {}\n- {}\n- {}\n- blocks:\n  - {block: swin}\n  -\n", ["8:3"]),
        ("- \n", ["1:1"]),
    ],
)
def test_an_empty_dash_is_one_problem_at_the_dash(text, places):
    with pytest.raises(SpecError, match="this entry of the list is empty") as caught:
        loads(text, "a.yaml")
    assert [f"{problem.place.line}:{problem.place.column}" for problem in caught.value.problems] == places


def test_a_written_null_is_no_empty_dash():
    tree = yaml_text.parse("a:\n- null\n- ~\n- ''\n- {}\n- [x, y]\nb:\n", "a.yaml")
    assert tree.plain() == {"a": [None, None, "", {}, ["x", "y"]], "b": None}


# --- large texts -----------------------------------------------------------------------------------------------------

STARTS = {"spec": "extends: micro_swin\n", "space": "base: micro_swin\nchoices: {stages.0.depth: [1, 2]}\n"}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize(
    ("num_keys", "message", "num_problems"),
    [(9_000, "unknown key `k00000`", 1000), (60_000, r"a mapping may have at most 10_000 keys \[limit\]", 1)],
)
def test_thousands_of_unknown_keys_are_told_at_once(kind, num_keys, message, num_problems):
    text = STARTS[kind] + "".join(f"k{number:05}: 1\n" for number in range(num_keys))
    started = time.process_time()
    with pytest.raises(SpecError, match=message) as caught:
        (loads_space if kind == "space" else loads)(text, "a.yaml")
    assert len(caught.value.problems) == num_problems
    assert time.process_time() - started < 10


STAGE = "{block: swin, depth: 1, heads: 2, window: 2, shift: false}"
FIELDS = {
    "mlp_ratio": "[1, 2, 3, 4]",
    "depth": "[1, 2, 3]",
    "qkv_bias": "[true, false]",
    "window": "[2, 4]",
    "shift": "[true, false]",
    "norm": "[layer, batch]",
    "act": "[gelu, relu]",
    "heads": "[1, 2]",
    "position_bias": "[relative, none]",
}


def large_space(num_stages: int, fields: dict[str, str], tmp_path: Path):
    base = MICRO.replace(MICRO.splitlines()[3], f"stages: [{', '.join([STAGE] * num_stages)}]")
    (tmp_path / "base.yaml").write_text(base)
    choices = "".join(
        f"  stages.{i}.{name}: {options}\n" for i in range(num_stages) for name, options in fields.items()
    )
    (tmp_path / "large.yaml").write_text("base: ./base.yaml\nchoices:\n" + choices)
    return load_any(tmp_path / "large.yaml")


def test_every_option_is_tried_without_reading_the_other_stages_again(tmp_path, monkeypatch):
    from archdsl.language.architecture.part_reader import PartReader

    read = []
    many = PartReader.many
    monkeypatch.setattr(PartReader, "many", lambda self, *rest: read.append(1) or many(self, *rest))
    counts = []
    for num_stages in (4, 8):
        read.clear()
        large_space(num_stages, {"depth": "[1, 2, 3]", "window": "[1, 2]"}, tmp_path)
        counts.append(len(read))
    assert counts[1] <= 2.2 * counts[0]


def test_a_space_of_more_than_10_to_the_309_assignments_is_read(tmp_path):
    started = time.process_time()
    many = {
        "mlp_ratio": str([*range(1, 15)]),
        "depth": str([*range(1, 17)]),
        "heads": "[1, 2, 4, 8]",
        "window": "[1, 2, 4]",
    }
    space = large_space(64, FIELDS | many, tmp_path)
    assert space.num_total > 10**309
    assert time.process_time() - started < 60


def test_a_space_larger_than_any_float_is_counted_and_sampled(tmp_path, monkeypatch):
    space = large_space(2, {"depth": "[1, 2]", "window": "[1, 2]"}, tmp_path)
    monkeypatch.setattr(type(space), "num_total", property(lambda self: 10**400))
    size = count(space, lambda spec: str(spec.stages), limit=2)
    assert size.valid.value == size.valid.high == size.total == 10**400
    monkeypatch.setattr("archdsl.language.space.space.num_assignments_below", lambda choice, index: 10**400)
    assert set(space.sample(random.Random(0))) == {choice.name for choice in space.choices}
