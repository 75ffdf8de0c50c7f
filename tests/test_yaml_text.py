"""YAML text -> nodes: scalars, positions, limits, and clean errors for everything hostile."""

from __future__ import annotations

import time

import pytest
import yaml

from archdsl.errors import ArchError, SpecError
from archdsl.language.text import limits, yaml_text
from archdsl.language.text.node import YamlNode
from archdsl.language.text.yaml_text import parse, scalar_of


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("y", "y"), ("012", 12), ("0o17", 15), ("0x1F", 31), ("1:30", "1:30"),
        ("1e-4", 1e-4), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("-3", -3), ("+3", 3), ("1_000", 1000),
        ("28_288_354", 28288354), ("_1", "_1"), ("1__0", "1__0"), ("1_", "1_"), ("2026-01-01", "2026-01-01"),
        ("null", None), ("~", None), ("", None), ("true", True), ("False", False), ("yes", "yes"),
        ("100M", "100M"), ("2.1 ms", "2.1 ms"), ("١", "١"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2_core(text, value):
    found = scalar_of(text)
    assert found == value
    assert type(found) is type(value)


def test_a_quoted_scalar_is_always_text():
    assert parse("{a: '7', b: \"true\", c: 7}", "f").plain() == {"a": "7", "b": "true", "c": 7}


def test_every_key_and_value_knows_its_place():
    tree = parse("a: 1\nb:\n  - {c: two}\n", "f.yaml")
    node = tree.get("b").child(0).get("c")
    assert str(node.mark.place()) == "f.yaml:3:9"
    assert node.mark.place().text == "  - {c: two}"
    assert node.mark.width == 3
    assert str(tree.get("b").child(0).key_mark("c").place()) == "f.yaml:3:6"


def test_an_alias_is_the_same_value_at_its_own_place():
    tree = parse("a: &x [1, 2]\nb: *x\n", "f")
    assert tree.plain() == {"a": [1, 2], "b": [1, 2]}
    assert str(tree.get("b").mark.place()) == "f:2:4"
    assert str(tree.get("b").child(1).mark.place()) == "f:1:11"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm():
    tree = parse(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "f")
    assert tree.plain() == {"a": 1, "b": 2}
    assert str(tree.get("b").mark.place()) == "f:2:4"


def test_columns_count_characters_not_bytes():
    tree = parse("{ä: 1, b: ü}", "f")
    assert str(tree.get("b").mark.place()) == "f:1:11"


BAD = [
    ("a: 1\nb: 2\na: 3", "3:1", "duplicate-key", "first at line 1"),
    ("a: {x: 1, 'x': 2}", "1:11", "duplicate-key", "first at line 1"),
    ("a: !!python/object:os.system x", "1:4", "tag", "tags are not allowed"),
    ("a: ! x", "1:4", "tag", "tags are not allowed"),
    ("a: !!map {b: 1}", "1:4", "tag", "tags are not allowed"),
    ("b: &b {c: 1}\na:\n  <<: *b", "3:3", "syntax", "merge keys"),
    ("a: 1\n---\nb: 2", "2:1", "syntax", "one document"),
    ("a: *b", "1:4", "syntax", "no anchor &b"),
    ("a: &a [*a]", "1:8", "syntax", "inside its own anchor"),
    ("? [a]\n: 1", "1:3", "syntax", "a key must be"),
    ("? {a: 1}\n: 1", "1:3", "syntax", "a key must be"),
    ("a: &x [1]\n*x : 2", "2:1", "syntax", "a key must be"),
    ("", "1:1", "syntax", "nothing in it"),
    ("# only a comment\n", "1:1", "syntax", "nothing in it"),
    ("a: [1, 2\n\n", "1:4", "syntax", "this bracket is never closed"),
    ("a:\n- {b: 1\n", "2:3", "syntax", "this brace is never closed"),
    ("a: 'b\nc: 1\n", "1:4", "syntax", "this quote is never closed"),
    ("a: [1,\n2]\nc: [1,\n2", "3:4", "syntax", "this bracket is never closed"),
    ("a: &", "1:5", "syntax", "text ends here"),
    ("a: b: c", "1:5", "syntax", "mapping values"),
    ("a:\n\tb: 1", "2:1", "syntax", "cannot start any token"),
    ("a: %b", "1:4", "syntax", "cannot start any token"),
    ("a: \x00", "1:4", "syntax", "U+0000"),
    ("ab\x07: 1", "1:3", "syntax", "U+0007"),
    ("a: \ud800", "1:4", "syntax", "U+D800"),
    ('a: "\\ud800"', "1:7", "syntax", "Unicode"),
    ("a: 99999999999999999999", "1:4", "limit", "64 bits"),
    ("a: -99999999999999999999", "1:4", "limit", "64 bits"),
    ("a: 0x" + "f" * 100, "1:4", "limit", "64 bits"),
    ("a: " + "9" * 60_000, "1:4", "limit", "64 bits"),
]


@pytest.mark.parametrize(("text", "place", "rule", "message"), BAD)
def test_what_is_wrong_is_named_with_its_place(text, place, rule, message):
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    problem = caught.value.problems[0]
    assert f"{problem.place.line}:{problem.place.column}" == place
    assert problem.rule == rule
    assert message in problem.message
    assert str(caught.value).startswith(f"f.yaml:{place}: ")


def test_bytes_that_are_not_utf_8_are_located():
    with pytest.raises(SpecError, match=r"^f:2:5: this is not UTF-8"):
        parse("a: 1\nä: ü".encode() + b"\xff", "f")


@pytest.mark.promise(5)
def test_a_duplicate_key_is_found_without_the_c_library_too(monkeypatch):
    monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    with pytest.raises(SpecError, match=r"^f:2:1: the key `a` is set twice"):
        parse("a: 1\na: 2", "f")
    assert parse("{a: [1, x], b: &q 2, c: *q}", "f").plain() == {"a": [1, "x"], "b": 2, "c": 2}


@pytest.mark.parametrize(
    "text", ['a: "\\UFFFFFFFF"', "a: [", "a: \t- b", "%YAML 9999999999999999.1\n--- a", "[" * 5000]
)
def test_the_python_loader_fails_as_cleanly_as_the_c_one(text, monkeypatch):
    monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    with pytest.raises(SpecError, match=r"^f:\d+:\d+: "):
        parse(text, "f")


LAUGHS = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(10))
DEEP = "\n".join(f"a{i}: &a{i} {'[' * 50}{f'*a{i - 1}' if i else 'x'}{']' * 50}" for i in range(5))
BOMBS = {
    "nested flow lists": "[" * 100_000,
    "nested flow mappings": "{a: " * 50_000,
    "nested block lists": "- " * 50_000 + "x",
    "nested block mappings": "\n".join(" " * i + "a:" for i in range(500)),
    "nested keys": "? " * 50_000,
    "mixed nesting": "[{a: " * 30_000,
    "billion laughs": LAUGHS,
    "deep laughs": DEEP,
    "quadratic aliases": "a: &a [" + "x, " * 2000 + "]\nb: [" + "*a, " * 2000 + "]",
    "merge keys": "a: &a {" + ", ".join(f"k{i}: 1" for i in range(500)) + "}\nb: {" + "<<: *a, " * 500 + "}",
    "long scalar": "a: " + "x" * 900_000,
    "long key": "? " + "x" * 900_000 + "\n: 1",
    "long quoted scalar": 'a: "' + "\\n" * 400_000 + '"',
    "large file": "a: 1\n" * 300_000,
    "huge integer": "a: " + "1" * 50_000,
    "huge hexadecimal": "a: 0x" + "1" * 50_000,
    "huge exponent": "a: 1e" + "9" * 50_000,
    "recursive anchor": "&a [*a, *a]",
    "tag flood": "a: " + "!!x " * 10_000,
    "many documents": "---\n" * 50_000,
    "NUL": "a: \0" * 1000,
    "surrogates": "a: " + "\ud800" * 1000,
    "escaped surrogates": 'a: "' + "\\ud800" * 1000 + '"',
    "bad date": "a: 2026-13-45",
    "unhashable key": "{[]: 1}",
    "colons": ":" * 100_000,
    "question marks": "?" * 100_000,
    "quotes": "'" * 100_001,
    "brackets closed": "]" * 100_000,
    "anchors only": "&a " * 10_000,
    "directives": "%TAG ! x\n" * 10_000,
    "tabs": "\t" * 100_000,
}


@pytest.mark.promise(2)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_or_harmless_in_a_tenth_of_a_second(name):
    start = time.process_time()
    error = error_of(BOMBS[name])
    assert time.process_time() - start < 0.1
    assert error is None or str(error).startswith("bomb.yaml:")


def test_a_node_knows_how_many_values_it_holds_and_how_deep():
    document = parse("a: {b: [1, 2], c: 3}\nd: 4\n", "f")
    sizes = {"a": 5, "d": 1}
    assert (document.size, document.height) == (7, 3)
    assert {key: node.size for key, node in document.value.items()} == sizes
    assert YamlNode.mapping(document.value, document.keys or {}, document.mark).size == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\n  b: {2,\n  3]}\n", "while parsing a flow mapping that starts at line 2"),
        ("a: 'x\n", "is never closed"),
        ("a: @x\n", "f:1:4: found character that cannot start any token while scanning for the next token"),
        ("%YAML 9.9\n---\na: 1\n", "f:1:1: found incompatible YAML document .syntax."),
    ],
)
def test_a_syntax_error_says_what_was_being_read_where_the_reader_tells(text: str, message: str):
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "f")
    assert "None" not in str(caught.value)


def error_of(text: str) -> ArchError | None:
    try:
        parse(text, "bomb.yaml")
    except ArchError as error:
        return error
    return None


@pytest.mark.promise(3)
@pytest.mark.parametrize("over", [0, 1])
def test_limits_hold_at_their_boundary(over):
    outer = limits.MAX_NESTING - 41 + over
    at_limit = {
        "bytes": "# " + "x" * (limits.MAX_FILE_BYTES - 2 - len("\na: 1") + over) + "\na: 1",
        "nesting": "[" * (limits.MAX_NESTING + over) + "]" * (limits.MAX_NESTING + over),
        "scalar": "a: " + "x" * (limits.MAX_SCALAR_CHARS + over),
        "integer": f"a: {limits.MAX_INT + over}",
        "alias nesting": f"a: &a {'[' * 40}{']' * 40}\nb: {'[' * outer}*a{']' * outer}",
        "nodes": "a: &a [" + "x, " * 999 + "]\nb: [" + "*a, " * 98 + "]\nc: [" + "x, " * (997 + over) + "]",
    }
    for name, text in at_limit.items():
        if over:
            with pytest.raises(SpecError) as caught:
                parse(text, "f")
            assert caught.value.problems[0].rule == "limit", name
        else:
            parse(text, "f")
