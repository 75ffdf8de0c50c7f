"""Our networks compute what timm's compute, with timm's weights: logits and gradients, fp32.

The largest difference may be TOLERANCE of the largest logit, and GRADIENT_TOLERANCE of the largest number in each
gradient; on x86 they are 3e-7 and 3e-6. Every comparison also asserts that it could have failed: logits differ between
images by at least a tenth of the largest.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from timm_references import images, reference, telling, without_shift
from torch import Tensor, fx, nn

import archdsl
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
SWIN_T, SWIN_S, SWIN_B, SWIN_L = (f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large"))
FREE = [7, 14, 14, 7]


def ours(spec: Spec, theirs: nn.Module) -> fx.GraphModule:
    """Our network with their weights."""
    return archdsl.build(spec, archdsl.import_weights(spec, theirs.state_dict(), "timm")).eval()


def difference(got: Tensor, want: Tensor) -> float:
    """The largest difference, as a part of the largest number wanted."""
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


def assert_same_logits(theirs: nn.Module, spec: Spec) -> None:
    """At batch 3, and at batch 1 while gradients are recorded, where attention may be computed in another way."""
    mine, x = ours(spec, theirs), images(3, *spec.input.size)
    with torch.inference_mode():
        want = theirs(x)
        assert difference(want[1:], want[:1].expand(2, -1)) > 0.1, "these weights do not let the images through"
        assert difference(mine(x), want) <= TOLERANCE
    assert difference(mine(x[:1]), want[:1]) <= TOLERANCE


def windows(*sides: int) -> dict[str, int]:
    return {f"stages.{stage}.window": side for stage, side in enumerate(sides)}


def depths(*blocks: int) -> dict[str, int]:
    """Fewer blocks than the spec has, to save time; the widths stay."""
    return {f"stages.{stage}.depth": depth for stage, depth in enumerate(blocks)}


@pytest.mark.promise(13)
@pytest.mark.parametrize(
    ("spec", "name", "blocks"),
    [
        ("swin_t", SWIN_T, (2, 2, 6, 2)),
        ("swin_s", SWIN_S, (2, 2, 18, 2)),
        ("swin_b", SWIN_B, (2, 2, 4, 2)),
        ("swin_l", SWIN_L, (2, 2, 2, 2)),
    ],
)
def test_swin_equals_timm(timm: ModuleType, spec: str, name: str, blocks: tuple[int, ...]):
    assert_same_logits(reference(timm, name, depths=blocks), load(spec, set=depths(*blocks)))


@pytest.mark.parametrize(
    ("spec", "name", "blocks"),
    [
        ("swin_b_w12_384", "swin_base_patch4_window12_384", (1, 2, 2, 2)),
        ("swin_l_w12_384", "swin_large_patch4_window12_384", (1, 1, 2, 1)),
    ],
)
def test_swin_at_384_equals_timm(timm: ModuleType, spec: str, name: str, blocks: tuple[int, ...]):
    assert_same_logits(reference(timm, name, depths=blocks), load(spec, set=depths(*blocks)))


@pytest.mark.parametrize(
    ("spec", "name", "blocks"),
    [
        ("swin_free_t", SWIN_T, (2, 2, 6, 2)),
        ("swin_free_s", SWIN_S, (2, 2, 4, 2)),
        ("swin_free_b", SWIN_B, (2, 2, 2, 2)),
    ],
)
def test_swin_free_equals_timm_without_shift(timm: ModuleType, spec: str, name: str, blocks: tuple[int, ...]):
    theirs = without_shift(reference(timm, name, window_size=FREE, depths=blocks))
    assert_same_logits(theirs, load(spec, set=depths(*blocks)))


@pytest.mark.parametrize("sides", [(5, 7, 3, 2), (8, 4, 6, 3), (28, 14, 7, 4), (9, 5, 14, 20)], ids=str)
def test_any_window_for_each_stage_equals_timm(timm: ModuleType, sides: tuple[int, ...]):
    """Odd and even ones, ones that do not divide the map, ones that cover it or are larger than it."""
    theirs = small_swin(timm, window_size=list(sides))
    assert_same_logits(theirs, load("swin_t", set=SMALL | windows(*sides)))


@pytest.mark.parametrize("size", [(120, 120), (100, 100), (112, 80), (52, 212), (28, 32)], ids=str)
def test_maps_that_windows_do_not_divide_equal_timm(timm: ModuleType, size: tuple[int, int]):
    """Padded windows (shifted or not), odd maps in patch merging, one side inside a window and the other not."""
    theirs = small_swin(timm, img_size=size)
    assert_same_logits(theirs, load("swin_t", set=SMALL | {"input.size": list(size)}))


def test_a_padded_swin_of_full_width_equals_timm(timm: ModuleType):
    blocks = (2, 2, 2, 2)
    theirs = reference(timm, SWIN_T, img_size=200, depths=blocks)
    assert_same_logits(theirs, load("swin_t", set={"input.size": 200, **depths(*blocks)}))


@pytest.mark.promise(13)
@pytest.mark.parametrize(
    ("spec", "name", "depth"),
    [
        ("vit_ti_16", "tiny_patch16", 12),
        ("vit_s_16", "small_patch16", 12),
        ("vit_b_16", "base_patch16", 4),
        ("vit_b_32", "base_patch32", 1),
        ("vit_l_16", "large_patch16", 1),
        ("vit_l_32", "large_patch32", 1),
        ("vit_h_14", "huge_patch14", 1),
    ],
)
def test_vit_equals_timm(timm: ModuleType, spec: str, name: str, depth: int):
    theirs = reference(timm, f"vit_{name}_224", depth=depth, num_classes=1000)  # some have another head, or none
    assert_same_logits(theirs, load(spec, set=depths(depth)))


@pytest.mark.promise(13)
@pytest.mark.parametrize(
    ("spec", "name", "blocks"),
    [
        ("convnext_t", "convnext_tiny", (3, 3, 9, 3)),
        ("convnext_s", "convnext_small", (3, 3, 27, 3)),
        ("convnext_b", "convnext_base", (3, 3, 3, 3)),
    ],
)
def test_convnext_equals_timm(timm: ModuleType, spec: str, name: str, blocks: tuple[int, ...]):
    assert_same_logits(reference(timm, name, depths=blocks), load(spec, set=depths(*blocks)))


WRONG = {
    "no shift": {"stages.0.shift": False},
    "shift in the other blocks": {"stages.0.shift": [True, False]},
    "another gelu": {"defaults.act": "gelu_tanh"},
    "no position bias in one block": {"stages.3.position_bias": ["relative", "none"]},
    "another eps": {"stages.1.norm_eps": 1e-2},
    "norm after the mean": {"head.norm_after_pool": True},
}


@pytest.mark.parametrize("change", WRONG)
def test_a_network_that_is_slightly_wrong_is_told_from_timms(timm: ModuleType, change: str):
    theirs, x = small_swin(timm), images(3, SIZE)
    right = load("swin_t", set=SMALL)
    weights = archdsl.import_weights(right, theirs.state_dict())
    wrong = load("swin_t", set=SMALL | WRONG[change])
    needed = dict(archdsl.build(wrong).named_parameters())
    mine = archdsl.build(wrong, {name: weights[name] for name in needed}).eval()
    with torch.inference_mode():
        assert difference(mine(x), theirs(x)) > 10 * TOLERANCE


@pytest.mark.parametrize("tensor", ["relative_position_bias_table", "qkv.bias", "reduction.weight", "norm1.bias"])
def test_a_tensor_in_the_wrong_order_is_told(timm: ModuleType, tensor: str):
    """E.g. a position table read the other way round is the table of the transposed offsets."""
    theirs, x, spec = small_swin(timm), images(3, SIZE), load("swin_t", set=SMALL)
    weights = archdsl.import_weights(spec, theirs.state_dict())
    name = next(name for name in weights if name.endswith(tensor))
    axis = 1 if tensor == "reduction.weight" else 0
    mine = archdsl.build(spec, weights | {name: weights[name].flip(axis)}).eval()
    with torch.inference_mode():
        assert difference(mine(x), theirs(x)) > 10 * TOLERANCE


@pytest.mark.parametrize("kind", ["swin", "swin_free", "swin_padded", "vit", "convnext"])
def test_gradients_of_all_parameters_equal_timms(timm: ModuleType, kind: str):
    """In eval mode, of a random projection of the logits."""
    match kind:
        case "swin":
            theirs, spec = reference(timm, SWIN_T, img_size=SIZE), load("swin_t", set={"input.size": SIZE})
        case "swin_free":
            theirs = without_shift(reference(timm, SWIN_T, img_size=SIZE, window_size=FREE))
            spec = load("swin_free_t", set={"input.size": SIZE})
        case "swin_padded":
            theirs, spec = small_swin(timm, img_size=100), load("swin_t", set=SMALL | {"input.size": 100})
        case "vit":
            theirs, spec = reference(timm, "vit_tiny_patch16_224"), load("vit_ti_16")
        case _:
            theirs, spec = reference(timm, "convnext_tiny"), load("convnext_t", set={"input.size": SIZE})
    mine, x = ours(spec, theirs), images(2, *spec.input.size)
    direction = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))
    for model in (theirs, mine):
        (model(x) * direction).sum().backward()
    wanted = archdsl.import_weights(spec, {name: p.grad for name, p in theirs.named_parameters()})
    got = {name: p.grad for name, p in mine.named_parameters()}
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        assert gradient is not None, name
        assert wanted[name].abs().max() > 0, name
        assert difference(gradient, wanted[name]) <= GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_swin_equals_timms_with_its_norms_replaced(timm: ModuleType, axis: str, training: bool):
    """Swin-Free's BR: batch norm for layer norm, ReLU for GELU; also what training does to the running statistics."""
    size, sides = 128, [4, 8, 8, 4]
    theirs = without_shift(small_swin(timm, img_size=size, window_size=sides, drop_path_rate=0.0))
    theirs, x = with_batch_norm(theirs, axis, size // 4), images(3, size)
    with torch.no_grad():
        settle_statistics(theirs, x)
    theirs.train(training)
    sets = {"input.size": size, "drop_path": 0, "defaults.norm": "batch", "defaults.act": "relu"}
    spec = load("swin_free_t", set=SMALL | sets | windows(*sides) | {"defaults.norm_axis": axis})
    mine = ours(spec, theirs).train(training)
    with torch.no_grad():
        want = theirs(x)
        assert difference(want[1:], want[:1].expand(2, -1)) > 0.1
        assert difference(mine(x), want) <= TOLERANCE
    after = archdsl.import_weights(spec, theirs.state_dict())
    state = mine.state_dict()
    for name, tensor in after.items():
        assert difference(state[name], tensor) <= TOLERANCE, name


SIZE = 112
SMALL: dict[str, Any] = {
    "input.size": SIZE,
    "stem.dim": 32,
    "stages.0.heads": 1,
    "stages.1.heads": 2,
    "stages.2.heads": 4,
    "stages.3.heads": 8,
    "stages.2.depth": 2,
}
"""Swin-T made small: 1.6 million parameters beside the head."""


def small_swin(timm: ModuleType, **options: Any) -> nn.Module:
    """timm's, made small in the same way."""
    made: dict[str, Any] = {"img_size": SIZE, "embed_dim": 32, "num_heads": (1, 2, 4, 8), "depths": (2, 2, 2, 2)}
    return reference(timm, SWIN_T, **(made | options))


class PerChannel(nn.BatchNorm1d):
    """Batch norm of the last axis."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).view_as(input)


class PerToken(nn.BatchNorm1d):
    """Batch norm of all axes but the first and the last, taken as one; [B, C] is one token."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.reshape(input.shape[0], self.num_features, -1)).view_as(input)


def settle_statistics(model: nn.Module, x: Tensor) -> None:
    """Give each batch norm the statistics of `x`; with any others, activations explode and say little."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    for momentum in (1.0, 0.1):
        for norm in norms:
            norm.momentum = momentum
        if momentum == 1.0:
            model.train()(x)


def with_batch_norm(model: nn.Module, axis: str, side: int) -> nn.Module:
    """timm's Swin with batch norm in the place of each layer norm and ReLU in the place of each GELU.

    side: of the first map
    """
    sides = {"": side // 8, "patch_embed": side} | {f"layers.{stage}": side // 2**stage for stage in range(4)}
    for name, module in list(model.named_modules()):
        owner_name, _, last = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if isinstance(module, nn.LayerNorm):
            here = sides[".".join(owner_name.split(".")[:2])]
            (width,) = module.normalized_shape
            setattr(owner, last, PerChannel(width) if axis == "channel" else PerToken(here * here))
        elif isinstance(module, nn.GELU):
            setattr(owner, last, nn.ReLU())
    return telling(model)
