"""What `benchmarks/fuzz.py` gives to archdsl: broken ONNX files and folders of builds, to be evaluated."""

from __future__ import annotations

import random
import shutil
from typing import Any

from fuzz_case import DATA, TINY, Breaker, Command, Place, damage, made


def networks(place: Place, breaker: Breaker) -> list[Command]:
    """ONNX files and the folders of builds, to be evaluated."""
    import onnx

    rng, spec = breaker.rng, place.inputs / "tiny.yaml"
    spec.write_text(TINY)
    folder = place.inputs / "folder"
    shutil.copytree(made(place, "network", "build", str(spec), "--emit", "onnx", "--emit", "torch"), folder)
    path = folder / "model.onnx"
    if breaker.chance(0.4):
        model = onnx.load(path)
        _change_model(model, place, rng)
        path.write_bytes(model.SerializeToString())
    elif breaker.chance(0.4):
        path.write_bytes(breaker.bytes(path.read_bytes()))
    elif breaker.active:
        damage(folder / rng.choice(("build.json", "model.onnx", "spec.yaml", "model.safetensors")), place, breaker)
    whole = str(folder if breaker.chance(0.4) else path)
    return [["eval", whole, "--data", DATA, *(["--json"] if breaker.chance(0.2) else [])]]


def _change_model(model: Any, place: Place, rng: random.Random) -> None:
    """One thing about an ONNX model changed: a weight's place, type or shape; an input; a node; the metadata."""
    graph = model.graph
    tensor, node = rng.choice(graph.initializer), rng.choice(graph.node)
    match rng.randrange(8):
        case 0:  # in another file
            tensor.ClearField("raw_data")
            tensor.data_location = 1
            where = (
                ("location", rng.choice(("../../victim/file", str(place.victim), "no.bin", "model.onnx", "/dev/zero"))),
            )
            for key, value in (*where, ("offset", rng.choice(("0", "-1", str(2**62)))), ("length", str(2**40))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        case 1:
            tensor.dims.append(rng.choice((0, -1, 2**40)))
        case 2:
            tensor.data_type = rng.choice((0, 2, 7, 8, 10, 16, 99))
        case 3:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[rng.randrange(len(dims))].dim_value = rng.choice((0, 1, 5, 2**40, -3))
        case 4:
            node.op_type = rng.choice(("Loop", "Nothing", "Reshape", "Conv", "RandomNormal", ""))
        case 5:
            del node.input[:]
        case 6:
            for entry in model.metadata_props:
                if rng.random() < 0.5:
                    entry.value = rng.choice(("", "[1", "[" * 10**5, "null", '{"mean": "x"}', "\x1b[2J", '["a", "a"]'))
        case _:
            model.opset_import[0].version = rng.choice((0, 1, 99, 2**40))
