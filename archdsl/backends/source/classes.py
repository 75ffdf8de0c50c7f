"""Modules whose code differs in numbers alone become one class; the numbers that differ become its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from archdsl.backends.source.text import Number, fill, literal, numbers, pattern, positional
from archdsl.backends.source.writer import free_name

FIRST = ("channels", "heads", "size", "window", "shift")
LAST = ("dropout", "drop_path")
"""Kinds of number that come first and last among the arguments of a class; others stand between, by name."""


@dataclass(eq=False)
class Form:
    """The code of one module of the network.

    base, doc: what its class would be called, and what it does
    fields: kinds of number that are arguments even where they are the same for all: what the spec sets
    width: the channels that come in, or 0 where nothing does
    params, results: what `forward` takes, and how many values it gives
    init, body, buffers: the lines of `__init__` and `forward`, and the names of its unsaved tensors
    taken: names of attributes
    """

    base: str
    doc: str
    fields: frozenset[str]
    width: int
    params: tuple[str, ...]
    results: int
    init: list[str]
    body: list[str]
    buffers: list[str]
    taken: set[str]
    cls: SourceClass | None = None

    @property
    def key(self) -> object:
        """Equal for modules that share a class."""
        code = tuple(pattern(line) for line in (*self.init, *self.body))
        return self.base, self.params, self.results, code, tuple(self.buffers)

    @property
    def numbers(self) -> list[Number]:
        """The numbers of `init` and `body`, in reading order."""
        return [each for line in (*self.init, *self.body) for each in numbers(line)]

    def arguments(self) -> dict[str, Number]:
        """What the class is called with to make this module."""
        assert self.cls is not None
        index = self.cls.forms.index(self)
        return {each.name: Number(each.kind, each.values[index]) for each in self.cls.arguments}

    def call(self) -> str:
        """The code that makes this module inside another."""
        assert self.cls is not None
        return f"{self.cls.name}({', '.join(f'{name}={value}' for name, value in self.arguments().items())})"


@dataclass(eq=False)
class Argument:
    """A number that each instance is given: its values in the order of the forms."""

    kind: str
    name: str
    values: tuple[object, ...]
    late: bool = False


@dataclass(eq=False)
class SourceClass:
    """A class of the file. written: what stands for each number of its code, in reading order."""

    name: str
    forms: list[Form]
    arguments: list[Argument] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Decide which numbers are arguments, and what stands for each number."""
        columns = list(zip(*(form.numbers for form in self.forms), strict=True))
        values = [(column[0].kind, tuple(each.value for each in column)) for column in columns]
        late = {key for key, column in zip(values, columns, strict=True) if column[0].late}
        width = ("channels", tuple(form.width for form in self.forms))
        fields = frozenset().union(*(form.fields for form in self.forms))
        wanted = [key for key in dict.fromkeys(values) if len(set(key[1])) > 1 or key[0] in fields]
        if any(_multiple(key, width) for key in wanted):
            wanted.insert(0, width)
        taken: set[str] = set()
        for kind, numbers_ in sorted(dict.fromkeys(wanted), key=lambda key: (_rank(key[0]), key != width)):
            if self._expressed((kind, numbers_)) is None:
                name = {"channels": "hidden"}.get(kind, kind) if (kind, numbers_) != width else "dim"
                held = self.forms[0].taken if (kind, numbers_) in late or kind == "channels" else set()
                name = free_name(name, taken | held)
                taken.add(name)
                self.arguments.append(Argument(kind, name, numbers_))
        for key, column in zip(values, columns, strict=True):
            said, used = self._expressed(key) or (literal(key[1][0]), None)
            if column[0].late and used is not None:
                used.late, said = True, said.replace(used.name, f"self.{used.name}")
            self.written.append(said)

    def _expressed(self, key: tuple[str, tuple[object, ...]]) -> tuple[str, Argument] | None:
        """A number by way of an argument (`dim`, `4 * dim`, `kernel // 2`), and that argument."""
        found = [(code, each) for each in self.arguments if (code := _multiple(key, (each.kind, each.values)))]
        return (found[0][0].format(found[0][1].name), found[0][1]) if found else None

    def lines(self) -> list[str]:
        """The text of the class, its lines as long as they are."""
        form, written = self.forms[0], iter(self.written)
        init = [fill(code, lambda _: next(written)) for code in form.init]
        body = [fill(code, lambda _: next(written)) for code in form.body]
        takes = ", ".join(["self", *(f"{each.name}: {_type(each.values[0])}" for each in self.arguments)])
        late = [each.name for each in self.arguments if each.late]
        held = [f"{', '.join(f'self.{name}' for name in late)} = {', '.join(late)}"] if late else []
        text = [f"class {self.name}(nn.Module):", f'    """{form.doc}"""', ""]
        text += [*(f"    {name}: Tensor" for name in form.buffers), *([""] if form.buffers else [])]
        if init or held:
            text += [f"    def __init__({takes}) -> None:", "        super().__init__()"]
            text += [*(f"        {line}" for line in (*held, *map(_short, init))), ""]
        text.append(f"    {signature(form.params, form.results)}")
        return [*text, *(f"        {line}" for line in body)]


def signature(params: Iterable[str], results: int) -> str:
    """The head of a `forward`."""
    gives = "Tensor" if results == 1 else f"tuple[{', '.join(['Tensor'] * results)}]"
    return f"def forward({', '.join(['self', *(f'{name}: Tensor' for name in params)])}) -> {gives}:"


def classes_of(forms: Sequence[Form], names: set[str]) -> list[SourceClass]:
    """The classes of forms, in the order in which they first occur. names: those of the file that are taken."""
    groups: dict[object, list[Form]] = {}
    for form in forms:
        groups.setdefault(form.key, []).append(form)
    made = []
    for group in groups.values():
        cls = SourceClass(free_name(group[0].base, names), group)
        names.add(cls.name)
        for form in group:
            form.cls = cls
        made.append(cls)
    return made


def _rank(kind: str) -> tuple[int, str]:
    place = FIRST.index(kind) if kind in FIRST else len(FIRST) + (1 + LAST.index(kind) if kind in LAST else 0)
    return place, kind


def _multiple(key: tuple[str, tuple[object, ...]], of: tuple[str, tuple[object, ...]]) -> str | None:
    """`{}`, `4 * {}` or `{} // 2`, where the numbers are that many times, or that part of, their partners."""
    if key == of:
        return "{}"
    if (key[0], of[0]) == ("padding", "kernel"):
        return "{} // 2" if all(a == b // 2 for a, b in _pairs(key, of)) else None
    if key[0] != "channels" or of[0] != "channels" or not all(b for _, b in _pairs(key, of)):
        return None
    times, parts = {a / b for a, b in _pairs(key, of)}, {b / a for a, b in _pairs(key, of)}
    for code, ratios in (("{:.0f} * {{}}", times), ("{{}} // {:.0f}", parts)):
        if len(ratios) == 1 and (ratio := ratios.pop()) > 1 and ratio.is_integer():
            return code.format(ratio)
    return None


def _pairs(key: tuple[str, tuple[object, ...]], of: tuple[str, tuple[object, ...]]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in zip(key[1], of[1], strict=True) if isinstance(a, int) and isinstance(b, int)]


def _type(value: object) -> str:
    return "tuple[int, int]" if isinstance(value, tuple) else type(value).__name__


def _short(line: str) -> str:
    """A line that makes a module, with its first arguments by position where they are called like it."""
    target, equals, made = line.partition(" = ")
    name, bracket, arguments = made.partition("(")
    if not equals or not name.isidentifier() or not arguments.endswith(")"):
        return line
    return f"{target}{equals}{name}{bracket}{positional(arguments[:-1])})"
