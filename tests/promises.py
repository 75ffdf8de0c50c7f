"""docs/reliability.md from tests/data/promises.csv and the tests' markers: ``python tests/promises.py`` writes it.

A test says which promise it holds: ``@pytest.mark.promise(16)``, also on a class.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
INTRO = """\
# Reliability

What archdsl promises about untrusted input, interrupted work, measurements and files, and the tests that hold each
promise to it. Where a test tries less than the figure, or something else, or cannot run without a GPU, the last column
says so. The table is made from `tests/data/promises.csv` and the tests' markers (`python tests/promises.py`).

| # | promise | figure | tests | remark |
|---|---|---|---|---|
"""


def promises() -> list[dict[str, str]]:
    """The rows of the table: number, promise, figure, how it is to be tested, remark."""
    with (TESTS / "data" / "promises.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tests_by_promise() -> dict[int, list[str]]:
    """Promise -> the tests that are marked with it, as ``file::name``."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    for number in mark.args:
                        found[ast.literal_eval(number)].append(f"{path.name}::{node.name}")
    return found


def page() -> str:
    """The text of docs/reliability.md."""
    tests = tests_by_promise()
    rows = []
    for row in promises():
        named = "<br>".join(f"`{name}`" for name in tests[int(row["number"])])
        rows.append(f"| {row['number']} | {row['promise']} | {row['figure']} | {named} | {row['remark']} |")
    return INTRO + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
