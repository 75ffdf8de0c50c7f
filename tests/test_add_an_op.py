"""CONTRIBUTING's walk "Add an op", followed with the toy in `toy_op/`: a file of one name in each place."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_runs import checked, random_weights, run

from archdsl import ops
from archdsl.backends import BACKENDS, null
from archdsl.backends.emitters import collected
from archdsl.ir.graph import Graph
from archdsl.ir.op import Op
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType
from archdsl.latency.profile.shares import kinds_of

TOY = Path(__file__).parent / "toy_op"
WRITTEN = ("torch", "onnx", "source")
"""The backends that the toy has an emitter for."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Op]:
    """The toy's op, its four files being found where those of archdsl are."""
    packages = {"archdsl.ops": "ops"} | {f"archdsl.backends.{name}.emitters": name for name in WRITTEN}
    for package, folder in packages.items():
        module = import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(TOY / folder)])
        monkeypatch.delitem(sys.modules, f"{package}.toys", raising=False)
    (found,) = set(ops._ops()) - set(ops.OPS)
    for name in WRITTEN:
        package = f"archdsl.backends.{name}.emitters"
        monkeypatch.setitem(import_module(package).EMITTERS, found, collected(package)[found])
    return found


def network(op: type[Op]) -> Graph:
    g = Graph()
    x = g.input("x", TensorType((12, 8), order=Raster(3, 4)))
    g.output("y", g.add(op(8), x, path="toy"))
    return g


def test_an_op_that_is_added_in_its_four_files_computes_its_formula(toy: type[Op]):
    g = network(toy)
    weights = random_weights(g)
    x = np.random.default_rng(0).standard_normal((2, 12, 8), dtype=np.float32)
    want = x**2 * weights["toy"]

    module = import_module(BACKENDS["torch"]).emit(g, weights)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), want, rtol=1e-5)
    (got,) = run(checked(g, weights), x)
    np.testing.assert_allclose(got, want, rtol=1e-5)

    names: dict[str, object] = {}
    exec(compile(import_module(BACKENDS["source"]).emit(g), "toy.py", "exec"), names)
    file_module = list(names.values())[-1]()
    file_module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    np.testing.assert_allclose(file_module(torch.from_numpy(x)).detach().numpy(), want, rtol=1e-5)


def test_an_op_that_is_added_is_known_everywhere_else(toy: type[Op]):
    g = network(toy)
    assert "toy: SquaredScale(dim=8) -> f32[B, 12, 8] raster(3x4)" in null.emit(g).splitlines()
    assert kinds_of(g)["toy"] == "activation"
    assert g.cost().params == 8
    assert toy(8).identity_text() == "SquaredScale(dim=8)"


def test_an_emitter_that_is_there_twice_is_an_error(toy: type[Op], tmp_path, monkeypatch: pytest.MonkeyPatch):
    package = import_module("archdsl.backends.onnx.emitters")
    (tmp_path / "twice.py").write_text("from archdsl.backends.onnx.emitters.toys import EMITTERS\n")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="a second emitter for SquaredScale"):
        collected(package.__name__)
