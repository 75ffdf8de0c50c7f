"""The house: one name for one thing, files that hold one idea, rooms without circles."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from pathlib import Path

import grimp
import networkx
import pytest

import archdsl

ROOT = Path(archdsl.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_LINES, MOST_AT_THE_MEDIAN = 400, 130


def public_classes(text: str) -> list[str]:
    """The names of the public classes at the top level of a module's text."""
    return [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]


def named_twice(texts: dict[str, str]) -> dict[str, list[str]]:
    """Each public class name that stands in several modules, with the modules."""
    homes = defaultdict(list)
    for module, text in texts.items():
        for name in public_classes(text):
            homes[name].append(module)
    return {name: modules for name, modules in homes.items() if len(modules) > 1}


def circles(arrows: list[tuple[str, str]]) -> list[list[str]]:
    """The groups of modules that import one another, directly or through others."""
    graph = networkx.DiGraph(arrows)
    return [sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1]


def test_a_public_class_name_stands_in_one_module():
    assert named_twice({str(path.relative_to(ROOT)): path.read_text() for path in FILES}) == {}


def test_a_name_in_two_modules_is_found():
    assert named_twice({"a": "class Plan: ...", "b": "class Plan: ...\nclass _Own: ..."}) == {"Plan": ["a", "b"]}


def test_no_modules_import_one_another():
    graph = grimp.build_graph("archdsl")
    arrows = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    assert circles(arrows) == []


def test_a_circle_is_found():
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]) == [["a", "b", "c"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_enough_to_hold_one_idea(path):
    assert path.read_text().count("\n") <= MOST_LINES


def test_most_files_are_short():
    assert statistics.median(path.read_text().count("\n") for path in FILES) < MOST_AT_THE_MEDIAN


def test_no_verb_of_the_library_bears_the_name_of_a_folder():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert folders.isdisjoint(archdsl.__all__)
