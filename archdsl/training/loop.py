"""The training loop: one model, one data set, one recipe, one seed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from archdsl.errors import Place, Problem, TrainingError
from archdsl.training.batch_norms import synchronize
from archdsl.training.data import Augmentable, Data
from archdsl.training.initial import redraw_fan_in
from archdsl.training.memory import PROBE_FROM_PIXELS, images_that_fit, is_out_of_memory
from archdsl.training.optimizers import make_optimizer
from archdsl.training.outcome import Epoch, Outcome
from archdsl.training.processes import ALONE, Processes
from archdsl.training.recipe import Recipe, lr_factor
from archdsl.training.timm_parts import Augmentation, Mixer, average_of

CHECK_EVERY = 20  # steps between two looks at the loss; a look waits for the device
VAL_BATCH = 512
VAL_BATCH_LARGE = 64  # of images larger than 64x64


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
    to_epoch: int | None = None,
    micro_batch: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    processes: Processes = ALONE,
    say: Callable[[str], None] | None = None,
) -> Outcome:
    """Train `model` in place and say how accurate it became. With `ema_decay` it gets the averaged weights at the end.

    seed: decides the order of images, everything random in the forward pass, and with `init: fan_in` the first weights
    report: called after every epoch; should_stop: asked after every epoch but the last
    checkpoint: given `Training.state()` after every epoch; resume: such a state, to go on as if never interrupted
    to_epoch: stop after so many epochs; the schedule stays that of the whole recipe
    micro_batch: images that go through the network at once; by default as many as fit. Gradients are summed up until
        the recipe's batch is full, so only batch norms see the difference
    threads: CPU threads of torch while training; None leaves them
    processes: our place among those that train this network together; report, checkpoint and say are for the first
    say: told what is done otherwise than asked, when that happens
    Raises TrainingError: diverged (the loss is not a number), out-of-memory, classes, batch, resume, augmentation,
    missing-library, no-images, worker-lost (a process that decodes images was killed).
    """
    with ExitStack() as stack:
        stack.enter_context(_threads(threads))
        stack.enter_context(_deterministic())
        training = Training(
            model, data, recipe, seed=seed, device=device, micro_batch=micro_batch, processes=processes, say=say
        )
        if training.data is not data and hasattr(training.data, "close"):
            stack.callback(training.data.close)
        if resume is not None:
            training.resume(resume)
        stack.enter_context(_lost_workers_told(training.data))
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
        outcome = training.outcome()
        model.load_state_dict(training.judged.state_dict())
        return outcome


class Training:
    """A training run that can be stopped after any epoch, kept, and gone on with."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        *,
        seed: int,
        device: str = "cpu",
        micro_batch: int | None = None,
        processes: Processes = ALONE,
        say: Callable[[str], None] | None = None,
    ):
        self.recipe, self.seed, self.processes, self._say = recipe, seed, processes, say
        self.device = torch.device(device)
        if recipe.init == "fan_in":
            redraw_fan_in(model, seed=seed)
        if recipe.sync_batchnorm and processes.num > 1:
            synchronize(model)
        self.model = model.to(self.device)
        self.history: list[Epoch] = []
        self.notes: list[str] = []
        self._num_seen: int | None = None  # validation images, in the last validation, of all processes
        self._told_of_width = False
        self.data = _augmented(data, recipe)
        self.batch = self._batch()
        self.steps_per_epoch = data.num_train // self.batch
        if not any(weight.requires_grad for weight in model.parameters()):
            raise _error(
                "no-weights", "the network has no weights that can be trained", hint="add a block with weights"
            )
        self.mixer = Mixer(recipe, data.num_classes) if recipe.mixes else None
        self.average = average_of(self.model, recipe) if recipe.ema_decay is not None else None
        self.optimizer = make_optimizer(self.model, recipe)
        self.precision = _precision(recipe, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == torch.float16 else None
        self._asked = micro_batch
        self.micro_batch = micro_batch if micro_batch is None else min(micro_batch, self.batch // processes.num)
        self._rehearsed = processes.num == 1
        self._network: nn.Module = model
        if processes.num > 1:
            self._network = DistributedDataParallel(self.model, [self.device] if self.device.type == "cuda" else None)
        self._statistics = [
            buffer
            for module in self.model.modules()
            if hasattr(module, "running_mean")
            for buffer in module.buffers(recurse=False)
        ]
        with self._random(None):
            torch.manual_seed(seed + 2**32 * processes.rank)
            self._random_state = self._read_random()

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.recipe.epochs

    @property
    def judged(self) -> nn.Module:
        """The model whose accuracy is the result: the trained one, or the average of its weights."""
        return self.average.module if self.average is not None else self.model

    def run_epoch(self) -> Epoch:
        """One pass through the training set, then one through the validation set."""
        start = time.perf_counter()
        with self._random(self._random_state):
            loss = self._train_once()
            self._random_state = self._read_random()
        accuracy = self._validate()
        self._tell_what_was_skipped()
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.history.append(Epoch(len(self.history) + 1, loss, accuracy, time.perf_counter() - start, lr))
        return self.history[-1]

    def outcome(self) -> Outcome:
        accuracy = self.history[-1].val_accuracy if self.history else self._validate()
        num_val, independent = self.data.num_val, self.data.num_val_independent
        num_seen = num_val if self._num_seen is None else self._num_seen
        return Outcome(
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
        """Everything `resume` needs, as tensors and plain values. With several processes all of them have to ask."""
        cpu, device = self._random_state
        return {
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random": self.processes.gathered(cpu.to(self._talking)).cpu(),
            "random_device": self.processes.gathered(device.to(self._talking)).cpu() if device is not None else None,
            "micro_batch": self.micro_batch,
            "micro_batch_asked": self._asked,
            "num_seen": self._num_seen,
            "skipped": [[item, error] for item, error in getattr(self.data, "corrupt", {}).items()],
            "history": [asdict(epoch) for epoch in self.history],
            "notes": list(self.notes),
            "run": self._run(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises TrainingError when it is of another data set, recipe, seed or kind of device."""
        if state["run"] != self._run():
            message = f"the saved state is of another run: {state['run']!r}, not {self._run()!r}"
            raise _error("resume", message, hint="resume with the same data, recipe and seed, or start anew")
        rank = self.processes.rank
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except RuntimeError as error:
            message = f"the saved state is of another network: {str(error).splitlines()[0]}"
            raise _error("resume", message, hint="resume with the same network, or start anew") from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        device = state["random_device"]
        self._random_state = state["random"][rank].clone(), device[rank].clone() if device is not None else None
        asked = state.get("micro_batch_asked")
        if self._asked in (None, asked):
            self.micro_batch, self._asked = state["micro_batch"], asked
        self._num_seen = state.get("num_seen")
        if hasattr(self.data, "corrupt"):
            self.data.corrupt.update((item, error) for item, error in state.get("skipped", ()))
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.notes, self._told_of_width = list(state["notes"]), True

    @property
    def _talking(self) -> torch.device:
        """Where tensors must be for the processes to exchange them: nccl moves only what is on a GPU."""
        return self.device if self.processes.num > 1 else torch.device("cpu")

    def _run(self) -> str:
        where = f" | {self.device.type}" if self.device.type != "cpu" else ""
        where += f" | processes={self.processes.num}" if self.processes.num > 1 else ""
        return f"{self.data.key()} | {self.recipe.key()} | seed={self.seed}{where}"

    def _batch(self) -> int:
        """Images a step: the recipe's, or fewer where there are not so many; each process has as many as the others."""
        num, asked = self.processes.num, self.recipe.batch
        unit = num * (2 if self.recipe.mixes else 1)
        batch = min(asked, self.data.num_train // unit * unit)
        if batch == 0:
            message = f"a batch is at least {unit} images here, but there are only {self.data.num_train} to train on"
            raise _error("batch", message, hint="add images, take mixup and cutmix from the recipe, or train alone")
        if batch % unit:
            among = f" among {num} processes" if num > 1 else ""
            pairs = " in pairs, which mixup and cutmix need" if self.recipe.mixes else ""
            message = f"a batch of {batch} images cannot be shared out{among}{pairs}"
            raise _error(
                "batch", message, hint=f"set batch to a multiple of {unit}, e.g. {max(1, batch // unit) * unit}"
            )
        if batch < asked:
            self._note(f"a batch is {batch} images, not {asked}: there are only {self.data.num_train} to train on")
        return batch

    def _train_once(self) -> float:
        recipe, done = self.recipe, len(self.history) * self.steps_per_epoch
        total, step = torch.zeros((), device=self.device), 0
        self._network.train()
        share = {"share": self.processes.share} if self.processes.num > 1 else {}
        batches = self.data.train_batches(self.batch, seed=self.seed, epoch=len(self.history), **share)
        for step, (images, labels) in enumerate(batches, start=1):
            for group in self.optimizer.param_groups:
                scale = group.get("lr_scale", 1.0)
                group["lr"] = (
                    scale * recipe.lr * lr_factor(done + step - 1, recipe.epochs * self.steps_per_epoch, recipe)
                )
            total += self._step(images, labels, step)
            if self.average is not None:
                self.average.update(self.model, step=done + step)
            if step % CHECK_EVERY == 0:
                self._check_loss(float(self.processes.total(total.clone())), step)
        if step == 0:
            raise _error("no-images", "not one image of the training set could be read", hint="check the files")
        total = self.processes.total(total) / self.processes.num
        self._agree()
        self._check_loss(float(total), step)
        return float(total) / step

    def _agree(self) -> None:
        """Take the first process's running statistics: without `sync_batchnorm` each has those of its share."""
        if self.processes.num > 1:
            for buffer in (*self.model.buffers(), *(self.average.module.buffers() if self.average is not None else ())):
                torch.distributed.broadcast(buffer, src=0)

    def _step(self, images: torch.Tensor, labels: torch.Tensor, step: int) -> torch.Tensor:
        """One step of the optimiser on our share of a batch. -> our mean loss"""
        recipe, targets = self.recipe, labels
        if self.mixer is not None:
            images, targets = self.mixer(images, labels, f"{self.seed} {len(self.history)} {step}")
        if self.micro_batch is None:
            self.micro_batch = self._first_micro_batch(images)
        if not self._rehearsed:
            self._rehearse(images, targets)
        while True:
            before = self._read_random(), [statistic.clone() for statistic in self._statistics]
            try:
                loss = self._gradients(images, targets, check=step == 1)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.processes.num > 1:
                    raise self._told(error) from error
            self._restore(*before)
            self._halve()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_grad)
        try:
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            raise self._told(error) from error
        return loss

    def _gradients(
        self, images: torch.Tensor, targets: torch.Tensor, *, check: bool, rehearsal: bool = False
    ) -> torch.Tensor:
        """The gradients of the mean loss over images [B, 3, H, W], micro-batch by micro-batch. -> that loss"""
        assert self.micro_batch is not None
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        num_parts = math.ceil(len(images) / self.micro_batch)
        ends = [len(images) * number // num_parts for number in range(num_parts + 1)]  # alike: no rest of one image
        network = self.model if rehearsal else self._network
        for start, end in pairwise(ends):
            some = slice(start, end)
            part, wanted = images[some].to(self.device, non_blocking=True), targets[some].to(self.device)
            last = end == len(images) or not isinstance(network, DistributedDataParallel)
            with nullcontext() if last else network.no_sync():  # type: ignore[operator]
                with self._autocast(), _small_batches_told(len(part)):
                    logits = network(part)
                if check and start == 0:
                    self._check_logits(logits)
                if self.mixer is not None:
                    wanted = F.pad(wanted, (0, logits.shape[1] - wanted.shape[1]))
                smoothing = 0.0 if self.mixer is not None else self.recipe.label_smoothing  # mixing has smoothed them
                logits = logits if self.precision is None else logits.float()
                loss = F.cross_entropy(logits, wanted, label_smoothing=smoothing)
                if num_parts > 1:
                    loss = loss * (len(part) / len(images))
                scaled = self.scaler.scale(loss) if self.scaler is not None else loss
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @torch.no_grad()
    def _validate(self) -> float:
        """Share of validation images whose highest logit is that of their label."""
        self.judged.eval()
        height, width = self.data.image_size
        batch = VAL_BATCH if height * width <= 64 * 64 else VAL_BATCH_LARGE
        share = {"share": self.processes.share} if self.processes.num > 1 else {}
        found = torch.zeros(2, dtype=torch.float64)
        for images, labels in self.data.val_batches(batch, **share):
            found += torch.tensor([self._num_right(images, labels), len(labels)])
        right, seen = self.processes.total(found.to(self._talking)).tolist()
        if not math.isfinite(right):
            raise self._diverged("the network's output is not a number", len(self.history))
        if seen == 0:
            raise _error("no-images", "not one image of the validation set could be read", hint="check the files")
        self._num_seen = int(seen)
        return int(right) / int(seen)

    def _tell_what_was_skipped(self) -> None:
        """Let every process know the files that others could not decode: each reads only its share."""
        corrupt = getattr(self.data, "corrupt", None)
        if corrupt is not None and self.processes.num > 1:
            for theirs in self.processes.each(corrupt, self._talking):
                corrupt.update(theirs)

    def _num_right(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """How many images are classified right; NaN when an output is no number. In halves, where memory is short."""
        try:
            with self._autocast():
                logits = self.judged(images.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise self._told(error) from error
        else:
            if not bool(torch.isfinite(logits).all()):
                return math.nan
            return int((logits.argmax(-1).cpu() == labels).sum())
        half = len(images) // 2
        return self._num_right(images[:half], labels[:half]) + self._num_right(images[half:], labels[half:])

    def _first_micro_batch(self, images: torch.Tensor) -> int:
        """All of our share at once, if a GPU is asked or it is small; on a CPU, as much of it as fits."""
        count, pixels = len(images), images[0, 0].numel() * len(images)
        if self.device.type != "cpu" or pixels < PROBE_FROM_PIXELS:
            return count
        before = self._read_random(), [statistic.clone() for statistic in self._statistics]
        with self._autocast(), _small_batches_told(count):
            fitting = images_that_fit(self.model, images[0], count)
        self._restore(*before)
        if fitting < count:
            self._note(
                f"{fitting} images at once and not {count}, so that they fit in memory; a step is as large as ever"
            )
        return fitting

    def _rehearse(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Find the micro-batch that fits in all processes, before any of them waits for another's gradients."""
        self._rehearsed = True
        while True:
            before, short = (self._read_random(), [statistic.clone() for statistic in self._statistics]), False
            if self.recipe.sync_batchnorm:
                self.model.eval()  # these norms would wait for one another
            try:
                self._gradients(images, targets, check=True, rehearsal=True)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                short = True
            self.model.train()
            self._restore(*before)
            if not self.processes.any(short, self.device):
                return
            self._halve()

    def _halve(self) -> None:
        assert self.micro_batch is not None
        if self.micro_batch == 1:
            message = f"a single image of {self.data.image_size[0]}x{self.data.image_size[1]} px does not fit in memory"
            raise _error("out-of-memory", message, hint="use a smaller network, or a larger GPU")
        whole, self.micro_batch = self.micro_batch, (self.micro_batch + 1) // 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._note(f"{whole} images at once did not fit in memory: now {self.micro_batch}; a step is as large as ever")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        if self._say is not None and self.processes.first:
            self._say(text)

    def _told(self, error: BaseException) -> BaseException:
        """The error to raise: ours, where memory ran out and nothing can be halved."""
        if not is_out_of_memory(error):
            return error
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return _error("out-of-memory", f"the training ran out of memory: {words}", hint="use a smaller micro-batch")

    def _autocast(self) -> Any:
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, dtype=self.precision)

    def _read_random(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        on_device = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return torch.get_rng_state(), on_device

    def _restore(self, random: tuple[torch.Tensor, torch.Tensor | None], statistics: list[torch.Tensor]) -> None:
        """Random numbers and the batch norms' running statistics as they were before a pass that does not count."""
        torch.set_rng_state(random[0])
        if random[1] is not None:
            torch.cuda.set_rng_state(random[1], self.device)
        with torch.no_grad():
            for statistic, value in zip(self._statistics, statistics, strict=True):
                statistic.copy_(value)

    @contextmanager
    def _random(self, state: tuple[torch.Tensor, torch.Tensor | None] | None) -> Iterator[None]:
        """Torch's random numbers from `state` on; whoever called has their own back afterwards."""
        devices = [self.device.index or 0] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            if state is not None:
                torch.set_rng_state(state[0])
                if state[1] is not None:
                    torch.cuda.set_rng_state(state[1], self.device)
            yield

    def _check_loss(self, total: float, step: int) -> None:
        if not math.isfinite(total):
            raise self._diverged("the loss is not a number", len(self.history) + step / self.steps_per_epoch)

    def _diverged(self, what: str, epochs: float) -> TrainingError:
        message = f"training diverged: {what} after {epochs:.2f} of {self.recipe.epochs} epochs"
        hint = f"lower lr (now {self.recipe.lr:g})" + ("" if self.recipe.clip_grad else " or set clip_grad")
        return _error("diverged", message, hint=hint)

    def _check_logits(self, logits: torch.Tensor) -> None:
        """A head may be wider than there are classes, such as that of ImageNet over a part of it, but not narrower."""
        classes = self.data.num_classes
        if logits.ndim != 2 or logits.shape[1] < classes:
            came = f"[{', '.join(map(str, logits.shape))}]"
            message = f"the data have {classes} classes, but the network answers {came} for a batch"
            raise _error("classes", message, hint=f"set head.classes={classes}")
        if logits.shape[1] > classes and not self._told_of_width:
            self._told_of_width = True
            self._note(f"the network can answer {logits.shape[1]} classes, the data have {classes}")


def _augmented(data: Data, recipe: Recipe) -> Data:
    augmentation = Augmentation.of(recipe)
    if augmentation is None:
        return data
    if not isinstance(data, Augmentable):
        fields = ", ".join(f"`{field}`" for field in augmentation.fields)
        message = f"the recipe asks for {fields}, but these data cannot be augmented: it would change their labels"
        raise _error("augmentation", message, hint=f"use the recipe `quick`, or one without {fields}")
    return data.augmented(augmentation)


def _precision(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """The number format of the forward pass, None for float32 throughout."""
    match recipe.amp:
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
        case "auto" if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        case _:
            return None


@contextmanager
def _deterministic() -> Iterator[None]:
    """Only kernels that give the same numbers each time, where torch has them; it warns where it has not."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def _lost_workers_told(data: Data) -> Iterator[None]:
    """The death of a process that decodes images, which torch raises wherever we are, as an error of ours."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).splitlines()[0][:200] if str(error) else ""
        if not words.startswith("DataLoader worker"):
            raise
        if hasattr(data, "close"):
            data.close()  # the next pass starts new ones
        message = f"a process that decodes images has ended, which the system may do when memory is short: {words}"
        raise _error("worker-lost", message, hint="use fewer --workers, or a smaller batch") from error


@contextmanager
def _small_batches_told(num_images: int) -> Iterator[None]:
    """What a batch norm says that gets one number a channel, as an error of ours."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        message = f"a batch norm over single positions has nothing to learn from {num_images} image at once"
        hint = "let more images through at once (a larger --micro-batch or batch), or use norm: layer"
        raise _error("batch", message, hint=hint) from error


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
