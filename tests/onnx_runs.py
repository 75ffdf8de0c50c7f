"""Checking and running the ONNX backend's models in tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from archdsl.backends.onnx.dialects import PLAIN
from archdsl.backends.onnx.model import emit, serialize
from archdsl.ir.graph import Graph, Input

UNWANTED = {"Shape", "If", "Loop", "Scan", "NonZero", "Mod", "Where", "Expand"}
"""Ops that make runtimes slow or fail, and that no network here needs."""


def random_weights(g: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor random, position tables, norms and running statistics too; variances positive."""
    draw = np.random.default_rng(seed)
    weights = {}
    for name, tensor in g.tensors().items():
        x = draw.standard_normal(tensor.shape, dtype=np.float32)
        last = name.rpartition(".")[2]
        if last == "running_var":
            x = np.abs(x) + np.float32(0.5)
        elif last == "weight" and len(tensor.shape) >= 2:
            x *= np.float32((tensor.size / tensor.shape[0]) ** -0.5)
        elif last == "weight":
            x = 1 + x * np.float32(0.2)
        weights[name] = x
    return weights


def checked(g: Graph, weights: Mapping[str, np.ndarray] | None = None, **how: Any) -> ir.Model:
    """Emit `g`, and hold the model to everything that must be true of every model."""
    model = emit(g, weights, **how)
    data = serialize(model)
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        sides = list(value.type.tensor_type.shape.dim)
        if "batch" not in how:  # windows may have joined a batch of unknown size
            del sides[0:1]
        unknown = [d for d in sides if not d.dim_value]
        assert not unknown, f"{value.name} has a side of unknown size"
    _agrees_with_the_graph(inferred, g, how.get("batch") if how.get("dialect", PLAIN).tokens == "rows" else None)

    graph = proto.graph
    assert [(o.domain, o.version) for o in proto.opset_import] == [
        ("", how.get("opset", how.get("dialect", PLAIN).opset_for()))
    ]
    assert not {node.op_type for node in graph.node} & UNWANTED
    names = Counter([v.name for v in graph.input] + [t.name for t in graph.initializer])
    names.update(name for node in graph.node for name in node.output)
    assert max(names.values()) == 1
    assert max(Counter(node.name for node in graph.node).values(), default=1) == 1
    used = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    assert {t.name for t in graph.initializer} <= used, "an initializer that nothing reads"
    assert serialize(emit(g, weights, **how)) == data, "two emissions differ"
    return model


def _agrees_with_the_graph(inferred: onnx.ModelProto, g: Graph, rows: int | None) -> None:
    """What ONNX infers without our help is what the graph's types say; tokens as `rows` images in one matrix."""
    bare = onnx.ModelProto()
    bare.CopyFrom(inferred)
    del bare.graph.value_info[:]
    bare = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    found = {v.name: [d.dim_value or None for d in v.type.tensor_type.shape.dim] for v in bare.graph.value_info}
    for node in g.live():
        if node.path in found:
            own = [*([found[node.path][0]] if node.type.batched else []), *node.type.shape]
            if rows and node.type.batched and len(node.type.shape) == 2 and not isinstance(node.op, Input):
                own = [rows * node.type.tokens, node.type.channels]
            assert found[node.path] == own, node.path


def forms(model: ir.Model) -> list[str]:
    """The types of the model's nodes in order."""
    return [node.op_type for node in model.graph]


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model | onnxruntime.InferenceSession, *xs: np.ndarray) -> list[np.ndarray]:
    """The outputs of the model for inputs in the order of the model's."""
    runs = model if isinstance(model, onnxruntime.InferenceSession) else session(model)
    return runs.run(None, dict(zip([x.name for x in runs.get_inputs()], xs, strict=True)))
