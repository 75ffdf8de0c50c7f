"""T2T-ViT computes what its paper says, in every form.

No package has it, so the truth is a second formula: written from arXiv 2101.11986 and 2009.14794, on a state dict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx_runs import checked
from onnx_runs import run as run_onnx
from same_function import torch_outputs
from shipped import assert_telling, difference, numbers_of
from test_source import network
from timm_references import images, telling
from torch import Tensor, nn
from torch.nn import functional as F

import archdsl
from archdsl.backends.initial import initial_weights
from archdsl.errors import RuleBroken, ShapeError
from archdsl.ir.order import Planes, Raster
from archdsl.ir.types import TensorType
from archdsl.language import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.ops.performer import LinearAttention, PositiveFeatures, Unfold
from archdsl.report.stages import stage_facts

SMALL: dict[str, Any] = {
    "stem.dim": 48,
    "stem.inner_dim": 16,
    "stages.0.depth": 2,
    "stages.0.heads": 3,
    "head.classes": 50,
}
SIZES = {"square": (64, 64), "flat": (52, 84)}
"""Maps of 16x16, 8x8 and 4x4; of 13x21, 7x11 and 4x6."""


def small(name: str = "t2t_vit_14", size: tuple[int, int] = SIZES["square"], **more: Any) -> Spec:
    return load(name, set={**SMALL, "input.size": list(size), **more})


def told(spec: Spec) -> nn.Module:
    """Telling weights, the fixed ones other than they are too, so that none is made anew from its formula."""
    module = telling(archdsl.build(spec)).eval()
    draw = torch.Generator().manual_seed(3)
    for name, fixed in module.named_buffers():
        if name.startswith("stem."):
            fixed.normal_(0, 0.5, generator=draw)
    return module


# --- the second formula ---------------------------------------------------------------------------------------------


def t2t_vit(w: dict[str, Tensor], x: Tensor, *, performer: bool, heads: int) -> Tensor:
    """Section 3.1 and figure 4: soft split, token transformer, soft split, token transformer, soft split, backbone."""
    for kernel, stride, padding, name in ((7, 4, 2, "transformer1"), (3, 2, 1, "transformer2"), (3, 2, 1, None)):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
        tokens = nn.Unfold(kernel, stride=stride, padding=padding)(x).mT
        if name is not None:
            tokens = token_transformer(w, f"stem.{name}", tokens, performer)
            x = tokens.mT.reshape(len(x), -1, height, width)
    z = linear(w, "stem.project", tokens)
    z = torch.cat([w["stem.cls_token"].repeat(len(z), 1, 1), z], 1) + w["stem.pos_embed"]
    depth = 1 + max(int(name.split(".")[3]) for name in w if name.startswith("stages."))
    for block in (f"stages.0.blocks.{index}" for index in range(depth)):
        q, k, v = (
            part.unflatten(2, (heads, -1)).transpose(1, 2)
            for part in (normed(w, f"{block}.norm1", z) @ w[f"{block}.attn.qkv.weight"].T).chunk(3, 2)
        )
        shares = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[3] ** 0.5, 3)
        z = z + linear(w, f"{block}.attn.proj", torch.einsum("bhqk,bhkd->bqhd", shares, v).flatten(2))
        z = z + feed_forward(w, f"{block}.mlp", normed(w, f"{block}.norm2", z))
    return linear(w, "head.fc", normed(w, "head.norm", z)[:, 0])


def token_transformer(w: dict[str, Tensor], at: str, x: Tensor, performer: bool) -> Tensor:
    """The branch's result is added to v, which has the width that x has not."""
    y = normed(w, f"{at}.norm1", x)
    if performer:
        k, q, v = linear(w, f"{at}.kqv", y).chunk(3, 2)
        k, q = (features(w[f"{at}.w"], each) for each in (k, q))
        products = torch.einsum("bqm,bkm->bqk", q, k)  # equation 4 of Performer, in time that grows with the square
        mixed = products @ v / (products.sum(2, keepdim=True) + 1e-8)
    else:
        q, k, v = (y @ w[f"{at}.qkv.weight"].T).chunk(3, 2)
        mixed = torch.softmax(q @ k.mT / x.shape[2] ** 0.5, 2) @ v
    x = v + linear(w, f"{at}.proj", mixed)
    return x + feed_forward(w, f"{at}.mlp", normed(w, f"{at}.norm2", x))


def features(w: Tensor, x: Tensor) -> Tensor:
    """exp(w x - |x|^2 / 2) / sqrt(m), feature by feature."""
    return torch.stack([torch.exp(x @ row - (x**2).sum(2) / 2) for row in w], 2) / len(w) ** 0.5


def normed(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    centred = x - x.mean(2, keepdim=True)
    deviation = (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * w[f"{at}.weight"] + w[f"{at}.bias"]


def linear(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]


def feed_forward(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    return linear(w, f"{at}.fc2", F.gelu(linear(w, f"{at}.fc1", x)))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", ["t2t_vit_14", "t2t_vit_t_14"])
def test_logits_and_gradients_equal_the_second_formula(name: str, size: tuple[int, int]):
    spec = small(name, size)
    mine, x = told(spec), images(3, *size)
    state = {key: value.detach().clone() for key, value in mine.state_dict().items()}
    learnt = {key: state[key].requires_grad_() for key, _ in mine.named_parameters()}
    want, got = t2t_vit(state, x, performer=name == "t2t_vit_14", heads=3), mine(x)
    assert_telling(want)
    assert difference(got, want) <= 1e-5
    direction = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    ((got + want) * direction).sum().backward()
    for key, parameter in mine.named_parameters():
        assert learnt[key].grad.any(), key
        assert difference(parameter.grad, learnt[key].grad) <= 1e-4, key


# --- the backends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", ["t2t_vit_14", "t2t_vit_t_14"])
def test_every_backend_and_the_deployed_network_compute_the_same(name: str, size: tuple[int, int]):
    spec = small(name, size)
    mine, x, written = told(spec), images(2, *size), network(spec)
    assert dict(written.named_parameters()).keys() == dict(mine.named_parameters()).keys()
    written.load_state_dict(mine.state_dict())
    with torch.inference_mode():
        want, by_file = mine(x), written.eval()(x)
    assert_telling(want)
    deployed = archdsl.deploy(spec, mine.state_dict())
    (by_torch,) = torch_outputs(deployed, [x.numpy()])
    (by_onnx,) = run_onnx(checked(archdsl.compile(spec), numbers_of(mine)), x.numpy())
    (deployed_onnx,) = run_onnx(checked(deployed.graph, deployed.weights), x.numpy())
    for got in (by_file.numpy(), by_torch, by_onnx, deployed_onnx):
        assert difference(torch.from_numpy(got), want) <= 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt-rtx"])
def test_the_form_for_a_runtime_computes_the_same(runtime: str, tmp_path: Any):
    import onnxruntime

    spec = small()
    mine, x, path = told(spec), images(1, *spec.input.size), tmp_path / "model.onnx"
    archdsl.export_onnx(spec, path, numbers_of(mine), batch=1, runtime=runtime)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert difference(torch.from_numpy(got), mine(x)) <= 1e-5


def test_in_fp16_random_features_stay_fp32():
    deployed = archdsl.deploy(small(), precision="fp16").graph
    kinds = (PositiveFeatures, LinearAttention)
    assert {node.type.dtype for node in deployed.live() if isinstance(node.op, kinds)} == {"f32"}


def test_a_training_step_gives_every_parameter_a_finite_gradient_and_leaves_what_is_fixed():
    spec = small()
    module = told(spec).train()
    before = {name: value.clone() for name, value in module.named_buffers()}
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(images(2, *spec.input.size)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())


def test_show_tells_attention_by_random_features_from_softmax():
    names = ("t2t_vit_14", "t2t_vit_t_14")
    stems = [stage_facts(graph, graph)[0] for graph in (lower(small(name)) for name in names)]
    assert [stem.attention for stem in stems] == [{"linear": 2}, {"global": 2}]


# --- what is fixed --------------------------------------------------------------------------------------------------


def test_positions_are_waves_and_random_features_stand_at_right_angles_in_the_network_and_in_its_file():
    spec = small()
    graph = lower(spec)
    fixed = {name for name, tensor in graph.tensors().items() if not tensor.learnable}
    assert fixed == {"stem.pos_embed", "stem.transformer1.w", "stem.transformer2.w"}
    ours, theirs = initial_weights(graph), network(spec).state_dict()
    for weights in (ours, {name: value.numpy() for name, value in theirs.items()}):
        table = weights["stem.pos_embed"]
        assert table.shape == (1, 17, 48)
        for token, channel in ((0, 0), (0, 1), (3, 0), (16, 10), (5, 47)):
            angle = token / 10000 ** (channel // 2 * 2 / 48)
            assert table[0, token, channel] == pytest.approx((np.cos if channel % 2 else np.sin)(angle), abs=1e-5)
        w = weights["stem.transformer1.w"]
        np.testing.assert_allclose(w @ w.T, 8 * np.eye(8), atol=1e-5)  # each row sqrt(m) long
    assert not np.array_equal(ours["stem.transformer1.w"], ours["stem.transformer2.w"])
    assert not np.array_equal(ours["stem.transformer1.w"], initial_weights(graph, seed=1)["stem.transformer1.w"])


def test_fixed_positions_are_made_anew_for_another_image_size():
    notes: list[str] = []
    spec, state = small(size=(96, 64)), archdsl.build(small()).state_dict()
    weights = archdsl.import_weights(spec, state, source="archdsl", say=notes.append)
    assert torch.equal(weights["stem.pos_embed"], archdsl.build(spec).state_dict()["stem.pos_embed"])
    assert torch.equal(weights["stem.transformer1.w"], state["stem.transformer1.w"])
    assert any("the fixed positions were made anew for 25 tokens" in note for note in notes)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Unfold(3, 2, 1), [TensorType((8, 4, 4), order=Planes(4, 4))], r"Unfold needs a map in raster order"),
        (Unfold(7, 1), [TensorType((16, 8), order=Raster(4, 4))], r"a kernel of 7 does not fit"),
        (PositiveFeatures(8, 4, 2), [TensorType((16, 8))], r"PositiveFeatures needs 16 channels"),
        (LinearAttention(), [TensorType((16, 8)), TensorType((16, 4)), TensorType((16, 4))], r"do not fit"),
    ],
)
def test_ops_refuse_what_does_not_fit(op: Any, inputs: list[TensorType], message: str):
    with pytest.raises(RuleBroken, match=message):
        op.infer(*inputs)


def test_an_inner_width_without_features_says_so():
    with pytest.raises(ShapeError, match=r"a performer needs inner_dim 2 or more(.|\n)*use 2 or more"):
        lower(load("t2t_vit_14", set={"stem.inner_dim": 1}, check=False))
