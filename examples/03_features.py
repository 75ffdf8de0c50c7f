"""A backbone for something else: its feature maps, their channels and strides, with torch alone.

Run: python examples/03_features.py [SPEC] (a second for the default, `micro_swin_free`)
The same as ONNX, with named outputs: archdsl build micro_swin_free --features --emit onnx -o out/
"""

from __future__ import annotations

import sys

import torch

import archdsl


def main(name: str = "micro_swin_free") -> None:
    # 1. Every stage gives a map. `out` takes others: ["stem", "stages.1.blocks.0"].
    backbone = archdsl.features(name)
    info = backbone.feature_info

    # 2. A detector or a segmenter asks what it will get.
    for tap, channels, stride in zip(info.module_name(), info.channels(), info.reduction(), strict=True):
        print(f"{tap:10} {channels:5} channels, one place for {stride}x{stride} pixels")

    # 3. The maps are planes [B, C, H, W], finest first, and gradients flow through them.
    spec = archdsl.load(name)
    images = torch.randn(2, spec.input.channels, *spec.input.size)
    for tap, x in zip(info.module_name(), backbone(images), strict=True):
        print(f"{tap:10} {list(x.shape)}, standard deviation {x.std().item():.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
