"""What `build` returns is an ordinary torch module: it trains, compiles, exports, copies and saves."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from timm_references import images, telling
from torch import Tensor, fx, nn
from torch.nn import functional as F

import archdsl
from archdsl.backends import backend
from archdsl.backends.torch.ops import StochasticDepth
from archdsl.language import loads
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec

HEADS = {"stages.0.heads": 1, "stages.1.heads": 2, "stages.2.heads": 4, "stages.3.heads": 8}
MICRO: dict[str, dict[str, int]] = {
    "swin_t": {"stem.dim": 16, "stages.2.depth": 2, **HEADS},
    "swin_free_t": {"stem.dim": 16, "stages.2.depth": 2, **HEADS},
    "swin_free_t_br": {"stem.dim": 16, "stages.2.depth": 2, **HEADS},
    "convnext_t": {"stem.dim": 16, "stages.2.depth": 2},
    "convnext_swin_t": {"stem.dim": 16, "stages.2.depth": 2, "stages.2.heads": 4, "stages.3.heads": 8},
    "vit_ti_16": {"stem.dim": 24, "stages.0.depth": 3},
}

BACK_AND_FORTH = """
name: back_and_forth
input: {size: 60}
defaults: {norm: layer}
stem: {type: patch, patch: 4, dim: 16}
stages:
  - blocks:
      - {block: swin, heads: 2, window: 4}
      - {block: convnext}
      - {block: swin, heads: 2, window: 7, shift: true}
      - {block: vit, heads: 2}
      - {block: swin, heads: 2, window: 5}
  - {block: convnext, depth: 1, downsample: patch_merging}
  - {block: swin, depth: 2, heads: 4, window: 4, shift: true, downsample: conv}
head: {type: classifier, classes: 10}
"""
"""Blocks of three kinds in turn on a 15 x 15 map: windows that divide it and ones that do not, planes in between."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster on one core than on several that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def micro(name: str, size: int = 64, **more: Any) -> Spec:
    return load(name, set={"input.size": size, "head.classes": 10, **MICRO[name], **more})


def built(spec: Spec, *, settled: bool = True) -> fx.GraphModule:
    """In eval mode, with telling weights."""
    module = archdsl.build(spec) if settled else backend("torch").emit(lower(spec))
    return calibrated(telling(module), images(4, *spec.input.size))


@torch.no_grad()
def calibrated(module: nn.Module, x: Tensor) -> nn.Module:
    """In eval mode, batch norms with the statistics of real images: a chain of wrong ones amplifies every rounding."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.momentum = 1.0
    if norms:
        module.train()(x)
    return module.eval()


def largest(x: Tensor) -> float:
    return x.abs().max().item()


@pytest.mark.parametrize(
    "spec",
    [
        micro("swin_t", 112),
        micro("swin_t", 100),
        micro("swin_t", 112, **{"stages.1.window": 5, "stages.2.window": 3}),
        micro("swin_free_t", 112),
        micro("swin_free_t", 100),
        micro("swin_free_t_br", 112),
        micro("swin_free_t_br", 112, **{"defaults.norm_axis": "token"}),
        micro("convnext_swin_t", 96),
        micro("convnext_t"),
        micro("vit_ti_16"),
        loads(BACK_AND_FORTH),
    ],
    ids=lambda spec: f"{spec.name}-{spec.input.size[0]}",
)
def test_settling_reorders_changes_no_logit(spec: Spec):
    plain, settled, x = built(spec, settled=False), built(spec), images(3, *spec.input.size)
    assert plain.state_dict().keys() == settled.state_dict().keys()
    settled.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        want, got = plain(x), settled(x)
    assert largest(want[1:] - want[:1]) > 0.1 * largest(want)
    assert largest(got - want) <= 1e-5 * largest(want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_precision_become_those_of_the_graph(dtype: torch.dtype):
    state = {name: x.to(dtype) for name, x in archdsl.build("micro_swin_free_br").state_dict().items()}
    module = archdsl.build("micro_swin_free_br", state).eval()
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert module(images(2, 32)).dtype == torch.float32


def test_a_module_keeps_a_copy_of_the_weights_it_was_given():
    state = archdsl.build("micro_swin").state_dict()
    module = archdsl.build("micro_swin", state)
    with torch.no_grad():
        module.get_parameter("head.fc.weight").zero_()
    assert largest(state["head.fc.weight"]) > 0


@pytest.mark.parametrize("name", ["swin_t", "swin_free_t_br", "convnext_swin_t", "vit_ti_16"])
def test_a_module_exports_with_a_free_batch(name: str):
    module, x = built(micro(name)), images(3, 64)
    program = torch.export.export(module, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("name", ["swin_t", "swin_free_t_br", "convnext_swin_t", "vit_ti_16"])
def test_a_module_compiles_without_graph_breaks(name: str):
    module, x = built(micro(name)).train(), images(2, 64)
    for drop in module.modules():
        if isinstance(drop, StochasticDepth):
            drop.rate = 0.0
    compiled = torch.compile(deepcopy(module), backend="aot_eager", fullgraph=True)
    for each in (module, compiled):
        each(x).square().sum().backward()
    wanted = {name: p.grad for name, p in module.named_parameters()}
    for name, p in compiled.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name.removeprefix("_orig_mod.")], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        micro("swin_t"),
        micro("swin_free_t_br"),
        micro("swin_free_t_br", **{"defaults.norm_axis": "token"}),
        micro("convnext_swin_t"),
        micro("vit_ti_16"),
    ],
    ids=lambda spec: f"{spec.name}-{getattr(spec.stages[-1].blocks[0], 'norm_axis', '')}",
)
def test_training_lowers_the_loss(spec: Spec):
    torch.manual_seed(0)
    module, x, labels = archdsl.build(spec).train(), images(8, 64), torch.arange(8)
    before = {name: buffer.clone() for name, buffer in module.named_buffers() if "running" in name}
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(module(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert all(p.grad is not None for p in module.parameters())
    assert all(not torch.equal(buffer, before[name]) for name, buffer in module.named_buffers() if "running" in name)
    assert len(before) == (0 if "br" not in spec.name else len([m for m in module.modules() if is_norm(m)]) * 2)


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d)


def test_drop_path_works_in_training_only_and_grows_over_the_blocks():
    module, x = built(micro("swin_t", drop_path=0.6)), images(3, 64)
    rates = [drop.rate for drop in module.modules() if isinstance(drop, StochasticDepth)]
    assert len(rates) == 2 * 7  # two for each block but the first, whose rate is 0
    assert all(one <= other for one, other in pairwise(rates))
    assert rates[-1] == pytest.approx(0.6)
    with torch.no_grad():
        assert torch.equal(module(x), module(x))
        module.train()
        assert not torch.equal(module(x), module(x))
        assert torch.equal(module.eval()(x), built(micro("swin_t", drop_path=0))(x))


def test_drop_path_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = StochasticDepth(0.3).train(), torch.ones(20_000, 2)
    y = drop(x)
    assert y.mean() == pytest.approx(1, abs=0.02)
    assert sorted(set(y[:, 0].tolist())) == [0, pytest.approx(1 / 0.7)]
    assert torch.equal(y[:, 0], y[:, 1])  # whole images


def test_a_copy_shares_nothing():
    module, x = built(micro("swin_t")), images(2, 64)
    copy = deepcopy(module)
    with torch.no_grad():
        assert torch.equal(copy(x), module(x))
        for p in copy.parameters():
            p.zero_()
        assert largest(module(x)) > 0
        assert largest(copy(x)) == 0


@pytest.mark.parametrize("name", ["swin_t", "swin_free_t_br"])
def test_a_state_dict_goes_out_and_in(name: str):
    module, x = built(micro(name)), images(2, 64)
    again = archdsl.build(micro(name), module.state_dict(), seed=1).eval()
    with torch.inference_mode():
        assert torch.equal(again(x), module(x))
    fresh = archdsl.build(micro(name), seed=1)
    fresh.load_state_dict(module.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), again.state_dict().values(), strict=True))


def test_parameters_have_the_names_that_timm_gives_them_inside_a_block():
    names = {name for name, _ in archdsl.build(micro("swin_t")).named_parameters()}
    block = "stages.1.blocks.0"
    assert {
        f"{block}.norm1.weight",
        f"{block}.attn.relative_position_bias_table",
        f"{block}.attn.qkv.weight",
        f"{block}.attn.proj.bias",
        f"{block}.mlp.fc1.weight",
        "stages.1.downsample.reduction.weight",
        "stem.proj.weight",
        "head.norm.weight",
        "head.fc.bias",
    } <= names


def test_the_code_of_a_module_can_be_read():
    code = archdsl.build(micro("swin_t")).code
    assert "self.stages" in code
    assert "def forward(self, image)" in code


def test_a_module_moves_to_another_number_format_with_its_masks():
    module, x = built(micro("swin_t")), images(2, 64)
    with torch.inference_mode():
        want = module(x)
    module.to(torch.bfloat16)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            got = module(x.to(torch.bfloat16))
        assert got.dtype is torch.bfloat16
        assert largest(got.float() - want) <= 0.05 * largest(want)
