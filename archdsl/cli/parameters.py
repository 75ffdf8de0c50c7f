"""Types of options: a value that does not fit is an error with a rule and a hint, as everywhere else."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import click
from click.shell_completion import CompletionItem

from archdsl.errors import ArchError, SpecError
from archdsl.language.text.files import StandardInput, shipped_names
from archdsl.language.text.quantities import read_duration
from archdsl.suggestions import did_you_mean

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|min|m|h|d|w)\Z", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Text(click.ParamType):  # type: ignore[type-arg]
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.read(param.opts[0] if param is not None else self.name, value)

    def read(self, option: str, text: str) -> Any:
        """The value of an option's text. Raises: ArchError when there is none"""
        raise NotImplementedError


class SpecName(click.ParamType):  # type: ignore[type-arg]
    """A shipped name, a path, or `-` for what is piped in; `-` is read once, however often it stands there."""

    name = "spec"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | StandardInput:
        """The name, or what reads standard input."""
        if value != "-":
            return str(value)
        known = ctx.meta if ctx is not None else {}
        found: StandardInput = known.setdefault(f"{__name__}.stdin", StandardInput())
        return found

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shipped names that begin so, and files."""
        names = [*shipped_names("specs"), *shipped_names("search")]
        return [
            *(CompletionItem(name) for name in names if name.startswith(incomplete)),
            CompletionItem(incomplete, "file"),
        ]


class Words(_Text):
    """Words separated by commas -> a list. known: what each must be one of; None allows any."""

    name = "name,…"

    def __init__(self, known: Collection[str] | None = None):
        self.known = known

    def read(self, option: str, text: str) -> list[str]:
        """Raises: ArchError (`unknown-name`) for a word that is not among those known"""
        found = [word.strip() for word in text.split(",")]
        for word in found:
            if self.known is not None and word not in self.known:
                message = f"{option} takes {', '.join(self.known)}, but got {word!r}"
                raise ArchError.at(option, text, "unknown-name", message, did_you_mean(word, self.known))
        return found


class WholeNumbers(_Text):
    """Whole numbers separated by commas -> a list."""

    name = "n,…"

    def read(self, option: str, text: str) -> list[int]:
        """Raises: ArchError (`wrong-type`) for anything else"""
        try:
            return [int(part) for part in text.split(",")]
        except ValueError:
            message = f"{option} takes whole numbers separated by commas, but got {text!r}"
            raise ArchError.at(option, text, "wrong-type", message, f"write {option} 1,8") from None


class GivenSeconds(float):
    """Seconds, and how the user wrote them. text: for messages about the option"""

    text: str

    @classmethod
    def of(cls, seconds: float, text: str) -> GivenSeconds:
        found = cls(seconds)
        found.text = text
        return found


class Seconds(_Text):
    """`90s`, `5m`, `5min`, `2h` or a bare number of seconds -> seconds. least: the shortest time that is allowed"""

    name = "time"

    def __init__(self, least: float = 0.0):
        self.least = least

    def read(self, option: str, text: str) -> GivenSeconds:
        """Raises: SpecError (`wrong-type`, or `out-of-range` below `least`)"""
        plain = text.strip()
        if plain.endswith("m"):
            plain += "in"
        try:
            found = float(plain) if plain.replace(".", "", 1).isdecimal() else read_duration(plain) / 1000
        except ValueError:
            message = f"{option} is a time such as 90s, 5min or 2h, but got {text!r}"
            raise SpecError.at(option, text, "wrong-type", message) from None
        if found < self.least:
            message = f"{option} must be at least {self.least:g} s, but got {text!r}"
            raise SpecError.at(option, text, "out-of-range", message, f"write {option} {self.least:g}s")
        return GivenSeconds.of(found, text)


class Age(_Text):
    """`12h`, `30d` or `8w` -> seconds."""

    name = "time"

    def read(self, option: str, text: str) -> float:
        """Raises: ArchError (`wrong-type`) for anything else"""
        match = _AGE.match(text.strip())
        if match is None:
            message = f"{option} is a time such as 12h, 30d or 8w, but got {text!r}"
            raise ArchError.at(option, text, "wrong-type", message)
        return float(match[1]) * _SECONDS[match[2]]
