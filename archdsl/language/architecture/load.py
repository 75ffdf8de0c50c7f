"""`load`: a name, a path or a text -> a validated Spec."""

from __future__ import annotations

import os
from pathlib import Path

from archdsl.language.architecture.merge import as_mapping, compose, parse_mapping
from archdsl.language.architecture.model import Spec
from archdsl.language.architecture.override import Overrides, override
from archdsl.language.architecture.read import read_spec
from archdsl.language.text import files
from archdsl.language.text.files import Budget, Home, open_given
from archdsl.language.text.node import NameOfFile, YamlNode
from archdsl.language.text.yaml_text import parse


def load(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Spec:
    """Read a spec: a shipped one by name (`swin_t`), or a file by path.

    Args:
        name_or_path: a name of `specs/` or the path of a YAML file
        set: overrides, `{"stages.2.depth": 14}` or `["stages.2.depth=14"]`
        check: also build the graph, so that parts which do not fit are errors here
    Raises: SpecError with every problem found, each with file, line and column; ShapeError when parts do not fit
    Example:
        >>> import archdsl
        >>> spec = archdsl.load("swin_t", set={"stages.2.depth": 14})
        >>> [stage.depth for stage in spec.stages]
        [2, 2, 14, 2]
    """
    data, home = open_given(name_or_path, "specs", budget := Budget())
    return spec_of(parse(data, home.shown), home, budget, set, check, home.stem)


def loads(text: str | bytes, name: str = "<text>", set: Overrides | None = None, *, check: bool = True) -> Spec:
    """Read a spec from a text; `name` is what errors call it. It may extend shipped specs only.

    Example:
        >>> loads("{name: mine, extends: swin_t, input: {size: 112}}").input.size
        (112, 112)
    """
    return spec_of(parse(text, name), Home(name), Budget(), set, check, "unnamed")


def shipped_specs() -> list[Path]:
    """The specs that come with archdsl.

    Example:
        >>> "swin_t.yaml" in [path.name for path in shipped_specs()]
        True
    """
    return files.shipped("specs")


def load_tree(data: bytes | str, home: Home, budget: Budget) -> YamlNode:
    """A text with everything it extends, not validated yet."""
    return compose(parse_mapping(data, home.shown, "a spec"), home, budget)


def checked(spec: Spec) -> Spec:
    """The spec, once its graph could be built."""
    from archdsl.language.architecture.lower import lower  # imported late: reading specs needs no graph

    lower(spec)
    return spec


def spec_of(
    tree: YamlNode, home: Home, budget: Budget, set: Overrides | None = None, check: bool = True, name: str = "unnamed"
) -> Spec:
    """The spec of a parsed text; name: for one that says none. Raises: as `load`"""
    tree = named(compose(as_mapping(tree, "a spec"), home, budget), name)
    spec = read_spec(override(tree, set) if set else tree)
    return checked(spec) if check else spec


def named(tree: YamlNode, name: str) -> YamlNode:
    """The tree with a name, for a file that does not say one."""
    if tree.get("name") is not None:
        return tree
    items = {"name": NameOfFile(name, tree.mark), **tree.without("name").value}
    return YamlNode.mapping(items, {"name": tree.mark, **(tree.keys or {})}, tree.mark)
