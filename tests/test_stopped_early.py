"""What the reports say about trainings that early stopping ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_study import fake_accuracy, fake_space
from test_front import BOTH, record
from test_front_page import HOSTILE, Page, page_of

from archdsl.cli.main import run
from archdsl.report.front_page import page_facts
from archdsl.report.stopped_early import stopped_early
from archdsl.study.config import StudyConfig
from archdsl.study.record import Record


def ended(number: int, epoch: int, **more: Any) -> Record:
    """A network that was stopped after an epoch, or, after nine, trained to its end."""
    rungs = {rung: (0.1 * rung, 1.0) for rung in (1, 3) if rung <= epoch}
    accuracy = fake_accuracy(0.05 * epoch + 0.01, epochs=epoch, of_epochs=9)
    fields: dict[str, Any] = {"rungs": rungs, "accuracy": accuracy, **more}
    if epoch < 9:
        fields = {"state": "stopped", "values": None, "rule": "stopped", "reason": "behind", **fields}
    return record(number, 0.5 + number / 100, 1.0 + number, **fields)


SOME = [ended(0, 9), ended(1, 9), ended(2, 1), ended(3, 3), ended(4, 1), ended(5, 9)]


def test_the_trainings_that_were_stopped_are_counted_by_epoch_with_what_that_saved() -> None:
    found = stopped_early(SOME)
    assert found is not None
    assert found.after == {1: 2, 3: 1}
    assert str(found) == (
        "3 of 6 trainings were stopped early (2 after epoch 1, 1 after epoch 3): 32 of 54 epochs were trained"
    )
    assert found.as_json() == {
        "trainings": 6,
        "stopped": [
            {"trial": 2, "name": "n2", "after_epoch": 1},
            {"trial": 3, "name": "n3", "after_epoch": 3},
            {"trial": 4, "name": "n4", "after_epoch": 1},
        ],
        "epochs_trained": 32,
        "epochs_of_whole_trainings": 54,
    }


def test_a_network_counts_once_and_one_that_failed_or_runs_not_at_all() -> None:
    more = [
        ended(6, 1, hash="h2", duplicate_of=2, cheap=True),
        ended(7, 3, state="failed", rule="diverged"),
        ended(8, 1, state="open"),
        record(9, 0.1, 1.0, state="infeasible", values=None, accuracy=None),
    ]
    assert stopped_early([*SOME, *more]) == stopped_early(SOME)


def test_without_early_stopping_nothing_is_said() -> None:
    plain = [record(0, 0.5, 1.0), record(1, 0.6, 2.0)]
    assert stopped_early(plain) is None
    assert "stopped early" not in page_of(plain)
    none = stopped_early([ended(0, 9), ended(1, 9)])
    assert str(none) == "none of 2 trainings was stopped early"


def test_the_page_shows_who_was_stopped_when_and_how_good_it_was_by_then() -> None:
    page = Page(page_of(SOME, of=lambda r: f"depth {r.number}"))
    assert "3 stopped early" in page.text
    rows = page.text[page.text.index("3 stopped early") :]
    for number, epoch, reached in ((2, 1, "0.060"), (3, 3, "0.160"), (4, 1, "0.060")):
        assert f"{number}n{number}{epoch}{reached} ± " in rows and f"depth {number}" in rows
    assert "n5" not in rows


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_of_a_stopped_network_is_text_and_never_markup(hostile: str) -> None:
    plain = [ended(0, 9), ended(1, 1)]
    spoilt = [ended(0, 9), ended(1, 1, name=hostile, reason=hostile)]
    calm, page = Page(page_of(plain, of=lambda r: "e")), Page(page_of(spoilt, of=lambda r: hostile))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in calm.tags]


def test_the_facts_of_a_page_say_what_early_stopping_did() -> None:
    plan = StudyConfig("s", BOTH, 6, 0, "random")
    assert page_facts(fake_space(), plan, SOME)["early stopping"] == str(stopped_early(SOME))
    assert "early stopping" not in page_facts(fake_space(), plan, [record(0, 0.5, 1.0)])


SPACE = """
name: halved
base: micro_swin
choices: {stem.dim: [8, 16], stages.*.depth: [1, 2], stages.0.window: [2, 4]}
objectives:
  accuracy: {train: {data: synthetic, recipe: quick, epochs: 2}}
  params: {}
search: {trials: 6, sampler: random, early_stopping: {first: 1, eta: 2}}
"""


def test_a_search_says_in_its_last_lines_and_in_json_what_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracies are made up: wide networks are the worse ones, so they fall behind."""
    from archdsl.compiler import cost
    from archdsl.evaluators.train_processes import Trainers
    from archdsl.training import Accuracy

    def advance(self: Trainers, spec: Any, *, seed: int = 0, to_epoch: int) -> Accuracy:
        return fake_accuracy(0.9 - cost(spec).params / 1e6, epochs=to_epoch, of_epochs=2)

    monkeypatch.setattr(Trainers, "advance", advance)
    monkeypatch.setattr(Trainers, "discard", lambda self, spec, *, seed=0: None)
    (tmp_path / "halved.yaml").write_text(SPACE)
    command = ["search", str(tmp_path / "halved.yaml"), "--out", str(tmp_path / "run")]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["early_stopping"]
    assert told["trainings"] == 6 and 0 < len(told["stopped"]) < 6
    num = len(told["stopped"])
    assert f"early stopping: {num} of 6 trainings w" in shown and f"({num} after epoch 1)" in shown
    assert f"{num} stopped early" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
