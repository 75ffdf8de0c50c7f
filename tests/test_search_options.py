"""The options of a search are its keywords."""

from __future__ import annotations

from typing import Any

import pytest

import archdsl
from archdsl.runs.search import SearchKeywords, SearchOptions


def test_every_option_is_a_keyword_of_the_same_type() -> None:
    assert list(SearchKeywords.__annotations__) == list(SearchOptions.__annotations__)
    for name, kind in SearchKeywords.__annotations__.items():
        assert getattr(kind, "__forward_arg__", kind) == SearchOptions.__annotations__[name]


def test_an_unknown_keyword_is_refused() -> None:
    wrong: dict[str, Any] = {"trails": 3}
    with pytest.raises(TypeError, match="trails"):
        archdsl.search("quickstart", **wrong)
