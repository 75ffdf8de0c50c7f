"""The code of one scope: which modules it holds and what its `forward` says, with holes for the numbers."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from archdsl.backends.source.layouts import Layouts
from archdsl.backends.source.text import Hole, Text, Var, text
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Node

NESTING = 3
"""How many calls may stand in each other before a value gets a name and a line of its own."""

LOCALS = ("x", "y", "z", "u", "v", "w")
RESERVED = {"self", "torch", "nn", "F", "Tensor", "super", "len", "range", *keyword.kwlist}


@dataclass(frozen=True)
class Expression:
    """Code that gives a value.

    depth: how many calls stand in each other
    infix: must stand in brackets before a dot or a sign that binds more closely
    name: what the value is to be called; with `own_line` it is always given a name
    merged: the same tokens before they were cut into groups of four, where that was the last step
    condition: the value is `text` where this holds, else `base`
    """

    text: Text
    depth: int = 0
    infix: bool = False
    name: str | None = None
    own_line: bool = False
    merged: Text | None = None
    condition: str | None = None
    base: Text | None = None

    @property
    def atom(self) -> Text:
        """The code as something a dot may follow."""
        return text("(", self.text, ")") if self.infix else self.text


def call(*pieces: str | Hole | Text, of: Iterable[Expression]) -> Expression:
    """A call one level deeper than what it reads."""
    return Expression(text(*pieces), depth=1 + max((x.depth for x in of), default=0))


@dataclass(frozen=True, eq=False)
class Unit:
    """One step of a scope: an op, or a scope within it.

    held: how `forward` calls it, for a scope
    """

    path: str
    nodes: tuple[Node, ...]
    reads: tuple[Node, ...]
    makes: tuple[Node, ...]
    held: str = ""

    @property
    def is_op(self) -> bool:
        return not self.held


@dataclass
class Statement:
    """One line of `forward`: what it names, and the code."""

    targets: tuple[Node, ...]
    expression: Expression
    names: tuple[str | None, ...]


@dataclass
class Writer:
    """The modules and the code of one scope under construction.

    prefix: the path of the scope with a dot, or ""
    forms: where the functions that the file must hold are noted
    """

    prefix: str
    layouts: Layouts
    functions: set[str]
    init: list[Text] = field(default_factory=list)
    tensors: list[Text] = field(default_factory=list)
    buffers: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    statements: list[Statement] = field(default_factory=list)
    values: dict[Node, Expression] = field(default_factory=dict)
    uses: dict[Node, int] = field(default_factory=dict)
    shared: dict[tuple[str, Text], str] = field(default_factory=dict)

    @property
    def made(self) -> list[Text]:
        """The lines of `__init__`: tensors of the scope itself, then modules."""
        return [*self.tensors, *self.init]

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
                self.init.append((f"{here} = nn.Module()" if below.isidentifier() else f"{here} = nn.ModuleDict()",))
        self.taken.add(path)
        return _member(here, last)

    def module(self, node: Node, made: Text, *args: Expression) -> Expression:
        """Hold a module at the node's path and call it."""
        held = self.holder(node.path)
        self.init.append(text(f"{held} = ", made))
        return call(f"{held}(", _comma(args), ")", of=args)

    def parameter(self, node: Node, made: Text) -> str:
        """Hold the node's one parameter, which is called like the node."""
        held = self.holder(node.path)
        if held.endswith("]"):
            raise _bad_name(node.path)
        lines = self.tensors if held.count(".") == 1 else self.init
        lines.append(text(f"{held} = nn.Parameter(", made, ")"))
        return held

    def buffer(self, name: str, made: Text, kind: str = "Tensor") -> str:
        """Hold a tensor that is neither learnt nor saved; equal ones once."""
        return self._once(
            name,
            made,
            lambda name: text(f'self.register_buffer("{name}", ', made, ", persistent=False)"),
            kind,
        )

    def helper(self, name: str, made: Text) -> str:
        """Hold a module without tensors; equal ones once."""
        return self._once(name, made, lambda name: text(f"self.{name} = ", made))

    def _once(self, name: str, made: Text, line: object, kind: str | None = None) -> str:
        key = (name, made)
        if key not in self.shared:
            free, number = name, 2
            while self.prefix + free in self.taken or f"{self.prefix}{free}" in self.shared.values():
                free, number = f"{name}{number}", number + 1
            self.taken.add(self.prefix + free)
            self.shared[key] = free
            assert callable(line)
            (self.tensors if kind else self.init).append(line(free))
            if kind:
                self.buffers[free] = kind
        return f"self.{self.shared[key]}"

    def function(self, name: str) -> None:
        """Note that the file needs a function, in some form."""
        self.functions.add(name)

    def read(self, node: Node, *, nested: bool = True, summed: bool = False) -> Expression:
        """The code of a value. With `nested` it will stand in a call, and is named first if it is deep already.

        summed: it will stand beside a sign, and is named first if it has one already
        """
        value = self.values[node]
        if value.own_line or (nested and value.depth >= NESTING) or (summed and value.infix):
            value = self.name(node)
        return value

    def give(self, node: Node, value: Expression) -> None:
        """Say how a value is made. Values that are read more than once get a name."""
        self.values[node] = value
        if self.uses.get(node, 0) > 1:
            self.name(node)

    def name(self, node: Node) -> Expression:
        """Give a value a name and a line."""
        value = self.values[node]
        self.statements.append(Statement((node,), value, (value.name,)))
        self.values[node] = Expression((Var(node.path),))
        return self.values[node]

    def several(self, nodes: tuple[Node, ...], value: Expression, names: tuple[str | None, ...]) -> None:
        """Give the values that one call makes their names."""
        self.statements.append(Statement(nodes, value, names))
        self.values.update({node: Expression((Var(node.path),)) for node in nodes})

    def body(self, inputs: Mapping[Node, str], outputs: tuple[Node, ...]) -> list[Text]:
        """The lines of `forward`, variables named."""
        ends = [self.read(node, nested=False) for node in outputs]
        end = Statement((), Expression(text("return ", _comma(ends))), ())
        last = _last_reads([*self.statements, end])
        names = {node.path: name for node, name in inputs.items()}
        lines: list[Text] = []
        for position, statement in enumerate(self.statements):
            bound = [replace(statement.expression, text=_bound(statement.expression.text, names))]
            base = _bound(statement.expression.base or (), names)
            names = {key: name for key, name in names.items() if last.get(key, -1) > position}
            for node, proposed in zip(statement.targets, statement.names, strict=True):
                names[node.path] = _free(proposed, names.values())
            target = ", ".join(names[node.path] for node in statement.targets)
            lines += _assignment(target, bound[0], base)
        lines.append(_bound(end.expression.text, names))
        return lines


def _assignment(target: str, value: Expression, base: Text) -> list[Text]:
    if value.condition is None:
        return [text(f"{target} = ", value.text)]
    if base == (target,):
        return [(f"if {value.condition}:",), text(f"    {target} = ", value.text)]
    return [text(f"{target} = ", value.text, f" if {value.condition} else ", base)]


def _bound(code: Text, names: Mapping[str, str]) -> Text:
    return tuple(names[piece.key] if isinstance(piece, Var) else piece for piece in code)


def _last_reads(statements: list[Statement]) -> dict[str, int]:
    return {
        piece.key: position
        for position, statement in enumerate(statements)
        for piece in (*statement.expression.text, *(statement.expression.base or ()))
        if isinstance(piece, Var)
    }


def _free(proposed: str | None, taken: Iterable[str]) -> str:
    """A name that is not taken: the proposed one if it can be."""
    used = {*taken, *RESERVED}
    return next(name for name in _names(proposed) if name not in used)


def _names(proposed: str | None) -> Iterator[str]:
    if proposed and proposed.isidentifier():
        yield proposed
    else:
        yield from LOCALS
    first, number = proposed if proposed and proposed.isidentifier() else "x", 1
    while True:
        yield f"{first}{number}"
        number += 1


def input_names(inputs: Iterable[Node], first: str = "x") -> dict[Node, str]:
    """What a scope calls what it is given: `x`, then by the makers' names."""
    names: dict[Node, str] = {}
    for node in inputs:
        last = node.path.rpartition(".")[2]
        names[node] = _free(first if not names else last, names.values())
    return names


def _comma(args: Iterable[Expression]) -> Text:
    pieces: list[str | Text] = []
    for x in args:
        pieces += [", ", x.text] if pieces else [x.text]
    return text(*pieces)


def _member(holder: str, name: str) -> str:
    if name.isidentifier() and not keyword.iskeyword(name):
        return f"{holder}.{name}"
    if holder == "self" or not name.replace("_", "").isalnum():
        raise _bad_name(name)
    return f'{holder}["{name}"]'


def _bad_name(path: str) -> BackendError:
    return BackendError(
        Problem(
            at_argument("source", path),
            "unknown-name",
            f"the source backend cannot write a tensor or module called {path!r}",
            "call it like a Python variable",
            path,
        )
    )
