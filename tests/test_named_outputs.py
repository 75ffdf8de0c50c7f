"""Networks with more outputs than inference needs: a distilled DeiT, from the graph to weights of other libraries."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from shipped import difference, telling_module
from timm_references import images, no_initialisation, telling
from torch import Tensor, nn

import archdsl
from archdsl.backends import backend
from archdsl.errors import ShapeError, WeightsError
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.passes.segments import segments_of

SMALL = {"input.size": 64, "stem.dim": 24, "stages.0.depth": 2, "head.classes": 10}
TOLERANCE = 1e-4


def small(**more: Any) -> Spec:
    return load("deit_ti_distilled", set={**SMALL, **more})


def of_timm(timm: ModuleType, **more: Any) -> nn.Module:
    sizes = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 10, **more}
    with no_initialisation():
        return telling(timm.create_model("deit_tiny_distilled_patch16_224", **sizes)).eval()


def of_hugging_face(transformers: ModuleType) -> nn.Module:
    config = transformers.DeiTConfig(
        image_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=10,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    return telling(transformers.DeiTForImageClassificationWithTeacher(config)).eval()


# --- the graph --------------------------------------------------------------------------------------------------------


def test_a_distilled_deit_answers_with_the_mean_and_has_both_heads_in_training():
    graph = lower(small())
    assert list(graph.outputs) == ["logits", "cls", "dist"]
    assert graph.training_outputs == {"cls", "dist"}
    assert list(graph.inference().outputs) == ["logits"]
    assert archdsl.compile(small()).outputs.keys() == {"logits"}
    assert list(archdsl.compile(small(), training=True).outputs) == ["logits", "cls", "dist"]
    assert archdsl.compile(small(), training=True).training_outputs == {"cls", "dist"}
    assert archdsl.deploy(small()).graph.outputs.keys() == {"logits"}


def test_a_network_without_such_outputs_is_the_graph_itself():
    graph = lower(load("micro_swin"))
    assert graph.inference() is graph


def test_an_identity_for_inference_does_not_see_what_only_training_reads():
    graph = lower(small())
    assert graph.hash(training=False) == graph.inference().hash(training=False)
    assert graph.hash() != graph.inference().hash()


def test_costs_tell_the_train_form_from_what_inference_needs(monkeypatch: pytest.MonkeyPatch):
    spec = small()
    both = archdsl.cost(spec)
    assert (both.params, both.macs) == (both.inference_params, both.training_macs)  # the mean reads both heads
    graph = lower(spec)
    graph.outputs["logits"] = graph.outputs["cls"]  # as with a head that only training has
    one = archdsl.cost(spec)
    assert (one.params, one.training_macs) == (both.params, both.training_macs)
    assert one.params - one.inference_params == 24 * 10 + 10
    assert one.training_macs - one.macs == 24 * 10


def test_weights_of_a_head_that_only_training_has_are_left_out_at_inference():
    spec = small()
    graph = lower(spec)
    graph.outputs["logits"] = graph.outputs["cls"]
    state = archdsl.build(spec, training=True).state_dict()
    module, x = archdsl.build(spec, state).eval(), images(2, 64)
    assert state.keys() - module.state_dict().keys() == {"head.fc_dist.weight", "head.fc_dist.bias"}
    assert archdsl.deploy(spec, state).graph.outputs.keys() == {"logits"}
    assert module(x).shape == (2, 10)
    with pytest.raises(WeightsError, match=r"has no tensor 'head.fc_dits.bias'"):
        archdsl.build(spec, {**state, "head.fc_dits.bias": state["head.fc_dist.bias"]})
    with pytest.raises(WeightsError, match=r"needs the tensor 'head.fc_dist.bias'"):
        archdsl.build(spec, {name: value for name, value in state.items() if name != "head.fc_dist.bias"})


@pytest.mark.parametrize(("field", "token"), [("stem.dist", "dist"), ("stem.cls", "cls")])
def test_a_head_without_its_token_says_which(field: str, token: str):
    with pytest.raises(ShapeError, match=rf"there is no `{token}`(.|\n)*write `{token}: true`"):
        lower(load("deit_ti_distilled", set={field: False}, check=False))


# --- the backends -----------------------------------------------------------------------------------------------------


def test_a_module_for_training_gives_a_mapping_and_one_for_inference_the_logits():
    spec = small()
    whole = telling_module(spec)
    train, x = archdsl.build(spec, whole.state_dict(), training=True).eval(), images(3, 64)
    with torch.inference_mode():
        want, got = whole(x), train(x)
    assert isinstance(want, Tensor) and list(got) == ["logits", "cls", "dist"]
    assert difference(got["logits"], want) <= 1e-6
    assert difference((got["cls"] + got["dist"]) / 2, want) <= 1e-6
    assert difference(got["cls"], got["dist"]) > 0.1


def test_every_weight_of_a_training_step_has_a_finite_gradient():
    module = archdsl.build(small(), training=True).train()
    answers = module(images(4, 64))
    (answers["cls"].square().mean() + answers["dist"].square().mean()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_a_train_form_in_onnx_has_all_outputs_by_name_and_a_deployed_one_the_logits(tmp_path: Path):
    spec = small()
    module = telling_module(spec)
    state, x = {name: value.numpy() for name, value in module.state_dict().items()}, images(2, 64)
    train = archdsl.build(spec, module.state_dict(), training=True).eval()
    with torch.inference_mode():
        want = train(x)
    archdsl.export_onnx(spec, tmp_path / "train.onnx", state, deploy=False, batch=None)
    archdsl.export_onnx(spec, tmp_path / "deploy.onnx", state, batch=None)
    for name, outputs in (("train", ["logits", "cls", "dist"]), ("deploy", ["logits"])):
        path = tmp_path / f"{name}.onnx"
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == outputs
        for output, got in zip(outputs, session.run(None, {"image": x.numpy()}), strict=True):
            assert difference(torch.from_numpy(np.asarray(got)), want[output]) <= 1e-5


def test_the_plain_pytorch_file_gives_the_same_answers(tmp_path: Path):
    spec = small()
    made: dict[str, Any] = {"__name__": "made"}
    exec(backend("source").emit_spec(spec), made)
    theirs, mine, x = made["DeitTiDistilled"](), telling_module(spec), images(2, 64)
    theirs.load_state_dict(mine.state_dict())
    train = archdsl.build(spec, mine.state_dict(), training=True).eval()
    with torch.inference_mode():
        want = train(x)
        assert difference(theirs.eval()(x), want["logits"]) <= 1e-6
        answers = theirs.train()(x)
    assert list(answers) == ["logits", "cls", "dist"]
    assert all(difference(answers[name], want[name]) <= 1e-6 for name in want)


def test_its_segments_are_those_of_inference():
    segments = segments_of(archdsl.compile(small()))
    assert sum(segment.graph.cost().macs for segment in segments) == archdsl.cost(small()).macs


# --- weights of other libraries ---------------------------------------------------------------------------------------


def compared(theirs: nn.Module, spec: Spec, source: str, answers: Any) -> None:
    """The mean of both heads, each head, and the gradients of both heads' sums with respect to the tensors of theirs.

    answers: their network and images -> its output for class and distillation token
    """
    weights = archdsl.import_weights(spec, theirs.state_dict(), source)
    mine, x = archdsl.build(spec, weights, training=True).eval(), images(3, *spec.input.size)
    got, (cls, dist) = mine(x), answers(theirs, x)
    assert difference(cls[1:], cls[:1].expand_as(cls[1:])) > 0.1, "these weights do not let the images through"
    assert difference(got["cls"], cls) <= TOLERANCE and difference(got["dist"], dist) <= TOLERANCE
    assert difference(got["logits"], (cls + dist) / 2) <= TOLERANCE
    (got["cls"].sum() + 2 * got["dist"].square().mean()).backward()
    (cls.sum() + 2 * dist.square().mean()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    wanted = archdsl.import_weights(spec, gradients, source)
    found = dict(mine.named_parameters())
    assert wanted.keys() == found.keys()
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    for name, want in wanted.items():
        assert float((found[name].grad - want).abs().max()) <= TOLERANCE * max(float(want.abs().max()), 1e-3 * largest)


def test_a_distilled_deit_equals_timm(timm: ModuleType):
    theirs = of_timm(timm)
    with torch.inference_mode():
        x = images(3, 64)
        mine = archdsl.build(small(), archdsl.import_weights(small(), theirs.state_dict(), "timm")).eval()
        assert difference(mine(x), theirs(x)) <= 1e-5
    theirs.set_distilled_training(True)
    theirs.train()  # without dropout in it, it only gives both answers
    compared(theirs, small(), "timm", lambda model, x: model(x))


@pytest.mark.parametrize(("spec", "name"), [("deit_s_distilled", "small"), ("deit_b_distilled", "base")])
def test_larger_ones_equal_timm_at_full_width(timm: ModuleType, spec: str, name: str):
    with no_initialisation():
        theirs = telling(timm.create_model(f"deit_{name}_distilled_patch16_224", depth=1)).eval()
    ours = load(spec, set={"stages.0.depth": 1})
    mine = archdsl.build(ours, archdsl.import_weights(ours, theirs.state_dict(), "timm")).eval()
    x = images(2, 224)
    with torch.inference_mode():
        assert difference(mine(x), theirs(x)) <= 1e-5


def test_a_distilled_deit_equals_hugging_faces(transformers: ModuleType):
    def answers(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        found = model(x)
        return found.cls_logits, found.distillation_logits

    compared(of_hugging_face(transformers), small(), "huggingface", answers)


def test_a_new_head_begins_both_classifiers_anew(timm: ModuleType):
    state = of_timm(timm).state_dict()
    said: list[str] = []
    new = archdsl.import_weights(small(), state, "timm", new_head=True, say=said.append)
    assert not torch.equal(new["head.fc.weight"], state["head.weight"])
    assert not torch.equal(new["head.fc_dist.weight"], state["head_dist.weight"])
    assert torch.equal(new["head.norm.weight"], state["norm.weight"])
    assert "head.fc_dist.weight" in said[0]


def test_its_positions_fit_another_image_size(timm: ModuleType):
    said: list[str] = []
    archdsl.import_weights(small(**{"input.size": 96}), of_timm(timm).state_dict(), "timm", say=said.append)
    assert said == [
        "the position embedding was resampled (bicubic) from 4x4 to 6x6 places, since the image size is another"
    ]
