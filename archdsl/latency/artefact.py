"""What a runtime runs, and what its output must be before its time counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

ArtefactKind = Literal["onnx", "spec", "pt2", "null"]


@dataclass(frozen=True)
class Artefact:
    """One network in a form that a worker can load without trusting pickles.

    kind:         `onnx` is a file at `path`; `spec` is YAML in `text`, from which the worker builds the network itself;
                  `pt2` is a program of `torch.export` at `path`; `null` holds no network, only its counts
    graph_hash:   the canonical hash of the network's graph
    input_shape:  one example's shape, without the batch axis
    name:         what messages call it
    form:         what the network was looked at as (`networks.FORMS`)
    build:        how the artefact came from the graph (form, precision, …); a part of the cache key
    macs:         multiply-adds of one example
    bytes_moved:  bytes that one example reads and writes
    num_outputs:  length of the output's last axis; None leaves it unchecked
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
    num_outputs: int | None = None

    def __post_init__(self) -> None:
        if not self.graph_hash:
            raise ValueError("an artefact needs the hash of its graph")
        if self.kind in ("onnx", "pt2") and self.path is None:
            raise ValueError(f"an {self.kind} artefact needs a path")
        if self.kind == "spec" and self.text is None:
            raise ValueError("a spec artefact needs its text")
        if not self.input_shape or prod(self.input_shape) <= 0:
            raise ValueError(f"an input shape has positive sizes, got {self.input_shape}")

    def as_json(self) -> dict[str, Any]:
        path = None if self.path is None else str(Path(self.path).absolute())
        return {**asdict(self), "path": path, "input_shape": list(self.input_shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artefact:
        path = data["path"]
        shape = tuple(data["input_shape"])
        return cls(**{**data, "path": None if path is None else Path(path), "input_shape": shape})


@dataclass(frozen=True)
class Reference:
    """What the network must answer: the numeric gate.

    inputs:    [B, *input_shape]
    outputs:   [B, num_outputs], usually the logits of fp32 PyTorch
    tolerance: the largest allowed |difference|, as a share of the largest |output|; at least 1e-3 suits fp32
    """

    inputs: NDArray[Any]
    outputs: NDArray[Any]
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"a tolerance is not negative, got {self.tolerance}")
