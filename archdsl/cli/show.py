"""`archdsl show`: a spec stage by stage, or a space by its size."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from archdsl.cli.output import human, json_option, print_json, print_table, set_option
from archdsl.cli.show_space import show_space
from archdsl.compiler import compile, cost, identity
from archdsl.report.stages import StageFacts, stage_facts
from archdsl.spec import Space, Spec, load_any
from archdsl.spec.lower import lower


@click.command(epilog="Examples: archdsl show swin_free_t · archdsl show swin_b --set stages.2.depth=12 --json")
@click.argument("spec", metavar="SPEC")
@click.option("--graph", "as_graph", is_flag=True, help="Print the graph, one op a line, as it goes to the backend.")
@set_option
@json_option
def show(spec: str, as_graph: bool, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show what SPEC is: maps, windows, shifts, parameters and MACs stage by stage, and what lowering changed.

    For a space: how many settings, valid specs and distinct networks it holds, and what they cost.

    Reorders count how often tokens are moved in memory: as the paper draws the network -> as it is compiled.
    """
    loaded = load_any(spec, set=list(overrides) or None)
    if isinstance(loaded, Space):
        return show_space(loaded, as_json=as_json)
    graph, settled = lower(loaded), compile(loaded)
    if as_graph:
        click.echo(settled.text())
        return 0
    stages = stage_facts(graph, settled)
    notes = [{"path": path, "note": note} for path, note in graph.notes]
    if as_json:
        rows = [asdict(stage) for stage in stages]
        print_json(
            {
                "name": loaded.name,
                "source": loaded.source,
                "hash": identity(loaded),
                **cost(loaded).as_json(),
                "stages": rows,
                "changed": notes,
            }
        )
        return 0
    _print(loaded, stages, notes)
    return 0


def _print(spec: Spec, stages: list[StageFacts], notes: list[dict[str, str]]) -> None:
    from rich import box
    from rich.table import Table

    total = cost(spec)
    height, width = spec.input.size
    table = Table(title=f"{spec.name}  ({spec.input.channels}x{height}x{width})", box=box.SIMPLE, title_justify="left")
    for name in ("stage", "map", "dim", "blocks", "attention", "reorders", "params", "MACs"):
        table.add_column(name, justify="left" if name in ("stage", "attention") else "right")
    for stage in stages:
        table.add_row(*_row(stage))
    moves = f"{sum(s.reorders_before for s in stages)} -> {sum(s.reorders_after for s in stages)}"
    table.add_row("total", "", "", "", "", moves, human(total.params), human(total.macs), style="bold")
    print_table(table)
    click.echo(f"hash {identity(spec)}")
    if total.onnx_tool_flops is not None:
        flops, params = human(total.onnx_tool_flops), human(total.onnx_tool_params)
        click.echo(f"in the Swin-Free paper's counting: {flops} FLOPs, {params} parameters")
    for path, sentence in _grouped(notes):
        click.echo(f"changed: {path}: {sentence}")


def _row(stage: StageFacts) -> list[Any]:
    kinds = [f"{how} ({count})" if len(stage.attention) > 1 else how for how, count in stage.attention.items()]
    moves = f"{stage.reorders_before} -> {stage.reorders_after}" if stage.reorders_before else ""
    blocks = str(stage.blocks) if stage.blocks else ""
    params, macs = human(stage.cost.params), human(stage.cost.macs)
    return [stage.name, stage.map, str(stage.dim), blocks, " | ".join(kinds), moves, params, macs]


def _grouped(notes: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The same sentence about several blocks of a stage, said once: (`stages.3.blocks.0, 1`, sentence)."""
    groups: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        above, _, last = note["path"].rpartition(".")
        groups.setdefault((above, note["note"]), []).append(last)
    return [(f"{above}.{', '.join(lasts)}", sentence) for (above, sentence), lasts in groups.items()]
