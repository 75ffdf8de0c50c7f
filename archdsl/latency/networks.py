"""A spec in the form that a target's runtime takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archdsl.backends import backend
from archdsl.backends.onnx.dialects import PLAIN, Dialect, dialect_for
from archdsl.compiler import compile, cost, deploy
from archdsl.errors import BackendError, Problem, at_argument
from archdsl.latency.artefact import Artefact
from archdsl.latency.runtimes import runtime
from archdsl.latency.stand_in import stand_in_weights
from archdsl.latency.target import Target
from archdsl.passes.network import Network
from archdsl.passes.runner import run_passes
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
    costs, graph = cost(spec), lower(spec)
    key, precision = graph.hash(training=False), graph_precision(target)
    path: Path | None = None
    if kind == "onnx":
        dialect = _dialect(form, target)
        path = folder / f"{key}.{form}.{precision}.batch{target.batch}.{target.runtime}.{target.device}.onnx"
        network = network_for(spec, target, form, weights)
        backend("onnx").save(network.graph, path, network.weights, batch=target.batch, dialect=dialect)
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
