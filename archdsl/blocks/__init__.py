"""The vocabulary of the language: importing this package registers every built-in part. One file a family."""

from archdsl.blocks import convnext, downsamples, heads, stems, swin, vit
from archdsl.blocks.flow import Flow
from archdsl.blocks.part import Block, Downsample, Head, Part, PartKind, Stem, parts, register

__all__ = [
    "Block",
    "Downsample",
    "Flow",
    "Head",
    "Part",
    "PartKind",
    "Stem",
    "convnext",
    "downsamples",
    "heads",
    "parts",
    "register",
    "stems",
    "swin",
    "vit",
]
