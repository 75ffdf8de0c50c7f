"""The scopes of a graph, found in its paths, and the form of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from archdsl.backends.source import ops
from archdsl.backends.source.alike import part_of
from archdsl.backends.source.classes import Class, Form, Names, classes_of
from archdsl.backends.source.layouts import Layouts
from archdsl.backends.source.text import Text, Var, text
from archdsl.backends.source.writer import Expression, Unit, Writer, call, input_names
from archdsl.backends.splits import Splits, splits_of
from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.order import Planes, Windows
from archdsl.ir.types import TensorType
from archdsl.ops import Activation, Attention


@dataclass(eq=False)
class Scope:
    """The nodes whose paths start with `path`.

    dissolved: its nodes are steps of the scope around it; it only holds modules
    """

    path: str
    scopes: dict[str, Scope] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    dissolved: bool = False
    form: Form | None = None

    @property
    def height(self) -> int:
        return 1 + max((scope.height for scope in self.scopes.values()), default=-1)

    def owners(self) -> dict[Node, Scope | None]:
        """Each node below, and the scope within this one that it is a step of (None: of this one)."""
        found: dict[Node, Scope | None] = dict.fromkeys(self.nodes)
        for scope in self.scopes.values():
            below = scope.owners()
            found |= below if scope.dissolved else dict.fromkeys(below, scope)
        return found


@dataclass(frozen=True)
class Kind:
    """What a part of the spec is called in the file, and its first line of documentation."""

    name: str
    doc: str


@dataclass
class Reading:
    """A graph as scopes, and what their code needs.

    readers: by whom each value is read
    """

    graph: Graph
    kinds: Mapping[str, Kind]
    layouts: Layouts
    names: Names
    functions: set[str] = field(default_factory=set)
    classes: list[Class] = field(default_factory=list)
    readers: dict[Node, list[Node]] = field(default_factory=dict)
    splits: Splits = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.splits = splits_of(self.graph)
        self.position = {node: index for index, node in enumerate(self.graph.live())}
        for node in self.graph.live():
            for x in node.inputs:
                self.readers.setdefault(x, []).append(node)

    def scopes(self) -> Scope:
        """The tree of scopes. Parts are scopes of the root, and all below them is theirs."""
        root = Scope("")
        for node in self.graph.live():
            if isinstance(node.op, Input):
                continue
            part = part_of(node.path)
            scope = root
            if part:
                scope = root.scopes.setdefault(part, Scope(part))
            for name in node.path[len(part) :].strip(".").split(".")[:-1]:
                below = f"{scope.path}.{name}".strip(".")
                scope = scope.scopes.setdefault(name, Scope(below))
            scope.nodes.append(node)
        self._dissolve(root)
        return root

    def _dissolve(self, scope: Scope) -> None:
        """Find the scopes that cannot be one step: they hold numbered scopes, or values go out of them and back in."""
        for below in scope.scopes.values():
            names = [node.path.rpartition(".")[2] for node in below.nodes if node.op.tensors()]
            parted = part_of(below.path) == below.path
            clash = any(node.path == below.path for node in scope.nodes)
            below.dissolved = not parted and (clash or not all(n.isidentifier() for n in (*names, *below.scopes)))
            self._dissolve(below)
        while (stuck := self._stuck(scope)) is not None:
            stuck.dissolved = True

    def _stuck(self, scope: Scope) -> Scope | None:
        """A scope within `scope` that needs its own result, by way of others."""
        owners = scope.owners()
        steps: dict[object, set[object]] = {}
        for node, owner in owners.items():
            here = owner or node
            needs = {owners[x] or x for x in node.inputs if x in owners}
            steps.setdefault(here, set()).update(needs - {here})
        done: set[object] = set()
        while ready := [step for step, needs in steps.items() if step not in done and needs <= done]:
            done.update(ready)
        left = [step for step in steps if step not in done and isinstance(step, Scope)]
        return left[0] if left and isinstance(left[0], Scope) else None

    def units(self, scope: Scope) -> list[Unit]:
        """The steps of a scope, in an order in which they can be taken."""
        owners = scope.owners()
        groups: dict[object, list[Node]] = {}
        for node in sorted(owners, key=self.position.__getitem__):
            groups.setdefault(owners[node] or node, []).append(node)
        waiting = {
            step: {owners[x] or x for n in nodes for x in n.inputs if x in owners} - {step}
            for step, nodes in groups.items()
        }
        units: list[Unit] = []
        done: set[object] = set()
        while waiting:
            step = next(step for step, needs in waiting.items() if needs <= done)
            del waiting[step]
            done.add(step)
            nodes = groups[step]
            if isinstance(step, Scope):
                inputs, outputs = self.ends(nodes)
                units.append(Unit(step.path, tuple(nodes), inputs, outputs, held=step.path))
            else:
                units.append(Unit(nodes[0].path, tuple(nodes), nodes[0].inputs, tuple(nodes)))
        return units

    def ends(self, nodes: Iterable[Node]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        """What comes into and goes out of some nodes."""
        inside = dict.fromkeys(nodes)
        inputs = dict.fromkeys(x for node in inside for x in node.inputs if x not in inside)
        results = set(self.graph.outputs.values())
        outputs = [n for n in inside if n in results or any(r not in inside for r in self.readers.get(n, ()))]
        return tuple(inputs), tuple(outputs)

    def form_all(self, root: Scope) -> None:
        """Give each scope its form, the inner ones first, and find the classes."""
        scopes = [scope for scope in _below(root) if not scope.dissolved]
        for height in range(max((scope.height for scope in scopes), default=-1) + 1):
            forms = []
            for scope in scopes:
                if scope.height == height:
                    scope.form = self._form(scope)
                    forms.append(scope.form)
            classes_of(forms, self.names)
        formed = [scope.form.cls for scope in scopes if scope.form and scope.form.cls]
        self.classes = list(dict.fromkeys(formed))

    def _form(self, scope: Scope) -> Form:
        inputs, outputs = self.ends(scope.owners())
        writer = Writer(f"{scope.path}.", self.layouts, self.functions)
        names = input_names(inputs)
        self.write(writer, scope, self.units(scope), names, outputs)
        body = writer.body(names, outputs)
        kind = self.kinds.get(scope.path) or _kind_of(scope)
        return Form(
            kind.name, kind.doc or _doc(scope, inputs, outputs), inputs, outputs, tuple(names.values()), writer.made,
            writer.buffers, body, {*writer.taken, *(f"{scope.path}.{name}" for name in writer.buffers)},
            repeated=scope.path.startswith("stages."),
        )  # fmt: skip

    def write(
        self, w: Writer, scope: Scope, units: list[Unit], names: Mapping[Node, str], outputs: tuple[Node, ...]
    ) -> None:
        """Write the steps of a scope."""
        w.values = {node: Expression((Var(node.path),)) for node in names}
        inside = {unit.nodes[0]: unit for unit in units if unit.is_op}
        cuts = self._cuts(inside)
        for unit in units:
            source = cuts.get(unit.nodes[0]) if unit.is_op else None
            reads = [source] if source is not None else unit.reads
            if source is None or unit.nodes[0] == self._pieces(source, inside)[0]:
                for x in reads:
                    w.uses[x] = w.uses.get(x, 0) + 1
        for node in outputs:
            w.uses[node] = w.uses.get(node, 0) + 1
        below = {found.path: found for found in _below(scope)}
        for unit in units:
            node = unit.nodes[0]
            if not unit.is_op:
                self._call(w, below.get(unit.path), unit)
            elif node in cuts:
                pieces = self._pieces(cuts[node], inside)
                if node == pieces[0]:
                    ops.split(w, cuts[node], pieces)
            else:
                w.give(node, ops.write(w, node))

    def _cuts(self, inside: Mapping[Node, Unit]) -> dict[Node, Node]:
        """The slices that one line makes together, and what they are cut from."""
        found: dict[Node, Node] = {}
        for source in self.splits:
            pieces = self._pieces(source, inside)
            if len(pieces) == len(self.splits[source]) == len({p.op for p in pieces}):
                found |= dict.fromkeys(pieces, source)
        return found

    def _pieces(self, source: Node, inside: Mapping[Node, Unit]) -> list[Node]:
        """The slices of a value that are steps here, in the order of their channels."""
        ops = self.splits[source]
        nodes = [node for node in dict.fromkeys(self.readers[source]) if node in inside and node.op in ops]
        return sorted(nodes, key=lambda node: ops.index(node.op))

    def _call(self, w: Writer, scope: Scope | None, unit: Unit) -> None:
        """Call a scope within this one; one that is not said to be held already is made here."""
        held = unit.held
        if not held.startswith("self"):
            assert scope is not None and scope.form is not None
            held = w.holder(scope.path)
            w.init.append(text(f"{held} = ", scope.form.call()))
        args = [w.read(x) for x in unit.reads]
        value = call(f"{held}(", *_commas(args), ")", of=args)
        if len(unit.makes) == 1:
            w.give(unit.makes[0], value)
        else:
            w.several(unit.makes, value, tuple(None if n else "x" for n, _ in enumerate(unit.makes)))


def _commas(args: list[Expression]) -> list[str | Text]:
    return [piece for index, x in enumerate(args) for piece in ((", ", x.text) if index else (x.text,))]


def _below(scope: Scope) -> Iterable[Scope]:
    for below in scope.scopes.values():
        yield from _below(below)
        yield below


SHORT = {"attn": "Attention", "mlp": "Mlp", "ffn": "FeedForward"}
"""Names of scopes that are not words."""


def camel(name: str) -> str:
    """`swin_free_t` -> `SwinFreeT`."""
    words = [word for word in "".join(c if c.isalnum() else "_" for c in name).split("_") if word]
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined.isidentifier() and joined.isascii() else f"Net{joined}"


def _kind_of(scope: Scope) -> Kind:
    """What a scope within a part is called: by its last name that is one."""
    part = part_of(scope.path)
    if part == scope.path:
        return Kind("Block" if ".blocks." in part else camel(part.rpartition(".")[2]), "")
    names = [name for name in scope.path[len(part) :].split(".") if name.isidentifier()]
    name = SHORT.get(names[-1], camel(names[-1])) if names else "Layers"
    if name == "Attention" and any(isinstance(n.type.order, Windows) for n in scope.owners()):
        name = "WindowAttention"
    return Kind(name, "")


def _doc(scope: Scope, inputs: tuple[Node, ...], outputs: tuple[Node, ...]) -> str:
    """What goes in and out, for scopes that no part documents."""
    nodes = list(scope.owners())
    steps = [n.op.name if isinstance(n.op, Activation) else type(n.op).__name__ for n in nodes]
    shapes = ", ".join(axes(x.type) for x in inputs), ", ".join(axes(x.type) for x in outputs)
    if any(isinstance(n.op, Attention) for n in nodes):
        windows = any(isinstance(n.type.order, Windows) for n in nodes)
        what = "Self-attention within windows" if windows else "Self-attention"
    else:
        what = ", ".join(steps if len(steps) <= 4 else [*steps[:3], "…"])
    return f"{what}: {shapes[0]} -> {shapes[1]}."


def axes(type: TensorType) -> str:
    """The axes of a value: [B, N, C], [B, C, H, W] or [B, C]."""
    if isinstance(type.order, Planes):
        return "[B, C, H, W]"
    if not type.batched:
        return "[windows, heads, N, N]" if len(type.shape) == 3 else "[…]"
    return "[B, N, C]" if len(type.shape) == 2 else "[B, C]"
