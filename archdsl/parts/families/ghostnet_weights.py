"""The names of GhostNet's tensors in timm, whose stages begin anew where the width or the kernel changes."""

from archdsl.parts.weight_names import WeightNames

WEIGHT_NAMES = {
    "timm": WeightNames(
        {
            "conv_stem.": "stem.conv1.",
            "bn1.": "stem.norm1.",
            "blocks.0.0.": "stages.0.blocks.0.",
            "blocks.1.0.": "stages.1.blocks.0.",
            "blocks.2.0.": "stages.1.blocks.1.",
            "blocks.3.0.": "stages.2.blocks.0.",
            "blocks.4.0.": "stages.2.blocks.1.",
            "blocks.5.0.": "stages.3.blocks.0.",
            "blocks.6.{j}.": "stages.3.blocks.{j+1}.",
            "blocks.7.0.": "stages.4.blocks.0.",
            "blocks.8.{j}.": "stages.4.blocks.{j+1}.",
            "blocks.9.0.bn1.": "stages.5.blocks.0.norm.",
            "blocks.9.0.": "stages.5.blocks.0.",
            "conv_head.": "head.hidden.",
            "classifier.": "head.fc.",
        },
        {
            f"ghost{i}.{theirs}": f"ghost{i}.{ours}"
            for i in (1, 2)
            for theirs, ours in (
                ("primary_conv.0.", "primary."),
                ("primary_conv.1.", "norm1."),
                ("cheap_operation.0.", "cheap."),
                ("cheap_operation.1.", "norm2."),
            )
        }
        | {
            "bn_dw.": "norm_dw.",
            "se.conv_reduce.": "se.reduce.",
            "se.conv_expand.": "se.expand.",
            "shortcut.0.": "shortcut.dw.",
            "shortcut.1.": "shortcut.norm1.",
            "shortcut.2.": "shortcut.conv.",
            "shortcut.3.": "shortcut.norm2.",
        },
    ),
}
