"""`extends`: what merges, what replaces, where errors point, and what is never read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from toy_parts import SPEC, toys  # noqa: F401

from archdsl.errors import ArchError, SpecError
from archdsl.language import load, loads
from archdsl.language.architecture.merge import merge
from archdsl.language.text import files, limits
from archdsl.language.text.yaml_text import parse

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a base spec, entered."""
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "base.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """`base` ships with archdsl."""
    folder = tmp_path / "shipped" / "specs"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(SPEC)
    monkeypatch.setattr(files, "shipped_folder", lambda kind: tmp_path / "shipped" / kind)
    return folder


def merged(base: str, over: str) -> object:
    return merge(parse(base, "base"), parse(over, "over")).plain()


def test_mappings_merge_by_key_and_scalars_replace():
    assert merged("{a: {x: 1, y: 2}, b: 3}", "{a: {y: 5}, c: 7}") == {"a": {"x": 1, "y": 5}, "b": 3, "c": 7}


def test_lists_of_mappings_merge_by_index():
    assert merged("[{a: 1, b: 2}, {c: 3}]", "[{}, {c: 4}]") == [{"a": 1, "b": 2}, {"c": 4}]


def test_a_list_may_grow_but_not_shrink():
    assert merged("[{a: 1}]", "[{}, {b: 2}]") == [{"a": 1}, {"b": 2}]
    with pytest.raises(SpecError, match=r"^over:1:4: the list has 1 entries, but the one it builds on has 2"):
        merged("s: [{a: 1}, {a: 2}]", "s: [{}]")


def test_other_lists_replace():
    assert merged("a: [1, 2, 3]", "a: [4]") == {"a": [4]}
    assert merged("a: [{x: 1}]", "a: [1, 2]") == {"a": [1, 2]}


def test_another_block_or_type_is_another_thing():
    assert merged("{block: a, heads: 3}", "{block: b}") == {"block": "b"}
    assert merged("{block: a, heads: 3}", "{block: a, depth: 2}") == {"block": "a", "heads": 3, "depth": 2}
    assert merged("{block: a, depth: 3}", "{blocks: [{block: b}]}") == {"blocks": [{"block": "b"}]}
    assert merged("{blocks: [{block: b}]}", "{block: a, depth: 3}") == {"block": "a", "depth": 3}


def test_fields_of_a_part_named_by_its_bare_name_merge():
    assert merged("downsample: fold", "downsample: {norm: none}") == {"downsample": {"type": "fold", "norm": "none"}}
    assert merged("downsample: {type: fold, norm: none}", "downsample: halve") == {"downsample": "halve"}
    assert merged("downsample: fold", "downsample: null") == {"downsample": None}


def test_a_spec_extends_another_by_relative_path(project):
    (project / "sub").mkdir()
    (project / "sub" / "mine.yaml").write_text("name: mine\nextends: ../base.yaml\nstages: [{}, {window: 7}, {}]\n")
    spec = load("sub/mine.yaml", check=False)
    assert spec.name == "mine"
    assert [block.window for block in spec.stages[1].blocks] == [7, 7]
    assert spec.stages[0] == load("base.yaml", check=False).stages[0]


def test_name_and_expect_are_not_inherited_but_the_source_is(project):
    (project / "mine.yaml").write_text("extends: base.yaml\n")
    spec = load("mine.yaml", check=False)
    assert (spec.name, spec.expect, spec.source) == ("mine", None, "https://example.org/toy")


def test_a_spec_extends_a_shipped_one_by_name(shipping, tmp_path):
    assert loads("extends: base\nname: x", check=False).stages == load("base", check=False).stages
    (tmp_path / "mine.yaml").write_text("extends: base\nhead: {classes: 7}\n")
    assert load(tmp_path / "mine.yaml", check=False).head.classes == 7


def test_an_error_points_into_the_file_that_says_it(project):
    (project / "bad.yaml").write_text(SPEC.replace("heads: 3", "heads: three"))
    (project / "mine.yaml").write_text("extends: bad.yaml\nhead: {pool: mean}\n")
    with pytest.raises(SpecError) as caught:
        load("mine.yaml", check=False)
    assert [str(problem.place) for problem in caught.value.problems] == ["mine.yaml:2:14", "bad.yaml:9:37"]


def test_a_list_that_no_longer_fits_points_to_the_list(project):
    (project / "mine.yaml").write_text("extends: base.yaml\nstages: [{}, {depth: 3}, {}]\n")
    with pytest.raises(SpecError, match=r"^base.yaml:10:37: .*depth is 3, but `heads` has 2"):
        load("mine.yaml", check=False)


def test_a_syntax_error_in_a_base_points_into_the_base(project):
    (project / "bad.yaml").write_text("a: [1")
    (project / "mine.yaml").write_text("extends: bad.yaml\n")
    with pytest.raises(SpecError, match=r"^bad.yaml:1:4: this bracket is never closed"):
        load("mine.yaml", check=False)


def test_a_cycle_is_named_as_a_chain(project):
    (project / "a.yaml").write_text("extends: b.yaml\n")
    (project / "b.yaml").write_text("extends: c.yaml\n")
    (project / "c.yaml").write_text("extends: ./b.yaml\n")
    with pytest.raises(SpecError, match=r"^c.yaml:1:10: the spec extends itself: b.yaml -> c.yaml -> b.yaml"):
        load("a.yaml", check=False)


@pytest.mark.promise(3)
def test_a_chain_may_have_32_steps_and_no_more(project):
    most = limits.MAX_EXTENDS
    for number in range(most):
        (project / f"s{number}.yaml").write_text(f"extends: s{number + 1}.yaml\n")
    (project / f"s{most}.yaml").write_text("extends: base.yaml\n")
    assert load("s1.yaml", check=False).name == "s1"
    with pytest.raises(SpecError, match=r"^s32.yaml:1:10: at most 32 specs"):
        load("s0.yaml", check=False)


@pytest.mark.promise(3)
def test_all_files_together_have_a_limit(project, monkeypatch):
    monkeypatch.setattr(files.Budget.__init__, "__defaults__", (limits.MAX_FILES, 2 * len(SPEC)))
    (project / "mine.yaml").write_text("extends: base.yaml\n")
    load("mine.yaml", check=False)
    (project / "mine.yaml").write_text("extends: base.yaml\n#" + "x" * len(SPEC))
    with pytest.raises(SpecError, match=r"^mine.yaml:1:10: a spec and what it extends may have at most"):
        load("mine.yaml", check=False)


@pytest.mark.promise(3)
def test_as_many_files_are_read_as_the_limit_says(project, monkeypatch):
    (project / "mine.yaml").write_text("extends: base.yaml\n")
    monkeypatch.setattr(files.Budget.__init__, "__defaults__", (2, limits.MAX_TOTAL_BYTES))
    load("mine.yaml", check=False)
    monkeypatch.setattr(files.Budget.__init__, "__defaults__", (1, limits.MAX_TOTAL_BYTES))
    with pytest.raises(SpecError, match=r"^mine.yaml:1:10: one spec may be made of at most"):
        load("mine.yaml", check=False)


@pytest.mark.promise(3)
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="a file that says it is empty and is not")
def test_the_limit_of_a_file_holds_for_what_is_read_of_it(project, monkeypatch):
    at_limit = project / "at_limit.yaml"
    at_limit.write_text(SPEC)
    whole = load(at_limit, check=False)
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", len(SPEC.encode()))
    assert load(at_limit, check=False) == whole, "not a byte is lost"
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    assert Path("/proc/self/status").stat().st_size == 0 < 100 < len(Path("/proc/self/status").read_bytes())
    with pytest.raises(SpecError, match="a file may have at most 100 bytes"):
        load("/proc/self/status", check=False)


def test_a_missing_base_suggests_a_neighbour(project):
    (project / "mine.yaml").write_text("extends: bose.yaml\n")
    with pytest.raises(
        SpecError, match=r"^mine.yaml:1:10: there is no file `bose.yaml`(.|\n)*did you mean `base.yaml`"
    ):
        load("mine.yaml", check=False)


def test_an_unknown_shipped_name_suggests_a_known_one(shipping):
    with pytest.raises(SpecError, match=r"^<text>:1:10: no spec called `bas` ships(.|\n)*did you mean `base`"):
        loads("extends: bas", check=False)


ATTACKS = [
    "../outside.yaml", "sub/../../outside.yaml", "./../outside.yaml", "/etc/passwd", "/dev/zero", "/proc/self/environ",
    "//etc/passwd.yaml", "~/outside.yaml", "~root/outside.yaml", "file:///etc/passwd", "file://outside.yaml",
    "http://example.org/a.yaml", "link.yaml", "linkdir/outside.yaml", "linkin.yaml", "hard.yaml", "fifo.yaml",
    "folder.yaml", "folder.yaml/", "sub/", ".", "..", "./", "base.yaml/x.yaml", "..\\outside.yaml", "C:\\a.yaml",
    "c:a.yaml", "secret.txt", ".env", "\uff0e\uff0e/outside.yaml", "..%2foutside.yaml", "BASE.YAML", "base.yaml\n",
    "sub//../../outside.yaml", "sub/./../../outside.yaml", "\\\\host\\share\\a.yaml", "$HOME/outside.yaml",
    "${HOME}/outside.yaml", "a\0.yaml", "*.yaml", "dangling.yaml", "loop.yaml", "noread/../../outside.yaml",
]  # fmt: skip


@pytest.mark.promise(8)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_outside_the_project_is_read(attack, project, tmp_path_factory):
    outside = project.parent / "outside.yaml"
    outside.write_text("secret: 1")
    (project / "sub").mkdir()
    (project / "folder.yaml").mkdir()
    (project / "secret.txt").write_text("secret: 1")
    (project / ".env").write_text("secret: 1")
    (project / "link.yaml").symlink_to(outside)
    (project / "linkin.yaml").symlink_to(project / "base.yaml")
    (project / "linkdir").symlink_to(project.parent)
    (project / "dangling.yaml").symlink_to(project / "nowhere.yaml")
    (project / "loop.yaml").symlink_to(project / "loop.yaml")
    os.link(outside, project / "hard.yaml")
    os.mkfifo(project / "fifo.yaml")
    (project / "mine.yaml").write_text(f"extends: {json.dumps(attack, ensure_ascii=False)}\n")
    opened: list[str] = []
    WATCHED.append(opened)
    try:
        with pytest.raises(ArchError, match=r"^mine.yaml:1:10: ") as caught:
            load("mine.yaml", check=False)
    finally:
        WATCHED.remove(opened)
    assert "secret" not in str(caught.value).replace("secret.txt", "")
    real = {os.path.realpath(path) for path in opened}
    assert all(path.startswith(str(project)) for path in real if not os.path.isdir(path))
    assert str(project / "mine.yaml") in real


WATCHED: list[list[str]] = []


def _watch(event: str, args: tuple[object, ...]) -> None:
    if WATCHED and event == "open" and isinstance(args[0], str | bytes):
        if isinstance(args[2], int) and args[2] & os.O_NOFOLLOW and os.path.islink(args[0]):
            return  # the open that is about to fail
        WATCHED[-1].append(os.fsdecode(args[0]))


sys.addaudithook(_watch)


@pytest.mark.promise(8)
def test_a_symbolic_link_swapped_in_at_the_last_moment_is_not_followed(project, monkeypatch):
    outside = project.parent / "outside.yaml"
    outside.write_text("secret: 1")
    (project / "mine.yaml").write_text("extends: base.yaml\n")
    checked = files._checked_parts

    def swap(*args):
        parts = checked(*args)
        (project / "base.yaml").unlink()
        (project / "base.yaml").symlink_to(outside)
        return parts

    monkeypatch.setattr(files, "_checked_parts", swap)
    with pytest.raises(SpecError, match=r"^mine.yaml:1:10: `base.yaml` is not read: symbolic links are not followed"):
        load("mine.yaml", check=False)


def test_without_a_project_the_files_own_folder_is_the_border(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text(SPEC)
    (tmp_path / "sub" / "mine.yaml").write_text("extends: ../base.yaml\n")
    assert not any((folder / mark).exists() for folder in tmp_path.parents for mark in ("pyproject.toml", ".git"))
    with pytest.raises(SpecError, match=r"leads out of the project"):
        load(tmp_path / "sub" / "mine.yaml", check=False)


def test_a_text_from_no_file_extends_shipped_specs_only():
    with pytest.raises(SpecError, match=r"^<text>:1:10: .*came from no file"):
        loads("extends: ./base.yaml", check=False)


@pytest.mark.parametrize("value", ["7", "[a.yaml]", "{a: 1}", "null", "''", "true"])
def test_extends_must_be_a_name_or_a_path(value):
    with pytest.raises(SpecError, match=r"^<text>:1:10: `extends` must be the name"):
        loads(f"extends: {value}", check=False)


def given(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load(path, check=False)
    assert str(caught.value).startswith(f"{path}:1:1: ") or path.is_file()
    return caught.value.problems[0].message


def test_what_is_no_readable_text_file_is_said_so(project):
    os.mkfifo(project / "fifo.yaml")
    (project / "folder").mkdir()
    (project / "binary.yaml").write_bytes(bytes(range(256)))
    (project / "large.yaml").write_bytes(b"#" * (limits.MAX_FILE_BYTES + 1))
    (project / "list.yaml").write_text("[1, 2]")
    assert "not a regular file" in given(project / "fifo.yaml")
    assert "is a folder" in given(project / "folder")
    assert "not UTF-8" in given(project / "binary.yaml")
    assert "at most 1_048_576 bytes" in given(project / "large.yaml")
    assert "there is no file" in given(project / "nowhere.yaml")
    assert "a spec is a mapping" in given(project / "list.yaml")
    assert "not a regular file" in given(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["", "a\0b", "no_such_spec", "x" * 5000, "no/such.yaml", 7, None, "\ud800.yaml"])
def test_any_name_that_leads_nowhere_is_a_clean_error(name):
    with pytest.raises(SpecError, match=r":1:1: "):
        load(name, check=False)
