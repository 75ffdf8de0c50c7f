"""`archdsl schema`: the JSON Schema of the language, for editors."""

from __future__ import annotations

from typing import Literal

import click

from archdsl.cli import options
from archdsl.cli.output import print_json
from archdsl.language.space.schema import schema as schema_of


@click.command(epilog="Example: archdsl schema spec > schemas/spec.json")
@click.argument("kind", type=click.Choice(["spec", "space", "recipe"]), default="spec")
@options.as_json
def schema(kind: Literal["spec", "space", "recipe"], as_json: bool) -> int:
    """Print the JSON Schema of specs, spaces or training recipes.

    The first line of each shipped file tells editors to use it.
    """
    del as_json  # a schema is JSON in any case
    if kind == "recipe":
        from archdsl.training.recipe import recipe_schema

        print_json(recipe_schema())
    else:
        print_json(schema_of(kind))
    return 0
