"""`archdsl schema`: the JSON Schema of the language, for editors."""

from __future__ import annotations

from typing import Literal

import click

from archdsl.cli.output import json_option, print_json
from archdsl.spec.schema import schema as schema_of


@click.command(epilog="Example: archdsl schema spec > schemas/spec.json")
@click.argument("kind", type=click.Choice(["spec", "space"]), default="spec")
@json_option
def schema(kind: Literal["spec", "space"], as_json: bool) -> int:
    """Print the JSON Schema of specs or spaces. The first line of each shipped spec tells editors to use it."""
    del as_json  # a schema is JSON in any case
    print_json(schema_of(kind))
    return 0
