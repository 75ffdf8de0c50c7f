"""The vocabulary of the language: importing this package registers every built-in part."""

from archdsl.parts.families import convnext, deit, ghostnet, levit, resnet, swin, swinv2, t2t, vit
from archdsl.parts.layers import downsamples, heads, stems
from archdsl.parts.part import Block, Downsample, Head, Part, PartKind, Stem, parts, register

__all__ = [
    "Block",
    "Downsample",
    "Head",
    "Part",
    "PartKind",
    "Stem",
    "convnext",
    "deit",
    "downsamples",
    "ghostnet",
    "heads",
    "levit",
    "parts",
    "register",
    "resnet",
    "stems",
    "swin",
    "swinv2",
    "t2t",
    "vit",
]
