"""The part of `archdsl show` that is about spaces."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from archdsl.cli.output import human, print_json, print_table
from archdsl.latency import Target, TimingCache
from archdsl.report.space import SpaceFacts, space_facts
from archdsl.spec import Space

if TYPE_CHECKING:
    from archdsl.report.prediction import Middle


def show_space(space: Space, *, as_json: bool) -> int:
    """Print how large a space is, what can be chosen, and what its networks cost."""
    from archdsl.report.prediction import known_latencies

    facts, target = space_facts(space), Target()
    latencies = known_latencies(space, target, TimingCache())
    if as_json:
        knobs = [
            {"name": knob.name, "path": knob.path, "options": [option.label for option in knob.choices]}
            for knob in space.knobs
        ]
        costs = {name: asdict(r) if r else None for name, r in (("params", facts.params), ("macs", facts.macs))}
        predicted = asdict(latencies) | {"target": target.as_json()} if latencies else None
        head = {"name": space.name, "base": space.base.name, **facts.size.as_json(), **costs}
        print_json({**head, "predicted_latency": predicted, "knobs": knobs})
        return 0
    _print(space, facts)
    if latencies:
        _print_latencies(latencies, target)
    return 0


def _print_latencies(latencies: Middle, target: Target) -> None:
    low, middle, high = (f"{ms:.4g}" for ms in (latencies.low_ms, latencies.median_ms, latencies.high_ms))
    of = f"of {latencies.num_predicted} networks on {target}"
    click.echo(f"predicted latency: {low} to {high} ms, median {middle} ms ({of}; `archdsl predict` says more)")


def _print(space: Space, facts: SpaceFacts) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=f"{space.name}  (over {space.base.name})", box=box.SIMPLE, title_justify="left")
    for column in ("choice", "options"):
        table.add_column(column)
    for knob in space.knobs:
        table.add_row(knob.name, " | ".join(option.label for option in knob.choices))
    print_table(table)
    size = facts.size
    click.echo(f"{size.total:_} settings, {size.valid} valid, {size.distinct} distinct networks")
    click.echo(f"({size.method})")
    for name, values in (("parameters", facts.params), ("MACs", facts.macs)):
        if values:
            low, middle, high = human(values.low), human(values.median), human(values.high)
            click.echo(f"{name}: {low} to {high}, median {middle} (of {facts.num_sampled} drawn at random)")
