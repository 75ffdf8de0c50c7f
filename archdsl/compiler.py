"""Spec -> graph -> passes -> backend.

A network has two forms. The *train* form is the reference's: its tensors have the reference's names and numbers, and it
learns. The *deploy* form takes the weights and may rewrite them, for inference alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archdsl.backends import backend
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph
from archdsl.json_fields import JsonFields
from archdsl.language.architecture.backbone import backbone_of
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.passes.network import Network
from archdsl.passes.onnx_tool import onnx_tool_flops, onnx_tool_params
from archdsl.passes.runner import run_passes

if TYPE_CHECKING:
    from torch import fx

    from archdsl.backends.torch.feature_maps import FeatureModule

AnySpec = Spec | str | os.PathLike[str]
"""A spec, or the name or path of one."""


@dataclass(frozen=True)
class SpecCost(JsonFields):
    """What one image costs, by the usual convention (`ir.op.Cost`) and by Swin-Free's (`passes.onnx_tool`).

    All are of the network at inference, as specified (before any deploy pass), but for `params` and `training_macs`,
    which count what only training reads too.
    onnx_tool_flops is None for networks with ops that convention does not define.
    """

    params: int
    inference_params: int
    macs: int
    training_macs: int
    constants: int
    bytes_read: int
    bytes_written: int
    onnx_tool_flops: int | None
    onnx_tool_params: int


def compile(spec: AnySpec, *, training: bool = False) -> Graph:
    """The graph of a spec in its train form, ready for a backend.

    Args:
        spec: a spec, or the name or path of one
        training: with the outputs that only training reads
    Returns: the lowered graph after the passes of `TRAINING`; its tensors have the reference's names and shapes
    Raises: SpecError for a wrong spec, ShapeError when its parts do not fit
    Example:
        >>> import archdsl
        >>> graph = archdsl.compile("swin_t")
        >>> str(graph.outputs["logits"].type)
        'f32[B, 1000]'
    """
    from archdsl.passes.pipelines import TRAINING  # here, so that `check` loads no pass

    graph = lower(as_spec(spec))
    return run_passes(Network(graph if training else graph.inference()), TRAINING)[0].graph


def deploy(
    spec: AnySpec,
    weights: Mapping[str, Any] | None = None,
    *,
    precision: str = "fp32",
    keep: Set[str] | None = None,
    seed: int = 0,
) -> Network:
    """The graph of a spec in its deploy form, and its numbers: norms folded, constants computed, formats set.

    Args:
        spec: a spec, or the name or path of one
        weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
        precision: fp32, fp16 or bf16; a quantized one gives the network that a backend quantizes: int8 the fp32 one,
            int8-weights and fp8 the fp16 one
        keep: paths of nodes that stay fp32; by default, for fp16, those whose values come near the end of its range
        seed: of the initial weights
    Returns: the graph, and its tensors as NumPy arrays by their names
    Raises: WeightsError when a tensor is missing or has another shape; BackendError for an unknown precision or node
    Example:
        >>> import archdsl
        >>> network = archdsl.deploy("micro_swin_free_br", precision="fp16")
        >>> any("norm" in node.path for node in network.graph.live())  # batch norms are folded
        False
    """
    return deploy_graph(lower(as_spec(spec)), weights, precision=precision, keep=keep, seed=seed)


def deploy_graph(
    graph: Graph,
    weights: Mapping[str, Any] | None = None,
    *,
    precision: str = "fp32",
    keep: Set[str] | None = None,
    seed: int = 0,
) -> Network:
    """`deploy` for a graph that came from elsewhere, such as a segment of a network."""
    from archdsl.backends.initial import as_arrays, check_weights, initial_weights
    from archdsl.backends.precision import precision_named
    from archdsl.passes import pipelines

    dtype = precision_named(precision).dtype
    if weights is None:
        weights = initial_weights(graph, seed)
    else:
        weights = _for_inference(graph, weights)
        check_weights(graph.inference(), weights)
    graph = graph.inference()
    numbers = as_arrays({name: weights[name] for name in graph.tensors()})
    network = run_passes(Network(graph, numbers), pipelines.DEPLOYMENT)[0]
    if strange := sorted((keep or frozenset()) - {node.path for node in network.graph.live()}):
        message = f"the deployed network has no node {', '.join(map(repr, strange))}"
        hint = "`archdsl.deploy(spec, weights).graph.text()` shows its nodes"
        raise BackendError.at("keep", strange[0], "unknown-name", message, hint)
    if dtype == "f32":
        return network
    if keep is None and dtype == "f16":
        from archdsl.backends.torch.ranges import beyond_fp16

        keep = beyond_fp16(network)
    return run_passes(network, pipelines.precision(dtype, keep or frozenset()))[0]


def cost(spec: AnySpec) -> SpecCost:
    """Parameters, MACs, constants and bytes of a spec, for one image. Needs no torch.

    Args:
        spec: a spec, or the name or path of one
    Returns: counts (a multiply-add is one MAC) and bytes (fp32 activations and parameters)
    Raises: SpecError for a wrong spec, ShapeError when its parts do not fit
    Example:
        >>> import archdsl
        >>> archdsl.cost("swin_t").params, archdsl.cost("swin_t").macs
        (28288354, 4490566656)
    """
    graph = lower(as_spec(spec))
    whole, inference = graph.cost(), graph.inference()
    usual = inference.cost()
    return SpecCost(
        **asdict(usual) | {"params": whole.params},
        inference_params=usual.params,
        training_macs=whole.macs,
        onnx_tool_flops=onnx_tool_flops(inference),
        onnx_tool_params=onnx_tool_params(inference),
    )


def identity(spec: AnySpec, *, training: bool = True) -> str:
    """The canonical hash of a network: equal for specs that lower to the same graph, whatever their names and text.

    Args:
        spec: a spec, or the name or path of one
        training: also distinguish networks that differ only in training (dropout, drop path)
    Returns: a hexadecimal digest
    Raises: SpecError for a wrong spec, ShapeError when its parts do not fit
    Example:
        >>> import archdsl
        >>> renamed = archdsl.load("swin_t", set={"name": "my_net"})
        >>> archdsl.identity(renamed) == archdsl.identity("swin_t")
        True
    """
    return lower(as_spec(spec)).hash(training=training)


def build(
    spec: AnySpec,
    weights: Mapping[str, Any] | None = None,
    *,
    deploy: bool = False,
    training: bool = False,
    precision: str = "fp32",
    seed: int = 0,
) -> fx.GraphModule:
    """A PyTorch module of the spec: images [B, C, H, W] -> logits [B, classes], of a segmenter [B, classes, H, W].

    A network of several outputs gives a mapping of them by name.

    Args:
        spec: a spec, or the name or path of one
        weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
        deploy: the deploy form, for inference alone; it has a state dict of its own and is in eval mode
        training: with the outputs that only training reads: a network that has any gives a mapping, output by name,
            `logits` first. The state dict is the same where inference needs all weights
        precision: of the deploy form: fp32, fp16 or bf16. Inputs and outputs are fp32
        seed: of the initial weights
    Raises: WeightsError when a tensor is missing or has another shape; BackendError for a quantized precision, which is
        ONNX only
    Example:
        >>> import archdsl, torch
        >>> module = archdsl.build("micro_swin")
        >>> module(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 12])
    """
    from archdsl.backends.precision import precision_named

    if precision_named(precision).quantized:
        message, hint = f"{precision} is made as ONNX only, not as a PyTorch module", "use export_onnx"
        raise BackendError.at("--precision", precision, "wrong-value", message, hint)
    torch_fx = backend("torch")
    module: fx.GraphModule
    if deploy:
        network = _deployed(spec, weights, precision=precision, seed=seed)
        module = torch_fx.emit(network.graph, network.weights, deploy=True)
    else:
        _only_deployed(precision)
        module = torch_fx.emit(compile(spec, training=training), _of_form(spec, weights, training), seed=seed)
    return module


def features(
    spec: AnySpec, out: Sequence[str] | None = None, weights: Mapping[str, Any] | None = None, *, seed: int = 0
) -> FeatureModule:
    """The backbone of a spec as a PyTorch module: images [B, C, H, W] -> a list of feature maps, finest first.

    Every map is planes [B, channels, height, width]. `feature_info` says their names, channels and strides.

    Args:
        spec: a spec, or the name or path of one
        out: the parts that make the maps: `stem`, a stage (`stages.2`), a block (`stages.2.blocks.5`); by default what
            the spec says under `features`, or every stage
        weights: a state dict by archdsl's names, of the backbone or of the whole network; by default the initial
            weights of `seed`
        seed: of the initial weights
    Raises: SpecError for a part that is not there, ShapeError where a part makes no map; WeightsError
    Example:
        >>> import archdsl, torch
        >>> backbone = archdsl.features("micro_swin")
        >>> backbone.feature_info.channels(), backbone.feature_info.reduction()
        ([32, 64], [4, 8])
        >>> [list(each.shape) for each in backbone(torch.zeros(2, 3, 32, 32))]
        [[2, 32, 8, 8], [2, 64, 4, 4]]
    """
    from archdsl.backends.torch.feature_maps import as_features

    given = as_spec(spec)
    graph = compile(backbone_of(given, out))
    if weights is not None:
        weights = _without(weights, lower(given).tensors().keys() - graph.tensors().keys())
    return as_features(backend("torch").emit(graph, weights, seed=seed), graph)


def export_onnx(
    spec: AnySpec,
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | None = None,
    deploy: bool = True,
    precision: str = "fp32",
    *,
    batch: int | None = 1,
    runtime: str | None = None,
    opset: int | None = None,
    images: Any | None = None,
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the spec as an ONNX model, with the spec and its identity as metadata. The file is replaced atomically.

    Args:
        spec: a spec, or the name or path of one
        path: of the file
        weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
        deploy: the deploy form; else the train form, whose initializers are the state dict, with all outputs by name
        precision: of the deploy form: fp32, fp16, bf16, int8, int8-weights or fp8
        batch: images at once; None leaves the batch axis dynamic (static shapes run faster on most runtimes)
        runtime: `onnxruntime`, `openvino` or `tensorrt-rtx`: writes the deploy form, but for int8, as was measured to
            be best there; it runs elsewhere too. By default the plain form that the fusers of all runtimes recognise
        opset: 13 to the newest that onnx knows; ops that it lacks are written in older ones. By default the oldest
            that lacks none: 20, for bf16 22, for the runtime onnxruntime 23
        images: real images, floats [N, C, H, W], from which int8 and fp8 take their ranges
        seed: of the initial weights
        metadata: further entries of the file's metadata
    Raises: WeightsError when a tensor is missing or has another shape; BackendError for an unknown runtime,
        opset or precision, a precision other than fp32 in the train form, or int8 or fp8 without images
    Example:
        >>> import archdsl, onnx, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     archdsl.export_onnx("micro_swin", path := os.path.join(folder, "model.onnx"))
        ...     [node.op_type for node in onnx.load(path).graph.node][:2]
        ['Conv', 'Reshape']
    """
    from archdsl.backends.onnx.dialects import DIALECTS, dialect_for
    from archdsl.backends.precision import precision_named

    if runtime is not None and runtime not in DIALECTS:
        message, hint = f"no ONNX dialect was measured for {runtime!r}", f"one of {', '.join(DIALECTS)}, or none"
        raise BackendError.at("runtime", runtime, "unknown-name", message, hint)
    spec, onnx = as_spec(spec), backend("onnx")
    metadata = {
        **(metadata or {}),
        "spec_yaml": spec.to_yaml(),
        "identity": identity(spec),
        "form": "deploy" if deploy else "train",
        "precision": precision,
    }
    if precision_named(precision).calibrated and (not deploy or images is None):
        message = f"{precision} needs the deploy form and real images to take its ranges from"
        raise BackendError.at("--precision", precision, "missing-key", message, "give images")
    if deploy:
        network = _deployed(spec, weights, precision=precision, seed=seed)
        dialect = dialect_for(runtime or "", precision)
        options: dict[str, Any] = {"opset": opset, "batch": batch, "dialect": dialect, "metadata": metadata}
        if precision_named(precision).quantized:
            _export_quantized(network, path, precision, images, options)
        else:
            onnx.save(network.graph, path, network.weights, **options)
    else:
        _only_deployed(precision)
        onnx.save(compile(spec, training=True), path, weights, opset=opset, batch=batch, seed=seed, metadata=metadata)


def _export_quantized(
    network: Network, path: str | os.PathLike[str], precision: str, images: Any, options: Mapping[str, Any]
) -> None:
    """Write the network as it is, and from that file the one with quantized linears."""
    import numpy as np

    from archdsl.backends.onnx.quantize.fp16_file import quantize_fp8, quantize_weights
    from archdsl.backends.onnx.quantize.int8 import quantize_int8

    with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
        whole = os.path.join(folder, "whole.onnx")
        backend("onnx").save(network.graph, whole, network.weights, **options)
        if precision == "int8-weights":
            quantize_weights(whole, path)
            return
        size = options["batch"] or 1
        filled = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))  # the last batch repeats images
        batches = [filled[start : start + size] for start in range(0, len(filled), size)]
        {"int8": quantize_int8, "fp8": quantize_fp8}[precision](whole, path, batches)


_deployed = deploy  # under another name where a parameter is called `deploy`


def _only_deployed(precision: str) -> None:
    """Errors: BackendError unless the precision is that of the train form."""
    if precision != "fp32":
        message = f"the train form is fp32, so {precision} needs the deploy form"
        raise BackendError.at("--precision", precision, "wrong-value", message, "use deploy=True")


def _of_form(spec: AnySpec, weights: Mapping[str, Any] | None, training: bool) -> Mapping[str, Any] | None:
    """A state dict without what only training reads, where that is left out."""
    return weights if weights is None or training else _for_inference(lower(as_spec(spec)), weights)


def _for_inference(graph: Graph, weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict without what only training reads, which it has whole or not at all. Errors: WeightsError"""
    if not graph.training_outputs:
        return weights
    from archdsl.backends.initial import check_weights

    left = graph.tensors().keys() - graph.inference().tensors().keys()
    if left & weights.keys():
        check_weights(graph, weights)
    return _without(weights, left)


def _without(weights: Mapping[str, Any], left: Set[str]) -> dict[str, Any]:
    """A state dict without these tensors, and without the step counters of batch norms among them."""
    counters = {f"{name.removesuffix('.running_var')}.num_batches_tracked" for name in left}
    return {name: value for name, value in weights.items() if name not in left and name not in counters}


def as_spec(spec: AnySpec) -> Spec:
    """`spec` itself, or the one that its name or path leads to."""
    return spec if isinstance(spec, Spec) else load(spec)
