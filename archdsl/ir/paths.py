"""The grammar of node paths: `stem…`, `stages.N.downsample…`, `stages.N.blocks.M…`, `features.N…`, `neck.N…`, `head…`,
`heads.NAME…`."""

from __future__ import annotations

NUMBERED = ("features", "neck")
"""First words of paths that a number follows: parts of a list."""


def part_of(path: str) -> str:
    """The part of the network that a node belongs to: `stages.1.blocks.0.attn.qkv` -> `stages.1.blocks.0`,
    `stages.1.downsample.norm` -> `stages.1.downsample`, `neck.0.concat` -> `neck.0`, `head.fc` -> `head`."""
    words = path.split(".")
    if words[0] in NUMBERED or words[0] == "heads":
        return ".".join(words[:2])
    if words[0] != "stages":
        return words[0]
    return ".".join(words[:4] if words[2:3] == ["blocks"] else words[:3])


def stage_of(path: str) -> str:
    """The stage that a node, or a path of a spec, belongs to: `stages.2.blocks.0.attn` -> `stages.2`; the first word of
    a path outside the stages."""
    words = path.split(".")
    return ".".join(words[:2] if words[0] == "stages" else words[:1])
