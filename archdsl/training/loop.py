"""The training loop: one model, one data set, one recipe, one seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from archdsl.errors import Place, Problem, TrainingError
from archdsl.training.data import Data
from archdsl.training.initial import redraw_fan_in
from archdsl.training.recipe import Recipe, lr_factor

NO_DECAY = ("relative_position_bias_table", "pos_embed", "cls_token", "dist_token", "logit_scale")
"""Last parts of the names of weights that get no weight decay, beside everything with fewer than two axes."""

CHECK_EVERY = 20  # steps between two looks at the loss; a look waits for the device
VAL_BATCH = 512


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. number counts from 1; train_loss is the mean over its steps; seconds is wall time."""

    number: int
    train_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """A finished training run: accuracy after the last epoch on the validation set, never the best of all epochs.

    stopped_early: `should_stop` ended it before the recipe did
    """

    accuracy: float
    num_val: int
    num_val_independent: int
    epochs: int
    seconds: float
    stopped_early: bool
    history: tuple[Epoch, ...]


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    report: Callable[[Epoch], None] | None = None,
    should_stop: Callable[[Epoch], bool] | None = None,
    checkpoint: Callable[[dict[str, Any]], None] | None = None,
    resume: Mapping[str, Any] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Outcome:
    """Train `model` in place and say how accurate it became.

    seed: decides the order of images, everything random in the forward pass, and with `init: fan_in` the first weights
    report: called after every epoch; should_stop: asked after every epoch but the last
    checkpoint: given `Training.state()` after every epoch; resume: such a state, to go on as if never interrupted
    threads: CPU threads of torch while training; None leaves them
    Raises TrainingError: diverged (the loss is not a number), classes, batch, resume.
    """
    with _threads(threads):
        training = Training(model, data, recipe, seed=seed, device=device)
        if resume is not None:
            training.resume(resume)
        stopped = False
        while not training.finished and not stopped:
            epoch = training.run_epoch()
            if report:
                report(epoch)
            if checkpoint:
                checkpoint(training.state())
            stopped = bool(should_stop and not training.finished and should_stop(epoch))
        return training.outcome()


class Training:
    """A training run that can be stopped after any epoch, kept, and gone on with."""

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe, *, seed: int, device: str = "cpu"):
        self.model, self.data, self.recipe, self.seed = model.to(device), data, recipe, seed
        self.device = torch.device(device)
        if recipe.init == "fan_in":
            redraw_fan_in(model, seed=seed)
        self.history: list[Epoch] = []
        self.steps_per_epoch = data.num_train // recipe.batch
        if self.steps_per_epoch == 0:
            message = f"a batch is {recipe.batch} images, but there are only {data.num_train} to train on"
            raise _error("batch", message, hint=f"set batch to at most {data.num_train}")
        groups = _decay_groups(model, recipe.weight_decay)
        if not groups:
            raise _error(
                "no-weights", "the network has no weights that can be trained", hint="add a block with weights"
            )
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
        with _random(None):
            torch.manual_seed(seed)
            self._random_state = torch.get_rng_state()

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.recipe.epochs

    def run_epoch(self) -> Epoch:
        """One pass through the training set, then one through the validation set."""
        start = time.perf_counter()
        with _random(self._random_state):
            loss = self._train_once()
            self._random_state = torch.get_rng_state()
        accuracy = self._validate()
        self.history.append(Epoch(len(self.history) + 1, loss, accuracy, time.perf_counter() - start))
        return self.history[-1]

    def outcome(self) -> Outcome:
        return Outcome(
            accuracy=self.history[-1].val_accuracy if self.history else self._validate(),
            num_val=self.data.num_val,
            num_val_independent=self.data.num_val_independent,
            epochs=len(self.history),
            seconds=sum(epoch.seconds for epoch in self.history),
            stopped_early=not self.finished,
            history=tuple(self.history),
        )

    def state(self) -> dict[str, Any]:
        """Everything `resume` needs, as tensors and plain values (`torch.load(…, weights_only=True)` reads it)."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self._random_state,
            "history": [asdict(epoch) for epoch in self.history],
            "run": self._run(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises TrainingError when it is of another data set, recipe or seed."""
        if state["run"] != self._run():
            message = f"the saved state is of another run: {state['run']!r}, not {self._run()!r}"
            raise _error("resume", message, hint="resume with the same data, recipe and seed, or start anew")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._random_state = state["random"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _run(self) -> str:
        return f"{self.data.key()} | {self.recipe.key()} | seed={self.seed}"

    def _train_once(self) -> float:
        recipe, done = self.recipe, len(self.history) * self.steps_per_epoch
        total, step = torch.zeros((), device=self.device), 0
        self.model.train()
        batches = self.data.train_batches(recipe.batch, seed=self.seed, epoch=len(self.history))
        for step, (images, labels) in enumerate(batches, start=1):
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * lr_factor(done + step - 1, recipe.epochs * self.steps_per_epoch, recipe)
            logits = self.model(images.to(self.device))
            if step == 1:
                self._check_logits(logits)
            loss = F.cross_entropy(logits, labels.to(self.device), label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
            self.optimizer.step()
            total += loss.detach()
            if step % CHECK_EVERY == 0:
                self._check_loss(float(total), step)
        if step == 0:
            raise _error("no-images", "not one image of the training set could be read", hint="check the files")
        self._check_loss(float(total), step)
        return float(total) / step

    @torch.no_grad()
    def _validate(self) -> float:
        """Share of validation images whose highest logit is that of their label."""
        self.model.eval()
        right, seen = 0, 0
        for images, labels in self.data.val_batches(VAL_BATCH):
            logits = self.model(images.to(self.device))
            if not bool(torch.isfinite(logits).all()):
                raise self._diverged("the network's output is not a number", len(self.history))
            right += int((logits.argmax(-1).cpu() == labels).sum())
            seen += len(labels)
        if seen == 0:
            raise _error("no-images", "not one image of the validation set could be read", hint="check the files")
        return right / seen

    def _check_loss(self, total: float, step: int) -> None:
        if not math.isfinite(total):
            raise self._diverged("the loss is not a number", len(self.history) + step / self.steps_per_epoch)

    def _diverged(self, what: str, epochs: float) -> TrainingError:
        message = f"training diverged: {what} after {epochs:.2f} of {self.recipe.epochs} epochs"
        hint = f"lower lr (now {self.recipe.lr:g})" + ("" if self.recipe.clip_grad else " or set clip_grad")
        return _error("diverged", message, hint=hint)

    def _check_logits(self, logits: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.data.num_classes:
            came = f"[{', '.join(map(str, logits.shape))}]"
            message = f"the data have {self.data.num_classes} classes, but the network answers {came} for a batch"
            raise _error("classes", message, hint=f"set head.classes={self.data.num_classes}")


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All trainable weights in two groups: with weight decay, and without (see NO_DECAY)."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            spare = weight.ndim < 2 or name.rpartition(".")[2] in NO_DECAY
            (spared if spare else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@contextmanager
def _random(state: torch.Tensor | None) -> Iterator[None]:
    """Torch's random numbers from `state` on; whoever called has their own back afterwards."""
    with torch.random.fork_rng(devices=[]):
        if state is not None:
            torch.set_rng_state(state)
        yield


@contextmanager
def _threads(num_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _error(rule: str, message: str, *, hint: str) -> TrainingError:
    return TrainingError(Problem(Place("training"), rule, message, hint=hint))
