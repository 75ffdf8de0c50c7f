"""One class an image: cross-entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from archdsl.statistics import wilson_interval
from archdsl.training.failures import training_error
from archdsl.training.recipe import Recipe
from archdsl.training.tasks.metric import Metric
from archdsl.training.timm_parts import Mixer

TOPS = (1, 5)


class Classification:
    """Classify images: logits [B, outputs] against labels [B] in 0 … num_classes - 1.

    loss:   mean cross-entropy with the recipe's label smoothing (https://arxiv.org/abs/1512.00567), or with the class
            shares [B, num_classes] of mixed images, which are smoothed already
    metric: top-1 accuracy, the share of images whose highest logit is that of their label; of equal logits the first
            counts as the highest
    metrics: top-1 and, where there are more than five classes, top-5 accuracy, with Wilson's intervals
    """

    num_counts = len(TOPS)

    def __init__(self, num_classes: int, recipe: Recipe | None = None):
        self.num_classes = num_classes
        self.label_smoothing = recipe.label_smoothing if recipe is not None else 0.0
        self.mixer = Mixer(recipe, num_classes) if recipe is not None and recipe.mixes else None

    def mix(self, images: Tensor, targets: Tensor, seed: str) -> tuple[Tensor, Tensor]:
        return (images, targets) if self.mixer is None else self.mixer(images, targets, seed)

    def check(self, output: Tensor) -> str | None:
        """A head may be wider than there are classes, such as that of ImageNet over a part of it, but not narrower."""
        if output.ndim != 2 or output.shape[1] < self.num_classes:
            came = f"[{', '.join(map(str, output.shape))}]"
            message = f"the data have {self.num_classes} classes, but the network answers {came} for a batch"
            raise training_error("classes", message, hint=f"set head.classes={self.num_classes}")
        if output.shape[1] == self.num_classes:
            return None
        return f"the network can answer {output.shape[1]} classes, the data have {self.num_classes}"

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        if self.mixer is None:
            return F.cross_entropy(output, targets, label_smoothing=self.label_smoothing)
        return F.cross_entropy(output, F.pad(targets, (0, output.shape[1] - targets.shape[1])))

    def counts(self, output: Tensor, targets: Tensor) -> Tensor:
        output = output.cpu()
        own = output.gather(1, targets[:, None])
        before = torch.arange(output.shape[1]) < targets[:, None]
        rank = ((output > own) | ((output == own) & before)).sum(1)
        return torch.stack([(rank < top).sum(dtype=torch.float64) for top in TOPS])

    def metric(self, counts: Tensor, num_images: int) -> float:
        return int(counts[0]) / num_images

    def metrics(self, counts: Tensor, num_images: int, num_independent: int) -> tuple[Metric, ...]:
        found = []
        for top, hits in zip(TOPS, counts.tolist(), strict=True):
            if top == 1 or self.num_classes > top:
                share = int(hits) / num_images
                found.append(Metric(f"top-{top}", share, *wilson_interval(share, num_independent)))
        return tuple(found)
