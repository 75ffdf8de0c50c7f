"""`archdsl explain`: what does the rule mean that an error names?"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from archdsl.cli import options
from archdsl.cli.output import print_json, print_rows, say_lines
from archdsl.errors import ArchError
from archdsl.report.rules import rules
from archdsl.suggestions import did_you_mean


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del ctx, param
    return [CompletionItem(name) for name in rules() if name.startswith(incomplete)]


@click.command(epilog="Examples: archdsl explain unknown-key · archdsl explain --json")
@click.argument("rule", required=False, metavar="[RULE]", shell_complete=_complete)
@options.as_json
def explain(rule: str | None, as_json: bool) -> int:
    """Explain RULE, the name in brackets at the end of an error: what it means, why it holds, how to fix it.

    Where a file or a command line can break the rule, one that does is shown, and the same repaired. Without RULE, all
    rules are listed. Needs no torch.
    """
    known = rules()
    name = None if rule is None else rule.strip("[]")
    if name is not None and name not in known:
        hint = did_you_mean(name, known) or "`archdsl explain` alone lists all; a plug-in's rule is the plug-in's own"
        raise ArchError.at("RULE", name, "unknown-name", f"there is no rule `{name}`", hint)
    if as_json:
        print_json({"rules": [one.as_json() for one in known.values() if name in (None, one.name)]})
    elif name is not None:
        say_lines(known[name].text())
    else:
        print_rows(
            ("rule", "what it means"), [(one.name, one.means) for one in known.values()], prose=("what it means",)
        )
    return 0
