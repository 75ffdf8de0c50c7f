"""How commands print: JSON for scripts, rich tables for people, and the options all of them share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from archdsl.errors import ArchError, Problem, SpecError, at_argument
from archdsl.spec.numbers import read_duration

F = TypeVar("F", bound=Callable[..., Any])

LEAST_LEASE_S = 1.0
"""A shorter lease is not kept alive by a busy worker, and writes to the study without end."""


def print_json(data: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(table: object) -> None:
    """A rich table on stdout, as wide as the terminal, or as it needs to be when stdout is a file."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(table)


def json_option(command: F) -> F:
    """`--json`: the result as JSON on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def set_option(command: F) -> F:
    """`--set path=value`, any number of times."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change the spec, e.g. --set stages.2.depth=14 or --set 'stages.*.window=14'.",
    )(command)


def words(option: str, text: str, known: tuple[str, ...] | None = None) -> list[str]:
    """The words of an option that takes several, separated by commas.

    Errors: ArchError when one is not among those `known`.
    """
    found = [word.strip() for word in text.split(",")]
    for word in found:
        if known is not None and word not in known:
            close = get_close_matches(word, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else None
            message = f"{option} takes {', '.join(known)}, but got {word!r}"
            raise ArchError(Problem(at_argument(option, text), "unknown-name", message, hint))
    return found


def whole_numbers(option: str, text: str) -> list[int]:
    """The numbers of an option that takes several, separated by commas. Errors: ArchError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        message = f"{option} takes whole numbers separated by commas, but got {text!r}"
        raise ArchError(Problem(at_argument(option, text), "wrong-type", message, f"write {option} 1,8")) from None


def human(count: float) -> str:
    """28288354 -> `28.29M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.2f}{unit}"
    return f"{count:g}"


def seconds(option: str, text: str, *, least: float = 0.0) -> float:
    """`90s`, `5m`, `5min`, `2h` or a bare number of seconds. Errors: SpecError, also for less than `least` seconds"""
    plain = text.strip()
    if plain.endswith("m"):
        plain += "in"
    try:
        found = float(plain) if plain.replace(".", "", 1).isdecimal() else read_duration(plain) / 1000
    except ValueError:
        message = f"{option} is a time such as 90s, 5min or 2h, but got {text!r}"
        raise SpecError(Problem(at_argument(option, text), "wrong-type", message)) from None
    if found < least:
        message = f"{option} must be at least {least:g} s, but got {text!r}"
        raise SpecError(Problem(at_argument(option, text), "out-of-range", message, f"write {option} {least:g}s"))
    return found
