"""Samplers by name: archdsl's and Optuna's.

All random numbers are seeded by (study seed, trial number, choice). So a study that was stopped and resumed, even in
the middle of a proposal, proposes what an uninterrupted one does, and nothing is pickled.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from zlib import crc32

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from archdsl.errors import Place, Problem, StudyError, at_argument
from archdsl.language.text.words import joined
from archdsl.suggestions import did_you_mean

MOST_TRIALS_FOR_EHVI = 3000
"""A proposal by Gaussian process reads all trials, 0.05 s with a thousand; NSGA-II takes that with ten thousands."""
RANDOM_FIRST = 8
"""Trials that TPE and GP draw at random before their models are fitted."""

EHVI = "ehvi"
"""archdsl's own (`proposer.py`): proposes whole networks. The entry below draws only where it has none to propose."""

GP = "gp"
"""Optuna's, by a Gaussian process for each objective: needs scipy, and with hundreds of trials seconds a proposal."""


class _GaussianProcess(optuna.samplers.GPSampler):
    """Proposes for a trial once. Optuna keeps the proposal with the trial, so that other workers know what is tried;
    asked again, for a trial whose worker was killed, it would take that for another's and propose something else.
    """

    def __init__(self, seed: int):
        super().__init__(seed=seed, n_startup_trials=RANDOM_FIRST, warn_independent_sampling=False)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        kept = {key: text for key, text in trial.system_attrs.items() if key.startswith(_PROPOSED)}
        if kept:  # in pieces, since databases hold only so much in one
            whole = "".join(kept[key] for key in sorted(kept, key=lambda key: int(key.removeprefix(_PROPOSED))))
            return {name: value for name, value in json.loads(whole).items() if name in search_space}
        return super().sample_relative(study, trial, search_space)


_PROPOSED = "gp:relative_params:"
"""Where Optuna keeps what its GPSampler proposed; a test that cuts proposals short notices a change."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    EHVI: lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST),
    GP: _GaussianProcess,
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def settled(name: str, trials: int, place: Place | None = None) -> tuple[str, str]:
    """(sampler, why) for a name from the space file; `auto` chooses by the number of trials.

    Raises: StudyError for a name that is none, or whose library is not installed
    """
    if name in SAMPLERS:
        check_installed(name, place)
        return name, "as asked"
    if name != "auto":
        known = ["auto", *SAMPLERS]
        hint = joined(did_you_mean(name, known), f"Samplers: {', '.join(known)}.")
        place = place or at_argument("sampler", name)
        raise StudyError(Problem(place, "unknown-name", f"there is no sampler `{name}`", hint, "search.sampler"))
    if trials <= MOST_TRIALS_FOR_EHVI:
        return EHVI, f"costs are known or soon learnt, so that {trials} trials go where the front is likely to grow"
    return "nsga2", f"with {trials} trials, guessing would take longer than many networks take to measure"


def check_installed(name: str, place: Place | None = None) -> None:
    """Raises: StudyError when a library that the sampler needs is not installed"""
    if name == GP and find_spec("scipy") is None:
        message = f"the sampler `{name}` needs the package scipy, which is not installed"
        place, hint = place or at_argument("sampler", name), "pip install scipy, or choose another sampler"
        raise StudyError(Problem(place, "not-installed", message, hint, "search.sampler"))


def given(parameters: Mapping[str, Any], otherwise: BaseSampler) -> BaseSampler:
    """A sampler that gives a trial these parameters, and draws the others by another sampler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(dict(parameters), otherwise)


class Keyed(BaseSampler):
    """A sampler for one trial. It is created for every draw, with a seed that depends on what is drawn alone.

    Args: name: of `SAMPLERS`; seed: the study's; number: the trial's
    Raises: StudyError when a library that it needs is not installed: a worker elsewhere may lack what the study has
    """

    def __init__(self, name: str, seed: int, number: int):
        check_installed(name)
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
