"""The names of torchvision's DeepLabV3 and FCN, whose backbone is its ResNet."""

from archdsl.parts.families.resnet_weights import WEIGHT_NAMES as RESNET
from archdsl.parts.weight_names import WeightNames

_BACKBONE = {f"backbone.{place}": ours for place, ours in RESNET["torchvision"].places.items()}
_AUXILIARY = {
    "aux_classifier.0.": "heads.aux.hidden.conv.",
    "aux_classifier.1.": "heads.aux.hidden.norm.",
    "aux_classifier.4.": "heads.aux.fc.",
}

WEIGHT_NAMES = {
    "torchvision": WeightNames(
        _BACKBONE
        | _AUXILIARY
        | {
            "classifier.0.convs.0.0.": "neck.0.point.conv.",
            "classifier.0.convs.0.1.": "neck.0.point.norm.",
            "classifier.0.convs.1.0.": "neck.0.atrous.0.conv.",
            "classifier.0.convs.1.1.": "neck.0.atrous.0.norm.",
            "classifier.0.convs.2.0.": "neck.0.atrous.1.conv.",
            "classifier.0.convs.2.1.": "neck.0.atrous.1.norm.",
            "classifier.0.convs.3.0.": "neck.0.atrous.2.conv.",
            "classifier.0.convs.3.1.": "neck.0.atrous.2.norm.",
            "classifier.0.convs.4.1.": "neck.0.image.conv.",
            "classifier.0.convs.4.2.": "neck.0.image.norm.",
            "classifier.0.project.0.": "neck.0.project.conv.",
            "classifier.0.project.1.": "neck.0.project.norm.",
            "classifier.1.": "head.hidden.conv.",
            "classifier.2.": "head.hidden.norm.",
            "classifier.4.": "head.fc.",
        }
    ),
}

FCN_NAMES = {
    "torchvision": WeightNames(
        _BACKBONE
        | _AUXILIARY
        | {
            "classifier.0.": "head.hidden.conv.",
            "classifier.1.": "head.hidden.norm.",
            "classifier.4.": "head.fc.",
        }
    ),
}
