"""The templates of pages and pictures. Every text in them is escaped, and has no control characters."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from archdsl.outside_text import printable

_LONGEST = 300


def template(name: str) -> Template:
    """The template in the file of this name; only what is `Markup` is not escaped."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else bounded(str(value)),
    )
    templates.filters["px"] = px
    return templates.get_template(name)


def script_file(name: str) -> Markup:
    """A script of ours that stands beside the templates, as it is."""
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def px(value: float) -> str:
    """A length in pixels, with one decimal where it has some."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def bounded(text: str, longest: int = _LONGEST) -> str:
    """One line of printable text that is not endless."""
    plain = printable(text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"
