"""`archdsl diff`: what is different between two networks?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_rows, say
from archdsl.cli.parameters import SpecName
from archdsl.language import Spec, load
from archdsl.language.text.files import StandardInput
from archdsl.language.text.quantities import count_text

if TYPE_CHECKING:
    from archdsl.report.spec_difference import SpecDifference


@click.command(epilog="Examples: archdsl diff swin_t swin_free_t · archdsl diff swin_b runs/x/front/best.yaml --json")
@click.argument("one", metavar="A", type=SpecName())
@click.argument("other", metavar="B", type=SpecName())
@options.as_json
def diff(one: str | StandardInput, other: str | StandardInput, as_json: bool) -> int:
    """Show what is different between the networks A and B: what is written, the ops, costs, latencies that are known.

    A and B are specs, by shipped name or path, or folders of `archdsl build` and `archdsl train`.
    """
    from archdsl.latency import TimingCache
    from archdsl.report.spec_difference import spec_difference

    found = spec_difference(_spec(one), _spec(other), TimingCache().entries())
    if as_json:
        print_json(found.as_json())
    else:
        names = (found.one.name, found.other.name)
        _print(found, names if names[0] != names[1] else (f"A {names[0]}", f"B {names[1]}"))
    return 0


def _spec(name: str | StandardInput) -> Spec:
    from archdsl.runs.network_folder import SPEC, folder_of

    folder = folder_of(name) if isinstance(name, str) else None
    return load(folder.path / SPEC if folder is not None else name)


def _print(found: SpecDifference, names: tuple[str, str]) -> None:
    if found.fields:
        rows = [(field.path, field.one, field.other) for field in found.fields]
        print_rows(("what is written", *names), rows, prose=names)
    else:
        say("the specs say the same, but for their descriptions")
    if found.same:
        say("both are the same network")
        return
    if found.ops:
        changes = [f"{op.other - op.one:+d} {op.name}" for op in found.ops]
        say(f"ops of {names[1]} against {names[0]}: {', '.join(changes)}")
    numbers = [
        (count.name, count_text(count.one), count_text(count.other), f"{count.ratio:.3f}" if count.ratio else "")
        for count in found.counts
    ]
    for each in found.latencies:
        milliseconds = (f"{each.one_ms:.4g} ms", f"{each.other_ms:.4g} ms")
        numbers.append((f"latency, {each.target}", *milliseconds, f"{each.other_ms / each.one_ms:.3f}"))
    print_rows(("costs", *names, "ratio"), numbers, right=(*names, "ratio"))
    if found.latencies:
        say("latencies are from the cache, of different moments: `archdsl bench` takes them in turns")
