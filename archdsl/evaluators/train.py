"""Real training as an evaluator: the network of a spec is trained, and its accuracy measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from archdsl.errors import TrainingError
from archdsl.evaluators.agreement import RankAgreement
from archdsl.evaluators.protocol import Build, Kind, S
from archdsl.owned import own_folder
from archdsl.training.data import Data, DataSource
from archdsl.training.failures import training_error
from archdsl.training.outcome import Accuracy, accuracy_of_run, combined
from archdsl.training.recipe import Recipe
from archdsl.training.results import ResultStore

if TYPE_CHECKING:
    from archdsl.training.outcome import Epoch

log = logging.getLogger(__name__)

KEEP_EVERY_S = 30.0
"""A run that is not cut short on purpose is kept so often, so that one that is killed is not begun anew."""


class TrainEvaluator(Generic[S]):
    """An evaluator that trains the network of a spec from its first weights, `num_seeds` times.

    Args:
        source:      the data; each image size is opened once
        recipe:      how the network is trained
        build:       spec and seed -> trainable model, e.g. `archdsl.build`
        identify:    spec -> canonical graph hash, equal for equal networks, e.g. `archdsl.identity`
        num_seeds:   runs per spec, with seeds `seed`, `seed + 1`, …
        results:     store of finished runs, in which a run is looked up before it is done; None: this process's memory
        checkpoints: folder in which unfinished runs are kept; None: a run that was interrupted begins anew
        threads:     CPU threads of torch; None: unchanged. Beside a busy process more than one can cost a micro network
                     dearly, since threads spin while they wait (seen once: 10 s became 243 s on two loaded cores)
        device:      `cpu`, `cuda` or `cuda:N`
        report:      called with the run's seed after each of its epochs
        start:       which weights `build` starts from, as one line; part of a run's key. '': initial ones of the seed

    Example:
        >>> import archdsl
        >>> from archdsl.evaluators import TrainEvaluator
        >>> from archdsl.training import parse_recipe, parse_source
        >>> source = parse_source({"type": "synthetic", "num_train": 64, "num_val": 32})
        >>> recipe = parse_recipe("quick", epochs=1)
        >>> evaluate = TrainEvaluator(source, recipe, build=archdsl.build, identify=archdsl.identity, num_seeds=2)
        >>> accuracy = evaluate(archdsl.load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1}), seed=0)
        >>> accuracy.seeds, accuracy.epochs, accuracy.standard_error > 0
        ((0, 1), 1, True)
    """

    name: str = "train"
    kind: Kind = "train"
    agreement: RankAgreement | None = None

    def __init__(
        self,
        source: DataSource,
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
        start: str = "",
    ):
        self.source, self.recipe, self.build, self.identify = source, recipe, build, identify
        self.num_seeds, self.threads, self.device, self.report = num_seeds, threads, device, report
        self.start = start
        self.results: ResultStore = {} if results is None else results
        self.checkpoints = checkpoints
        self._opened: dict[tuple[int, int, int], Data] = {}

    def __call__(self, spec: S, *, seed: int = 0) -> Accuracy:
        """The accuracy after the whole recipe.

        Raises: TrainingError: as `train` and as the data, e.g. `diverged`, `classes`, `missing-folder`; what `build`
                raises passes through
        """
        return self.advance(spec, seed=seed, to_epoch=self.recipe.epochs)

    def advance(self, spec: S, *, seed: int = 0, to_epoch: int) -> Accuracy:
        """The accuracy after `to_epoch` epochs of the recipe, from where an earlier call ended.

        Raises: TrainingError: as a call; `out-of-range` for an epoch that the recipe does not have
        """
        if not 1 <= to_epoch <= self.recipe.epochs:
            message = f"`to_epoch` must be 1 to {self.recipe.epochs}, the epochs of the recipe, but got {to_epoch}"
            raise training_error("out-of-range", message)
        data = self._data(spec)
        graph = self.identify(spec)
        accuracy = partial(accuracy_of_run, data=self.source.text(), recipe=self.recipe)
        runs = []
        for run_seed in range(seed, seed + self.num_seeds):
            key = self._key(graph, data, run_seed)
            run, paid, reused = self._known(key, to_epoch), 0, 1
            if run is None:
                run = self._train(spec, data, run_seed, key, to_epoch)
                self.results[self._key_at(key, to_epoch)] = run
                paid, reused = int(run["paid_epochs"]), 0
            runs.append(accuracy(run, seed=run_seed, reused=reused, paid_epochs=paid))
        return combined(runs)

    def discard(self, spec: S, *, seed: int = 0) -> None:
        """Remove the kept states of this spec's unfinished runs; their results stay known."""
        data, graph = self._data(spec), self.identify(spec)
        for run_seed in range(seed, seed + self.num_seeds):
            path = self._kept_at(self._key(graph, data, run_seed))
            if path is not None:
                path.unlink(missing_ok=True)

    def _key(self, graph: str, data: Data, seed: int) -> str:
        where = "" if self.device == "cpu" else f" | {self.device.partition(':')[0]}"
        start = f" | {self.start}" if self.start else ""
        return f"{graph} | {data.key()} | {self.recipe.key()} | seed={seed}{where}{start}"

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
        size, channels = spec.input.size, spec.input.channels
        height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
        if (height, width, channels) not in self._opened:
            self._opened[height, width, channels] = self.source.open((height, width), channels)
        return self._opened[height, width, channels]

    def _train(self, spec: S, data: Data, seed: int, key: str, to_epoch: int) -> dict[str, Any]:
        import torch

        from archdsl.training.checkpoint import write_checkpoint
        from archdsl.training.loop import train

        report, path = self.report, self._kept_at(key)
        state = _read_kept(path)
        if state is not None and len(state["history"]) > to_epoch:
            state = None  # this far it was known and the store has lost it
        done, written = len(state["history"]) if state is not None else 0, time.monotonic()

        def keep(state: dict[str, Any]) -> None:
            nonlocal written
            epochs = len(state["history"])
            is_pause = epochs == to_epoch < self.recipe.epochs
            if path is not None and (is_pause or time.monotonic() - written > KEEP_EVERY_S):
                own_folder(path.parent)
                write_checkpoint(path, state)
                written = time.monotonic()

        result = train(
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
        run = {name: value for name, value in asdict(result).items() if name != "stopped_early"}
        return {**run, "paid_epochs": result.epochs - done, "torch": torch.__version__}


def _read_kept(path: Path | None) -> dict[str, Any] | None:
    """The state of a run that was cut short; a file that is damaged counts as none."""
    from archdsl.training.checkpoint import read_checkpoint

    if path is None or not path.exists():
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
