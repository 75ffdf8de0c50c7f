"""Promises P1, P4, P5, P6 over many generated texts: no traceback, the right token, the right suggestion, no loss."""

# ruff: noqa: E501

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mutations import mutated, spots
from toy_parts import SPEC, TOYS, toys  # noqa: F401

from archdsl.errors import ArchError, SpecError
from archdsl.language import loads
from archdsl.language.architecture.model import Expect, InputSpec
from archdsl.language.architecture.part_reader import STAGE_KEYS
from archdsl.language.architecture.read import SPEC_KEYS
from archdsl.language.text.node import YamlNode
from archdsl.language.text.render import flow
from archdsl.language.text.yaml_text import parse
from archdsl.suggestions import closest

pytestmark = pytest.mark.usefixtures("toys")
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300, derandomize=True)


def outcome(text: str | bytes, name: str = "fuzz.yaml") -> ArchError | None:
    """What reading gives; anything but a spec or a located ArchError fails the test."""
    start = time.process_time()
    error: ArchError | None = None
    try:
        loads(text, name, check=False)
    except ArchError as caught:
        error = caught
    assert time.process_time() - start < 1
    if error is not None:
        assert re.match(rf"{re.escape(name)}:\d+:\d+: ", str(error)), str(error)
        assert error.exit_code == 1
        assert all(problem.place.line >= 1 and problem.place.column >= 1 for problem in error.problems)
        assert all(problem.as_json() for problem in error.problems)
    return error


@pytest.mark.promise(1)
@pytest.mark.parametrize("seed", range(10))
def test_no_mutated_spec_gives_anything_but_a_located_error(seed):
    rng = random.Random(seed)
    failed = 0
    for _ in range(600):
        text = mutated(SPEC, rng)
        failed += outcome(text if rng.random() < 0.9 else text.encode("utf-8", "surrogatepass")) is not None
    assert failed > 300  # most edits break something


@pytest.mark.promise(1)
def test_no_random_bytes_give_anything_but_a_located_error():
    rng = random.Random(1)
    for _ in range(300):
        assert outcome(rng.randbytes(rng.randint(0, 200))) is not None


BOMBS = {
    "deep aliases in a field": "x: &a [[[[1]]]]\n" + SPEC.replace("heads: 3", "heads: &b [" + "1, " * 5000 + "1]", 1),
    "a stage of aliases": "name: x\nstem: &s {type: tiles, dim: 8}\nhead: labels\nstages: [" + "*s, " * 5000 + "]",
    "gigantic depth": SPEC.replace("depth: 2, heads: 3", "depth: 999999999999, heads: 3"),
    "gigantic dim": SPEC.replace("dim: 96", "dim: 999999999999"),
    "gigantic window": SPEC.replace("window: 7", "window: 9223372036854775807"),
    "gigantic ratio": SPEC.replace("heads: 3", "heads: 3, mlp_ratio: 1e308"),
    "gigantic size": SPEC.replace("size: 224", "size: 999999999999"),
    "long wrong key": SPEC.replace("heads: 3", "h" * 500 + ": 3"),
    "long wrong value": SPEC.replace("pool: avg", "pool: " + "a" * 60_000),
    "one huge line": SPEC.replace("avg}", "avg, " + ", ".join(f"k{i}: {i}" for i in range(2000)) + "}"),
    "many unknown keys": SPEC + "\n".join(f"k{i}: 1" for i in range(2000)),
    "many wrong stages": SPEC.replace("stages:\n", "stages:\n" + "  - {blok: weave}\n" * 60),
    "every block wrong": SPEC.replace("depth: 2, heads: 3", "depth: 1000, heads: [" + "x, " * 1000 + "]"),
    "many wide stages": "name: x\nstem: {type: tiles, dim: 8}\nhead: labels\nstages:\n"
    + "  - {block: weave, depth: 60, heads: [" + "x, " * 60 + "]}\n" * 60,
}  # fmt: skip


@pytest.mark.promise(2)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_in_a_spec_is_refused_in_a_tenth_of_a_second(name):
    outcome(BOMBS["gigantic dim"])  # the schema caches are warm
    start = time.process_time()
    assert outcome(BOMBS[name]) is not None
    assert time.process_time() - start < (0.1 if "every" not in name and "many wide" not in name else 0.5)


# --- the right token ----------------------------------------------------------------------------------------------

WRONG = (
    "seven",
    "-7",
    "[1, 2, 3]",
    "{a: 1}",
    "1e9",
    "null",
    "'3'",
    ".nan",
    "0",
    "true",
    "3.5",
    "-0.5",
    "agv",
    "x" * 80,
    "~",
)


def leaves(tree: YamlNode) -> list[tuple[tuple[Any, ...], YamlNode]]:
    return [(path, node) for path, node in tree.scalars() if path[-1] not in ("source", "name")]


@pytest.mark.promise(4)
def test_a_single_broken_leaf_is_what_the_error_points_at():
    rng = random.Random(4)
    tree = parse(SPEC, "f")
    places = leaves(tree)
    lines = SPEC.split("\n")
    right = total = 0
    missed = []
    while total < 1000:
        path, node = rng.choice(places)
        mark = node.mark
        line = lines[mark.line]
        bad = rng.choice(WRONG)
        broken = [*lines]
        broken[mark.line] = line[: mark.column] + bad + line[mark.column + mark.width :]
        error = outcome("\n".join(broken))
        if error is None:
            continue
        total += 1
        first = error.problems[0]
        inside = mark.column + 1 <= first.place.column <= mark.column + len(bad)
        hit = first.place.line == mark.line + 1 and inside
        right += hit
        if not hit:
            missed.append((path, bad, str(first)))
    assert right >= 0.99 * total, missed[:10]


def test_a_removed_key_is_what_the_error_is_about():
    tree = parse(SPEC, "f")
    needed = {"stem", "stages", "head", "block", "depth", "heads", "type", "dim"}
    for path, _ in leaves(tree):
        if path[0] in ("stem", "stages", "head") and path[-1] in needed and path != ("stages", 1, "dim"):
            data = parse(SPEC, "f").plain()
            below = data
            for part in path[:-1]:
                below = below[part]
            del below[path[-1]]
            error = outcome("\n".join(f"{key}: {flow(value)}" for key, value in data.items()))
            assert error is not None, path
            assert f"`{path[-1]}` is missing" in error.problems[0].message


# --- the right suggestion -----------------------------------------------------------------------------------------


def typos(word: str) -> set[str]:
    """Every word one edit away: a letter lost, doubled, swapped, changed or put in."""
    letters = "aeinorstlx_"
    found = {word[:i] + word[i + 1 :] for i in range(len(word))}
    found |= {word[:i] + word[i] + word[i:] for i in range(len(word))}
    found |= {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    found |= {word[:i] + letter + word[i + 1 :] for i in range(len(word)) for letter in letters}
    found |= {word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in letters}
    return found - {word, ""}


def vocabularies() -> list[list[str]]:
    found = [list(SPEC_KEYS), list(InputSpec.model_fields), list(Expect.model_fields)]
    for kind, known in TOYS.items():
        keys = STAGE_KEYS if kind == "block" else ("type",)
        found += [list(known), *([*cls.model_fields, *keys] for cls in known.values())]
    return found


def share_right(words: list[list[str]]) -> float:
    right = total = 0
    for names in words:
        for name in names:
            for typo in typos(name) - set(names):
                total += 1
                right += closest(typo, names) == name
    return right / total


@pytest.mark.promise(5)
def test_a_typo_of_one_edit_gets_the_right_suggestion():
    assert share_right(vocabularies()) >= 0.95


@pytest.mark.promise(5)
def test_a_typo_in_the_built_in_vocabulary_gets_the_right_suggestion(monkeypatch):
    monkeypatch.undo()
    import archdsl.parts
    from archdsl.parts.part import parts

    assert archdsl.parts is not None
    kinds = {"stem": ("type",), "block": STAGE_KEYS, "downsample": ("type",), "head": ("type",)}
    words = [[*cls.model_fields, *keys] for kind, keys in kinds.items() for cls in parts(kind).values()]
    assert share_right(words) >= 0.95


def test_two_swapped_letters_are_one_edit_even_in_a_short_word():
    assert closest("atc", ["act", "dim", "norm"]) == "act"
    assert closest("mid", ["act", "dim", "norm"]) is None


def test_a_typo_in_a_file_is_told_with_its_suggestion():
    for key in ("heads", "window", "shift", "depth", "downsample", "tile", "classes", "stages", "channels"):
        for typo in sorted(typos(key))[::7]:
            if len(typo) < 3:
                continue
            text = re.sub(rf"\b{key}:", f"{typo}:", SPEC, count=1)
            error = outcome(text)
            if error is not None and error.problems[0].rule == "unknown-key":
                assert f"did you mean `{key}`?" in str(error.problems[0].hint), (typo, error)


# --- nothing is lost ----------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXTS,
    st.sampled_from(["yes", "no", "1e5", "0x1", "1_0", "~", "null", "true", "- a", "a: b", "#x", "a #b", "", " ", "a:", "%", "@x",
                     "100M", "2.1 ms", "https://x.org/a?b=c&d#e", "[", "{}", "&a", "*a", "!a", "|", ">", "'", '"', "---", "..."]),
)  # fmt: skip
DATA = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.promise(6)
@RELAXED
@given(DATA)
def test_any_data_survives_being_written(data):
    from archdsl.language.text.render import to_yaml

    assert parse(to_yaml(data), "f").plain() == data


def rates() -> st.SearchStrategy[float]:
    return st.floats(0, 0.99)


@st.composite
def weave_stages(draw) -> dict[str, Any]:
    depth = draw(st.integers(1, 6))

    def each(values):
        return draw(st.one_of(values, st.lists(values, min_size=depth, max_size=depth)))

    stage: dict[str, Any] = {"block": "weave", "depth": depth, "heads": each(st.integers(1, 64))}
    optional = {
        "window": st.integers(1, 500),
        "shift": st.booleans(),
        "norm": st.sampled_from(["layer", "batch", "none"]),
        "mlp_ratio": st.floats(0.01, 64),
        "drop_path": st.one_of(st.none(), rates()),
        "note": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        stage[name] = each(optional[name])
    if draw(st.booleans()):
        stage["downsample"] = draw(
            st.sampled_from(["fold", "halve", {"type": "fold", "norm": "none"}, {"type": "halve", "factor": 3}])
        )
    if draw(st.booleans()):
        stage["dim"] = draw(st.integers(1, 65536))
    return stage


LISTED = st.fixed_dictionaries(
    {
        "blocks": st.lists(
            st.sampled_from([{"block": "plain"}, {"block": "plain", "size": 9}, {"block": "weave", "heads": 2}]),
            min_size=1,
            max_size=3,
        )
    }
)


@st.composite
def specs(draw) -> dict[str, Any]:
    """Valid specs, as data."""
    data: dict[str, Any] = {
        "name": draw(NAMES.filter(lambda name: isinstance(parse(f"a: {name}", "f").plain()["a"], str))),
        "stem": {"type": "tiles", "dim": draw(st.integers(1, 65536))},
        "stages": draw(st.lists(st.one_of(weave_stages(), LISTED), min_size=1, max_size=4)),
        "head": draw(st.sampled_from(["labels", {"type": "labels", "classes": 7}])),
    }
    if draw(st.booleans()):
        data["source"] = draw(st.one_of(st.none(), TEXTS))
    if draw(st.booleans()):
        data["drop_path"] = draw(rates())
    if draw(st.booleans()):
        data["expect"] = draw(st.sampled_from([{"params": 28288354}, {"macs": "4.5G", "params": "100M"}, {}]))
    if draw(st.booleans()):
        data["input"] = draw(st.sampled_from([{"size": 96}, {"size": [96, 64]}, {"channels": 1}]))
    if draw(st.booleans()):
        data["defaults"] = draw(st.sampled_from([{"norm": "layer"}, {"act": "relu"}, {"tile": 2, "size": 5}]))
    return data


@pytest.mark.promise(6)
@RELAXED
@given(specs())
def test_a_valid_spec_survives_being_written(data):
    from archdsl.language.text.render import to_yaml

    spec = loads(to_yaml(data), check=False)
    assert loads(spec.to_yaml(), check=False) == spec
    assert spec.data == data
    assert parse(spec.to_yaml(), "f").plain() == data


# --- malformed specs by property ----------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.floats(), TEXTS,
    st.lists(st.integers(-3, 3), max_size=3), st.dictionaries(TEXTS, st.integers(-3, 3), max_size=2),
)  # fmt: skip


@st.composite
def malformed(draw) -> str:
    """A valid spec with one thing replaced by junk, lost or renamed."""
    import copy

    from archdsl.language.text.render import to_yaml

    data = copy.deepcopy(draw(specs()))
    path = draw(st.sampled_from([spot for spot in spots(data) if spot]))
    below = data
    for part in path[:-1]:
        below = below[part]
    match draw(st.integers(0, 2)):
        case 0:
            below[path[-1]] = draw(JUNK)
        case 1 if isinstance(below, dict):
            below[draw(TEXTS)] = below.pop(path[-1])
        case _:
            del below[path[-1]]
    return to_yaml(data) if data else "{}"


@RELAXED
@given(malformed())
def test_a_malformed_spec_gives_a_located_error_and_no_traceback(text):
    error = outcome(text)
    assume(error is not None)  # junk may happen to be right: only wrong ones count towards the 300
    assert error is not None and error.exit_code == 1


def test_problems_are_capped():
    text = SPEC + "\n".join(f"key{i}: 1" for i in range(3000))
    with pytest.raises(SpecError) as caught:
        loads(text, check=False)
    assert len(caught.value.problems) == 1000
