"""From a spec to its accuracy, with an error bar and what it cost. Here: by really training the network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from archdsl.errors import Place, Problem, TrainingError
from archdsl.training.agreement import RankAgreement
from archdsl.training.data import Data, Source
from archdsl.training.recipe import Recipe
from archdsl.training.results import ResultStore

if TYPE_CHECKING:
    from torch import nn

    from archdsl.training.outcome import Epoch

log = logging.getLogger(__name__)

Kind = Literal["train", "supernet", "inherit", "proxy"]

KEEP_EVERY_S = 30.0
"""A run that is not cut short on purpose is kept so often, so that one that is killed is not begun anew."""


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
    of_epochs: the length of the schedule, of which `epochs` may be only a part; None: all of it
    paid_epochs: epochs that were trained now, over all seeds
    notes: what was done otherwise than asked, and what was skipped
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
    of_epochs: int | None = None
    paid_epochs: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether the schedule was followed to its end."""
        return self.of_epochs is None or self.epochs >= self.of_epochs

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
        length = f"{self.epochs}" if self.is_final else f"{self.epochs} of {self.of_epochs}"
        epochs = f"{length} epoch{'' if length == '1' else 's'}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f} ({over}, {self.data}, {epochs})"


def accuracy_of(data: Mapping[str, Any]) -> Accuracy:
    """The accuracy that `as_json` described."""
    known = {field.name for field in fields(Accuracy)}
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in known
    }
    return Accuracy(**plain)


def combined(runs: Sequence[Accuracy]) -> Accuracy:
    """One accuracy over the seeds of several, which are of one network, data and recipe."""
    values = tuple(value for run in runs for value in run.values)
    return replace(
        runs[0],
        mean=fmean(values),
        sd=stdev(values) if len(values) > 1 else None,
        values=values,
        seeds=tuple(seed for run in runs for seed in run.seeds),
        seconds=sum(run.seconds for run in runs),
        reused=sum(run.reused for run in runs),
        paid_epochs=sum(run.paid_epochs or 0 for run in runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
    )


class Evaluator(Protocol[S_contra]):
    """Spec -> accuracy. The same spec and seed give the same accuracy.

    name: as users write it; kind: how it comes to its numbers
    agreement: its measured rank correlation with real training, None for `not measured`; reports show it (see
        `trust_of`), so there is no evaluator that leaves it open
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def agreement(self) -> RankAgreement | None: ...
    def __call__(self, spec: S_contra, *, seed: int) -> Accuracy: ...


@runtime_checkable
class Stepwise(Protocol[S_contra]):
    """An evaluator that can judge a network early and go on later: what early stopping needs."""

    def advance(self, spec: S_contra, *, seed: int, to_epoch: int) -> Accuracy:
        """The accuracy after `to_epoch` epochs of the whole schedule; `paid_epochs` says what was trained for it now.

        It goes on where an earlier call for this spec and seed ended. After the last epoch it is what a call gives.
        """
        ...

    def discard(self, spec: S_contra, *, seed: int) -> None:
        """This network will not be gone on with: what was kept for that may go."""
        ...


def trust_of(evaluator: Evaluator[Any]) -> str:
    """The sentence with which reports show an evaluator's numbers."""
    if evaluator.kind == "train":
        return f"{evaluator.name}: real training, the reference itself"
    measured = str(evaluator.agreement) if evaluator.agreement is not None else "not measured"
    return f"{evaluator.name} ({evaluator.kind}): rank correlation with real training {measured}"


class TrainEvaluator(Generic[S]):
    """Trains the network of a spec from its first weights, `num_seeds` times.

    build: spec and seed -> trainable model; identify: spec -> canonical graph hash, equal for equal networks
    num_seeds: runs per spec, with seeds `seed`, `seed + 1`, …
    results: store of finished runs; a run found there is not done again
    checkpoints: folder in which unfinished runs are kept, to go on with; None: what is cut short begins anew
    threads: CPU threads of torch, None for torch's own choice; beside a busy process more than one can cost a micro
    network dearly, since threads spin while they wait (seen once: 10 s became 243 s on two loaded cores)
    device: `cpu` or `cuda…`; report: called with the run's seed after each of its epochs
    """

    name: str = "train"
    kind: Kind = "train"
    agreement: RankAgreement | None = None

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        *,
        build: Build[S],
        identify: Callable[[S], str],
        num_seeds: int = 1,
        results: ResultStore | None = None,
        checkpoints: Path | None = None,
        threads: int | None = 1,
        device: str = "cpu",
        report: Callable[[int, Epoch], None] | None = None,
    ):
        self.source, self.recipe, self.build, self.identify = source, recipe, build, identify
        self.num_seeds, self.threads, self.device, self.report = num_seeds, threads, device, report
        self.results: ResultStore = {} if results is None else results
        self.checkpoints = checkpoints
        self._opened: dict[tuple[int, int], Data] = {}

    def __call__(self, spec: S, *, seed: int = 0) -> Accuracy:
        """Raises TrainingError: diverged, classes, batch, missing-folder, …; whatever `build` raises passes through."""
        return self.advance(spec, seed=seed, to_epoch=self.recipe.epochs)

    def advance(self, spec: S, *, seed: int = 0, to_epoch: int) -> Accuracy:
        """As `Stepwise.advance`. Errors: as a call; `out-of-range` for an epoch that the recipe has not"""
        if not 1 <= to_epoch <= self.recipe.epochs:
            message = f"`to_epoch` must be 1 to {self.recipe.epochs}, the epochs of the recipe, but got {to_epoch}"
            raise TrainingError(Problem(Place("training"), "out-of-range", message))
        data = self._data(spec)
        seeds = tuple(range(seed, seed + self.num_seeds))
        graph = self.identify(spec)
        runs = []
        for run_seed in seeds:
            key = self._key(graph, data, run_seed)
            run, paid = self._known(key, to_epoch), 0
            reused = int(run is not None)
            if run is None:
                run = self._train(spec, data, run_seed, key, to_epoch)
                self.results[self._key_at(key, to_epoch)] = run
                paid = int(run["paid_epochs"])
            runs.append(self._accuracy(run, run_seed, reused, paid))
        return combined(runs)

    def discard(self, spec: S, *, seed: int = 0) -> None:
        """Remove the kept states of this spec's unfinished runs; their results stay known."""
        data, graph = self._data(spec), self.identify(spec)
        for run_seed in range(seed, seed + self.num_seeds):
            path = self._kept_at(self._key(graph, data, run_seed))
            if path is not None:
                path.unlink(missing_ok=True)

    def _accuracy(self, run: Mapping[str, Any], seed: int, reused: int, paid_epochs: int) -> Accuracy:
        return Accuracy(
            mean=float(run["accuracy"]),
            sd=None,
            values=(float(run["accuracy"]),),
            seeds=(seed,),
            num_val=int(run["num_val"]),
            num_val_independent=int(run["num_val_independent"]),
            epochs=int(run["epochs"]),
            seconds=float(run["seconds"]),
            reused=reused,
            data=self.source.text(),
            recipe=self.recipe.name,
            of_epochs=self.recipe.epochs,
            paid_epochs=paid_epochs,
            notes=tuple(run.get("notes", ())),
        )

    def _key(self, graph: str, data: Data, seed: int) -> str:
        where = "" if self.device == "cpu" else f" | {self.device.partition(':')[0]}"
        return f"{graph} | {data.key()} | {self.recipe.key()} | seed={seed}{where}"

    def _key_at(self, key: str, to_epoch: int) -> str:
        return key if to_epoch == self.recipe.epochs else f"{key} | to_epoch={to_epoch}"

    def _known(self, key: str, to_epoch: int) -> Mapping[str, Any] | None:
        """A finished run, this far or farther: what it came to on the way is known, too."""
        run = self.results.get(self._key_at(key, to_epoch))
        if run is not None:
            return run
        whole = self.results.get(key)
        return _cut(whole, to_epoch) if whole is not None and len(whole.get("history", ())) >= to_epoch else None

    def _kept_at(self, key: str) -> Path | None:
        if self.checkpoints is None:
            return None
        return self.checkpoints / f"{sha256(key.encode()).hexdigest()[:24]}.safetensors"

    def _data(self, spec: S) -> Data:
        size = spec.input.size
        pixels = (size, size) if isinstance(size, int) else (size[0], size[1])
        if pixels not in self._opened:
            self._opened[pixels] = self.source.open(pixels)
        return self._opened[pixels]

    def _train(self, spec: S, data: Data, seed: int, key: str, to_epoch: int) -> dict[str, Any]:
        import torch

        from archdsl.training.checkpoint import write_checkpoint
        from archdsl.training.loop import train

        report, path = self.report, self._kept_at(key)
        state = _read_kept(path) if path is not None else None
        if state is not None and len(state["history"]) > to_epoch:
            state = None  # this far it was known and the store has lost it
        done, written = len(state["history"]) if state is not None else 0, time.monotonic()

        def keep(state: dict[str, Any]) -> None:
            nonlocal written
            epochs = len(state["history"])
            is_pause = epochs == to_epoch < self.recipe.epochs
            if path is not None and (is_pause or time.monotonic() - written > KEEP_EVERY_S):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_checkpoint(path, state)
                written = time.monotonic()

        outcome = train(
            self.build(spec, seed=seed),
            data,
            self.recipe,
            seed=seed,
            threads=self.threads,
            device=self.device,
            report=(lambda epoch: report(seed, epoch)) if report else None,
            checkpoint=keep if path is not None else None,
            resume=state,
            to_epoch=to_epoch,
        )
        if path is not None and to_epoch == self.recipe.epochs:
            path.unlink(missing_ok=True)
        return {
            "accuracy": outcome.accuracy,
            "num_val": outcome.num_val,
            "num_val_independent": outcome.num_val_independent,
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            "history": [asdict(epoch) for epoch in outcome.history],
            "paid_epochs": outcome.epochs - done,
            "notes": list(outcome.notes),
            "torch": torch.__version__,
        }


def _read_kept(path: Path) -> dict[str, Any] | None:
    """The state of a run that was cut short; a file that is damaged counts as none."""
    from archdsl.training.checkpoint import read_checkpoint

    if not path.exists():
        return None
    try:
        return read_checkpoint(path)
    except TrainingError as error:
        log.warning("%s; the run begins anew", error.problems[0].message)
        return None


def _cut(run: Mapping[str, Any], to_epoch: int) -> dict[str, Any]:
    """What a run had come to after `to_epoch` epochs."""
    history = run["history"][:to_epoch]
    seconds = sum(float(epoch["seconds"]) for epoch in history)
    accuracy = history[-1]["val_accuracy"]
    return {**run, "accuracy": accuracy, "epochs": to_epoch, "seconds": seconds, "history": history}
