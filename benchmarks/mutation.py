"""Which small faults do the tests find? Mutants of the code that decides, each run against the tests of its line.

    python -m pytest -n 2 -m "not alone" --cov=archdsl --cov-context=test --cov-report=
    python benchmarks/mutation.py --mutants 300 --seed 0

A mutant changes one comparison, arithmetic operator, constant, ``and``/``or`` or ``not``. Mutants are drawn at random
from all places, so the score is that of the code and not of a file. Each runs in a copy of the tree, in a forked child
that has imported the large libraries already, against the tests that execute its line (those that execute the fewest
lines first); a line that runs in other processes alone, against the tests of the files that import what stands beside
it. A test that fails, or does not end, on a mutant is run once more without it: what fails there, too, kills nothing.
Needs ``pytest-cov``.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("passes", "ops", "ir", "language", "weights", "study", "latency/statistics.py", "statistics.py")
LIBRARIES = ("hypothesis", "numpy", "onnx", "optuna", "pydantic", "pytest", "scipy.stats", "torch")
"""Imported once, before the children are forked."""
MOST_TESTS = 150
DEADLINE_S = 600
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.Pow: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutant(NamedTuple):
    """The text ``before`` at bytes [``start``, ``end``) of ``path`` becomes ``after``."""

    path: Path
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {' '.join(self.before.split())} -> {self.after}"


def changed(node: ast.expr) -> Iterator[ast.expr]:
    """The mutants of one expression."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], OTHER[type(op)](), *node.ops[i + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OTHER:
        yield ast.BinOp(node.left, OTHER[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(OTHER[type(node.op)](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1)


def expressions(node: ast.AST) -> Iterator[ast.expr]:
    """All below ``node`` that runs when the code runs: no annotations, decorators or parts of messages."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or isinstance(node, (ast.JoinedStr, ast.Raise)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr):
                yield child
            if isinstance(child, ast.AST):
                yield from expressions(child)


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of one file."""
    source = path.read_bytes()
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    for node in expressions(ast.parse(source)):
        for other in changed(node):
            assert node.end_lineno and node.end_col_offset  # of a tree that was parsed
            start, end = begins[node.lineno - 1] + node.col_offset, begins[node.end_lineno - 1] + node.end_col_offset
            yield Mutant(path, node.lineno, start, end, source[start:end].decode(), f"({ast.unparse(other)})")


class Coverage:
    """Which tests execute a line, those first that execute the least of the code."""

    def __init__(self, file: Path):
        from coverage import CoverageData

        self._data = CoverageData(str(file))
        self._data.read()
        self._breadth: Counter[str] = Counter()
        for path in self._data.measured_files():
            for tests in self._data.contexts_by_lineno(path).values():
                self._breadth.update(tests)

    def tests(self, mutant: Mutant) -> list[str]:
        """Node ids; for a line that runs at import, those of the whole file; for one that runs in other processes
        alone, those of the test files that import from its folder."""
        lines = self._data.contexts_by_lineno(str(mutant.path))
        ids = set(lines.get(mutant.line, ())) - {""}
        if not ids and "" in lines.get(mutant.line, ()):
            ids = {test for tests in lines.values() for test in tests} - {""}
        if not ids:
            ids = {test for test in self._breadth if test.split("::")[0] in _importing(mutant.path.parent)}
        ranked = sorted(ids, key=lambda test: (self._breadth[test], test))
        seen: Counter[str] = Counter()
        turns = []  # one case of each test before the second case of any
        for place, test in enumerate(ranked):
            name = test.split("[")[0]
            turns.append((seen[name], place, test.split("|")[0]))
            seen[name] += 1
        return list(dict.fromkeys(test for _, _, test in sorted(turns)))[:MOST_TESTS]


def _importing(folder: Path) -> set[str]:
    """The test files that import from a folder of the package."""
    name = ".".join(folder.relative_to(ROOT).parts)
    files = (ROOT / "tests").glob("test_*.py")
    return {f"tests/{file.name}" for file in files if f"from {name}" in file.read_text(encoding="utf-8")}


class Failures:
    """A pytest plug-in that notes which tests failed."""

    def __init__(self, file: Path):
        self._file = file

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.failed:  # type: ignore[attr-defined]
            with self._file.open("a") as file:
                file.write(f"{report.nodeid}\n")  # type: ignore[attr-defined]


def startable(tree: Path, tests: Sequence[str]) -> list[str]:
    """The tests that pytest finds by their ids: it does not find those with certain characters in them."""
    if run_tests(tree, tests, "--collect-only")[0] == "passed":
        return list(tests)
    half = len(tests) // 2
    return [*startable(tree, tests[:half]), *startable(tree, tests[half:])] if half else []


def run_tests(tree: Path, tests: Sequence[str], *options: str) -> tuple[str, list[str]]:
    """Run tests in a forked child. Returns: passed, failed, broken or hung, and the tests that failed."""
    import pytest

    noted = tree / "failed.txt"
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        sys.dont_write_bytecode = True  # a mutant may have the size and the second of the one before
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        os._exit(
            pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", *options, *tests], [Failures(noted)])
        )
    end = time.monotonic() + DEADLINE_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hung", []
        time.sleep(0.05)
    failed = noted.read_text().split("\n")[:-1] if noted.exists() else []
    code = os.waitstatus_to_exitcode(status)
    return ("passed" if code == 0 else "failed" if failed else "broken"), failed


def fate(mutant: Mutant, coverage: Coverage, tree: Path, clean: Path) -> str:
    """What became of a mutant, and which test found it."""
    tests = coverage.tests(mutant)
    source = mutant.path.read_bytes()
    place = tree / mutant.path.relative_to(ROOT)
    place.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
    try:
        while tests:
            result, failed = run_tests(tree, tests)
            if result == "passed":
                break
            if result == "broken" and len(there := startable(clean, tests)) < len(tests):
                tests = there
                continue
            if result == "hung" and run_tests(clean, tests)[0] == "hung":
                return "unknown    the tests take longer than the deadline without it, too"
            if result != "failed" or run_tests(clean, failed)[0] == "passed":
                return f"killed     {(failed or [result])[0]}"
            tests = [test for test in tests if test not in failed]
        return "survived" if tests else "untested"
    finally:
        place.write_bytes(source)


def not_copied(folder: str, names: list[str]) -> set[str]:
    """What a copy of the tree goes without. ``archdsl/runs`` is code, ``runs`` is what searches leave."""
    caches = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__")(folder, names)
    return caches | ({"runs"} if Path(folder) == ROOT else set())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage", help="what pytest-cov wrote")
    parser.add_argument("--mutants", type=int, default=300, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n shares of the mutants, to run side by side")
    options = parser.parse_args()
    for library in LIBRARIES:
        import_module(library)
    places = [ROOT / "archdsl" / place for place in PLACES]
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    every = [mutant for file in files for mutant in mutants(file)]
    part, of = map(int, options.part.split("/"))
    drawn = random.Random(options.seed).sample(every, options.mutants)[part::of]
    coverage = Coverage(options.coverage)
    print(f"{len(every)} mutants of {len(files)} files, {len(drawn)} tried, seed {options.seed}", flush=True)
    fates: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder, name) for name in ("mutated", "clean")]
        for tree in trees:
            shutil.copytree(ROOT, tree, ignore=not_copied)
        for mutant in drawn:
            found = fate(mutant, coverage, *trees)
            fates[found.split()[0]] += 1
            print(f"{found:<80} {mutant}", flush=True)
    print(f"killed {fates['killed']} of {sum(fates.values())} ({fates['killed'] / sum(fates.values()):.1%})")


if __name__ == "__main__":
    main()
