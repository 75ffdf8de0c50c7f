"""The training loop: one model, one data set, one recipe, one seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from archdsl.errors import TrainingError
from archdsl.training.batch_norms import synchronize
from archdsl.training.data import Augmentable, Data
from archdsl.training.distillation import distillation_of
from archdsl.training.failures import explained_lost_workers, training_error
from archdsl.training.micro_batches import MicroBatches
from archdsl.training.mixed_precision import MixedPrecision
from archdsl.training.optimizers import make_optimizer, redraw_fan_in
from archdsl.training.outcome import Epoch, TrainingResult
from archdsl.training.processes import ALONE, Processes
from archdsl.training.recipe import Recipe, lr_factor
from archdsl.training.reproducibility import RandomNumbers, deterministic, torch_threads
from archdsl.training.tasks import Task, task_of
from archdsl.training.timm_parts import Augmentation, average_of
from archdsl.training.validation import validate

CHECK_EVERY = 20  # steps between two looks at the loss; a look waits for the device


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    task: Task | None = None,
    teacher: nn.Module | None = None,
    report: Callable[[Epoch], None] | None = None,
    should_stop: Callable[[Epoch], bool] | None = None,
    checkpoint: Callable[[dict[str, Any]], None] | None = None,
    resume: Mapping[str, Any] | None = None,
    to_epoch: int | None = None,
    micro_batch: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    processes: Processes = ALONE,
    say: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a network in place and return its accuracy on the validation set.

    With the recipe's `ema_decay` the network has the averaged weights at the end.

    Args:
        model:       the network, images [B, 3, H, W] -> logits [B, classes]
        data:        training and validation images, e.g. `parse_source("synthetic").open((32, 32))`
        recipe:      optimiser, schedule, augmentation and length, see `parse_recipe`
        seed:        decides the order of the images, everything random in the forward pass, and with `init: fan_in`
                     the first weights
        task:        loss and metric; None: classification
        teacher:     images [B, 3, H, W] -> [B, classes], for a recipe that distils; None: the one that it names
        report:      called after every epoch
        should_stop: called after every epoch but the last; True ends the training
        checkpoint:  called after every epoch with `Training.state()`
        resume:      such a state, from which the training goes on as if it had never been interrupted
        to_epoch:    stop after so many epochs; the schedule stays that of the whole recipe
        micro_batch: images that go through the network at once; None: as many as fit. Gradients are summed until the
                     recipe's batch is complete, so only batch norms see the difference
        threads:     CPU threads of torch; None: unchanged
        device:      `cpu`, `cuda` or `cuda:N`
        processes:   this process's place among those that train the network together; `report`, `checkpoint` and `say`
                     are called in the first only
        say:         called with a sentence when something is done otherwise than asked
    Returns: the accuracy after the last epoch, the history of epochs, and notes
    Raises:  TrainingError: `diverged` (the loss is not a number), `out-of-memory`, `classes`, `batch`, `resume`,
             `no-weights`, `teacher`, `output` (the network lacks one that the recipe names), `augmentation`,
             `missing-library`, `no-images`, `worker-lost` (a process that decodes images was killed)

    Example:
        >>> import archdsl
        >>> from archdsl.training import parse_recipe, parse_source
        >>> model = archdsl.build(archdsl.load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1}))
        >>> data = parse_source({"type": "synthetic", "num_train": 64, "num_val": 32}).open((32, 32))
        >>> result = archdsl.train(model, data, parse_recipe("quick", epochs=1), seed=0)
        >>> result.epochs, 0 <= result.accuracy <= 1
        (1, True)
    """
    with ExitStack() as stack:
        stack.enter_context(torch_threads(threads))
        stack.enter_context(deterministic())
        training = Training(
            model,
            data,
            recipe,
            seed=seed,
            task=task,
            teacher=teacher,
            device=device,
            micro_batch=micro_batch,
            processes=processes,
            say=say,
        )
        if training.data is not data and hasattr(training.data, "close"):
            stack.callback(training.data.close)
        if resume is not None:
            training.resume(resume)
        stack.enter_context(explained_lost_workers(training.data))
        last, stopped = recipe.epochs if to_epoch is None else to_epoch, False
        while not training.finished and not stopped and len(training.history) < last:
            epoch = training.run_epoch()
            if report and processes.first:
                report(epoch)
            if checkpoint:
                state = training.state()
                if processes.first:
                    checkpoint(state)
            stopped = bool(should_stop and not training.finished and should_stop(epoch))
        result = training.result()
        model.load_state_dict(training.evaluated_model.state_dict())
        return result


class Training:
    """A training run, one epoch at a time, whose state after each can be written down and resumed.

    Args and errors: as `train`. Its parts: `task` (loss, metric), `micro_batches` (gradients), `precision` (number
    format), `random` (generators), `optimizer`, `average` (of the weights, or None)
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        *,
        seed: int,
        task: Task | None = None,
        teacher: nn.Module | None = None,
        device: str = "cpu",
        micro_batch: int | None = None,
        processes: Processes = ALONE,
        say: Callable[[str], None] | None = None,
    ):
        self.recipe, self.seed, self.processes, self._say = recipe, seed, processes, say
        self.device = torch.device(device)
        self.history: list[Epoch] = []
        self.notes: list[str] = []
        self._num_seen: int | None = None  # validation images, in the last validation, of all processes
        if recipe.init == "fan_in":
            redraw_fan_in(model, seed=seed)
        if recipe.sync_batchnorm and processes.num > 1:
            synchronize(model)
        self.model = model.to(self.device)
        self.data = _augmented(data, recipe)
        self.batch = batch_size(recipe, data.num_train, processes.num)
        if self.batch < recipe.batch:
            self._note(
                f"a batch is {self.batch} images, not {recipe.batch}: there are only {data.num_train} to train on"
            )
        self.steps_per_epoch = data.num_train // self.batch
        if not any(weight.requires_grad for weight in model.parameters()):
            message = "the network has no weights that can be trained"
            raise training_error("no-weights", message, hint="add a block with weights")
        self.task = task_of(data, recipe) if task is None else task
        self.average = average_of(self.model, recipe) if recipe.ema_decay is not None else None
        self.optimizer = make_optimizer(self.model, recipe)
        self.precision = MixedPrecision(recipe.amp, self.device)
        self.random = RandomNumbers(self.device)
        self.micro_batches = MicroBatches(
            self.model,
            self.task,
            self.optimizer,
            self.precision,
            self.random,
            processes,
            requested=micro_batch,
            most=self.batch // processes.num,
            note=self._note,
            distillation=distillation_of(self.task, recipe, data, self.device, teacher),
        )
        self._random_state = self.random.seeded(seed + 2**32 * processes.rank)

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return len(self.history) >= self.recipe.epochs

    @property
    def evaluated_model(self) -> nn.Module:
        """The model whose accuracy is the result: the trained one, or the average of its weights."""
        return self.average.module if self.average is not None else self.model

    def run_epoch(self) -> Epoch:
        """Run one pass through the training set, then one through the validation set."""
        start = time.perf_counter()
        with self.random.continued(self._random_state):
            loss = self._train_once()
            self._random_state = self.random.read()
        accuracy = self._validate()
        self._share_skipped()
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.history.append(Epoch(len(self.history) + 1, loss, accuracy, time.perf_counter() - start, lr))
        return self.history[-1]

    def result(self) -> TrainingResult:
        """What the epochs so far came to; without any, the accuracy of the first weights."""
        accuracy = self.history[-1].val_accuracy if self.history else self._validate()
        num_val, independent = self.data.num_val, self.data.num_val_independent
        num_seen = num_val if self._num_seen is None else self._num_seen
        return TrainingResult(
            accuracy=accuracy,
            num_val=num_seen,
            num_val_independent=independent if num_seen == num_val else num_seen * independent // max(1, num_val),
            epochs=len(self.history),
            seconds=sum(epoch.seconds for epoch in self.history),
            stopped_early=not self.finished,
            history=tuple(self.history),
            notes=(*self.notes, *getattr(self.data, "notes", ())),
        )

    def state(self) -> dict[str, Any]:
        """Everything `resume` needs, as tensors and plain values. With several processes all of them must call it."""
        scaler, exchanged = self.precision.scaler, self.processes.exchange_device(self.device)
        cpu, device = self._random_state
        return {
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "random": self.processes.gathered(cpu.to(exchanged)).cpu(),
            "random_device": self.processes.gathered(device.to(exchanged)).cpu() if device is not None else None,
            **self.micro_batches.state(),
            "num_seen": self._num_seen,
            "skipped": [[item, error] for item, error in getattr(self.data, "corrupt", {}).items()],
            "history": [asdict(epoch) for epoch in self.history],
            "notes": list(self.notes),
            "run": self._run(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`.

        Raises: TrainingError: `resume` when it is of another network, data set, recipe, seed or kind of device;
            `damaged` when it is no state of a training
        """
        try:
            self._resume(state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            message = f"the saved state is damaged: {type(error).__name__}: {error}"[:300]
            raise training_error("damaged", message, hint="remove it, and train from the start") from error

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state["run"] != self._run():
            message = f"the saved state is of another run: {state['run']!r}, not {self._run()!r}"
            raise training_error("resume", message, hint="resume with the same data, recipe and seed, or start anew")
        rank = self.processes.rank
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except RuntimeError as error:
            message = f"the saved state is of another network: {str(error).splitlines()[0]}"
            raise training_error("resume", message, hint="resume with the same network, or start anew") from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.precision.scaler is not None:
            self.precision.scaler.load_state_dict(state["scaler"])
        device = state["random_device"]
        self._random_state = state["random"][rank].clone(), device[rank].clone() if device is not None else None
        self.micro_batches.resume(state)
        self._num_seen = state.get("num_seen")
        if hasattr(self.data, "corrupt"):
            self.data.corrupt.update((item, error) for item, error in state.get("skipped", ()))
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.notes = list(state["notes"])

    def _run(self) -> str:
        """What a state belongs to."""
        where = f" | {self.device.type}" if self.device.type != "cpu" else ""
        where += f" | processes={self.processes.num}" if self.processes.num > 1 else ""
        return f"{self.data.key()} | {self.recipe.key()} | seed={self.seed}{where}"

    def _train_once(self) -> float:
        """One pass through the training set. -> the mean loss of its steps"""
        recipe, number = self.recipe, len(self.history)
        done, of_all = number * self.steps_per_epoch, recipe.epochs * self.steps_per_epoch
        total, step = torch.zeros((), device=self.device), 0
        self.model.train()
        share = {"share": self.processes.share} if self.processes.num > 1 else {}
        batches = self.data.train_batches(self.batch, seed=self.seed, epoch=number, **share)
        for step, (images, targets) in enumerate(batches, start=1):
            for group in self.optimizer.param_groups:
                group["lr"] = group.get("lr_scale", 1.0) * recipe.lr * lr_factor(done + step - 1, of_all, recipe)
            total += self._step(images, targets, step)
            if self.average is not None:
                self.average.update(self.model, step=done + step)
            if step % CHECK_EVERY == 0:
                self._check_loss(float(self.processes.total(total.clone())), step)
        if step == 0:
            raise training_error("no-images", "not one image of the training set could be read", hint="check the files")
        total = self.processes.total(total) / self.processes.num
        average = self.average.module.buffers() if self.average is not None else ()
        self.processes.broadcast([*self.model.buffers(), *average])  # else each has the statistics of its share
        self._check_loss(float(total), step)
        return float(total) / step

    def _step(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """One step of the optimiser on this process's share of a batch. -> its mean loss"""
        images, targets = self.task.mix(images, targets, f"{self.seed} {len(self.history)} {step}")
        loss = self.micro_batches.gradients(images, targets, check=step == 1)
        self.precision.step(self.optimizer, self.model, self.recipe.clip_grad)
        return loss

    def _validate(self) -> float:
        metric, seen = validate(self.evaluated_model, self.data, self.task, self.precision, self.processes)
        if math.isnan(metric):
            raise self._diverged("the network's output is not a number", len(self.history))
        self._num_seen = seen
        return metric

    def _share_skipped(self) -> None:
        """Let every process know the files that others could not decode: each reads only its share."""
        corrupt = getattr(self.data, "corrupt", None)
        if corrupt is not None and self.processes.num > 1:
            for theirs in self.processes.each(corrupt, self.device):
                corrupt.update(theirs)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        if self._say is not None and self.processes.first:
            self._say(text)

    def _check_loss(self, total: float, step: int) -> None:
        if not math.isfinite(total):
            raise self._diverged("the loss is not a number", len(self.history) + step / self.steps_per_epoch)

    def _diverged(self, what: str, epochs: float) -> TrainingError:
        message = f"training diverged: {what} after {epochs:.2f} of {self.recipe.epochs} epochs"
        hint = f"lower lr (now {self.recipe.lr:g})" + ("" if self.recipe.clip_grad else " or set clip_grad")
        return training_error("diverged", message, hint=hint)


def batch_size(recipe: Recipe, num_train: int, num_processes: int) -> int:
    """Images a step over all processes: the recipe's, or fewer where there are not so many; equally many a process.

    Raises: TrainingError (`batch`) when they cannot be shared out, in pairs where the recipe mixes images
    """
    unit = num_processes * (2 if recipe.mixes else 1)
    batch = min(recipe.batch, num_train // unit * unit)
    if batch == 0:
        message = f"a batch is at least {unit} images here, but there are only {num_train} to train on"
        raise training_error("batch", message, hint="add images, take mixup and cutmix from the recipe, or train alone")
    if batch % unit:
        among = f" among {num_processes} processes" if num_processes > 1 else ""
        pairs = " in pairs, which mixup and cutmix need" if recipe.mixes else ""
        message = f"a batch of {batch} images cannot be shared out{among}{pairs}"
        raise training_error(
            "batch", message, hint=f"set batch to a multiple of {unit}, e.g. {max(1, batch // unit) * unit}"
        )
    return batch


def _augmented(data: Data, recipe: Recipe) -> Data:
    augmentation = Augmentation.of(recipe)
    if augmentation is None:
        return data
    if not isinstance(data, Augmentable):
        fields = ", ".join(f"`{field}`" for field in augmentation.fields)
        message = f"the recipe asks for {fields}, but these data cannot be augmented: it would change their labels"
        raise training_error("augmentation", message, hint=f"use the recipe `quick`, or one without {fields}")
    return data.augmented(augmentation)
