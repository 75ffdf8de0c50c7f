"""`load`: a name, a path or a text -> a validated Spec."""

from __future__ import annotations

import os
from pathlib import Path

from archdsl.spec import files
from archdsl.spec.files import Budget, Home, open_given
from archdsl.spec.merge import compose
from archdsl.spec.model import Spec
from archdsl.spec.node import Node, fail
from archdsl.spec.override import Overrides, override
from archdsl.spec.read import read_spec
from archdsl.spec.render import shown
from archdsl.spec.yaml_text import parse


def load(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Spec:
    """Read a spec: a shipped one by name (`swin_t`), or a file by path.

    set: overrides, `{"stages.2.depth": 14}` or `["stages.2.depth=14"]`
    check: also build the graph, so that parts which do not fit are errors here
    Errors: SpecError with every problem found, each with file, line and column; ShapeError when parts do not fit
    """
    data, home = open_given(name_or_path, "specs", budget := Budget())
    stem = os.path.splitext(os.path.basename(home.shown))[0]
    return _spec(data, home, budget, set, check, stem)


def loads(text: str | bytes, name: str = "<text>", set: Overrides | None = None, *, check: bool = True) -> Spec:
    """Read a spec from a text; `name` is what errors call it. It may extend shipped specs only."""
    return _spec(text, Home(name), Budget(), set, check, "unnamed")


def shipped_specs() -> list[Path]:
    """The specs that come with archdsl."""
    return files.shipped("specs")


def load_tree(data: bytes | str, home: Home, budget: Budget) -> Node:
    """A text with everything it extends, not validated yet."""
    tree = parse(data, home.shown)
    if not tree.is_map:
        raise fail(tree.mark, "wrong-type", f"a spec is a mapping, but got {shown(tree.plain())}")
    return compose(tree, home, budget)


def checked(spec: Spec) -> Spec:
    """The spec, once its graph could be built."""
    from archdsl.spec.lower import lower  # imported late: reading specs needs no graph

    lower(spec)
    return spec


def _spec(data: bytes | str, home: Home, budget: Budget, set: Overrides | None, check: bool, name: str) -> Spec:
    tree = named(load_tree(data, home, budget), name)
    spec = read_spec(override(tree, set) if set else tree)
    return checked(spec) if check else spec


def named(tree: Node, name: str) -> Node:
    """The tree with a name, for a file that does not say one."""
    if tree.get("name") is not None:
        return tree
    items = {"name": Node(name, tree.mark), **{key: value for key, value in tree.value.items() if key != "name"}}
    return Node.mapping(items, {"name": tree.mark, **(tree.keys or {})}, tree.mark)
