"""Our docstrings in the form that the reference's reader expects: each section on lines of its own.

`Returns: text` becomes a heading with its text indented, `Example:` becomes `Examples:`, and sections are separated by
an empty line.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^(Args|Returns|Raises|Example|Examples):(?: +(.*))?$")
PROSE = ("Returns", "Raises")
"""Sections that are a sentence, which names types where it needs to."""


class Sections(Extension):
    """Rewrites every docstring that has such sections."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for each function, class and module that was read."""
        if obj.docstring is not None:
            obj.docstring.value = separated(obj.docstring.value)


def separated(text: str) -> str:
    """The docstring with its sections apart: `Returns` and `Raises` as paragraphs, examples as a section."""
    found: list[str] = []
    for line in text.splitlines():
        section = SECTION.match(line)
        if section is None:
            prose = bool(found) and found[-1].startswith(tuple(f"**{name}**" for name in PROSE))
            if prose and line.startswith("    "):
                found[-1] += f" {line.strip()}"
            else:
                found.append(line)
            continue
        name, rest = section.groups()
        found.append("")
        if name in PROSE:
            found.append(f"**{name}**: {rest or ''}".rstrip())
        else:
            found += [f"{'Examples' if name.startswith('Example') else name}:", *([f"    {rest}"] if rest else [])]
    return "\n".join(found)
