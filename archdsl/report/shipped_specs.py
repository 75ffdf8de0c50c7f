"""The specs that come with archdsl, one row each: what `archdsl list` prints and docs/architectures.md holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from archdsl.compiler import cost
from archdsl.json_fields import JsonFields
from archdsl.language import Spec, load
from archdsl.language.text.files import shipped_names
from archdsl.language.text.quantities import count_text


@dataclass(frozen=True)
class ShippedSpec(JsonFields):
    """One spec.

    families: the files of `parts/families` that its blocks come from, joined by `+`
    size:     height x width of the image; params: of the train form; macs: of inference, for one image
    source:   the paper, or where else the architecture is from; empty where the file does not say it
    """

    name: str
    families: str
    size: str
    params: int
    macs: int
    source: str


def shipped_specs(patterns: Sequence[str] = ()) -> Iterator[ShippedSpec]:
    """The specs whose name or family matches one of the patterns (`*`, `?`, `[…]`), by family and size.

    patterns: none for all
    """
    found = [_of(load(name, check=False), patterns) for name in shipped_names("specs")]
    rows = [row for row in found if row is not None]
    yield from sorted(rows, key=lambda row: (row.families, row.params, row.macs, row.name))


def list_specs(*patterns: str) -> list[str]:
    """The names of the specs that ship whose name or family matches one of the patterns (`*`, `?`, `[…]`), by family
    and size; without patterns all.

    Example:
        >>> import archdsl
        >>> archdsl.list_specs("swin_free_t*", "swin_free_s")
        ['swin_free_t', 'swin_free_t_br', 'swin_free_s']
    """
    return [row.name for row in shipped_specs(patterns)]


def _of(spec: Spec, patterns: Sequence[str]) -> ShippedSpec | None:
    """The row of a spec; None where no pattern matches, before anything is counted."""
    families = _families(spec)
    words = (spec.name, *families.split("+"))
    if patterns and not any(fnmatchcase(word, pattern) for word in words for pattern in patterns):
        return None
    costs = cost(spec)
    height, width = spec.input.size
    return ShippedSpec(spec.name, families, f"{height}x{width}", costs.params, costs.macs, spec.source or "")


def _families(spec: Spec) -> str:
    modules = [type(block).__module__ for stage in spec.stages for block in stage.blocks]
    return "+".join(dict.fromkeys(module.rpartition(".")[2] for module in modules))


HEADS = ("spec", "family", "input", "parameters", "MACs", "source")


def cells(row: ShippedSpec) -> tuple[str, ...]:
    """What people read of a row, under `HEADS`."""
    return row.name, row.families, row.size, count_text(row.params), count_text(row.macs), row.source


def as_csv(rows: Sequence[ShippedSpec]) -> str:
    """The rows with all digits, for other programs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["name", "families", "size", "params", "macs", "source"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_json() for row in rows)
    return text.getvalue()


def as_markdown(rows: Sequence[ShippedSpec]) -> str:
    """The rows as docs/architectures.md has them."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += ["| " + " | ".join((f"`{row.name}`", *cells(row)[1:])) + " |" for row in rows]
    return "\n".join(lines) + "\n"
