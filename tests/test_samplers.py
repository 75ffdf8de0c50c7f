"""Samplers by name, and how a proposal reaches a trial."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from archdsl.errors import StudyError
from archdsl.report.search_run import search
from archdsl.study.proposals.samplers import EHVI, MOST_TRIALS_FOR_EHVI, SAMPLERS, Keyed, given, settled


def test_auto_is_ours_until_there_are_thousands_of_trials() -> None:
    assert settled("auto", MOST_TRIALS_FOR_EHVI)[0] == EHVI
    assert settled("auto", MOST_TRIALS_FOR_EHVI + 1)[0] == "nsga2"
    assert "200 trials go where the front is likely to grow" in settled("auto", 200)[1]
    assert settled("tpe", 10**6) == ("tpe", "as asked")


def test_an_unknown_sampler_is_told_all_that_there_are() -> None:
    with pytest.raises(StudyError, match="there is no sampler `ehvo`") as caught:
        settled("ehvo", 10)
    hint = str(caught.value.problems[0].hint)
    assert "`ehvi`" in hint
    assert all(name in hint for name in SAMPLERS)


def test_given_parameters_reach_the_trial_and_the_others_are_drawn_as_always() -> None:
    def drawn(sampler: optuna.samplers.BaseSampler) -> tuple[str, str]:
        study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        trial = study.ask()
        return trial.suggest_categorical("a", list("xyz")), trial.suggest_categorical("b", list("0123456789"))

    for number in range(5):
        keyed = Keyed("random", 7, number)
        assert drawn(given({"a": "z"}, keyed)) == ("z", drawn(Keyed("random", 7, number))[1])


def test_a_first_look_after_the_end_of_the_training_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="the first look is after 5 epochs, but the training ends after 2"):
        search("quickstart", set=["search.early_stopping.first=5"], objectives=["params"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
