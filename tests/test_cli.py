"""The command line: exit codes, JSON, no tracebacks, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archdsl.cli.main import COMMANDS, run

MICRO = """
name: micro
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: swin, depth: 2, heads: 2, window: 2, shift: true}]
head: {type: classifier, classes: 3}
"""


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    path = tmp_path / "micro.yaml"
    path.write_text(MICRO)
    return path


def archdsl(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archdsl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown and f"archdsl {command}" in shown


def test_a_good_spec_is_exit_0_and_a_bad_one_exit_1(micro, capsys):
    assert run(["check", str(micro)]) == 0
    assert "fine" in capsys.readouterr().out
    micro.write_text(MICRO.replace("heads: 2", "heads: 3"))
    assert run(["check", str(micro)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"{micro}:5:41: heads must divide the width")
    assert shown.out == ""


def test_errors_as_json_are_objects_with_their_place(micro, capsys):
    micro.write_text(MICRO.replace("heads: 2", "heads: 3").replace("patch: 4", "patsch: 4"))
    assert run(["check", str(micro), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["ok"]
    for error in shown["errors"]:
        assert {"file", "line", "column", "rule", "message", "hint"} <= set(error)
    assert shown["errors"][0]["line"] == 4


@pytest.mark.promise(41)
@pytest.mark.parametrize(
    "odd", ["\x7f", "\x85", "\x9b2J", "\u2028", "\u202e", "\u2066", "\ufeff", "\U000e0041", "\udcff", "é🙂"]
)
def test_json_can_be_printed_whatever_it_quotes(odd, micro, capsys):
    assert run(["show", str(micro), "--json", "--set", f"st{odd}ages.0.block=swin"]) == 1
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown)["errors"]


def test_check_goes_on_after_a_bad_file(micro, capsys):
    assert run(["check", "no_such_spec", str(micro)]) == 1
    shown = capsys.readouterr()
    assert "fine" in shown.out and "no_such_spec" in shown.err


def test_an_unmet_expectation_is_an_error_at_the_number(micro, capsys):
    micro.write_text(MICRO + "expect: {params: 5, macs: 1M}\n")
    assert run(["check", str(micro)]) == 1
    shown = capsys.readouterr().err
    assert f"{micro}:7:18: the spec expects params 5, but comes to" in shown
    assert "expects macs 1_000_000" in shown


def test_overrides_reach_every_command(micro, capsys):
    assert run(["show", str(micro), "--set", "stages.0.depth=3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["stages"][1]["blocks"] == 3
    assert shown["params"] > 0 and shown["onnx_tool_flops"] > 0


def test_show_says_what_lowering_changed(micro, capsys):
    assert run(["show", str(micro), "--set", "stages.0.window=4"]) == 0
    assert "no shift: one window covers the 4x4 map" in capsys.readouterr().out


def test_show_prints_the_compiled_graph(micro, capsys):
    assert run(["show", str(micro), "--graph"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("image: f32[B, 3, 16, 16]") and "return logits = head.fc" in shown


@pytest.mark.parametrize("arguments", [["chekc"], ["check"], ["show", "--nope"], ["bench", "swin_t", "--batch", "x"]])
def test_a_wrong_command_line_is_exit_1_with_a_way_out(arguments, capsys):
    assert run(arguments) == 1
    shown = capsys.readouterr()
    assert "hint:" in shown.err and shown.out == "" and "Traceback" not in shown.err


@pytest.mark.parametrize("arguments", [[], ["cache"]])
def test_a_command_without_its_verb_prints_its_help(arguments, capsys):
    assert run(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Usage: archdsl") and "Commands:" in shown.out and shown.err == ""


def test_a_training_that_has_not_ended_says_how_it_is_ended(tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text(MICRO)
    (tmp_path / "train.json").write_text("{}")
    assert run(["build", str(tmp_path)]) == 1
    assert f"archdsl train … --out {tmp_path} --resume" in capsys.readouterr().err


def test_a_bug_of_ours_is_exit_2_without_a_traceback(monkeypatch, micro, capsys):
    monkeypatch.setattr("archdsl.cli.check.cost", lambda spec: 1 / 0)
    monkeypatch.delenv("ARCHDSL_DEBUG", raising=False)
    assert run(["check", str(micro)]) == 2
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown and "Traceback" not in shown


def test_check_needs_no_torch_onnx_or_optuna():
    code = (
        "import sys; from archdsl.cli.main import run; assert run(['check', 'swin_b']) == 0;"
        "assert run(['show', 'swin_b']) == 0; assert run(['schema']) == 0;"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'optuna', 'networkx'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_build_writes_a_folder_that_builds_again(micro, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["build", str(micro), "-o", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == {"spec.yaml", "model.safetensors", "model.onnx", "build.json"}
    assert json.loads((out / "build.json").read_text())["hash"] == facts["hash"]
    again = tmp_path / "again"
    weights = out / "model.safetensors"
    assert run(["build", str(out / "spec.yaml"), "--weights", str(weights), "-o", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == weights.read_bytes()


def test_build_does_not_touch_a_folder_of_somebody_else(micro, tmp_path, capsys):
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert run(["build", str(micro), "-o", str(out)]) == 1
    assert "did not write" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_build_does_not_write_through_a_link(micro, tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run(["build", str(micro), "-o", str(tmp_path / "link")]) == 1
    assert "link" in capsys.readouterr().err
    assert not list((tmp_path / "real").iterdir())


def test_the_same_spec_and_seed_give_the_same_bytes(micro, tmp_path):
    """P15: weights and ONNX files are the same in two processes with different hash seeds."""
    for seed, name in (("1", "a"), ("2", "b")):
        done = archdsl("build", micro, "-o", tmp_path / name, env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.returncode == 0, done.stderr
    for name in ("model.onnx", "model.safetensors", "spec.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_plugin_adds_a_block_and_a_broken_one_is_an_error(micro, tmp_path):
    plugin = tmp_path / "plug.py"
    plugin.write_text(
        "from archdsl.plugins import Block, register\n"
        "@register('nothing')\n"
        "class Nothing(Block):\n"
        "    def lower(self, g, flow):\n"
        "        return flow\n"
    )
    swin = "block: swin, depth: 2, heads: 2, window: 2, shift: true"
    micro.write_text(MICRO.replace(swin, "block: nothing, depth: 1"))
    assert archdsl("--plugin", plugin, "check", micro).returncode == 0
    assert archdsl("check", micro).returncode == 1
    plugin.write_text("1 / 0")
    broken = archdsl("--plugin", plugin, "check", micro)
    assert broken.returncode == 1 and "ZeroDivisionError" in broken.stderr and "Traceback" not in broken.stderr


def test_bench_compares_side_by_side(micro, capsys):
    assert run(["bench", str(micro), str(micro), "--on", "onnxruntime,torch,null", "--seconds", "0.2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [row["target"]["runtime"] for row in results] == ["onnxruntime"] * 2 + ["torch"] * 2 + ["null"] * 2
    for row in results:
        assert row["ci_low_ms"] <= row["median_ms"] <= row["ci_high_ms"] and row["runs"] >= 1
    assert results[0]["ratio"] == 1.0


def test_doctor_tells_of_libraries_that_are_installed_and_broken(capsys, monkeypatch):
    """Their packages are there, so versions can be read; importing them fails."""

    def broken():
        raise RuntimeError("a driver of another age")

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("archdsl.runtimes.adapters.openvino_runtime.RUNTIME.version", broken)
    assert run(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    for name in ("onnxruntime", "onnxruntime-tensorrt"):
        told = findings[f"runtime {name}"]
        assert not told["ready"] and "`import onnxruntime` fails: " in told["found"] and told["fix"]
    assert "a driver of another age" in findings["runtime openvino"]["found"]
    assert findings["runtime torch"]["ready"] and findings["torch"]["ready"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["doctor"]) == 0
    assert "`import torch` fails" in capsys.readouterr().out


def test_doctor_names_every_runtime_and_what_brings_it(capsys):
    assert run(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["runtime onnxruntime"]["ready"]
    assert not findings["runtime tensorrt"]["ready"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["bu"], ["plain,build"]),
        (["show", "swin_free_b_br_dr1"], [f"plain,swin_free_b_br_dr{n}" for n in (12, 14, 16)]),
        (["show", "quicks"], ["plain,quickstart"]),
        (["build", "swin_t", "--preci"], ["plain,--precision"]),
    ],
)
def test_a_shell_completes_commands_options_and_shipped_names(
    words: list[str], found: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_ARCHDSL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["archdsl", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert run([]) == 0
    shown = capfd.readouterr()
    assert [line for line in shown.out.splitlines() if not line.startswith("file,")] == found and not shown.err
