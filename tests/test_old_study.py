"""A study that commit 08bf4b6 wrote is read and continued as that commit would have continued it."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from archdsl import search

DATA = Path(__file__).parent / "data" / "study_08bf4b6"


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return str(shutil.copy(DATA / "study.journal", tmp_path))
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.executescript(gzip.decompress((DATA / "study.sql.gz").read_bytes()).decode())
    return f"sqlite:///{tmp_path}/study.db"


@pytest.mark.promise(21)
def test_a_study_of_an_older_version_is_continued(storage: str, tmp_path: Path) -> None:
    """Its sixth trial was left by a worker that was killed; it and three more are as that version finds them."""
    result = search(DATA / "space.yaml", trials=9, out=tmp_path / "run", storage=storage)
    found = [
        {"number": r.number, "state": r.state, "hash": r.hash, "values": list(r.values or ())} for r in result.records
    ]
    assert found == json.loads((DATA / "continued.json").read_text())
