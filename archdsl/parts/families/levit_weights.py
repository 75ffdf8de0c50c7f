"""The names of LeViT's tensors in timm, which holds the rows of q, k and v head by head."""

from archdsl.parts.weight_names import WeightNames

_LAYERS = {
    "attn.qkv": "attn.qkv",
    "attn.proj.ln": "attn.proj",
    "attn_downsample.kv": "shrink.kv",
    "attn_downsample.q.ln": "shrink.q",
    "attn_downsample.proj.ln": "shrink.proj",
    "mlp.ln1": "mlp.fc1",
    "mlp.ln2": "mlp.fc2",
}
"""Linear layers with a batch norm."""

WEIGHT_NAMES = {
    "timm": WeightNames(
        {
            "stem.conv{i}.linear.": "stem.conv{i}.",
            "stem.conv{i}.bn.": "stem.norm{i}.",
            "stages.{i}.downsample.": "stages.{i}.downsample.",
            "stages.{i}.blocks.{j}.": "stages.{i}.blocks.{j}.",
            "head.bn.": "head.norm.",
            "head.linear.": "head.fc.",
            "head_dist.bn.": "head.norm_dist.",
            "head_dist.linear.": "head.fc_dist.",
        },
        {f"{theirs}.linear.": f"{ours}." for theirs, ours in _LAYERS.items()}
        | {f"{theirs}.bn.": f"{ours}_norm." for theirs, ours in _LAYERS.items()}
        | {"attn.attention_biases": "attn.offset_bias", "attn_downsample.attention_biases": "shrink.offset_bias"},
        by_head=("attn.qkv_norm", "shrink.kv_norm"),
    ),
}
