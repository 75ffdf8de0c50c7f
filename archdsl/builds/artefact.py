"""What a maker is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archdsl.backends.batches import in_batches
from archdsl.backends.initial import Array
from archdsl.backends.parity import Parity, parity_of
from archdsl.backends.precision import precision_named
from archdsl.backends.probe import probe_images
from archdsl.builds.plan import Plan
from archdsl.compiler import build
from archdsl.errors import ArchError, BackendError, Problem, at_argument

PROBED = 4
"""How many generated images parity is measured on when there are no real ones."""


@dataclass(frozen=True)
class Ready:
    """The plan, the state dict of its network in the train form, and what PyTorch makes of the images with that."""

    plan: Plan
    state: dict[str, torch.Tensor]
    images: Array
    wanted: Array

    def parity(self, kind: str, outputs: Array, precision: str, which: slice = slice(None)) -> Parity:
        """The parity of an artefact that gave `outputs` for `images[which]`.

        Errors: BackendError (`numeric-gate`) when it is not the network any more
        """
        wanted = self.wanted[which]
        if outputs.shape != wanted.shape:
            raise _not_the_network(kind, precision, f"outputs {list(wanted.shape)} are due, it gave {outputs.shape}")
        parity, gate = parity_of(outputs, wanted, precision), precision_named(precision)
        if not parity.passed:
            raise _not_the_network(kind, precision, f"{parity}; allowed are {gate.tolerance:g} and {gate.cosine:g}")
        return parity


@dataclass(frozen=True)
class Made:
    """One artefact that passed.

    form, precision: of the network in the files
    parity: of its outputs, or None where nothing here can run it, which `unmeasured` then explains
    run_by: what ran it
    """

    kind: str
    files: tuple[Path, ...]
    form: str
    precision: str
    parity: Parity | None = None
    run_by: str | None = None
    unmeasured: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "form": self.form,
            "precision": self.precision,
            "files": [path.name for path in self.files],
            "parity": self.parity.as_json() if self.parity else None,
            "run_by": self.run_by,
            "unmeasured": self.unmeasured,
            **self.facts,
        }


def make_ready(plan: Plan) -> Ready:
    """The network, and its answers. Errors: WeightsError; ArchError (`not-finite`) when an answer is not a number."""
    module = build(plan.spec, plan.weights, seed=plan.seed).eval()
    images = probe_images(plan.image_shape, PROBED) if plan.images is None else plan.images
    wanted = outputs_of(module, images)
    state = {name: tensor for name, tensor in module.state_dict().items() if "num_batches_tracked" not in name}
    if not np.isfinite(wanted).all():
        bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
        message = f"{bad[0]} holds numbers that are not finite" if bad else "the output is not finite"
        problem = Problem(at_argument("--weights", plan.weights_from), "not-finite", message, "give other weights")
        raise ArchError(problem)
    return Ready(plan, state, images, wanted)


def outputs_of(module: Callable[[torch.Tensor], torch.Tensor], images: Array, batch: int | None = 8) -> Array:
    """A module's outputs for images [N, C, H, W], `batch` at a time.

    None: at two batch sizes, one of them 1, as becomes something that takes any
    """
    with torch.inference_mode():
        return in_batches(lambda piece: module(torch.from_numpy(piece)).float().numpy(), images, batch)


def installed(package: str) -> str | None:
    """The version of a package, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _not_the_network(kind: str, precision: str, how: str) -> BackendError:
    message = f"the {kind} artefact in {precision} does not compute the network: {how}"
    hint = "build it in fp32" if precision != "fp32" else "this is a bug of archdsl or of the runtime"
    return BackendError(Problem(at_argument("--emit", kind), "numeric-gate", message, hint))
