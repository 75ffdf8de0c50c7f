"""What tests of several files share: reference libraries that load on every machine."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


def load_torchvision() -> None:
    """Import torchvision, also where its compiled part does not fit this torch.

    The wheel on PyPI is built for CUDA; beside a torch for CPUs `import torchvision` dies on a missing operator, and
    timm and transformers with it. With the two schemas that it asks for it loads, without its compiled operators.
    """
    import torch

    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # the schemas live as long as the library
        import_module("torchvision")


_kept: list[object] = []


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The reference for numbers."""
    load_torchvision()
    import timm

    return timm


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The reference for Hugging Face's names."""
    load_torchvision()
    return pytest.importorskip("transformers")
