"""What `benchmarks/fuzz.py` gives to archdsl: weights, checkpoints, pictures and arrays, broken and hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fuzz_case import TINY, Breaker, Command, Place

from archdsl.language import loads

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(victim) (w) file closefile showpage\n"


@cache
def _state() -> dict[str, Any]:
    """The state dict of the tiny network."""
    from archdsl.compiler import build

    return dict(build(loads(TINY)).state_dict())


def weights(place: Place, breaker: Breaker) -> list[Command]:
    from safetensors.torch import save

    state, rng = _state(), breaker.rng
    spec = place.inputs / "tiny.yaml"
    spec.write_text(TINY)
    if breaker.chance(0.3):
        state = _odd_state(state, rng)
    kind = rng.choice(("safetensors", "header", "index", "pickle")) if breaker.active else "index"
    name = "w.safetensors"
    if kind == "header":
        raw = save(state)
        length = int.from_bytes(raw[:8], "little")
        header = json.dumps(breaker.data(json.loads(raw[8 : 8 + length]))).encode()
        data = len(header).to_bytes(8, "little") + header + raw[8 + length :]
    elif kind == "index":
        names = sorted(state)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for part, held in parts.items():
            whole = save({each: state[each] for each in held})
            (place.inputs / part).write_bytes(breaker.bytes(whole) if breaker.chance(0.2) else whole)
        where = {each: part for part, held in parts.items() for each in held}
        name, data = "m.safetensors.index.json", breaker.json(json.dumps({"weight_map": where}).encode())
    elif kind == "pickle":
        name, data = rng.choice(("w.pth", "w.pth.tar", "w.bin", "w.ckpt")), _pickled(state, place, breaker)
    else:
        data = breaker.bytes(save(state))
    path = place.inputs / name
    path.write_bytes(data)
    options = [option for option in ("--ema", "--new-head", "--json") if breaker.chance(0.2)]
    options += ["--from", rng.choice(("timm", "torchvision", "facebook", "swin_free"))] if breaker.chance(0.2) else []
    options += ["--allow-pickle"] if kind == "pickle" else []
    command = ["build", str(spec), "--weights", str(path), "--emit", "torch", "-o", str(place.out), *options]
    return [command]


def _odd_state(state: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The state dict with other types, shapes, values and names."""
    import torch

    found = dict(state)
    for name in rng.sample(sorted(found), rng.randint(1, 3)):
        tensor = found.pop(name)
        name = rng.choice((name, f"module.{name}", name.replace(".", "\x1b"), "x" * 3000, "é\n", ""))
        make = rng.choice(
            (
                lambda t: t.to(rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool))),
                lambda t: t.to(torch.float8_e4m3fn),
                lambda t: torch.full_like(t, rng.choice((float("nan"), float("inf"), 1e38))),
                lambda t: t.unsqueeze(0),
                lambda t: t.flatten()[: rng.randint(0, 3)],
                lambda t: torch.tensor(1.0),
                lambda t: torch.zeros(0, 2**40),
            )
        )
        found[name] = make(tensor).contiguous()
    return found


class _Touches:
    """A pickle that would change the victim when it is opened without care."""

    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo read > {self.victim}",)


def _pickled(state: dict[str, Any], place: Place, breaker: Breaker) -> bytes:
    """A checkpoint of one of the usual trainers, in one of torch's formats; or a hostile one."""
    import torch

    rng = breaker.rng
    contents: dict[str, Any] = {"state_dict": state, "epoch": 3, "args": Namespace(lr=0.1), "state_dict_ema": state}
    if breaker.chance(0.3):
        first = next(iter(state))
        odd = rng.choice((torch.zeros(2).to_sparse(), torch.empty(2, device="meta"), _Touches(place.victim), 3, None))
        contents = rng.choice(({**state, first: odd}, {"state_dict": {first: odd}}, {"model": contents}, odd))
    file = io.BytesIO()
    if isinstance(contents, torch.Tensor) or rng.random() < 0.7:
        torch.save(contents, file, _use_new_zipfile_serialization=rng.random() < 0.6)
    else:
        pickle.dump(contents, file, protocol=rng.choice((0, 2, 4)))
    data = file.getvalue()
    if zipfile.is_zipfile(io.BytesIO(data)) and breaker.chance(0.3):  # damage inside, which the zip's sums do not show
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                inner = old.read(info)
                new.writestr(info.filename, breaker.bytes(inner) if "data.pkl" in info.filename else inner)
        return out.getvalue()
    return breaker.bytes(data) if breaker.chance(0.7) else data


ENCODINGS = (
    ("jpg", "RGB"), ("jpg", "L"), ("jpg", "CMYK"), ("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("png", "I;16"),
    ("png", "1"), ("png", "LA"), ("bmp", "RGB"), ("webp", "RGB"), ("webp", "RGBA"), ("ppm", "RGB"), ("pgm", "L"),
    ("tif", "RGB"), ("tif", "F"), ("tif", "I;16"), ("tif", "I"), ("tif", "CMYK"), ("tif", "LAB"), ("gif", "P"),
)  # fmt: skip


def _image(rng: random.Random, ending: str, mode: str) -> bytes:
    from PIL import Image

    size = rng.choice(((16, 16), (24, 17), (1, 1), (3, 900), (300, 2)))
    made = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    image = Image.new(mode, size, 0) if mode in ("I;16", "LAB") else made.convert(mode)
    options: dict[str, Any] = {"compression": "tiff_lzw"} if ending == "tif" and rng.random() < 0.3 else {}
    if ending in ("jpg", "webp") and rng.random() < 0.3:
        options["exif"] = b"Exif\0\0" + rng.randbytes(60)
    file = io.BytesIO()
    image.save(file, {"jpg": "jpeg", "pgm": "ppm", "tif": "tiff"}.get(ending, ending), **options)
    return file.getvalue()


def images(place: Place, breaker: Breaker) -> list[Command]:
    rng = breaker.rng
    spec, folder = place.inputs / "tiny.yaml", place.inputs / "data"
    spec.write_text(
        TINY if not breaker.chance(0.3) else TINY.replace("size: 16", f"size: 16, channels: {rng.randint(1, 5)}")
    )
    if breaker.chance(0.2):
        return [["build", str(spec), "--images", str(_array(place, breaker)), "--emit", "torch", "-o", str(place.out)]]
    for number in range(12):
        inside = folder / ("train" if number % 3 else "val") / f"class{number % 2}"
        inside.mkdir(parents=True, exist_ok=True)
        ending, mode = rng.choice(ENCODINGS) if breaker.active else ("png", "RGB")
        name = f"{number}.{rng.choice(ENCODINGS)[0]}" if breaker.chance(0.2) else f"{number}.{ending}"
        raw = _image(rng, ending, mode)
        path = inside / (os.fsdecode(b"\xff\x1b[2J\n") + name if breaker.chance(0.1) else name)
        match rng.randrange(12) if breaker.active else 11:
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to(place.victim)
            case 2:
                path.mkdir()
            case 3:
                path.write_bytes(rng.choice((b"", EPS, b"GIF89a", b"\x89PNG\r\n\x1a\n")))
            case 4:
                path.write_bytes(rng.choice(BOMBS)())
            case _:
                path.write_bytes(breaker.bytes(raw) if breaker.chance(0.6) else raw)
    data = {"type": "imagefolder", "path": str(folder), "workers": 0}
    if breaker.chance(0.3):
        data |= {
            "exif_orientation": rng.random() < 0.5,
            "crop": rng.choice((1, 0.01, 5)),
            "val_part": rng.choice((0.5, -1, "x")),
        }
    train = ["train", str(spec), "--data", json.dumps(data), "--recipe", "quick", "--epochs", "1", "--batch", "2"]
    build = ["build", str(spec), "--images", str(folder), "--emit", "torch", "-o", str(place.out)]
    return [[*train, "--out", str(place.out)] if rng.random() < 0.5 else build]


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its content does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10**6))
        + chunk(b"IEND", b"")
    )


BOMBS: tuple[Callable[[], bytes], ...] = (
    lambda: _png_of(30_000, 30_000),
    lambda: _png_of(12_000, 12_000),
    lambda: _png_of(2**31 - 1, 1),
    lambda: _png_of(0, 0),
    lambda: b"P6 99999999 99999999 255\n",
    lambda: b"P5 4 4 65535\n" + b"\xff" * 32,
)  # fmt: skip


def _array(place: Place, breaker: Breaker) -> Path:
    """An .npy file: of floats, of something else, or damaged."""
    import numpy as np

    rng, file = breaker.rng, io.BytesIO()
    odd = (
        np.zeros((4, 3, 16, 16), np.float32), np.zeros((4, 3, 16, 16), np.uint8), np.array(1.0), np.zeros((0, 3, 4, 4)),
        np.full((2, 3, 16, 16), np.nan), np.array([{"a": 1}], object), np.zeros(3, [("a", "f4")]),
        np.zeros((1, 3, 16, 16), ">f2"),
        np.array(["x"]), np.zeros((1, 3, 16, 16), np.complex64), np.zeros((1, 3, 16, 16), "M8[s]"),
    )  # fmt: skip
    np.save(file, rng.choice(odd), allow_pickle=True)
    path = place.inputs / rng.choice(("x.npy", "x.npz", "x"))
    path.write_bytes(breaker.bytes(file.getvalue()) if rng.random() < 0.6 else file.getvalue())
    return path
