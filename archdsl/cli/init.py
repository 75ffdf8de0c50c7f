"""`archdsl init`: a folder to begin with."""

from __future__ import annotations

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, say


@click.command(epilog="Examples: archdsl init my_project · archdsl init . --json")
@click.argument("folder", metavar="DIR", type=click.Path())
@options.as_json
def init(folder: str, as_json: bool) -> int:
    """Make a project in DIR: a spec, a space, their schemas, an editor's settings, and a README with what to run next.

    DIR must be new or empty. Every command in the README works at once, on generated images.
    """
    from archdsl.runs.new_project import README, SPACE, SPEC, make_project

    files = make_project(folder)
    if as_json:
        print_json({"folder": folder, "files": files})
        return 0
    say(f"made {folder}: {SPEC}, {SPACE}, {README}, schemas for editors")
    say(f"next: cd {folder}; archdsl check {SPEC} {SPACE}")
    return 0
