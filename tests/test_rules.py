"""Every rule that an error can name is explained, and the examples of the explanations are true."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from archdsl.cli.main import run
from archdsl.errors import ArchError
from archdsl.failures import REASONS
from archdsl.language import loads
from archdsl.report.rules import rules

CODE = Path(__file__).parents[1] / "archdsl"
RULE = re.compile(r"[a-z]+(-[a-z]+)*")
WITH_EXAMPLE = [rule for rule in rules().values() if rule.broken is not None]


def rules_in(trees: list[ast.Module]) -> set[str]:
    """The constants that are given as a `rule`, or as a `Reason`, to any function of the code that takes one."""
    places: dict[str, set[int]] = defaultdict(set, {"Problem": {1}, "RuleBroken": set()})
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.args
            first = 1 if arguments and arguments[0].arg in ("self", "cls") else 0
            for index, one in enumerate(arguments):
                if one.arg == "rule" or (one.annotation is not None and ast.unparse(one.annotation) == "Reason"):
                    places[node.name].add(index - first)
            if any(one.arg == "rule" for one in node.args.kwonlyargs):
                places[node.name] |= set()
    return {rule for tree in trees for rule in _given(tree, places)}


def _given(tree: ast.Module, places: dict[str, set[int]]) -> Iterator[str]:
    for scope in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)):
        local = {
            target.id: node.value
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in (node for node in ast.walk(scope) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in places:
                given = [call.args[index] for index in places[name] if index < len(call.args)]
                given += [keyword.value for keyword in call.keywords if keyword.arg == "rule"]
                yield from (rule for one in given for rule in _constants(one, local))


def _constants(node: ast.expr, local: dict[str, ast.expr]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and RULE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (rule for one in (node.body, node.orelse) for rule in _constants(one, local))
    elif isinstance(node, ast.Name) and node.id in local:
        yield from _constants(local[node.id], {})


def test_rules_are_found_in_code_however_they_are_given() -> None:
    source = """
def failure(rule, message): ...
def other(text, *, rule): ...
class A:
    def add(self, mark, rule): ...
def f(x):
    word = "by-name" if x else "by-name-too"
    failure("direct", "m"); failure("one" if x else "two", "m"); other("no", rule="by-keyword")
    A().add(1, "in-method"); Problem(x, word, "m"); print("not this")
"""
    assert rules_in([ast.parse(source)]) == {
        *("direct", "one", "two", "by-keyword", "in-method", "by-name", "by-name-too")
    }


def test_every_rule_of_the_code_is_explained_and_no_other() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(CODE.rglob("*.py"))]
    assert {*rules_in(trees), *REASONS} == {*rules()}


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.name)
def test_a_rule_is_told_in_sentences_that_fit_80_columns(rule) -> None:
    for words in (rule.means, rule.why, rule.repair):
        assert words[0].isupper() or words.startswith(("`", "archdsl")), words
        assert words.endswith(".") and "\n" not in words
    assert rule.broken is not None or rule.repaired is None
    assert max(map(len, rule.text().splitlines())) <= 80


@pytest.mark.parametrize("rule", WITH_EXAMPLE, ids=lambda rule: rule.name)
def test_the_example_breaks_this_rule_and_no_other(rule, tmp_path, monkeypatch, capsys) -> None:
    assert broken_by(rule.broken, tmp_path, monkeypatch, capsys) == {rule.name}


@pytest.mark.parametrize("rule", [r for r in WITH_EXAMPLE if r.repaired], ids=lambda rule: rule.name)
def test_the_repaired_example_breaks_no_rule(rule, tmp_path, monkeypatch, capsys) -> None:
    assert broken_by(rule.repaired, tmp_path, monkeypatch, capsys) == set()


def broken_by(example: str, folder: Path, monkeypatch, capsys) -> set[str]:
    """The rules that a spec (`archdsl check`) or a command line breaks, in an empty folder."""
    monkeypatch.chdir(folder)
    words = shlex.split(example)[1:] if example.startswith("archdsl ") else ["check", "spec.yaml"]
    if words[-1] == "spec.yaml":
        Path("spec.yaml").write_text(example, encoding="utf-8")
    code = run([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    found = {problem["rule"] for problem in told.get("errors", ())}
    assert code == (1 if found else 0)
    return found


def test_every_spec_has_its_rule_repaired_by_few_changes() -> None:
    """The repaired example is the broken one with a line or two changed, not another one."""
    for rule in WITH_EXAMPLE:
        if rule.repaired and not rule.broken.startswith("archdsl "):
            kept = set(rule.broken.splitlines()) & set(rule.repaired.splitlines())
            assert kept or len(rule.broken.splitlines()) == 1, rule.name
            loads(rule.repaired, check=False)


def test_explain_prints_one_rule_or_lists_all(capsys, monkeypatch) -> None:
    monkeypatch.setattr("archdsl.cli.output.WIDTH_OF_FILES", 80)
    assert run(["explain", "[unknown-key]"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("unknown-key: A key that there is not at this place.")
    assert "How to fix: " in shown and "    head: {clases: 10}" in shown
    assert run(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.strip() and not line.startswith(" " * 4)} >= {*rules()}


def test_explain_as_json_has_the_same_text(capsys) -> None:
    assert run(["explain", "crash", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["rules"]
    assert one == rules()["crash"].as_json()
    assert run(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rules"]) == len(rules())


def test_a_rule_that_there_is_not_is_an_error_that_says_what_was_meant(capsys) -> None:
    assert run(["explain", "unknown-kee"]) == 1
    told = capsys.readouterr()
    assert "there is no rule `unknown-kee` [unknown-name]" in told.err and "did you mean `unknown-key`?" in told.err
    assert told.out == ""


def test_the_error_of_a_spec_names_a_rule_that_is_explained() -> None:
    with pytest.raises(ArchError) as caught:
        loads("{extends: swin_t, input: {size: 0}}")
    assert all(problem.rule in rules() for problem in caught.value.problems)


def test_no_torch_is_loaded() -> None:
    code = "import sys; from archdsl.cli.main import run; run(['explain', 'crash']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0
