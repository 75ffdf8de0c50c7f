"""Forms that differ in numbers alone become one class; the numbers that differ become its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from archdsl.backends.source.text import LINE_LENGTH, Arguments, Hole, Text, fill, holes, literal, pattern, wrapped
from archdsl.ir.graph import Node

ORDER = ("channels", "num_tokens", "heads", "size", "window", "shift", "windows")
"""Kinds of number in the order of arguments; others follow by name, rates of dropping last."""

LAST = ("dropout", "drop_path")

ALWAYS = ("channels", "heads", "size", "window", "shift")
"""Kinds that are arguments of blocks and downsamples even where they are the same for all: they say what a block is."""


@dataclass(eq=False)
class Form:
    """The code of one scope of the network.

    base: what its class would be called, doc: what it does; inputs and params: what `forward` takes; body: its lines
    repeated: it is in a block or a downsample, of which there may be many
    """

    base: str
    doc: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    params: tuple[str, ...]
    init: list[Text]
    buffers: dict[str, str]
    body: list[Text]
    taken: set[str]
    repeated: bool = False
    cls: Class | None = None

    @property
    def key(self) -> object:
        code = tuple(pattern(line) for line in (*self.init, *self.body))
        return self.base, self.repeated, self.params, len(self.outputs), code, tuple(self.buffers.items())

    @property
    def holes(self) -> list[Hole]:
        return [hole for line in (*self.init, *self.body) for hole in holes(line)]

    def arguments(self, *, passed: bool = True) -> tuple[tuple[str, Hole], ...]:
        """What the class is called with to make this form."""
        assert self.cls is not None
        found = []
        for argument in self.cls.arguments:
            value = argument.values[self.cls.forms.index(self)]
            found.append((argument.name, Hole(argument.kind, argument.name, value, passed=passed)))
        return tuple(found)

    def call(self) -> Text:
        """The code that makes this form inside another."""
        assert self.cls is not None
        return (f"{self.cls.name}(", Arguments(self.arguments()), ")")


@dataclass(eq=False)
class Argument:
    """A number that differs between the forms of a class."""

    kind: str
    name: str
    values: tuple[object, ...]
    late: bool = False

    @property
    def type(self) -> str:
        match self.values[0]:
            case tuple():
                return "tuple[int, int]"
            case value:
                return type(value).__name__


@dataclass(eq=False)
class Class:
    """A class of the file. `said` is what stands in each hole."""

    name: str
    forms: list[Form]
    arguments: list[Argument] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The text of the class."""
        form = self.forms[0]
        said = iter(self.said)

        def number(_: Hole) -> str:
            return next(said)

        def line(code: Text) -> str:
            return fill(code, number, lambda _: "")

        init = [line(code) for code in form.init]
        takes = ", ".join(["self", *(f"{a.name}: {a.type}" for a in self.arguments)])
        late = [argument.name for argument in self.arguments if argument.late]
        held = [f"{', '.join(f'self.{name}' for name in late)} = {', '.join(late)}"] if late else []
        if held and len(held[0]) > LINE_LENGTH - 8:
            held = [f"self.{name} = {name}" for name in late]
        gives = "Tensor" if len(form.outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(form.outputs))}]"
        params = ", ".join(["self", *(f"{name}: Tensor" for name in form.params)])
        text = [f"class {self.name}(nn.Module):", f'    """{form.doc}"""', ""]
        text += [f"    {name}: {kind}" for name, kind in form.buffers.items()]
        text += [""] if form.buffers else []
        if init or held:
            text += wrapped(f"def __init__({takes}) -> None:", 4)
            text += ["        super().__init__()"]
            text += [broken for code in (*held, *init) for broken in wrapped(code, 8)]
            text += [""]
        text += wrapped(f"def forward({params}) -> {gives}:", 4)
        for code in form.body:
            full = line(code)
            text += wrapped(full.lstrip(), 8 + len(full) - len(full.lstrip()))
        return text


class Names:
    """Names of the file that are taken."""

    def __init__(self, taken: Sequence[str]):
        self.taken = set(taken)

    def free(self, name: str) -> str:
        """`name`, with a number if it is taken."""
        found = _free(name, self.taken)
        self.taken.add(found)
        return found


def classes_of(forms: Sequence[Form], names: Names) -> list[Class]:
    """The classes of forms, in the order in which they first occur."""
    groups: dict[object, list[Form]] = {}
    for form in forms:
        groups.setdefault(form.key, []).append(form)
    made = []
    for group in groups.values():
        cls = Class(names.free(group[0].base), group)
        for form in group:
            form.cls = cls
        _settle(cls)
        made.append(cls)
    return made


@dataclass(eq=False)
class _Same:
    """Holes that hold the same number in each form."""

    kind: str
    values: tuple[object, ...]
    holes: list[Hole] = field(default_factory=list)
    text: str = ""

    @property
    def varies(self) -> bool:
        return len(set(self.values)) > 1


def _settle(cls: Class) -> None:
    """Decide which numbers are arguments, and what stands in each hole."""
    columns = list(zip(*(form.holes for form in cls.forms), strict=True))
    groups: dict[object, _Same] = {}
    members: list[_Same] = []
    for column in columns:
        first, values = column[0], tuple(hole.value for hole in column)
        key = (first.kind, values)
        same = groups.setdefault(key, _Same(first.kind, values))
        same.holes.append(first)
        members.append(same)

    wanted = [same for same in groups.values() if _is_argument(same, cls)]
    wanted = _with_width(wanted, cls)
    wanted = sorted(wanted, key=lambda same: (*_rank(same.kind), _depth(same, cls)))
    taken: set[str] = set()
    attributes = {path.rpartition(".")[2] for path in cls.forms[0].taken}
    for same in list(wanted):
        derived = _derived(same, cls)
        if derived is not None:
            same.text = derived
            continue
        late = any(hole.late for hole in same.holes)
        name = _channel_name(same, cls) if same.kind == "channels" else same.holes[0].name
        name = _free(name, taken | attributes if late else taken)
        taken.add(name)
        same.text = name
        cls.arguments.append(Argument(same.kind, name, same.values, late))
    arguments = {argument.name for argument in cls.arguments}
    for same in groups.values():
        if not same.text:
            derived = _derived(same, cls) if same.kind == "channels" else None
            same.text = derived or literal(same.values[0])
    for same, column in zip(members, columns, strict=True):
        if not column[0].late or not any(name in arguments for name in same.text.split()):
            cls.said.append(same.text)
        else:
            words = same.text.split()
            cls.said.append(" ".join(f"self.{word}" if word in arguments else word for word in words))
            for argument in cls.arguments:
                argument.late |= argument.name in words


def _free(name: str, taken: set[str]) -> str:
    """`name`, with a number if it is taken."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}{number}", number + 1
    return found


def _with_width(wanted: list[_Same], cls: Class) -> list[_Same]:
    """The width that comes in is an argument where the other widths are multiples or parts of it."""
    if any(len(form.inputs) != 1 for form in cls.forms):
        return wanted
    width = _Same("channels", tuple(form.inputs[0].type.channels for form in cls.forms))
    others = [same for same in wanted if same.kind == "channels"]
    if any(same.values == width.values for same in others) or not any(_part(same, width.values) for same in others):
        return wanted
    return [width, *wanted]


def _is_argument(same: _Same, cls: Class) -> bool:
    often = len(same.holes) > 1 or any(hole.passed for hole in same.holes)
    if cls.forms[0].repeated:
        return same.varies or (same.kind in ALWAYS and _depth(same, cls) < 2)
    return same.varies or (same.kind in ALWAYS and same.kind != "channels" and often)


def _depth(same: _Same, cls: Class) -> int:
    """0 for the width that comes in, 1 for the one that goes out, 2 for others; the first are settled first."""
    if same.kind != "channels":
        return 0
    name = _channel_name(same, cls)
    return ("dim", "dim_out").index(name) if name in ("dim", "dim_out") else 2


def _rank(kind: str) -> tuple[int, str]:
    if kind in LAST:
        return len(ORDER) + 1 + LAST.index(kind), kind
    return (ORDER.index(kind) if kind in ORDER else len(ORDER)), kind


def _channel_name(same: _Same, cls: Class) -> str:
    """`dim` for the width that comes in, `dim_out` for the one that goes out, `hidden` for one in between."""
    for name, ends in (
        ("dim", [form.inputs[:1] for form in cls.forms]),
        ("dim_out", [form.outputs[:1] for form in cls.forms]),
    ):
        widths = [node.type.channels for end in ends for node in end]
        if widths == list(same.values):
            return name
    passed = [hole.name for hole in same.holes if hole.passed and hole.name != "dim"]
    return passed[0] if passed else "hidden"


def _derived(same: _Same, cls: Class) -> str | None:
    """The number as a multiple or a part of an argument, the same for all forms."""
    if same.kind == "padding":
        kernels = [argument for argument in cls.arguments if argument.kind == "kernel_size"]
        for kernel in kernels:
            if all(isinstance(k, int) and k // 2 == v for k, v in zip(kernel.values, same.values, strict=True)):
                return f"{kernel.name} // 2"
    if same.kind != "channels":
        return None
    arguments = [argument for argument in cls.arguments if argument.kind == "channels"]
    found = [part.format(argument.name) for argument in arguments if (part := _part(same, argument.values))]
    return found[0] if found else None


def _part(same: _Same, of: tuple[object, ...]) -> str | None:
    """`4 * {}` or `{} // 2`, where the numbers are that many times, or that part of, their partners."""
    for code, ratios in (("{1} * {{}}", _ratios(same.values, of)), ("{{}} // {1}", _ratios(of, same.values))):
        if len(ratios) == 1 and (ratio := ratios.pop()) is not None:
            return code.format(None, ratio)
    return None


def _ratios(values: tuple[object, ...], of: tuple[object, ...]) -> set[int | None]:
    """By how much each of `values` is a multiple of its partner; None where it is not."""
    return {_ratio(a, b) for a, b in zip(values, of, strict=True)}


def _ratio(a: object, b: object) -> int | None:
    return a // b if isinstance(a, int) and isinstance(b, int) and b > 0 and a > b and a % b == 0 else None


def calls(forms: Sequence[Form]) -> Iterator[tuple[Class, dict[str, object]]]:
    """Class and arguments of each form."""
    for form in forms:
        assert form.cls is not None
        yield form.cls, {name: hole.value for name, hole in form.arguments()}
