"""The vocabulary of the language: importing this package registers every built-in part."""

from archdsl.parts.families import convnext, deeplab, deit, fcn, fpn, ghostnet, pspnet, resnet, swin, swinv2, vit
from archdsl.parts.layers import downsamples, features, heads, stems
from archdsl.parts.part import Block, Downsample, Head, Neck, Part, PartKind, Stem, parts, register

__all__ = [
    "Block",
    "Downsample",
    "Head",
    "Neck",
    "Part",
    "PartKind",
    "Stem",
    "convnext",
    "deeplab",
    "deit",
    "downsamples",
    "fcn",
    "features",
    "fpn",
    "ghostnet",
    "heads",
    "parts",
    "pspnet",
    "register",
    "resnet",
    "stems",
    "swin",
    "swinv2",
    "vit",
]
