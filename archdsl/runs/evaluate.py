"""`archdsl eval`: the accuracy of a network as it is deployed, on the runtime that will run it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.errors import ArchError, MeasureError, at_argument
from archdsl.failures import exception_reason, failed, reason_of
from archdsl.json_fields import JsonFields
from archdsl.language.architecture.model import Spec
from archdsl.runs.deployed import NamedNetwork, artefact_for, network_named, run_as
from archdsl.runs.validator import Answer, Seen, Validator
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.protocol import LoadedNetwork
from archdsl.runtimes.registry import runtime as adapter_of
from archdsl.runtimes.target import Target
from archdsl.telemetry.cpu import allowed_cores
from archdsl.training.data import DataSource, parse_source
from archdsl.training.tasks.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Evaluation(JsonFields):
    """The accuracy of a network as it is deployed.

    metrics:     of the task; the first is what `accuracy` means
    num_images:  validation images that were read, of which `num_independent` are independent draws
    runtime, device, precision, batch, threads: what ran it, and how; device_name: as its maker calls it
    ran:         the file that was run; None: it was made for this from `weights`
    weights:     where they come from, in words; '' where the file holds them
    num_classes: of the data; preprocessing: of the images; None for images that are no pixels
    seconds:     wall time, loading and decoding included
    notes:       what is otherwise than in training, and what was skipped
    """

    network: str
    metrics: tuple[Metric, ...]
    num_images: int
    num_independent: int
    data: str
    validation: str
    num_classes: int
    preprocessing: dict[str, Any] | None
    runtime: str
    runtime_version: str
    device: str
    device_name: str
    precision: str
    batch: int
    threads: int
    ran: str | None
    weights: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """The task's first metric, in [0, 1]: top-1 for classification."""
        return self.metrics[0].value

    def as_json(self) -> dict[str, Any]:
        """Its fields and `accuracy`."""
        return {"accuracy": self.accuracy, **super().as_json()}


def evaluate(
    network: Spec | str | os.PathLike[str],
    data: str | Mapping[str, Any] | DataSource,
    *,
    weights: Mapping[str, Any] | None = None,
    weights_from: str = "weights that were given",
    runtime: str | None = None,
    precision: str | None = None,
    device: str = "auto",
    batch: int | None = None,
    threads: int | None = None,
    overrides: Sequence[str] = (),
    seen: Seen | None = None,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """The accuracy of a network on validation images, as the runtime that runs it answers.

    Class names and preprocessing are those of training, where train.json, build.json or the ONNX file's metadata say
    them; data with other classes are refused.

    Args:
        network: a spec with `weights`, the folder of a training or a build, or an ONNX file
        data: what `parse_source` takes, e.g. `imagefolder:/data/pets`, or gives; its validation set is what counts
        weights: by archdsl's names (see `import_weights`); they win over a folder's
        weights_from: where they come from, in words
        runtime: one of `bench`'s; by default what runs the file that is there, or onnxruntime
        precision: see `backends.precision`; by default that of the file, or fp32. A network that is not there in it is
            made for it from the weights; int8 and fp8 take their ranges from images of the training set
        device: `auto` (a GPU where the runtime can use one), `cpu`, `cuda` or `cuda:N`
        batch: images at once, where the file does not say it; by default 64 of at most 64x64 pixels, else 16
        threads: of the runtime on a CPU; by default all cores
        overrides: changes of the spec, as `--set` takes them
        seen: called after each batch with the images so far, all images, and the first metric by then
        say: called with a sentence when something is to be known beforehand
    Returns: the task's metrics (top-1 and top-5 for classification), each with its 95 % interval
    Raises: ArchError for a network, data or wishes that do not fit (`missing-key`, `classes`, `wrong-value`, …);
        WeightsError, SpecError; MeasureError when the runtime is missing or fails

    Example:
        >>> import archdsl
        >>> weights = archdsl.build("micro_swin").state_dict()
        >>> data = {"type": "synthetic", "num_train": 12, "num_val": 48}
        >>> found = archdsl.evaluate("micro_swin", data, weights=weights, device="cpu")
        >>> found.num_images, [metric.name for metric in found.metrics]
        (48, ['top-1', 'top-5'])
    """
    if batch is not None and batch < 1:
        raise ArchError.at("--batch", str(batch), "out-of-range", "a batch has 1 image or more", "use --batch 16")
    started = time.monotonic()
    source = parse_source(data, at_argument("--data", str(data))) if isinstance(data, str | Mapping) else data
    subject = network_named(network, source, weights, weights_from=weights_from, overrides=overrides)
    choice = run_as(subject, runtime, precision)
    version = adapter_of(choice.runtime).version()
    where, device_name = _device(choice.runtime, device)
    validator = validator_of(subject, source)
    if say is not None:
        for note in (
            *validator.notes,
            *([f"validation: {validator.data.validation}"] if validator.data.validation else ()),
        ):
            say(note)
    at_once, cores = batch or validator.usual_batch, threads or (len(allowed_cores() or ()) or os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="archdsl-eval-") as folder:
        artefact, target = artefact_for(
            subject, choice, where, at_once, cores, Path(folder), validator.some_to_train_on
        )
        given = choice.file.path if choice.file is not None else None
        loaded = _loaded(artefact, target, given)
        with _wrong_input(given, "not-finite", "it cannot be evaluated"):
            scores = validator(_answer(loaded, target, given), target.batch, seen)
    file = choice.file
    return Evaluation(
        network=subject.name,
        metrics=scores.metrics,
        num_images=scores.num_images,
        num_independent=scores.num_independent,
        data=validator.text,
        validation=validator.data.validation,
        num_classes=validator.data.num_classes,
        preprocessing=validator.preprocessing,
        runtime=choice.runtime,
        runtime_version=version,
        device=target.device,
        device_name=device_name,
        precision=choice.precision,
        batch=target.batch,
        threads=target.threads,
        ran=str(file.path) if file else None,
        weights="" if file else subject.weights_from,
        seconds=time.monotonic() - started,
        notes=(*validator.notes, *scores.notes),
    )


def validator_of(subject: NamedNetwork, source: DataSource) -> Validator:
    """The validation set of a source, as a subject sees it. Raises: as `Validator`"""
    channels, height, width = subject.image_shape
    validator = Validator(source, subject.trained_on, (height, width), channels, subject.num_outputs)
    before = subject.facts.get("validation")
    if before and validator.data.validation and before != validator.data.validation:
        validator.notes.append(f"in training it was validated on {before}; others may be images that it was trained on")
    return validator


def _device(name: str, asked: str) -> tuple[str, str]:
    """A device of the runtime, and what its maker calls it.

    Raises: SpecError for one that the runtime does not know; ArchError: `no-device` for one that is not here
    """
    adapter = adapter_of(name)
    if asked == "auto":
        for found in sorted(adapter.devices, reverse=True):  # cuda before cpu
            with suppress(MeasureError):
                return found, adapter.device_name(found)
        return adapter.devices[0], adapter.device_name(adapter.devices[0])
    word, _, number = asked.partition(":")
    Target.parse({"runtime": name, "device": word if number.isdecimal() else asked})
    try:
        if number:
            _select_gpu(name, int(number))
        return word, adapter.device_name(word)
    except MeasureError as error:
        problem = error.problems[0]
        raise ArchError.at("--device", asked, "no-device", problem.message, problem.hint) from error


def _select_gpu(name: str, number: int) -> None:
    """Make `cuda` mean the GPU of this number. Raises: ArchError (`no-device`) when that cannot be"""
    import torch

    count = torch.cuda.device_count()
    if name.startswith("onnxruntime") and number:
        message = f"{name} runs on the first GPU that this process sees"
        hint = f"CUDA_VISIBLE_DEVICES={number} archdsl eval … --device cuda"
    elif number < count:
        torch.cuda.set_device(number)
        return
    else:
        message, hint = f"torch sees {count} NVIDIA GPUs here", "use --device cpu, or see `archdsl doctor`"
    raise ArchError.at("--device", f"cuda:{number}", "no-device", message, hint)


def _loaded(artefact: Artefact, target: Target, given: Path | None) -> LoadedNetwork:
    """The network in its runtime.

    Args: given: the user's file, which is wrong input where the runtime does not take it
    Raises: ArchError (`cannot-read`) for such a file; MeasureError in place of whatever else a runtime raises
    """
    with _wrong_input(given, "cannot-read", "it cannot be loaded", "see whether another runtime takes it: --on"):
        found: LoadedNetwork = _guarded(
            target.runtime, lambda: adapter_of(target.runtime).load(artefact, target.config)
        )
    return found


def _answer(network: LoadedNetwork, target: Target, given: Path | None) -> Answer:
    """What the network answers to images; a batch that is not full repeats some.

    given: the user's file, which is wrong input where its runtime cannot run it
    """

    def answer(images: Tensor) -> Tensor:
        import numpy as np
        import torch

        outputs = []
        for start in range(0, len(images), target.batch):
            part = np.ascontiguousarray(images[start : start + target.batch].numpy(), np.float32)
            filled = np.resize(part, (target.batch, *part.shape[1:]))
            with _wrong_input(given, "cannot-run", f"it cannot be run on images {list(filled.shape)}"):
                (first, *_) = _guarded(target.runtime, partial(network.outputs, filled))
            outputs.append(torch.from_numpy(np.array(first, np.float32))[: len(part)])
        return torch.cat(outputs)

    return answer


@contextmanager
def _wrong_input(file: Path | None, rule: str, message: str, way_out: str | None = None) -> Iterator[None]:
    """What fails in the block is the fault of the user's file, if there is one, and not of its runtime.

    Raises: ArchError at the file, in place of a MeasureError that no other machine would spare it
    """
    try:
        yield
    except MeasureError as error:
        if file is None or reason_of(error) not in ("exception", "not-finite"):
            raise
        problem = error.problems[0]
        hint = "build it again" + (f", or {way_out}" if way_out else "")
        raise ArchError.at(str(file), "", rule, f"{message}: {problem.message}", hint) from error


def _guarded(name: str, call: Callable[[], Any]) -> Any:
    """What `call` gives. Raises: MeasureError in place of whatever a runtime raises"""
    try:
        return call()
    except ArchError:
        raise
    except Exception as error:  # the runtimes have no common error
        reason = exception_reason(error)
        words = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        hint = "use a smaller --batch" if reason == "out-of-memory" else "`archdsl doctor` shows what works here"
        raise failed(reason, f"{name} failed: {type(error).__name__}: {words}", where=name, hint=hint) from error
