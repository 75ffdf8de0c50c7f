"""The names of ResNet's tensors in timm, in torchvision (the same) and in transformers."""

from archdsl.parts.weight_names import WeightNames

_TIMM = WeightNames(
    {
        "conv1.": "stem.conv1.",
        "bn1.": "stem.norm1.",
        "layer1.{j}.": "stages.0.blocks.{j}.",
        "layer2.{j}.": "stages.1.blocks.{j}.",
        "layer3.{j}.": "stages.2.blocks.{j}.",
        "layer4.{j}.": "stages.3.blocks.{j}.",
        "fc.": "head.fc.",
    },
    {
        "bn1.": "norm1.",
        "bn2.": "norm2.",
        "bn3.": "norm3.",
        "downsample.0.": "shortcut.conv.",
        "downsample.1.": "shortcut.norm.",
    },
)

WEIGHT_NAMES = {
    "timm": _TIMM,
    "torchvision": _TIMM,
    "huggingface": WeightNames(
        {
            "resnet.embedder.embedder.convolution.": "stem.conv1.",
            "resnet.embedder.embedder.normalization.": "stem.norm1.",
            "resnet.encoder.stages.{i}.layers.{j}.": "stages.{i}.blocks.{j}.",
            "classifier.1.": "head.fc.",
        },
        {
            "shortcut.convolution.": "shortcut.conv.",
            "shortcut.normalization.": "shortcut.norm.",
            "layer.0.convolution.": "conv1.",
            "layer.0.normalization.": "norm1.",
            "layer.1.convolution.": "conv2.",
            "layer.1.normalization.": "norm2.",
            "layer.2.convolution.": "conv3.",
            "layer.2.normalization.": "norm3.",
        },
    ),
}
