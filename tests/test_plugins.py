"""A plug-in imports `archdsl.plugins` alone: the one of docs/language.md, the example, and one that uses every name."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archdsl import plugins
from archdsl.cli.main import COMMANDS, archdsl, run
from archdsl.errors import ArchError
from archdsl.language import loads
from archdsl.parts import part

ROOT = Path(__file__).parents[1]
DOCUMENTED = re.search(r"```python\n(# my_blocks\.py\n.*?)```", (ROOT / "docs/language.md").read_text(), re.DOTALL)
EXAMPLE = (ROOT / "examples" / "01_own_block.py").read_text(encoding="utf-8")
OWN = """
import torch

from archdsl.plugins import (
    Block, Dim, Downsample, Eps, Flow, Head, Heads, Planes, Rate, RuleBroken, Scope, Stem, as_planes, as_tokens,
    check_heads, mlp, norm, ops, register, residual, self_attention,
)

SLOPE = float(torch.ones(2).sum())


@register("own_stem")
class OwnStem(Stem):
    dim: Dim

    def lower(self, g: Scope, flow: Flow) -> Flow:
        return flow.to(g.add(ops.Conv2d(flow.x.type.channels, self.dim, 4, stride=4), flow.x, name="proj"))


@register("own_block")
class OwnBlock(Block):
    heads: Heads
    eps: Eps = 1e-5
    drop_path: Rate | None = None

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_tokens(g, flow.x)
        if x.type.channels > 1000:
            raise RuleBroken("too wide", field="heads")
        check_heads(x.type.channels, self.heads)
        y = norm(g, x, "layer", axis="channel", eps=self.eps, name="norm")
        x = residual(g, x, self_attention(g, y, self.heads, qkv_bias=True), self.drop_path)
        return flow.to(residual(g, x, mlp(g, x, SLOPE, "gelu"), self.drop_path))


@register("own_downsample")
class OwnDownsample(Downsample):
    def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
        x = as_planes(g, flow.x)
        assert isinstance(x.type.order, Planes)
        return flow.to(g.add(ops.Conv2d(x.type.channels, dim, 2, stride=2), x, name="conv"))


@register("own_head")
class OwnHead(Head):
    classes: int = 3

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = g.add(ops.MeanPool(), as_tokens(g, flow.x), name="pool")
        return flow.to(g.add(ops.Linear(x.type.channels, self.classes), x, name="fc"))
"""
NETWORKS = {
    "documented": "stem: {type: patch, patch: 4, dim: 8}\nstages: [{block: mlp_only, depth: 2}]\nhead: classifier",
    "example": "stem: {type: patch, patch: 4, dim: 8}\nstages: [{block: local, depth: 2}]\nhead: classifier",
    "own": """
stem: {type: own_stem, dim: 8}
stages:
  - {block: own_block, depth: 1, heads: 2}
  - {block: own_block, depth: 1, heads: 4, downsample: own_downsample}
head: own_head
""",
}
assert DOCUMENTED is not None
PLUGINS = {"documented": DOCUMENTED[1], "example": EXAMPLE, "own": OWN}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_imports_one_module_of_archdsl(name: str) -> None:
    body = ast.parse(PLUGINS[name]).body
    modules = {node.module for node in body if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module != "__future__"} == {"archdsl.plugins"}
    others = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    assert others <= {"torch", "archdsl"}, "the example shows its block off with the verbs of archdsl"


@pytest.mark.parametrize("name", PLUGINS)
def test_a_network_with_the_parts_of_a_plugin_is_built(name: str, tmp_path: Path) -> None:
    plugin, network = tmp_path / "my_blocks.py", tmp_path / "net.yaml"
    plugin.write_text(PLUGINS[name], encoding="utf-8")
    network.write_text(f"name: net\ninput: {{size: 16}}\n{NETWORKS[name]}\n", encoding="utf-8")
    command = [sys.executable, "-m", "archdsl", "--plugin", plugin, "build", network, "-o", tmp_path / "net"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net" / "model.onnx").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "--plugin my_blocks.py check net.yaml",
        "check --plugin my_blocks.py net.yaml",
        "check net.yaml --plugin my_blocks.py",
        "--plugin my_blocks.py check net.yaml --plugin my_blocks.py",  # once is enough, twice is no other
    ],
)
def test_plugins_are_named_before_or_behind_the_command(line: str, tmp_path: Path) -> None:
    for name, text in (("my_blocks.py", PLUGINS["documented"]), ("net.yaml", f"name: net\n{NETWORKS['documented']}\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "archdsl", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_every_command_takes_plugins() -> None:
    group = click.Context(archdsl)
    for name in COMMANDS:
        command = archdsl.get_command(group, name)
        assert command is not None
        inner = list(command.commands.values()) if isinstance(command, click.Group) else []
        for one in (command, archdsl.get_command(group, name), *inner):  # also when it is asked for again
            assert one is not None and [o.opts for o in one.params].count(["--plugin"]) == 1, name


def test_what_a_plugin_may_import_is_there_and_sorted() -> None:
    assert all(hasattr(plugins, name) for name in plugins.__all__)
    assert plugins.__all__ == sorted(plugins.__all__)


# --- plug-ins that fail ----------------------------------------------------------------------------------------------

WRONG = """
import sys
from pydantic import field_validator
from archdsl.plugins import *

def fail():
    {fail}

@register("wrong")
class Wrong(Block):
    width: int = 3

    @field_validator("width")
    @classmethod
    def checked(cls, value):
        {validate}
        return value

    @classmethod
    def spread(cls, field, value, depth):
        {spread}
        return [value] * depth

    def lower(self, g, flow):
        {lower}
        return flow
{at_import}
"""
FAILURES = {
    "sys.exit(0)": "SystemExit: 0",
    "exit()": "SystemExit: None",
    "raise OSError('no such\\nplace')": "OSError: no such place",
    "raise NotImplementedError": "NotImplementedError",
    "{}['k']": "KeyError: 'k'",
    "fail.missing": "AttributeError: 'function' object has no attribute 'missing'",
}
NET = """name: net
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8}
stages: [{block: wrong, depth: 2, width: 4}]
head: classifier
"""


@pytest.fixture
def known_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The parts that a test registers are forgotten after it."""
    monkeypatch.setattr(part, "_REGISTRY", {kind: dict(known) for kind, known in part._REGISTRY.items()})
    part._load_plugins.cache_clear()
    yield
    part._load_plugins.cache_clear()


def wrong(folder: Path, fail: str, where: str, number: int = 0) -> Path:
    """A plug-in that fails somewhere. Its class is another one for each file: what was checked is kept by class."""
    path = folder / f"wrong_{number}.py"
    calls = {place: "fail()" if place == where else "pass" for place in ("validate", "spread", "lower", "at_import")}
    path.write_text(WRONG.format(fail=fail, **calls), encoding="utf-8")
    return path


@pytest.mark.parametrize("fail", FAILURES)
def test_a_plugin_that_fails_is_told_with_its_last_line(fail: str, tmp_path: Path, known_parts: None) -> None:
    at_import = wrong(tmp_path, fail, "at_import")
    with pytest.raises(ArchError, match="cannot be loaded: it failed") as caught:
        part.load_plugin(at_import)
    (problem,) = caught.value.problems
    assert problem.rule == "plugin" and f"{FAILURES[fail]} ({at_import}:7)" in problem.message
    for number, where in enumerate(("validate", "lower"), 1):
        part.parts("block").pop("wrong", None)
        part.load_plugin(path := wrong(tmp_path, fail, where, number))
        with pytest.raises(ArchError, match="failed: ") as caught:
            loads(NET, "net.yaml")
        (problem,) = caught.value.problems  # one problem, although both blocks fail
        assert problem.rule == "plugin" and f"{FAILURES[fail]} ({path}:7)" in problem.message
        assert problem.place.file == "net.yaml" and problem.place.line == 4
        assert caught.value.exit_code == 1


@pytest.mark.parametrize("fail", ["sys.exit(0)", "raise OSError('no place')"])
def test_a_plugin_that_fails_where_a_value_is_spread_is_told(fail: str, tmp_path: Path, known_parts: None) -> None:
    part.load_plugin(path := wrong(tmp_path, fail, "spread"))
    with pytest.raises(ArchError, match=re.escape(f"{path}:7")):
        loads(NET)


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("lower(self, g, flow)", "None", "must return a Flow, but returned NoneType"),
        ("lower(self, g, flow)", "flow.x", "must return a Flow, but returned Node"),
        ("spread(cls, field, value, depth)", "[value]", "one value for each of 2 blocks"),
        ("spread(cls, field, value, depth)", "None", "one value for each of 2 blocks"),
    ],
)
def test_a_method_that_returns_something_else_is_told(
    method: str, answer: str, said: str, tmp_path: Path, known_parts: None
) -> None:
    text = wrong(tmp_path, "pass", "nowhere").read_text()
    path = tmp_path / "other.py"
    path.write_text(re.sub(rf"(def {re.escape(method)}:\n        )pass", rf"\1return {answer}", text))
    part.load_plugin(path)
    with pytest.raises(ArchError, match=re.escape(said)):
        loads(NET)


@pytest.mark.parametrize("where", ["at_import", "validate", "spread", "lower"])
def test_what_a_plugin_prints_is_no_result(
    where: str,
    tmp_path: Path,
    known_parts: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(part.PLUGINS_VARIABLE, str(wrong(tmp_path, "print('{}chatter')", where)))
    (tmp_path / "net.yaml").write_text(NET)
    assert run(["check", str(tmp_path / "net.yaml"), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["ok"] and "chatter" in told.err


def test_check_of_a_wrong_file_never_exits_0(
    tmp_path: Path, known_parts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All plug-ins that fail are told, those that are installed too."""
    others = [str(wrong(tmp_path, fail, "at_import", i)) for i, fail in enumerate(("exit()", "sys.exit(0)", "1 / 0"))]
    monkeypatch.setenv(part.PLUGINS_VARIABLE, os.pathsep.join(others))
    entry = importlib.metadata.EntryPoint("mine", "archdsl_missing_module", "archdsl.blocks")
    monkeypatch.setattr(part, "entry_points", lambda group: [entry] if group == "archdsl.blocks" else [])
    (tmp_path / "net.yaml").write_text("stem: nothing")
    assert run(["check", str(tmp_path / "net.yaml"), "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert [error["rule"] for error in errors] == ["plugin"] * 4
    assert "No module named 'archdsl_missing_module'" in errors[0]["message"]


def test_a_library_that_exits_does_not_decide_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*arguments: object) -> None:
        sys.exit(0)

    monkeypatch.setattr("archdsl.cli.check.cost", leave)
    assert run(["check", "vit_ti_16"]) == 2
    assert "SystemExit" in capsys.readouterr().err
