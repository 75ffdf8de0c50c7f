"""The source backend: a file that a person could have written, and that computes what the module computes.

The largest difference of logits may be TOLERANCE of the largest logit, in eval mode and, with the same random numbers,
in training mode; there our module multiplies attention out, and the file does not.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_blocks import odd_blocks  # noqa: F401
from timm_references import images, telling
from torch import Tensor, nn

import archdsl
from archdsl.backends.source import file as source
from archdsl.backends.source.emitters import EMITTERS
from archdsl.cli.main import run
from archdsl.errors import BackendError
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.order import Planes
from archdsl.ir.types import TensorType
from archdsl.language import loads
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec

TOLERANCE = 1e-6
TRAINING_TOLERANCE = 3e-6
GRADIENT_TOLERANCE = 1e-4
ROOT = Path(__file__).parent.parent
SPECS = sorted(path.stem for path in (ROOT / "specs").glob("*.yaml"))
HEADS = {"stages.0.heads": 1, "stages.1.heads": 2, "stages.2.heads": 4, "stages.3.heads": 8}
SMALL = {"stem.dim": 16, "stages.2.depth": 2}
SMALL_SWIN: dict[str, Any] = {"input.size": 112, **SMALL, **HEADS}
TOKEN_BR = {"defaults.norm_axis": "token", **{f"stages.{i}.window": w for i, w in enumerate((7, 14, 14, 7))}}


def network(spec: Spec) -> nn.Module:
    """The network of the file, made in a namespace of its own."""
    text = source.emit_spec(spec)
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(text, f"{spec.name}.py", "exec"), names)
    made = names[re.findall(r"^class (\w+)", text, re.MULTILINE)[-1]]()
    assert isinstance(made, nn.Module)
    return made


def pair(spec: Spec) -> tuple[nn.Module, nn.Module]:
    """Our module and the file's network, with the same telling weights."""
    ours, theirs = telling(archdsl.build(spec)), network(spec)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def difference(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


def assert_same(spec: Spec) -> None:
    ours, theirs = pair(spec)
    x = images(3, *spec.input.size)
    with torch.inference_mode():
        want = ours.eval()(x)
        assert difference(want[1:], want[:1].expand(2, -1)) > 0.05, "these weights do not let the images through"
        assert difference(theirs.eval()(x), want) <= TOLERANCE
        torch.manual_seed(0)
        want = ours.train()(x)
        torch.manual_seed(0)
        assert difference(theirs.train()(x), want) <= TRAINING_TOLERANCE
    state = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        if tensor.is_floating_point():
            assert difference(tensor, state[name]) <= TRAINING_TOLERANCE, name


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_has_a_file_with_the_same_state_dict(name: str):
    spec = load(name)
    with torch.device("meta"):
        made = network(spec)
    state = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items() if "num_batches" not in name}
    assert state == {name: tensor.shape for name, tensor in lower(spec).tensors().items()}
    learnt = {name for name, _ in made.named_parameters()}
    assert learnt == {name for name, tensor in lower(spec).tensors().items() if tensor.learnable}


@pytest.mark.parametrize("name", SPECS)
def test_every_file_imports_torch_alone_and_is_formatted(name: str, tmp_path: Path):
    text = source.emit_spec(load(name), version="1.2.3")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} == {"torch"}
        elif isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "torch", "torch.nn")
    file = tmp_path / "network.py"
    file.write_text(text)
    for check in (["format", "--check"], ["check", "--select", "E,F,I,B,UP,SIM"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "120", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_swin_t_is_short_and_has_one_class_for_each_kind_of_block():
    text = source.emit_spec(load("swin_t"))
    assert len(text.splitlines()) < 250
    classes = re.findall(r"^class (\w+)", text, re.MULTILINE)
    assert classes == [
        "DropPath",
        "PatchStem",
        "WindowAttention",
        "Mlp",
        "SwinBlock",
        "PatchMerging",
        "Classifier",
        "Stage",
        "SwinT",
    ]
    assert "for i in range(6)" in text and text.count("SwinBlock(dim") == 4


@pytest.mark.parametrize("name", SPECS)
def test_no_shipped_network_needs_two_classes_for_one_kind(name: str):
    text = source.emit_spec(load(name))
    assert not re.findall(r"^class (SwinBlock|VitBlock|ConvNextBlock|PatchMerging|Mlp|\w*Attention)\d", text, re.M)
    most = 420 if load(name).neck else 320  # GhostNet and iAFF have several forms of block, a neck has parts of its own
    assert len(text.splitlines()) <= most


def test_the_depth_does_not_lengthen_the_file():
    shallow, deep = (source.emit_spec(load("swin_free_b", set={"stages.2.depth": depth})) for depth in (12, 40))
    assert len(shallow.splitlines()) == len(deep.splitlines())


@pytest.mark.promise(15)
@pytest.mark.parametrize("name", ["swin_t", "convnext_swin_t"])
def test_the_text_is_the_same_each_time(name: str):
    imports = "from archdsl.backends.source import file as source; from archdsl.language.architecture.load import load"
    code = f"{imports}; print(source.emit_spec(load({name!r})))"
    texts = set()
    for seed in ("0", "1", "77"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        texts.add(done.stdout)
    assert texts == {source.emit_spec(load(name)) + "\n"}


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": ("swin_t", {**SMALL, **HEADS}),
    "swin_free": ("swin_free_t", {**SMALL, **HEADS}),
    "swin_free_br": ("swin_free_t_br", {**SMALL, **HEADS}),
    "swin_free_br_by_token": ("swin_free_t_br", {**SMALL, **HEADS, **TOKEN_BR}),
    "vit": ("vit_ti_16", {"stem.dim": 24, "stages.0.depth": 2}),
    "convnext": ("convnext_t", SMALL),
    "resnet": ("resnet_50", {"input.size": 64, "stages.2.depth": 2, "stages.*.drop_path": 0.1}),
    "resnext": ("resnext_50", {"input.size": 64, "stages.1.depth": 1, "stages.2.depth": 1}),
    "roadmap": ("roadmap_12", {"input.size": 64, "stages.2.depth": 2}),
    "ghostnet": ("ghostnet_100", {"input.size": 64, "head.dropout": 0.0}),
    "iaff": ("iaff_resnet_50", {"input.size": 64, "stages.1.depth": 1, "stages.2.depth": 1, "stages.3.depth": 1}),
    "convnext_swin": ("convnext_swin_t", {**SMALL, "stages.2.heads": 4, "stages.3.heads": 8}),
    "micro_swin": ("micro_swin", {}),
    "micro_swin_free": ("micro_swin_free", {}),
    "micro_swin_free_br": ("micro_swin_free_br", {}),
    "micro_swin_isolated": ("micro_swin_isolated", {}),
    "windows of many sizes": ("swin_t", SMALL_SWIN | {f"stages.{i}.window": w for i, w in enumerate((5, 7, 3, 2))}),
    "windows that cover maps": ("swin_t", SMALL_SWIN | {f"stages.{i}.window": w for i, w in enumerate((9, 5, 14, 20))}),
    "one window a map": ("swin_t", SMALL_SWIN | {f"stages.{i}.window": w for i, w in enumerate((28, 14, 7, 4))}),
    "different blocks": (
        "swin_t",
        SMALL_SWIN
        | {
            "stages.0.shift": [True, False],
            "stages.1.mlp_ratio": [2.5, 3],
            "stages.2.norm_eps": 1e-2,
            "stages.2.window": [7, 5],
            "stages.3.position_bias": ["relative", "none"],
            "defaults.act": "gelu_tanh",
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_the_module_computes(name: str):
    spec, settings = NETWORKS[name]
    assert_same(load(spec, set=settings))


@pytest.mark.parametrize("size", [120, 100, [112, 80], [52, 212], [28, 32]], ids=str)
def test_padded_windows_and_odd_maps_are_exact(size: int | list[int]):
    assert_same(load("swin_t", set=SMALL_SWIN | {"input.size": size}))


MIXED = """
name: mixed
input: {size: 60}
stem: {type: patch, patch: 4, dim: 16}
stages:
  - blocks:
      - {block: swin, heads: 2, window: 4}
      - {block: convnext}
      - {block: swin, heads: 2, window: 7, shift: true}
      - {block: vit, heads: 2}
      - {block: convnext, kernel: 5, layer_scale: null}
      - {block: swin, heads: 2, window: 5}
  - {block: convnext, depth: 1, downsample: patch_merging}
  - {block: swin, depth: 2, heads: 4, window: 4, shift: true, downsample: conv}
head: {type: classifier, classes: 10}
"""


def test_blocks_of_several_kinds_in_one_stage():
    assert_same(loads(MIXED, "mixed.yaml"))


ODD = """
name: {name}
input: {{size: [44, 36]}}
stem: {{type: patch, patch: 4, dim: 16}}
stages:
  - {{block: {block}, depth: 2}}
  - {{block: {block}, depth: 3, downsample: patch_merging, dim: 24}}
head: {{type: {head}, classes: 10}}
"""


@pytest.mark.usefixtures("odd_blocks")
@pytest.mark.parametrize("block", ["numbered", "wandering", "carrying"])
@pytest.mark.parametrize("head", ["classifier", "tapping"])
def test_blocks_of_others_are_written_too(block: str, head: str):
    text = ODD.format(name=f"{block}_{head}", block=block, head=head)
    if block == "carrying":  # what it carries has the size of the map
        text = text.replace(", downsample: patch_merging, dim: 24", "")
    assert_same(loads(text, "odd.yaml"))


@pytest.mark.usefixtures("odd_blocks")
def test_blocks_that_share_no_form_have_a_class_each():
    text = ODD.format(name="odd", block="growing, layers: [1, 2]", head="classifier")
    spec = loads(text.replace("[1, 2], depth: 3", "[3, 1, 2], depth: 3"), "odd.yaml")
    assert_same(spec)
    made = source.emit_spec(spec)
    assert re.findall(r"^class (Growing\d*)", made, re.MULTILINE) == ["Growing", "Growing2", "Growing3"]
    assert "self.inner = nn.Module()" in made and "class Inner" not in made


def _no_ruff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruff", None)


def _failing_ruff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ruff.find_ruff_bin", lambda: "/bin/false")


@pytest.mark.parametrize("break_ruff", [_no_ruff, _failing_ruff])
def test_without_ruff_the_same_program_is_written_unformatted(break_ruff: Any, monkeypatch: pytest.MonkeyPatch):
    formatted = source.source_file(load("swin_t"))
    break_ruff(monkeypatch)
    made = source.source_file(load("swin_t"))
    assert formatted.note is None
    assert made.note is not None and "is not formatted, because ruff cannot run" in made.note
    assert made.text != formatted.text
    assert ast.dump(ast.parse(made.text)) == ast.dump(ast.parse(formatted.text))


def test_a_build_without_ruff_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _no_ruff(monkeypatch)
    assert run(["build", "micro_swin", "--emit", "source", "-o", str(tmp_path / "out")]) == 0
    assert "note: the source file is not formatted, because ruff cannot run" in capsys.readouterr().err
    (artefact,) = json.loads((tmp_path / "out" / "build.json").read_text())["artefacts"]
    assert artefact["note"].startswith("the source file is not formatted")


def test_the_block_of_the_example_is_written():
    example = runpy.run_path(str(ROOT / "examples" / "01_own_block.py"))
    spec = loads(example["NET"], "local_then_swin.yaml")
    assert_same(spec)
    assert source.emit_spec(spec).count("class LocalBlock") == 1


def test_gradients_equal_the_modules():
    spec = load("swin_t", set=SMALL_SWIN | {"input.size": 100})
    ours, theirs = pair(spec)
    x = images(2, 100)
    for model in (ours.eval(), theirs.eval()):
        (model(x) * torch.randn(2, 1000, generator=torch.Generator().manual_seed(2))).sum().backward()
    wanted = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        gradient = wanted[name]
        assert parameter.grad is not None and gradient is not None, name
        assert difference(parameter.grad, gradient) <= GRADIENT_TOLERANCE, name


def test_a_fresh_network_trains():
    torch.manual_seed(0)
    made = network(load("micro_swin", set={"drop_path": 0.3}))
    x, wanted = images(12, 32), torch.arange(12)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(made(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_names_and_sources_cannot_write_code():
    text = '"""\\nimport os\\n"""'
    graph = lower(load("micro_swin"))
    made = source.emit(graph, source=f"https://example.org/{text}\nimport os", version='1"""\\')
    modules = [node for node in ast.parse(made).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all("os" not in ast.unparse(node).split() for node in modules)
    assert made.count("import os") == ast.get_docstring(ast.parse(made), clean=False).count("import os")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["2_fast", "none", "stage", "torch", "größe", "mlp", "n-a.m e"])
def test_any_name_makes_a_class(name: str):
    spec = load("micro_swin")
    graph = lower(spec)
    text = source.emit(Graph(name, graph.nodes, graph.outputs))
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(text, names)
    assert names[re.findall(r"^class (\w+)", text, re.MULTILINE)[-1]]()(images(1, 32)).shape == (1, 12)


class Unknown(Op):
    """An op that nobody has an emitter for."""

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]


def test_an_op_without_an_emitter_is_named():
    graph = Graph("strange")
    x = graph.input("image", TensorType((3, 8, 8), order=Planes(8, 8)))
    graph.output("y", graph.add(Unknown(), x, path="stem.strange"))
    with pytest.raises(BackendError, match="the source backend cannot emit the op Unknown"):
        source.emit(graph)


def test_every_op_that_lowering_makes_has_an_emitter():
    made = {type(node.op) for name in SPECS for node in lower(load(name)).nodes}
    assert {op.__name__ for op in made - EMITTERS.keys()} == {"Input"}
