"""JSON-lines files: what is appended is read back, whatever was cut, damaged or written by others before."""

import os

import pytest

from archdsl import jsonl


def test_records_are_read_from_where_the_last_reading_ended(tmp_path):
    path = tmp_path / "lines"
    assert jsonl.read(path) == ([], 0, False)
    jsonl.append(path, {"a": 1})
    first = jsonl.read(path)
    jsonl.append(path, {"a": 2})
    assert (first.records, jsonl.read(path, first.end).records) == ([{"a": 1}], [{"a": 2}])


@pytest.mark.parametrize("kept", range(1, 9))
def test_a_line_that_was_cut_off_costs_that_record_alone(tmp_path, kept):
    path = tmp_path / "lines"
    jsonl.append(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2}\n'[:kept])
    assert jsonl.read(path)[::2] == ([{"a": 1}], True)
    jsonl.append(path, {"a": 3})
    found = jsonl.read(path).records
    assert [found[0], found[-1], len(found)] == [{"a": 1}, {"a": 3}, 3]
    assert found[1] == ({"a": 2} if kept == 8 else None)


@pytest.mark.parametrize("line", [b"\xff", b"[1]", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"{" * 9, b'{"a":' * 99_999])
def test_a_damaged_line_is_none(tmp_path, line):
    (tmp_path / "lines").write_bytes(b'{"a": 1}\n' + line + b'\n\n{"a": 2}\n')
    assert jsonl.read(tmp_path / "lines").records == [{"a": 1}, None, {"a": 2}]


def test_a_full_disk_keeps_nothing_of_a_line(tmp_path, monkeypatch):
    path, write = tmp_path / "lines", os.write
    jsonl.append(path, {"a": 1})
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="the disk is full"):
        jsonl.append(path, {"a": 2})
    assert path.read_bytes() == before


def test_private_files_are_for_their_owner_and_no_file_is_a_link(tmp_path):
    jsonl.append(tmp_path / "private", {}, private=True)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match="symbolic links"):
        jsonl.append(tmp_path / "link", {}, private=True)
    with pytest.raises(OSError, match="symbolic links"):
        jsonl.read(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        jsonl.read(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        jsonl.append(tmp_path / "pipe", {})


def test_long_lines_are_cut_and_numbered(tmp_path):
    (tmp_path / "lines").write_bytes(b"a" * 50 + b"\nb\n" + b"c" * 9)
    with open(tmp_path / "lines", "rb") as file:
        assert list(jsonl.limited_lines(file, 5, 100)) == [(1, b"a" * 6), (2, b"b\n"), (3, b"c" * 6)]
    with open(tmp_path / "lines", "rb") as file:
        assert [number for number, _ in jsonl.limited_lines(file, 5, 20)] == [1]
