"""The names of Swin's tensors in timm, in Microsoft's own code, in transformers and in torchvision."""

from archdsl.parts.families.transformer_weights import HUGGINGFACE_BLOCK, QKV
from archdsl.parts.weight_names import WeightNames

WEIGHT_NAMES = {
    "timm": WeightNames(
        {
            "patch_embed.": "stem.",
            "layers.{i}.": "stages.{i}.",
            "norm.": "head.norm.",
            "head.fc.": "head.fc.",
            "head.": "head.fc.",
        }
    ),
    "microsoft": WeightNames(
        {
            "patch_embed.": "stem.",
            "layers.{i}.downsample.": "stages.{i+1}.downsample.",
            "layers.{i}.blocks.": "stages.{i}.blocks.",
            "norm.": "head.norm.",
            "head.": "head.fc.",
        }
    ),
    "huggingface": WeightNames(
        {
            "swin.embeddings.patch_embeddings.projection.": "stem.proj.",
            "swin.embeddings.norm.": "stem.norm.",
            "swin.encoder.layers.{i}.blocks.{j}.": "stages.{i}.blocks.{j}.",
            "swin.encoder.layers.{i}.downsample.": "stages.{i+1}.downsample.",
            "swin.layernorm.": "head.norm.",
            "classifier.": "head.fc.",
        },
        HUGGINGFACE_BLOCK
        | {
            "attention.self.query.": "attn.query.",
            "attention.self.key.": "attn.key.",
            "attention.self.value.": "attn.value.",
            "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
        },
        QKV,
    ),
    "torchvision": WeightNames(
        {
            "features.0.0.": "stem.proj.",
            "features.0.2.": "stem.norm.",
            "features.{2i}.norm.": "stages.{i}.downsample.norm.",
            "features.{2i}.reduction.": "stages.{i}.downsample.reduction.",
            "features.{2i+1}.{j}.": "stages.{i}.blocks.{j}.",
            "norm.": "head.norm.",
            "head.": "head.fc.",
        },
        {"mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2."},
    ),
}
