"""Dataclasses whose JSON holds exactly their fields, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class JsonFields:
    """Base of a dataclass that is stored or sent as JSON, one key for each field.

    A class whose JSON holds more, or another form of a field, extends `as_json`; `from_json` ignores keys that are no
    fields and gives a field that is missing its default.
    """

    def as_json(self) -> dict[str, Any]:
        """The fields by name; dataclasses inside become mappings."""
        return asdict(cast(Any, self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The object that `as_json` described, from its JSON.

        Raises: ValueError (pydantic's ValidationError) for anything else
        """
        found: Self = _adapter(cast(Any, cls)).validate_python(data)
        return found


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)
