"""The names of ConvNeXt's tensors in timm, in Facebook's own code, in transformers and in torchvision.

transformers adds 1e-12 in the last norm, where ours adds 1e-6: for equal logits set `head.norm_eps=1e-12`.
"""

from archdsl.parts.weight_names import WeightNames

WEIGHT_NAMES = {
    "timm": WeightNames(
        {
            "stem.0.": "stem.proj.",
            "stem.1.": "stem.norm.",
            "stages.{i}.downsample.0.": "stages.{i}.downsample.norm.",
            "stages.{i}.downsample.1.": "stages.{i}.downsample.conv.",
            "stages.{i}.blocks.": "stages.{i}.blocks.",
            "head.norm.": "head.norm.",
            "head.fc.": "head.fc.",
        }
    ),
    "facebook": WeightNames(
        {
            "downsample_layers.0.0.": "stem.proj.",
            "downsample_layers.0.1.": "stem.norm.",
            "downsample_layers.{i}.0.": "stages.{i}.downsample.norm.",
            "downsample_layers.{i}.1.": "stages.{i}.downsample.conv.",
            "stages.{i}.{j}.": "stages.{i}.blocks.{j}.",
            "norm.": "head.norm.",
            "head.": "head.fc.",
        },
        {"dwconv.": "conv_dw.", "pwconv1.": "mlp.fc1.", "pwconv2.": "mlp.fc2."},
    ),
    "huggingface": WeightNames(
        {
            "convnext.embeddings.patch_embeddings.": "stem.proj.",
            "convnext.embeddings.layernorm.": "stem.norm.",
            "convnext.encoder.stages.{i}.downsampling_layer.0.": "stages.{i}.downsample.norm.",
            "convnext.encoder.stages.{i}.downsampling_layer.1.": "stages.{i}.downsample.conv.",
            "convnext.encoder.stages.{i}.layers.{j}.": "stages.{i}.blocks.{j}.",
            "convnext.layernorm.": "head.norm.",
            "classifier.": "head.fc.",
        },
        {
            "dwconv.": "conv_dw.",
            "layernorm.": "norm.",
            "pwconv1.": "mlp.fc1.",
            "pwconv2.": "mlp.fc2.",
            "layer_scale_parameter": "gamma",
        },
    ),
    "torchvision": WeightNames(
        {
            "features.0.0.": "stem.proj.",
            "features.0.1.": "stem.norm.",
            "features.{2i}.0.": "stages.{i}.downsample.norm.",
            "features.{2i}.1.": "stages.{i}.downsample.conv.",
            "features.{2i+1}.{j}.": "stages.{i}.blocks.{j}.",
            "classifier.0.": "head.norm.",
            "classifier.2.": "head.fc.",
        },
        {
            "block.0.": "conv_dw.",
            "block.2.": "norm.",
            "block.3.": "mlp.fc1.",
            "block.5.": "mlp.fc2.",
            "layer_scale": "gamma",
        },
    ),
}
