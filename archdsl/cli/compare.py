"""`archdsl compare`: which search has found the better front?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_table, say, say_lines
from archdsl.errors import ArchError

if TYPE_CHECKING:
    from archdsl.report.comparison import ComparedFront
    from archdsl.runs.compare import FrontComparison


@click.command(
    epilog="Examples: archdsl compare runs/random runs/ehvi · archdsl compare runs/a runs/b --svg > fronts.svg · "
    "archdsl compare sqlite:///studies.db --study a --study b --json"
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN|URL…")
@click.option("--study", "studies", multiple=True, metavar="NAME", help="Studies of each RUN, where it keeps several.")
@click.option("--separate", is_flag=True, help="Show fronts that cannot be compared, each by itself.")
@click.option("--svg", is_flag=True, help="Print a picture of the first two objectives.")
@options.as_json
def compare(runs: tuple[str, ...], studies: tuple[str, ...], separate: bool, svg: bool, as_json: bool) -> int:
    """Put the fronts of several searches into one table: which networks are non-dominated among all of them?

    A RUN is the folder of a search, its journal, or the URL of its database. Studies are only read, also while workers
    run. Searches with other objectives, another latency target, other data or another recipe are refused, with what
    differs; --separate shows them beside each other.

    `hypervolume` is that of a search's front as a share of the joint one.
    """
    if svg and as_json:
        raise ArchError.at("--svg", "", "usage", "--svg and --json are two forms of one result", "give one")
    from archdsl.report.comparison import ComparedFront, comparison_svg
    from archdsl.runs.compare import compare as compare_searches

    found = compare_searches(runs, studies, separate=separate)
    if as_json:
        print_json(found.as_json())
        return 0
    fronts = [ComparedFront(s.label, s.opened.front, s.opened.rows, s.num_evaluated) for s in found.searches]
    if not svg:
        _print(found, fronts)
        return 0
    if found.joint is None or len(fronts[0].front.objectives) < 2:
        why = "the searches cannot be compared" if found.joint is None else "there is one objective"
        raise ArchError.at("--svg", "", "usage", f"there is no picture where {why}", "leave it out")
    title = " and ".join(one.name for one in fronts[0].front.objectives[:2])
    say_lines(comparison_svg(fronts, found.joint, f"{len(fronts)} searches: {title}").rstrip("\n"))
    return 0


def _print(found: FrontComparison, fronts: list[ComparedFront]) -> None:
    from archdsl.language.text.words import number_of
    from archdsl.report.comparison import conditions_table, networks_table, searches_table
    from archdsl.report.front_table import front_table

    labels = [one.label for one in fronts]
    if found.joint is None:
        print_table(conditions_table(labels, found.differing, "these fronts cannot be compared"))
        for one in fronts:
            title = f"{one.label}: the front, {number_of(len(one.rows), 'network')}"
            print_table(front_table(one.rows, title, one.front.objectives))
    else:
        if any(one.rows for one in fronts):
            print_table(networks_table(fronts, found.joint))
        print_table(searches_table(fronts, found.joint))
    if found.noted:
        print_table(conditions_table(labels, found.noted, "what differs, and does not keep them from being compared"))
    kinds = {objective.kind for objective in fronts[0].front.objectives}
    if "accuracy" in kinds:
        say("accuracy: ± is one standard error")
    if "latency" in kinds:
        say("latency: ± is the 95 % interval")
