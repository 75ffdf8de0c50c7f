"""Weights files and foreign state dicts: what fits is taken whole, what does not is named, and nothing is ever run."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save
from timm_references import images, telling
from torch import Tensor, nn

import archdsl
from archdsl.errors import ArchError, WeightsError
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec
from archdsl.weights import reading
from archdsl.weights.checkpoints import chosen
from archdsl.weights.importing import names_of
from archdsl.weights.reading import read_weights
from archdsl.weights.writing import write_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


def same(got: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def refused(path: Path, rule: str, **options: Any) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_weights(path, **options)
    assert caught.value.problems[0].rule == rule, caught.value
    assert str(caught.value).startswith(f"{path}:1:1: ")
    return caught.value


# --- safetensors ---------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path):
    table = torch.arange(12.0).reshape(3, 4)
    state = STATE | {"view": table.T, "shares": table, "half": torch.ones(2, dtype=torch.bfloat16)}
    write_weights(tmp_path / "w.safetensors", state)
    assert same(read_weights(tmp_path / "w.safetensors"), state)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "w.safetensors"
    write_weights(file, STATE)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ArchError, match=r"w\.safetensors:1:1: .* cannot be written: No space left on device"):
        write_weights(file, {"c": torch.ones(1)})
    assert same(read_weights(file), STATE)
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_missing_folder_is_an_error_with_a_place(tmp_path: Path):
    with pytest.raises(ArchError, match=r"w\.safetensors:1:1: .* cannot be written: No such file or directory"):
        write_weights(tmp_path / "no" / "w.safetensors", STATE)


def test_files_that_are_none_are_refused(tmp_path: Path):
    refused(tmp_path / "none.safetensors", "missing-file")
    refused(tmp_path, "not-a-file")
    os.mkfifo(tmp_path / "pipe.safetensors")
    refused(tmp_path / "pipe.safetensors", "not-a-file")
    (tmp_path / "w.h5").touch()
    assert ".safetensors" in str(refused(tmp_path / "w.h5", "wrong-value"))


def header(content: bytes, length: int | None = None) -> bytes:
    return (len(content) if length is None else length).to_bytes(8, "little") + content


MANY = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_001)}
HOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
GIANT = {"a": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 4]}}


@pytest.mark.promise(39)
@pytest.mark.parametrize(
    ("data", "rule"),
    [
        pytest.param(b"", "damaged", id="empty"),
        pytest.param(b"\1\2", "damaged", id="two bytes"),
        pytest.param(header(b"{}", 17 * 2**20) + bytes(18 * 2**20), "limit", id="giant header"),
        pytest.param(header(b"{}", 2**63), "limit", id="a header beyond all memory"),
        pytest.param(header(b"{}", 99), "damaged", id="header beyond the end"),
        pytest.param(header(b"\xff{}"), "damaged", id="no text"),
        pytest.param(header(b"[" * 100_000), "damaged", id="nested"),
        pytest.param(header(b"[]"), "damaged", id="a list"),
        pytest.param(header(json.dumps(MANY).encode()), "limit", id="50001 tensors"),
        pytest.param(header(json.dumps(HOLE).encode()) + bytes(12), "damaged", id="a hole"),
        pytest.param(header(json.dumps(GIANT).encode()) + bytes(4), "damaged", id="a giant shape"),
        pytest.param(save(STATE)[:-1], "damaged", id="cut off"),
        pytest.param(save(STATE) + b"\0", "damaged", id="a byte too many"),
    ],
)
def test_a_damaged_or_hostile_safetensors_file_is_refused(tmp_path: Path, data: bytes, rule: str):
    file = tmp_path / "w.safetensors"
    file.write_bytes(data)
    refused(file, rule)


@pytest.mark.promise(39)
def test_any_flipped_byte_gives_tensors_or_an_error(tmp_path: Path):
    file, whole = tmp_path / "w.safetensors", save(STATE)
    outcomes = set()
    for position in range(len(whole)):
        for flip in (1, 0x80):
            data = bytearray(whole)
            data[position] ^= flip
            file.write_bytes(data)
            try:
                outcomes.add(type(read_weights(file)))
            except WeightsError as error:
                outcomes.add(type(error))
    assert outcomes == {dict, WeightsError}


# --- pickles -------------------------------------------------------------------------------------------------------


class Call:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def raw(opcodes: str) -> Callable[[str], bytes]:
    """A pickle by hand. PATH in it becomes the file that the attack would make."""
    return lambda path: opcodes.replace("PATH", path).encode()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def legacy_tar(path: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Call(os.mkdir, path), protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def script(path: str) -> bytes:
    """TorchScript: a program, not a pickle, in the same kind of zip."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), file)
    return file.getvalue()


MAKES_A_FOLDER = 'c__builtin__\neval\n(S\'__import__("os").mkdir("PATH")\'\ntR.'
MALICIOUS: dict[str, Callable[[str], bytes]] = {
    "a call": lambda path: saved(Call(os.mkdir, path)),
    "a call, old format": lambda path: saved(Call(os.mkdir, path), _use_new_zipfile_serialization=False),
    "a call, bare pickle": lambda path: pickle.dumps(Call(os.mkdir, path)),
    "a shell": lambda path: saved({"model": Call(os.system, f"mkdir {path}")}),
    "a process": lambda path: saved({"w": Call(subprocess.check_call, ["mkdir", path])}),
    "eval": lambda path: saved({"w": Call(eval, f"__import__('os').mkdir({path!r})")}),
    "exec": lambda path: saved({"state_dict": {"w": Call(exec, f"import os; os.mkdir({path!r})")}}),
    "getattr": lambda path: saved({"w": Call(getattr, Call(__import__, "os"), "mkdir")}),
    "a name": lambda path: saved({Call(os.mkdir, path): torch.ones(1)}),
    "among tensors": lambda path: saved({"w": torch.ones(3), "x": [Call(os.mkdir, path)]}),
    "opcodes": raw(MAKES_A_FOLDER),
    "INST": raw('(S\'__import__("os").mkdir("PATH")\'\ni__builtin__\neval\n.'),
    "a pickle in a pickle": lambda path: saved({"w": Call(pickle.loads, pickle.dumps(Call(os.mkdir, path)))}),
    "torch.load": lambda path: saved({"w": Call(torch.load, path, None)}),
    "a zip by hand": lambda path: zipped({"archive/data.pkl": raw(MAKES_A_FOLDER)(path), "archive/version": b"3\n"}),
    "two data.pkl": lambda path: zipped(
        {"archive/data.pkl": raw(MAKES_A_FOLDER)(path), "other/data.pkl": b"N.", "archive/version": b"3\n"}
    ),
    "an old tar": legacy_tar,
    "a program": script,
    "among settings": lambda path: saved({"model": STATE, "args": argparse.Namespace(x=Call(os.mkdir, path))}),
    "a module": lambda path: saved(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("name", ["a call", "a call, bare pickle", "opcodes"])
def test_the_attacks_are_real(tmp_path: Path, name: str):
    """Without the restricted reader they do make the folder."""
    file, made = tmp_path / "w.pth", tmp_path / "made"
    file.write_bytes(MALICIOUS[name](str(made)))
    program = f"import torch, pickle\ntry: torch.load({str(file)!r}, weights_only=False)\nexcept Exception: pass"
    if name != "a call":
        program = f"import pickle; pickle.load(open({str(file)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert made.exists()


@pytest.mark.promise(37)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".PTH"])
def test_a_pickle_is_not_even_opened_unless_allowed(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(saved(STATE))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a child was started"))
    assert "--allow-pickle" in str(refused(file, "pickle"))


@pytest.mark.promise(37)
@pytest.mark.parametrize("start", range(4))
def test_no_malicious_pickle_runs(tmp_path: Path, start: int):
    for name in list(MALICIOUS)[start::4]:
        file, made = tmp_path / "w.pth", tmp_path / "made"
        file.write_bytes(MALICIOUS[name](str(made)))
        refused(file, "pickle", allow_pickle=True)
        assert not made.exists(), name
        file.rename(tmp_path / "w.safetensors")
        with pytest.raises(WeightsError):
            read_weights(tmp_path / "w.safetensors", allow_pickle=True)
        assert not made.exists(), name


@pytest.mark.parametrize(
    "wrapped",
    [
        {"model": STATE, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"a.weight": STATE["a.weight"].T.contiguous().T, "b": STATE["b"]},
    ],
    ids=["model", "views"],
)
def test_an_allowed_pickle_of_tensors_is_read(tmp_path: Path, wrapped: Any):
    file = tmp_path / "w.pth"
    torch.save(wrapped, file)
    assert same(read_weights(file, allow_pickle=True), STATE)


def test_a_pickle_of_other_things_is_refused(tmp_path: Path):
    file = tmp_path / "w.pth"
    torch.save({"w": 3}, file)
    assert "its entry 'w' is a int, not a tensor" in str(refused(file, "pickle", allow_pickle=True))


@pytest.mark.parametrize("content", [STATE, {"state_dict": STATE}, {"model": STATE, "x": 1}], ids=["", "in", "beside"])
def test_a_state_dict_is_found_in_its_wrapping(content: Any):
    assert chosen(content).state == STATE


@pytest.mark.parametrize("content", [[torch.ones(1)], {"w": 3}, {3: torch.ones(1)}, {}, torch.ones(2), {"model": None}])
def test_what_is_no_state_dict_is_refused(content: Any):
    with pytest.raises(ValueError, match=r"^its entry|^it holds"):
        chosen(content)


@pytest.mark.promise(37)
def test_an_old_torch_may_not_open_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "w.pth"
    torch.save(STATE, file)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    assert "2.10 or newer" in str(refused(file, "version", allow_pickle=True))


def test_a_pickle_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "w.pth"
    torch.save(STATE, file)
    monkeypatch.setattr(reading, "CHILD_SECONDS", 0.05)
    refused(file, "limit", allow_pickle=True)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_a_small_pickle_cannot_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A zip bomb: 256 MiB of zeros in 0.3 MiB."""
    file = tmp_path / "w.pth"
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(2**26)}))) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    file.write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    assert file.stat().st_size < 2**20
    assert read_weights(file, allow_pickle=True)["w"].shape == (2**26,)
    monkeypatch.setattr(reading, "CHILD_MEMORY_BYTES", 2**27)
    assert "memory" in str(refused(file, "pickle", allow_pickle=True))


# --- importing -----------------------------------------------------------------------------------------------------

HEADS = {"stages.0.heads": 1, "stages.1.heads": 2, "stages.2.heads": 4, "stages.3.heads": 8}
MICRO: dict[str, dict[str, int]] = {
    "swin_t": {"input.size": 112, "stem.dim": 16, "stages.2.depth": 2, **HEADS},
    "vit_ti_16": {"input.size": 64, "stem.dim": 24, "stages.0.depth": 2},
    "convnext_t": {"input.size": 64, "stem.dim": 16, "stages.0.depth": 1, "stages.2.depth": 2},
}


def micro(name: str) -> Spec:
    return load(name, set={**MICRO[name], "head.classes": 10})


def of_timm(timm: ModuleType) -> dict[str, Tensor]:
    """The state dict of timm's Swin, as small as `micro("swin_t")`."""
    name = "swin_tiny_patch4_window7_224"
    sizes = {"img_size": 112, "embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "num_classes": 10}
    return dict(telling(timm.create_model(name, **sizes)).state_dict())


def failed(spec: Spec | str, state: dict[str, Any], source: str = "timm") -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        archdsl.import_weights(spec, state, source)
    assert str(caught.value).startswith("--weights:1:1: ")
    return caught.value


def lines(error: WeightsError) -> list[tuple[str, str, str | None]]:
    return [(problem.rule, problem.message, problem.hint) for problem in error.problems]


def test_our_own_names_are_a_source():
    module = archdsl.build(micro("swin_t"))
    assert same(archdsl.import_weights(micro("swin_t"), module.state_dict(), "archdsl"), module.state_dict())


def test_batch_norms_counters_are_not_asked_for():
    spec = load("swin_free_t_br", set={**MICRO["swin_t"], "head.classes": 10})
    state = archdsl.build(spec).state_dict()
    assert any(name.endswith("num_batches_tracked") for name in state)
    kept = archdsl.import_weights(spec, state, "archdsl")
    assert kept.keys() == {name for name in state if not name.endswith("num_batches_tracked")}


def test_microsofts_names_are_timms_with_the_merging_one_stage_earlier(timm: ModuleType):
    theirs = {}
    for name, tensor in of_timm(timm).items():
        head, _, rest = name.partition(".downsample.")
        if rest:
            name = f"layers.{int(head.removeprefix('layers.')) - 1}.downsample.{rest}"
        theirs[name.replace("head.fc.", "head.")] = tensor
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 49, 49)
    theirs["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    spec = micro("swin_t")
    got = archdsl.import_weights(spec, theirs, "microsoft")
    assert same(got, archdsl.import_weights(spec, of_timm(timm), "timm"))


@pytest.mark.parametrize("name", ["swin_t", "vit_ti_16", "convnext_t"])
def test_hugging_faces_models_give_the_same_logits(transformers: ModuleType, name: str):
    match name:
        case "swin_t":
            config = transformers.SwinConfig(
                image_size=224, embed_dim=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], num_labels=10
            )
            model = transformers.SwinForImageClassification(config)
        case "vit_ti_16":
            config = transformers.ViTConfig(
                image_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96,
                num_labels=10, layer_norm_eps=1e-6,
            )  # fmt: skip
            model = transformers.ViTForImageClassification(config)
        case _:
            config = transformers.ConvNextConfig(
                hidden_sizes=[16, 32, 64, 128], depths=[1, 3, 2, 3], num_labels=10, layer_norm_eps=1e-6
            )
            model = transformers.ConvNextForImageClassification(config)
    # At other sizes transformers' Swin keeps tables of 7 x 7 windows for smaller maps, which no other Swin does.
    sizes = {"input.size": 224} if name == "swin_t" else {}
    spec = load(name, set={**MICRO[name], **sizes, "head.classes": 10})
    theirs = telling(model).eval()
    weights = archdsl.import_weights(spec, theirs.state_dict(), "huggingface")
    mine, x = archdsl.build(spec, weights).eval(), images(3, *spec.input.size)
    with torch.inference_mode():
        want = theirs(x).logits
        assert (want[1:] - want[:1]).abs().max() > 0.1 * want.abs().max()
        assert (mine(x) - want).abs().max() <= 1e-5 * want.abs().max()


def test_arrays_and_other_number_formats_become_float32(timm: ModuleType):
    state = of_timm(timm)
    names = list(state)
    mixed = state | {names[0]: state[names[0]].numpy(), names[1]: state[names[1]].half()}
    got = archdsl.import_weights(micro("swin_t"), mixed)
    assert {tensor.dtype for tensor in got.values()} == {torch.float32}
    assert torch.equal(got["stem.proj.weight"], state["patch_embed.proj.weight"])


def test_all_that_does_not_fit_is_named_at_once(timm: ModuleType):
    state = of_timm(timm)
    state["layers.1.blocks.0.attn.qkv.wieght"] = state.pop("layers.1.blocks.0.attn.qkv.weight")
    state["head.fc.bias"] = torch.zeros(7)
    state["teacher.logit"] = torch.zeros(3)
    del state["norm.bias"]
    assert lines(failed(micro("swin_t"), state)) == [
        (
            "shape",
            "'head.fc.bias' must be [10], but 'head.fc.bias' is [7]",
            "--new-head (new_head=True) starts a new head",
        ),
        (
            "missing-key",
            "the network needs 'stages.1.blocks.0.attn.qkv.weight' [96, 32], but it is not there",
            "'layers.1.blocks.0.attn.qkv.wieght' would be our 'stages.1.blocks.0.attn.qkv.wieght'",
        ),
        ("missing-key", "the network needs 'head.norm.bias' [128], but it is not there", None),
        (
            "unused",
            "the network has no place for 'layers.1.blocks.0.attn.qkv.wieght' "
            "(our 'stages.1.blocks.0.attn.qkv.wieght')",
            "the network lacks 'stages.1.blocks.0.attn.qkv.weight'",
        ),
        ("unused", "the network has no place for 'teacher.logit'", None),
    ]


def test_a_piece_that_is_missing_is_named(transformers: ModuleType):
    config = transformers.ViTConfig(
        image_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=10
    )
    state = transformers.ViTForImageClassification(config).state_dict()
    del state["vit.encoder.layer.0.attention.attention.key.bias"]
    found = lines(failed(micro("vit_ti_16"), state, "huggingface"))
    assert [rule for rule, _, _ in found] == ["missing-key", "unused", "unused"]
    assert "attention.query.bias" in found[1][1]


def test_two_tensors_for_one_place_are_an_error(timm: ModuleType):
    state = of_timm(timm)
    state["head.weight"] = state["head.fc.weight"]
    assert lines(failed(micro("swin_t"), state))[0][:2] == (
        "duplicate-key",
        "'head.fc.weight' and 'head.weight' are both 'head.fc.weight'",
    )


@pytest.mark.parametrize("value", [3, "x", None, {}, torch.ones(10, dtype=torch.int64), torch.ones(10) * 1j], ids=str)
def test_what_is_no_tensor_of_real_numbers_is_an_error(timm: ModuleType, value: Any):
    found = lines(failed(micro("swin_t"), of_timm(timm) | {"head.fc.bias": value}))
    assert found[0][0] in ("wrong-type", "shape")
    assert "'head.fc.bias'" in found[0][1]


def test_a_state_dict_of_another_library_is_recognised(timm: ModuleType, transformers: ModuleType):
    config = transformers.ViTConfig(
        image_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, num_labels=10
    )
    state = transformers.ViTForImageClassification(config).state_dict()
    assert (
        lines(failed(micro("vit_ti_16"), state, "timm"))[0][2] == "take the source 'huggingface' (--from huggingface)"
    )
    assert lines(failed(micro("swin_t"), of_timm(timm), "archdsl"))[0][2] == "take the source 'timm' (--from timm)"


def test_an_unknown_source_is_an_error_with_the_known_ones():
    assert lines(failed("swin_t", {}, "tim"))[0][2] == "did you mean `timm`?"
    assert all(name in str(failed("swin_t", {}, "nowhere")) for name in names_of(load("swin_t")))


def test_an_error_of_a_whole_state_dict_is_quick_and_short():
    error = failed("swin_l", {f"layers.{i}.blocks.0.x": torch.ones(1) for i in range(3000)})
    assert "3000 have no place" in str(error)
    assert len(error.problems) == 1
    assert len(str(error).splitlines()) <= 4


@pytest.mark.parametrize("name", ["layers.0", "layers.x.blocks", "", ".", "layers.٣.blocks.0", "cls_token.x", "stem"])
def test_a_name_that_no_pattern_fits_has_no_place(name: str):
    assert names_of(load("swin_t"))["timm"].ours(name) is None


def test_numbers_in_a_name_are_kept_and_counted_on():
    assert (
        names_of(load("swin_t"))["microsoft"].ours("layers.2.downsample.norm.bias") == "stages.3.downsample.norm.bias"
    )
    assert names_of(load("convnext_t"))["timm"].ours("stages.12.downsample.1.bias") == "stages.12.downsample.conv.bias"
