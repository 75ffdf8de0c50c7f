"""`load_space`: a name, a path or a text -> a validated Space."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from archdsl.errors import SpecError
from archdsl.spec import files
from archdsl.spec.aims import Constraints, Objectives, Search
from archdsl.spec.choices import ChoicesReader
from archdsl.spec.explain import Complaints
from archdsl.spec.files import Budget, Home, open_given
from archdsl.spec.knobs import Knob
from archdsl.spec.load import checked, load, load_tree, named
from archdsl.spec.merge import open_reference
from archdsl.spec.model import Header, Spec
from archdsl.spec.node import Node, fail
from archdsl.spec.option_check import check_options
from archdsl.spec.override import ARGUMENT, COMMAND_LINE, Overrides, override
from archdsl.spec.read import SPEC_KEYS, read_model, read_spec
from archdsl.spec.render import shown
from archdsl.spec.space import Space, Start
from archdsl.spec.words import did_you_mean, listed, quoted
from archdsl.spec.yaml_text import parse

SPACE_KEYS = ("name", "source", "base", "choices", "constraints", "objectives", "search")


def load_space(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Space:
    """Read a space: a shipped one by name, or a file by path.

    set: overrides of the space's own file, `["search.trials=10"]`
    check: also build the graph of the base
    Errors: SpecError with every problem found, each with file, line and column
    """
    data, home = open_given(name_or_path, "search", budget := Budget())
    stem = os.path.splitext(os.path.basename(home.shown))[0]
    return _space(data, home, budget, set, check, stem)


def loads_space(text: str | bytes, name: str = "<text>", set: Overrides | None = None, *, check: bool = True) -> Space:
    """Read a space from a text; `name` is what errors call it. Its base must be a shipped spec."""
    return _space(text, Home(name), Budget(), set, check, "unnamed")


def load_any(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Spec | Space:
    """Read a spec or a space, whichever the file is; a bare name is looked up among specs first."""
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if isinstance(text, str) and files.is_name(text) and not os.path.isfile(text):
        if text not in files.shipped_names("specs") and text in files.shipped_names("search"):
            return load_space(text, set, check=check)
        return load(name_or_path, set, check=check)
    data, home = open_given(name_or_path, "specs", budget := Budget())
    tree = parse(data, home.shown)
    stem = os.path.splitext(os.path.basename(home.shown))[0]
    if tree.is_map and any(tree.get(key) is not None for key in ("choices", "base")):
        return _space(data, home, budget, set, check, stem)
    return load(name_or_path, set, check=check)


def shipped_spaces() -> list[Path]:
    """The spaces that come with archdsl."""
    return files.shipped("search")


def _space(data: bytes | str, home: Home, budget: Budget, set: Overrides | None, check: bool, name: str) -> Space:
    tree = parse(data, home.shown)
    if not tree.is_map:
        raise fail(tree.mark, "wrong-type", f"a space is a mapping, but got {shown(tree.plain())}")
    tree = named(tree, name)
    if set:
        tree = override(tree, set)
    return _SpaceReader(tree, home, budget, check).space()


class _SpaceReader:
    """Reads one space; all of its problems come in one error."""

    def __init__(self, tree: Node, home: Home, budget: Budget, check: bool):
        self.tree, self.home, self.budget, self.check = tree, home, budget, check
        self.complaints = Complaints()

    def space(self) -> Space:
        self._keys()
        header = self._header()
        constraints = self._model(Constraints, "constraints")
        objectives = self._model(Objectives, "objectives")
        search = self._model(Search, "search")
        base = self._base()
        knobs = self._knobs(base[1]) if base is not None else ()
        self._raise()
        assert base is not None and header is not None
        space = Space(
            header.name, header.source, *base[:1], knobs, constraints, objectives, search, (), self.tree, base[1]
        )
        starts = self._starts(space)
        self._raise()
        return Space(**{**space.__dict__, "start": starts})

    def _raise(self) -> None:
        error = self.complaints.error(self.tree.mark.source.file)
        if error is not None:
            raise error

    def _keys(self) -> None:
        for key in self.tree.value:
            if key in SPACE_KEYS:
                continue
            if key in SPEC_KEYS and key not in ("head", "stem"):
                hint = "put it into the base, or make it a choice"
                message = f"`{key}` belongs to a spec, and this is a space"
                self.complaints.add(self.tree.key_mark(key), "unknown-key", message, hint, (key,))
            else:
                self.complaints.unknown_key(self.tree, key, SPACE_KEYS, "A space", ())
        for key in ("base", "choices"):
            if self.tree.get(key) is None and not self._misspelt(key):
                self.complaints.add(
                    self.tree.mark, "missing-key", f"`{key}` is missing: a space needs it", None, (key,)
                )

    def _misspelt(self, key: str) -> bool:
        return any(other not in SPACE_KEYS and did_you_mean(other, [key]) for other in self.tree.value)

    def _header(self) -> Header | None:
        keys = {key: node for key in ("name", "source") if (node := self.tree.get(key)) is not None}
        header = Node.mapping(keys, {key: self.tree.key_mark(key) for key in keys}, self.tree.mark)
        found: Header | None = read_model(Header, header, self.complaints, (), "a space")
        return found

    def _model(self, cls: type[Any], key: str) -> Any:
        node = self.tree.get(key)
        if node is None or node.value is None:
            return cls()
        return read_model(cls, node, self.complaints, (key,), f"`{key}`")

    def _base(self) -> tuple[Spec, Node] | None:
        reference = self.tree.get("base")
        if reference is None:
            return None
        found = self._design(reference, "base")
        if found is not None and self.check:
            try:
                checked(found[0])
            except SpecError as error:
                self.complaints.take(error)
        return found

    def _design(self, reference: Node, key: str) -> tuple[Spec, Node] | None:
        """A spec that the space names, and its tree."""
        try:
            data, home = open_reference(reference, key, "specs", self.home, self.budget)
            stem = os.path.splitext(os.path.basename(home.shown))[0]
            tree = named(load_tree(data, home, self.budget), stem)
            return read_spec(tree), tree
        except SpecError as error:
            self.complaints.take(error)
            return None

    def _knobs(self, base: Node) -> tuple[Knob, ...]:
        node = self.tree.get("choices")
        if node is None:
            return ()
        before = len(self.complaints)
        knobs = ChoicesReader(self.complaints).read(node, base)
        if len(self.complaints) == before:
            check_options(knobs, base, self.complaints, (self.tree.mark.source.file, COMMAND_LINE, ARGUMENT))
        return knobs

    def _starts(self, space: Space) -> tuple[Start, ...]:
        found = []
        search = self.tree.get("search")
        listed_names = search.get("start") if search is not None else None
        for index, item in enumerate(listed_names.value if listed_names is not None and listed_names.is_list else ()):
            design = self._design(item, "start")
            if design is None:
                continue
            picks, differences = space.nearest(design[0])
            if differences:
                hint = "add a choice that reaches it, or leave it out"
                message = f"{quoted(str(item.value))} is not in this space: it differs in {listed(differences, 6)}"
                if len(differences) > 100_000:
                    message = f"{quoted(str(item.value))} is not in this space"
                self.complaints.add(item.mark, "wrong-value", message, hint, ("search", "start", index))
            found.append(Start(str(item.value), picks))
        return tuple(found)
