"""Predictions as plain facts: rows, reasons, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archdsl.language import Space
from archdsl.latency.predictor.holdout import Checked
from archdsl.latency.predictor.networks import CandidateNetwork
from archdsl.latency.predictor.predictions import Forecast
from archdsl.outside_text import spreadsheet_cell


def reasons_of(made: Forecast) -> list[str]:
    """Why networks are not predicted, a sentence for each reason, with the most frequent case of it."""
    by_rule: dict[str, list[str]] = {}
    for _, why in made.refused:
        by_rule.setdefault(why.problems[0].rule, []).append(why.problems[0].message)
    found = []
    for rule, messages in by_rule.items():
        most = max(set(messages), key=lambda message: (messages.count(message), message))
        found.append(f"{len(messages)} networks [{rule}], such as: {most}")
    if "unknown-segment" in by_rule:
        needed = 1 + len({key for n in made.networks for key, s in n.parts.segments.items() if not s.only_moves})
        found.append(f"all networks have {needed} segments, and those that only move tokens: `--segments` allows more")
    return found


def rows_of(
    made: Forecast, base: CandidateNetwork | None = None, differs: Callable[[CandidateNetwork], str] | None = None
) -> list[Any]:
    """Facts of each predicted network, the fastest first; `ratio` is to the base's prediction where there is one."""
    by_hash = {network.hash: prediction for network, prediction in made.predicted}
    reference = by_hash.get(base.hash) if base else None
    return [
        {
            "spec": network.spec.name,
            "hash": network.hash,
            "differs": differs(network) if differs else "",
            **prediction.as_json(),
            "ratio": prediction.median_ms / reference.median_ms if reference else None,
            "macs": network.cost.macs,
            "params": network.cost.params,
        }
        for network, prediction in made.predicted
    ]


def differences(space: Space, base: CandidateNetwork) -> Callable[[CandidateNetwork], str]:
    """What a network sets otherwise than the base, in the words of the space: `stages.0.window=14, …`."""
    choices = {choice.name: choice for choice in space.choices}

    def differs(network: CandidateNetwork) -> str:
        changed = [name for name, index in network.assignment.items() if base.assignment.get(name) != index]
        return ", ".join(f"{name}={choices[name].labels[network.assignment[name]]}" for name in changed) or "the base"

    return differs


NAMES = {"segments": "segments", "macs": "MACs, a line", "params": "parameters, a line"}


def quality_rows(checked: Checked) -> list[tuple[str, ...]]:
    """One row for each way of predicting: name, mean error, rank correlation, coverage, width."""
    return [
        (
            NAMES[quality.name],
            f"{quality.mape:.1%}",
            "" if quality.spearman is None else f"{quality.spearman:.3f}",
            "" if quality.coverage is None else f"{quality.coverage:.0%}",
            "" if quality.width is None else f"{quality.width:.1%}",
        )
        for quality in checked.qualities
    ]


def checked_json(checked: Checked) -> dict[str, Any]:
    """What was held out and how well it was predicted, for `--json`."""
    triples = zip(checked.networks, checked.predictions, checked.measured_ms, strict=True)
    return {
        "qualities": [quality.as_json() for quality in checked.qualities],
        "without_drift_correction": checked.as_measured.as_json(),
        "drift": list(checked.drift),
        "networks": [
            {"hash": network.hash, **prediction.as_json(), "measured_ms": ms} for network, prediction, ms in triples
        ],
    }


COLUMNS = ("median_ms", "low_ms", "high_ms", "level", "ratio", "macs", "params", "hash", "differs")


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows_of` as CSV with a line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("predicted_" + name if name.endswith("_ms") else name for name in COLUMNS)
    writer.writerows([spreadsheet_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue()
