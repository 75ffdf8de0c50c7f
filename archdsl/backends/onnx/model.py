"""Graph -> ONNX, written directly from the graph: no tracing, no torch, tenths of a second.

Only the default domain, by default opset 20: the first that has both LayerNormalization (since 17) and Gelu (since 20)
as single ops, which runtimes recognise; ONNX Runtime takes it since 1.17, TensorRT since 10. For consumers that do not,
older ones from 13 on are written with what they lack in primitives (`opsets`). bfloat16 convolutions need 22.
The batch axis is dynamic unless a size is given, and comes first everywhere, so nothing is baked for one batch size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnx_ir as ir

from archdsl.backends.emitters import no_emitter
from archdsl.backends.initial import Array, check_weights, initial_weights
from archdsl.backends.onnx.dialects import PLAIN, Dialect
from archdsl.backends.onnx.emitters import EMITTERS
from archdsl.backends.onnx.file import serialize, write
from archdsl.backends.onnx.graph import Emission, Operand
from archdsl.backends.onnx.opsets import ir_version, opset_problem
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.op import Op
from archdsl.ops.attention import Attention
from archdsl.ops.tokens import MergeGroups
from archdsl.passes.network import Network
from archdsl.passes.runner import run_passes
from archdsl.passes.uses import splits_of
from archdsl.versions import installed_version

__all__ = ["EMITTERS", "emit", "save", "serialize", "write"]


def emit(
    graph: Graph,
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    dialect: Dialect = PLAIN,
    metadata: Mapping[str, str] | None = None,
) -> ir.Model:
    """The network as an ONNX model in memory: `write` puts it on disk, `serialize` gives its bytes.

    weights: arrays by parameter path, used without a copy; by default the initial weights of `seed`
    opset: 13 to the newest that onnx knows; by default `Dialect.opset_for`
    batch: the size of the batch axis; None leaves it dynamic
    dialect: the forms to use where runtimes differ (`backends.onnx.dialects`)
    metadata: entries of the model's metadata beside the graph's name and hash and archdsl's version
    Raises: WeightsError when a tensor is missing or has another shape; BackendError for an opset or op it cannot emit
    """
    bf16 = any(node.type.dtype == "bf16" for node in graph.live())
    if opset is None:
        opset = dialect.opset_for(bf16=bf16)
    if problem := opset_problem(opset, bf16=bf16):
        raise BackendError.at("--opset", str(opset), "out-of-range", *problem)
    if weights is None:
        weights = initial_weights(graph, seed)
    else:
        check_weights(graph, weights)

    graph_hash = graph.hash(training=False)
    network = run_passes(Network(graph, weights), dialect.passes(batch))[0]
    graph, weights = network.graph, network.weights

    e = Emission(weights, batch, dialect, opset, splits=splits_of(graph))
    values: dict[int, Operand] = {}
    for node in graph.live():
        values[id(node)] = _emit_node(e, node, [values[id(x)] for x in node.inputs])

    outputs: list[ir.Value] = []
    for name, node in graph.outputs.items():
        e.node = node
        outputs.append(_output(e, e.value(_read(e, node, values[id(node)], rows=False)), name, outputs))
    inputs = [e.value(values[id(node)]) for node in graph.inputs]
    version = installed_version("archdsl") or "unknown"
    model = ir.Model(
        ir.Graph(
            inputs,
            outputs,
            nodes=e.nodes,
            initializers=list(e.initializers.values()),
            opset_imports={"": opset},
            name=graph.name,
        ),
        ir_version=ir_version(opset),
        producer_name="archdsl",
        producer_version=version,
    )
    model.metadata_props.update(spec=graph.name, graph_hash=graph_hash, archdsl_version=version)
    model.metadata_props.update(metadata or {})
    return model


def save(
    graph: Graph,
    path: str | os.PathLike[str],
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    dialect: Dialect = PLAIN,
    metadata: Mapping[str, str] | None = None,
    synced: bool = True,
) -> None:
    """`emit` the network and write it to `path`, whole or not at all (see `file.write`)."""
    model = emit(graph, weights, opset=opset, batch=batch, seed=seed, dialect=dialect, metadata=metadata)
    write(model, path, synced=synced)


def _emit_node(e: Emission, node: Node, inputs: list[Operand]) -> Operand:
    """Emit one node; the ONNX value that stands for it gets its path and its type."""
    if type(node.op) not in EMITTERS:
        raise no_emitter("onnx", node)
    e.node = node
    before = len(e.nodes)
    inputs = [_read(e, x, value, rows=_works_on_rows(node.op)) for x, value in zip(node.inputs, inputs, strict=True)]
    value: Operand = EMITTERS[type(node.op)](e, node.op, *inputs)
    rows = e.has_rows(node.type) and not isinstance(node.op, Input)
    if rows and not _works_on_rows(node.op):
        value = e.as_rows(value, node.type)
    if isinstance(value, ir.Value):
        maker = value.producer()
        if any(made is maker for made in e.nodes[before:]) and len(maker.outputs) == 1:
            maker.name = node.path
        if isinstance(node.op, Input) or (maker is not None and value.shape is None):
            e.typed(value, node.type, _value_name(node))
            if rows:
                value.shape = ir.Shape([(e.batch or 1) * node.type.tokens, node.type.channels])
    return value


def _works_on_rows(op: Op) -> bool:
    """Whether the op's emitter takes tokens as [B * N, C] too: it treats each token alike, or it is attention."""
    return isinstance(op, Attention) or (
        op.order_rule in ("tokenwise", "channelwise", "elementwise") and not isinstance(op, MergeGroups)
    )


def _read(e: Emission, node: Node, value: Operand, *, rows: bool) -> Operand:
    """The value of `node` as rows, [B * N, C], or image by image, [B, N, C], where the dialect tells them apart."""
    has_rows = not isinstance(node.op, Input)
    if not e.has_rows(node.type) or rows == has_rows:
        return value
    return e.as_rows(value, node.type) if rows else e.as_images(value, node.type)


def _value_name(node: Node) -> str:
    """The node's path, unless a tensor of the node has that name."""
    return f"{node.path}/out" if "" in node.op.tensors() else node.path


def _output(e: Emission, value: ir.Value, name: str, others: list[ir.Value]) -> ir.Value:
    """`value` as the output called `name`: renamed if it may be, else copied."""
    if value.producer() is None or any(value is other for other in others):
        value = e.op("Identity", value)
        e.typed(value, e.node.type, name)
    for made in (made for node in e.nodes for made in node.outputs):
        if made.name == name:
            made.name = f"{name}/out"
    if value.shape is None:
        e.typed(value, e.node.type, name)
    value.name = name
    return value
