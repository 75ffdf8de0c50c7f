"""How far the outputs of an artefact are from those of the network it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archdsl.backends.initial import Array
from archdsl.backends.precision import PRECISIONS, Precision


@dataclass(frozen=True)
class Parity:
    """Outputs [N, classes] of an artefact beside those of fp32 PyTorch in the train form.

    images:         N
    max_rel_error:  the largest difference, as a share of the largest output
    cosine:         between the outputs of one image; the least over the images
    top1_agreement: share of the images whose largest output is the same one
    precision:      whose gate it must pass (`backends.precision`)
    """

    images: int
    max_rel_error: float
    cosine: float
    top1_agreement: float
    precision: str

    @property
    def passed(self) -> bool:
        """Whether the artefact still is the network. NaN never passes."""
        gate: Precision = PRECISIONS[self.precision]
        return self.max_rel_error <= gate.tolerance and self.cosine >= gate.cosine

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"max error {self.max_rel_error:.1e} of the largest output, cosine {self.cosine:.6f}, "
            f"top-1 agrees on {self.top1_agreement:.0%} of {self.images} images"
        )


def parity_of(got: Array, want: Array, precision: str) -> Parity:
    """The parity of outputs `got` with `want`, both [N, classes]. Errors: ValueError when their shapes differ."""
    if got.shape != want.shape:
        raise ValueError(f"outputs {list(want.shape)} are expected, got {list(got.shape)}")
    ours, theirs = got.astype(np.float64).reshape(len(got), -1), want.astype(np.float64).reshape(len(want), -1)
    tiny = np.finfo(np.float64).tiny
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.where((ours == theirs).all(axis=1), 1.0, (ours * theirs).sum(axis=1) / np.maximum(norms, tiny))
    return Parity(
        images=len(got),
        max_rel_error=float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), tiny)),
        cosine=float(cosines.min()),
        top1_agreement=float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        precision=precision,
    )
