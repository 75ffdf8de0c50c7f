"""The networks of the front as specs, each complete in itself: it can be checked, built and searched from."""

from __future__ import annotations

from typing import Any

from archdsl.report.front_rows import FrontRow
from archdsl.report.front_table import accuracy_text
from archdsl.spec.render import to_yaml

MARK = "# archdsl search"
"""How a file of the front begins: others in its folder are not ours, and are left alone."""
_FIRST = ("name", "source", "expect")


def front_spec(row: FrontRow, study: str) -> str:
    """The YAML of one network, with what was found out about it as comments."""
    facts = [f"{MARK} {_plain(study)}, trial {row.record.number}"]
    if row.record.accuracy is not None:
        accuracy = row.record.accuracy
        facts.append(
            f"# accuracy {accuracy_text(accuracy)} on {_plain(accuracy.data)}, recipe {_plain(accuracy.recipe)}"
        )
    for timing in row.record.taken.values():
        device = f"{timing.runtime} {timing.runtime_version} on {timing.device_name}"
        facts.append(f"# latency {timing}, {_plain(device)}, {timing.precision}, batch {timing.batch}")
    if row.record.is_confirmed:
        facts.append("# confirmed: these are values of a second evaluation, made because it stood on the front")
    return "\n".join(facts) + "\n" + to_yaml(_data(row))


def _data(row: FrontRow) -> dict[str, Any]:
    """The spec's mapping with its name, and the counts that it must come to."""
    written = dict(row.spec.data)
    known = {"name": row.name, "source": written.get("source"), "expect": _expect(row)}
    first = {key: known[key] for key in _FIRST if known[key] is not None}
    return {**first, **{key: value for key, value in written.items() if key not in _FIRST}}


def _expect(row: FrontRow) -> dict[str, int | None]:
    return {"params": row.record.params, "macs": row.record.macs}


def _plain(text: str) -> str:
    """Text for a comment: one line, printable."""
    return "".join(char if char.isprintable() else " " for char in text)[:200]
