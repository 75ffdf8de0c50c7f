"""ResNet, ResNeXt and the steps from ResNet-50 to ConvNeXt compute what their papers say."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import load_torchvision
from shipped import assert_telling, difference, telling_module
from timm_references import images, no_initialisation, telling
from torch import Tensor, fx, nn
from torch.nn import functional

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.source import file as source
from archdsl.backends.torch import fx as torch_fx
from archdsl.errors import ArchError, RuleBroken
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.order import Planes, Raster
from archdsl.ir.types import TensorType
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec
from archdsl.ops.joining import AddVector, Concat, Mul, MulVector, Sub
from archdsl.ops.norm import Affine, BatchNorm
from archdsl.ops.pointwise import Activation
from archdsl.ops.pooling import Pool2d
from archdsl.ops.tokens import Reorder
from archdsl.passes.propagate_layouts import propagate_layouts

SIZE = 64
SMALL = {"input.size": SIZE, **{f"stages.{i}.depth": 2 for i in range(4)}}


def settled(model: nn.Module) -> nn.Module:
    """Telling weights, and running statistics near those of images, so that numbers stay of one size."""
    telling(model)
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.9
    with torch.no_grad():
        model.train()(images(4, SIZE, seed=7))
    return model.eval()


def of_timm(layers: tuple[int, ...], **options: Any) -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, layers, zero_init_last=False, **options)


def of_torchvision(layers: tuple[int, ...], **options: Any) -> nn.Module:
    load_torchvision()
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, list(layers), **options)


def of_huggingface(layers: tuple[int, ...]) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    class Logits(ResNetForImageClassification):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).logits

    return Logits(ResNetConfig(depths=list(layers), num_labels=1000))


def with_weights_of(theirs: nn.Module, spec: Spec, source: str) -> fx.GraphModule:
    return archdsl.build(spec, archdsl.import_weights(spec, theirs.state_dict(), source)).eval()


def assert_same_logits(mine: nn.Module, theirs: nn.Module) -> None:
    x = images(3, SIZE)
    with torch.inference_mode():
        want = theirs(x)
        assert_telling(want)
        assert difference(mine(x), want) <= 1e-5


@pytest.mark.promise(13)
def test_resnet_50_equals_timm_in_logits_and_gradients(timm: ModuleType):
    with no_initialisation():
        theirs = of_timm((3, 4, 6, 3))
    theirs, spec = settled(theirs), load("resnet_50", set={"input.size": SIZE})
    assert_same_learning(with_weights_of(theirs, spec, "timm"), theirs, spec)


def assert_same_learning(mine: nn.Module, theirs: nn.Module, spec: Spec) -> None:
    """Equal logits, and equal gradients of a random projection of them."""
    assert_same_logits(mine, theirs)
    x = images(2, SIZE)
    direction = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))
    for model in (theirs, mine):
        (model(x) * direction).sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    buffers = {name: each for name, each in theirs.named_buffers() if ".running_" in name}
    wanted = archdsl.import_weights(spec, grads | buffers)
    for name, parameter in mine.named_parameters():
        assert wanted[name].abs().max() > 0, name
        assert difference(parameter.grad, wanted[name]) <= 1e-4, name


def test_resnext_50_equals_timm(timm: ModuleType):
    theirs = settled(of_timm((2, 2, 2, 2), cardinality=32, base_width=4))
    assert_same_logits(with_weights_of(theirs, load("resnext_50", set=SMALL), "timm"), theirs)


def test_resnet_50_equals_torchvision():
    theirs = settled(of_torchvision((2, 2, 2, 2)))
    assert_same_logits(with_weights_of(theirs, load("resnet_50", set=SMALL), "torchvision"), theirs)


def test_resnet_50_equals_transformers():
    theirs = settled(of_huggingface((2, 2, 2, 2)))
    assert_same_logits(with_weights_of(theirs, load("resnet_50", set=SMALL), "huggingface"), theirs)


def test_ghostnet_equals_timm_in_logits_and_gradients(timm: ModuleType):
    theirs = settled(timm.create_model("ghostnet_100"))
    spec = load("ghostnet_100", set={"input.size": SIZE})
    assert_same_learning(with_weights_of(theirs, spec, "timm"), theirs, spec)


# --- the roadmap: a second formula ---------------------------------------------------------------------------------

ROWS = ["01", "02", "03", "04", "05", "06", "07", "07a", "07b", "07c", "08", "09", "10", "11", "12a", "12"]


def roadmap(w: dict[str, Tensor], x: Tensor, row: str) -> Tensor:
    """The network after a row of table 10 of arXiv 2201.03545, by the number of the row alone.

    As in the authors' code (anonymous20222022/convnext at 03c78ad), with our names of the tensors. Row 12a is the norm
    before the classifier, which their code adds between rows 11 and 12.
    """
    step = {"12a": 11.5}.get(row, float(row.rstrip("abc")))

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        groups, padding = x.shape[1] // weight.shape[1], 0 if weight.shape[-1] % 2 == 0 else weight.shape[-1] // 2
        return functional.conv2d(x, weight, w.get(f"{name}.bias"), stride, padding, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        if step >= 11:
            return functional.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, 1e-6).movedim(-1, 1)
        return functional.batch_norm(x, w[f"{name}.running_mean"], w[f"{name}.running_var"], weight, bias)

    act = functional.gelu if step >= 8 else functional.relu

    def block(x: Tensor, path: str, stride: int) -> Tensor:
        y = x
        for number in (1, 2, 3):
            here = stride if number == (1 if step >= 6 else 2) else 1
            y = conv(y, f"{path}.conv{number}", here)
            y = norm(y, f"{path}.norm{number}") if step < 10 or number == 1 else y
            y = act(y) if number == 2 or (number == 1 and step < 9) else y
        if f"{path}.shortcut.conv.weight" in w:
            x = norm(conv(x, f"{path}.shortcut.conv", stride), f"{path}.shortcut.norm")
        return act(x + y) if step < 9 else x + y

    if step >= 2:
        x = functional.conv2d(x, w["stem.proj.weight"], w["stem.proj.bias"], stride=4)
    else:
        x = functional.max_pool2d(functional.relu(norm(conv(x, "stem.conv1", 2), "stem.norm1")), 3, 2, 1)
    for stage in range(4):
        if stage and step >= 12:
            x = conv(x, f"stages.{stage}.downsample.conv", 2)
        for number in range(2):
            halve = 2 if stage and not number and step < 12 else 1
            x = block(x, f"stages.{stage}.blocks.{number}", halve)
    x = x.mean((2, 3))
    x = norm(x, "head.norm") if step > 11 else x
    return x @ w["head.fc.weight"].T + w["head.fc.bias"]


@pytest.mark.parametrize("row", ROWS)
def test_each_step_of_the_roadmap_computes_the_row_of_the_paper(row: str):
    module = telling_module(load(f"roadmap_{row}", set=SMALL))
    x = images(2, SIZE)
    with torch.inference_mode():
        want = roadmap(dict(module.state_dict()), x, row)
        assert_telling(want)
        assert difference(module(x), want) <= 1e-5


# --- attentional feature fusion: a second formula ---------------------------------------------------------------------


def weighed(w: dict[str, Tensor], x: Tensor, y: Tensor, path: str, of: Tensor) -> Tensor:
    """x M + y (1 - M), M = sigmoid(L(of) + G(of)), by equations 1 and 3 of arXiv 2009.14082."""

    def by(name: str, z: Tensor) -> Tensor:
        weight = w[f"{path}.{name}.weight"].flatten(1)
        return torch.einsum("bchw,dc->bdhw", z, weight) + w[f"{path}.{name}.bias"][:, None, None]

    def norm(name: str, z: Tensor) -> Tensor:
        mean, var, weight, bias = (
            w[f"{path}.{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (z - mean) / (var + 1e-5).sqrt() * weight + bias

    total: Any = 0
    for where, first, second, z in (
        ("local", "conv1", "conv2", of),
        ("whole", "fc1", "fc2", of.mean((2, 3), keepdim=True)),
    ):
        z = norm(f"{where}.norm1", by(f"{where}.{first}", z)).clamp(min=0)
        total = total + norm(f"{where}.norm2", by(f"{where}.{second}", z))
    share = 1 / (1 + torch.exp(-total))
    return x * share + y * (1 - share)


@pytest.mark.parametrize("kind", ["aff", "iaff"])
def test_a_fused_sum_is_the_papers(kind: str):
    spec = load(f"{kind}_resnet_50", set=SMALL | {"stages.3.fuse_ratio": 4})
    with torch.inference_mode():
        seen = values_of(spec, images(2, SIZE))
    w = dict(telling_module(spec).double().state_dict())
    for block in ("stages.2.blocks.0", "stages.3.blocks.1"):
        x, y = seen[f"{block}.norm3"], seen[f"{block}.shortcut.norm" if block.endswith("0") else f"{block[:-1]}0.act"]
        want = weighed(w, x, y, f"{block}.fuse.first", x + y)
        if kind == "iaff":
            want = weighed(w, x, y, f"{block}.fuse.second", want)
        assert difference(seen[f"{block}.act"], want.clamp(min=0)) <= 1e-9
        assert difference((x + y).clamp(min=0), want.clamp(min=0)) > 0.1


def test_the_shortcut_of_a_fused_resnet_takes_means_of_2x2():
    spec = load("aff_resnet_50", set=SMALL | {"input.size": 72})
    with torch.inference_mode():
        seen = values_of(spec, images(2, 72))
    x, w = (
        seen["stages.1.blocks.1.act"],
        telling_module(spec).double().state_dict()["stages.2.blocks.0.shortcut.conv.weight"],
    )
    assert x.shape[-1] == 9  # odd: the last neighbourhoods are 1 wide
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=float("nan"))
    means = padded.unflatten(3, (5, 2)).unflatten(2, (5, 2)).nanmean((3, 5))
    want = torch.einsum("bchw,dc->bdhw", means, w.flatten(1))
    assert difference(seen["stages.2.blocks.0.shortcut.conv"], want) <= 1e-9


def values_of(spec: Spec, x: Tensor) -> dict[str, Tensor]:
    """What each node computes with telling weights, in float64, by its path."""

    module, x = telling_module(spec).double(), x.double()

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            by_name[n.name] = value
            return value

    by_name: dict[str, Tensor] = {}
    Recorder(module).run(x)
    paths = [node.path for node in archdsl.compile(spec).live()]
    return {path: by_name[name] for path in paths if (name := path.replace(".", "_")) in by_name}


# --- ops on planes --------------------------------------------------------------------------------------------------

PLANES = TensorType((4, 7, 6), order=Planes(7, 6))


def computed(op: Op, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """What torch and ONNX Runtime make of `x` by `op`, and its tensors."""
    g = Graph()
    g.output("y", g.add(op, g.input("x", PLANES), path="y"))
    random = np.random.default_rng(0)
    weights = {
        name: random.uniform(0.5, 2, value.shape).astype(np.float32) for name, value in initial_weights(g).items()
    }
    with torch.no_grad():
        by_torch = torch_fx.emit(g, weights).eval()(torch.from_numpy(x)).numpy()
    model = onnx_model.serialize(onnx_model.emit(g, weights))
    by_onnx = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return by_torch, by_onnx, {name.removeprefix("y."): value for name, value in weights.items()}


JOINED = {  # op -> the second type, and the formula
    Mul(): (PLANES, lambda x, y: x * y),
    Sub(): (PLANES, lambda x, y: x - y),
    MulVector(): (TensorType((4,)), lambda x, y: x * y[:, :, None, None]),
    AddVector(): (TensorType((4,)), lambda x, y: x + y[:, :, None, None]),
    Concat(): (TensorType((3, 7, 6), order=Planes(7, 6)), lambda x, y: np.concatenate([x, y], axis=1)),
}


@pytest.mark.parametrize("op", JOINED, ids=lambda op: type(op).__name__)
def test_what_joins_two_values_computes_its_formula_in_every_backend(op: Op):
    other, formula = JOINED[op]
    g = Graph()
    g.output("y", g.add(op, g.input("a", PLANES), g.input("b", other), path="y"))
    random = np.random.default_rng(1)
    a, b = (random.normal(size=(2, *type.shape)).astype(np.float32) for type in (PLANES, other))
    want = formula(a, b)
    by_torch = torch_fx.emit(g)(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    model = onnx_model.serialize(onnx_model.emit(g, {}))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names: dict[str, Any] = {}
    exec(source.emit(g), names)
    by_source = names["Network"]()(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    for got in (by_torch, session.run(None, {"a": a, "b": b})[0], by_source):
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-6


@pytest.mark.parametrize("op", [Mul(), Sub(), MulVector(), AddVector(), Concat()], ids=lambda op: type(op).__name__)
def test_what_does_not_fit_together_is_refused(op: Op):
    for wrong in (TensorType((5,)), PLANES.in_order(Raster(7, 6)), TensorType((4, 3, 6), order=Planes(3, 6))):
        with pytest.raises(RuleBroken, match="got x"):
            op.infer(PLANES, wrong)


def test_channels_side_by_side_follow_the_order_of_their_map():
    """Two maps on tokens, made of planes and joined there: nothing is moved."""
    tokens = Raster(7, 6)
    g = Graph()
    x = g.input("x", PLANES)
    halves = [
        g.add(Reorder(tokens), g.add(Activation(name), x, path=name), path=f"{name}.r") for name in ("relu", "silu")
    ]
    g.output("y", g.add(Reorder(Planes(7, 6)), g.add(Concat(), *halves, path="cat"), path="y"))
    after = propagate_layouts(g)
    assert not any(isinstance(node.op, Reorder) for node in after.live())
    x_in = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 4, 7, 6)).astype(np.float32))
    assert torch.equal(torch_fx.emit(g)(x_in), torch_fx.emit(after)(x_in))


@pytest.mark.parametrize("name", ["sigmoid", "hardsigmoid"])
def test_gates_lie_between_0_and_1(name: str):
    x = np.random.default_rng(1).normal(0, 4, (2, 4, 7, 6)).astype(np.float32)
    by_torch, by_onnx, _ = computed(Activation(name), x)
    want = 1 / (1 + np.exp(-x)) if name == "sigmoid" else np.clip(x / 6 + 0.5, 0, 1)
    assert np.abs(by_torch - want).max() < 1e-6
    assert np.abs(by_onnx - want).max() < 1e-6


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(3, 2, 1, False), (2, 2, 0, False), (3, 1, 0, False), (2, 2, 0, True), (3, 3, 1, True)],
)
def test_pooling_looks_at_what_lies_on_the_map_alone(kind: str, kernel: int, stride: int, padding: int, ceil: bool):
    x = np.random.default_rng(1).normal(-3, 1, (2, 4, 7, 6)).astype(np.float32)
    by_torch, by_onnx, _ = computed(Pool2d(kind, kernel, stride, padding, ceil), x)
    reduce = np.max if kind == "max" else np.mean
    for row, column in np.ndindex(by_torch.shape[2:]):
        top, left = (max(place * stride - padding, 0) for place in (row, column))
        below, right = row * stride - padding + kernel, column * stride - padding + kernel
        want = reduce(x[:, :, top:below, left:right], axis=(2, 3))
        assert np.abs(by_torch[:, :, row, column] - want).max() < 1e-6
        assert np.abs(by_onnx[:, :, row, column] - want).max() < 1e-6
    rows = np.ceil((7 + 2 * padding - kernel) / stride) if ceil else (7 + 2 * padding - kernel) // stride
    assert by_torch.shape == by_onnx.shape
    assert by_torch.shape[2] == rows + 1


@pytest.mark.parametrize("op", [BatchNorm(4), Affine(4)], ids=lambda op: type(op).__name__)
def test_norms_of_planes_have_one_number_for_each_channel(op: Op):
    x = np.random.default_rng(1).normal(size=(2, 4, 7, 6)).astype(np.float32)
    by_torch, by_onnx, w = computed(op, x)
    scale, shift = w["weight"], w["bias"]
    if isinstance(op, BatchNorm):
        scale = scale / np.sqrt(w["running_var"] + op.eps)
        shift = shift - w["running_mean"] * scale
    want = x * scale[:, None, None] + shift[:, None, None]
    assert np.abs(by_torch - want).max() < 1e-5
    assert np.abs(by_onnx - want).max() < 1e-5


def test_what_works_by_channel_stays_on_planes_or_on_tokens():
    tokens = PLANES.in_order(Raster(7, 6))
    norm = BatchNorm(4)
    assert norm.order_in(Planes(7, 6), PLANES) == Planes(7, 6)
    assert norm.order_in(Raster(7, 6), tokens) == Raster(7, 6)
    assert norm.order_in(Raster(7, 6), PLANES) is None
    assert norm.order_in(Planes(7, 6), tokens) is None


def test_a_pooling_that_does_not_fit_is_refused():
    with pytest.raises(RuleBroken, match="does not fit"):
        Pool2d("max", 9, 1).infer(PLANES)
    with pytest.raises(RuleBroken, match="half the kernel"):
        Pool2d("max", 2, 1, 2).infer(PLANES)
    with pytest.raises(RuleBroken, match="planes"):
        Pool2d("max", 2, 1).infer(PLANES.in_order(Raster(7, 6)))
    assert Reorder(Planes(7, 6)).infer(PLANES) == PLANES


# --- the fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.1.kernel": 4}, "the kernel must be odd"),
        ({"stages.0.groups": 7}, "groups must divide the width inside"),
        ({"stages.0.ratio": 0.001}, "the width inside must be at least 1"),
        ({"stem.stride": [2, 1]}, "a stride for each convolution"),
        ({"stages.0.dim": 0}, "greater than or equal to 1|at least 1"),
        ({"stages.0.act_after": [4]}, "act_after"),
    ],
    ids=str,
)
def test_a_bottleneck_that_cannot_be_is_refused_with_its_place(change: dict[str, Any], message: str):
    with pytest.raises(ArchError, match=message) as caught:
        archdsl.compile(load("resnet_50", set=change))
    assert next(iter(change)) in str(caught.value)


def test_a_stage_halves_once_and_has_the_width_it_says_or_twice_that_before():
    spec = load("resnet_50")
    assert [block.stride for block in spec.stages[1].blocks] == [2, 1, 1, 1]
    assert [block.dim for block in spec.stages[0].blocks] == [256, 256, 256]
    graph = archdsl.compile(spec)
    shapes = {node.path: node.type.shape for node in graph.live()}
    assert [shapes[f"stages.{i}.blocks.2.act"] for i in range(4)] == [
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
    ]


def test_a_stage_with_a_downsample_gives_it_its_dim():
    spec = load("roadmap_12", set={"stages.1.dim": 100})
    assert spec.stages[1].dim == 100
    assert spec.stages[1].blocks[0].dim is None
    assert archdsl.compile(spec).live()


def test_the_file_of_a_resnet_says_what_pytorch_says():
    text = source.emit_spec(load("resnet_50"))
    assert "nn.BatchNorm2d" in text and "F.max_pool2d(" in text
