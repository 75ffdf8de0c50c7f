"""Networks that answer with maps: they build, export and are timed, but no task is for them yet."""

from __future__ import annotations

from archdsl.errors import TrainingError
from archdsl.ir.order import Planes
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.training.failures import training_error

NO_TASK = "it answers with maps, and segmentation is not a task yet: only classifiers are trained and evaluated"


def check_is_task(spec: Spec) -> None:
    """Raises: TrainingError (`task`) for a network that no task is for: one that gives maps."""
    outputs = lower(spec).inference().outputs.values()
    if any(isinstance(node.type.order, Planes) for node in outputs):
        raise no_task(spec.name)


def no_task(name: str) -> TrainingError:
    """The error for a network that gives maps."""
    hint = "it builds, exports and is timed: see `archdsl build` and `archdsl bench`"
    return training_error("task", f"{name} cannot be trained or evaluated: {NO_TASK}", hint=hint)
