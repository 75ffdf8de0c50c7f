"""The names of ViT's and DeiT's tensors in timm, in transformers and in torchvision.

transformers adds 1e-12 in its norms, where ours add 1e-6: for equal logits set `defaults.norm_eps=1e-12` and
`head.norm_eps=1e-12`.
"""

from archdsl.parts.families.transformer_weights import HUGGINGFACE_BLOCK, QKV
from archdsl.parts.weight_names import WeightNames

WEIGHT_NAMES = {
    "timm": WeightNames(
        {
            "patch_embed.": "stem.",
            "cls_token": "stem.cls_token",
            "dist_token": "stem.dist_token",
            "pos_embed": "stem.pos_embed",
            "blocks.{i}.": "stages.0.blocks.{i}.",
            "norm.": "head.norm.",
            "fc_norm.": "head.norm.",
            "head.": "head.fc.",
            "head_dist.": "head.fc_dist.",
        }
    ),
    "huggingface": WeightNames(
        {
            "vit.embeddings.patch_embeddings.projection.": "stem.proj.",
            "vit.embeddings.cls_token": "stem.cls_token",
            "vit.embeddings.position_embeddings": "stem.pos_embed",
            "vit.encoder.layer.{j}.": "stages.0.blocks.{j}.",
            "vit.layernorm.": "head.norm.",
            "classifier.": "head.fc.",
            "deit.embeddings.patch_embeddings.projection.": "stem.proj.",
            "deit.embeddings.cls_token": "stem.cls_token",
            "deit.embeddings.distillation_token": "stem.dist_token",
            "deit.embeddings.position_embeddings": "stem.pos_embed",
            "deit.encoder.layer.{j}.": "stages.0.blocks.{j}.",
            "deit.layernorm.": "head.norm.",
            "cls_classifier.": "head.fc.",
            "distillation_classifier.": "head.fc_dist.",
        },
        HUGGINGFACE_BLOCK
        | {
            "attention.attention.query.": "attn.query.",
            "attention.attention.key.": "attn.key.",
            "attention.attention.value.": "attn.value.",
        },
        QKV,
    ),
    "torchvision": WeightNames(
        {
            "conv_proj.": "stem.proj.",
            "class_token": "stem.cls_token",
            "encoder.pos_embedding": "stem.pos_embed",
            "encoder.layers.encoder_layer_{j}.": "stages.0.blocks.{j}.",
            "encoder.ln.": "head.norm.",
            "heads.head.": "head.fc.",
        },
        {
            "ln_1.": "norm1.",
            "self_attention.in_proj_weight": "attn.qkv.weight",
            "self_attention.in_proj_bias": "attn.qkv.bias",
            "self_attention.out_proj.": "attn.proj.",
            "ln_2.": "norm2.",
            "mlp.0.": "mlp.fc1.",
            "mlp.3.": "mlp.fc2.",
            "mlp.linear_1.": "mlp.fc1.",
            "mlp.linear_2.": "mlp.fc2.",
        },
    ),
}
