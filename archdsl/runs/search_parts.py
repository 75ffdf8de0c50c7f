"""What the objectives and constraints of a search name, looked up and checked: latencies, training, predictors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

from archdsl.compiler import identity
from archdsl.errors import (
    ArchError,
    BackendError,
    MeasureError,
    Problem,
    SpecError,
    StudyError,
    TrainingError,
)
from archdsl.evaluators.start_weights import StartWeights
from archdsl.evaluators.train_processes import Trainers
from archdsl.events import Listener
from archdsl.language import Space
from archdsl.language.architecture.load import checked
from archdsl.language.space.counting import count
from archdsl.language.space.objectives import MEASURED, TargetObjective, Train
from archdsl.language.text.files import home_of
from archdsl.language.text.words import joined
from archdsl.latency import CacheWarning, TimingCache, close_workers
from archdsl.runs.folder import RunFolder
from archdsl.runtimes.target import Target
from archdsl.study.candidate import Assessor
from archdsl.study.config import FINGERPRINT, StudyConfig
from archdsl.study.early_stopping import SuccessiveHalving
from archdsl.study.engine_estimate import EngineEstimator
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.study.objectives import chosen, named
from archdsl.study.predicted_latencies import Effort, PredictedLatencies
from archdsl.study.proposals.samplers import EHVI
from archdsl.suggestions import did_you_mean
from archdsl.training import Recipe, parse_recipe
from archdsl.training.data import in_folder, parse_source
from archdsl.training.data.facts import data_facts
from archdsl.training.tasks.maps import check_is_task

T = TypeVar("T")
MOST_COUNTED = 512
"""The networks of spaces with at most so many settings are counted, to notice when every network has been seen."""


class Problems:
    """Gathers the problems of several steps, so that all are reported at once."""

    def __init__(self) -> None:
        self._errors: list[ArchError] = []

    def of(self, step: Callable[[], T]) -> T | None:
        """What the step returns; None when it raises an ArchError, which is kept."""
        try:
            return step()
        except ArchError as error:
            self._errors.append(error)
            return None

    def raise_all(self) -> None:
        """Raises: ArchError with all problems; the error itself where there was one"""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            problems = dict.fromkeys(problem for error in self._errors for problem in error.problems)
            by_line = sorted(problems, key=lambda each: (each.place.file or "", each.place.line, each.place.column))
            raise max(self._errors, key=lambda error: error.exit_code).__class__(by_line)


class SearchParts:
    """What the space's objectives and constraints name, looked up and checked.

    folder: that the space's data path is relative to; by default that of the space's file, else the working folder

    Attributes:
        space: with the number of classes that the data have, where it leaves it to them
        facts: what is kept of the data beside the networks (`training.data.facts`)
    """

    def __init__(self, space: Space, asked: Sequence[str], on: str | None, folder: str | None = None):
        self.space, self.on = space, on
        self.data_place = space.locate("objectives.accuracy.train.data")
        home = home_of(self.data_place.file)
        self.data_folder = folder or (home.folder if home is not None else None) or os.getcwd()
        self.data: str | dict[str, Any] = ""
        self.fingerprint, self.data_key = "", ""
        self.facts: dict[str, Any] = {}
        labels = tuple(target.label for target in space.objectives.targets)
        self.objectives = chosen(asked, space.objectives.names, labels if len(labels) > 1 else ())
        found = Problems()
        self.constraints: dict[str, Any] = found.of(lambda: constraints_of(space, labels)) or {}
        self.wanted = {objective.name for objective in self.objectives} | {*self.constraints}
        self.cache = TimingCache()
        self.latencies = {
            label: LatencyEvaluator(target, cache=self.cache, energy=named("energy", label) in self.wanted)
            for label, target in (found.of(lambda: targets_of(space, on)) or {}).items()
            if self.wanted & {named(kind, label) for kind in MEASURED}
        }
        self.estimate = found.of(lambda: self._estimator(on)) if "latency_estimate" in self.wanted else None
        self.recipe = found.of(self._recipe) if "accuracy" in self.wanted else None
        self.train = found.of(self._train) if "accuracy" in self.wanted else None
        self.start = found.of(lambda: self._start(folder))
        found.raise_all()

    def fixed(self) -> dict[str, Any]:
        """What a resumed study must share.

        Errors: StudyError when a runtime is not installed, or no counter gives an energy that is asked for
        """
        data = {key: value for key, value in self.space.data.items() if key in ("choices", "constraints")}
        found: dict[str, Any] = {**data, "base": self.space.base.data, "start": [s.name for s in self.space.start]}
        fingerprints = fingerprints_of(self.space, self.latencies, self.on)
        self._check_energy()
        if self.estimate is not None:
            try:
                found["latency_estimate"] = self.estimate.identity()
            except BackendError as error:
                raise StudyError(error.problems) from None
        if fingerprints:
            found["latency"] = fingerprints.get("", fingerprints)
        if self.train is not None and self.recipe is not None:
            recipe = self.recipe.model_dump(exclude={"name"})
            found["accuracy"] = {"data": self.train.data, "recipe": recipe, "seeds": self.train.seeds}
            if self.start is not None:
                found["accuracy"]["weights"] = self.start.identity()
            if self.fingerprint:
                found["accuracy"][FINGERPRINT] = self.fingerprint
        if (halving := self.halving()) is not None:
            found["early_stopping"] = {"first": halving.first, "eta": halving.eta}
        if not self.space.search.foresee:
            found["foresee"] = False
        return found

    def _check_energy(self) -> None:
        """Errors: StudyError when an energy is asked for that no counter gives: every trial would fail"""
        for label, latency in self.latencies.items():
            why = latency.why_no_energy() if latency.energy else None
            if why is not None:
                name = named("energy", label)
                message = f"no counter gives the energy of a network in {latency.target}: {why}"
                hint = f"leave {name} out, or search on a machine that has such a counter"
                asking = "objectives" if self.space.objectives.energy is not None else "constraints"
                raise StudyError(Problem(self.space.locate(f"{asking}.energy"), "no-energy", message, hint))

    def _estimator(self, on: str | None) -> EngineEstimator:
        """What estimates latencies: on the GPU that `on` names, else on the space's.

        Errors: SpecError, StudyError when neither names one
        """
        asked = self.space.objectives.latency_estimate
        fields = asked.fields() if asked is not None else {"precision": "fp16", "batch": 1}
        named_on = _on(on)
        if "gpu" in named_on:
            return EngineEstimator(Target.parse({**fields, **named_on}))
        if asked is None:
            message = "an estimate of the latency needs to know the GPU that networks are compiled for"
            hint = "give --on tensorrt-rtx:sm86, or add `latency_estimate: {runtime: tensorrt-rtx, gpu: sm86}`"
            raise StudyError.at("--objective", "latency_estimate", "missing-key", message, hint)
        where = "objectives.latency_estimate"
        return EngineEstimator(Target.parse(fields, lambda field: self.space.locate(f"{where}.{field}".rstrip("."))))

    def halving(self) -> SuccessiveHalving | None:
        """The early stopping of trainings. Errors: StudyError when its first rung lies after their end"""
        asked = self.space.search.early_stopping
        if asked is None or self.recipe is None:
            return None
        if asked.first > self.recipe.epochs:
            message = f"the first look is after {asked.first} epochs, but the training ends after {self.recipe.epochs}"
            place = self.space.locate("search.early_stopping.first")
            raise StudyError(Problem(place, "out-of-range", message, "look earlier, or train longer"))
        return SuccessiveHalving(self.recipe.epochs, asked.first, asked.eta)

    @contextmanager
    def assessor(self, plan: StudyConfig, folder: RunFolder, on_event: Listener) -> Iterator[Assessor]:
        """What finds out the values of the study's networks; the processes that it starts end with the context.

        on_event: receives an `EpochEnded` for each epoch of a training
        """
        with ExitStack() as stack:
            stack.callback(close_workers)
            if self.estimate is not None:
                stack.callback(self.estimate.close)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("once", CacheWarning)
            trainers = self._trainers(folder, on_event)
            if trainers is not None:
                stack.callback(trainers.close)
            yield Assessor(
                self.space,
                self.objectives,
                constraints=self.constraints,
                latency=self.latencies,
                accuracy=trainers,
                estimate=self.estimate,
                seed=plan.seed,
                early_stopping=self.halving(),
                predicted=self._predicted(plan),
            )

    def _predicted(self, plan: StudyConfig) -> PredictedLatencies | None:
        """Latency prediction for the sampler; None for samplers that do not use it.

        Calibrating a predictor is worth its time where trials train; where they only measure, they would end sooner.
        """
        if plan.sampler != EHVI or not self.space.search.foresee:
            return None
        counting = {
            label: latency.target
            for label, latency in self.latencies.items()
            if self.wanted & {named("latency", label), named("throughput", label)}
        }
        effort = Effort.for_trials(plan.trials) if "accuracy" in self.wanted else None
        return PredictedLatencies(self.space, counting, effort=effort, cache=self.cache, seed=plan.seed)

    def _trainers(self, folder: RunFolder, on_event: Listener) -> Trainers | None:
        if self.train is None or self.recipe is None:
            return None
        return Trainers(
            self.data,
            self.recipe,
            results=folder.trainings,
            num_seeds=self.train.seeds,
            threads=self.train.threads,
            on_event=on_event,
            start=self.start,
        )

    def _start(self, folder: str | None) -> StartWeights | None:
        """The weights that trainings start from, which fit the base. Errors: WeightsError"""
        base = checked(self.space.base)
        if self.train is None or (asked := self.train.weights) is None:
            return None
        place = self.space.locate("objectives.accuracy.train.weights.file")
        home = home_of(place.file)
        folder = (home.folder if home is not None else None) or folder or os.getcwd()
        file = os.path.join(folder, os.path.expanduser(asked.file))
        return StartWeights.of(base, file, asked.source, ema=asked.ema, new_head=asked.new_head)

    def _recipe(self) -> Recipe | None:
        accuracy = self.space.objectives.accuracy
        if accuracy is None or accuracy.train is None:
            return None  # which `_train` refuses, or another evaluator has no need of
        where = self.space.locate("objectives.accuracy.train.recipe")
        return parse_recipe(accuracy.train.recipe, where, epochs=accuracy.train.epochs)

    def _train(self) -> Train:
        accuracy = self.space.objectives.accuracy
        if accuracy is None:
            message = "a constraint on accuracy needs to know how it is taken"
            hint = "add `accuracy: {train: {data: synthetic}}` to the objectives"
            raise StudyError(Problem(self.space.locate("constraints.accuracy"), "missing-key", message, hint))
        self.data = in_folder(accuracy.train.data, self.data_folder)
        source, wanted = parse_source(self.data, self.data_place), self.space.base.input
        try:
            data = source.open(wanted.size, wanted.channels)
        except TrainingError as error:
            here = {"channels": self.space.locate("base")}
            moved = [replace(each, place=here.get(each.rule, self.data_place)) for each in error.problems]
            raise TrainingError(moved) from error
        self.fingerprint, self.data_key, self.facts = data.fingerprint(), data.key(), data_facts(data)
        self.space = self.space.with_classes(data.num_classes)
        check_is_task(self.space.base)
        return accuracy.train


def constraints_of(space: Space, labels: Sequence[str]) -> dict[str, Any]:
    """The space's bounds by the names that they have in the study.

    labels: of the targets that the space names. Errors: StudyError for bounds on another target
    """
    found: dict[str, Any] = {}
    for kind in type(space.constraints).model_fields:
        bounds = getattr(space.constraints, kind)
        if bounds is None:
            continue
        if kind not in MEASURED:
            found[kind] = bounds
            continue
        problems = [
            Problem(
                space.locate(f"constraints.{kind}.{label}"),
                "unknown-name",
                f"there is no target `{label}`",
                joined(did_you_mean(label, labels), f"Targets: {', '.join(labels) or 'none'}."),
                f"constraints.{kind}.{label}",
            )
            for label in bounds.labels
            if label not in labels
        ]
        if problems:
            raise StudyError(problems)
        for label in labels or ("",):
            if bounds.on(label) is not None:
                found[named(kind, label if len(labels) > 1 else "")] = bounds.on(label)
    return found


def fingerprints_of(space: Space, latencies: Mapping[str, LatencyEvaluator], on: str | None) -> dict[str, str]:
    """What tells the targets of these from others, by label.

    on: the runtime that takes the place of the only target's
    Raises: StudyError where a runtime cannot run here
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    written = {target.label if len(space.objectives.targets) > 1 else "": target for target in space.objectives.targets}
    for label, latency in latencies.items():
        try:
            found[label] = latency.on.fingerprint
        except MeasureError as error:
            those = _or_elsewhere(error) if len(latencies) == 1 else list(error.problems)
            those = _or_estimated(those) if latency.target.device == "cuda" else those
            if on is None and label in written:
                place = space.locate(_path_of(space, written[label]))
                those = [replace(problem, place=place) for problem in those]
            problems += those
    if problems:
        raise StudyError(problems)
    return found


def targets_of(space: Space, on: str | None) -> dict[str, Target]:
    """The study's targets by label, '' for the only one.

    on: a runtime that takes the place of the only target's; precision and device are then that runtime's
    Errors: SpecError; StudyError when two targets are one, or when `on` does not say which it means
    """
    written = space.objectives.targets or (TargetObjective(),)
    if len(written) == 1:
        fields = written[0].fields()
        if on is not None and on != written[0].runtime:
            return {"": Target.parse({**_on(on), "batch": fields["batch"], "threads": fields["threads"]})}
        return {"": _target(space, written[0])}
    if on is not None:
        message = f"--on takes the place of one target, but the space names {len(written)}"
        hint = "leave it out, or change one of them, e.g. --set objectives.latency.0.runtime=openvino"
        raise StudyError.at("--on", on, "wrong-value", message, hint)
    found = {target.label: _target(space, target) for target in written}
    for one, other in combinations(found, 2):
        if found[one] == found[other]:
            message = f"`{one}` and `{other}` are the same target: {found[one]}"
            place = space.locate("objectives")
            raise StudyError(Problem(place, "wrong-value", message, "leave one of them out", "objectives"))
    return found


def _on(word: str | None) -> dict[str, str]:
    """`tensorrt-rtx:sm86` -> the fields of a target; of another word the runtime alone."""
    name, colon, gpu = (word or "").partition(":")
    return {"runtime": name, "gpu": gpu} if colon else {"runtime": name}


def _target(space: Space, written: TargetObjective) -> Target:
    where = _path_of(space, written)
    try:
        return Target.parse(written.fields(), lambda field: space.locate(f"{where}.{field}".rstrip(".")))
    except SpecError as error:
        raise SpecError(_or_elsewhere(error)) from None


def _or_elsewhere(error: ArchError) -> list[Problem]:
    """The problems of a target, with one more way out."""
    hint = f"or time it on another runtime: --on {Target.runtime}"
    return [replace(p, hint=f"{p.hint}; {hint}" if p.hint else hint) for p in error.problems]


def _or_estimated(problems: Sequence[Problem]) -> list[Problem]:
    """The problems of a target whose GPU is not here, with what can be had without it."""
    hint = "without that GPU: --objective latency_estimate --on tensorrt-rtx:sm86 estimates it"
    return [replace(p, hint=f"{p.hint}; {hint}" if p.hint else hint) for p in problems]


def _path_of(space: Space, written: TargetObjective) -> str:
    """The path of a target in the space's file."""
    for kind in MEASURED:
        for index, target in enumerate(getattr(space.objectives, kind) or ()):
            if target is written:
                listed = isinstance((space.data.get("objectives") or {}).get(kind), list)
                return f"objectives.{kind}" + (f".{index}" if listed else "")
    return "objectives.latency"


def num_distinct(space: Space) -> int | None:
    """How many networks a small space holds; None for a large one."""
    if space.num_total > MOST_COUNTED:
        return None
    return count(space, identity, limit=MOST_COUNTED).distinct.value
