"""A spec in the form that a target's runtime takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archdsl.backends import backend
from archdsl.backends.onnx_forms import PLAIN, Forms, forms_for
from archdsl.compiler import compile, cost, deploy
from archdsl.latency.artefact import Artefact
from archdsl.latency.runtimes import runtime
from archdsl.latency.stand_in import stand_in_weights
from archdsl.latency.target import Target
from archdsl.passes.network import Network
from archdsl.passes.runner import run_passes
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec

Weights = Mapping[str, Any]

FORMS: dict[str, Callable[[Spec, Weights], Network]] = {
    "drawn": lambda spec, weights: Network(lower(spec), weights),  # as the paper draws it, no pass has run
    "compiled": lambda spec, weights: Network(compile(spec), weights),
    "deploy": deploy,
}
"""What a network can be looked at as, from first to last: each is a graph and its numbers."""


def network_of(
    spec: Spec, form: str = "deploy", weights: Weights | None = None, *, runtime_name: str | None = None
) -> Network:
    """`spec` in one of `FORMS`; to deploy on a known runtime, rewritten as is fastest there.

    weights: by default numbers that stand in for trained ones
    """
    network = FORMS[form](spec, stand_in_weights(lower(spec)) if weights is None else weights)
    return run_passes(network, forms_of(form, runtime_name).passes)[0]


def forms_of(form: str, runtime_name: str | None) -> Forms:
    """The ONNX forms of a network in one of `FORMS`: only a deployed one is written differently for each runtime."""
    return forms_for(runtime_name) if form == "deploy" and runtime_name else PLAIN


def artefact_of(
    spec: Spec, target: Target, folder: Path, weights: Weights | None = None, *, form: str = "deploy"
) -> Artefact:
    """The network of `spec`, in one of `FORMS`, for `target`'s runtime; files are written to `folder`.

    weights: by default numbers that stand in for trained ones; a runtime that takes specs always has those
    Errors: what building and writing raise
    """
    kind = runtime(target.runtime).kinds[0]
    costs, graph = cost(spec), lower(spec)
    key = graph.hash(training=False)
    path: Path | None = None
    if kind == "onnx":
        path = folder / f"{key}.{form}.batch{target.batch}.onnx"
        network = network_of(spec, form, weights, runtime_name=target.runtime)
        forms = forms_of(form, target.runtime)
        backend("onnx").save(network.graph, path, network.weights, batch=target.batch, forms=forms)
    return Artefact(
        kind=kind,
        graph_hash=key,
        input_shape=graph.inputs[0].type.shape,
        path=path,
        text=spec.to_yaml() if kind == "spec" else None,
        name=spec.name,
        build=form,
        macs=costs.macs,
        bytes_moved=costs.bytes_read + costs.bytes_written,
        num_outputs=next(iter(graph.outputs.values())).type.channels,
    )
