"""Checkpoints as trainers write them: what is taken is told, heads are replaced on request, tables are adapted."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_torchvision
from safetensors.torch import save_file
from timm_references import images, telling
from torch import Tensor, nn
from torch.nn import functional

import archdsl
from archdsl.cli.main import run
from archdsl.errors import WeightsError
from archdsl.language.architecture.load import load
from archdsl.weights.checkpoints import chosen
from archdsl.weights.from_file import weights_from_file
from archdsl.weights.importing import import_with_notes, names_of
from archdsl.weights.reading import read_weights_file

TINY = {"stem.dim": 8, "stages.*.depth": 1, "stages.*.heads": 1}
NAMES = ("stem.", "stages.", "head.")


def state(spec: str = "micro_swin", seed: int = 1, **options: Any) -> dict[str, Tensor]:
    """The initial weights of a small network, none of them neutral."""
    module = archdsl.build(load(spec, set={**TINY, **options} if spec == "micro_swin" else options), seed=seed)
    return {name: tensor.clone() for name, tensor in telling(module, seed).state_dict().items()}


def notes(weights: dict[str, Tensor], set: dict[str, Any] | None = None, **options: Any) -> tuple[str, ...]:
    return import_with_notes(load("micro_swin", set={**TINY, **(set or {})}), weights, "archdsl", **options).notes


# --- wrappers ------------------------------------------------------------------------------------------------------

PLAIN, MEAN = {"w": torch.ones(2)}, {"w": torch.zeros(2)}


@pytest.mark.parametrize(
    ("content", "ema", "want", "key"),
    [
        ({"state_dict": PLAIN, "state_dict_ema": MEAN, "epoch": 1}, False, PLAIN, "state_dict"),
        ({"state_dict": PLAIN, "state_dict_ema": MEAN}, True, MEAN, "state_dict_ema"),
        ({"model": PLAIN, "model_ema": {"module": MEAN}}, True, MEAN, "model_ema.module"),
        ({"model_state_dict": PLAIN, "optimizer_state_dict": {}}, False, PLAIN, "model_state_dict"),
        ({"state_dict_ema": MEAN, "epoch": 3}, False, MEAN, "state_dict_ema"),
        ({"module": PLAIN, "lr": 0.1}, True, PLAIN, "module"),
        ({"swin": PLAIN, "epoch": 1}, False, PLAIN, "swin"),
        ({"net": PLAIN, "optimizer": {"lr": 0.1}, "steps": {3: torch.ones(1)}}, False, PLAIN, "net"),
        (PLAIN, True, PLAIN, ""),
    ],
    ids=["timm", "timm ema", "torchvision ema", "tutorial", "only ema", "deepspeed", "own key", "beside", "bare"],
)
def test_the_weights_are_found_in_their_wrapper(content: Any, ema: bool, want: Any, key: str):
    found = chosen(content, ema=ema)
    assert (found.state, found.key) == (want, key)
    assert found.averaged == (want is MEAN)


def test_what_was_left_is_told():
    note = chosen({"state_dict": PLAIN, "state_dict_ema": MEAN}).note()
    assert note == "the plain weights were taken, from 'state_dict', and not 'state_dict_ema'; --ema takes it"


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".ckpt"])
def test_settings_beside_the_weights_are_read_over(tmp_path: pathlib.Path, suffix: str):
    settings = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/x")),
        "metric": np.float64(0.5),
        "history": collections.defaultdict(list, {1: [2]}),
        "curve": np.arange(3),
    }
    file = tmp_path / f"w{suffix}"
    torch.save({"state_dict": PLAIN, "state_dict_ema": MEAN, **settings}, file)
    assert read_weights_file(file, allow_pickle=True).tensors["w"].tolist() == [1, 1]
    assert read_weights_file(file, allow_pickle=True, ema=True).tensors["w"].tolist() == [0, 0]


def test_the_classes_of_settings_are_not_imported(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """A yacs configuration, whose package stands in the way with a file that tells of its import."""
    (tmp_path / "yacs").mkdir()
    code = "class CfgNode(dict):\n    pass\n"
    (tmp_path / "yacs" / "config.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from yacs.config import CfgNode  # type: ignore[import-untyped, import-not-found, unused-ignore]

    torch.save({"model": PLAIN, "config": CfgNode(lr=1)}, tmp_path / "w.pth")
    told = tmp_path / "told"
    (tmp_path / "yacs" / "config.py").write_text(f"open({str(told)!r}, 'w')\n{code}")
    assert read_weights_file(tmp_path / "w.pth", allow_pickle=True).notes == (
        "the plain weights were taken, from 'model'",
    )
    assert not told.exists()


class Bad:
    def __init__(self, call: tuple[Any, ...]):
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Bad((os.system, ("true",))), "posix.system"),
        (Bad((eval, ("1",))), "eval"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
    ids=["system", "eval", "module"],
)
def test_a_refused_global_is_named_without_advice_to_trust_it(tmp_path: pathlib.Path, value: Any, name: str):
    torch.save({"model": PLAIN, "args": argparse.Namespace(x=value)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_weights_file(tmp_path / "w.pth", allow_pickle=True)
    text = str(caught.value)
    assert name in text
    assert not any(word in text for word in ("safe_globals", "weights_only", "Please", "trust"))


def index(folder: pathlib.Path, places: Any) -> pathlib.Path:
    save_file({"a": torch.ones(1), "more": torch.ones(1)}, folder / "1.safetensors")
    save_file({"b": torch.zeros(2)}, folder / "2.safetensors")
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return file


def test_the_files_of_an_index_are_one(tmp_path: pathlib.Path):
    file = index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    assert {name: tensor.tolist() for name, tensor in read_weights_file(file).tensors.items()} == {
        "a": [1],
        "b": [0, 0],
    }


@pytest.mark.parametrize(
    ("places", "rule"),
    [
        ({"a": "../1.safetensors"}, "wrong-value"),
        ({"a": "model.safetensors.index.json"}, "wrong-value"),
        ({"a": "3.safetensors"}, "missing-file"),
        ({"b": "1.safetensors"}, "damaged"),
        ({"a": "1.bin"}, "missing-file"),
        (["a"], "damaged"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: pathlib.Path, places: Any, rule: str):
    with pytest.raises(WeightsError) as caught:
        read_weights_file(index(tmp_path, places))
    assert caught.value.problems[0].rule == rule


# --- prefixes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "backbone.", "net._orig_mod.", "model.module.x."]
)
def test_a_prefix_is_taken_off_and_told(prefix: str):
    weights = {prefix + name: tensor for name, tensor in state().items()}
    found = import_with_notes(load("micro_swin", set=TINY), weights, "archdsl")
    assert found.notes == (f"the prefix {prefix!r} was taken off the names",)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state().items())


@pytest.mark.parametrize(("plain", "mean"), [("model.", "ema_model."), ("", "model_ema.module."), ("net.", "ema.")])
def test_averages_under_a_prefix_are_taken_by_choice(plain: str, mean: str):
    weights = {plain + name: tensor for name, tensor in state(seed=1).items()}
    weights |= {mean + name: tensor for name, tensor in state(seed=2).items()}
    spec = load("micro_swin", set=TINY)
    for ema, seed in ((False, 1), (True, 2)):
        found = import_with_notes(spec, weights, "archdsl", ema=ema)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in state(seed=seed).items())
        assert found.averaged == ema
        (left,) = (note for note in found.notes if "were left" in note)
        assert ("averaged" if not ema else "plain") in left
        assert ("these are averaged weights (EMA)" in found.notes) == ema


@pytest.mark.parametrize("where", ["a file of averages", "averages in a file", "no averages"])
def test_averages_are_asked_for_once(tmp_path: pathlib.Path, where: str):
    """A file whose averages were taken as a whole holds no others under a prefix."""
    path = tmp_path / "weights.pth"
    plain, mean = state(seed=1), state(seed=2)
    content = {
        "a file of averages": {"state_dict": plain, "state_dict_ema": mean},
        "averages in a file": {"model." + key: one for key, one in plain.items()}
        | {"ema_model." + key: one for key, one in mean.items()},
        "no averages": plain,
    }[where]
    torch.save(content, path)
    spec = load("micro_swin", set=TINY)
    if where == "no averages":
        with pytest.raises(WeightsError, match=r"there are no averaged weights \(EMA\) in .*weights\.pth"):
            weights_from_file(spec, path, "archdsl", allow_pickle=True, ema=True)
        return
    found = weights_from_file(spec, path, "archdsl", allow_pickle=True, ema=True)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in mean.items())
    assert weights_from_file(spec, path, "archdsl", allow_pickle=True).weights.keys() == mean.keys()


# --- heads ---------------------------------------------------------------------------------------------------------


def test_a_new_head_has_initial_weights_and_the_rest_is_the_files():
    weights, spec = state(**{"head.classes": 5}), load("micro_swin", set=TINY)
    with pytest.raises(WeightsError, match="--new-head"):
        archdsl.import_weights(spec, weights, "archdsl")
    told: list[str] = []
    got = archdsl.import_weights(spec, weights, "archdsl", new_head=True, seed=3, say=told.append)
    fresh = archdsl.build(spec, seed=3).state_dict()
    for name, tensor in got.items():
        assert torch.equal(tensor, (fresh if name.startswith("head.fc.") else weights)[name]), name
    assert "the file's has 5 outputs" in told[0]


@pytest.mark.parametrize("lost", ["head.fc.", "head."])
@pytest.mark.parametrize("extra", [None, "pooler.dense.weight", "head_dist.weight"])
def test_a_backbone_loads_where_a_new_head_is_asked_for(lost: str, extra: str | None):
    weights = {name: tensor for name, tensor in state().items() if not name.startswith(lost)}
    weights |= {extra: torch.ones(1)} if extra else {}
    assert "the file has none" in " ".join(notes(weights, new_head=True))
    with pytest.raises(WeightsError):
        notes(weights)


def test_a_new_head_excuses_nothing_else():
    weights = state()
    del weights["stem.proj.bias"]
    with pytest.raises(WeightsError, match=r"'stem\.proj\.bias'"):
        notes(weights, new_head=True)


def test_a_new_head_is_offered_where_the_number_of_classes_alone_differs():
    spec = load("micro_swin", set=TINY)
    width = state()["head.fc.weight"].shape[1]
    for weight, bias, offered in (
        (torch.ones(5, width), torch.ones(5), True),
        (torch.ones(5, 3), torch.ones(5), False),
    ):
        with pytest.raises(WeightsError) as caught:
            archdsl.import_weights(spec, {**state(), "head.fc.weight": weight, "head.fc.bias": bias}, "archdsl")
        hints = [problem.hint or "" for problem in caught.value.problems if "'head.fc.weight'" in problem.message]
        assert ["--new-head" in hint for hint in hints] == [offered]


def test_a_new_head_is_that_of_seed_0_unless_another_is_asked_for():
    weights, spec = state(**{"head.classes": 5}), load("micro_swin", set=TINY)
    heads = [
        archdsl.import_weights(spec, weights, "archdsl", new_head=True, **seed)["head.fc.weight"]
        for seed in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    found = import_with_notes(spec, weights, "archdsl", new_head=True)
    assert torch.equal(found.weights["head.fc.weight"], heads[0])


# --- tables --------------------------------------------------------------------------------------------------------

TABLE = "stages.0.blocks.0.attn.relative_position_bias_table"


def grid(table: Tensor) -> Tensor:
    side = round(table.shape[0] ** 0.5)
    return table.reshape(side, side, -1)


def test_what_fits_is_not_touched_and_nothing_is_told():
    assert notes(state()) == ()


@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 2), (2, 8), (8, 4)])
def test_tables_of_other_windows_keep_their_centre(old: int, new: int):
    """At 32 pixels the first map is 8 x 8, which all these windows tile: the resolution is the same."""
    weights = state(**{"stages.0.window": old})
    found = import_with_notes(load("micro_swin", set={**TINY, "stages.0.window": new}), weights, "archdsl")
    before, after = grid(weights[TABLE]), grid(found.weights[TABLE])
    assert after.shape[:2] == (2 * new - 1, 2 * new - 1)
    cut = abs(new - old)
    inner, outer = (before, after) if new > old else (after, before)
    assert torch.equal(outer[cut : outer.shape[0] - cut, cut : outer.shape[1] - cut], inner)
    assert after[0, 0].equal(before[0, 0]) or new < old
    assert "cut or continued at the centre" in found.notes[0]


@pytest.mark.parametrize(
    ("size", "old", "new"), [((32, 48), 8, 12), ((48, 64), 3, 4), ((32, 56), 4, 7), ((48, 32), 3, 2)]
)
def test_tables_of_another_resolution_are_resampled(size: tuple[int, int], old: int, new: int):
    weights = state(**{"stages.*.window": old, "input.size": size[0]})
    spec = load("micro_swin", set={**TINY, "stages.*.window": new, "input.size": size[1]})
    found = import_with_notes(spec, weights, "archdsl")
    table = grid(weights[TABLE]).permute(2, 0, 1)[None]
    after = grid(found.weights[TABLE])
    want = functional.interpolate(table, after.shape[:2], mode="bicubic")[0].permute(1, 2, 0)
    assert torch.equal(after, want)
    assert "resampled" in found.notes[0]


@pytest.mark.parametrize(("size", "how"), [(32, "centre"), (64, "resampled")])
def test_masks_tell_the_resolution(size: int, how: str):
    shifted = {"stages.*.depth": 2, "stages.*.shift": True}
    weights = state(**shifted, **{"stages.0.window": 2})
    windows = (size // 4 // 2) ** 2
    weights["stages.0.blocks.1.attn_mask"] = torch.zeros(windows, 4, 4)
    assert how in notes(weights, {**shifted, "stages.0.window": 4})[0]


@pytest.mark.parametrize(("old", "new"), [(64, 96), (96, 64), (64, [32, 96])])
def test_a_position_embedding_is_resampled_and_its_class_token_kept(timm: ModuleType, old: int, new: Any):
    from timm.layers.pos_embed import resample_abs_pos_embed

    small = {"stem.dim": 24, "stages.0.depth": 1, "head.classes": 3}
    weights = state("vit_ti_16", **small, **{"input.size": old})
    spec = load("vit_ti_16", set={**small, "input.size": new})
    found = import_with_notes(spec, weights, "archdsl")
    want = resample_abs_pos_embed(weights["stem.pos_embed"], [side // 16 for side in spec.input.size])
    assert (found.weights["stem.pos_embed"] - want).abs().max() < 1e-6
    assert "position embedding" in found.notes[0]


# --- sources -------------------------------------------------------------------------------------------------------


def of_torchvision(name: str) -> nn.Module:
    load_torchvision()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.swin_transformer import SwinTransformer
    from torchvision.models.vision_transformer import VisionTransformer

    if name == "swin_t":
        return SwinTransformer([4, 4], 8, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7], num_classes=10)
    if name == "vit_ti_16":
        return VisionTransformer(64, 16, 2, 3, 24, 96, num_classes=10)
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 32, 3), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 3)]
    return ConvNeXt(blocks, num_classes=10)


SIZES: dict[str, dict[str, Any]] = {
    "swin_t": {"stem.dim": 8, "stages.2.depth": 2, **{f"stages.{i}.heads": 2**i for i in range(4)}},
    "vit_ti_16": {"input.size": 64, "stem.dim": 24, "stages.0.depth": 2},
    "convnext_t": {"input.size": 64, "stem.dim": 8, "stages.0.depth": 1, "stages.2.depth": 2},
}


@pytest.mark.parametrize("name", SIZES)
def test_torchvisions_models_give_the_same_logits(name: str):
    theirs = telling(of_torchvision(name)).eval()
    for key, tensor in theirs.state_dict().items():
        if key.endswith("layer_scale"):
            tensor.uniform_(0.5, 1)
    spec = load(name, set={**SIZES[name], "head.classes": 10})
    found = import_with_notes(spec, theirs.state_dict(), "torchvision")
    assert found.notes == ()
    mine, x = archdsl.build(spec, found.weights).eval(), images(2, *spec.input.size)
    with torch.inference_mode():
        want = theirs(x)
        assert (want[1:] - want[:1]).abs().max() > 0.05 * want.abs().max()
        assert (mine(x) - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("wrong", ["timm", "huggingface", "archdsl"])
def test_torchvisions_names_are_recognised(wrong: str):
    spec = load("convnext_t", set={**SIZES["convnext_t"], "head.classes": 10})
    with pytest.raises(WeightsError) as caught:
        archdsl.import_weights(spec, of_torchvision("convnext_t").state_dict(), wrong)
    hints = [problem.hint for problem in caught.value.problems]
    assert hints == ["take the source 'torchvision' (--from torchvision)"]


@pytest.mark.parametrize("other", [{"stem.dim": 16}, {"stages.*.depth": 6}])
def test_another_network_is_one_problem(other: dict[str, Any]):
    with pytest.raises(WeightsError) as caught:
        notes(state(**other))
    assert len(caught.value.problems) == 1
    assert "weights of another network" in str(caught.value)


FACEBOOK = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^(stages\.\d+\.)blocks\.", r"\1"),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc", ".pwconv"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
]
"""From timm's names to those of ConvNeXt's own code."""


def test_facebooks_names_are_those_that_timm_takes_for_its_own(timm: ModuleType):
    """timm reads the files of ConvNeXt's own code, too, by another way from their names to its own."""
    from timm.models.convnext import ConvNeXt, checkpoint_filter_fn

    model = telling(ConvNeXt(num_classes=10, depths=(1, 3, 2, 3), dims=(8, 16, 32, 64)))
    of_timm = model.state_dict()
    theirs = {}
    for name, tensor in of_timm.items():
        for pattern, replacement in FACEBOOK:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    assert checkpoint_filter_fn(dict(theirs), model).keys() == of_timm.keys()
    spec = load("convnext_t", set={**SIZES["convnext_t"], "head.classes": 10})
    found, want = archdsl.import_weights(spec, theirs, "facebook"), archdsl.import_weights(spec, of_timm, "timm")
    assert found.keys() == want.keys() and all(torch.equal(found[name], want[name]) for name in want)
    with pytest.raises(WeightsError, match=r"--from facebook"):
        archdsl.import_weights(spec, theirs, "timm")


def test_numbers_that_count_by_two_are_halved():
    names = names_of(load("convnext_t"))["torchvision"]
    assert names.ours("features.12.1.bias") == "stages.6.downsample.conv.bias"
    assert names.ours("features.7.10.block.0.bias") == "stages.3.blocks.10.conv_dw.bias"
    assert names.ours("features.0.0.bias") == "stem.proj.bias"


# --- commands ------------------------------------------------------------------------------------------------------


def test_build_says_what_was_taken(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    file, out = tmp_path / "model_best.pth.tar", tmp_path / "out"
    torch.save({"state_dict": state(), "state_dict_ema": state(seed=2), "args": argparse.Namespace(a=1)}, file)
    sets = [word for path, value in TINY.items() for word in ("--set", f"{path}={value}")]
    command = [
        "build",
        "micro_swin",
        "--weights",
        str(file),
        "--allow-pickle",
        "--emit",
        "torch",
        "-o",
        str(out),
        *sets,
    ]
    assert run([*command, "--ema"]) == 0
    assert "averaged weights (EMA) were taken, from 'state_dict_ema'" in capsys.readouterr().err
    assert "state_dict_ema" in json.loads((out / "build.json").read_text())["weights_notes"][0]


def test_ema_of_a_file_that_has_none_is_an_error(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"state_dict": state()}, tmp_path / "w.pth")
    sets = [word for path, value in TINY.items() for word in ("--set", f"{path}={value}")]
    options = ["--weights", str(tmp_path / "w.pth"), "--allow-pickle", "--ema", *sets]
    assert run(["build", "micro_swin", *options]) == 1
    assert "there are no averaged weights" in capsys.readouterr().err


def test_train_starts_from_weights_with_a_new_head(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    file, out = tmp_path / "w.safetensors", tmp_path / "out"
    save_file(state(**{"head.classes": 5}), file)
    sets = [word for path, value in TINY.items() for word in ("--set", f"{path}={value}")]
    data = "{type: synthetic, num_train: 64, num_val: 32}"
    command = ["train", "micro_swin", "--data", data, "--epochs", "1", "--lr", "1e-9", "--out", str(out), *sets]
    start = ["--weights", str(file), "--new-head"]
    assert run([*command, *start]) == 0
    trained, before = read_weights_file(out / "model.safetensors").tensors, state(**{"head.classes": 5})
    assert (trained["stem.proj.weight"] - before["stem.proj.weight"]).abs().max() < 1e-4
    told = json.loads((out / "train.json").read_text())
    assert told["weights_from"] == str(file)
    assert "a new head" in told["weights_notes"][0]
    assert run([*command, "--resume"]) == 1
    assert "it differs in the weights that it starts from" in capsys.readouterr().err
