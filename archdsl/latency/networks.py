"""A spec in the form that a target's runtime takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archdsl.backends import backend
from archdsl.backends.onnx.dialects import PLAIN, Dialect, dialect_for
from archdsl.compiler import compile, deploy, deploy_graph
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.ir.graph import Graph
from archdsl.latency.artefact import Artefact
from archdsl.latency.failure import failed
from archdsl.latency.runtimes import runtime
from archdsl.latency.stand_in import stand_in_weights
from archdsl.latency.target import Target
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.network import Network
from archdsl.passes.runner import run_passes
from archdsl.passes.segments import work_of
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec

Weights = Mapping[str, Any]

FORMS: dict[str, Callable[[Spec, Weights, str], Network]] = {
    "drawn": lambda spec, weights, precision: Network(lower(spec), weights),  # as in the paper, no pass has run
    "train": lambda spec, weights, precision: Network(compile(spec), weights),
    "deploy": lambda spec, weights, precision: deploy(spec, weights, precision=precision),
}
"""What a network can be looked at as, from first to last: each is a graph and its numbers.
Only the last can be in another precision than fp32."""


def network_of(
    spec: Spec,
    form: str = "deploy",
    weights: Weights | None = None,
    *,
    precision: str = "fp32",
    dialect: Dialect = PLAIN,
) -> Network:
    """`spec` in one of `FORMS`, in `precision`, rewritten as `dialect` asks.

    weights: by default numbers that stand in for trained ones
    Errors: BackendError for a form that is not deployed in another precision than fp32
    """
    if form != "deploy" and precision != "fp32":
        message, hint = f"the form {form} is fp32, so {precision} needs the deploy form", "use the deploy form"
        raise BackendError(Problem(at_argument("--precision", precision), "wrong-value", message, hint))
    network = FORMS[form](spec, stand_in_weights(lower(spec)) if weights is None else weights, precision)
    return run_passes(network, dialect.passes)[0]


def network_for(spec: Spec, target: Target, form: str = "deploy", weights: Weights | None = None) -> Network:
    """What `target`'s runtime is given to run: `network_of` in its precision, rewritten as is fastest there."""
    return network_of(spec, form, weights, precision=graph_precision(target), dialect=_dialect(form, target))


def graph_precision(target: Target) -> str:
    """The precision of the graph for `target`: fp32 for runtimes that are asked to compute in another one."""
    return target.precision if runtime(target.runtime).typed else "fp32"


def _dialect(form: str, target: Target) -> Dialect:
    """The ONNX dialect of a network for `target`: of a deployed one on a CPU the one measured to be fastest there.

    On GPUs nothing was measured, so networks are in the plain one.
    """
    return dialect_for(target.runtime) if form == "deploy" and target.device == "cpu" else PLAIN


def artefact_of(
    spec: Spec, target: Target, folder: Path, weights: Weights | None = None, *, form: str = "deploy"
) -> Artefact:
    """The network of `spec`, in one of `FORMS`, for `target`'s runtime and precision; files are written to `folder`.

    weights: by default numbers that stand in for trained ones; a runtime that takes specs always has those
    Errors: what building and writing raise; BackendError as `network_of`
    """
    kind = runtime(target.runtime).kinds[0]
    costs, graph = work_of(drop_train_only(compile(spec))), lower(spec)
    key, precision = graph.hash(training=False), graph_precision(target)
    path: Path | None = None
    if kind == "onnx":
        network = network_for(spec, target, form, weights)
        path = _write(network, target, folder, key, form)
    return Artefact(
        kind=kind,
        graph_hash=key,
        input_shape=graph.inputs[0].type.shape,
        path=path,
        text=spec.to_yaml() if kind == "spec" else None,
        name=spec.name,
        form=form,
        build=f"{form} {precision}",
        macs=costs.macs,
        bytes_moved=costs.bytes_read + costs.bytes_written,
        num_outputs=next(iter(graph.outputs.values())).type.channels,
    )


def artefact_of_graph(graph: Graph, target: Target, folder: Path, *, key: str, name: str, build: str) -> Artefact:
    """A graph in its train form, such as a segment of a network, deployed for `target` as whole networks are.

    key, build: what its timing is kept by: the identity of the work, and what it is part of
    Errors: MeasureError (`wrong-artefact`) for a runtime that takes specs only; what building and writing raise
    """
    kind = runtime(target.runtime).kinds[0]
    if kind == "spec":
        message = f"{target.runtime} is given whole specs, so a part of a network cannot be timed on it"
        raise failed("wrong-artefact", message, where=target.runtime, hint="predict for a runtime that takes ONNX")
    path: Path | None = None
    precision = graph_precision(target)
    if kind == "onnx":
        network = deploy_graph(graph, stand_in_weights(graph), precision=precision)
        network = run_passes(network, _dialect("deploy", target).passes)[0]
        path = _write(network, target, folder, key, build)
    costs, (start,), (end,) = work_of(graph), graph.inputs, graph.outputs.values()
    return Artefact(
        kind=kind,
        graph_hash=key,
        input_shape=start.type.shape,
        path=path,
        name=name,
        build=f"{build} {precision}",
        macs=costs.macs,
        bytes_moved=costs.bytes_read + costs.bytes_written,
        num_outputs=end.type.shape[-1],
    )


def _write(network: Network, target: Target, folder: Path, key: str, form: str) -> Path:
    """The network as an ONNX file for `target`, named by what tells files in one folder apart."""
    stem = f"{key}.{form}.{graph_precision(target)}.batch{target.batch}.{target.runtime}.{target.device}"
    path = folder / f"{stem}.onnx"
    dialect = _dialect(form if form in FORMS else "deploy", target)
    save = backend("onnx").save  # read at once and made again at will: no need to wait for the disk
    save(network.graph, path, network.weights, batch=target.batch, dialect=dialect, synced=False)
    return path
