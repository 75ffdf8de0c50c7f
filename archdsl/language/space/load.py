"""`load_space`: a name, a path or a text -> a validated Space."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from archdsl.errors import SpecError
from archdsl.language.architecture.ends import read_model
from archdsl.language.architecture.from_data import with_classes
from archdsl.language.architecture.load import checked, load, load_tree, named, spec_of
from archdsl.language.architecture.merge import as_mapping, open_reference
from archdsl.language.architecture.model import Header, Spec
from archdsl.language.architecture.override import ARGUMENT, COMMAND_LINE, Overrides, override
from archdsl.language.architecture.read import SPEC_KEYS, read_spec
from archdsl.language.space.choice_reader import ChoiceReader
from archdsl.language.space.choices import Choice
from archdsl.language.space.objectives import Constraints, Objectives, Search
from archdsl.language.space.option_check import check_options
from archdsl.language.space.space import Space, Start
from archdsl.language.text import files
from archdsl.language.text.explain import Complaints
from archdsl.language.text.files import Budget, Home, open_given
from archdsl.language.text.node import YamlNode
from archdsl.language.text.words import listed, quoted
from archdsl.language.text.yaml_text import parse
from archdsl.suggestions import did_you_mean

SPACE_KEYS = ("name", "source", "base", "choices", "constraints", "objectives", "search")


def load_space(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Space:
    """Read a space: a shipped one by name, or a file by path.

    set: overrides of the space's own file, `["search.trials=10"]`
    check: also build the graph of the base
    Raises: SpecError with every problem found, each with file, line and column
    Example:
        >>> space = load_space("quickstart", set=["search.trials=10"])
        >>> space.base.name, space.search.trials
        ('micro_swin', 10)
    """
    data, home = open_given(name_or_path, "search", budget := Budget())
    return _space(parse(data, home.shown), home, budget, set, check, home.stem)


def loads_space(text: str | bytes, name: str = "<text>", set: Overrides | None = None, *, check: bool = True) -> Space:
    """Read a space from a text; `name` is what errors call it. Its base must be a shipped spec.

    Example:
        >>> loads_space("{base: swin_t, choices: {stages.0.window: [7, 14]}}").num_total
        2
    """
    return _space(parse(text, name), Home(name), Budget(), set, check, "unnamed")


def load_any(name_or_path: str | os.PathLike[str], set: Overrides | None = None, *, check: bool = True) -> Spec | Space:
    """Read a spec or a space, whichever the file is; a bare name is looked up among specs first.

    Example:
        >>> load_any("swin_t").name, load_any("quickstart").name
        ('swin_t', 'quickstart')
    """
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else name_or_path
    if isinstance(text, str) and files.is_name(text) and not os.path.isfile(text):
        if text not in files.shipped_names("specs") and text in files.shipped_names("search"):
            return load_space(text, set, check=check)
        return load(name_or_path, set, check=check)
    data, home = open_given(name_or_path, "specs", budget := Budget())
    tree = parse(data, home.shown)
    if tree.is_map and any(tree.get(key) is not None for key in ("choices", "base")):
        return _space(tree, home, budget, set, check, home.stem)
    return spec_of(tree, home, budget, set, check, home.stem)


def shipped_spaces() -> list[Path]:
    """The spaces that come with archdsl.

    Example:
        >>> "quickstart.yaml" in [path.name for path in shipped_spaces()]
        True
    """
    return files.shipped("search")


def _space(tree: YamlNode, home: Home, budget: Budget, set: Overrides | None, check: bool, name: str) -> Space:
    tree = named(as_mapping(tree, "a space"), name)
    return _SpaceReader(override(tree, set) if set else tree, home, budget, check).space()


class _SpaceReader:
    """Reads one space; all of its problems come in one error."""

    def __init__(self, tree: YamlNode, home: Home, budget: Budget, check: bool):
        self.tree, self.home, self.budget, self.check = tree, home, budget, check
        self.complaints = Complaints()

    def space(self) -> Space:
        self._keys()
        header = self._header()
        constraints = self._model(Constraints, "constraints")
        objectives = self._model(Objectives, "objectives")
        search = self._model(Search, "search")
        base = self._base(has_data=objectives is not None and objectives.accuracy is not None)
        choices = self._choices(base[1]) if base is not None else ()
        self.complaints.raise_if_any(self.tree.mark.source.file)
        assert base is not None and header is not None
        spec, base_tree = base
        space = Space(
            header.name, header.source, spec, choices, constraints, objectives, search, (), self.tree, base_tree
        )
        starts = self._starts(space)
        self.complaints.raise_if_any(self.tree.mark.source.file)
        return replace(space, start=starts)

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
                self.complaints.missing(self.tree, "a space needs it", (key,))

    def _misspelt(self, key: str) -> bool:
        return any(other not in SPACE_KEYS and did_you_mean(other, [key]) for other in self.tree.value)

    def _header(self) -> Header | None:
        header = self.tree.only(("name", "source"))
        return cast(Header | None, read_model(Header, header, self.complaints, (), "a space"))

    def _model(self, cls: type[Any], key: str) -> Any:
        node = self.tree.get(key)
        if node is None or node.value is None:
            return cls()
        return read_model(cls, node, self.complaints, (key,), f"`{key}`")

    def _base(self, *, has_data: bool) -> tuple[Spec, YamlNode] | None:
        """has_data: whether the search will know data that give the number of classes"""
        reference = self.tree.get("base")
        if reference is None:
            return None
        found = self._design(reference, "base")
        if found is not None and self.check:
            with self.complaints.taking():
                checked(with_classes(found[0], 1) if has_data else found[0])
        return found

    def _design(self, reference: YamlNode, key: str) -> tuple[Spec, YamlNode] | None:
        """A spec that the space names, and its tree."""
        try:
            data, home = open_reference(reference, key, "specs", self.home, self.budget)
            tree = named(load_tree(data, home, self.budget), home.stem)
            return read_spec(tree), tree
        except SpecError as error:
            self.complaints.take(error)
            return None

    def _choices(self, base: YamlNode) -> tuple[Choice, ...]:
        node = self.tree.get("choices")
        if node is None:
            return ()
        before = len(self.complaints)
        choices = ChoiceReader(self.complaints).read(node, base)
        if len(self.complaints) == before:
            check_options(choices, base, self.complaints, (self.tree.mark.source.file, COMMAND_LINE, ARGUMENT))
        return choices

    def _starts(self, space: Space) -> tuple[Start, ...]:
        found = []
        search = self.tree.get("search")
        listed_names = search.get("start") if search is not None else None
        for index, item in enumerate(listed_names.value if listed_names is not None and listed_names.is_list else ()):
            design = self._design(item, "start")
            if design is None:
                continue
            assignment, differences = space.nearest(design[0])
            if differences:
                hint = "add a choice that reaches it, or leave it out"
                message = f"{quoted(str(item.value))} is not in this space"
                if len(differences) <= 100_000:
                    message += f": it differs in {listed(differences, 6)}"
                self.complaints.add(item.mark, "wrong-value", message, hint, ("search", "start", index))
            found.append(Start(str(item.value), assignment))
        return tuple(found)
