"""The loop trains any task: loss, metric, and checks of labels and output are the task's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import TOY, Bright, changed

from archdsl.errors import TrainingError
from archdsl.training import Training, train
from archdsl.training.tasks import task_of
from archdsl.training.tasks.classification import Classification


class Maps(Bright):
    """Toy data: a map of labels, which says of each pixel whether its first channel is positive; 9 is no label."""

    def _batches(self, num: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, _ in super()._batches(num, batch, seed):
            labels = (images[:, 0] > 0).long()
            labels[:, 0, 0] = 9
            yield images, labels


class Pixels:
    """Classify pixels: output [B, 2, H, W] against labels [B, H, W]; the metric is the mean intersection over union."""

    num_counts = 4  # the confusion matrix [label, answer]

    def mix(self, images: Tensor, targets: Tensor, seed: str) -> tuple[Tensor, Tensor]:
        return images, targets

    def check(self, output: Tensor) -> str | None:
        return None if output.shape[1] == 2 else "the map has other classes"

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output, targets, ignore_index=9)

    def counts(self, output: Tensor, targets: Tensor) -> Tensor:
        known = targets != 9
        return torch.bincount(2 * targets[known] + output[:, :2].argmax(1)[known], minlength=4).double()

    def metric(self, counts: Tensor, num_images: int) -> float:
        assert num_images == Maps.num_val and counts.sum() == num_images * 15
        matrix = counts.view(2, 2)
        return float((matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())).mean())


def test_a_task_over_maps_is_trained_by_the_same_loop():
    def network() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Conv2d(3, 2, 1)

    before = Training(network(), Maps(), TOY, seed=0, task=Pixels()).result().accuracy
    whole, halves, fast = network(), network(), changed(lr=0.2)
    result = train(whole, Maps(), fast, seed=0, task=Pixels())
    assert before < 0.7 and result.accuracy > 0.9
    train(halves, Maps(), fast, seed=0, task=Pixels(), micro_batch=16)
    torch.testing.assert_close(whole.weight, halves.weight, rtol=1e-3, atol=1e-4)


def test_a_note_of_the_task_stands_in_the_result_once():
    result = train(nn.Conv2d(3, 3, 1), Maps(), changed(epochs=2), seed=0, task=Pixels())
    assert result.notes == ("the map has other classes",)


def test_labels_of_one_class_an_image_pose_a_classification():
    task = task_of(Bright(), changed(label_smoothing=0.1))
    assert isinstance(task, Classification) and task.num_classes == 3
    output, labels = torch.tensor([[3.0, 0, 0], [0, 1, 2], [0, 5, 0]]), torch.tensor([0, 1, 1])
    assert task.loss(output, labels) == F.cross_entropy(output, labels, label_smoothing=0.1)
    assert task.metric(task.counts(output, labels) + task.counts(output[:1], labels[:1]), 4) == 3 / 4
    assert task.check(output) is None
    assert task.check(torch.zeros(2, 5)) == "the network can answer 5 classes, the data have 3"
    with pytest.raises(TrainingError, match=r"answers \[2, 3, 4, 4\] for a batch \[classes\](.|\n)*head\.classes=3"):
        task.check(torch.zeros(2, 3, 4, 4))
    assert task.mix(output, labels, "seed") == (output, labels)


def test_labels_of_mixed_images_are_shares_of_classes(timm):
    recipe = changed(mixup=1.0, label_smoothing=0.1)
    task = Classification(3, recipe)
    shares = task.mix(torch.zeros(4, 3, 4, 4), torch.tensor([0, 1, 2, 0]), "seed")[1]
    assert shares.shape == (4, 3) and torch.allclose(shares.sum(1), torch.ones(4))
    wide = torch.randn(4, 5)
    assert task.loss(wide, shares) == F.cross_entropy(wide, F.pad(shares, (0, 2)))


def test_an_output_that_is_no_number_is_divergence_whatever_the_task():
    class Broken(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if self.training else float("nan"))

    with pytest.raises(TrainingError, match=r"the network's output is not a number after 0\.00 of 4 epochs"):
        train(Broken(3, 2, 1), Maps(), TOY, seed=0, task=Pixels())
