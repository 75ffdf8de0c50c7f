"""Numbers as people write them: `100M` parameters, `4.5G` multiply-adds, `2.1 ms`.

`Count`, `Duration`, `Size` and `Energy` are types for pydantic fields. A count is a whole number (decimal suffixes k,
M, G or B, T); a duration is a float in milliseconds (a bare number is milliseconds; units us, ms, s, min, h); a size is
a whole number of bytes (a bare number is bytes; units kB, MB, GB, and KiB, MiB, GiB in steps of 1024); an energy is a
float in millijoules (a bare number is millijoules; units uJ, mJ, J).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from archdsl.spec.limits import MAX_INT

_COUNT = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s?([kKMGBT]?)\Z", re.ASCII)
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_DURATION = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s?(us|µs|μs|ms|s|min|h)?\Z", re.ASCII)
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6, None: 1.0}
_SIZE = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s?(B|kB|MB|GB|KiB|MiB|GiB)?\Z", re.ASCII)
_BYTES = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ENERGY = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)\s?(uJ|µJ|μJ|mJ|J)?\Z", re.ASCII)
_MILLIJOULES = {"uJ": 1e-3, "µJ": 1e-3, "μJ": 1e-3, "mJ": 1.0, "J": 1e3, None: 1.0}
_LONGEST = 40

COUNT_PATTERN = r"^\d+(_\d+)*(\.\d+)? ?[kKMGBT]?$"
DURATION_PATTERN = r"^\d+(_\d+)*(\.\d+)? ?(us|µs|ms|s|min|h)?$"
SIZE_PATTERN = r"^\d+(_\d+)*(\.\d+)? ?(B|kB|MB|GB|KiB|MiB|GiB)?$"
ENERGY_PATTERN = r"^\d+(_\d+)*(\.\d+)? ?(uJ|µJ|mJ|J)?$"


def read_count(value: Any) -> int:
    """`100M`, `4.5G`, `28_288_354` or a number -> a whole number."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _COUNT.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise PydanticCustomError("count", "a count such as `100M`, `4.5G` or `28_288_354`")
    number = Decimal(match[1].replace("_", "")) * _FACTORS[match[2]]
    if number != number.to_integral_value():
        raise PydanticCustomError("count", "a whole number in the end (as `4.5G` is)")
    if number > MAX_INT:
        raise PydanticCustomError("count_limit", "a number that fits in 64 bits")
    return int(number)


def read_duration(value: Any) -> float:
    """`2.1 ms`, `1.5 s`, `300 us` or a number of milliseconds -> milliseconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise PydanticCustomError("duration", "a duration such as `2.1 ms` or `1.5 s` (a bare number is ms)")
    return float(Decimal(match[1].replace("_", "")) * Decimal(str(_MILLISECONDS[match[2]])))


def read_size(value: Any) -> int:
    """`512 MiB`, `2 GB` or a number of bytes -> bytes; a part of a byte is dropped."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_INT:
        return int(value)
    match = _SIZE.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    size = Decimal(match[1].replace("_", "")) * _BYTES[match[2]] if match is not None else None
    if size is None or size > MAX_INT:
        raise PydanticCustomError("bytes", "a size such as `512 MiB` or `2 GB` (a bare number is bytes)")
    return int(size)


def read_energy(value: Any) -> float:
    """`5 mJ`, `0.2 J` or a number of millijoules -> millijoules."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _ENERGY.match(value) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise PydanticCustomError("energy", "an energy such as `5 mJ` or `0.2 J` (a bare number is mJ)")
    return float(Decimal(match[1].replace("_", "")) * Decimal(str(_MILLIJOULES[match[2]])))


Count = Annotated[
    int,
    BeforeValidator(read_count),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": COUNT_PATTERN}]}),
]
"""A whole number, at least 0, that may be written `100M`."""

Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]}),
]
"""Milliseconds, at least 0, that may be written `2.1 ms`."""

Size = Annotated[
    int,
    BeforeValidator(read_size),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]}),
]
"""Bytes, at least 0, that may be written `512 MiB`."""

Energy = Annotated[
    float,
    BeforeValidator(read_energy),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": ENERGY_PATTERN}]}),
]
"""Millijoules, at least 0, that may be written `5 mJ`."""
