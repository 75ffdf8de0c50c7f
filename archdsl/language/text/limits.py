"""How large things may be. Everything here is refused with a position before anything large is allocated.

The text limits protect the reader of a file, the spec limits the validation, the network limits whoever builds it.
All are plain module constants: assign another value to lift one.
"""

from __future__ import annotations

from typing import Any

from archdsl.errors import Problem, SpecError

# --- text ---------------------------------------------------------------------------------------------------------
MAX_FILE_BYTES = 1 << 20
"""Bytes of one YAML file."""
MAX_TOTAL_BYTES = 4 << 20
"""Bytes of a file and everything it extends."""
MAX_FILES = 64
"""Files that one load may open."""
MAX_EXTENDS = 32
"""Steps from a file to the last file it extends."""
MAX_NESTING = 64
"""Lists and mappings inside one another, aliases expanded."""
MAX_NODES = 100_000
"""Values in a document, each alias counted as what it stands for; the same after `extends`."""
MAX_KEYS = 10_000
"""Keys of one mapping: no file that means something comes near."""
MAX_SCALAR_CHARS = 64 << 10
"""Characters of one value or key."""
MAX_INT = (1 << 63) - 1
"""Whole numbers fit in 64 bits."""
MAX_PROBLEMS = 1000
"""Problems that one error carries."""

# --- specs --------------------------------------------------------------------------------------------------------
MAX_STAGES = 64
MAX_DEPTH = 1000
"""Blocks of one stage."""
MAX_BLOCKS = 4096
"""Blocks of all stages."""
MAX_DIM = 65_536
"""Any number in a part: widths, heads, windows, ratios, …"""
MAX_CLASSES = 10_000_000
MAX_CLASS_NAMES = 30_000
"""Names in `trained_on`; more would make the file too large."""
MAX_IMAGE_SIZE = 8192
MAX_CHANNELS = 4096
MAX_FIELD_NODES = 256
"""Values inside one field of one block."""

# --- spaces -------------------------------------------------------------------------------------------------------
MAX_OPTIONS = 1000
"""Options of one choice."""
MAX_SPACE_OPTIONS = 4096
"""Options of all choices of one space, wildcards expanded."""

# --- networks -----------------------------------------------------------------------------------------------------
MAX_PARAMS = 2_000_000_000
MAX_MACS = 1_000_000_000_000
"""Multiply-adds of one image."""
MAX_ACTIVATION_BYTES = 64_000_000_000
"""Bytes of all values of the graph for one image, fp32."""


def refuse_giant(
    spec: Any, *, params: int = 0, macs: int = 0, activation_bytes: int = 0, path: tuple[str | int, ...] = ()
) -> None:
    """Raise a SpecError when a network is larger than archdsl builds. Costs are of one image, fp32.

    path: what to point at; the whole spec when nothing in particular is to blame
    """
    found = []
    for name, value, limit, constant in (
        ("parameters", params, MAX_PARAMS, "MAX_PARAMS"),
        ("multiply-adds", macs, MAX_MACS, "MAX_MACS"),
        ("bytes of activations", activation_bytes, MAX_ACTIVATION_BYTES, "MAX_ACTIVATION_BYTES"),
    ):
        if value > limit:
            message = f"a network may have at most {limit:_} {name}, but this one has {value:_}"
            hint = f"make it narrower or shallower; the limit is archdsl.language.text.limits.{constant}"
            where = ".".join(str(part) for part in path) or None
            found.append(Problem(spec.locate(path), "limit", message, hint, where))
    if found:
        raise SpecError(found)
