"""The names of transformers' UPerNet: its head, and its backbones, whose names begin with `backbone.` there."""

from archdsl.parts.families.convnext_weights import WEIGHT_NAMES as CONVNEXT
from archdsl.parts.families.swin_weights import WEIGHT_NAMES as SWIN
from archdsl.parts.weight_names import WeightNames


def _as_backbone(names: WeightNames) -> dict[str, str]:
    """`swin.encoder.…` as `backbone.encoder.…`; what stands behind the backbone is left out."""
    inside = {place.partition(".")[2]: ours for place, ours in names.places.items()}
    return {f"backbone.{place}": ours for place, ours in inside.items() if place.startswith(("embeddings", "encoder"))}


WEIGHT_NAMES = {
    "huggingface": WeightNames(
        {
            **_as_backbone(SWIN["huggingface"]),
            **_as_backbone(CONVNEXT["huggingface"]),
            "backbone.hidden_states_norms.stage1.": "features.0.norm.",
            "backbone.hidden_states_norms.stage2.": "features.1.norm.",
            "backbone.hidden_states_norms.stage3.": "features.2.norm.",
            "backbone.hidden_states_norms.stage4.": "features.3.norm.",
            "decode_head.psp_modules.{i}.1.": "neck.0.pools.{i}.",
            "decode_head.bottleneck.": "neck.0.bottleneck.",
            "decode_head.lateral_convs.{i}.": "neck.1.lateral.{i}.",
            "decode_head.fpn_convs.{i}.": "neck.1.smooth.{i}.",
            "decode_head.fpn_bottleneck.": "neck.2.bottleneck.",
            "decode_head.classifier.": "head.fc.",
            "auxiliary_head.convs.0.": "heads.aux.hidden.",
            "auxiliary_head.classifier.": "heads.aux.fc.",
        },
        {"batch_norm.": "norm."},
    ),
}
