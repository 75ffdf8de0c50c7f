"""Distillation: a student learns from the labels and from what a teacher, whose weights stay, answers to the images.

Source: DeiT, arXiv 2012.12877, section 4: hard (equation 3) and soft distillation (equation 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archdsl.errors import ArchError, TrainingError
from archdsl.language.architecture.from_data import with_classes
from archdsl.language.architecture.load import load
from archdsl.training.data import Data
from archdsl.training.failures import training_error
from archdsl.training.recipe import Recipe
from archdsl.training.tasks import Task

Answers = Tensor | Mapping[str, Tensor]
"""What a network gives: its only output, or its outputs by name, the one that is judged first."""


def judged(answers: Answers) -> Tensor:
    """The output that is judged."""
    return answers if isinstance(answers, Tensor) else next(iter(answers.values()))


class Distillation:
    """The loss of a student beside its teacher.

    hard: (1 - w) * task(labels) + w * cross-entropy(student, the teacher's first class)
    soft: (1 - w) * task(labels) + w * t^2 * KL(softmax(teacher / t) || softmax(student / t)), the mean over the images

    `w` is the recipe's `distillation_weight`, `t` its `temperature`. The task's loss is that of the output
    `label_output`, the student's part that of `teacher_output`; by default both are the output that is judged.
    """

    def __init__(self, task: Task, recipe: Recipe, teacher: nn.Module, device: torch.device):
        self.task, self.recipe = task, recipe
        self.teacher = teacher.to(device).eval().requires_grad_(False)

    def answer(self, images: Tensor) -> Tensor:
        """What the teacher answers to images [B, C, H, W]: [B, classes], without gradients."""
        self.teacher.eval()
        with torch.no_grad():
            return judged(self.teacher(images))

    def check(self, answers: Answers, taught: Tensor) -> None:
        """Raises: TrainingError when the student lacks an output, or it and the teacher do not answer alike."""
        _output(answers, self.recipe.label_output, "label_output")
        student = _output(answers, self.recipe.teacher_output, "teacher_output")
        if student.shape != taught.shape:
            message = f"the teacher answers {list(taught.shape)} for a batch, but the student {list(student.shape)}"
            raise training_error("teacher", message, hint="teach with a network of as many classes", path="teacher")

    def loss(self, answers: Answers, taught: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over a batch, a scalar.

        Args: answers: the student's; taught: [B, classes], the teacher's; targets: as the task takes them
        """
        recipe = self.recipe
        own = self.task.loss(_output(answers, recipe.label_output, "label_output").float(), targets)
        student, taught = _output(answers, recipe.teacher_output, "teacher_output").float(), taught.float()
        if recipe.distillation == "hard":
            other = F.cross_entropy(student, taught.argmax(1))
        else:
            t = recipe.temperature
            wanted, got = F.log_softmax(taught / t, 1), F.log_softmax(student / t, 1)
            other = F.kl_div(got, wanted, reduction="batchmean", log_target=True) * t**2
        return (1 - recipe.distillation_weight) * own + recipe.distillation_weight * other


def distillation_of(
    task: Task, recipe: Recipe, data: Data, device: torch.device, teacher: nn.Module | None
) -> Distillation | None:
    """The recipe's distillation, with the teacher that is given or the one that the recipe names; None without.

    Raises: TrainingError (`teacher`) when there is none, or it cannot be made
    """
    if recipe.distillation == "none":
        return None
    return Distillation(task, recipe, teacher if teacher is not None else _teacher(recipe, data), device)


def _teacher(recipe: Recipe, data: Data) -> nn.Module:
    """The network that the recipe's `teacher` names: a spec, with weights. A recipe is data, so it names no code."""
    name = recipe.teacher
    if name is None:
        hint = "say `teacher:` (a spec, with `teacher_weights:`) in a recipe that extends it; a module of your own is"
        hint += " given in Python: archdsl.training.train(…, teacher=module)"
        raise training_error("teacher", "the recipe distils, but has no teacher", hint=hint, path="teacher")
    if recipe.teacher_weights is None:
        hint = "say `teacher_weights:`, a file, and `teacher_names:`, whose names it has"
        raise training_error("teacher", f"the teacher {name} has no weights", hint=hint, path="teacher_weights")
    from archdsl import compiler
    from archdsl.weights.from_file import weights_from_file

    try:
        spec = with_classes(load(name, set={"input.size": list(data.image_size)}, check=False), data.num_classes)
        found = weights_from_file(spec, recipe.teacher_weights, recipe.teacher_names)
        module: nn.Module = compiler.build(spec, found.weights)
    except TrainingError:
        raise
    except ArchError as error:
        message = f"the teacher {name} cannot be made: {error.problems[0].message}"
        raise training_error("teacher", message, hint=error.problems[0].hint, path="teacher") from error
    return module


def _output(answers: Answers, name: str | None, field: str) -> Tensor:
    if name is None:
        return judged(answers)
    if isinstance(answers, Tensor) or name not in answers:
        there = "only one, without a name" if isinstance(answers, Tensor) else ", ".join(answers)
        message = f"the network has no output {name!r}; its outputs are: {there}"
        hint = f"leave out `{field}`, or train a network with that output, such as a distilled DeiT"
        raise training_error("output", message, hint=hint, path=field)
    return answers[name]
