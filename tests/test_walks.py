"""CONTRIBUTING's walks, followed with toys: what stands in the places that a walk names works, and no other is needed.

`test_add_an_op.py` follows the walk of an op.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from same_function import after

import archdsl
from archdsl.backends.source import file as source
from archdsl.backends.torch import fx
from archdsl.cli.main import run
from archdsl.ir.graph import Graph, Scope
from archdsl.ir.order import Raster
from archdsl.ir.types import TensorType
from archdsl.language import load_space, loads
from archdsl.language.space.objectives import AccuracyObjective, Objectives, Train
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Activation
from archdsl.parts import part
from archdsl.parts.flow import Flow
from archdsl.passes import pipelines
from archdsl.runs.search_parts import SearchParts
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import Target

ROOT = Path(__file__).parents[1]
TOYS = Path(__file__).parent / "toy_walks"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

NET = """
name: toy_net
input: {size: 16}
stem: {type: patch, patch: 4, dim: 8, norm: layer}
stages: [{block: toy, depth: 2, act: [relu, gelu]}]
head: {type: classifier, classes: 3}
"""

COUNTED = {"accuracy": {"count": True}, "latency": {"runtime": "null"}}


class CountedAccuracy(AccuracyObjective):
    """`AccuracyObjective` with the field by which a space asks for the toy evaluator."""

    train: Train | None = None  # type: ignore[assignment]
    count: bool = False


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A space may say `accuracy: {count: true}`."""
    field = Objectives.model_fields["accuracy"]
    before = field.annotation
    field.annotation = CountedAccuracy | None  # type: ignore[assignment]
    Objectives.model_rebuild(force=True)
    yield
    field.annotation = before
    Objectives.model_rebuild(force=True)


def walk(what: str) -> list[str]:
    """The places of a walk: the first path of each of its numbered steps, and what a place is called there."""
    text = CONTRIBUTING.split(f"## Add {what}\n")[1].split("\n## ")[0]
    return [match[1] for match in re.finditer(r"^\d\. `([^`]+)`", text, flags=re.MULTILINE)]


def found_in(package: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a folder of toys are found in a package of archdsl."""
    module = import_module(package)
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(TOYS / folder)])
    for path in (TOYS / folder).glob("*.py"):
        monkeypatch.delitem(sys.modules, f"{package}.{path.stem}", raising=False)


@pytest.fixture
def toy_block(monkeypatch: pytest.MonkeyPatch) -> type[part.Part]:
    """The block of the toy family, registered by the import that `parts/__init__.py` would have."""
    part.parts("block")  # plug-ins register now, not into the copy
    monkeypatch.setattr(part, "_REGISTRY", {kind: dict(known) for kind, known in part._REGISTRY.items()})
    found_in("archdsl.parts.families", "families", monkeypatch)
    block: type[part.Part] = import_module("archdsl.parts.families.toy_family").ToyBlock
    return block


@pytest.mark.parametrize("what", ["an op", "a part", "a pass", "a runtime", "an evaluator", "a network or a study"])
def test_a_walk_names_at_most_four_places_and_all_of_them_exist(what: str) -> None:
    places = walk(what)
    assert 1 <= len(places) <= 4
    for place in places:
        folder = place.split("<")[0]
        assert (ROOT / folder).exists(), place


def test_a_part_is_known_by_its_name_in_yaml_and_becomes_logits_and_source(toy_block: type[part.Part]) -> None:
    assert walk("a part") == [
        "archdsl/parts/families/<name>.py",
        "archdsl/parts/__init__.py",
        "archdsl/parts/families/<name>_weights.py",
        "specs/<name>.yaml",
    ]
    g = Graph()
    x = g.input("x", TensorType((12, 8), order=Raster(3, 4)))
    g.output("y", toy_block(act="relu").lower(Scope(g, "toy"), Flow(x)).x)
    x_BNC = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fx.emit(g, {})(x_BNC), x_BNC + x_BNC.relu())

    spec = loads(NET)
    module = archdsl.build(spec, seed=1).eval()
    names: dict[str, object] = {}
    exec(compile(source.emit(archdsl.compile(spec)), "toy.py", "exec"), names)
    ejected = list(names.values())[-1]().eval()
    ejected.load_state_dict(module.state_dict())
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    assert module(image).shape == (2, 3)
    torch.testing.assert_close(ejected(image), module(image))


def test_a_pass_in_a_pipeline_changes_the_graph_and_not_its_function(
    toy_block: type[part.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walk("a pass") == ["archdsl/passes/<name>.py", "archdsl/passes/pipelines.py"]
    found_in("archdsl.passes", "passes", monkeypatch)
    once = import_module("archdsl.passes.toy_pass").once

    g = Graph()
    x = g.add(Linear(8, 8), g.input("x", TensorType((12, 8), order=Raster(3, 4))), path="fc")
    for name in ("a", "b", "c"):
        x = g.add(Activation("relu"), x, path=name)
    g.output("y", x)
    assert len(after(once, graph=g).graph.live()) == len(g.live()) - 2

    gelu = NET.replace("[relu, gelu]", "gelu")
    before, untouched = archdsl.compile(loads(NET)), archdsl.compile(loads(gelu))
    monkeypatch.setattr(pipelines, "TRAINING", (*pipelines.TRAINING, once))
    assert len(archdsl.compile(loads(NET)).live()) == len(before.live()) - 1
    assert archdsl.compile(loads(gelu)).hash() == untouched.hash()


def test_a_runtime_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert walk("a runtime") == ["archdsl/runtimes/adapters/<name>.py", "archdsl/runtimes/registry.py"]
    monkeypatch.setitem(RUNTIMES, "onnx-reference", "toy_runtime")
    target = Target.parse({"runtime": "onnx-reference"})
    spec = archdsl.load("micro_swin", set={"input.size": 16})
    artefact = artefact_of(spec, target, tmp_path)
    x_BCHW = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    wanted = runtime("onnx-reference").load(artefact, target.config).outputs(x_BCHW)
    assert wanted
    timing = archdsl.measure(artefact, target, budget_s=0.05)
    assert timing.runtime == "onnx-reference" and timing.median_ms > 0 and timing.runs > 1


def test_an_evaluator_gives_a_search_its_accuracies(
    counted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walk("an evaluator") == [
        "archdsl/evaluators/<name>.py",
        "archdsl/language/space/objectives.py",
        "archdsl/runs/search_parts.py",
    ]
    found_in("archdsl.evaluators", "evaluators", monkeypatch)
    toy = import_module("archdsl.evaluators.toy_evaluator")
    monkeypatch.setattr(SearchParts, "_train", lambda parts: None)
    monkeypatch.setattr(SearchParts, "_trainers", lambda parts, folder, listen: toy.CountEvaluator())

    space = load_space(ROOT / "search" / "quickstart.yaml", set={"objectives": COUNTED})
    found = archdsl.search(space, trials=4, out=tmp_path / "run")
    assert found.evaluator == "count (proxy): rank correlation with real training not measured"
    assert [objective.name for objective in found.objectives] == ["accuracy", "latency"]
    for member in found.front.members:
        record = member.point.record
        spec = space.spec(record.assignment)
        assert record.accuracy is not None
        assert record.accuracy.mean == pytest.approx(toy.accuracy_of_params(archdsl.cost(spec).params))
    assert found.front.members


def test_a_network_is_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert walk("a network or a study") == ["specs/<name>.yaml"]
    network = str(TOYS / "specs" / "toy_net.yaml")
    assert run(["check", network]) == 0
    assert run(["build", network, "-o", str(tmp_path / "toy")]) == 0
    assert {"model.onnx", "build.json"} <= {path.name for path in (tmp_path / "toy").iterdir()}
    assert "toy_net" in capsys.readouterr().out
