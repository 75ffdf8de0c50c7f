"""From a spec to its accuracy by really training the network, with an error bar and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from archdsl.training.data import Data, Source
from archdsl.training.recipe import Recipe
from archdsl.training.results import ResultStore

if TYPE_CHECKING:
    from torch import nn

    from archdsl.training.loop import Epoch


class InputOf(Protocol):
    """The part of a spec's `input` that an evaluator looks at: pixels, square or (height, width)."""

    @property
    def size(self) -> int | tuple[int, int]: ...


class Trainable(Protocol):
    """The part of a spec that an evaluator looks at."""

    @property
    def input(self) -> InputOf: ...


S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S", bound=Trainable)
T_contra = TypeVar("T_contra", bound=Trainable, contravariant=True)


class Build(Protocol[T_contra]):
    """Spec -> trainable model with the first weights of `seed`: `archdsl.build` is one."""

    def __call__(self, spec: T_contra, *, seed: int) -> nn.Module: ...


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on a validation set after real training: nothing cheaper is ever called an accuracy.

    mean, values: over `seeds`, and of each of them, in [0, 1]; sd: their sample standard deviation, None for one seed
    num_val: validation images, of which num_val_independent are independent draws
    epochs: as trained; seconds: wall time of all these trainings, when they were done; reused: how many were not done
    now but found in the store; data, recipe: whose accuracy it is
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    num_val: int
    num_val_independent: int
    epochs: int
    seconds: float
    reused: int
    data: str
    recipe: str

    @property
    def standard_error(self) -> float:
        """One standard error of `mean`, on the safe side.

        sqrt(p(1 - p) / n + sd^2 / seeds): the binomial error of n independent validation images, which all seeds share,
        and the spread over seeds. p has two right and two wrong answers added, so that 100 % is not error-free (Agresti
        and Coull 1998). With one seed the spread is unknown and left out: then it is a lower bound.
        """
        n = self.num_val_independent
        p = (self.mean * n + 2) / (n + 4)
        between_seeds = self.sd**2 / len(self.seeds) if self.sd is not None else 0.0
        return sqrt(p * (1 - p) / (n + 4) + between_seeds)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "standard_error": self.standard_error}

    def __str__(self) -> str:
        over = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f} ({over}, {self.data}, {self.epochs} epochs)"


class Evaluator(Protocol[S_contra]):
    """Spec -> accuracy. The same spec and seed give the same accuracy."""

    def __call__(self, spec: S_contra, *, seed: int) -> Accuracy: ...


class TrainEvaluator(Generic[S]):
    """Trains the network of a spec from its first weights, `num_seeds` times.

    build: spec and seed -> trainable model; identify: spec -> canonical graph hash, equal for equal networks
    num_seeds: runs per spec, with seeds `seed`, `seed + 1`, …
    results: store of finished runs; a run found there is not done again
    threads: CPU threads of torch, None for torch's own choice; beside a busy process more than one can cost a micro
    network dearly, since threads spin while they wait (seen once: 10 s became 243 s on two loaded cores)
    report: called with the run's seed after each of its epochs
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        *,
        build: Build[S],
        identify: Callable[[S], str],
        num_seeds: int = 1,
        results: ResultStore | None = None,
        threads: int | None = 1,
        report: Callable[[int, Epoch], None] | None = None,
    ):
        self.source, self.recipe, self.build, self.identify = source, recipe, build, identify
        self.num_seeds, self.threads, self.report = num_seeds, threads, report
        self.results: ResultStore = {} if results is None else results
        self._opened: dict[tuple[int, int], Data] = {}

    def __call__(self, spec: S, *, seed: int = 0) -> Accuracy:
        """Raises TrainingError: diverged, classes, batch, missing-folder, …; whatever `build` raises passes through."""
        data = self._data(spec)
        seeds = tuple(range(seed, seed + self.num_seeds))
        graph = self.identify(spec)
        runs, reused = [], 0
        for run_seed in seeds:
            key = f"{graph} | {data.key()} | {self.recipe.key()} | seed={run_seed}"
            run = self.results.get(key)
            if run is None:
                run = self.results[key] = self._train(spec, data, run_seed)
            else:
                reused += 1
            runs.append(run)
        values = tuple(float(run["accuracy"]) for run in runs)
        return Accuracy(
            mean=fmean(values),
            sd=stdev(values) if len(values) > 1 else None,
            values=values,
            seeds=seeds,
            num_val=int(runs[0]["num_val"]),
            num_val_independent=int(runs[0]["num_val_independent"]),
            epochs=int(runs[0]["epochs"]),
            seconds=sum(float(run["seconds"]) for run in runs),
            reused=reused,
            data=self.source.text(),
            recipe=self.recipe.name,
        )

    def _data(self, spec: S) -> Data:
        size = spec.input.size
        pixels = (size, size) if isinstance(size, int) else (size[0], size[1])
        if pixels not in self._opened:
            self._opened[pixels] = self.source.open(pixels)
        return self._opened[pixels]

    def _train(self, spec: S, data: Data, seed: int) -> dict[str, Any]:
        import torch

        from archdsl.training.loop import train

        report = self.report
        outcome = train(
            self.build(spec, seed=seed),
            data,
            self.recipe,
            seed=seed,
            threads=self.threads,
            report=(lambda epoch: report(seed, epoch)) if report else None,
        )
        return {
            "accuracy": outcome.accuracy,
            "num_val": outcome.num_val,
            "num_val_independent": outcome.num_val_independent,
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            "history": [asdict(epoch) for epoch in outcome.history],
            "torch": torch.__version__,
        }
