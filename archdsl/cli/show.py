"""`archdsl show`: a spec stage by stage, or a space by its size."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_rows, say, say_lines
from archdsl.cli.parameters import SpecName
from archdsl.compiler import compile, cost, identity
from archdsl.errors import ArchError
from archdsl.ir.graph import Graph
from archdsl.language import Space, Spec, load_any
from archdsl.language.architecture.lower import lower
from archdsl.language.text.files import StandardInput
from archdsl.language.text.quantities import count_text
from archdsl.latency import TimingCache
from archdsl.report.space import SpaceFacts, space_facts
from archdsl.report.stages import StageFacts, stage_facts
from archdsl.runtimes.target import Target

if TYPE_CHECKING:
    from archdsl.latency.predictor.predictions import Middle


@click.command(
    epilog="Examples: archdsl show swin_free_t · archdsl show swin_b --set stages.2.depth=12 --svg > net.svg"
)
@click.argument("spec", metavar="SPEC", type=SpecName())
@click.option("--graph", "form", flag_value="graph", help="The graph, one op a line, as it goes to the backend.")
@click.option("--svg", "form", flag_value="svg", help="A picture: maps with windows to scale, or a space's choices.")
@click.option("--html", "form", flag_value="html", help="A page: the picture, and every stage's ops, folded.")
@click.option("--mermaid", "form", flag_value="mermaid", help="A flow chart in the language of Mermaid.")
@options.overrides
@options.as_json
def show(spec: str | StandardInput, form: str | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show what SPEC is: maps, windows, shifts, parameters and MACs stage by stage, and what lowering changed.

    For a space: how many assignments, valid specs and distinct networks it holds, and what they cost.

    `archdsl show swin_t --svg > swin_t.svg` draws it.

    Reorders count how often tokens are moved in memory: as the paper draws the network -> as it is compiled.
    """
    if form is not None and as_json:
        raise ArchError.at(f"--{form}", "", "usage", f"--{form} and --json are two forms of one result", "give one")
    loaded = load_any(spec, set=overrides)
    if isinstance(loaded, Space):
        return _show_space(loaded, form, as_json=as_json)
    graph, settled = lower(loaded), compile(loaded)
    if form == "graph":
        say_lines(settled.text())
        return 0
    stages = stage_facts(graph, settled)
    if form is not None:
        say_lines(_drawn(form, loaded, graph, settled, stages).rstrip("\n"))
        return 0
    notes = [{"path": path, "note": note} for path, note in graph.notes]
    if as_json:
        head = {"name": loaded.name, "source": loaded.source, "hash": identity(loaded), **cost(loaded).as_json()}
        print_json({**head, "stages": [asdict(stage) for stage in stages], "changed": notes})
        return 0
    _print(loaded, stages, notes)
    return 0


def _drawn(form: str, spec: Spec, graph: Graph, settled: Graph, stages: list[StageFacts]) -> str:
    from archdsl.report.network_picture import network_mermaid, network_page, network_svg

    if form == "svg":
        return network_svg(spec, graph, stages)
    return network_mermaid(spec, stages) if form == "mermaid" else network_page(spec, graph, settled, stages)


def _print(spec: Spec, stages: list[StageFacts], notes: list[dict[str, str]]) -> None:
    from rich.text import Text

    total = cost(spec)
    height, width = spec.input.size
    moves = f"{sum(s.reorders_before for s in stages)} -> {sum(s.reorders_after for s in stages)}"
    sums = ("total", "", "", "", "", moves, count_text(total.params), count_text(total.macs))
    print_rows(
        ("stage", "map", "dim", "blocks", "attention", "reorders", "params", "MACs"),
        [*map(_row, stages), [Text(cell, "bold") for cell in sums]],
        right=("map", "dim", "blocks", "reorders", "params", "MACs"),
        prose=("attention",),
        optional=("map", "reorders"),
        title=f"{spec.name}  ({spec.input.channels}x{height}x{width})",
    )
    say(f"hash {identity(spec)}")
    if (left := total.params - total.inference_params) > 0:
        macs = count_text(total.training_macs - total.macs)
        say(f"training alone reads {count_text(left)} of the parameters, and its {macs} MACs are not in the total")
    if total.onnx_tool_flops is not None:
        flops, params = count_text(total.onnx_tool_flops), count_text(total.onnx_tool_params)
        say(f"in the Swin-Free paper's counting: {flops} FLOPs, {params} parameters")
    for path, sentence in _grouped(notes):
        say(f"changed: {path}: {sentence}")


def _row(stage: StageFacts) -> list[str]:
    kinds = [f"{how} ({count})" if len(stage.attention) > 1 else how for how, count in stage.attention.items()]
    moves = f"{stage.reorders_before} -> {stage.reorders_after}" if stage.reorders_before else ""
    blocks = str(stage.blocks) if stage.blocks else ""
    params, macs = count_text(stage.cost.params), count_text(stage.cost.macs)
    return [stage.name, stage.map, str(stage.dim), blocks, " | ".join(kinds), moves, params, macs]


def _grouped(notes: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The same sentence about several blocks of a stage, said once: (`stages.3.blocks.0, 1`, sentence)."""
    groups: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        above, _, last = note["path"].rpartition(".")
        groups.setdefault((above, note["note"]), []).append(last)
    return [(f"{above}.{', '.join(lasts)}", sentence) for (above, sentence), lasts in groups.items()]


def _show_space(space: Space, form: str | None, *, as_json: bool) -> int:
    """Print how large a space is, what can be chosen, and what its networks cost."""
    from archdsl.latency.predictor.predictions import known_latencies

    if form not in (None, "svg"):
        message, hint = f"--{form} is for a spec, and {space.name} is a space", "draw its choices with --svg"
        raise ArchError.at(f"--{form}", "", "usage", message, hint)
    facts, target = space_facts(space), Target()
    if form == "svg":
        from archdsl.report.space_picture import space_svg

        say_lines(space_svg(space, f"{facts.size.distinct} distinct networks").rstrip("\n"))
        return 0
    latencies = known_latencies(space, target, TimingCache())
    if as_json:
        choices = [
            {"name": choice.name, "path": choice.path, "options": [option.label for option in choice.options]}
            for choice in space.choices
        ]
        costs = {name: asdict(r) if r else None for name, r in (("params", facts.params), ("macs", facts.macs))}
        predicted = asdict(latencies) | {"target": target.as_json()} if latencies else None
        head = {"name": space.name, "base": space.base.name, **facts.size.as_json(), **costs}
        print_json({**head, "predicted_latency": predicted, "knobs": choices})
        return 0
    _print_space(space, facts)
    if latencies:
        _print_latencies(latencies, target)
    return 0


def _print_latencies(latencies: Middle, target: Target) -> None:
    low, middle, high = (f"{ms:.4g}" for ms in (latencies.low_ms, latencies.median_ms, latencies.high_ms))
    of = f"of {latencies.num_predicted} networks on {target}"
    say(f"predicted latency: {low} to {high} ms, median {middle} ms ({of}; `archdsl predict` says more)")


def _print_space(space: Space, facts: SpaceFacts) -> None:
    rows = [(choice.name, " | ".join(option.label for option in choice.options)) for choice in space.choices]
    print_rows(("choice", "options"), rows, prose=("options",), title=f"{space.name}  (over {space.base.name})")
    size = facts.size
    say(f"{size.total:_} assignments, {size.valid} valid, {size.distinct} distinct networks")
    say(f"({size.method})")
    for name, values in (("parameters", facts.params), ("MACs", facts.macs)):
        if values:
            low, middle, high = count_text(values.low), count_text(values.median), count_text(values.high)
            say(f"{name}: {low} to {high}, median {middle} (of {facts.num_sampled} drawn at random)")
