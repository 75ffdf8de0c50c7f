"""Plain data -> YAML that reads like the examples: one line a stage, short mappings in flow style.

`parse(to_yaml(data)).plain() == data` for everything the language knows (tested).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from archdsl.language.text.yaml_text import scalar_of

_LETTERS = r"[A-Za-z0-9_.*/+@%=-]"
_PLAIN = re.compile(rf"(\.{{1,2}}/|/)?[A-Za-z_]{_LETTERS}*(:/?/?{_LETTERS}+)*( {_LETTERS}+)*\Z")
_NUMBER_WITH_UNIT = re.compile(r"[0-9][0-9_.]* ?[A-Za-zµ]+\Z")
_SIDES = re.compile(r"[1-9][0-9]*x[0-9]+\Z")
_UNPRINTABLE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_COUNTS = ("params", "macs")
_WIDTH = 116


def to_yaml(data: Mapping[str, Any]) -> str:
    """The text of a spec or a space."""
    lines = []
    for key, value in data.items():
        lines += _entry(key, value, "")
    return "\n".join(lines) + "\n"


def flow(value: Any, *, counts: bool = False) -> str:
    """A value on one line. counts: write large whole numbers as `28_288_354`."""
    if isinstance(value, Mapping):
        items = (f"{_text(key)}: {flow(item, counts=key in _COUNTS)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return f"{value:_}" if counts and abs(value) >= 100_000 else str(value)
    return _text(str(value))


def shown(value: Any, limit: int = 60) -> str:
    """A value as a message shows it: on one line, in backticks, cut when long."""
    if isinstance(value, str) and len(value) > limit:
        value = value[:limit] + "…"
    elif isinstance(value, Mapping | list | tuple):
        value = _trimmed(value, [limit])
    text = flow(value)
    return f"`{text if len(text) <= limit + 2 else text[: limit - 1] + '…'}`"


def _trimmed(value: Any, budget: list[int]) -> Any:
    """The first few leaves of a large value: enough for a message, cheap for a bomb."""
    if isinstance(value, Mapping):
        out: dict[str, Any] = {}
        for key, item in value.items():
            if budget[0] <= 0:
                break
            out[key[:60]] = _trimmed(item, budget)
        return out
    if isinstance(value, list | tuple):
        items: list[Any] = []
        for item in value:
            if budget[0] <= 0:
                break
            items.append(_trimmed(item, budget))
        return items
    budget[0] -= 1
    return value[:60] if isinstance(value, str) else value


def _entry(key: str, value: Any, indent: str) -> list[str]:
    head = f"{indent}{_text(key)}:"
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return [head, *(line for item in value for line in _item(item, indent + "  "))]
    text = flow(value, counts=key in _COUNTS)
    if isinstance(value, Mapping) and value and len(head) + 1 + len(text) > _WIDTH:
        return [head, *(line for inner, item in value.items() for line in _entry(inner, item, indent + "  "))]
    return [f"{head} {text}"]


def _item(value: Mapping[str, Any], indent: str) -> list[str]:
    text = flow(value)
    if not value or len(indent) + 2 + len(text) <= _WIDTH:
        return [f"{indent}- {text}"]
    lines = [line for key, item in value.items() for line in _entry(key, item, indent + "  ")]
    return [f"{indent}- {lines[0].lstrip()}", *lines[1:]]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return repr(value)


def _text(text: str) -> str:
    plain = (form.match(text) for form in (_PLAIN, _NUMBER_WITH_UNIT, _SIDES))
    if len(text) < 200 and any(plain) and scalar_of(text) == text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", quoted)
