"""A table of broken specs: each error stands at the right token, under the right rule, and says what was meant.

In the table `«` marks where the error must stand; it is taken out before the spec is read.
"""

# ruff: noqa: E501

from __future__ import annotations

import pytest
from toy_parts import SPEC, toys  # noqa: F401

from archdsl.errors import SpecError
from archdsl.language import loads

pytestmark = pytest.mark.usefixtures("toys")

# (what is replaced, by what, rule, words of the message and the hint)
TABLE = [
    # unknown keys
    ("heads: 3, window", "heads: 3, «windw", "unknown-key", "unknown key `windw`", "did you mean `window`?"),
    ("heads: 3", "«head: 3", "unknown-key", "unknown key `head`", "did you mean `heads`?"),
    ("heads: 3", "heads: 3, «wombat: 3", "unknown-key", "unknown key `wombat`", "A `weave` block has: act,"),
    ("block: weave, depth: 2, heads: 3", "«blok: weave, depth: 2, heads: 3", "unknown-key", "`blok`", "`block`?"),
    ("depth: 2, heads: 3", "«dpeth: 2, heads: 3", "unknown-key", "`dpeth`", "did you mean `depth`?"),
    ("downsample: fold", "«downsampel: fold", "unknown-key", "`downsampel`", "did you mean `downsample`?"),
    ("dim: 200", "«din: 200", "unknown-key", "`din`", "did you mean `dim`?"),
    ("stem:", "«stme:", "unknown-key", "`stme`", "did you mean `stem`?"),
    ("stages:", "«stage:", "unknown-key", "`stage`", "did you mean `stages`?"),
    ("head: {type", "«heed: {type", "unknown-key", "`heed`", "did you mean `head`?"),
    ("drop_path", "«drop-path", "unknown-key", "`drop-path`", "did you mean `drop_path`?"),
    ("source", "«sources", "unknown-key", "`sources`", "did you mean `source`?"),
    ("expect:", "«expected:", "unknown-key", "`expected`", "did you mean `expect`?"),
    ("defaults:", "«default:", "unknown-key", "`default`", "did you mean `defaults`?"),
    ("params", "«param", "unknown-key", "`param`", "did you mean `params`?"),
    ("macs", "«flops", "unknown-key", "`flops`", "has: macs, params"),
    ("size: 224", "«sise: 224", "unknown-key", "`sise`", "did you mean `size`?"),
    ("channels", "«chanels", "unknown-key", "`chanels`", "did you mean `channels`?"),
    ("tile: 4", "«tiles: 4", "unknown-key", "`tiles`", "did you mean `tile`?"),
    ("type: tiles", "«typ: tiles", "unknown-key", "`typ`", "did you mean `type`?"),
    ("classes: 1000", "«clases: 1000", "unknown-key", "`clases`", "did you mean `classes`?"),
    ("pool: avg", "«POOL: avg", "unknown-key", "`POOL`", "did you mean `pool`?"),
    ("{norm: layer, act", "{«nrom: layer, act", "unknown-key", "`nrom`", "did you mean `norm`?"),
    ("size: 5", "«siz: 5", "unknown-key", "`siz`", "did you mean `size`?"),
    ("fold, norm: none", "fold, «norms: none", "unknown-key", "`norms`", "did you mean `norm`?"),
    ("block: plain, size: 5", "block: plain, «shift: true", "unknown-key", "`shift`", "A `plain` block has: norm, size."),
    ("{blocks:", "{«window: 7, blocks:", "unknown-key", "`window`", "A stage with `blocks` has: blocks, dim"),
    ("name: toy", "name: toy\n«choices: {}", "unknown-key", "`choices` belongs to a space", "load_space"),
    ("name: toy", 'name: toy\n"«\\0\\x1b[31m": 1', "unknown-key", "unknown key `\\x00\\x1b[31m`", "A spec has"),
    # missing keys
    ("block: weave, depth: 2, heads: 3", "block: weave, depth: 2", "missing-key", "`heads` is missing: a `weave` block", ""),
    ("{block: weave, depth: 2, heads: 3", "«{block: weave, heads: 3", "missing-key", "`depth` is missing", ""),
    ("{block: weave, depth: 2, heads: 3", "«{depth: 2, heads: 3", "missing-key", "`block` is missing", "Available: plain, weave."),
    ("{type: labels, ", "«{", "missing-key", "`type` is missing: it names the head", "Available: labels."),
    ("{type: fold, norm: none}", "«{norm: none}", "missing-key", "`type` is missing", "Available: fold, halve."),
    ("{type: tiles, tile: 4, dim: 96}", "«tiles", "missing-key", "`dim` is missing: a `tiles` stem", ""),
    ("name: toy\n", "«", "missing-key", "`stem` is missing", "build on another spec"),
    # wrong types
    ("heads: 3", "heads: «three", "wrong-type", "`heads` must be a whole number, but got `three`", ""),
    ("heads: 3", "heads: «'3'", "wrong-type", '`heads` must be a whole number, but got `"3"`', "leave the quotes out"),
    ("heads: 3", "heads: «3.5", "wrong-type", "`heads` must be a whole number, but got `3.5`", ""),
    ("heads: 3", "heads: «true", "wrong-type", "`heads` must be a whole number, but got `true`", ""),
    ("heads: 3", "heads: «null", "wrong-type", "`heads` must be a whole number, but got `null`", ""),
    ("heads: 3", "heads: «{a: 1}", "wrong-type", "`heads` must be a whole number, but got `{a: 1}`", ""),
    ("[6, 8]", "[6, «eight]", "wrong-type", "`heads[1]` must be a whole number, but got `eight`", ""),
    ("shift: true}\n  - {block", "shift: «yes}\n  - {block", "wrong-type", "`shift` must be true or false", "write true."),
    ("depth: 2, heads: 3", "depth: «two, heads: 3", "wrong-type", "`depth` must be a whole number, but got `two`", ""),
    ("depth: 2, heads: 3", "depth: «true, heads: 3", "wrong-type", "`depth` must be a whole number", ""),
    ("dim: 200", "dim: «[200]", "wrong-type", "`dim` must be a whole number, but got `[200]`", ""),
    ("drop_path: 0.3", "drop_path: «a lot", "wrong-type", "`drop_path` must be a number, but got `a lot`", ""),
    ("heads: 3", "mlp_ratio: «big, heads: 3", "wrong-type", "`mlp_ratio` must be a number, but got `big`", ""),
    ("heads: 3", "note: «7, heads: 3", "wrong-type", "`note` must be text, but got `7`", ""),
    ("heads: 3", "kernel: «3, heads: 3", "wrong-type", "`kernel` must be a list, but got `3`", ""),
    ("heads: 3", "kernel: [3, «x], heads: 3", "wrong-type", "`kernel[1]` must be a whole number, but got `x`", ""),
    ("4.5G", "«4.5 Q", "wrong-type", "`expect.macs` must be a count such as `100M`", "but got `4.5 Q`"),
    ("{params: 28_288_354, macs: 4.5G}", "«28M", "wrong-type", "`expect` must be a mapping, but got `28M`", ""),
    ("{size: 224, channels: 3}", "«[224]", "wrong-type", "`input` must be a mapping, but got `[224]`", ""),
    ("{norm: layer, act: gelu}", "«layer", "wrong-type", "`defaults` must be a mapping, but got `layer`", ""),
    ("{type: labels, classes: 1000, pool: avg}", "«[labels]", "wrong-type", "`head` must be a mapping or the name", ""),
    ("{type: labels, classes", "{type: «7, classes", "wrong-type", "`type` must be the name of a head, but got `7`", ""),
    ("{block: weave, depth: 2, heads: 3, window: 7, shift: true}", "«weave", "wrong-type", "a stage must be a mapping", "{block"),
    ("{block: plain, size: 5}", "«plain", "wrong-type", "a block must be a mapping, but got `plain`", "{block"),
    ("[{block: weave, heads: 6, shift: true}, {block: plain, size: 5}]", "«[]", "wrong-type", "at least one block", ""),
    ("name: toy", "name: «7", "wrong-type", "`name` must be text, but got `7`", ""),
    ("source: https://example.org/toy", "source: «[a]", "wrong-type", "`source` must be text", ""),
    # wrong values
    ("[7, 14]", "[7, «mop]", "wrong-value", "`window[1]` must be a whole number or `map`, but got `mop`", "did you mean `map`?"),
    ("pool: avg", "pool: «agv", "wrong-value", "one of `avg`, `token`, but got `agv`", "did you mean `avg`?"),
    ("pool: avg", "pool: «mean", "wrong-value", "one of `avg`, `token`, but got `mean`", ""),
    ("norm: layer", "norm: «lyer", "wrong-value", "but got `lyer` (wanted by a `tiles` stem)", "did you mean `layer`?"),
    ("norm: layer", "norm: «batch", "wrong-value", "one of `layer`, `none`, but got `batch` (wanted by a `fold`", ""),
    ("name: toy", "name: «to/y", "wrong-value", "`name` must be letters, digits", ""),
    ("size: 224", "size: «big", "wrong-value", "`input.size` must be a whole number or [height, width]", ""),
    ("0.3", "«.nan", "wrong-value", "`drop_path` must be a finite number, but got `.nan`", ""),
    ("heads: 3", "mlp_ratio: «.inf, heads: 3", "wrong-value", "`mlp_ratio` must be a finite number", ""),
    # out of range
    ("heads: 3", "heads: «0", "out-of-range", "`heads` must be at least 1, but got `0`", ""),
    ("heads: 3", "heads: «-3", "out-of-range", "`heads` must be at least 1, but got `-3`", ""),
    ("heads: 3", "mlp_ratio: «0, heads: 3", "out-of-range", "`mlp_ratio` must be more than 0, but got `0`", ""),
    ("heads: 3", "mlp_ratio: «64.5, heads: 3", "out-of-range", "`mlp_ratio` must be at most 64, but got `64.5`", ""),
    ("heads: 3", "drop_path: «1, heads: 3", "out-of-range", "`drop_path` must be less than 1, but got `1`", ""),
    ("drop_path: 0.3", "drop_path: «-0.1", "out-of-range", "`drop_path` must be at least 0, but got `-0.1`", ""),
    ("depth: 2, heads: 3", "depth: «0, heads: 3", "out-of-range", "`depth` must be at least 1, but got `0`", ""),
    ("dim: 200", "dim: «-1", "out-of-range", "`dim` must be at least 1, but got `-1`", ""),
    ("channels: 3", "channels: «0", "out-of-range", "`input.channels` must be at least 1, but got `0`", ""),
    ("size: 224", "size: [224, «0]", "out-of-range", "`input.size[1]` must be at least 1, but got `0`", ""),
    ("size: 224", "size: «100000", "out-of-range", "must be at most 8192, but got `100000`", ""),
    # names
    ("block: weave, depth: 2, heads: 3", "block: «weeve, depth: 2, heads: 3", "unknown-name", "no block called `weeve`", "`weave`?"),
    ("block: weave, depth: 2, heads: 3", "block: «swin, depth: 2, heads: 3", "unknown-name", "called `swin`", "Available: plain, weave."),
    ("type: tiles", "type: «title", "unknown-name", "there is no stem called `title`", "did you mean `tiles`?"),
    ("downsample: fold", "downsample: «flod", "unknown-name", "there is no downsample called `flod`", "did you mean `fold`?"),
    ("type: fold", "type: «weave", "unknown-name", "there is no downsample called `weave`", "Available: fold, halve."),
    ("block: plain, size", "block: «plane, size", "unknown-name", "there is no block called `plane`", "did you mean `plain`?"),
    # lengths
    ("[6, 8]", "«[6, 8, 9]", "length", "depth is 2, but `heads` has 3", "write 2 values"),
    ("[7, 14]", "«[]", "length", "depth is 2, but `window` has 0", "write 2 values"),
    ("heads: 3", "kernel: «[1, 2, 3], heads: 3", "length", "`kernel` must be a list of at most 2 values", "[1, 2, 3]"),
    ("heads: 3", "note: «too long, heads: 3", "length", "`note` must be text of at most 5 characters", ""),
    # limits
    ("depth: 2, heads: 3", "depth: «1001, heads: 3", "limit", "`depth` must be at most 1000, but got `1001`", ""),
    ("dim: 96", "dim: «65537", "limit", "`dim` must be at most 65_536, but got `65537`", ""),
    ("dim: 200", "dim: «1000000", "limit", "`dim` must be at most 65_536, but got `1000000`", ""),
    ("heads: 3", "heads: «9999999999", "limit", "`heads` must be at most 65_536", ""),
    ("heads: 3", "mlp_ratio: «1e300, heads: 3", "limit", "`mlp_ratio` must be at most 65_536", ""),
    ("classes: 1000", "classes: «10_000_001", "limit", "`classes` must be at most 10_000_000", ""),
    ("heads: 3", "heads: «99999999999999999999", "limit", "must fit in 64 bits", ""),
    # rules of parts
    ("[7, 14], ", "map, shift: [«true, false], ", "conflict", "a window that is the map has no shift", ""),
    ("heads: 3", "note: «once, heads: 3", "spread", "`note`: a note cannot be spread", "write a list"),
    ("{blocks:", "{«depth: 2, blocks:", "conflict", "`depth` and `blocks` do not go together", ""),
    # syntax
    ("heads: 3,", "heads: 3 window«: 5,", "syntax", "did not find expected", "a comma or a closing bracket"),
    ("heads: 3", "heads: 3, «heads: 4", "duplicate-key", "the key `heads` is set twice; first at line 9", ""),
    ("stem:", "«name: two\nstem:", "duplicate-key", "the key `name` is set twice; first at line 1", ""),
    ("heads: 3", "heads: «!!int 3", "tag", "tags are not allowed", ""),
    ("heads: 3", "heads: «*h", "syntax", "the alias *h has no anchor &h", ""),
    ("pool: avg}", "pool: [avg«}", "syntax", "did not find expected ',' or ']'", "a comma or a closing bracket"),
    ("input:", "\t«input:", "syntax", "cannot start any token", "tabs"),
]  # fmt: skip

UNMARKED = {"`heads` is missing: a `weave` block": (9, 5)}


@pytest.mark.promise(4)
@pytest.mark.parametrize(("old", "new", "rule", "message", "hint"), TABLE, ids=[row[1][:40] for row in TABLE])
def test_the_error_stands_at_the_right_token(old, new, rule, message, hint):
    assert old in SPEC
    marked = SPEC.replace(old, new, 1)
    if message.startswith("`stem` is missing"):
        marked = "«name: toy\n"
    if "«" in marked:
        before = marked[: marked.index("«")]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    else:
        line, column = UNMARKED[message]
    if "\t«" in marked:
        column -= 1  # YAML stops at the tab itself
    if '"«' in marked:
        column -= 1  # a quoted key begins at its quote
    with pytest.raises(SpecError) as caught:
        loads(marked.replace("«", ""), "spec.yaml", check=False)
    problem = caught.value.problems[0]
    assert (str(problem.place), problem.rule) == (f"spec.yaml:{line}:{column}", rule), str(caught.value)
    assert message in problem.message
    assert hint in f"{problem.message} {problem.hint}"
    assert problem.place.text == marked.replace("«", "").splitlines()[line - 1]
    if old != "name: toy\n" and rule not in ("syntax", "tag"):
        assert len(caught.value.problems) == 1, str(caught.value)


def test_there_are_enough_rows():
    assert len(TABLE) >= 100
    assert len({row[2] for row in TABLE}) >= 12


def test_all_problems_of_a_file_are_told_at_once_in_order():
    text = SPEC
    for old, new in [
        ("4.5G", "4 Q"),
        ("heads: 3", "heads: x"),
        ("[7, 14]", "[7]"),
        ("size: 5", "siz: 5"),
        ("avg", "agv"),
    ]:
        text = text.replace(old, new, 1)
    with pytest.raises(SpecError) as caught:
        loads(text, "f", check=False)
    assert [problem.place.line for problem in caught.value.problems] == [3, 9, 10, 11, 12]
    assert [problem.rule for problem in caught.value.problems] == [
        "wrong-type", "wrong-type", "length", "unknown-key", "wrong-value"]  # fmt: skip


def test_a_wrong_scalar_of_a_deep_stage_is_told_once():
    with pytest.raises(SpecError) as caught:
        loads(SPEC.replace("depth: 2, heads: 3", "depth: 900, heads: x"), "f", check=False)
    assert len(caught.value.problems) == 1


def test_an_error_shows_the_line_and_a_way_out():
    with pytest.raises(SpecError) as caught:
        loads(SPEC.replace("pool: avg", "pool: agv"), "toy.yaml", check=False)
    assert str(caught.value) == (
        "toy.yaml:12:43: `pool` must be one of `avg`, `token`, but got `agv` [wrong-value]\n"
        "  12 | head: {type: labels, classes: 1000, pool: agv}\n"
        "     |                                           ^^^\n"
        "  hint: did you mean `avg`?"
    )
    assert caught.value.problems[0].path == "head.pool"
    assert caught.value.exit_code == 1


def test_too_many_blocks_in_all_are_refused_before_any_is_made():
    stage = "  - {block: weave, depth: 1000, heads: 1}\n"
    text = "name: x\nstem: {type: tiles, dim: 8}\nstages:\n" + stage * 5 + "head: labels\n"
    with pytest.raises(SpecError, match=r"^f:8:27: a spec may have at most 4096 blocks, and this stage makes it 5000"):
        loads(text, "f", check=False)


def test_too_many_stages_are_refused():
    text = "name: x\nstem: {type: tiles, dim: 8}\nhead: labels\nstages:\n" + "  - {block: plain, depth: 1}\n" * 65
    with pytest.raises(SpecError, match=r"^f:69:5: a spec may have at most 64 stages, this has 65"):
        loads(text, "f", check=False)


def test_a_huge_value_of_a_field_is_refused_before_it_is_copied():
    stage = "{block: weave, depth: 1000, heads: &a [[[" + "1, " * 300 + "1]]]}"
    with pytest.raises(SpecError, match=r"^f:3:"):
        loads(f"name: x\nstem: {{type: tiles, dim: 8}}\nstages: [{stage}]\nhead: labels\n", "f", check=False)
