"""`archdsl init`: the project that it makes works as it is, and nothing that is there is touched."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import jsonschema
import pytest

from archdsl.cli.main import run
from archdsl.language.space.schema import schema
from archdsl.language.text.yaml_text import parse
from archdsl.training.recipe import recipe_schema

SMALL = [*("--trials", "1", "--no-confirm"), *("--set", "objectives.accuracy.train.epochs=1")]
SMALL += ["--set", "objectives.accuracy.train.seeds=1"]
"""Arguments that make the README's search short."""


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_every_command_of_the_projects_readme_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    project = tmp_path / "mine"
    assert run(["init", str(project)]) == 0
    monkeypatch.chdir(project)
    blocks = re.findall(r"```console\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    assert [command[0] for command in commands] == ["check", "show", "build", "search"]
    for command in commands:
        code = run([*command, *(SMALL if command[0] == "search" else [])])
        shown = capfd.readouterr()
        assert code == 0, f"{shlex.join(command)}\n{shown.out}\n{shown.err}"
    assert {path.name for path in Path("my_net").iterdir()} >= {"model.onnx", "model.safetensors"}
    assert Path("runs/my_space/report.html").is_file()


def test_editors_find_the_schemas_and_the_files_keep_to_them(tmp_path):
    assert run(["init", str(tmp_path / "mine")]) == 0
    kept = {"spec": schema("spec"), "space": schema("space"), "recipe": recipe_schema()}
    assert {p.stem: json.loads(p.read_text()) for p in (tmp_path / "mine" / "schemas").iterdir()} == kept
    for name, kind in (("my_net.yaml", "spec"), ("my_space.yaml", "space")):
        text = (tmp_path / "mine" / name).read_text()
        assert text.startswith(f"# yaml-language-server: $schema=schemas/{kind}.json\n")
        jsonschema.validate(parse(text, name).plain(), kept[kind])
    settings = json.loads((tmp_path / "mine" / ".vscode" / "settings.json").read_text())
    for found, file in settings["yaml.schemas"].items():
        assert (tmp_path / "mine" / found).is_file() and (tmp_path / "mine" / file).is_file()


def test_the_files_are_listed_as_json_and_an_empty_folder_will_do(tmp_path, capsys):
    assert run(["init", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == sorted(name for name, data in contents(tmp_path).items() if data is not None)


@pytest.mark.parametrize("name", ["README.md", "notes.txt", ".hidden"])
def test_a_folder_with_anything_in_it_is_refused_and_left_as_it_is(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert run(["init", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert f"{tmp_path} is not empty: it has {name} [output-folder]" in told.err and told.out == ""
    assert contents(tmp_path) == {name: b"mine"}


def test_a_second_init_changes_nothing(tmp_path, capsys):
    assert run(["init", str(tmp_path)]) == 0
    before = contents(tmp_path)
    assert run(["init", str(tmp_path)]) == 1
    assert contents(tmp_path) == before


def test_a_file_and_a_link_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "there").mkdir()
    os.symlink(tmp_path / "there", tmp_path / "link")
    for name, words in (("file", "is a file, not a folder"), ("link", "is a link")):
        assert run(["init", str(tmp_path / name)]) == 1
        assert words in capsys.readouterr().err
    assert list((tmp_path / "there").iterdir()) == []
