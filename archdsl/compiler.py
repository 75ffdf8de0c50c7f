"""Spec -> graph -> passes -> backend.

A network has two forms. The *train* form is the reference's: its tensors have the reference's names and numbers, and it
learns. The *deploy* form takes the weights and may rewrite them, for inference alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archdsl.backends import backend
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Graph
from archdsl.passes.network import Network
from archdsl.passes.onnx_tool import onnx_tool_flops, onnx_tool_params
from archdsl.passes.runner import Pass, run_passes
from archdsl.passes.settle_reorders import settle
from archdsl.spec.load import load
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec

if TYPE_CHECKING:
    from torch import fx

AnySpec = Spec | str | os.PathLike[str]
"""A spec, or the name or path of one."""

TRAINING: tuple[Pass, ...] = (settle,)


@dataclass(frozen=True)
class SpecCost:
    """What one image costs, by the usual convention (`ir.op.Cost`) and by Swin-Free's (`passes.onnx_tool`).

    onnx_tool_flops is None for networks with ops that convention does not define.
    """

    params: int
    macs: int
    constants: int
    bytes_read: int
    bytes_written: int
    onnx_tool_flops: int | None
    onnx_tool_params: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compile(spec: AnySpec) -> Graph:
    """The graph of a spec in its train form, ready for a backend."""
    return run_passes(Network(lower(as_spec(spec))), TRAINING)[0].graph


def deploy(
    spec: AnySpec,
    weights: Mapping[str, Any] | None = None,
    *,
    precision: str = "fp32",
    keep: Set[str] | None = None,
    seed: int = 0,
) -> Network:
    """The graph of a spec in its deploy form, and its numbers: norms folded, constants computed, formats set.

    weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
    precision: fp32, fp16 or bf16; of int8, which a backend makes from fp32, the fp32 network
    keep: paths of nodes that stay fp32; by default, for fp16, those whose values come near the end of its range

    Errors: WeightsError when a tensor is missing or has another shape
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
    from archdsl.passes.deployment import DEPLOYMENT
    from archdsl.passes.set_precision import in_dtype

    dtype = precision_named(precision).dtype
    if weights is None:
        weights = initial_weights(graph, seed)
    else:
        check_weights(graph, weights)
    numbers = as_arrays({name: weights[name] for name in graph.tensors()})
    network = run_passes(Network(graph, numbers), DEPLOYMENT)[0]
    if strange := sorted((keep or frozenset()) - {node.path for node in network.graph.live()}):
        message = f"the deployed network has no node {', '.join(map(repr, strange))}"
        hint = "`archdsl.deploy(spec, weights).graph.text()` shows its nodes"
        raise BackendError(Problem(at_argument("keep", strange[0]), "unknown-name", message, hint))
    if dtype == "f32":
        return network
    if keep is None and dtype == "f16":
        from archdsl.backends.torch.ranges import beyond_fp16

        keep = beyond_fp16(network)
    return run_passes(network, [in_dtype(dtype, keep or frozenset())])[0]


def cost(spec: AnySpec) -> SpecCost:
    """Parameters, MACs, constants and bytes of a spec, for one image. Needs no torch."""
    graph = lower(as_spec(spec))
    usual = graph.cost()
    return SpecCost(**asdict(usual), onnx_tool_flops=onnx_tool_flops(graph), onnx_tool_params=onnx_tool_params(graph))


def identity(spec: AnySpec, *, training: bool = True) -> str:
    """The canonical hash: equal for specs that are the same network, whatever they are called and however written."""
    return lower(as_spec(spec)).hash(training=training)


def build(
    spec: AnySpec,
    weights: Mapping[str, Any] | None = None,
    *,
    deploy: bool = False,
    precision: str = "fp32",
    seed: int = 0,
) -> fx.GraphModule:
    """A PyTorch module of the spec: images [B, C, H, W] -> logits [B, classes].

    weights: a state dict by archdsl's names (see `import_weights`); by default the initial weights of `seed`
    deploy: the deploy form, for inference alone; its state dict is its own, and in eval mode
    precision: of the deploy form: fp32, fp16 or bf16

    Errors: WeightsError when a tensor is missing or has another shape; BackendError for int8, which is ONNX only
    """
    if precision == "int8":
        message, hint = "int8 is made as ONNX only, not as a PyTorch module", "use export_onnx with images"
        raise BackendError(Problem(at_argument("--precision", precision), "wrong-value", message, hint))
    torch_fx = backend("torch")
    module: fx.GraphModule
    if deploy:
        network = _deployed(spec, weights, precision=precision, seed=seed)
        module = torch_fx.emit(network.graph, network.weights, deploy=True)
    else:
        _only_deployed(precision)
        module = torch_fx.emit(compile(spec), weights, seed=seed)
    return module


def export_onnx(
    spec: AnySpec,
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | None = None,
    deploy: bool = True,
    precision: str = "fp32",
    *,
    batch: int | None = 1,
    runtime: str | None = None,
    images: Any | None = None,
    seed: int = 0,
) -> None:
    """Write the spec as an ONNX model, which says in its metadata what it is. The file appears whole or not at all.

    deploy: the deploy form; else the train form, whose initializers are the state dict
    precision: of the deploy form: fp32, fp16, bf16 or int8
    batch: images at once; None leaves the batch axis dynamic (static shapes run faster on most runtimes)
    runtime: which one the file is for (`onnxruntime`, `openvino`): the deploy form, but for int8, is written as was
        measured to be fastest there, and runs elsewhere too; by default in the plain form that all fusers look for
    images: [N, C, H, W], real ones, from which int8 takes its ranges
    """
    from archdsl.backends.onnx.dialects import DIALECTS, PLAIN

    if runtime is not None and runtime not in DIALECTS:
        message, hint = f"no ONNX dialect was measured for {runtime!r}", f"one of {', '.join(DIALECTS)}, or none"
        raise BackendError(Problem(at_argument("runtime", runtime), "unknown-name", message, hint))
    spec, onnx = as_spec(spec), backend("onnx")
    metadata = {
        "spec_yaml": spec.to_yaml(),
        "identity": identity(spec),
        "form": "deploy" if deploy else "train",
        "precision": precision,
    }
    if precision == "int8":
        if not deploy or images is None:
            message = "int8 needs the deploy form and real images to take its ranges from"
            raise BackendError(Problem(at_argument("--precision", precision), "missing-key", message, "give images"))
        _export_int8(_deployed(spec, weights, seed=seed), path, images, batch, metadata)
    elif deploy:
        network = _deployed(spec, weights, precision=precision, seed=seed)
        dialect = DIALECTS[runtime] if runtime else PLAIN
        onnx.save(network.graph, path, network.weights, batch=batch, dialect=dialect, metadata=metadata)
    else:
        _only_deployed(precision)
        onnx.save(compile(spec), path, weights, batch=batch, seed=seed, metadata=metadata)


def _export_int8(
    network: Network, path: str | os.PathLike[str], images: Any, batch: int | None, metadata: Mapping[str, str]
) -> None:
    import numpy as np

    from archdsl.backends.onnx.int8 import quantize

    size = batch or 1
    filled = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))  # the last batch repeats images
    with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
        fp32 = os.path.join(folder, "fp32.onnx")
        backend("onnx").save(network.graph, fp32, network.weights, batch=batch, metadata=metadata)
        quantize(fp32, path, [filled[start : start + size] for start in range(0, len(filled), size)])


_deployed = deploy  # under another name where a parameter is called `deploy`


def _only_deployed(precision: str) -> None:
    """Errors: BackendError unless the precision is that of the train form."""
    if precision != "fp32":
        message = f"the train form is fp32, so {precision} needs the deploy form"
        raise BackendError(Problem(at_argument("--precision", precision), "wrong-value", message, "use deploy=True"))


def as_spec(spec: AnySpec) -> Spec:
    """`spec` itself, or the one that its name or path leads to."""
    return spec if isinstance(spec, Spec) else load(spec)
