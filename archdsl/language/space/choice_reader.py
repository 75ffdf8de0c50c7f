"""The `choices` of a space: paths and options as written -> `Choice`s, one for each decision variable.

A path may hold `*` (each match is a choice of its own); `{same: [...]}` makes one choice of all matches. An option
replaces the value at its path; an option that is a mapping merges with it by the rules of `extends`, and may carry
`choices` of its own, with paths relative to it, which exist only where it is picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from archdsl.errors import SpecError
from archdsl.language.architecture.override import PathStep, change, indices, steps_of
from archdsl.language.architecture.read import read_spec
from archdsl.language.space.choices import Choice, Option, SpecPath
from archdsl.language.text import limits
from archdsl.language.text.explain import Complaints
from archdsl.language.text.node import Mark, Path, YamlNode, fail
from archdsl.language.text.render import flow, shown
from archdsl.language.text.words import quoted
from archdsl.suggestions import did_you_mean

_Taken = Mapping[tuple[str, ...], str]
"""The names of a path -> the key of `choices` that sets it."""
_FORMS = ("same", "range", "step")


@dataclass(frozen=True)
class _Scope:
    """Where choices are read: on which tree, at which places of it, and under which option."""

    tree: YamlNode
    roots: tuple[SpecPath, ...] = ((),)
    parent: tuple[str, int] | None = None


@dataclass(frozen=True)
class _Draft:
    """A choice whose options have not been looked into yet."""

    name: str
    path: str
    paths: tuple[SpecPath, ...]
    options: tuple[YamlNode, ...]
    where: Path


class ChoiceReader:
    """Reads `choices` against the tree of the base spec; problems go to `complaints`."""

    def __init__(self, complaints: Complaints):
        self.complaints = complaints
        self.num_options = 0

    def read(self, node: YamlNode, base: YamlNode) -> tuple[Choice, ...]:
        """The choices of a space, those nearest to the root of the spec first, which is the order to set them in."""
        return self._choices(node, _Scope(base), ("choices",), {})

    def _choices(
        self, node: YamlNode, scope: _Scope, where: Path, above: Mapping[tuple[str, ...], str]
    ) -> tuple[Choice, ...]:
        if not node.is_map:
            hint = "for example {stages.0.window: [7, 14]}"
            self.complaints.must_be("a mapping from paths to options", node, where, hint=hint)
            return ()
        drafts: list[_Draft] = []
        taken = dict(above)
        for key, value in node.value.items():
            if self.complaints.full:
                break
            with self.complaints.taking():
                drafts += self._drafts(key, value, node, scope, taken, (*where, key))
        choices = [self._choice(draft, scope, taken) for draft in drafts]
        return tuple(sorted(choices, key=lambda choice: choice.depth))

    def _drafts(
        self, key: str, value: YamlNode, node: YamlNode, scope: _Scope, taken: dict[tuple[str, ...], str], where: Path
    ) -> list[_Draft]:
        """What one path stands for: a choice for each match, or one for all with `same`."""
        mark = node.key_mark(key)
        lines = mark.source.lines
        quote = 1 if mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] in ("'", '"') else 0
        steps = steps_of(key, lambda start, width: mark._replace(column=mark.column + quote + start, width=width))
        same = value.get("same")
        if same is not None:
            self._refuse_others(value, ("same",), where)
        options = self._options(same if same is not None else value, where if same is None else (*where, "same"))
        if not options:
            return []
        groups: dict[tuple[str, ...], list[SpecPath]] = {}
        for root in scope.roots:
            for match in self._matches(scope.tree, root, steps, options):
                relative = tuple(step.name for step in (steps if same is not None else match[len(root) :]))
                groups.setdefault(relative, []).append(match)
        self._charge(len(options) * (len(groups) - 1), mark)
        drafts = []
        for relative, paths in groups.items():
            name = ".".join(relative)
            path = ".".join(step.name for step in paths[0][: len(paths[0]) - len(relative)])
            for match in paths:
                names = tuple(step.name for step in match)
                if names in taken:
                    message = f"`{'.'.join(names)}` is already chosen by {quoted(taken[names])}"
                    self.complaints.add(mark, "conflict", message, "a path can be set by one choice only", where)
                    return []
                taken[names] = key
            full = name if scope.parent is None else f"{scope.parent[0]}={scope.parent[1]}:{name}"
            drafts.append(_Draft(full, f"{path}.{name}" if path else name, tuple(paths), tuple(options), where))
        return drafts

    def _matches(
        self, tree: YamlNode, root: SpecPath, steps: tuple[PathStep, ...], options: Sequence[YamlNode]
    ) -> list[SpecPath]:
        """The concrete paths of a path. Of a `*`, those where the field is known, if it is known anywhere."""
        found = _expand(tree, (*root, *steps))
        if not any(step.name == "*" for step in steps):
            return found
        there = [match for match in found if _parent_exists(tree, match)]
        known = [match for match in there if not _is_unknown(tree, match, options[0])]
        if found and not there:
            raise _nothing_there(tree, found[0])
        return known or there[:1]

    def _choice(self, draft: _Draft, scope: _Scope, taken: _Taken) -> Choice:
        plain = tuple(Option(_label(node), _without_choices(node)) for node in draft.options)
        choice = Choice(draft.name, draft.path, draft.paths, plain, scope.parent)
        chosen = []
        for index, (option, node) in enumerate(zip(plain, draft.options, strict=True)):
            inner = node.get("choices")
            if inner is not None:
                below = _Scope(choice.set(scope.tree, index), draft.paths, (draft.name, index))
                option = replace(option, choices=self._choices(inner, below, (*draft.where, index, "choices"), taken))
            chosen.append(option)
        return replace(choice, options=tuple(chosen))

    def _charge(self, options: int, mark: Mark) -> None:
        self.num_options += options
        if self.num_options > limits.MAX_SPACE_OPTIONS:
            raise fail(mark, "limit", f"a space may have at most {limits.MAX_SPACE_OPTIONS:_} options in all")

    def _options(self, node: YamlNode, where: Path) -> list[YamlNode]:
        """The options of a choice: a list, or the numbers of a range."""
        if node.is_map and node.get("range") is not None:
            return self._range(node, where)
        if node.is_map:
            unknown = [key for key in node.value if key not in _FORMS]
            for key in unknown:
                self.complaints.unknown_key(node, key, _FORMS, "A choice", where)
            if unknown:
                return []
        if not node.is_list or not node.value:
            wanted = "a list of options, {same: [...]} or {range: [low, high]}"
            message = f"a choice must be {wanted}, but got {shown(node.plain())}"
            self.complaints.add(node.mark, "wrong-type", message, None, where)
            return []
        if len(node.value) > limits.MAX_OPTIONS:
            message = f"a choice may have at most {limits.MAX_OPTIONS} options, this has {len(node.value)}"
            self.complaints.add(node.mark, "limit", message, None, where)
            return []
        self._charge(len(node.value), node.mark)
        seen: dict[str, YamlNode] = {}
        for option in node.value:
            label = _label(option) + (flow(option.get("choices").plain()) if option.get("choices") is not None else "")
            if label in seen:
                message = f"the option {shown(option.plain())} is there twice"
                self.complaints.add(option.mark, "duplicate-key", message, "keep one of the two", where)
            seen.setdefault(label, option)
        return list(seen.values())

    def _range(self, node: YamlNode, where: Path) -> list[YamlNode]:
        """`{range: [low, high], step}`: low, low + step, … up to high."""
        self._refuse_others(node, ("range", "step"), where)
        bounds, step = node.get("range"), node.get("step")
        assert bounds is not None
        if not bounds.is_list or len(bounds.value) != 2 or not all(_is_number(item) for item in bounds.value):
            self.complaints.must_be("[low, high]", bounds, (*where, "range"))
            return []
        low, high = (item.value for item in bounds.value)
        if low > high:
            message = f"the low end of `range` must not be above the high end, but got {low} and {high}"
            self.complaints.add(bounds.mark, "out-of-range", message, None, (*where, "range"))
            return []
        if step is not None and (not _is_number(step) or step.value <= 0):
            rule = "out-of-range" if _is_number(step) else "wrong-type"
            self.complaints.must_be("a number above 0", step, (*where, "step"), rule=rule)
            return []
        if step is None and (isinstance(low, float) or isinstance(high, float)):
            self.complaints.missing(node, "a range of fractions needs it", (*where, "step"))
            return []
        by = Decimal(str(step.value if step is not None else 1))
        start = Decimal(str(low))
        count = int((Decimal(str(high)) - start) / by) + 1
        if count > limits.MAX_OPTIONS:
            message = f"a choice may have at most {limits.MAX_OPTIONS} options, this range has {count}"
            self.complaints.add(bounds.mark, "limit", message, None, (*where, "range"))
            return []
        self._charge(count, bounds.mark)
        numbers = [start + by * index for index in range(count)]
        whole = isinstance(low, int) and (step is None or isinstance(step.value, int))
        return [YamlNode(int(number) if whole else float(number), bounds.mark) for number in numbers]

    def _refuse_others(self, node: YamlNode, allowed: tuple[str, ...], where: Path) -> None:
        for key in node.value:
            if key not in allowed:
                hint = did_you_mean(key, _FORMS)
                message = f"unknown key {quoted(key)} beside `{allowed[0]}`"
                self.complaints.add(node.key_mark(key), "unknown-key", message, hint, where)


def _expand(tree: YamlNode, steps: SpecPath) -> list[SpecPath]:
    """The concrete paths that a path with `*` stands for, as far as the tree has them."""
    found: list[tuple[SpecPath, YamlNode | None]] = [((), tree)]
    for depth, step in enumerate(steps):
        below: list[tuple[SpecPath, YamlNode | None]] = []
        for path, node in found:
            if node is not None and node.is_list:
                chosen = sorted(indices(node, step, tuple(part.name for part in path)))
                below += [((*path, PathStep(str(index), step.mark)), node.value[index]) for index in chosen]
            elif step.name == "*" and node is None:
                raise _nothing_there(tree, (*path, step))
            elif step.name == "*":
                change(tree, (*path, *steps[depth:]), lambda old: old or tree)  # says what is wrong with this `*`
            else:
                below.append(((*path, step), node.get(step.name) if node is not None else None))
        found = below
    return [path for path, _ in found]


def _nothing_there(tree: YamlNode, match: SpecPath) -> SpecError:
    """The error for a path with `*` that leads nowhere: at its first part that is not there."""
    node = tree
    for step in match:
        below = node.child(step.name)
        if below is None:
            hint = did_you_mean(step.name, node.value if node.is_map else ())
            return fail(step.mark, "unknown-key", f"there is no {quoted(step.name)} here for a `*` to match", hint)
        node = below
    return fail(match[-1].mark, "unknown-key", "there is nothing here for a `*` to match")


def _parent_exists(tree: YamlNode, match: SpecPath) -> bool:
    node: YamlNode | None = tree
    for step in match[:-1]:
        node = node.child(step.name) if node is not None else None
    return node is not None and node.value is not None


def _is_unknown(tree: YamlNode, match: SpecPath, option: YamlNode) -> bool:
    """Whether the spec has no such field at this place."""
    try:
        read_spec(change(tree, match, lambda old: _without_choices(option)))
    except SpecError as error:
        path = ".".join(step.name for step in match)
        return any(problem.rule == "unknown-key" and problem.path == path for problem in error.problems)
    return False


def _without_choices(node: YamlNode) -> YamlNode:
    return node.without("choices") if node.is_map else node


def _label(node: YamlNode) -> str:
    text = flow(_without_choices(node).plain())
    return text if len(text) <= 200 else text[:199] + "…"


def _is_number(node: YamlNode) -> bool:
    value: Any = node.value
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= limits.MAX_INT
