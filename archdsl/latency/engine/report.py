"""What an engine does, kernel by kernel, by the nodes of our graph, the lines of the spec and kinds of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.backends.trt.build_log import Kernel
from archdsl.backends.trt.engine import Engine
from archdsl.backends.trt.gpus import Gpu
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph
from archdsl.ir.op import KINDS
from archdsl.ir.paths import part_of
from archdsl.json_fields import JsonFields
from archdsl.language.architecture.model import Spec
from archdsl.latency.engine.roofline import GRAPH_S, STREAM_S, KernelEstimate, estimates_of
from archdsl.latency.engine.work import WORKS, padding_of, products_of, work_of
from archdsl.latency.profile.shares import Attribution

NOT_RUN = "compiled by NVIDIA's TensorRT for RTX, for {gpu}, without that GPU; not run"
NOT_VALIDATED = (
    "a roofline over these kernels, fitted to nothing and not validated for networks with windows; for the three"
    " networks whose times on TensorRT 10 are published it was 0.6 to 1.6 times the measurement"
)
"""Source: `benchmarks/engine_estimates.py`, docs/engines.md."""

HEAVIEST = ("attention", "convolution", "linear", "norm", "activation", "add", "reorder", "other", "layout")
"""The kinds of nodes in the order in which one gives a kernel its name."""
assert set(HEAVIEST) == set(KINDS)


@dataclass(frozen=True)
class EngineLayer(JsonFields):
    """One kernel of an engine.

    name, type:  TensorRT's
    work:        one of `WORKS`
    path:        the node of our graph, or the ONNX node, that gives it its name; None where TensorRT names none
    kind:        of that node of our graph
    spec_line:   where the part of that node is written: `swin_t.yaml:9`
    origins:     the ONNX nodes that it computes
    inputs, outputs: their types and shapes, such as `Half[1, 3136, 96]`
    bytes_moved: that it reads and writes, weights included
    flops:       of its products; a multiply-add is 2
    tile_flops:  the same with what fills up the tiles of tensor cores; 0 where it uses none
    estimate_us: what it may take, launch included; None where the GPU's figures are not known
    bound:       what that comes from: `memory`, `cache`, `products` or `launch`
    """

    name: str
    type: str
    work: str
    path: str | None
    kind: str | None
    spec_line: str | None
    origins: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes_moved: int
    flops: int
    tile_flops: int
    estimate_us: float | None = None
    bound: str | None = None


@dataclass(frozen=True)
class EngineReport(JsonFields):
    """What NVIDIA's compiler made of a network for one GPU. Nothing of it was run.

    network:   its name, or the file; gpu, gpu_title: as it was asked for, and whose figures the estimate is from
    precision: of the network's products; batch: images at once
    compiler:  `TensorRT for RTX 1.7.1.116`; build_s: seconds that it took; engine_bytes: of what it made
    kernels:   how many a run has
    bytes_moved: that all of them read and write, weights included
    attentions, attentions_fused: of the network, and how many of them are one kernel
    estimate_ms: a roofline (`latency.engine.roofline`) of a run recorded as a CUDA graph; **not validated**.
        None where the GPU's figures are not known
    estimate_stream_ms: the same without a CUDA graph
    layers:    the kernels, in order

    Example:
        >>> import archdsl
        >>> report = archdsl.compile_engine("micro_swin", gpu="sm86")  # doctest: +SKIP
        >>> report.kernels, report.attentions_fused  # doctest: +SKIP
        (52, 4)
    """

    network: str
    gpu: str
    gpu_title: str
    precision: str
    batch: int
    compiler: str
    build_s: float
    engine_bytes: int
    kernels: int
    bytes_moved: int
    attentions: int
    attentions_fused: int
    estimate_ms: float | None
    estimate_stream_ms: float | None
    layers: tuple[EngineLayer, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many kernels there are of each kind of work."""
        found = Counter(layer.work for layer in self.layers)
        return {work: found[work] for work in WORKS if found[work]}

    @property
    def moves(self) -> tuple[EngineLayer, ...]:
        """The kernels that only move data."""
        return tuple(layer for layer in self.layers if layer.work == "data movement")

    def padding(self, work: str) -> float | None:
        """What share of the tiles of a kind of work is padding; None where it has no tiles."""
        tiled = [layer for layer in self.layers if layer.work == work and layer.tile_flops]
        whole = sum(layer.tile_flops for layer in tiled)
        return 1 - sum(layer.flops for layer in tiled) / whole if whole else None

    @property
    def not_run(self) -> str:
        """What to say with every figure."""
        return NOT_RUN.format(gpu=self.gpu if self.gpu_title == self.gpu else f"{self.gpu} ({self.gpu_title})")

    def as_json(self) -> dict[str, Any]:
        padding = {work: share for work in WORKS if (share := self.padding(work)) is not None}
        return {
            "not_run": self.not_run,
            "estimate": NOT_VALIDATED,
            **super().as_json(),
            "counts": self.counts,
            "moves": len(self.moves),
            "tile_padding": padding,
        }


def report_of_engine(
    engine: Engine,
    gpu: Gpu,
    *,
    network: str,
    precision: str,
    batch: int,
    compiler: str,
    graph: Graph | None = None,
    spec: Spec | None = None,
) -> EngineReport:
    """The report on an engine that was built ahead of time.

    Args:
        engine: for one batch size; gpu: what it was built for
        graph: that its ONNX model was written from; spec: where the graph came from. Without them there are no lines
    Raises: BackendError (`no-report`) when the builder's log did not tell of the kernels
    """
    if engine.report is None:
        message = f"the log of {compiler} describes no kernels, so nothing can be said of this engine"
        raise BackendError.at("tensorrt", network, "no-report", message, "; ".join(engine.notes) or None)
    known = all(-1 not in tensor.shape for kernel in engine.kernels for tensor in kernel.outputs)
    figures = gpu.figures if known else None
    estimates = estimates_of(engine.kernels, figures) if figures else [None] * len(engine.kernels)
    named = _Names(graph, spec)
    layers = tuple(_layer(kernel, estimate, named) for kernel, estimate in zip(engine.kernels, estimates, strict=True))
    seconds = [estimate.seconds for estimate in estimates if estimate is not None]
    ms = sum(seconds) * 1e3 if seconds else None
    return EngineReport(
        network=network,
        gpu=gpu.name,
        gpu_title=gpu.title,
        precision=precision,
        batch=batch,
        compiler=compiler,
        build_s=engine.build_s,
        engine_bytes=len(engine.plan),
        kernels=len(layers),
        bytes_moved=sum(layer.bytes_moved for layer in layers),
        attentions=len(engine.report.attentions),
        attentions_fused=engine.report.num_fused,
        estimate_ms=ms,
        estimate_stream_ms=None if ms is None else ms + (STREAM_S - GRAPH_S) * 1e3 * len(seconds),
        layers=layers,
        notes=engine.notes,
    )


class _Names:
    """From the ONNX nodes of a kernel to a node of our graph, its kind and its line in the spec."""

    def __init__(self, graph: Graph | None, spec: Spec | None):
        self._known = Attribution(graph) if graph is not None else None
        self._spec = spec

    def of(self, kernel: Kernel, *, moves: bool) -> tuple[str | None, str | None, str | None]:
        """Path, kind and line. moves: the kernel is named for what it moves, which comes last"""
        if self._known is None:
            return next(iter(kernel.origins), None), None, None
        nodes = [node for name in kernel.origins if (node := self._known.node(name)) is not None]
        if not nodes:
            return next(iter(kernel.origins), None), None, None
        kind: Callable[[Any], str] = self._known.kind
        node = nodes[-1] if moves else min(nodes, key=lambda node: HEAVIEST.index(kind(node)))
        return node.path, kind(node), self._line(node.path)

    def _line(self, path: str) -> str | None:
        if self._spec is None:
            return None
        place = self._spec.locate(part_of(path))
        return f"{place.file}:{place.line}"


def _layer(kernel: Kernel, estimate: KernelEstimate | None, names: _Names) -> EngineLayer:
    work = work_of(kernel)
    path, kind, line = names.of(kernel, moves=work == "data movement")
    padding = padding_of(kernel)
    return EngineLayer(
        name=kernel.name,
        type=kernel.type,
        work=work,
        path=path,
        kind=kind,
        spec_line=line,
        origins=kernel.origins,
        inputs=tuple(f"{tensor.dtype}{list(tensor.shape)}" for tensor in kernel.inputs),
        outputs=tuple(f"{tensor.dtype}{list(tensor.shape)}" for tensor in kernel.outputs),
        bytes_moved=sum(tensor.size_bytes for tensor in kernel.inputs + kernel.constants + kernel.outputs),
        flops=sum(product.flops for product in products_of(kernel)),
        tile_flops=padding[1] if padding else 0,
        estimate_us=estimate.seconds * 1e6 if estimate else None,
        bound=estimate.bound if estimate else None,
    )


def moves_by_line(report: EngineReport) -> list[tuple[str, int, int, Sequence[str]]]:
    """The kernels that only move data, by the line of the spec (of other networks, by node): line, how many, bytes, and
    the parts of the network where they are, those that move most first."""
    groups: dict[str, list[EngineLayer]] = {}
    for layer in report.moves:
        groups.setdefault(layer.spec_line or layer.path or "named by no node", []).append(layer)
    rows = [
        (line, len(layers), sum(layer.bytes_moved for layer in layers), _parts(layers))
        for line, layers in groups.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def _parts(layers: Sequence[EngineLayer]) -> list[str]:
    return list(dict.fromkeys(part_of(layer.path) for layer in layers if layer.path and layer.spec_line))
