"""`archdsl list`: which specs come with archdsl?"""

from __future__ import annotations

from typing import Literal

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, print_rows, say_lines
from archdsl.errors import ArchError
from archdsl.suggestions import did_you_mean


@click.command(epilog="Examples: archdsl list · archdsl list 'swin_free*' · archdsl list resnet --csv")
@click.argument("patterns", nargs=-1, metavar="[PATTERN…]")
@click.option("--csv", "form", flag_value="csv", help="All digits, for a spreadsheet.")
@click.option("--markdown", "form", flag_value="markdown", help="As docs/architectures.md has it.")
@options.as_json
def list(patterns: tuple[str, ...], form: Literal["csv", "markdown"] | None, as_json: bool) -> int:
    """List the specs that come with archdsl: family, input, parameters, MACs, paper.

    A PATTERN is a name or a family, with * and ? as in a shell. Counts are of one image. Needs no torch.
    """
    from archdsl.report.shipped_specs import HEADS, as_csv, as_markdown, cells, shipped_specs

    rows = [*shipped_specs(patterns)]
    if not rows:
        known = {word for row in shipped_specs() for word in (row.name, *row.families.split("+"))}
        hint = did_you_mean(patterns[0], sorted(known)) or "`archdsl list` alone lists all"
        raise ArchError.at("PATTERN", " ".join(patterns), "unknown-name", "no spec or family is called so", hint)
    if as_json:
        print_json({"specs": [row.as_json() for row in rows]})
    elif form == "csv":
        say_lines(as_csv(rows).rstrip())
    elif form == "markdown":
        say_lines(as_markdown(rows).rstrip())
    else:
        print_rows(HEADS, [cells(row) for row in rows], right=HEADS[3:5], optional=("source", "input"))
    return 0
