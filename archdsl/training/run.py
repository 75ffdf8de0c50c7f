"""One training run in a folder: what `archdsl train` does, and how it is gone on with.

spec.yaml  model.safetensors     what `archdsl build` takes: the network, and its weights after the last epoch
checkpoint.safetensors           everything needed to go on, after each epoch
metrics.csv  events/             a line an epoch; the same for TensorBoard, where asked for
train.json                       what was trained, how, and what it came to. It marks the folder as ours
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from archdsl.errors import Problem, TrainingError, at_argument
from archdsl.spec.model import Spec
from archdsl.training.data import Source, check_channels
from archdsl.training.evaluator import Accuracy, combined
from archdsl.training.outcome import Epoch, Outcome
from archdsl.training.processes import Processes, joined
from archdsl.training.recipe import Recipe
from archdsl.training.stochastic_depth import BuildFor
from archdsl.writing import as_json, claim_folder, write_file

MARKER = "train.json"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "model.safetensors"
_WORDS = {"hash": "the network"}
"""What a person calls one of a run's settings, where that is not its name."""


@dataclass(frozen=True)
class Plan:
    """What to train and how. data, recipe: read already; out: the folder of the results

    device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`; micro_batch: None for what fits
    threads: of torch on a CPU, None for its own choice; tensorboard: also write events for it
    """

    spec: Spec
    source: Source
    recipe: Recipe
    out: Path
    seed: int = 0
    device: str = "auto"
    micro_batch: int | None = None
    threads: int | None = None
    tensorboard: bool = False

    def settings(self) -> dict[str, Any]:
        """What a run that goes on must share."""
        from archdsl.compiler import identity

        return {
            "name": self.spec.name,
            "hash": identity(self.spec),
            "data": self.source.text(),
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Trained:
    """A run that came to its end. folder: where everything is; accuracy: of one seed; resumed_after: epochs"""

    folder: Path
    accuracy: Accuracy
    outcome: Outcome
    device: str
    processes: int
    resumed_after: int
    settings: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "state": "finished",
            **self.settings,
            "accuracy": self.accuracy.as_json(),
            "device": self.device,
            "processes": self.processes,
            "resumed_after": self.resumed_after,
            "history": [asdict(epoch) for epoch in self.outcome.history],
            "notes": list(self.outcome.notes),
            "folder": str(self.folder),
        }


def train_in_folder(
    plan: Plan,
    *,
    resume: bool = False,
    report: Callable[[Epoch], None] | None = None,
    say: Callable[[str], None] | None = None,
    whole: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Trained | None:
    """Train, writing to the plan's folder after every epoch. None in processes that are not the first.

    resume: go on with what is there, from the start of the epoch in which it ended; a finished run is not done again
    whole: entered around writing, so that a signal can be held back
    Errors: TrainingError: as `train`; `channels`; `resume`, `missing-folder`, `output-folder` or `busy` for the folder.
        `Elsewhere` where another process tells it
    """
    device = _device(plan.device)
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        if device == "cuda":
            device = f"cuda:{processes.local}"
        return _train(plan, stack, processes, device, resume=resume, report=report, say=say, whole=whole)


def _train(
    plan: Plan,
    stack: ExitStack,
    processes: Processes,
    device: str,
    *,
    resume: bool,
    report: Callable[[Epoch], None] | None,
    say: Callable[[str], None] | None,
    whole: Callable[[], AbstractContextManager[Any]],
) -> Trained | None:
    from archdsl.training.checkpoint import read_checkpoint, write_checkpoint
    from archdsl.training.loop import train
    from archdsl.weights.writing import write_weights

    out, state, events = plan.out, None, None
    with processes.all_or_none(device):
        check_channels(plan.spec.input.channels)
        data = plan.source.open(plan.spec.input.size)
        model = BuildFor(plan.recipe)(plan.spec, seed=plan.seed)
        settings = plan.settings()
        if processes.first:
            _claim(out, settings, stack, resume=resume)
            write_file(out / "spec.yaml", plan.spec.to_yaml())
        if resume and (out / CHECKPOINT).is_file():
            state = read_checkpoint(out / CHECKPOINT)
        resumed_after = len(state["history"]) if state is not None else 0
        if plan.tensorboard and processes.first:
            events = _events(out, resumed_after)
            stack.callback(events.close)
    found_by_each = processes.each(resumed_after, device)
    with processes.all_or_none(device):
        _refuse_other_states(out, found_by_each)
    history = [Epoch(**epoch) for epoch in state["history"]] if state is not None else []

    def ended(epoch: Epoch) -> None:
        history.append(epoch)
        if events is not None:
            for name in ("train_loss", "val_accuracy", "lr", "seconds"):
                events.add_scalar(name, getattr(epoch, name), epoch.number)
            events.flush()
        if report is not None:
            report(epoch)

    def keep(state: dict[str, Any]) -> None:
        with whole():
            write_checkpoint(out / CHECKPOINT, state)
            write_file(out / "metrics.csv", _metrics(history))

    outcome = train(
        model,
        data,
        plan.recipe,
        seed=plan.seed,
        report=ended,
        checkpoint=keep,
        resume=state,
        micro_batch=plan.micro_batch,
        threads=plan.threads,
        device=device,
        processes=processes,
        say=say,
    )
    if not processes.first:
        return None
    accuracy = _accuracy(plan, outcome, resumed_after)
    found = Trained(out, accuracy, outcome, device, processes.num, resumed_after, settings)
    with whole():
        write_weights(out / WEIGHTS, model.state_dict())
        write_file(out / MARKER, as_json({**found.as_json(), "made_with": _made_with()}))
    return found


def _claim(out: Path, settings: dict[str, Any], stack: ExitStack, *, resume: bool) -> None:
    """Make the folder ours until `stack` ends. A training in it that came to nothing gives way to a new one.

    Errors: TrainingError when another run is in it or at work in it, or none where one is to go on
    """
    marker = out / MARKER
    if resume and not marker.is_file():
        hint = "leave out --resume, or name its folder with --out"
        raise _refused(out, "missing-folder", f"there is no training in {out} to go on with", hint)
    claim_folder(out, MARKER)
    alone = _alone_in(out, stack)
    came_to_something = any((out / name).exists() for name in (CHECKPOINT, WEIGHTS))
    if marker.is_file() and (resume or came_to_something or not alone):
        there = _settings_in(marker, settings)
        if there != settings:
            different = ", ".join(_WORDS.get(name, name) for name in settings if there.get(name) != settings[name])
            message = f"in {out} there is another training: it differs in {different}"
            raise _refused(out, "resume" if resume else "output-folder", message, "choose another folder with --out")
        if not resume:
            hint = "go on with --resume, or choose another folder with --out"
            raise _refused(out, "output-folder", f"in {out} this training was begun before", hint)
        return
    write_file(marker, as_json({"state": "training", **settings}))


def _alone_in(out: Path, stack: ExitStack) -> bool:
    """Keep other processes out of the folder until `stack` ends. -> whether the file system can tell of them

    Errors: TrainingError when one is at work there
    """
    import fcntl

    descriptor = os.open(out, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "wait for it, stop it, or choose another folder with --out"
        raise _refused(out, "busy", f"another process is training in {out}", hint) from None
    except OSError:  # such as a network's file system without locks
        return False
    return True


def _refuse_other_states(out: Path, epochs: list[int]) -> None:
    """epochs: that each process found finished. Errors: TrainingError when they do not read one checkpoint"""
    if len(set(epochs)) > 1:
        found = ", ".join(map(str, epochs))
        message = f"not all processes see the same checkpoint in {out}: finished epochs that each found: {found}"
        hint = "--out must be a folder that all machines share"
        raise _refused(out, "resume", message, hint)


def _settings_in(marker: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        told = json.loads(marker.read_text())
        return {name: told.get(name) for name in settings}
    except (OSError, ValueError, AttributeError):
        return {}


def _accuracy(plan: Plan, outcome: Outcome, resumed_after: int) -> Accuracy:
    found = Accuracy(
        mean=outcome.accuracy,
        sd=None,
        values=(outcome.accuracy,),
        seeds=(plan.seed,),
        num_val=outcome.num_val,
        num_val_independent=outcome.num_val_independent,
        epochs=outcome.epochs,
        seconds=outcome.seconds,
        reused=0,
        data=plan.source.text(),
        recipe=plan.recipe.name,
        of_epochs=plan.recipe.epochs,
        paid_epochs=outcome.epochs - resumed_after,
        notes=outcome.notes,
    )
    return combined([found])


def _metrics(history: list[Epoch]) -> str:
    """A CSV file: a line an epoch, the fields of `Epoch`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *(field.name for field in fields(Epoch)[1:])])
    writer.writerows([list(asdict(epoch).values()) for epoch in history])
    return text.getvalue()


def _events(out: Path, resumed_after: int) -> Any:
    """TensorBoard's writer. Errors: TrainingError where the package does not load"""
    try:
        tensorboard = import_module("torch.utils.tensorboard")
    except ImportError as error:
        message = f"--log tensorboard needs the package tensorboard, which does not load ({error})"
        hint = "pip install 'archdsl[tensorboard]'; metrics.csv holds the same numbers"
        place = at_argument("--log", "tensorboard")
        raise TrainingError(Problem(place, "missing-library", message, hint)) from error
    return tensorboard.SummaryWriter(str(out / "events"), purge_step=resumed_after + 1 if resumed_after else None)


def _device(asked: str) -> str:
    """`cpu` or `cuda…`. Errors: TrainingError for a GPU that is not there"""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        message = f"{asked} was asked for, but torch {torch.__version__} sees no NVIDIA GPU here"
        place = at_argument("--device", asked)
        raise TrainingError(Problem(place, "no-device", message, "use --device cpu, or see `archdsl doctor`"))
    return asked


def _made_with() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("archdsl", "torch", "torchvision", "timm", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _refused(out: Path, rule: str, message: str, hint: str) -> TrainingError:
    return TrainingError(Problem(at_argument("--out", os.fspath(out)), rule, message, hint=hint))
