"""Export a spec, or a part of a network, to an artefact for a target's runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from archdsl.backends import backend
from archdsl.backends.onnx.dialects import PLAIN, Dialect, dialect_for
from archdsl.compiler import compile, deploy, deploy_graph
from archdsl.errors import BackendError
from archdsl.failures import failed
from archdsl.ir.graph import Graph
from archdsl.ir.op import Cost
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.network import Network
from archdsl.passes.runner import run_passes
from archdsl.passes.segments import work_of
from archdsl.runtimes.artefact import Artefact, OutputShape
from archdsl.runtimes.placeholder_weights import placeholder_weights
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target

Weights = Mapping[str, Any]


def _fitted(graph: Graph, weights: Weights) -> Network:
    return Network(graph).fitted(graph, weights)


FORMS: dict[str, Callable[[Spec, Weights, str], Network]] = {
    "drawn": lambda spec, weights, precision: _fitted(
        lower(spec).inference(), weights
    ),  # as in the paper, no pass has run
    "train": lambda spec, weights, precision: _fitted(compile(spec), weights),
    "deploy": lambda spec, weights, precision: deploy(spec, weights, precision=precision),
}
"""The stages of a network's graph, from first to last. Only the last can be in another precision than fp32."""


def network_of(
    spec: Spec,
    form: str = "deploy",
    weights: Weights | None = None,
    *,
    precision: str = "fp32",
    dialect: Dialect = PLAIN,
    batch: int | None = 1,
) -> Network:
    """The graph of a spec and its weights.

    Args: form: one of `FORMS`; weights: by default placeholder weights; dialect: whose rewrites are applied last, for
        so many images at once
    Raises: BackendError for another form than `deploy` in another precision than fp32
    """
    if form != "deploy" and precision != "fp32":
        message, hint = f"the form {form} is fp32, so {precision} needs the deploy form", "use the deploy form"
        raise BackendError.at("--precision", precision, "wrong-value", message, hint)
    network = FORMS[form](spec, placeholder_weights(lower(spec)) if weights is None else weights, precision)
    return run_passes(network, dialect.passes(batch))[0]


def network_for(spec: Spec, target: Target, form: str = "deploy", weights: Weights | None = None) -> Network:
    """What `target`'s runtime is given to run: `network_of` in its precision, rewritten as is fastest there."""
    dialect = _dialect(form, target)
    return network_of(spec, form, weights, precision=graph_precision(target), dialect=dialect, batch=target.batch)


def graph_precision(target: Target) -> str:
    """The precision of the graph for `target`: fp32 for runtimes that are asked to compute in another one."""
    return target.precision if runtime(target.runtime).typed else "fp32"


def _dialect(form: str, target: Target) -> Dialect:
    """The ONNX dialect of a deployed network for `target`: on a CPU the one measured to be fastest there, for a
    compiler that works ahead of time the one that it makes the best engines of.

    On other GPUs nothing was measured, so networks are in the plain one.
    """
    chosen = target.device == "cpu" or runtime(target.runtime).ahead_of_time
    return dialect_for(target.runtime) if form == "deploy" and chosen else PLAIN


def artefact_of(
    spec: Spec, target: Target, folder: Path, weights: Weights | None = None, *, form: str = "deploy"
) -> Artefact:
    """The network of a spec in the form that a target's runtime runs.

    Args:
        spec: the network; target: its runtime need not be installed
        folder: where files are written, if the runtime takes any
        weights: by default placeholder weights; a runtime that takes specs always has those
        form: one of `FORMS`
    Raises: BackendError as `network_of`; what building and writing raise
    Example:
        >>> import archdsl
        >>> artefact_of(archdsl.load("micro_swin"), Target("null"), Path(".")).build
        'deploy fp32'
    """
    graph, kind = lower(spec).inference(), runtime(target.runtime).kinds[0]
    key = graph.hash(training=False)
    made = _artefact(graph, work_of(drop_train_only(compile(spec))), target, key=key, name=spec.name, build=form)
    if kind == "onnx":
        path = _write(network_for(spec, target, form, weights), target, folder, key, form)
        return replace(made, kind=kind, form=form, path=path)
    return replace(made, kind=kind, form=form, text=spec.to_yaml() if kind == "spec" else None)


def artefact_of_graph(graph: Graph, target: Target, folder: Path, *, key: str, name: str, build: str) -> Artefact:
    """A graph in its train form, such as a segment of a network, deployed for `target` as whole networks are.

    key, build: of its timing in the cache: the identity of the work, and what it is part of
    Raises: MeasureError (`wrong-artefact`) for a runtime that takes specs only; what building and writing raise
    """
    kind = runtime(target.runtime).kinds[0]
    if kind == "spec":
        message = f"{target.runtime} is given whole specs, so a part of a network cannot be timed on it"
        raise failed("wrong-artefact", message, where=target.runtime, hint="predict for a runtime that takes ONNX")
    made = _artefact(graph, work_of(graph), target, key=key, name=name, build=build)
    if kind != "onnx":
        return replace(made, kind=kind)
    network = deploy_graph(graph, placeholder_weights(graph), precision=graph_precision(target))
    network = run_passes(network, _dialect("deploy", target).passes(target.batch))[0]
    return replace(made, kind=kind, path=_write(network, target, folder, key, build))


def _artefact(graph: Graph, work: Cost, target: Target, *, key: str, name: str, build: str) -> Artefact:
    """What artefacts of every kind share. work: of one image; build: without the precision"""
    return Artefact(
        kind="null",
        graph_hash=key,
        input_shape=graph.inputs[0].type.shape,
        name=name,
        build=f"{build} {graph_precision(target)}",
        macs=work.macs,
        bytes_moved=work.bytes_read + work.bytes_written,
        outputs=tuple(OutputShape(name, node.type.shape) for name, node in graph.outputs.items()),
    )


def _write(network: Network, target: Target, folder: Path, key: str, form: str) -> Path:
    """The network as an ONNX file for `target`, named by what tells files in one folder apart."""
    stem = f"{key}.{form}.{graph_precision(target)}.batch{target.batch}.{target.runtime}.{target.device}"
    path = folder / f"{stem}.onnx"
    dialect = _dialect(form if form in FORMS else "deploy", target)
    save = backend("onnx").save  # read at once and made again at will: no need to wait for the disk
    save(network.graph, path, network.weights, batch=target.batch, dialect=dialect, synced=False)
    return path
