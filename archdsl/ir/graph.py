"""The typed graph. Nodes are ops, edges are values; a value's type is inferred when its node is added.

An ill-formed graph therefore cannot exist. The ordered inputs of each node are the truth; `Graph.index` gives the same
graph to networkx for paths, drawing and analysis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from archdsl.errors import Place, Problem, RuleBroken, ShapeError
from archdsl.ir.op import Cost, Op, ParamSpec
from archdsl.ir.types import TensorType

if TYPE_CHECKING:
    import networkx

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One op applied to values. It has one result, so a node is also the value it makes.

    path: dotted and unique in its graph (`stages.2.blocks.0.attn.qkv`); parameters are named by it
    """

    op: Op
    inputs: tuple[Node, ...]
    type: TensorType
    path: str

    def cost(self) -> Cost:
        """The cost of the op for one image."""
        return self.op.cost([x.type for x in self.inputs], self.type)

    def tensor_name(self, key: str) -> str:
        """The full name of the op's tensor `key`: `path.key`, or the path itself for the key ""."""
        return f"{self.path}.{key}" if key else self.path

    def tensors(self) -> dict[str, ParamSpec]:
        """The op's parameters and buffers by full name (`stages.0.blocks.0.mlp.fc1.weight`)."""
        return {self.tensor_name(key): tensor for key, tensor in self.op.tensors().items()}

    def __repr__(self) -> str:
        return f"%{self.path}: {self.type}"


Value = Node


@dataclass(frozen=True)
class Input(Op):
    """A value that comes from outside: the images."""

    identity = "Input(type)"
    onnx_tool_free = True
    fp32_island = True

    type: TensorType

    def infer(self, *inputs: TensorType) -> TensorType:
        return self.type


@dataclass
class Graph:
    """A network. `nodes` is in topological order by construction.

    name:    the spec's
    nodes:   all nodes, live or not
    outputs: the results of the network by name; the first is the one that is judged
    training_outputs: names of those that only training reads
    notes:   where lowering differs from the spec, as (path, sentence), e.g. a window that was clamped to the map

    Example:
        >>> from archdsl.ir.types import TensorType
        >>> from archdsl.ops import Linear
        >>> g = Graph()
        >>> x = g.input("x", TensorType((4, 8)))
        >>> g.output("y", g.add(Linear(8, 2), x, path="fc"))
        >>> g.cost().params, len(g.live())
        (18, 2)
    """

    name: str = "network"
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Node] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    training_outputs: set[str] = field(default_factory=set)
    _paths: set[str] = field(default_factory=set, repr=False)
    _known: dict[str, tuple[object, Any]] = field(default_factory=dict, repr=False)

    @property
    def inputs(self) -> list[Node]:
        """The nodes whose values come from outside, in the order in which they were added."""
        return [node for node in self.nodes if isinstance(node.op, Input)]

    def input(self, name: str, type: TensorType) -> Value:
        """Add an input of the network."""
        return self.add(Input(type), path=name)

    def add(self, op: Op, *inputs: Value, path: str) -> Value:
        """Add `op` and return its value. The path is made unique by a number when it is taken.

        Raises: RuleBroken when the inputs break the op's type rule.
        """
        type = op.infer(*[x.type for x in inputs])
        if path in self._paths:
            path = self._free(path)
        self._paths.add(path)
        node = Node(op, inputs, type, path)
        self.nodes.append(node)
        return node

    def output(self, name: str, value: Value, *, training: bool = False) -> None:
        """Name `value` as a result of the network. training: one that only training reads"""
        self.outputs[name] = value
        if training:
            self.training_outputs.add(name)

    def inference(self) -> Graph:
        """The graph without the outputs that only training reads, and without what only they need."""
        if not self.training_outputs:
            return self
        kept = {name: node for name, node in self.outputs.items() if name not in self.training_outputs}
        return Graph(self.name, self.nodes, kept, list(self.notes)).without_dead_nodes()

    def live(self) -> list[Node]:
        """The nodes that some output needs, and the inputs, in topological order."""
        return list(self._once("live", self._find_live))

    def _find_live(self) -> list[Node]:
        needed: set[int] = set()
        stack = list(self.outputs.values())
        while stack:
            node = stack.pop()
            if id(node) not in needed:
                needed.add(id(node))
                stack.extend(node.inputs)
        return [node for node in self.nodes if id(node) in needed or isinstance(node.op, Input)]

    def users(self) -> dict[Node, list[Node]]:
        """For each live node, the live nodes that read it; one that reads it twice is listed twice."""
        found: dict[Node, list[Node]] = {node: [] for node in self.live()}
        for node in self.live():
            for x in node.inputs:
                found[x].append(node)
        return found

    def rebuild(self, make: Callable[[Graph, Node, tuple[Value, ...]], Value]) -> Graph:
        """A new graph in which `make(new_graph, node, new_inputs)` stands for each live node of this one."""
        new = Graph(self.name, notes=list(self.notes))
        made: dict[int, Value] = {}
        for node in self.live():
            made[id(node)] = make(new, node, tuple(made[id(x)] for x in node.inputs))
        for name, node in self.outputs.items():
            new.output(name, made[id(node)], training=name in self.training_outputs)
        return new.without_dead_nodes()

    def without_dead_nodes(self) -> Graph:
        """The same graph without nodes that nothing needs."""
        live = self.live()
        paths = {node.path for node in live}
        return Graph(self.name, live, dict(self.outputs), list(self.notes), set(self.training_outputs), _paths=paths)

    def cost(self) -> Cost:
        """The sum of all live nodes' costs, for one image."""
        return self._once("cost", lambda: total_cost(self.live()))

    def tensors(self) -> dict[str, ParamSpec]:
        """Every parameter and buffer of the live nodes by full name, in the order of the nodes."""
        return {name: tensor for node in self.live() for name, tensor in node.tensors().items()}

    def hash(self, *, training: bool = True) -> str:
        """The network's identity: equal for graphs that compute the same function by the same ops.

        Names do not count, only ops, fields, shapes, orders and wiring. With `training=False` ops that do nothing at
        inference (dropout, drop path; outputs that only training reads) do not count either: what a latency depends on.
        """
        if not training and self.training_outputs:
            return self.inference().hash(training=False)
        numbers: dict[int, str] = {}
        lines: list[str] = []
        for node in _from_outputs(self):
            if node.op.train_only and not training:
                numbers[id(node)] = numbers[id(node.inputs[0])]
                continue
            number = numbers[id(node)] = str(len(lines))
            wires = ",".join([numbers[id(x)] for x in node.inputs])
            lines.append(f"{number}={node.op.identity_text()}({wires}):{node.type.dtype}")
        lines.append(",".join([f"{name}={numbers[id(node)]}" for name, node in sorted(self.outputs.items())]))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    def index(self) -> networkx.MultiDiGraph[str]:
        """The graph for networkx: a node for each path (attribute `node`), an edge for each input (its position)."""
        import networkx

        graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(name=self.name)
        for node in self.live():
            graph.add_node(node.path, node=node)
            for position, x in enumerate(node.inputs):
                graph.add_edge(x.path, node.path, position=position)
        return graph

    def text(self) -> str:
        """One line a node: path, type, op and what it reads."""
        lines = []
        for node in self.live():
            if isinstance(node.op, Input):
                lines.append(f"{node.path}: {node.type}")
            else:
                reads = ", ".join(x.path for x in node.inputs)
                lines.append(f"{node.path}: {node.type} = {node.op}" + (f" <- {reads}" if reads else ""))
        lines.extend(f"return {name} = {node.path}" for name, node in self.outputs.items())
        return "\n".join(lines)

    def _once(self, name: str, find: Callable[[], T]) -> T:
        """What `find` finds, found again only after the graph has grown or its outputs have changed."""
        state = (len(self.nodes), *self.outputs.values())
        known = self._known.get(name)
        if known is None or known[0] != state:
            known = self._known[name] = (state, find())
        found: T = known[1]
        return found

    def _free(self, path: str) -> str:
        number = 1
        while f"{path}_{number}" in self._paths:
            number += 1
        return f"{path}_{number}"


def total_cost(nodes: Iterable[Node]) -> Cost:
    """The sum of the nodes' costs, for one image."""
    costs = [node.cost() for node in nodes]
    fields = [(cost.macs, cost.params, cost.constants, cost.bytes_read, cost.bytes_written) for cost in costs]
    return Cost(*map(sum, zip(*fields, strict=True)))


def _from_outputs(graph: Graph) -> list[Node]:
    """Live nodes, inputs before users, in an order that depends on the wiring alone (not on when nodes were added)."""
    seen: set[int] = set()
    found: list[Node] = []
    for _, output in sorted(graph.outputs.items()):
        stack: list[Node | None] = [output]
        while stack:
            node = stack.pop()
            if node is None:  # all inputs of the node below are found
                node = stack.pop()
                assert node is not None
                found.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                stack += (node, None, *node.inputs[::-1])
    return found


@dataclass(frozen=True)
class Scope:
    """A place in a graph where a part writes its nodes: every path it adds starts with `prefix`.

    regular: whether steps that do nothing (`add_unless`) are written too, so that all blocks of a kind have one form
    """

    graph: Graph
    prefix: str = ""
    regular: bool = False

    def add(self, op: Op, *inputs: Value, name: str | None = None) -> Value:
        """Add a node called `name` (by default the op's name in lower case) in this scope."""
        last = name if name is not None else type(op).__name__.lower()
        return self.graph.add(op, *inputs, path=f"{self.prefix}.{last}" if self.prefix else last)

    def add_unless(self, idle: bool, op: Op, *inputs: Value, name: str | None = None) -> Value:
        """`add`, or the first input where the op does nothing (`idle`) and the graph is not written in regular form."""
        return inputs[0] if idle and not self.regular else self.add(op, *inputs, name=name)

    def note(self, sentence: str) -> None:
        """Say that the graph differs here from what the spec says, for `archdsl show`."""
        self.graph.notes.append((self.prefix, sentence))

    def at(self, name: str) -> Scope:
        """The scope `name` inside this one."""
        return Scope(self.graph, f"{self.prefix}.{name}" if self.prefix else name, self.regular)


def broken(error: RuleBroken, place: Place, path: str) -> ShapeError:
    """A broken rule, with the place that the op or block could not know."""
    return ShapeError(Problem(place, error.rule, error.message, error.hint, path))
