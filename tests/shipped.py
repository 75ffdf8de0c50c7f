"""The shipped networks in tests: which differ, how large they are run, and weights that let the image through."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from timm_references import images, telling
from torch import fx, nn

import archdsl
from archdsl.language.architecture.model import Spec
from archdsl.parts.families.resnet import Bottleneck

SPECS = Path(__file__).parents[1] / "specs"
NAMES = sorted(path.stem for path in SPECS.glob("*.yaml"))
FULL_MACS = 2_000_000_000
"""Up to this size (the micro networks, DeiT-Ti) networks are run as they are; larger ones smaller."""
BLOCKS = 2
"""So many blocks of each stage are left of the larger ones: one with and one without shift."""

CONVOLVED = 96
"""The image of the larger networks of bottlenecks alone, whose layers fit every size."""


DENSE, DENSE_DIM = 224, 32
"""The image of other large networks with a neck, and the width of their stems and necks."""


@cache
def at_test_size(name: str) -> Spec:
    """The spec, or, when it is large, the same with BLOCKS blocks a stage and half the width, where heads allow it."""
    spec = archdsl.load(name)
    if spec.expect is None or spec.expect.macs is None or spec.expect.macs <= FULL_MACS:
        return spec
    small: dict[str, int] = {f"stages.{i}.depth": min(BLOCKS, len(stage.blocks)) for i, stage in enumerate(spec.stages)}
    if all(isinstance(block, Bottleneck) for stage in spec.stages for block in stage.blocks):
        small["input.size"] = CONVOLVED
    heads = {f"stages.{i}.heads": stage["heads"] for i, stage in enumerate(spec.data["stages"]) if "heads" in stage}
    if "dim" in spec.data["stem"] and all(number % 2 == 0 for number in heads.values()):
        small |= {path: number // 2 for path, number in heads.items()} | {"stem.dim": spec.data["stem"]["dim"] // 2}
    if spec.neck:
        small |= {f"neck.{index}.dim": DENSE_DIM for index in range(len(spec.neck))}
        if "dim" in spec.data["stem"]:
            small |= {path: 2 ** int(path.split(".")[1]) for path in heads}
            small |= {"stem.dim": DENSE_DIM, "input.size": DENSE}
            small |= {f"heads.{named.name}.classes": 12 for named in spec.heads}
    return archdsl.load(name, set=small)


@cache
def distinct(*, full: bool = False) -> list[str]:
    """The names of the specs, without those that are, at the size they are run, the network of an earlier one."""
    found: dict[str, str] = {}
    for name in NAMES:
        spec = archdsl.load(name) if full else at_test_size(name)
        found.setdefault(archdsl.identity(spec, training=False), name)
    return list(found.values())


def telling_module(spec: Spec, seed: int = 0) -> fx.GraphModule:
    """The train form in eval mode. Batch norms have the statistics of images: with others, activations explode."""
    module = telling(archdsl.build(spec), seed)
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the mean over all that comes
            norm.reset_running_stats()
            norm.train()
        module.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            module(images(4, *spec.input.size, seed=7))
    return module.eval()


def side_by_side(output: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    """What a network gives as one tensor: the only one as it is, several flat and side by side."""
    return torch.cat([each.flatten(1) for each in output.values()], 1) if isinstance(output, dict) else output


def numbers_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Its state dict as arrays, without the step counters of batch norms."""
    return {name: value.numpy() for name, value in module.state_dict().items() if value.is_floating_point()}


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number wanted; NaN when there is one."""
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


def assert_telling(logits: torch.Tensor) -> None:
    """A comparison says something only if the logits depend on the image."""
    assert difference(logits[1:], logits[:1].expand_as(logits[1:])) > 0.1, "these weights do not let the images through"
