"""LeViT computes what timm's computes, in every form."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from onnx_runs import checked
from onnx_runs import run as run_onnx
from same_function import after, torch_outputs
from shipped import assert_telling, difference, numbers_of, telling_module
from test_source import network
from timm_references import images, telling
from torch import fx, nn

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.errors import RuleBroken, ShapeError
from archdsl.ir.graph import Graph
from archdsl.ir.order import Planes, Raster
from archdsl.ir.types import TensorType
from archdsl.language import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.norm import Affine, BatchNorm
from archdsl.ops.pointwise import Average
from archdsl.ops.subsampling import OffsetBias, Subsample
from archdsl.passes.average_linears import average

SQUARE, FLAT = (160, 160), (112, 208)
"""Maps of 10x10, 5x5 and 3x3; of 7x13, 4x7 and 2x4: odd sides are halved upwards."""
SMALL: dict[str, Any] = {
    "stem.dims": [4, 8, 16, 32],
    **{f"stages.{i}.depth": 1 for i in range(3)},
    "stages.1.dim": 48,
    "stages.2.dim": 64,
    "defaults.key_dim": 8,
    "head.classes": 50,
}


def small(size: tuple[int, int] = SQUARE, **more: Any) -> Spec:
    return load("levit_256", set={**SMALL, "input.size": list(size), **more})


def of_timm(timm: ModuleType, size: tuple[int, int], name: str = "levit_256") -> nn.Module:
    """The small network with telling weights, and running statistics near those of images."""
    widths: dict[str, Any] = {"embed_dim": (32, 48, 64), "key_dim": 8, "depth": (1, 1, 1), "num_classes": 50}
    model = telling(timm.create_model(name, img_size=size, **widths))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 0.9
    with torch.no_grad():
        model.train()(images(6, *size, seed=7))
    return model.eval()


def ours(spec: Spec, theirs: nn.Module, **how: Any) -> fx.GraphModule:
    return archdsl.build(spec, archdsl.import_weights(spec, theirs.state_dict()), **how)


@pytest.mark.promise(13)
@pytest.mark.parametrize("size", [SQUARE, FLAT])
def test_levit_equals_timm_in_logits_and_gradients(timm: ModuleType, size: tuple[int, int]):
    theirs, spec = of_timm(timm, size), small(size)
    mine, x = ours(spec, theirs).eval(), images(4, *size)
    direction = torch.randn(4, 50, generator=torch.Generator().manual_seed(2))
    want, got = theirs(x), mine(x)
    assert_telling(want)
    assert difference(got, want) <= 1e-5
    ((want + got) * direction).sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    wanted = archdsl.import_weights(spec, grads | {k: v for k, v in theirs.named_buffers() if ".running_" in k})
    for name, parameter in mine.named_parameters():
        assert wanted[name].any(), name
        assert difference(parameter.grad, wanted[name]) <= 1e-4, name


def test_timms_form_of_convolutions_has_the_same_weights(timm: ModuleType):
    theirs, x = of_timm(timm, SQUARE, "levit_conv_256"), images(3, *SQUARE)
    assert sum(tensor.ndim == 4 for tensor in theirs.state_dict().values()) > 4, "its linears are convolutions"
    with torch.inference_mode():
        want = theirs(x)
        assert_telling(want)
        assert difference(ours(small(), theirs).eval()(x), want) <= 1e-5


def test_the_two_heads_equal_timms_in_training(timm: ModuleType):
    theirs = of_timm(timm, SQUARE).train()
    theirs.set_distilled_training()
    mine, x = ours(small(), theirs, training=True).train(), images(4, *SQUARE)
    with torch.no_grad():
        cls, dist = theirs(x)
        got = mine(x)
    assert list(got) == ["logits", "cls", "dist"]
    assert difference(got["cls"], cls) <= 1e-4 and difference(got["dist"], dist) <= 1e-4
    assert difference(cls, dist) > 0.1


def test_rows_are_taken_from_head_by_head_from_timm_alone():
    """Our own weights come back as they were: only a library's table says that its rows are head by head."""
    spec = small()
    state = archdsl.build(spec).state_dict()
    back = archdsl.import_weights(spec, state, source="archdsl")
    assert all(torch.equal(back[name], state[name]) for name in back)


@pytest.mark.parametrize("size", [SQUARE, FLAT])
def test_every_backend_and_the_deployed_network_compute_the_same(size: tuple[int, int]):
    spec = small(size)
    mine, x = telling_module(spec), images(2, *size)
    written = network(spec)
    written.load_state_dict(mine.state_dict())
    numbers = numbers_of(mine)
    with torch.inference_mode():
        want, by_file = mine(x), written.eval()(x)
    assert_telling(want)
    deployed = archdsl.deploy(spec, mine.state_dict())
    kinds = [type(node.op) for node in deployed.graph.live()]
    assert not {BatchNorm, Affine, OffsetBias, Average} & {*kinds}
    assert kinds.count(Linear) == 1 + 3 * 4 + 2 * 5, "one head; four linears a block; two more for q and k, v between"
    assert all(node.op.scale == 1 for node in deployed.graph.live() if isinstance(node.op, Attention))
    (by_torch,) = torch_outputs(deployed, [x.numpy()])
    (by_onnx,) = run_onnx(checked(archdsl.compile(spec), numbers), x.numpy())
    (deployed_onnx,) = run_onnx(checked(deployed.graph, deployed.weights), x.numpy())
    for got in (by_file.numpy(), by_torch, by_onnx, deployed_onnx):
        assert difference(torch.from_numpy(got), want) <= 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_the_form_for_a_runtime_computes_the_same(runtime: str, tmp_path: Any):
    import onnxruntime

    spec = small()
    mine, x, path = telling_module(spec), images(1, *SQUARE), tmp_path / "model.onnx"
    archdsl.export_onnx(spec, path, numbers_of(mine), batch=1, runtime=runtime)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert difference(torch.from_numpy(got), mine(x)) <= 5e-5


def test_a_block_starts_as_the_identity_in_the_network_and_in_its_file():
    spec = small()
    starts, written = initial_weights(archdsl.compile(spec)), network(spec).state_dict()
    for weights in (starts, {name: value.numpy() for name, value in written.items()}):
        assert not weights["stages.1.blocks.0.attn.proj_norm.weight"].any()
        assert not weights["stages.1.downsample.mlp.fc2_norm.weight"].any()
        assert weights["stages.1.downsample.shrink.proj_norm.weight"].all()
        assert weights["stages.1.blocks.0.mlp.fc1_norm.weight"].all()


def test_a_training_step_gives_every_parameter_a_finite_gradient():
    module = telling(archdsl.build(small(), training=True)).train()
    answers = module(images(4, *SQUARE))
    (answers["cls"].square().mean() + answers["dist"].square().mean()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_all_blocks_of_levit_384_drop_paths_at_one_rate():
    graph = lower(load("levit_384"))
    assert {node.op.rate for node in graph.live() if type(node.op).__name__ == "DropPath"} == {0.1}


# --- its ops and its pass -------------------------------------------------------------------------------------------


def test_a_bias_by_distance_is_the_column_of_the_distance():
    op = OffsetBias((3, 4), heads=2, stride=2)
    table = np.arange(24.0, dtype=np.float32).reshape(2, 12)
    bias = op.value([], {"": table})
    assert bias.shape == op.infer().shape == (1, 2, 4, 12)
    for query, (y, x) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        for key in range(12):
            assert bias[0, 1, query, key] == table[1, abs(y - key // 4) * 4 + abs(x - key % 4)]


def test_subsampling_needs_a_map_row_by_row():
    g = Graph()
    with pytest.raises(RuleBroken, match=r"Subsample needs a map in raster order, but got f32\[B, 8, 4, 4\]"):
        g.add(Subsample(2), g.input("x", TensorType((8, 4, 4), order=Planes(4, 4))), path="s")


def averaged(*, second_bias: bool = True, also_out: bool = False) -> Graph:
    g = Graph()
    x = g.input("x", TensorType((6, 8), order=Raster(2, 3)))
    a, b = g.add(Linear(8, 4), x, path="a"), g.add(Linear(8, 4, bias=second_bias), x, path="b")
    g.output("y", g.add(Average(), a, b, path="mean"))
    if also_out:
        g.output("a", a)
    return g


def test_the_mean_of_two_linears_is_one():
    network = after(average, graph=averaged())
    assert [type(node.op).__name__ for node in network.graph.live()] == ["Input", "Linear"]


@pytest.mark.parametrize("how", [{"second_bias": False}, {"also_out": True}])
def test_linears_that_differ_or_are_read_elsewhere_stay_two(how: dict[str, bool]):
    assert any(isinstance(node.op, Average) for node in after(average, graph=averaged(**how)).graph.live())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.1.downsample.key_dim": 100}, r"key_dim may be as much as the width, but got 100 at width 32"),
        ({"stages.0.mlp_ratio": 0.001}, r"mlp_ratio 0.001 of width 32 must be at least 1(.|\n)*raise mlp_ratio"),
    ],
)
def test_what_does_not_fit_says_so(change: dict[str, Any], message: str):
    with pytest.raises(ShapeError, match=message):
        lower(load("levit_256", set=SMALL | change, check=False))


def test_biases_by_distance_need_a_map():
    change = {"stages.0": {"block": "levit", "depth": 1, "heads": 2, "key_dim": 8}}
    with pytest.raises(ShapeError, match=r"biases by distance need a map(.|\n)*use a stem without a class token"):
        lower(load("vit_ti_16", set=change, check=False))
