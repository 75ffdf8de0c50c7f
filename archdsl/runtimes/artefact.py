"""What a runtime runs, and what its output must be before its time counts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archdsl.json_fields import JsonFields

if TYPE_CHECKING:
    from numpy.typing import NDArray

ArtefactKind = Literal["onnx", "spec", "pt2", "engine", "null"]


@dataclass(frozen=True)
class OutputShape:
    """What a network promises of one of its outputs. shape: one example's, without the batch axis"""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Artefact(JsonFields):
    """One network in a form that a worker can load without trusting pickles.

    kind:         `onnx` is a file at `path`; `spec` is YAML in `text`, from which the worker builds the network itself;
                  `pt2` is a program of `torch.export` at `path`; `engine` one of TensorRT, with its sidecar; `null`
                  holds no network, only its counts
    graph_hash:   the canonical hash of the network's graph
    input_shape:  one example's shape, without the batch axis
    name:         what messages call it
    form:         the stage of its graph (`export.FORMS`)
    build:        how the artefact came from the graph (form, precision, …); a part of the cache key
    macs:         multiply-adds of one example
    bytes_moved:  bytes that one example reads and writes
    outputs:      every output in the network's order; none leaves their number and shapes unchecked
    weights:      of a `spec`, by archdsl's names, in a safetensors file; None: placeholder weights
    """

    kind: ArtefactKind
    graph_hash: str
    input_shape: tuple[int, ...]
    path: Path | None = None
    text: str | None = None
    name: str = "network"
    form: str = "deploy"
    build: str = ""
    macs: int = 0
    bytes_moved: int = 0
    outputs: tuple[OutputShape, ...] = ()
    weights: Path | None = None

    def __post_init__(self) -> None:
        if not self.graph_hash:
            raise ValueError("an artefact needs the hash of its graph")
        if self.kind in ("onnx", "pt2", "engine") and self.path is None:
            raise ValueError(f"an {self.kind} artefact needs a path")
        if self.kind == "spec" and self.text is None:
            raise ValueError("a spec artefact needs its text")
        if not self.input_shape or prod(self.input_shape) <= 0:
            raise ValueError(f"an input shape has positive sizes, got {self.input_shape}")

    def as_json(self) -> dict[str, Any]:
        files = {name: getattr(self, name) for name in ("path", "weights")}
        found = {name: None if file is None else str(Path(file).absolute()) for name, file in files.items()}
        return {**super().as_json(), **found, "input_shape": list(self.input_shape)}


@dataclass(frozen=True)
class Reference:
    """What the network must answer: the numeric gate of its first output.

    inputs:    [B, *input_shape]
    outputs:   [B, *shape of the first output], as fp32 PyTorch computes it: logits, or a map
    tolerance: the largest allowed |difference|, as a share of the largest |output|; at least 1e-3 suits fp32
    """

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"a tolerance is not negative, got {self.tolerance}")
