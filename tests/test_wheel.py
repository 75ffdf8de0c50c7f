"""The wheel holds the package whole: what git tracks, and the shipped files under `archdsl/_data`."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parent.parent


def tracked(folder: str) -> set[str]:
    found = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in found.stdout.split("\0") if name}


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = tracked("archdsl")
    targets = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    for source, place in targets["wheel"]["force-include"].items():
        wanted |= {f"{place}/{name.removeprefix(f'{source}/')}" for name in tracked(source)}
    assert inside == wanted
