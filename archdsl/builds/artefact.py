"""What a maker is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archdsl.backends.initial import Array
from archdsl.backends.parity import Parity, as_one, in_batches, parity_of, probe_images
from archdsl.backends.precision import precision_named
from archdsl.builds.config import BuildConfig
from archdsl.compiler import build
from archdsl.errors import ArchError, BackendError
from archdsl.language.architecture.lower import lower

PROBED = 4
"""How many generated images parity is measured on when there are no real ones; fewer where their outputs are large."""
MOST_NUMBERS = 2**26
"""In the outputs for generated images, of which several copies are held at once: 256 MiB in fp32."""


NOTED_LOSS = 0.005
"""Of accuracy; half a point."""


@dataclass(frozen=True)
class Ready:
    """A configuration, its network's state dict (train form), and the outputs of PyTorch with it for the images.

    fp32_scores: of PyTorch on the validation images, where there are some
    """

    config: BuildConfig
    state: dict[str, torch.Tensor]
    images: Array
    wanted: Array
    fp32_scores: Mapping[str, Any] | None = None

    def accuracy(self, answer: Callable[[Array], Array], precision: str) -> dict[str, Any]:
        """The facts about an artefact's accuracy: its scores, the change to fp32, and a note on a larger loss."""
        if self.config.score is None or self.fp32_scores is None:
            return {}
        found = self.config.score(answer)
        before, after = self.fp32_scores["accuracy"], found["accuracy"]
        facts: dict[str, Any] = {"accuracy": {**found, "change": after - before}}
        if before - after > NOTED_LOSS:
            loss = f"{precision} costs {100 * (before - after):.2f} points of accuracy"
            facts["accuracy_note"] = f"{loss}: {before:.2%} in fp32, {after:.2%} in {precision}"
        return facts

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


def make_ready(config: BuildConfig) -> Ready:
    """The network, and its answers. Errors: WeightsError; ArchError (`not-finite`) when an answer is not a number."""
    module = asked = build(config.spec, config.weights, seed=config.seed).eval()
    whole = lower(config.spec)
    numbers = sum(node.type.size for node in whole.inference().outputs.values())
    count = max(1, min(PROBED, MOST_NUMBERS // numbers))
    images = probe_images(config.image_shape, count) if config.images is None else config.images
    wanted = outputs_of(module, images)
    if whole.training_outputs:  # what only training reads is kept too
        module = build(config.spec, config.weights, seed=config.seed, training=True)
    state = {name: tensor for name, tensor in module.state_dict().items() if "num_batches_tracked" not in name}
    if not np.isfinite(wanted).all():
        bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
        message = f"{bad[0]} holds numbers that are not finite" if bad else "the output is not finite"
        raise ArchError.at("--weights", config.weights_from, "not-finite", message, "give other weights")
    scores = config.score(lambda images: outputs_of(asked, images, len(images))) if config.score else None
    return Ready(config, state, images, wanted, scores)


def outputs_of(module: Callable[[torch.Tensor], Any], images: Array, batch: int | None = 8) -> Array:
    """A module's outputs for images [N, C, H, W], `batch` at a time: one, or several side by side (`as_one`).

    None: at two batch sizes, one of them 1, as becomes something that takes any
    """

    def run(piece: Array) -> Array:
        given = module(torch.from_numpy(piece))
        return as_one([each.float().numpy() for each in (given.values() if isinstance(given, dict) else [given])])

    with torch.inference_mode():
        return in_batches(run, images, batch)


def _not_the_network(kind: str, precision: str, how: str) -> BackendError:
    message = f"the {kind} artefact in {precision} does not compute the network: {how}"
    hint = "build it in fp32" if precision != "fp32" else "this is a bug of archdsl or of the runtime"
    return BackendError.at("--emit", kind, "numeric-gate", message, hint)
