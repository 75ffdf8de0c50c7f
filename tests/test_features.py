"""A backbone alone: its feature maps equal timm's, have names, and feed what others put upon them."""

from __future__ import annotations

import copy
import json
import runpy
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import load_torchvision
from shipped import assert_telling, difference
from timm_references import images, telling
from torch import Tensor, nn

import archdsl
from archdsl.builds.config import BuildConfig
from archdsl.builds.write import write_build
from archdsl.cli.main import run
from archdsl.errors import RuleBroken, SpecError, WeightsError
from archdsl.ir.types import TensorType
from archdsl.language.architecture.backbone import backbone_of
from archdsl.language.architecture.load import load, loads
from archdsl.ops.maps import TakeMap

SHALLOW = {f"stages.{i}.depth": 1 for i in range(4)}
STAGES = [f"stages.{i}" for i in range(4)]


def unshifted(model: nn.Module) -> nn.Module:
    for block in model.modules():
        if hasattr(block, "shift_size"):
            block.shift_size, block.attn_mask = (0, 0), None
    return model


def planes(x: Tensor, channels: int) -> Tensor:
    """timm's Swin gives [B, H, W, C]."""
    return x if x.shape[1] == channels else x.permute(0, 3, 1, 2)


@pytest.mark.promise(13)
@pytest.mark.parametrize(
    ("spec", "name", "how", "more"),
    [
        ("resnet_50", "resnet50", {"layers": [1] * 4, "out_indices": (1, 2, 3, 4)}, {"input.size": 96}),
        ("convnext_t", "convnext_tiny", {"depths": (1,) * 4}, {"input.size": 96}),
        (
            "swin_free_b",
            "swin_base_patch4_window7_224",
            {"depths": (1,) * 4, "window_size": 4, "img_size": 128},
            {"input.size": 128, **{f"stages.{i}.window": 4 for i in range(4)}},
        ),
    ],
    ids=["resnet", "convnext", "swin_free"],
)
def test_maps_equal_those_of_timm_with_its_weights(timm: ModuleType, spec: str, name: str, how: Any, more: Any):
    theirs = unshifted(telling(timm.create_model(name, features_only=True, **how))).eval()
    small = load(spec, set=SHALLOW | more)
    weights = archdsl.import_weights(backbone_of(small), theirs.state_dict(), "timm")
    mine, x = archdsl.features(small, weights=weights).eval(), images(2, *small.input.size)
    info = mine.feature_info
    assert info.channels() == theirs.feature_info.channels()
    assert info.reduction() == theirs.feature_info.reduction()
    assert info.module_name() == STAGES
    with torch.inference_mode():
        got, want = mine(x), theirs(x)
    assert len(got) == len(want) == 4
    for ours, other, channels in zip(got, want, info.channels(), strict=True):
        assert_telling(other)
        assert difference(ours, planes(other, channels)) <= 1e-5


def test_maps_of_a_vit_leave_its_class_token_out_and_equal_timms(timm: ModuleType):
    how = {"depth": 3, "img_size": (64, 96), "features_only": True, "out_indices": (0, 2)}
    theirs = telling(timm.create_model("deit_tiny_distilled_patch16_224", **how)).eval()
    small = load("deit_ti_distilled", set={"input.size": [64, 96], "stages.0.depth": 3})
    taps = ["stages.0.blocks.0", "stages.0.blocks.2"]
    state = theirs.state_dict()
    of_backbone = {name: tensor for name, tensor in state.items() if not name.startswith(("model.norm", "model.head"))}
    weights = archdsl.import_weights(backbone_of(small, taps), of_backbone, "timm")
    mine, x = archdsl.features(small, taps, weights).eval(), images(2, 64, 96)
    assert mine.feature_info.reduction() == [16, 16]
    with torch.inference_mode():
        for got, want in zip(mine(x), theirs(x), strict=True):
            assert got.shape == (2, 192, 4, 6)
            assert_telling(want)
            assert difference(got, want) <= 1e-5


def test_the_places_behind_a_class_token_come_out_of_every_backend(tmp_path: Path):
    spec = backbone_of(load("vit_ti_16", set={"input.size": [32, 48], "stages.0.depth": 1}))
    facts = write_build(BuildConfig(spec, emit=("torch", "source", "onnx"), batch=None), tmp_path / "out")
    assert facts["outputs" if "outputs" in facts else "output"] == ["batch", 192, 2, 3]
    assert all(made["parity"]["max_rel_error"] <= 1e-5 for made in facts["artefacts"])
    with pytest.raises(RuleBroken, match="a map of 2x3 behind 2 tokens is not in"):
        TakeMap(2, 2, 3).infer(TensorType((7, 8)))


def test_the_maps_of_swin_free_feed_torchvisions_pyramid():
    load_torchvision()
    from torchvision.ops import FeaturePyramidNetwork

    free = {f"stages.{i}.window": 4 for i in range(4)}
    backbone = archdsl.features(load("swin_free_b", set=SHALLOW | free | {"input.size": 128}))
    info = backbone.feature_info
    assert (info.channels(), info.reduction()) == ([128, 256, 512, 1024], [4, 8, 16, 32])
    pyramid = FeaturePyramidNetwork(info.channels(), 64)
    levels = pyramid(OrderedDict(zip(info.module_name(), backbone(images(1, 128)), strict=True)))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        name: (1, 64, 128 // stride, 128 // stride) for name, stride in zip(STAGES, info.reduction(), strict=True)
    }
    sum(level.mean() for level in levels.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_maps_are_those_inside_the_whole_network_wherever_they_are_taken():
    whole = archdsl.build("micro_swin").eval()
    taps = ["stem", "stages.0.blocks.0", "stages.1"]
    backbone, x = archdsl.features("micro_swin", taps, whole.state_dict()).eval(), images(2, 32)
    assert backbone.feature_info.names == tuple(taps)
    with torch.inference_mode():
        stem, block, last = backbone(x)
        tokens = whole.stem.norm(whole.stem.proj(x).flatten(2).transpose(1, 2))
    assert difference(stem.flatten(2).transpose(1, 2), tokens) <= 1e-6
    assert [tuple(each.shape) for each in (stem, block, last)] == [(2, 32, 8, 8), (2, 32, 8, 8), (2, 64, 4, 4)]
    head = whole.head
    with torch.inference_mode():
        logits = head.fc(head.norm(last.flatten(2).transpose(1, 2)).mean(1))
    assert difference(logits, whole(x).detach()) <= 1e-6
    assert copy.deepcopy(backbone).feature_info == backbone.feature_info


def test_a_norm_of_its_own_goes_upon_each_map():
    text = "{name: b, extends: micro_swin, features: {norm: layer, norm_eps: 1e-3}, head: features}"
    backbone, plain, x = archdsl.features(loads(text)), archdsl.features("micro_swin"), images(2, 32)
    telling(backbone)
    state = backbone.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if not name.startswith("features.")})
    for index, (normed, raw) in enumerate(zip(backbone(x), plain(x), strict=True)):
        weight, bias = (state[f"features.{index}.norm.{key}"][:, None, None] for key in ("weight", "bias"))
        mean, var = raw.mean(1, keepdim=True), raw.var(1, keepdim=True, unbiased=False)
        assert difference(normed, (raw - mean) / (var + 1e-3).sqrt() * weight + bias) <= 1e-5


def test_a_pyramid_keeps_its_neck():
    small = load("fpn_resnet_50", set=SHALLOW | {"input.size": 64, "neck.0.dim": 16})
    assert backbone_of(small) is small
    assert archdsl.features(small).feature_info.channels() == [16] * 4
    assert archdsl.features(small, ["stages.3"]).feature_info.channels() == [2048]


def test_build_writes_a_model_whose_outputs_have_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From the weights of a whole classifier: the head's are left."""
    weights = tmp_path / "w.safetensors"
    from archdsl.weights.writing import write_weights

    write_weights(weights, archdsl.build("micro_swin", seed=3).state_dict())
    words = ["build", "micro_swin", "--features", "--weights", str(weights), "--from", "archdsl", "-o"]
    out = tmp_path / "out"
    assert run([*words, str(out), "--emit", "onnx", "--emit", "source", "--batch", "dynamic"]) == 0
    assert "stages.0 [batch, 32, 8, 8], stages.1 [batch, 64, 4, 4]" in capsys.readouterr().out
    facts = json.loads((out / "build.json").read_text())
    assert facts["outputs"] == {"stages.0": ["batch", 32, 8, 8], "stages.1": ["batch", 64, 4, 4]}
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["stages.0", "stages.1"]
    x = images(3, 32)
    want = archdsl.features("micro_swin", seed=3)(x)
    network = runpy.run_path(str(out / "model.py"))["MicroSwin"]()
    from archdsl.weights.reading import read_weights

    network.load_state_dict(read_weights(out / "model.safetensors"))
    for got, ours, other in zip(session.run(None, {"image": x.numpy()}), want, network(x).values(), strict=True):
        assert np.abs(got - ours.detach().numpy()).max() <= 1e-5
        assert torch.equal(ours, other)


@pytest.mark.parametrize(
    ("taps", "message"),
    [(["stages.9"], "there is no part `stages.9`"), (["stages.0", "stages.0"], "once"), ([], "at least 1 values")],
)
def test_a_tap_that_cannot_be_is_refused(taps: list[str], message: str):
    with pytest.raises(SpecError, match=message):
        archdsl.features("micro_swin", taps)


def test_what_gives_no_maps_and_what_nothing_can_be_told_of_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(WeightsError, match=r"needs the tensor 'stem.proj.weight'"):
        archdsl.features("micro_swin", weights={})
    assert run(["build", "micro_swin", "--features", "--data", "synthetic"]) == 1
    assert "no accuracy to tell" in capsys.readouterr().err


def test_the_example_prints_the_maps(capsys: pytest.CaptureFixture[str]):
    example = Path(__file__).parents[1] / "examples" / "03_features.py"
    runpy.run_path(str(example))["main"]("micro_swin_free")
    said = capsys.readouterr().out
    assert "stages.1      64 channels, one place for 8x8 pixels" in said
    assert "stages.0   [2, 32, 8, 8]" in said
    imported = [line for line in example.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert imported == ["from __future__ import annotations", "import sys", "import torch", "import archdsl"]
