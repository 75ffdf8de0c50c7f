"""The networks of the front as specs, each complete in itself: it can be checked, built and searched from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from archdsl.language.architecture.from_data import trained_on_of
from archdsl.language.text.render import to_yaml
from archdsl.report.front_rows import FrontRow
from archdsl.report.front_table import accuracy_text
from archdsl.report.templates import bounded

MARK = "# archdsl search"
"""How a file of the front begins: others in its folder are not ours, and are left alone."""
_FIRST = ("name", "source", "expect", "trained_on")


def front_spec(row: FrontRow, study: str, trained_on: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The YAML of one network, with what was found out about it as comments.

    trained_on: what is known of the data of its training, of which the spec keeps classes and preprocessing
    """
    facts = [f"{MARK} {bounded(study)}, trial {row.record.number}"]
    if row.record.accuracy is not None:
        accuracy = row.record.accuracy
        facts.append(
            f"# accuracy {accuracy_text(accuracy)} on {bounded(accuracy.data)}, recipe {bounded(accuracy.recipe)}"
        )
    for timing in row.record.timing_by_target.values():
        device = f"{timing.runtime} {timing.runtime_version} on {timing.device_name}"
        facts.append(f"# latency {timing}, {bounded(device)}, {timing.precision}, batch {timing.batch}")
    if row.record.latency_estimate is not None:
        facts.append(f"# latency_estimate {row.record.latency_estimate:.3f} ms, not measured and not validated")
    if row.record.is_confirmed:
        facts.append("# confirmed: re-evaluated because it was on the front; these are the new values")
    return "\n".join(facts) + "\n" + to_yaml(_data(row, trained_on))


def _data(row: FrontRow, trained_on: Mapping[str, Any]) -> dict[str, Any]:
    """The spec's mapping with its name, and the counts that it must come to."""
    written = dict(row.spec.data)
    expect = {"params": row.record.params, "macs": row.record.macs}
    said = trained_on_of(trained_on, row.spec) or None
    known = {"name": row.name, "source": written.get("source"), "expect": expect, "trained_on": said}
    first = {key: known[key] for key in _FIRST if known[key] is not None}
    return {**first, **{key: value for key, value in written.items() if key not in _FIRST}}
