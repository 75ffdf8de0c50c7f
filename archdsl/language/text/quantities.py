"""Numbers as people write and read them: `100M` parameters, `4.5G` multiply-adds, `2.1 ms`.

`Count`, `Duration`, `Size` and `Energy` are types for pydantic fields. A count is a whole number (decimal suffixes k,
M, G or B, T); a duration is a float in milliseconds (a bare number is milliseconds; units us, ms, s, min, h); a size is
a whole number of bytes (a bare number is bytes; units kB, MB, GB, and KiB, MiB, GiB in steps of 1024); an energy is a
float in millijoules (a bare number is millijoules; units uJ, mJ, J).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import floor, log10
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from archdsl.language.text.limits import MAX_INT

_TEXT = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s?([A-Za-zµμ]*)\Z", re.ASCII)
_LONGEST = 40

_FACTORS = {"": "1", "k": "1e3", "K": "1e3", "M": "1e6", "G": "1e9", "B": "1e9", "T": "1e12"}
_BYTES = {
    "": "1",
    "B": "1",
    "kB": "1e3",
    "MB": "1e6",
    "GB": "1e9",
    "KiB": "1024",
    "MiB": "1048576",
    "GiB": "1073741824",
}
_MILLISECONDS = {"": "1", "us": "1e-3", "µs": "1e-3", "μs": "1e-3", "ms": "1", "s": "1e3", "min": "6e4", "h": "3.6e6"}
_MILLIJOULES = {"": "1", "uJ": "1e-3", "µJ": "1e-3", "μJ": "1e-3", "mJ": "1", "J": "1e3"}


def _read(value: Any, units: Mapping[str, str]) -> Decimal | None:
    """A number with one of the units, in the unit whose factor is 1; None for what is no such text."""
    match = _TEXT.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None or match[2] not in units:
        return None
    return Decimal(match[1].replace("_", "")) * Decimal(units[match[2]])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_count(value: Any) -> int:
    """`100M`, `4.5G`, `28_288_354` or a number -> a whole number."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _read(value, _FACTORS)
    if number is None:
        raise PydanticCustomError("count", "a count such as `100M`, `4.5G` or `28_288_354`")
    if number != number.to_integral_value():
        raise PydanticCustomError("count", "a whole number in the end (as `4.5G` is)")
    if number > MAX_INT:
        raise PydanticCustomError("count_limit", "a number that fits in 64 bits")
    return int(number)


def read_duration(value: Any) -> float:
    """`2.1 ms`, `1.5 s`, `300 us` or a number of milliseconds -> milliseconds."""
    found = value if _is_number(value) else _read(value, _MILLISECONDS)
    if found is None:
        raise PydanticCustomError("duration", "a duration such as `2.1 ms` or `1.5 s` (a bare number is ms)")
    return float(found)


def read_size(value: Any) -> int:
    """`512 MiB`, `2 GB` or a number of bytes -> bytes; a part of a byte is dropped."""
    found = value if _is_number(value) else _read(value, _BYTES)
    if found is None or not abs(found) <= MAX_INT:
        raise PydanticCustomError("bytes", "a size such as `512 MiB` or `2 GB` (a bare number is bytes)")
    return int(found)


def read_energy(value: Any) -> float:
    """`5 mJ`, `0.2 J` or a number of millijoules -> millijoules."""
    found = value if _is_number(value) else _read(value, _MILLIJOULES)
    if found is None:
        raise PydanticCustomError("energy", "an energy such as `5 mJ` or `0.2 J` (a bare number is mJ)")
    return float(found)


def _in_schema(units: str) -> WithJsonSchema:
    """The JSON Schema of a number, at least 0, or of a text with a unit. units: a regular expression"""
    text = {"type": "string", "pattern": rf"^\d+(_\d+)*(\.\d+)? ?{units}$"}
    return WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, text]})


Count = Annotated[int, BeforeValidator(read_count), Field(ge=0), _in_schema("[kKMGBT]?")]
"""A whole number, at least 0, that may be written `100M`."""

Duration = Annotated[float, BeforeValidator(read_duration), Field(ge=0), _in_schema("(us|µs|ms|s|min|h)?")]
"""Milliseconds, at least 0, that may be written `2.1 ms`."""

Size = Annotated[int, BeforeValidator(read_size), Field(ge=0), _in_schema("(B|kB|MB|GB|KiB|MiB|GiB)?")]
"""Bytes, at least 0, that may be written `512 MiB`."""

Energy = Annotated[float, BeforeValidator(read_energy), Field(ge=0), _in_schema("(uJ|µJ|mJ|J)?")]
"""Millijoules, at least 0, that may be written `5 mJ`."""


def count_text(count: float | None, form: str = ".2f") -> str:
    """28288354 -> `28.29M`; below a thousand the number itself. form: of the digits before the unit"""
    if count is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:{form}}{unit}"
    return f"{count:g}"


def time_text(seconds: float) -> str:
    """A duration to about two digits: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if hours < 10 else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def number_text(value: float) -> str:
    """Four digits, or from 10 000 on as a count."""
    return count_text(value) if abs(value) >= 10_000 else f"{value:.4g}"


def exact_text(value: float | None) -> str:
    """Every digit of a whole number, six of another."""
    return f"{value:_}" if isinstance(value, int) else f"{value:g}"


def size_text(size: int | None) -> str:
    """536870912 -> `512 MiB`."""
    if size is None:
        return "–"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 100 * unit else f"{size / unit:.0f} {name}"
    return f"{size} B"


def energy_text(mj: float | None, plus_minus_mj: float | None = None) -> str:
    """12.34 and 0.2 -> `12.3 mJ ± 0.2`: of one image, with half its 95 % interval."""
    if mj is None:
        return "–"
    reach = "" if plus_minus_mj is None else f" ± {plus_minus_mj:.2g}"
    return f"{mj:.3g} mJ{reach}" if mj < 1000 else f"{mj:.0f} mJ{reach}"


def decimals(uncertainty: float, digits: int = 1) -> int:
    """Decimals that show so many digits of the uncertainty of a number, between 1 and 4."""
    return 4 if uncertainty <= 0 else min(4, max(1, digits - 1 - floor(log10(uncertainty))))
