"""What a release checks, and the files that a forge reads."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "archdsl/__init__.py", "CITATION.cff", "CHANGELOG.md")


def problems(root: Path) -> list[str]:
    spec = importlib.util.spec_from_file_location("check_release", ROOT / ".ci" / "check_release.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return list(found.problems(root))


def read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))  # noqa: TID251  # files of ours


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("CHANGELOG.md", "## [Unreleased]", "## [0.1.0] - 2026-12-01", []),
        ("CHANGELOG.md", "## [Unreleased]", "## [0.1.0]", ["CHANGELOG.md"]),
        ("CHANGELOG.md", "", "", ["CHANGELOG.md"]),
        ("CITATION.cff", "version: 0.1.0", "version: 0.2.0", ["CITATION.cff", "CHANGELOG.md"]),
        ("archdsl/__init__.py", '__version__ = "0.1.0"', "", ["archdsl/__init__.py", "CHANGELOG.md"]),
    ],
)
def test_a_release_has_one_version_and_its_section_of_the_changelog(
    name: str, old: str, new: str, found: list[str], tmp_path: Path
) -> None:
    (tmp_path / "archdsl").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
    assert [problem.split(":")[0] for problem in problems(tmp_path)] == found


def test_what_a_forge_reads_is_whole() -> None:
    workflow = read(".github/workflows/ci.yml")
    steps = [step.get("run") for step in workflow["jobs"]["run"]["steps"]]
    assert ".ci/run" in steps and "3.11" in workflow["jobs"]["run"]["strategy"]["matrix"]["python"]
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert {"name", "description", "body"} <= set(read(form))
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    schemas = container["customizations"]["vscode"]["settings"]["yaml.schemas"]
    assert all((ROOT / schema).is_file() for schema in schemas)
    assert read("CITATION.cff")["cff-version"] == "1.2.0"
