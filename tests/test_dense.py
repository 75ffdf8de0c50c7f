"""Networks that answer for every pixel compute what their papers say, and what others' code of them computes."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import load_torchvision
from shipped import assert_telling, difference, telling_module
from timm_references import images, telling
from torch import Tensor, nn
from torch.nn import functional

import archdsl
from archdsl.language.architecture.load import load

SHALLOW = {f"stages.{i}.depth": 2 for i in range(4)}


def settled(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Telling weights, and running statistics near those of images, so that numbers stay of one size."""
    telling(model)
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.9
    with torch.no_grad():
        model.train()(images(4, *size, seed=7))
    return model.eval()


# --- counts -----------------------------------------------------------------------------------------------------------


def rows() -> list[dict[str, str]]:
    lines = (Path(__file__).parent / "data" / "dense_counts.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.promise(12)
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['name']}-{row['input_size']}")
def test_counts_equal_the_reference(row: dict[str, str]):
    pairs = (pair.split("=") for pair in row["set"].split())
    cost = archdsl.cost(load(row["spec"], set={path: int(value) for path, value in pairs}))
    counted = (cost.inference_params, cost.macs)
    if row["counted"] == "training":
        counted = (cost.params, cost.training_macs)
    elif row["counted"] == "neck":
        backbone = archdsl.cost(load(row["spec"], set={"neck": None}))
        counted = (cost.params - backbone.params, cost.macs - backbone.macs)
    assert counted == (int(row["params"]), int(row["macs"]))


# --- torchvision ------------------------------------------------------------------------------------------------------


def of_torchvision(name: str) -> nn.Module:
    """torchvision's network with two blocks a stage, and its head for training."""
    load_torchvision()
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.models.segmentation import deeplabv3, fcn

    backbone = ResNet(Bottleneck, [2, 2, 2, 2], replace_stride_with_dilation=[False, True, True])
    module: Any = {"deeplabv3": deeplabv3._deeplabv3_resnet, "fcn": fcn._fcn_resnet}[name]
    return module(backbone, 21, True)


@pytest.mark.parametrize(("name", "spec"), [("deeplabv3", "deeplabv3_resnet_50"), ("fcn", "fcn_resnet_50")])
def test_outputs_equal_torchvisions_with_its_weights(name: str, spec: str):
    size = (72, 56)
    theirs = settled(of_torchvision(name), size)
    small = load(spec, set=SHALLOW | {"input.size": list(size)})
    mine = archdsl.build(small, archdsl.import_weights(small, theirs.state_dict(), "torchvision"), training=True).eval()
    x = images(2, *size)
    with torch.inference_mode():
        got, want = mine(x), theirs(x)
    assert list(got) == ["logits", "aux"]
    for ours, other in (("logits", "out"), ("aux", "aux")):
        assert got[ours].shape == (2, 21, *size)
        assert_telling(want[other])
        assert difference(got[ours], want[other]) <= 1e-4


# --- transformers -----------------------------------------------------------------------------------------------------


def of_transformers(backbone: Any) -> nn.Module:
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    widths = {"auxiliary_in_channels": 4 * WIDTH, "auxiliary_channels": 8, "num_labels": 5}
    config = UperNetConfig(backbone_config=backbone, hidden_size=16, **widths)
    return UperNetForSemanticSegmentation(config)


WIDTH = 24
NECK = {f"neck.{i}.dim": 16 for i in range(3)}
UPERNET = NECK | {"stem.dim": WIDTH, "heads.logits.classes": 5, "heads.aux.classes": 5, "heads.aux.hidden": 8}


def swin_of_transformers() -> Any:
    from transformers import SwinConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    return SwinConfig(
        embed_dim=WIDTH, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24], window_size=2, out_features=stages
    )


def convnext_of_transformers() -> Any:
    from transformers import ConvNextConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    return ConvNextConfig(hidden_sizes=[WIDTH * 2**i for i in range(4)], depths=[2, 2, 2, 2], out_features=stages)


OF_TWO = {f"stages.{i}.window": 2 for i in range(4)}  # larger than no map: transformers has a rule of its own for those


@pytest.mark.parametrize(
    ("name", "backbone", "more"),
    [("upernet_swin_t", swin_of_transformers, OF_TWO), ("upernet_convnext_t", convnext_of_transformers, {})],
)
def test_upernet_equals_transformers_with_its_weights(transformers: ModuleType, name: str, backbone: Any, more: Any):
    size = (96, 160)
    theirs = settled(of_transformers(backbone()), size)
    small = load(name, set=SHALLOW | UPERNET | more | {"input.size": list(size)})
    weights = archdsl.import_weights(small, theirs.state_dict(), "huggingface")
    mine, x = archdsl.build(small, weights, training=True).eval(), images(2, *size)
    with torch.inference_mode():
        got = mine(x)
        want = theirs(x).logits
        features = theirs.backbone.forward_with_filtered_kwargs(x).feature_maps
        aux = functional.interpolate(theirs.auxiliary_head(features), size, mode="bilinear")
    assert got["logits"].shape == (2, 5, *size)
    for ours, other in ((got["logits"], want), (got["aux"], aux)):
        assert_telling(other)
        assert difference(ours, other) <= 1e-4


# --- FPN --------------------------------------------------------------------------------------------------------------


def test_the_pyramid_equals_torchvisions_with_its_weights():
    load_torchvision()
    from torchvision.ops import FeaturePyramidNetwork

    small = load("fpn_resnet_50", set=SHALLOW | {"input.size": [72, 104], "neck.0.dim": 32})
    module = telling_module(small)
    theirs = FeaturePyramidNetwork([256, 512, 1024, 2048], 32).eval()
    state = module.state_dict()
    names = {f"{part}_blocks.{i}.0": f"neck.0.{ours}.{i}.conv" for i in range(4) for part, ours in PYRAMID.items()}
    theirs.load_state_dict({f"{a}.{key}": state[f"{b}.{key}"] for a, b in names.items() for key in ("weight", "bias")})
    x = images(2, 72, 104)
    with torch.inference_mode():
        maps = archdsl.build(
            load("fpn_resnet_50", set=SHALLOW | {"input.size": [72, 104], "neck": None}), backbone(state)
        )
        want, got = theirs(maps.eval()(x)), module(x)
    assert list(got) == list(want) == [f"stages.{i}" for i in range(4)]
    for name in want:
        assert_telling(want[name])
        assert difference(got[name], want[name]) <= 1e-5


PYRAMID = {"inner": "lateral", "layer": "smooth"}


def backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("neck.")}


# --- PSPNet: a second formula -----------------------------------------------------------------------------------------


def test_pyramid_pooling_is_the_papers():
    """By arXiv 1612.01105 and the authors' settings, from the map of the last stage alone."""
    small = load("pspnet_50", set=SHALLOW | {"input.size": [81, 57], "neck.0.dim": 24, "heads.logits.classes": 7})
    module, x = telling_module(small).double(), images(2, 81, 57).double()
    w = dict(module.state_dict())
    taken = {"features": {}, "neck": None, "heads": {"logits": "features"}}
    maps = (
        archdsl.build(load("pspnet_50", set=SHALLOW | {"input.size": [81, 57]} | taken), backbone_of(w)).double().eval()
    )
    with torch.inference_mode():
        got, y = module(x), maps(x)["stages.3"]
        assert y.shape == (2, 2048, 11, 8)
        seen = [y]
        for index, scale in enumerate((1, 2, 3, 6)):
            means = torch.stack(
                [torch.stack([y[:, :, a, b].mean((2, 3)) for b in cut(8, scale)], -1) for a in cut(11, scale)], -2
            )
            z = torch.einsum("bchw,dc->bdhw", means, w[f"neck.0.pools.{index}.conv.weight"].flatten(1))
            z = normed(w, f"neck.0.pools.{index}.norm", z).clamp(min=0)
            seen.append(between_corners(z, 11, 8))
        z = functional.conv2d(torch.cat(seen, 1), w["neck.0.bottleneck.conv.weight"], padding=1)
        z = normed(w, "neck.0.bottleneck.norm", z).clamp(min=0)
        z = torch.einsum("bchw,dc->bdhw", z, w["head.fc.weight"].flatten(1)) + w["head.fc.bias"][:, None, None]
        want = between_corners(z, 81, 57)
    assert_telling(want)
    assert difference(got, want) <= 1e-6


def backbone_of(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in w.items() if name.startswith(("stem.", "stages."))}


def cut(side: int, parts: int) -> list[slice]:
    return [slice(i * side // parts, -(-(i + 1) * side // parts)) for i in range(parts)]


def normed(w: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (w[f"{path}.{key}"][:, None, None] for key in keys)
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def between_corners(x: Tensor, height: int, width: int) -> Tensor:
    """Each place by its distance from the four nearest ones, the corners where they are."""
    for axis, size in ((2, height), (3, width)):
        side = x.shape[axis]
        at = torch.arange(size, dtype=x.dtype) * ((side - 1) / max(size - 1, 1))
        low = at.floor().long().clamp(max=side - 1)
        share = (at - low).reshape([-1 if axis == i else 1 for i in range(4)])
        high = (low + 1).clamp(max=side - 1)
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x
