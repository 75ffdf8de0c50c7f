"""How other libraries name the tensors that we have, one table a source.

`places` says where a tensor sits: the first pattern that fits the start of a name is replaced. `{i}` stands for a whole
number, and `{i+1}` for the next one; a pattern that does not end in a dot must fit the whole name. `parts` renames what
is left of the name, in the same way. `joined` lists tensors that the source holds in pieces, which are stacked.

To add a source, add a table and its line in SOURCES, and a test that a model of that library gives the same logits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

IGNORED = frozenset({"relative_position_index", "attn_mask", "num_batches_tracked"})
"""Last names of tensors that are no weights: tables and masks that we make ourselves, and counters."""


@dataclass(frozen=True)
class Source:
    """The names of one library."""

    places: Mapping[str, str]
    parts: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def ours(self, name: str) -> str | None:
        """Our name of the library's tensor `name`; None when no pattern fits it."""
        for pattern, ours in self.places.items():
            place = _replaced(pattern, ours, name)
            if place is not None:
                start, rest = place
                renamed = (_replaced(part, mine, rest) for part, mine in self.parts.items())
                part, end = next((found for found in renamed if found is not None), ("", rest))
                return start + part + end
        return None


def _replaced(pattern: str, ours: str, name: str) -> tuple[str, str] | None:
    """The start of `name` replaced, and the rest of it; None when the pattern does not fit."""
    found = _compiled(pattern).match(name)
    if found is None:
        return None
    numbers = {key: int(value) for key, value in found.groupdict().items()}
    filled = re.sub(r"\{(\w)(\+1)?\}", lambda hole: str(numbers[hole[1]] + bool(hole[2])), ours)
    return filled, name[found.end() :]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>[0-9]{1,6})", re.escape(pattern))
    return re.compile(text if pattern.endswith(".") else text + r"\Z")


ARCHDSL = Source({"stem.": "stem.", "stages.": "stages.", "head.": "head."})

TIMM = Source(
    {
        # Swin and ViT
        "patch_embed.": "stem.",
        "cls_token": "stem.cls_token",
        "pos_embed": "stem.pos_embed",
        "layers.{i}.": "stages.{i}.",
        "blocks.{i}.": "stages.0.blocks.{i}.",
        "norm.": "head.norm.",
        "fc_norm.": "head.norm.",
        # ConvNeXt
        "stem.0.": "stem.proj.",
        "stem.1.": "stem.norm.",
        "stages.{i}.downsample.0.": "stages.{i}.downsample.norm.",
        "stages.{i}.downsample.1.": "stages.{i}.downsample.conv.",
        "stages.{i}.blocks.": "stages.{i}.blocks.",
        # all
        "head.norm.": "head.norm.",
        "head.fc.": "head.fc.",
        "head.": "head.fc.",
    }
)

MICROSOFT = Source(
    {
        "patch_embed.": "stem.",
        "layers.{i}.downsample.": "stages.{i+1}.downsample.",
        "layers.{i}.blocks.": "stages.{i}.blocks.",
        "norm.": "head.norm.",
        "head.": "head.fc.",
    }
)

# Their ViT adds 1e-12 in its norms and their ConvNeXt in the last one, where ours add 1e-6: for equal logits set
# `defaults.norm_eps=1e-12` and `head.norm_eps=1e-12`.
HUGGINGFACE = Source(
    {
        "swin.embeddings.patch_embeddings.projection.": "stem.proj.",
        "swin.embeddings.norm.": "stem.norm.",
        "swin.encoder.layers.{i}.blocks.{j}.": "stages.{i}.blocks.{j}.",
        "swin.encoder.layers.{i}.downsample.": "stages.{i+1}.downsample.",
        "swin.layernorm.": "head.norm.",
        "vit.embeddings.patch_embeddings.projection.": "stem.proj.",
        "vit.embeddings.cls_token": "stem.cls_token",
        "vit.embeddings.position_embeddings": "stem.pos_embed",
        "vit.encoder.layer.{j}.": "stages.0.blocks.{j}.",
        "vit.layernorm.": "head.norm.",
        "convnext.embeddings.patch_embeddings.": "stem.proj.",
        "convnext.embeddings.layernorm.": "stem.norm.",
        "convnext.encoder.stages.{i}.downsampling_layer.0.": "stages.{i}.downsample.norm.",
        "convnext.encoder.stages.{i}.downsampling_layer.1.": "stages.{i}.downsample.conv.",
        "convnext.encoder.stages.{i}.layers.{j}.": "stages.{i}.blocks.{j}.",
        "convnext.layernorm.": "head.norm.",
        "classifier.": "head.fc.",
    },
    {
        "layernorm_before.": "norm1.",
        "attention.self.query.": "attn.query.",
        "attention.self.key.": "attn.key.",
        "attention.self.value.": "attn.value.",
        "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
        "attention.attention.query.": "attn.query.",
        "attention.attention.key.": "attn.key.",
        "attention.attention.value.": "attn.value.",
        "attention.output.dense.": "attn.proj.",
        "layernorm_after.": "norm2.",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
        "dwconv.": "conv_dw.",
        "layernorm.": "norm.",
        "pwconv1.": "mlp.fc1.",
        "pwconv2.": "mlp.fc2.",
        "layer_scale_parameter": "gamma",
    },
    joined={"attn.qkv": ("attn.query", "attn.key", "attn.value")},
)

SOURCES: dict[str, Source] = {
    "archdsl": ARCHDSL,
    "timm": TIMM,
    "microsoft": MICROSOFT,
    "huggingface": HUGGINGFACE,
}
