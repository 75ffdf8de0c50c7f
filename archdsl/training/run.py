"""One training run in a folder: what `archdsl train` does, and how it is gone on with.

spec.yaml  model.safetensors     what `archdsl build` takes: the network, and its weights after the last epoch
checkpoint.safetensors           everything needed to go on, after each epoch
metrics.csv  events/             a line an epoch; the same for TensorBoard, where asked for
train.json                       what was trained, how, and what it came to. It marks the folder as ours
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from archdsl.errors import TrainingError
from archdsl.files import as_json, claim_folder, write_file
from archdsl.language.architecture.from_data import with_trained_on
from archdsl.language.architecture.model import Spec
from archdsl.locks import LockBusy, locked
from archdsl.owned import read_own
from archdsl.training.data import DataSource
from archdsl.training.data.facts import data_facts
from archdsl.training.data.fingerprint import CONTENT
from archdsl.training.outcome import Accuracy, Epoch, TrainingResult, accuracy_of_run, combined
from archdsl.training.processes import Processes, joined
from archdsl.training.recipe import BuildFor, Recipe
from archdsl.training.tasks.maps import check_is_task
from archdsl.versions import installed_version

MARKER = "train.json"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "model.safetensors"
FINGERPRINT = "fingerprint"
_WORDS = {"hash": "the network", "weights": "the weights that it starts from"}
"""What a person calls one of a run's settings, where that is not its name."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    source, recipe: parsed already
    out:            the folder of the results
    device:         `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`
    micro_batch:    images at once; None: as many as fit
    threads:        CPU threads of torch; None: unchanged
    tensorboard:    whether to write events for TensorBoard too
    weights:        to start from, by archdsl's names; None: the initial weights of `seed`
    weights_from:   where they come from, in words; weights_notes: what was chosen or adapted, in sentences
    """

    spec: Spec
    source: DataSource
    recipe: Recipe
    out: Path
    seed: int = 0
    device: str = "auto"
    micro_batch: int | None = None
    threads: int | None = None
    tensorboard: bool = False
    weights: Mapping[str, Any] | None = None
    weights_from: str | None = None
    weights_notes: Sequence[str] = ()

    def settings(self) -> dict[str, Any]:
        """What a run that goes on must share."""
        from archdsl.compiler import identity

        return {
            "name": self.spec.name,
            "hash": identity(self.spec),
            "data": self.source.text(),
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            **({"weights": _digest(self.weights)} if self.weights is not None else {}),
        }


@dataclass(frozen=True)
class Trained:
    """A finished run.

    folder:        where its files are
    accuracy:      of its one seed
    resumed_after: epochs that earlier parts of the run had trained
    settings:      `TrainConfig.settings`
    data:          what is known of the data: `classes` by name, `preprocessing`, and `validation`, what served as that
    start:         where weights to start from came from, and what was done to them; empty without
    """

    folder: Path
    accuracy: Accuracy
    result: TrainingResult
    device: str
    processes: int
    resumed_after: int
    settings: dict[str, Any]
    data: dict[str, Any]
    start: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "state": "finished",
            **self.settings,
            **self.data,
            **self.start,
            "accuracy": self.accuracy.as_json(),
            "device": self.device,
            "processes": self.processes,
            "resumed_after": self.resumed_after,
            "history": [asdict(epoch) for epoch in self.result.history],
            "notes": list(self.result.notes),
            "folder": str(self.folder),
        }


def train_in_folder(
    config: TrainConfig,
    *,
    resume: bool = False,
    report: Callable[[Epoch], None] | None = None,
    say: Callable[[str], None] | None = None,
    whole: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Trained | None:
    """Train, writing to the folder `config.out` after every epoch. None in processes that are not the first.

    Args:
        resume: go on with what is there, from the start of the epoch in which it ended; a finished run is not repeated
        report: called after every epoch; say: called with a sentence when something is done otherwise than asked
        whole:  entered around writing, so that a signal can be held back
    Raises: TrainingError: as `train`; `channels`; `resume`, `missing-folder`, `output-folder` or `busy` for the folder;
            `Elsewhere` when another process reports it

    Example:
        >>> import archdsl, pathlib, tempfile
        >>> from archdsl.training import parse_recipe, parse_source
        >>> from archdsl.training.run import TrainConfig, train_in_folder
        >>> spec = archdsl.load("micro_swin", set={"stem.dim": 8, "stages.*.depth": 1})
        >>> source = parse_source({"type": "synthetic", "num_train": 64, "num_val": 32})
        >>> out = pathlib.Path(tempfile.mkdtemp()) / "run"
        >>> trained = train_in_folder(TrainConfig(spec, source, parse_recipe("quick", epochs=1), out, device="cpu"))
        >>> sorted(path.name for path in out.iterdir())
        ['checkpoint.safetensors', 'metrics.csv', 'model.safetensors', 'spec.yaml', 'train.json']
    """
    check_is_task(config.spec)
    device = _device(config.device)
    with ExitStack() as stack:
        processes = stack.enter_context(joined(device))
        if device == "cuda":
            device = f"cuda:{processes.local}"
        return _train(config, stack, processes, device, resume=resume, report=report, say=say, whole=whole)


def _train(
    config: TrainConfig,
    stack: ExitStack,
    processes: Processes,
    device: str,
    *,
    resume: bool,
    report: Callable[[Epoch], None] | None,
    say: Callable[[str], None] | None,
    whole: Callable[[], AbstractContextManager[Any]],
) -> Trained | None:
    """`train_in_folder` as one of `processes`; the folder is locked until `stack` ends."""
    from archdsl.training.checkpoint import read_checkpoint, write_checkpoint
    from archdsl.training.loop import train
    from archdsl.weights.writing import write_weights

    out, state, events = config.out, None, None
    with processes.all_or_none(device):
        data = config.source.open(config.spec.input.size, config.spec.input.channels)
        facts = data_facts(data)
        model = BuildFor(config.recipe)(config.spec, seed=config.seed, weights=config.weights)
        settings = config.settings()
        if data.fingerprint():
            settings[FINGERPRINT] = data.fingerprint()
        if processes.first:
            _claim(out, settings, stack, resume=resume, say=say)
            write_file(out / "spec.yaml", with_trained_on(config.spec, facts).to_yaml())
        if resume and (out / CHECKPOINT).is_file():
            state = read_checkpoint(out / CHECKPOINT)
            _with_content(state, data.key())
        resumed_after = len(state["history"]) if state is not None else 0
        if say is not None and processes.first and data.validation:
            say(f"validation: {data.validation}")
        if config.tensorboard and processes.first:
            events = _events(out, resumed_after)
            stack.callback(events.close)
    each_found = processes.each(resumed_after, device)
    with processes.all_or_none(device):
        if len(set(each_found)) > 1:
            found = ", ".join(map(str, each_found))
            message = f"not all processes see the same checkpoint in {out}: finished epochs that each found: {found}"
            hint = "--out must be a folder that all machines share"
            raise TrainingError.at("--out", str(out), "resume", message, hint)
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

    recipe = config.recipe
    if config.weights is not None:
        recipe = recipe.model_copy(update={"init": "built"})  # `fan_in` would draw the weights anew
    result = train(
        model,
        data,
        recipe,
        seed=config.seed,
        report=ended,
        checkpoint=keep,
        resume=state,
        micro_batch=config.micro_batch,
        threads=config.threads,
        device=device,
        processes=processes,
        say=say,
    )
    if not processes.first:
        return None
    run = accuracy_of_run(
        vars(result),
        seed=config.seed,
        data=config.source.text(),
        recipe=config.recipe,
        reused=0,
        paid_epochs=result.epochs - resumed_after,
    )
    start: dict[str, Any] = {}
    if config.weights is not None:
        start = {"weights_from": config.weights_from, "weights_notes": list(config.weights_notes)}
    trained = Trained(out, combined([run]), result, device, processes.num, resumed_after, settings, facts, start)
    with whole():
        write_weights(out / WEIGHTS, model.state_dict())
        write_file(out / MARKER, as_json({**trained.as_json(), "made_with": _made_with()}))
    return trained


def _claim(
    out: Path, settings: dict[str, Any], stack: ExitStack, *, resume: bool, say: Callable[[str], None] | None = None
) -> None:
    """Make the folder ours until `stack` ends. A training in it that came to nothing gives way to a new one.

    Errors: TrainingError when another run is in it or at work in it, or none where one is to go on
    """
    marker = out / MARKER
    if resume and not marker.is_file():
        hint = "leave out --resume, or name its folder with --out"
        raise TrainingError.at(
            "--out", str(out), "missing-folder", f"there is no training in {out} to go on with", hint
        )
    claim_folder(out, MARKER)
    alone = _alone_in(out, stack)
    came_to_something = any((out / name).exists() for name in (CHECKPOINT, WEIGHTS))
    if marker.is_file() and (resume or came_to_something or not alone):
        there = _settings_in(marker, settings)
        if resume and there and FINGERPRINT in settings and there.get(FINGERPRINT) is None:
            there[FINGERPRINT] = settings[FINGERPRINT]
            if there == settings:
                write_file(marker, as_json({**json.loads(read_own(marker)), FINGERPRINT: settings[FINGERPRINT]}))
                if say is not None:
                    say("this training is older than the fingerprint of data: its data must now be those here now")
        different = [name for name in {**there, **settings} if there.get(name) != settings.get(name)]
        if resume and different == [FINGERPRINT]:
            message = f"in {out} a training was begun with other data (fingerprint, then -> now):"
            message += f" {there[FINGERPRINT]} -> {settings[FINGERPRINT]}"
            hint = "bring back those data, or begin anew with another --out"
            raise TrainingError.at("--out", str(out), "other-study", message, hint)
        if different:
            names = ", ".join(_WORDS.get(name, name) for name in different)
            message = f"in {out} there is another training: it differs in {names}"
            raise TrainingError.at(
                "--out", str(out), "resume" if resume else "output-folder", message, "choose another folder with --out"
            )
        if not resume:
            hint = "go on with --resume, or choose another folder with --out"
            raise TrainingError.at("--out", str(out), "output-folder", f"in {out} this training was begun before", hint)
        return
    write_file(marker, as_json({"state": "training", **settings}))


def _alone_in(out: Path, stack: ExitStack) -> bool:
    """Lock the folder until `stack` ends.

    Returns: True; False when the file system has no locks
    Raises: TrainingError (`busy`) when another process trains in the folder
    """
    try:
        return stack.enter_context(locked(out, timeout_s=0))
    except LockBusy:
        hint = "wait for it, stop it, or choose another folder with --out"
        raise TrainingError.at("--out", str(out), "busy", f"another process is training in {out}", hint) from None


def _settings_in(marker: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        written = json.loads(read_own(marker))
        return {name: written[name] for name in {**settings, "weights": None} if name in written}
    except (OSError, ValueError, TypeError):
        return {}


def _with_content(state: dict[str, Any], key: str) -> None:
    """Take the contents of the data, which `key` names, into a state of a version that did not note them."""
    before, mark, _ = key.partition(CONTENT)
    if mark and str(state["run"]).startswith(f"{before} | "):
        state["run"] = f"{key}{state['run'][len(before) :]}"


def _digest(weights: Mapping[str, Any]) -> str:
    """SHA-256 over the names and numbers of weights."""
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{list(weights[name].shape)}".encode())
        digest.update(np.ascontiguousarray(weights[name], np.float32).data)
    return digest.hexdigest()


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
        raise TrainingError.at("--log", "tensorboard", "missing-library", message, hint) from error
    return tensorboard.SummaryWriter(str(out / "events"), purge_step=resumed_after + 1 if resumed_after else None)


def _device(asked: str) -> str:
    """`cpu` or `cuda…`. Errors: TrainingError for a GPU that is not there"""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        message = f"{asked} was asked for, but torch {torch.__version__} sees no NVIDIA GPU here"
        raise TrainingError.at("--device", asked, "no-device", message, "use --device cpu, or see `archdsl doctor`")
    return asked


def _made_with() -> dict[str, str]:
    """The installed packages that decide a training's result, with their versions."""
    found = {name: installed_version(name) for name in ("archdsl", "torch", "torchvision", "timm", "pillow")}
    return {name: version for name, version in found.items() if version is not None}
