"""The documents name what there is: paths, and the words of the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "archdsl"
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
ROOMS = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
MADE_BY_USERS = re.compile(r"runs/(?!.*\.py$)")
"""Folders that commands write, in a user's folder `runs`."""
WORDS = re.compile(r"paid for|foreseen|cannot be told from|nobody tells|in its turn|\btold\b|conquer|unbeaten|\bcrew\b")


def paths_in(text: str) -> list[str]:
    """What stands in backticks or in a code block and begins with `archdsl/`, or with the name of a room."""
    begins = "|".join(["archdsl", *sorted(ROOMS)])
    found = re.findall(rf"(?<![\w/.-])(?:{begins})/[\w/.<>*-]*", re.sub(r"\]\([^)]*\)|https?://\S+", "", text))
    return [path.rstrip(".") for path in found if not MADE_BY_USERS.match(path)]


def test_paths_are_found_in_a_text():
    text = "`archdsl/ir/graph.py`, `study/`, specs/a.yaml, [a](docs/ops/b.md) and runs/quickstart/ in ops/linear.py."
    assert paths_in(text) == ["archdsl/ir/graph.py", "study/", "ops/linear.py"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    missing = []
    for path in paths_in(document.read_text(encoding="utf-8")):
        pattern = re.sub(r"<[^>]*>", "*", path).removeprefix("archdsl/").rstrip("/")
        if pattern and not any(PACKAGE.glob(pattern)):
            missing.append(path)
    assert not missing


def test_the_picture_of_the_architecture_shows_every_room_and_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = text.split("```text\n")[1].split("```")[0]
    modules = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    shown = set(re.findall(r"[\w]+\.py", picture)) | set(re.findall(r"(\w+)/", picture))
    assert ROOMS | modules <= shown
    read_in_order = re.findall(r"^\d\. `([^`]+)`", text, flags=re.MULTILINE)
    assert len(read_in_order) == 7 and all((ROOT / path).is_file() for path in read_in_order)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_words_of_the_field(document: Path) -> None:
    text = document.read_text(encoding="utf-8").replace("networks_paid_for", "")
    assert not WORDS.findall(text)
