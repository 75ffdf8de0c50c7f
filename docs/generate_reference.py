"""Writes the pages of docs/reference that are made from the code: commands, parts and rules.

    python docs/generate_reference.py [FOLDER]

`tests/test_docs_site.py` fails where a page is not what this writes.
"""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from archdsl.cli.main import COMMANDS, archdsl
from archdsl.parts.part import Part, PartKind, parts
from archdsl.report.rules import rules_page

FOLDER = Path(__file__).parent / "reference"
KINDS: dict[PartKind, str] = {
    "stem": "Stems", "block": "Blocks", "downsample": "Downsamplings", "neck": "Necks", "head": "Heads",
}  # fmt: skip
WIDTH = 100


def commands_page() -> str:
    """The help of every command, as the terminal shows it."""
    lines = ["# Commands", "", "What `archdsl COMMAND --help` prints.", ""]
    names = archdsl.context_settings["help_option_names"]  # click keeps them with a command when it is first used
    group = click.Context(archdsl, info_name="archdsl", terminal_width=WIDTH, help_option_names=names)
    for name in COMMANDS:
        command = archdsl.get_command(group, name)
        assert command is not None
        lines += _help(command, group, name)
        if isinstance(command, click.Group):
            inner = click.Context(command, parent=group, info_name=name, terminal_width=WIDTH)
            for child in command.list_commands(inner):
                found = command.get_command(inner, child)
                assert found is not None
                lines += _help(found, inner, f"{name} {child}")
    return "\n".join(lines).rstrip() + "\n"


def _help(command: click.Command, parent: click.Context, title: str) -> list[str]:
    name = title.split()[-1]
    text = command.get_help(click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH))
    return [f"## archdsl {title}", "", "```text", *(line.rstrip() for line in text.splitlines()), "```", ""]


def parts_page() -> str:
    """Every part by kind: what it computes, its source, and its fields with their types and defaults."""
    lines = [
        "# Parts",
        "",
        "Everything that `stem`, `block`, `downsample`, `neck` and `head` may name. A block's field may also be a list "
        "with one value for each block of its stage. A field without a default must be given, by the part or by "
        "`defaults`.",
        "",
    ]
    for kind, title in KINDS.items():
        lines += [f"## {title}", ""]
        for name, part in sorted(parts(kind).items()):
            lines += _part(name, part)
    return "\n".join(lines).rstrip() + "\n"


def _part(name: str, part: type[Part]) -> list[str]:
    lines = [f"### {name}", "", inspect.cleandoc(part.__doc__ or "").replace("\n\n", "\0").replace("\n", "  \n"), ""]
    lines[2] = lines[2].replace("\0", "\n\n")
    if part.model_fields:
        lines += ["| field | type | default |", "|---|---|---|"]
        lines += [f"| `{key}` | {_type(field)} | {_default(field)} |" for key, field in part.model_fields.items()]
        lines.append("")
    return lines


def _type(field: FieldInfo) -> str:
    return " or ".join(dict.fromkeys(_names(field.annotation))).replace("|", "\\|")


def _names(kind: Any) -> list[str]:
    if get_origin(kind) is Annotated:
        return _names(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [name for one in get_args(kind) for name in _names(one)]
    if get_origin(kind) is Literal:
        return [f"`{value}`" for value in get_args(kind)]
    if get_origin(kind) in (tuple, list):
        return [
            "list of " + " or ".join(dict.fromkeys(n for one in get_args(kind) if one is not ... for n in _names(one)))
        ]
    plain = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", type(None): "none"}
    return [plain.get(kind, getattr(kind, "__name__", str(kind)))]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "–"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


PAGES = {"commands.md": commands_page, "parts.md": parts_page, "rules.md": rules_page}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, page in PAGES.items():
        folder.joinpath(name).write_text(page(), encoding="utf-8")
