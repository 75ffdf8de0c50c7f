"""Samplers by name, and how a proposal reaches a trial."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import optuna
import pytest

from archdsl.errors import StudyError
from archdsl.runs.search import search
from archdsl.study.proposals import samplers
from archdsl.study.proposals.samplers import (
    EHVI,
    GP,
    MOST_TRIALS_FOR_EHVI,
    RANDOM_FIRST,
    SAMPLERS,
    Keyed,
    given,
    settled,
)


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


def test_a_sampler_without_its_library_is_told_with_the_command_before_anything_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "find_spec", lambda name: None if name == "scipy" else find_spec(name))
    with pytest.raises(StudyError, match="the sampler `gp` needs the package scipy") as caught:
        search("quickstart", set=["search.sampler=gp"], objectives=["params"], out=tmp_path / "run")
    assert "pip install scipy" in str(caught.value.problems[0].hint)
    assert not (tmp_path / "run").exists()
    with pytest.raises(StudyError, match="needs the package scipy"):
        Keyed(GP, 0, 0)  # on the machine of a worker
    assert settled("tpe", 10) == ("tpe", "as asked")


def test_scipy_is_loaded_for_the_gaussian_process_alone() -> None:
    import subprocess

    program = (
        "import sys; from archdsl.study.proposals.samplers import SAMPLERS; "
        "[make(0) for name, make in SAMPLERS.items() if name != 'gp']; print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_gaussian_process_learns_and_keeps_away_from_what_breaks_a_constraint() -> None:
    """Two objectives that pull apart, and a constraint: its proposals are feasible, and better than random ones."""

    def last_six(name: str) -> list[float]:
        """The sum of both objectives of each feasible one of the last six trials; the least there can be is 40."""
        study = optuna.create_study(directions=["minimize", "minimize"])
        sums = []
        for number in range(RANDOM_FIRST + 7):
            study.sampler = Keyed(name, 0, number)
            trial = study.ask()
            a, b = trial.suggest_int("a", 0, 30), trial.suggest_int("b", 0, 30)
            penalty = {"good": 0.0, "bad": 10.0, "worse": 20.0}[trial.suggest_categorical("kind", list(KINDS))]
            trial.set_constraint("sum", (40.0 - a - b) / 40)
            study.tell(trial, [a + penalty, b + penalty])
            if number > RANDOM_FIRST and a + b >= 40:
                sums.append(a + b + 2 * penalty)
        return sums

    ours = last_six(GP)
    assert len(ours) == 6 and max(ours) <= 46
    assert len(last_six("random")) < 6


KINDS = ("bad", "good", "worse")


def test_a_first_look_after_the_end_of_the_training_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="the first look is after 5 epochs, but the training ends after 2"):
        search("quickstart", set=["search.early_stopping.first=5"], objectives=["params"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
