"""The modules of a network, found in the paths of its graph, and the code of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from archdsl.backends.emitters import no_emitter
from archdsl.backends.source.classes import Form, SourceClass, classes_of
from archdsl.backends.source.emitters import EMITTERS
from archdsl.backends.source.library import Layouts
from archdsl.backends.source.text import late, variable
from archdsl.backends.source.writer import Expression, Writer, input_names
from archdsl.ir.graph import Graph, Node
from archdsl.ir.order import Planes, Windows
from archdsl.ir.types import TensorType
from archdsl.ops.attention import Attention
from archdsl.ops.norm import LayerNorm
from archdsl.ops.pointwise import Activation
from archdsl.ops.tokens import Reorder
from archdsl.passes.uses import splits_of


@dataclass(frozen=True)
class Kind:
    """What a part of the spec is called in the file, its first line of documentation, and the fields that are set."""

    name: str
    doc: str
    fields: frozenset[str] = frozenset()


@dataclass(eq=False)
class Submodule:
    """The nodes whose paths start with `path`, in the order of the graph, and the submodules among them."""

    path: str
    nodes: list[Node]
    children: list[Submodule] = field(default_factory=list)
    form: Form | None = None

    def below(self) -> Iterator[Submodule]:
        """This submodule and all within it, the inner ones first."""
        for child in self.children:
            yield from child.below()
        yield self

    @property
    def height(self) -> int:
        """How many submodules lie within each other below this one."""
        return 1 + max((child.height for child in self.children), default=-1)


@dataclass(frozen=True, eq=False)
class Unit:
    """One step of `forward`: an op, or a call of what is held as `held`."""

    nodes: tuple[Node, ...]
    reads: tuple[Node, ...]
    makes: tuple[Node, ...]
    child: Submodule | None = None
    held: str = ""


class ModuleTree:
    """A graph as submodules: its parts, and those that the paths of their nodes name. names: those that are taken."""

    def __init__(self, graph: Graph, kinds: Mapping[str, Kind], names: set[str]):
        self.graph, self.kinds, self.names = graph, kinds, names
        self.users, self.splits = graph.users(), splits_of(graph)
        self.results = set(graph.outputs.values())
        self.layouts = Layouts.of(graph)
        self.classes: list[SourceClass] = []

    def grow(self, module: Submodule) -> Submodule:
        """Find the submodules within one. It gets none where values go out of one and back in: its code is then flat.

        A node stays in `module` itself where a name on its path is no Python name.
        """
        groups: dict[str, list[Node]] = {}
        for node in module.nodes:
            name, dot, rest = node.path.removeprefix(f"{module.path}.").partition(".")
            held = rest.split(".")[0] if node.op.tensors() or "." in rest else "x"
            groups.setdefault(name, []).append(node)
            if not (dot and name.isidentifier() and held.isidentifier()):
                groups.setdefault(f"{name}!", []).append(node)
        module.children = [
            Submodule(f"{module.path}.{name}", nodes)
            for name, nodes in groups.items()
            if not name.endswith("!") and f"{name}!" not in groups and any(node.op.tensors() for node in nodes)
        ]
        if self.units(module) is None:
            module.children = []
        for child in module.children:
            self.grow(child)
        return module

    def units(self, module: Submodule) -> list[Unit] | None:
        """The steps of a submodule in an order in which they can be taken, or None when there is no such order."""
        owner = {node: child for child in module.children for node in child.nodes}
        groups: dict[Submodule | Node, list[Node]] = {}
        for node in module.nodes:
            groups.setdefault(owner.get(node, node), []).append(node)
        inside = set(module.nodes)
        waiting = {
            step: {owner.get(x, x) for node in nodes for x in node.inputs if x in inside} - {step}
            for step, nodes in groups.items()
        }
        units: list[Unit] = []
        done: set[Submodule | Node] = set()
        while waiting:
            step = next((step for step, needs in waiting.items() if needs <= done), None)
            if step is None:
                return None
            del waiting[step]
            done.add(step)
            child = step if isinstance(step, Submodule) else None
            units.append(Unit(tuple(groups[step]), *self.ends(groups[step]), child))
        return units

    def ends(self, nodes: Iterable[Node]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        """What comes into and goes out of some nodes."""
        inside = dict.fromkeys(nodes)
        inputs = dict.fromkeys(x for node in inside for x in node.inputs if x not in inside)
        outputs = [n for n in inside if n in self.results or any(user not in inside for user in self.users[n])]
        return tuple(inputs), tuple(outputs)

    def form_all(self, parts: Sequence[Submodule]) -> None:
        """Give each submodule its code, the inner ones first, and find the classes."""
        of_part = [(module, part) for part in parts for module in part.below()]
        for height in range(max((module.height for module, _ in of_part), default=-1) + 1):
            level = [(module, part) for module, part in of_part if module.height == height]
            for module, part in level:
                module.form = self._form(module, part)
            classes_of([module.form for module, _ in level if module.form], self.names)
        made = [module.form.cls for module, _ in of_part if module.form and module.form.cls]
        self.classes = list(dict.fromkeys(made))

    def _form(self, module: Submodule, part: Submodule) -> Form:
        inputs, outputs = self.ends(module.nodes)
        writer, names = Writer(f"{module.path}.", self.layouts), input_names(inputs)
        units = self.units(module)
        assert units is not None
        self.write(writer, units, names, outputs)
        body = writer.body(names, outputs)
        kind = self.kinds.get(part.path, Kind(_name(part), ""))
        fields = kind.fields | {"channels"} if ".blocks." in part.path or ".downsample" in part.path else frozenset()
        name, doc = (kind.name, kind.doc) if module is part else (_name(module), "")
        taken = {path.removeprefix(f"{module.path}.") for path in writer.taken}
        return Form(
            name, doc or _doc(module, inputs, outputs), fields, inputs[0].type.channels if inputs else 0,
            tuple(names.values()), len(outputs), [*writer.tensors, *writer.init], body, writer.buffers, taken,
        )  # fmt: skip

    def write(self, w: Writer, units: list[Unit], names: Mapping[Node, str], outputs: tuple[Node, ...]) -> None:
        """Write the steps of a module."""
        w.values = {node: Expression(variable(node.path)) for node in names}
        inside = {unit.nodes[0] for unit in units if not (unit.child or unit.held)}
        cuts = {node: pieces for pieces in self._cuts(inside) for node in pieces}
        for x in (x for unit in units if cuts.get(unit.nodes[0], unit.nodes)[0] == unit.nodes[0] for x in unit.reads):
            w.uses[x] = w.uses.get(x, 0) + 1
        for node in outputs:
            w.uses[node] = w.uses.get(node, 0) + 1
        for unit in units:
            node = unit.nodes[0]
            if unit.child or unit.held:
                self._call(w, unit)
            elif node not in cuts:
                w.give(node, self._emit(w, node))
            elif node == cuts[node][0]:
                _split(w, node.inputs[0], cuts[node])

    def _emit(self, w: Writer, node: Node) -> Expression:
        """The code of one op. Ops that are no matter of single tokens see windows one after the other, [B, N, C]."""
        emitter = EMITTERS.get(type(node.op))
        if emitter is None:
            raise no_emitter("source", node)
        args = [w.read(x) for x in node.inputs]
        if node.op.order_rule in ("elementwise", "tokenwise", "channelwise") or isinstance(
            node.op, Attention | Reorder
        ):
            return emitter(w, node, node.op, *args)
        for index, x in enumerate(node.inputs):
            if isinstance(x.type.order, Windows):
                args[index] = Expression(f"{args[index].atom}.flatten(1, 2)", args[index].depth)
        made = emitter(w, node, node.op, *args)
        order = node.type.order
        return Expression(w.unflattened(made, order), made.depth) if isinstance(order, Windows) else made

    def _cuts(self, inside: set[Node]) -> Iterator[tuple[Node, ...]]:
        """The slices that one line makes together: all that a value is cut into, in the order of its channels."""
        for source, ops in self.splits.items():
            nodes = [node for node in dict.fromkeys(self.users[source]) if node in inside and node.op in ops]
            if len(nodes) == len(ops):
                yield tuple(sorted(nodes, key=lambda node: ops.index(node.op)))

    def _call(self, w: Writer, unit: Unit) -> None:
        """Call a submodule; one that is not held yet is made here."""
        held = unit.held
        if not held:
            assert unit.child is not None and unit.child.form is not None
            held = w.holder(unit.child.path)
            w.init.append(f"{held} = {unit.child.form.call()}")
        value = w.call(held, *(w.read(x) for x in unit.reads))
        if len(unit.makes) == 1:
            w.give(unit.makes[0], value)
        else:
            w.several(unit.makes, value.text, tuple(None if n else "x" for n, _ in enumerate(unit.makes)))


def _split(w: Writer, source: Node, slices: tuple[Node, ...]) -> None:
    """Cut a value as a whole: one line makes all the slices."""
    sizes = [node.type.channels for node in slices]
    cut = f"split(({', '.join(late('channels', size) for size in sizes)}), dim=-1)"
    cut = f"chunk({len(sizes)}, dim=-1)" if len(set(sizes)) == 1 else cut
    w.several(slices, f"{w.read(source).atom}.{cut}", tuple(node.path.rpartition(".")[2] for node in slices))


def camel(name: str) -> str:
    """`swin_free_t` -> `SwinFreeT`."""
    words = [word for word in "".join(c if c.isalnum() else "_" for c in name).split("_") if word]
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined.isidentifier() and joined.isascii() else f"Net{joined}"


def _name(module: Submodule) -> str:
    """What a submodule is called: by its last name, and by what it does where it attends and does not norm as well."""
    if ".blocks." in module.path and module.path.rpartition(".")[2].isdecimal():
        return "Block"
    kinds = {type(node.op) for node in module.nodes}
    if Attention not in kinds or LayerNorm in kinds:
        return camel(module.path.rpartition(".")[2])
    return f"{'Window' * _has_windows(module)}{'Shrinking' * _shrinks(module)}Attention"


def _doc(module: Submodule, inputs: tuple[Node, ...], outputs: tuple[Node, ...]) -> str:
    """What a submodule does, and what goes in and out, where no part documents it."""
    steps = [node.op.name if isinstance(node.op, Activation) else type(node.op).__name__ for node in module.nodes]
    what = ", ".join(steps if len(steps) <= 4 else [*steps[:3], "…"])
    if "Attention" in steps:
        what = "Attention of some tokens to all" if _shrinks(module) else "Self-attention"
        what += " within windows" * _has_windows(module)
    takes, gives = (", ".join(_axes(x.type) for x in ends) for ends in (inputs, outputs))
    return f"{what}: {takes} -> {gives}."


def _shrinks(module: Submodule) -> bool:
    """Whether an attention has fewer queries than keys."""
    attentions = [node for node in module.nodes if isinstance(node.op, Attention)]
    return any(node.inputs[0].type.tokens < node.inputs[1].type.tokens for node in attentions)


def _has_windows(module: Submodule) -> bool:
    return any(isinstance(node.type.order, Windows) for node in module.nodes)


def _axes(type: TensorType) -> str:
    """The axes of a value: [B, N, C], [B, C, H, W] or [B, C]."""
    if isinstance(type.order, Planes):
        return "[B, C, H, W]"
    if isinstance(type.order, Windows):
        return "[B, windows, N, C]"
    if not type.batched:
        return "[windows, heads, N, N]" if len(type.shape) == 3 else "[…]"
    return "[B, N, C]" if len(type.shape) == 2 else "[B, C]"
