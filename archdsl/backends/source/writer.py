"""The code of one module under construction: what its `__init__` holds and what its `forward` says."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from archdsl.backends.source.library import Layouts
from archdsl.backends.source.text import late, named, number, variable, variables
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Node
from archdsl.ir.op import Init
from archdsl.ir.order import Windows

NESTING = 4
"""How many calls may stand in each other before a value gets a name and a line of its own."""

LOCALS = ("x", "y", "z", "u", "v", "w")
RESERVED = {"self", "torch", "nn", "F", "Tensor", "super", "len", "range", *keyword.kwlist}


@dataclass(frozen=True)
class Expression:
    """Code that gives a value.

    depth: how many calls stand in each other
    infix: must stand in brackets before a dot or a sign that binds more closely
    name: what the value is called, on a line of its own; None where it needs neither
    merged: the same tokens before they were cut into groups of four, where that was the last step
    """

    text: str
    depth: int = 0
    infix: bool = False
    name: str | None = None
    merged: str | None = None

    @property
    def atom(self) -> str:
        """The code as something a dot may follow."""
        return f"({self.text})" if self.infix else self.text


Emitter = Callable[..., Expression]
"""`(writer, node, op, *inputs) -> code`: how one op is written. The op is `node.op`, by its own type."""


@dataclass
class Statement:
    """One line of `forward`: the values that it makes, the names proposed for them, and the code."""

    targets: tuple[Node, ...]
    code: str
    names: tuple[str | None, ...]


@dataclass
class Writer:
    """The modules and the code of one module under construction.

    prefix: its path with a dot, or ""
    layouts: those of the network
    taken: the paths that are held
    """

    prefix: str
    layouts: Layouts
    init: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    statements: list[Statement] = field(default_factory=list)
    values: dict[Node, Expression] = field(default_factory=dict)
    uses: dict[Node, int] = field(default_factory=dict)
    shared: dict[tuple[str, str], str] = field(default_factory=dict)

    def sides(self, sides: tuple[int, int]) -> int | tuple[int, int]:
        """Height and width as the file writes them."""
        return sides[0] if self.layouts.square else sides

    def holder(self, path: str) -> str:
        """How code says `path` (of the whole network): `self.attn.qkv`. Missing holders on the way are made."""
        *above, last = path.removeprefix(self.prefix).split(".")
        here = "self"
        for index, name in enumerate(above):
            known = self.prefix + ".".join(above[: index + 1])
            here = _member(here, name)
            if known not in self.taken:
                self.taken.add(known)
                below = above[index + 1] if index + 1 < len(above) else last
                self.init.append(f"{here} = nn.{'Module' if below.isidentifier() else 'ModuleDict'}()")
        self.taken.add(path)
        return _member(here, last)

    def call(self, function: str, *args: Expression, more: str = "") -> Expression:
        """A call, one level deeper than what it reads. more: further arguments, with their comma."""
        code = f"{function}({', '.join(x.text for x in args)}{more})"
        return Expression(code, 1 + max((x.depth for x in args), default=0))

    def module(self, node: Node, made: str, *args: Expression) -> Expression:
        """Hold a module at the node's path and call it."""
        held = self.holder(node.path)
        self.init.append(f"{held} = {made}")
        return self.call(held, *args)

    def parameter(self, node: Node, made: str) -> str:
        """Hold the node's one parameter, which is called like the node."""
        held = self.holder(node.path)
        if held.endswith("]"):
            raise _bad_name(node.path)
        lines = self.tensors if held.count(".") == 1 else self.init
        lines.append(f"{held} = nn.Parameter({made})")
        return held

    def state(self, node: Node, made: str) -> str:
        """Hold the node's one tensor, which is saved but not learnt."""
        held = self.holder(node.path)
        owner, _, name = held.rpartition(".")
        if held.endswith("]"):
            raise _bad_name(node.path)
        lines = self.tensors if owner == "self" else self.init
        lines.append(f'{owner}.register_buffer("{name}", {made})')
        if owner == "self":
            self.buffers = list(dict.fromkeys([*self.buffers, name]))
        return held

    def buffer(self, name: str, made: str) -> str:
        """Hold a tensor that is neither learnt nor saved; equal ones once."""
        held = self._once(name, made, self.tensors, f'self.register_buffer("{{}}", {made}, persistent=False)')
        self.buffers = list(dict.fromkeys([*self.buffers, held.removeprefix("self.")]))
        return held

    def helper(self, name: str, made: str) -> str:
        """Hold a module without tensors; equal ones once."""
        return self._once(name, made, self.init, f"self.{{}} = {made}")

    def _once(self, name: str, made: str, lines: list[str], line: str) -> str:
        if (name, made) not in self.shared:
            free = free_name(name, {path.removeprefix(self.prefix) for path in self.taken})
            self.taken.add(self.prefix + free)
            self.shared[name, made] = free
            lines.append(line.format(free))
        return f"self.{self.shared[name, made]}"

    def unflattened(self, x: Expression, order: Windows) -> str:
        """Tokens window after window, [B, N, C], as [B, windows, places, C]."""
        return f"{x.atom}.unflatten(1, ({late('windows', order.num_windows)}, -1))"

    def read(self, node: Node, *, last: bool = False) -> Expression:
        """The code of a value. last: it is returned; else it is named first where it is deeply nested already."""
        value = self.values[node]
        return self.name(node) if value.name or (not last and value.depth >= NESTING) else value

    def give(self, node: Node, value: Expression) -> None:
        """Say how a value is made. A value that is read more than once gets a name."""
        self.values[node] = value
        if self.uses.get(node, 0) > 1:
            self.name(node)

    def name(self, node: Node) -> Expression:
        """Give a value a name and a line."""
        value = self.values[node]
        self.several((node,), value.text, (value.name,))
        return self.values[node]

    def several(self, nodes: tuple[Node, ...], code: str, names: tuple[str | None, ...]) -> None:
        """Give the values that one line makes their names."""
        self.statements.append(Statement(nodes, code, names))
        self.values.update({node: Expression(variable(node.path)) for node in nodes})

    def body(self, inputs: Mapping[Node, str], outputs: tuple[Node, ...], end: str = "") -> list[str]:
        """The lines of `forward`, its variables named. end: the last one, where it is no plain return of the outputs"""
        end = end or f"return {', '.join([self.read(node, last=True).text for node in outputs])}"
        reads = [variables(code) for code in (*(s.code for s in self.statements), end)]
        last = {key: position for position, keys in enumerate(reads) for key in keys}
        names = {node.path: name for node, name in inputs.items()}
        lines: list[str] = []
        for position, statement in enumerate(self.statements):
            code = named(statement.code, names)
            names = {key: name for key, name in names.items() if last.get(key, -1) > position}
            for node, proposed in zip(statement.targets, statement.names, strict=True):
                names[node.path] = _local(proposed, names.values())
            lines.append(f"{', '.join(names[node.path] for node in statement.targets)} = {code}")
        return [*lines, named(end, names)]


def start(init: Init, shape: str) -> str:
    """A tensor of `shape` (`1, …` for a sinusoid) that starts by the law of `init`."""
    match init.law:
        case "zeros" | "ones":
            return f"torch.{init.law}({shape})"
        case "constant":
            return f"torch.full(({shape}{'' if ',' in shape else ','}), {number('start', init.value)})"
        case "normal":
            return f"torch.randn({shape}) * {number('std', init.value)}"
        case "orthogonal":
            return f"nn.init.orthogonal_(torch.empty({shape})) * {number('start', init.value)}"
        case "sinusoid":
            return f"sinusoid({shape.removeprefix('1, ')})"
    return f"torch.rand({shape}) * {number('std', init.value)}"


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, with a number if it is taken."""
    used, found, count = {*taken, *RESERVED}, name, 2
    while found in used:
        found, count = f"{name}{count}", count + 1
    return found


def _local(proposed: str | None, taken: Iterable[str]) -> str:
    """A variable that is not taken: the proposed one if it can be."""
    used = {*taken, *RESERVED}
    if proposed and proposed.isidentifier():
        return free_name(proposed, used)
    return next((name for name in LOCALS if name not in used), None) or free_name("x", used)


def input_names(inputs: Iterable[Node], first: str = "x") -> dict[Node, str]:
    """What a module calls what it is given: `x`, then by the makers' names."""
    names: dict[Node, str] = {}
    for node in inputs:
        names[node] = _local(first if not names else node.path.rpartition(".")[2], names.values())
    return names


def _member(holder: str, name: str) -> str:
    if name.isidentifier() and not keyword.iskeyword(name):
        return f"{holder}.{name}"
    if holder == "self" or not name.replace("_", "").isalnum():
        raise _bad_name(name)
    return f'{holder}["{name}"]'


def _bad_name(path: str) -> BackendError:
    message = f"the source backend cannot write a tensor or module called {path!r}"
    place, hint = at_argument("source", path), "call it like a Python variable"
    return BackendError(Problem(place, "unknown-name", message, hint, path))
