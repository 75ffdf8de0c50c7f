"""The documentation's site: it is built without a warning, and its commands run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import load_torchvision
from test_eval import checkpoint, pets  # noqa: F401

from archdsl.cli.main import run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def commands(page: str) -> list[list[str]]:
    """The arguments of the lines that start with `$ archdsl`, in their order."""
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert lines and all(line.startswith("$ archdsl ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


def write_files(page: str, folder: Path) -> None:
    """The YAML files of a page whose first line is their name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, content in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, flags=re.DOTALL):
        (folder / name).write_text(content)


def run_all(page: list[list[str]], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in page:
        given = [str(path.relative_to(folder)) for each in arguments if "*" in each for path in folder.glob(each)]
        arguments = [each for each in arguments if "*" not in each] + given
        code = run(arguments)
        shown = capfd.readouterr()
        assert code == 0, f"{shlex.join(arguments)}\n{shown.out}\n{shown.err}"


def test_the_reference_pages_are_what_the_code_says(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, str(DOCS / "generate_reference.py"), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(pages) == {"commands.md", "parts.md", "rules.md"}
    for name, text in pages.items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, "python docs/generate_reference.py"


@pytest.mark.timeout(600)
def test_every_command_of_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    write_files("tutorial.md", tmp_path)
    run_all(commands("tutorial.md"), tmp_path, capfd)
    left = {path.name for path in (tmp_path / "runs" / "tutorial").iterdir()}
    assert left >= {"report.html", "front.csv", "front.svg", "front"}
    assert {path.name for path in (tmp_path / "first").iterdir()} >= {"spec.yaml", "model.onnx", "build.json"}


@pytest.mark.timeout(600)
def test_fine_tuning_and_deploying_goes_as_its_page_says(
    checkpoint: Path,  # noqa: F811
    pets: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With a small network in the place of Swin-T, whose images this process decodes."""
    load_torchvision()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    checkpoint.rename(tmp_path / "checkpoint.pth.tar")
    assert pets == tmp_path / "pets"
    page = commands("howto/fine_tune_and_deploy.md")
    assert [each[0] for each in page] == ["train", "eval", "build", "eval", "bench"]
    train, *others = [["./micro.yaml" if word == "swin_t" else word for word in each] for each in page]
    run_all([[*train, "--workers", "0"], *others], tmp_path, capfd)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the documentation's tools are in archdsl[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "site")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    for words in ("a state dict by archdsl", "Parameters:", "Examples:"):
        assert words in page


def test_sections_of_a_docstring_stand_apart() -> None:
    pytest.importorskip("griffe", reason="the documentation's tools are in archdsl[docs]")
    text = "Do it.\n\nArgs:\n    a: one\n        more\nReturns: what\n    there is\nRaises: ValueError\nExample:\n"
    text += "    >>> 1\n    1"
    assert script("docstring_sections").separated(text) == (
        "Do it.\n\n\nArgs:\n    a: one\n        more\n\n**Returns**: what there is\n\n**Raises**: ValueError\n\n"
        "Examples:\n    >>> 1\n    1"
    )
