"""A spec in the form that a target's runtime takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archdsl.compiler import cost, export_onnx, identity
from archdsl.latency.artefact import Artefact
from archdsl.latency.runtimes import runtime
from archdsl.latency.target import Target
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec


def artefact_of(spec: Spec, target: Target, folder: Path, weights: Mapping[str, Any] | None = None) -> Artefact:
    """The network of `spec` for `target`'s runtime; files are written to `folder`.

    weights: by default the seeded initial ones: a latency does not depend on them
    Errors: what building and writing raise
    """
    kind = runtime(target.runtime).kinds[0]
    key, costs, graph = identity(spec, training=False), cost(spec), lower(spec)
    path: Path | None = None
    if kind == "onnx":
        path = folder / f"{key}.onnx"
        export_onnx(spec, path, weights)
    return Artefact(
        kind=kind,
        graph_hash=key,
        input_shape=graph.inputs[0].type.shape,
        path=path,
        text=spec.to_yaml() if kind == "spec" else None,
        name=spec.name,
        macs=costs.macs,
        bytes_moved=costs.bytes_read + costs.bytes_written,
        num_outputs=next(iter(graph.outputs.values())).type.channels,
    )
