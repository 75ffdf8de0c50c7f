"""Optuna's samplers by name. All chance comes from (study seed, trial number, knob): so a study that was stopped and
resumed, even in the middle of a proposal, proposes what an uninterrupted one does, and nothing has to be pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from archdsl.errors import Place, Problem, StudyError, at_argument
from archdsl.spec.words import did_you_mean, joined

MOST_TRIALS_FOR_TPE = 3000
"""Asking TPE takes 0.3 s after 3000 trials, and longer for each; NSGA-II stays at hundredths."""
RANDOM_FIRST = 8
"""Trials that TPE draws at random before it has anything to learn from."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def settled(name: str, trials: int, place: Place | None = None) -> tuple[str, str]:
    """(sampler, why) for a name from the space file; `auto` chooses by the number of trials.

    Errors: StudyError for a name that is none
    """
    if name in SAMPLERS:
        return name, "as asked"
    if name != "auto":
        known = ["auto", *SAMPLERS]
        hint = joined(did_you_mean(name, known), f"Samplers: {', '.join(known)}.")
        place = place or at_argument("sampler", name)
        raise StudyError(Problem(place, "unknown-name", f"there is no sampler `{name}`", hint, "search.sampler"))
    if trials <= MOST_TRIALS_FOR_TPE:
        return "tpe", f"it learns from few trials, and {trials} are not many"
    return "nsga2", f"with {trials} trials, TPE would take longer to propose than most networks take to measure"


class Keyed(BaseSampler):
    """A sampler for one trial. It is made anew for every draw, with a seed that depends on what is drawn alone."""

    def __init__(self, name: str, seed: int, number: int):
        self._make, self._key = SAMPLERS[name], (seed, number)

    def _sampler(self, *more: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make(int(np.random.SeedSequence([*self._key, *more]).generate_state(1)[0]))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._relative = self._sampler()  # the same object, since samplers note here what they sample next
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._sampler(crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler().after_trial(study, trial, state, values)
