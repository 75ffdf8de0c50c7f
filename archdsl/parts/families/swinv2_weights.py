"""The names of SwinV2's tensors in timm and in transformers."""

from archdsl.parts.families.swin_weights import WEIGHT_NAMES as SWIN
from archdsl.parts.families.transformer_weights import HUGGINGFACE_BLOCK, QKV
from archdsl.parts.weight_names import WeightNames

WEIGHT_NAMES = {
    "timm": SWIN["timm"],
    "huggingface": WeightNames(
        {place.replace("swin.", "swinv2."): ours for place, ours in SWIN["huggingface"].places.items()},
        {
            "attention.self.query.bias": "attn.q_bias",
            "attention.self.value.bias": "attn.v_bias",
            "attention.self.query.": "attn.query.",
            "attention.self.key.": "attn.key.",
            "attention.self.value.": "attn.value.",
            "attention.self.logit_scale": "attn.logit_scale",
            "attention.self.continuous_position_bias_mlp.": "attn.cpb_mlp.",
        }
        | HUGGINGFACE_BLOCK,
        QKV,
    ),
}
