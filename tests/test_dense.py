"""Networks that answer for every pixel compute what their papers say, and what others' code of them computes."""

from __future__ import annotations

import csv
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_torchvision
from shipped import assert_telling, difference, telling_module
from timm_references import images, telling
from torch import Tensor, nn
from torch.nn import functional

import archdsl
from archdsl.backends.onnx.dialects import dialect_for
from archdsl.backends.parity import parity_of
from archdsl.backends.trt.engine import RTX, Batches, EngineOptions, emit
from archdsl.builds.config import BuildConfig
from archdsl.builds.write import write_build
from archdsl.cli.main import run
from archdsl.compiler import deploy
from archdsl.errors import ArchError, SpecError, WeightsError
from archdsl.language.architecture.ends import RESERVED
from archdsl.language.architecture.from_data import with_classes
from archdsl.language.architecture.load import load, loads
from archdsl.language.architecture.lower import lower
from archdsl.language.space.space import _content
from archdsl.passes.runner import run_passes
from archdsl.weights.writing import write_weights

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


@pytest.mark.parametrize(
    ("name", "macs"), [("upernet_swin_t", 944_385_149_184), ("upernet_convnext_t", 938_485_481_472)]
)
def test_macs_at_512x2048_equal_the_reference(name: str, macs: int):
    """Counted on transformers' network as the rows above, without the auxiliary head; Swin's authors print 945 G."""
    assert archdsl.cost(load(name, set={"input.size": [512, 2048]})).macs == macs


# --- torchvision ------------------------------------------------------------------------------------------------------


def of_torchvision(name: str) -> nn.Module:
    """torchvision's network with one or two blocks a stage, and its head for training."""
    load_torchvision()
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.models.segmentation import deeplabv3, fcn

    backbone = ResNet(Bottleneck, [1, 1, 2, 2], replace_stride_with_dilation=[False, True, True])
    make: Any = {"deeplabv3": deeplabv3._deeplabv3_resnet, "fcn": fcn._fcn_resnet}[name]
    module = make(backbone, 21, True)
    if name == "deeplabv3":  # the rates are for larger maps: here kernels would read one place each
        module.classifier = deeplabv3.DeepLabHead(2048, 21, tuple(RATES["neck.0.rates"]))
    return module


RATES = {"neck.0.rates": [1, 2, 3]}


@pytest.mark.parametrize(
    ("name", "spec", "more"), [("deeplabv3", "deeplabv3_resnet_50", RATES), ("fcn", "fcn_resnet_50", {})]
)
def test_outputs_equal_torchvisions_with_its_weights(name: str, spec: str, more: Any):
    size = (56, 40)
    theirs = settled(of_torchvision(name), size)
    shallow = {f"stages.{i}.depth": depth for i, depth in enumerate((1, 1, 2, 2))}
    small = load(spec, set=shallow | more | {"input.size": list(size)})
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


# --- every backend ----------------------------------------------------------------------------------------------------

NARROW = {"stages.0.dim": 32} | {f"stages.{i}.depth": 1 for i in range(4)}
DILATED = NARROW | {"stages.2.dim": 64, "stages.3.dim": 128, "heads.aux.hidden": 8}
TINY = {
    "deeplabv3_resnet_50": DILATED | {"input.size": [40, 56], "neck.0.dim": 16, "heads.logits.hidden": 16},
    "fcn_resnet_50": DILATED | {"input.size": [40, 56], "heads.logits.hidden": 16},
    "fpn_resnet_50": NARROW | {"input.size": [64, 96], "neck.0.dim": 16},
    "pspnet_50": DILATED | {"input.size": [57, 41], "neck.0.dim": 16},
    "upernet_swin_t": {f"stages.{i}.depth": 2 for i in range(4)} | UPERNET | OF_TWO | {"input.size": [64, 96]},
    "upernet_convnext_t": {f"stages.{i}.depth": 1 for i in range(4)} | UPERNET | {"input.size": [64, 96]},
}
"""A network of each kind that is small, and not square."""


@pytest.mark.parametrize("name", TINY)
def test_every_backend_answers_alike_at_every_pixel(name: str, tmp_path: Path):
    spec = load(name, set=TINY[name])
    module = telling_module(spec)
    whole = {**archdsl.build(spec, training=True).state_dict(), **module.state_dict()}
    kinds = ("torch", "source", "onnx", "pt2")[: 4 if name in ("fcn_resnet_50", "fpn_resnet_50") else 3]
    config = BuildConfig(spec, whole, emit=kinds, batch=None)
    facts = write_build(config, tmp_path / "out")
    by_kind = {made["kind"]: made["parity"] for made in facts["artefacts"]}
    assert tuple(by_kind) == kinds
    maps = len(facts.get("outputs", ())) > 1
    for kind, parity in by_kind.items():
        assert parity["max_rel_error"] <= 1e-4, kind
        assert parity["pixels"] == (1 if maps else prod(spec.input.size)), kind
        assert parity["top1_agreement"] >= 0.9999, kind


@pytest.mark.parametrize("name", TINY)
def test_openvino_answers_alike(name: str, tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    spec = load(name, set=TINY[name])
    module, x = telling_module(spec), images(8, *spec.input.size)  # so many that one tie is not 1 pixel in 10,000
    archdsl.export_onnx(spec, tmp_path / "m.onnx", module.state_dict(), batch=8)
    with torch.inference_mode():
        want = module(x)
    compiled = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(x.numpy())
    for name_, other in want.items() if isinstance(want, dict) else [("logits", want)]:
        got = found[compiled.output(name_)]
        assert difference(torch.from_numpy(got), other) <= 1e-4
        assert (got.argmax(1) == other.numpy().argmax(1)).mean() >= 0.9999


@pytest.mark.parametrize("name", TINY)
def test_the_real_tensorrt_builder_takes_each_in_fp16(name: str):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX has wheels for Linux on x86-64 alone")
    batches = {"pspnet_50": Batches(1, 2, 4)}.get(name, Batches.only(1))  # one of them for several batch sizes
    network, dialect = deploy(load(name, set=TINY[name]), precision="fp16"), dialect_for("tensorrt-rtx")
    network = run_passes(network, dialect.passes(None if name == "pspnet_50" else 1))[0]
    options = EngineOptions.ahead(("sm86",), {}, batches=(batches,))
    engine = emit(network.graph, network.weights, options=options, product=RTX, dialect=dialect)
    assert len(engine.plan) > 50_000 and engine.notes == ()
    parts = {origin.partition("/")[0].split(".")[0] for kernel in engine.kernels for origin in kernel.origins}
    assert parts >= {"stem", "stages"} | ({"neck"} if load(name).neck else {"head"})


@pytest.mark.parametrize("name", ["deeplabv3_resnet_50", "upernet_swin_t"])
def test_every_weight_learns_from_the_outputs_of_training(name: str):
    spec = load(name, set=TINY[name] | {"drop_path": 0})
    module = telling(archdsl.build(spec, training=True)).train()
    outputs = module(images(2, *spec.input.size))
    assert list(outputs) == ["logits", "aux"]
    sum(functional.cross_entropy(each, torch.zeros(2, *spec.input.size).long()) for each in outputs.values()).backward()
    for path, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), path


def test_the_parity_of_maps_is_that_of_their_pixels():
    want = np.zeros((2, 3, 4, 5), np.float32)
    want[:, 1] = 1
    got = want.copy()
    got[0, 2, 0, 0] = 1.5
    parity = parity_of(got, want, "fp32")
    assert (parity.images, parity.pixels, parity.top1_agreement) == (2, 20, 39 / 40)
    assert not parity.passed and parity.max_rel_error == 1.5
    assert "top-1 agrees on 97.5% of the pixels of 2 images" in str(parity)
    assert parity_of(want, want, "fp32").passed


# --- no task yet ------------------------------------------------------------------------------------------------------


def test_segmentation_is_not_a_task_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spec = load("fcn_resnet_50", set=TINY["fcn_resnet_50"])
    (tmp_path / "net.yaml").write_text(spec.to_yaml())
    file = str(tmp_path / "net.yaml")
    archdsl.export_onnx(spec, tmp_path / "net.onnx")
    weights = tmp_path / "w.safetensors"
    write_weights(weights, archdsl.build(spec, training=True).state_dict())
    space = (
        "{name: s, base: net.yaml, choices: {head.hidden: [8, 16]}, objectives: {accuracy: {train: {data: synthetic}}}}"
    )
    (tmp_path / "space.yaml").write_text(space.replace("head.hidden", "heads.logits.hidden"))
    for words in (
        ["search", str(tmp_path / "space.yaml"), "--trials", "2", "--out", str(tmp_path / "out")],
        ["train", file, "--data", "synthetic", "--out", str(tmp_path / "out")],
        ["eval", file, "--data", "synthetic", "--weights", str(weights), "--from", "archdsl"],
        ["eval", str(tmp_path / "net.onnx"), "--data", "synthetic"],
    ):
        assert run(words) == 1
        said = capsys.readouterr().err
        assert "segmentation is not a task yet" in said and "[task]" in said, words
    assert not (tmp_path / "out").exists()


def test_show_tells_what_training_alone_reads(capsys: pytest.CaptureFixture[str]):
    assert run(["show", "upernet_swin_t"]) == 0
    said = capsys.readouterr().out
    assert "training alone reads 923.80k of the parameters, and its 945.29M MACs are not in the total" in said
    assert run(["show", "fpn_resnet_50"]) == 0
    assert "training alone" not in capsys.readouterr().out


# --- the language -----------------------------------------------------------------------------------------------------

SWIN = "{name: net, extends: micro_swin, "


def network(text: str) -> Any:
    return loads(SWIN + text + "}")


def test_heads_that_are_named_replace_the_head_that_is_inherited_and_the_reverse():
    named = network("heads: {logits: {type: segmenter, classes: 3}, aux: {type: fcn, tap: stages.0, train: true}}")
    assert [each.name for each in named.heads] == ["logits", "aux"] and named.head is named.heads[0].head
    graph = lower(named)
    assert list(graph.outputs) == ["logits", "aux"] and graph.training_outputs == {"aux"}
    assert graph.outputs["aux"].type.shape == (21, 32, 32)
    assert str(named.locate("head.classes")) == str(named.locate("heads.logits.classes"))
    both = {"heads.aux": None, "heads.mask": {"type": "segmenter", "tap": "stem", "resize": "none"}}
    changed = load("upernet_swin_t", set=both)
    assert list(lower(changed).outputs) == ["logits", "mask"] and not lower(changed).training_outputs
    assert lower(changed).outputs["mask"].type.shape == (21, 128, 128)
    back = loads("{name: net, extends: upernet_swin_t, neck: null, head: {type: segmenter, resize: none}}")
    assert back.heads == () and lower(back).outputs["logits"].type.shape == (21, 16, 16)


def test_a_value_for_the_first_block_and_one_for_the_rest():
    spec = load("deeplabv3_resnet_50", set=DILATED | {"stages.3.depth": 3})
    assert [block.dilation for block in spec.stages[3].blocks] == [2, 4, 4]
    assert load("pspnet_50").stages[3].blocks[0].dilation == 4
    with pytest.raises(SpecError, match=r"`dilation.rest` must be at most 64, but got `70`"):
        load("pspnet_50", set={"stages.3.dilation": {"first": 1, "rest": 70}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neck: [{type: ppm, scale: 2}]", "unknown key `scale`"),
        ("neck: ppm", "`neck` must be a list"),
        ("neck: [ppn]", "no neck called `ppn`"),
        ("features: {taps: [stages.0, stages.4]}", "no part `stages.4`"),
        ("features: {taps: [stages.0.blocks.2]}", "no part `stages.0.blocks.2`"),
        ("heads: {aux: fcn}", "`logits` is missing"),
        ("heads: {logits: fcn, aux: {type: fcn, tap: features.2}}", "no `features.2`"),
        ("heads: {logits: {type: fcn, train: true}}", "no output of training alone"),
        ("heads: {logits: fcn, aux: {type: fcn, train: 1}}", "`train` must be true or false"),
        ("heads: {logits: fcn, ../x: fcn}", "an output cannot be called"),
        ("heads: {logits: fcn, train: fcn}", "an output cannot be called `train`"),
        ("heads: {logits: fcn, image: fcn}", "an output cannot be called `image`"),
        ("heads: {logits: fcn}, head: fcn", "do not go together"),
        ("neck: [{type: fpn, dim: 8, top: keep}]", "must be 8 wide, but got"),
        ("input: {size: dynamic}", "heights and widths are fixed when a network is built"),
        ("input: {size: [dynamic, 32]}", "dynamic ones are refused"),
        ("stem: {cls: true}, stages: [{window: 1}, {}], head: segmenter", "needs a map"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(text: str, message: str):
    with pytest.raises(ArchError, match=message) as caught:
        network(text)
    assert "<text>:1:" in str(caught.value)


def test_no_output_is_called_like_something_of_a_module():
    own = {name for name in dir(nn.ModuleDict()) if not name.startswith("_")}
    makers = {name: getattr(getattr(nn.ModuleDict, name, None), "__module__", None) or "torch" for name in own}
    assert {
        name for name in own if not makers[name].startswith("transformers")
    } <= RESERVED  # which adds one of its own
    odd = network("heads: {logits: segmenter, x: {type: fcn, tap: stem}, self: {type: fcn, train: true}, head: fcn}")
    outputs = archdsl.build(odd, training=True)(images(2, 32))
    assert list(outputs) == ["logits", "x", "self", "head"]


def test_classes_from_data_reach_every_head_that_asks():
    spec = loads(
        SWIN + "heads: {logits: {type: segmenter, classes: data}, aux: {type: fcn, classes: data}}}", check=False
    )
    assert [each.head.classes for each in with_classes(spec, 5).heads] == [5, 5]


def test_networks_that_differ_in_their_ends_alone_are_other_networks():
    one = load("upernet_swin_t")
    others = [{"neck.0.scales": [1, 2]}, {"heads.aux.hidden": 128}, {"features.norm_eps": 1e-6}]
    assert all(load("upernet_swin_t", set=change) != one for change in others)
    for change in others:
        told = {
            path for path, value in _content(load("upernet_swin_t", set=change)).items() if value != _content(one)[path]
        }
        assert told == {next(iter(change)).partition(".")[0]}


def test_a_classifier_s_weights_fill_the_backbone(timm: ModuleType):
    small = load("upernet_swin_t", set=TINY["upernet_swin_t"])
    options = {
        "embed_dim": WIDTH,
        "depths": (2,) * 4,
        "num_heads": (3, 6, 12, 24),
        "window_size": 2,
        "img_size": (64, 96),
    }
    theirs = timm.create_model("swin_tiny_patch4_window7_224", **options)
    said: list[str] = []
    weights = archdsl.import_weights(small, theirs.state_dict(), "timm", new_head=True, say=said.append)
    assert torch.equal(
        weights["stages.2.blocks.1.mlp.fc1.weight"], theirs.state_dict()["layers.2.blocks.1.mlp.fc1.weight"]
    )
    assert any("a new head:" in note and "tensors, such as 'features.0.norm.weight'" in note for note in said)
    assert archdsl.build(small, weights).eval()(images(1, 64, 96)).shape == (1, 5, 64, 96)
    with pytest.raises(WeightsError, match="another network"):
        archdsl.import_weights(small, theirs.state_dict(), "timm")
