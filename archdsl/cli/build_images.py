"""The images of a build: what it is measured and calibrated with, and the data that its accuracy is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.cli.output import echo_note
from archdsl.cli.train import source_of
from archdsl.errors import ArchError
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.outside_text import printable
from archdsl.runs.trained_on import TrainingData
from archdsl.runs.validator import Validator

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_IMAGES = 64
"""How many images calibrate and measure a build."""


def validator_of(
    data: str | None, spec: Spec, trained_on: TrainingData, weights: Path | None, *, new_head: bool
) -> Validator | None:
    """What measures accuracies on --data. Errors: ArchError for untrained weights; what opening the data raises"""
    if data is None:
        return None
    if weights is None or new_head:
        what = "a new head" if new_head else "initial weights"
        message, hint = (
            f"--data measures the accuracy of trained weights, and {what} were not trained",
            "train first: archdsl train",
        )
        raise ArchError.at("--data", data, "missing-key", message, hint)
    (output, *_) = lower(spec).outputs.values()
    validator = Validator(source_of(data), trained_on, spec.input.size, spec.input.channels, output.type.shape[-1])
    for note in (
        *validator.notes,
        *([f"validation: {validator.data.validation}"] if validator.data.validation else ()),
    ):
        echo_note(note)
    return validator


def images_of(
    path: Path | None, spec: Spec, trained_on: TrainingData, validator: Validator | None
) -> tuple[NDArray[Any] | None, str]:
    """Images to measure and calibrate with, and where they come from, in words.

    The first of an array file [N, C, H, W], some of an image folder to validate with, or some of --data to train on.
    Errors: ArchError (`cannot-read`)
    """
    if path is None and validator is not None:
        return validator.some_to_train_on(), f"{validator.text}, some to train on"
    if path is None:
        return None, "generated"
    import numpy as np

    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise OSError("it is not a regular file")
        with np.errstate(over="raise"):  # a shape that nothing can hold
            found = _of_folder(path, spec, trained_on) if path.is_dir() else np.load(path, mmap_mode="r")
        if not isinstance(found, np.ndarray):
            raise ValueError("it holds several arrays")
        found = np.array(found[:MOST_IMAGES] if found.ndim else found)
    except ArchError:
        raise
    except Exception as error:  # numpy's reader raises nearly anything for a damaged header
        message = f"{printable(str(path))} cannot be read as images: {printable(str(error) or type(error).__name__)}"
        hint = "give an .npy file of floats [N, C, H, W], or a folder with train/ and val/"
        raise ArchError.at("--images", str(path), "cannot-read", message, hint) from error
    with np.errstate(over="ignore"):  # numbers beyond fp32 are refused later, with their place
        images = np.ascontiguousarray(found, np.float32) if found.dtype.kind == "f" else found
    return images, printable(str(path))


def _of_folder(path: Path, spec: Spec, trained_on: TrainingData) -> NDArray[Any]:
    import numpy as np

    from archdsl.training.data.imagefolder import Folder, ImageFolder

    source = ImageFolder(path=str(path), workers=0)
    if trained_on.preprocessing is not None:
        source, _ = source.shown_as(trained_on.preprocessing)
    data = source.open(spec.input.size, spec.input.channels)
    assert isinstance(data, Folder)
    echo_note(f"--images takes {MOST_IMAGES} at most of {data.validation}")
    num = min(MOST_IMAGES, len(data.val))
    data.val = [data.val[len(data.val) * place // num] for place in range(num)]  # some of each class: they are in order
    images = [batch.numpy() for batch, _ in data.val_batches(MOST_IMAGES)]
    for note in data.notes:
        echo_note(note)
    return np.concatenate(images) if images else np.empty(0, np.float32)
