"""`search --weights`: every training starts from what fits of a file, which is part of the study."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import archdsl
from archdsl.cli.main import run
from archdsl.errors import ArchError, StudyError, WeightsError, at_argument
from archdsl.evaluators.start_weights import BuildFrom, StartWeights
from archdsl.evaluators.train import TrainEvaluator
from archdsl.language import load, load_space
from archdsl.runs.job import job_of, space_of
from archdsl.runs.search import SearchOptions, prepare
from archdsl.runs.search_parts import SearchParts
from archdsl.study.config import refuse_other
from archdsl.training import parse_recipe, parse_source

TINY = {"stem.dim": 8, "stages.*.depth": 1, "stages.*.heads": 1}
DATA = "{type: synthetic, num_train: 64, num_val: 32}"
SPACE = f"""
base: tiny.yaml
choices: {{stages.0.depth: [1, 2], stages.0.window: [2, 4], head.norm: [layer, batch]}}
objectives: {{accuracy: {{train: {{data: {DATA}, recipe: quick, epochs: 1}}}}, params: {{}}}}
search: {{trials: 1, sampler: random, confirm: {{timings: false}}}}
"""


def state(seed: int = 3, **options: Any) -> dict[str, Tensor]:
    module = archdsl.build(load("micro_swin", set={**TINY, **options}), seed=seed)
    return {name: x.clone() for name, x in module.state_dict().items() if "num_batches" not in name}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(load("micro_swin", set=TINY).to_yaml())
    Path("space.yaml").write_text(SPACE)
    save_file(state(), "w.safetensors")
    return tmp_path


def weights(**fields: Any) -> dict[str, Any]:
    return {"objectives.accuracy.train.weights": {"file": str(Path("w.safetensors").absolute()), **fields}}


def parts(**fields: Any) -> SearchParts:
    return SearchParts(load_space("space.yaml", weights(**fields) if fields else None), (), None)


# ---- what fits


def test_a_network_takes_what_fits_and_starts_the_rest(folder):
    start = StartWeights.of(load("tiny.yaml"), "w.safetensors", "archdsl", ema=False, new_head=False)
    given, space = state(), load_space("space.yaml")
    deeper = space.spec({"stages.0.depth": 1, "stages.0.window": 1, "head.norm": 1})
    found = start.fitted_to(deeper, 7)
    fresh = archdsl.build(deeper, seed=7).state_dict()
    for name, tensor in found.weights.items():
        if name.startswith("stages.0.blocks.1.") or name not in given:
            assert torch.equal(tensor, fresh[name]), name
        elif "position_bias" not in name and "relative" not in name:
            assert torch.equal(tensor, given[name]), name
    module = BuildFrom(parse_recipe("quick"), start)(deeper, seed=7)
    assert torch.equal(module.state_dict()["stem.proj.weight"], given["stem.proj.weight"])
    assert any("start with initial weights" in note for note in found.notes)
    assert start.fitted_to(load("tiny.yaml"), 7).notes == ()


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (lambda x: x.pop("stem.proj.weight"), {}, "the network needs 'stem.proj.weight'"),
        (lambda x: x.update(extra=torch.ones(2)), {}, "has no place for 'extra'"),
        (lambda x: None, {"from": "timm"}, "take the source 'archdsl'"),
        (lambda x: None, {"from": "elsewhere"}, "no source of weights called 'elsewhere'"),
        (lambda x: None, {"ema": True}, "no averaged weights"),
        (lambda x: x.update({"head.fc.weight": torch.ones(5, 16), "head.fc.bias": torch.ones(5)}), {}, "--new-head"),
    ],
)
def test_all_must_fit_the_base_before_anything_is_trained(change, asked, message, folder):
    given = state()
    change(given)
    save_file(given, "w.safetensors")
    with pytest.raises(ArchError, match=message):
        parts(**{"new_head": False, **asked})


def test_a_new_head_is_started_where_asked(folder):
    save_file({name: x for name, x in state().items() if not name.startswith("head.fc")}, "w.safetensors")
    start = parts(new_head=True).start
    assert start.new_head and "a new head" in start.fitted_to(load("tiny.yaml"), 0).notes[0]


def test_files_that_cannot_be_started_from_are_refused_with_a_way_out(folder, capsys):
    torch.save(state(), "w.pth")
    os.mkfifo("pipe.safetensors")
    for file, message in (
        ("w.pth", "archdsl build SPEC --weights FILE --allow-pickle"),
        ("none.safetensors", "none"),
        ("pipe.safetensors", "not a regular file"),
    ):
        assert run(["search", "space.yaml", "--weights", file, "--out", "out"]) == 1
        assert message in capsys.readouterr().err and not Path("out").exists()
    assert run(["search", "space.yaml", "--from", "timm", "--out", "out"]) == 1
    assert "--from is about a weights file, and there is none" in capsys.readouterr().err


# ---- a study's own


def test_the_file_is_part_of_the_study(folder):
    def plan(**fields: Any) -> Any:
        return prepare(load_space("space.yaml", weights(**fields) if fields else None), SearchOptions(out="out")).plan

    first = plan(ema=False)
    Path("elsewhere").mkdir()
    kept = Path("w.safetensors").rename("elsewhere/w.safetensors")
    moved = plan(file=str(kept.absolute()))
    assert first.identity() == moved.identity()
    with pytest.raises(StudyError, match=r"accuracy\.weights: \(nothing\) -> "):
        refuse_other(first, plan().identity(), at_argument("--storage", "x"))
    save_file(state(seed=4), "w.safetensors")
    with pytest.raises(StudyError, match=r"accuracy\.weights\.sha256: .* -> ") as error:
        refuse_other(plan(ema=False), first.identity(), at_argument("--storage", "x"))
    assert error.value.problems[0].rule == "other-study"


def test_a_worker_finds_the_file_and_refuses_another(folder):
    Path("deep").mkdir()
    Path("tiny.yaml").rename("deep/tiny.yaml")
    file = Path("w.safetensors").rename(folder / "deep" / "start.safetensors")
    asked = "epochs: 1, weights: {file: start.safetensors}}"
    Path("deep/space.yaml").write_text(SPACE.replace("epochs: 1}", asked))
    prepared = prepare("deep/space.yaml", SearchOptions(out="out"))
    start = prepared.parts.start
    assert start.file == str(file)
    job = job_of(prepared.space, prepared.plan, (), None, prepared.parts.recipe, None, start.file)
    elsewhere = SearchParts(space_of(json.loads(json.dumps(job))), (), None)
    assert elsewhere.start == start
    save_file(state(seed=5), file)
    changed = StartWeights.from_json({**start.as_json(), "file": f"{file.parent}/./{file.name}"})
    with pytest.raises(WeightsError, match="is not the file that the study began with") as error:
        changed.fitted_to(prepared.space.base, 0)
    assert error.value.problems[0].rule == "other-study"


def test_trainings_of_other_weights_are_not_taken_for_these(folder):
    source, recipe = (
        parse_source({"type": "synthetic", "num_train": 64, "num_val": 32}),
        parse_recipe("quick", epochs=1),
    )
    results: dict[str, Any] = {}
    spec, reused = load("tiny.yaml"), []
    for seed in (None, 3, 3, 4):
        save_file(state(seed=seed or 0), f"{seed}.safetensors")
        start = StartWeights.of(spec, f"{seed}.safetensors", "archdsl", ema=False, new_head=False) if seed else None
        evaluate = TrainEvaluator(
            source,
            recipe,
            build=BuildFrom(recipe, start) if start else archdsl.build,
            identify=archdsl.identity,
            results=results,
            start=start.key() if start else "",
        )
        reused.append(evaluate(spec).reused)
    assert reused == [0, 0, 1, 0] and len(results) == 3


def test_a_search_trains_from_the_weights_and_goes_on_with_them_alone(folder, capsys):
    """At a learning rate of nearly nothing, a network is after its training what it was before."""
    Path("still.yaml").write_text("{extends: quick, lr: 1.0e-12}")
    command = ["search", "space.yaml", "--out", "out", "--recipe", "still.yaml", "--epochs", "1", "--weights"]
    assert run([*command, "w.safetensors", "--from", "archdsl", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    (line,) = Path("out/trainings.jsonl").read_text().splitlines()
    sha = prepare(load_space("space.yaml", weights()), SearchOptions(out="other")).parts.start.sha256
    assert f"weights={sha[:24]} from=archdsl" in line and first["front"]
    save_file(state(seed=4), "w.safetensors")
    assert run([*command, "w.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "[other-study]" in said and "accuracy.weights.sha256" in said
    assert run(command[:-1]) == 1
    assert "accuracy.weights" in capsys.readouterr().err
