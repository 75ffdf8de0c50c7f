"""Windows that are not square: `window: 7x14`, height x width."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from onnx_runs import run as run_onnx
from same_function import torch_outputs
from test_parity import SMALL, assert_same_logits, small_swin
from test_source import pair
from timm_references import images
from torch import nn

import archdsl
from archdsl.backends.onnx import model as onnx_model
from archdsl.cli.main import run
from archdsl.errors import ArchError
from archdsl.language import load, loads, loads_space
from archdsl.language.architecture.model import Spec

SIDES = ["7x14", "14x7", "4x6", "7x3"]
"""By stage of a map of 28x28, 14x14, 7x7, 4x4: one side inside the map, padded, larger than it; odd and even."""


def wide(*sides: Any) -> dict[str, Any]:
    return {f"stages.{stage}.window": side for stage, side in enumerate(sides)}


def theirs_and_spec(timm: ModuleType) -> tuple[nn.Module, Spec]:
    sides = [tuple(map(int, text.split("x"))) for text in SIDES]
    return small_swin(timm, window_size=sides), load("swin_t", set=SMALL | wide(*SIDES))


def test_windows_of_7x14_equal_timms(timm: ModuleType):
    theirs = small_swin(timm, window_size=(7, 14))
    assert_same_logits(theirs, load("swin_t", set=SMALL | {"stages.*.window": "7x14"}))


def test_another_form_for_each_stage_equals_timms_in_logits_and_gradients(timm: ModuleType):
    theirs, spec = theirs_and_spec(timm)
    assert_same_logits(theirs, spec)
    mine, x = archdsl.build(spec, archdsl.import_weights(spec, theirs.state_dict())).eval(), images(2, 112)
    direction = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))
    for model in (theirs, mine):
        (model(x) * direction).sum().backward()
    wanted = archdsl.import_weights(spec, {name: p.grad for name, p in theirs.named_parameters()})
    for name, p in mine.named_parameters():
        assert (p.grad - wanted[name]).abs().max() <= 1e-4 * wanted[name].abs().max() > 0, name


def test_every_backend_computes_the_same():
    spec = load("swin_t", set=SMALL | wide(*SIDES))
    ours, written = pair(spec)
    x = images(2, 112)
    weights = {name: value.numpy() for name, value in ours.state_dict().items()}
    with torch.inference_mode():
        want = ours.eval()(x)
        (deployed,) = torch_outputs(archdsl.deploy(spec, ours.state_dict()), [x.numpy()])
        by_file = written.eval()(x)
    (by_onnx,) = run_onnx(onnx_model.emit(archdsl.compile(spec), weights), x.numpy())
    for got in (deployed, by_file.numpy(), by_onnx):
        assert np.abs(got - want.numpy()).max() <= 1e-5 * want.abs().max().item()


def test_a_block_may_have_a_window_of_its_own():
    spec = load("swin_t", set={"stages.1.window": [7, "7x14"]})
    assert [block.window for block in spec.stages[1].blocks] == [7, (7, 14)]
    assert loads(spec.to_yaml()) == spec


def test_a_square_window_written_with_both_sides_is_the_same_network():
    assert archdsl.identity(load("swin_t", set={"stages.*.window": "7x7"})) == archdsl.identity(load("swin_t"))


def test_attention_costs_what_its_windows_hold():
    square, tall, wider = (archdsl.cost(load("swin_t", set={"stages.0.window": w})) for w in (7, "14x7", "7x14"))
    assert tall.macs == wider.macs == square.macs + 2 * 2 * 56 * 56 * 49 * 96
    assert tall.params == square.params + 2 * 3 * (27 * 13 - 13 * 13)


def test_a_space_offers_both_kinds():
    space = loads_space("{base: swin_t, choices: {stages.0.window: [7, 7x14]}}")
    assert space.choices[0].labels == ("7", "7x14")
    assert space.spec({"stages.0.window": 1}).stages[0].blocks[0].window == (7, 14)


def test_show_tells_height_and_width(capsys: pytest.CaptureFixture[str]):
    assert run(["show", "swin_t", "--set", "stages.*.window=7x14"]) == 0
    out = capsys.readouterr()
    assert "windows 7x14, shift 3x7" in out.out
    assert "window 7x14 is larger than the 7x7 map one way and became 7x7" in out.out + out.err


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ("7x", "`window` must be a whole number or height x width, such as `7x14`, but got"),
        ("7", "leave the quotes out"),
        ("0x7", "`window` must be at least 1"),
        ("9000x3", "`window` must be at most 8192"),
        ("7x14\n", "height x width"),
        (0, "`window` must be at least 1, but got `0`"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window: Any, message: str):
    with pytest.raises(ArchError, match=message):
        load("swin_t", set={"stages.0.window": window})
