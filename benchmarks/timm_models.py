"""timm's networks as the reference, on machines where torchvision's compiled part does not load too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

_kept: list[torch.library.Library] = []


def timm_model(name: str, **fields: Any) -> torch.nn.Module:
    """`timm.create_model(name, …)` with random weights, ready for inference."""
    try:
        import_module("torchvision")
    except RuntimeError:  # a torchvision for CUDA beside a torch for CPUs: give it the two schemas that it asks for
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    import timm

    return timm.create_model(name, pretrained=False, **fields).eval()
