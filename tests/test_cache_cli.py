"""`archdsl cache`: what is listed, removed, exported and imported, and what becomes of everything that is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_timing import timing

from archdsl.cli.main import run
from archdsl.errors import ArchError
from archdsl.latency import CacheWarning, TimingCache
from archdsl.latency.cache.entry import Entry, checksum_of, key_of
from archdsl.latency.cache.interchange import MAX_LINE_BYTES
from archdsl.latency.cache.timings import CacheError, Filter, Merged
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.target import Target, resolve
from archdsl.telemetry.cpu import cpu_name

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(runtime="onnxruntime", device="cpu a processor"):
    return f"{runtime} 1.31.1 | {device} | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 1"


def network(graph_hash="abc", name="my_net", build="deploy"):
    return Artefact("null", graph_hash, (3, 4), name=name, build=build)


def put(cache, graph_hash, *, device="cpu a processor", **changes):
    one = timing(graph_hash=graph_hash, **changes)
    assert cache.put(network(graph_hash, f"net_{graph_hash}"), fingerprint(one.runtime, device), one)


def hashes(cache):
    return [entry.graph_hash for entry in cache.entries()]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    return TimingCache()


@pytest.fixture
def four(cache):
    """a: old; b: on torch; c: contended; d: damaged."""
    today = datetime.now(UTC)
    recent, long_ago = (f"{today - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for days in (29, 31))
    put(cache, "a", date=long_ago)
    put(cache, "b", date=recent, runtime="torch")
    put(cache, "c", date=recent, contended=True, contention="others used 50% of its cores")
    put(cache, "d", date=recent)
    change(cache, "UPDATE timings SET body = replace(body, '12.34', '12.30') WHERE graph_hash = 'd'")
    return cache


def change(cache, sql):
    with sqlite3.connect(cache.path) as connection:
        connection.execute(sql)
    connection.close()


def listed(capsys, *options):
    assert run(["cache", "ls", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    """The error text of a command that must end with 1, and say where."""
    assert run(["cache", *map(str, arguments)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err


def test_an_empty_cache_is_listed_and_not_made(cache, capsys):
    assert run(["cache", "ls"]) == 0
    assert capsys.readouterr().out == f"0 timings, 0B in {cache.path}\n"
    assert run(["cache", "prune", "--all"]) == 0
    assert run(["cache", "export", "-"]) == 0
    assert not cache.path.parent.exists()


def test_the_list_says_what_when_and_on_what(four, capsys):
    assert run(["cache", "ls"]) == 0
    shown = capsys.readouterr()
    for word in ("net_a", "onnxruntime 1.31.1", "torch", "a processor", "fp32", "deploy", "12.3 ms ± 0.2", "damaged"):
        assert word in shown.out
    assert shown.out.count("(contended)") == 1
    assert shown.out.rstrip().splitlines()[-1].startswith("4 timings, ")
    assert shown.out.rstrip().endswith(f"kB in {four.path}")
    assert "1 timing cannot be used" in shown.err


def test_the_list_as_json_has_all_facts(four, capsys):
    found = listed(capsys)
    assert (found["total"], found["damaged"], found["path"]) == (4, 1, str(four.path))
    assert found["size_bytes"] == sum(p.stat().st_size for p in four.path.parent.glob("timings.sqlite*"))
    first = found["timings"][0]
    assert first["network"] == "net_a" and first["fingerprint"] == fingerprint()
    assert (first["median_ms"], first["ci_low_ms"], first["batch"], first["threads"]) == (12.34, 12.15, 1, 1)
    assert [one["damaged"] for one in found["timings"]] == [False, False, False, True]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "abcd"),
        (["--on", "torch"], "b"),
        (["--on", "torch,onnxruntime"], "abcd"),
        (["--older-than", "30d"], "a"),
        (["--older-than", "28d"], "abcd"),
        (["--contended"], "c"),
        (["--contended", "--on", "torch"], ""),
    ],
)
def test_filters_list_what_all_of_them_take(four, capsys, options, expected):
    found = listed(capsys, *options)
    assert "".join(one["graph_hash"] for one in found["timings"]) == expected
    assert found["total"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "onnxruntme"], "did you mean `onnxruntime`"),
        (["--older-than", "30"], "--older-than is a time"),
        (["--older-than", "-1d"], "--older-than is a time"),
        (["--older-than", "nan d"], "--older-than is a time"),
        (["--older-than", "9" * 400 + "d"], "--older-than is a time"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(four, capsys, options, message):
    assert message in refused(capsys, "ls", *options)
    assert message in refused(capsys, "prune", *options)
    assert hashes(four) == list("abcd")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--on", "torch"], "acd"),
        (["--older-than", "30d"], "bcd"),
        (["--contended"], "abd"),
        (["--damaged"], "abc"),
        (["--damaged", "--on", "torch"], "abcd"),
        (["--all"], ""),
    ],
)
def test_prune_removes_what_all_filters_take_and_a_dry_run_nothing(four, capsys, options, left):
    gone = [one for one in "abcd" if one not in left]
    assert run(["cache", "prune", *options, "--dry-run", "--json"]) == 0
    assert [one["graph_hash"] for one in json.loads(capsys.readouterr().out)["removed"]] == gone
    assert hashes(four) == list("abcd")
    assert run(["cache", "prune", *options]) == 0
    assert f"{len(gone)} timing" in capsys.readouterr().out
    assert hashes(four) == list(left)


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--json"], ["--all", "--contended"]])
def test_prune_wants_to_know_what(four, capsys, options):
    assert run(["cache", "prune", *options]) == 1
    assert "[usage]" in capsys.readouterr().err
    assert hashes(four) == list("abcd")


@pytest.fixture
def gpu(monkeypatch):
    """Sets what this machine's GPU is called, None where nobody can say, and whether it has a driver."""
    from archdsl.latency.cache import entry as filters

    def set_gpu(name, driver):
        filters._gpu_here.cache_clear()
        monkeypatch.setattr(filters, "gpu_name", lambda: name)
        monkeypatch.setattr(filters, "has_gpu_driver", lambda: driver)

    yield set_gpu
    filters._gpu_here.cache_clear()


@pytest.mark.parametrize(
    ("name", "driver", "kept"),
    [("NVIDIA H100", True, ["h100"]), (None, True, ["a100", "h100"]), (None, False, [])],
    ids=["a GPU", "a GPU that cannot be asked", "no GPU"],
)
def test_prune_keeps_the_timings_of_a_gpu_that_cannot_be_asked(cache, capsys, gpu, name, driver, kept):
    """It is hidden by CUDA_VISIBLE_DEVICES, or torch is one for CPUs."""
    gpu(name, driver)
    for graph_hash, runtime, device in (("h100", "torch", "NVIDIA H100"), ("a100", "tensorrt", "NVIDIA A100")):
        put(cache, graph_hash, device=f"cuda {device}", runtime=runtime)
    assert run(["cache", "prune", "--other-machines"]) == 0
    assert sorted(hashes(cache)) == kept


def test_prune_removes_other_machines_timings_and_keeps_this_ones(cache, capsys, gpu):
    gpu(None, False)
    put(cache, "mine", device=f"cpu {cpu_name()}")
    put(cache, "theirs", device="cpu another processor")
    put(cache, "gpu", device="cuda another device")
    assert cache.put(
        network("counted"), resolve(Target("null")).fingerprint, timing(graph_hash="counted", runtime="null")
    )
    put(cache, "unknown", device=f"cpu {cpu_name()}", runtime="a_runtime_of_tomorrow")
    assert cache.put(network("odd"), "no fingerprint of ours", timing(graph_hash="odd"))
    assert run(["cache", "prune", "--other-machines"]) == 0
    assert sorted(hashes(cache)) == ["counted", "mine", "odd", "unknown"]


def test_prune_gives_room_back(cache, capsys):
    one = timing(environment={"filler": "x" * 20_000})
    for number in range(50):
        cache.put(network(build=str(number)), fingerprint(), one)
    before = cache.size_bytes()
    assert run(["cache", "prune", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] > 10**6
    assert cache.size_bytes() < before / 50


@pytest.mark.parametrize("sql", ["key = x'00ff'", "key = 'x' || char(7)", "build = x'ff'", "fingerprint = ''"])
def test_prune_removes_rows_whose_own_names_are_damaged(cache, capsys, sql):
    put(cache, "a")
    put(cache, "b")
    change(cache, f"UPDATE timings SET {sql} WHERE graph_hash = 'b'")
    assert run(["cache", "ls"]) == 0
    assert run(["cache", "prune", "--damaged"]) == 0
    assert hashes(cache) == ["a"]


def test_prune_removes_a_key_that_is_not_text_any_more(cache, capsys):
    put(cache, "a")
    put(cache, "b")
    key = key_of("b", "deploy", fingerprint())
    cache.path.write_bytes(cache.path.read_bytes().replace(key.encode(), b"\xff" + key.encode()[1:]))
    assert run(["cache", "prune", "--damaged"]) == 0
    assert hashes(cache) == ["a"]


def test_what_a_terminal_obeys_is_not_printed(cache, capsys):
    cache.put(network(name="\x1b[2J[red]evil[/]"), fingerprint(), timing())
    assert run(["cache", "ls"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[red]evil[/]" in shown


# --- export and import ------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    return TimingCache(tmp_path / "other")


def test_what_was_exported_is_imported_on_another_machine(four, other, tmp_path, monkeypatch, capsys):
    path = tmp_path / "timings.jsonl"
    assert run(["cache", "export", str(path)]) == 0
    assert capsys.readouterr().out == "3 timings exported; 1 damaged left out\n"
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(other.path.parent))
    assert run(["cache", "import", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"added": 3, "replaced": 0, "kept": 0}
    assert other.entries() == [entry for entry in four.entries() if entry.timing]
    assert run(["cache", "import", str(path)]) == 0
    assert capsys.readouterr().out == "0 timings added, 0 replaced, 3 kept as they were\n"


def test_standard_output_and_input_are_a_dash(four, other):
    def archdsl(folder, *arguments, **options):
        command = [sys.executable, "-m", "archdsl", "cache", *arguments]
        environment = {**os.environ, "ARCHDSL_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **options)

    out = archdsl(four.path.parent, "export", "-")
    assert (out.returncode, out.stdout.count("\n")) == (0, 3)
    assert "3 timings exported" in out.stderr
    taken = archdsl(other.path.parent, "import", "-", input=out.stdout)
    assert (taken.returncode, taken.stdout) == (0, "3 timings added, 0 replaced, 0 kept as they were\n"), taken.stderr
    wrong = archdsl(other.path.parent, "import", "-", input=out.stdout + "{")
    assert wrong.returncode == 1 and wrong.stderr.startswith("<stdin>:4:2: ")


def test_json_and_the_timings_do_not_share_standard_output(four, capsys):
    assert run(["cache", "export", "-", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_an_export_takes_the_place_of_an_export_and_of_nothing_else(four, tmp_path, capsys):
    path = tmp_path / "timings.jsonl"
    assert run(["cache", "export", str(path)]) == 0
    assert run(["cache", "export", str(path)]) == 0
    capsys.readouterr()
    path.write_text("name: my_net\n")
    assert "is no export" in refused(capsys, "export", path)
    assert path.read_text() == "name: my_net\n"
    before = four.path.read_bytes()
    assert "is no export" in refused(capsys, "export", four.path)
    assert four.path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "link", tmp_path, tmp_path / "pipe"):
        assert "is no export" in refused(capsys, "export", odd)
    assert "cannot be written" in refused(capsys, "export", tmp_path / "no" / "folder")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


CALM_OLD = {"date": "2026-01-01T00:00:00Z", "median_ms": 12.2}
CALM_NEW = {"date": "2026-01-02T00:00:00Z", "median_ms": 12.3}
LOUD = {"contended": True, "contention": "others used 50% of its cores"}


@pytest.mark.parametrize(
    ("there", "comes", "expected"),
    [
        (CALM_OLD, CALM_NEW, Merged(replaced=1)),
        (CALM_NEW, CALM_OLD, Merged(kept=1)),
        (CALM_OLD, CALM_OLD, Merged(kept=1)),
        (CALM_OLD, {**CALM_NEW, **LOUD}, Merged(kept=1)),
        ({**CALM_NEW, **LOUD}, CALM_OLD, Merged(replaced=1)),
        ({**CALM_OLD, **LOUD}, {**CALM_NEW, **LOUD}, Merged(replaced=1)),
        ({**CALM_NEW, **LOUD}, {**CALM_OLD, **LOUD}, Merged(kept=1)),
    ],
)
def test_peace_beats_contention_and_then_newer_beats_older(cache, other, there, comes, expected):
    put(cache, "a", **there)
    put(other, "a", **comes)
    assert cache.merge(other.entries()) == expected
    better = comes if expected.replaced else there
    assert cache.get(network("a"), fingerprint()) == timing(graph_hash="a", **better)


def test_an_import_mends_a_damaged_row(cache, other):
    put(cache, "a", **CALM_NEW)
    put(other, "a", **CALM_OLD)
    change(cache, "UPDATE timings SET checksum = 'x'")
    assert cache.merge(other.entries()) == Merged(replaced=1)
    assert cache.get(network("a"), fingerprint()) is not None


@pytest.fixture
def line(other, tmp_path):
    """One exported line as a mapping."""
    put(other, "abc")
    other.export(tmp_path / "line.jsonl")
    return json.loads((tmp_path / "line.jsonl").read_text())


def signed(line, **changes):
    """A line whose checksum fits its changed timing, as somebody who means harm would write it."""
    timing = {**line["timing"], **changes}
    return {**line, "timing": timing, "checksum": checksum_of(line["key"], json.dumps(timing, sort_keys=True))}


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


WRONG = {
    "not json": (lambda one: "hello", "1: a line is one JSON object: Expecting value [syntax]"),
    "cut": (lambda one: json.dumps(one)[:-9], "[syntax]"),
    "a list": (lambda one: "[1]", "1: a line is one JSON object, got list [wrong-type]"),
    "a number": (lambda one: "1", "got int [wrong-type]"),
    "another object": (lambda one: "{}", "begins with 'archdsl_timing' and its format [missing-key]"),
    "true as format": (lambda one: {**one, "archdsl_timing": True}, "[missing-key]"),
    "a newer format": (
        lambda one: {**one, "archdsl_timing": 2, "future": 1},
        "2: the timing is in format 2, this archdsl reads format 1 [version]",
    ),
    "deep": (lambda one: "[" * 60_000, "nested too deep [limit]"),
    "deep objects": (lambda one: '{"a":' * 12_000, "nested too deep [limit]"),
    "long": (lambda one: '"' + "x" * MAX_LINE_BYTES + '"', "at most 65_536 bytes"),
    "very long": (lambda one: " " * (5 << 20), "at most 65_536 bytes"),
    "a huge number": (lambda one: '{"archdsl_timing": ' + "9" * 6000 + "}", "too many digits [limit]"),
    "NaN": (lambda one: signed(one, median_ms=float("nan")), "NaN is no number in JSON"),
    "infinity": (lambda one: json.dumps(signed(one)).replace("12.34", "1e999"), "out-of-range"),
    "minus infinity": (lambda one: signed(one, load_average=float("-inf")), "-Infinity is no number"),
    "a twin key": (lambda one: '{"key": 1, "key": 2}', "2: 'key' stands twice in one object [duplicate-key]"),
    "an unknown key": (lambda one: {**one, "extra": 1}, "unknown key 'extra'"),
    "no key": (lambda one: without(one, "key"), "`key` is missing [missing-key]"),
    "no timing": (lambda one: without(one, "timing"), "`timing` is missing [missing-key]"),
    "a timing of text": (lambda one: {**one, "timing": "12 ms"}, "timing is an object, got '12 ms'"),
    "a hash of lists": (lambda one: {**one, "graph_hash": [[]]}, "graph_hash is a text, got a list"),
    "null": (lambda one: {**one, "network": None}, "network is a text, got None"),
    "escapes": (lambda one: {**one, "network": "\x1b[2J"}, "network has characters that cannot be printed"),
    "half a character": (lambda one: {**one, "build": "\ud800"}, "build has characters that cannot be printed"),
    "another key": (lambda one: {**one, "key": "0" * 64}, "the key does not fit"),
    "another build": (lambda one: {**one, "build": "drawn"}, "the key does not fit"),
    "another median": (lambda one: {**one, "timing": {**one["timing"], "median_ms": 12.3}}, "[checksum]"),
    "another graph": (lambda one: signed(one, graph_hash="def"), "the timing is of another graph"),
    "a missing field": (lambda one: signed({**one, "timing": without(one["timing"], "runs")}), "[missing-key]"),
    "an unknown field": (lambda one: signed(one, colour="red"), "[unknown-key]"),
    "text for a number": (lambda one: signed(one, median_ms="12.34"), "[wrong-type]"),
    "a fraction of runs": (lambda one: signed(one, runs=1.5), "[wrong-type]"),
    "no runs": (lambda one: signed(one, runs=0), "[out-of-range]"),
    "below zero": (lambda one: signed(one, p5_ms=-1.0), "[out-of-range]"),
    "an impossible interval": (lambda one: signed(one, ci_low_ms=13.0), "ci_low_ms <= median_ms"),
    "no date": (lambda one: signed(one, date="yesterday"), "got 'yesterday'"),
    "a loose date": (lambda one: signed(one, date="2026-1-2T3:4:5Z"), "a date is written"),
    "a lone surrogate in it": (lambda one: signed(one, device_name="\ud800"), "timing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_named_and_nothing_is_imported(cache, line, tmp_path, capsys, name):
    make, message = WRONG[name]
    text = make(line)
    text = text if isinstance(text, str) else json.dumps(text)
    path = tmp_path / "wrong.jsonl"
    path.write_text(f"{json.dumps(line)}\n\n{text}\n{json.dumps(line)}\n")
    shown = refused(capsys, "import", path)
    assert shown.startswith(f"{path}:3:")
    assert message in shown
    assert shown.count(f"{path}:") == shown.count(f"{path}:3:")
    assert len(shown) < 3000
    assert cache.entries() == []


def test_the_place_of_a_wrong_value_is_its_key(cache, line, tmp_path, capsys):
    path = tmp_path / "wrong.jsonl"
    text = json.dumps(signed(line, runs=0))
    path.write_text(text)
    column = text.index('"runs"') + 1
    assert refused(capsys, "import", path).startswith(f"{path}:1:{column}: ")


def test_bytes_that_are_no_text_are_placed(cache, tmp_path, capsys):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes('{"é": "'.encode() + b'\xff"}\n')
    assert refused(capsys, "import", path).startswith(f"{path}:1:8: a line is UTF-8 [encoding]")


def test_all_wrong_lines_of_all_files_are_named(cache, line, tmp_path, capsys):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(f"nope\n{json.dumps(line)}\nnope\n")
    second.write_text(json.dumps(signed(line, runs=0, warmup=-1)))
    assert run(["cache", "import", str(first), str(tmp_path / "none"), str(second), str(tmp_path), "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    places = [(Path(error["file"]).name, error["line"]) for error in errors]
    expected = [("first.jsonl", 1), ("first.jsonl", 3), ("none", 1), ("second.jsonl", 1), ("second.jsonl", 1)]
    assert places == [*expected, (tmp_path.name, 1)]
    assert cache.entries() == []


def test_an_endless_device_and_an_endless_line_are_refused(cache, tmp_path, capsys, monkeypatch):
    assert "neither a file nor a pipe" in refused(capsys, "import", "/dev/zero")
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    assert "at most 65_536 bytes" in refused(capsys, "import", path)


def test_an_import_has_a_limit(cache, line, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("archdsl.latency.cache.interchange.MAX_LINES", 3)
    path = tmp_path / "many.jsonl"
    path.write_text(f"{json.dumps(line)}\n" * 4)
    assert refused(capsys, "import", path).startswith(f"{path}:4:1: one import takes at most 3 timings")
    path.write_text(f"{json.dumps(line)}\n" * 3)
    assert cache.import_files([str(path)]) == Merged(added=1, kept=2)


def test_two_processes_importing_at_once_lose_nothing(cache, tmp_path):
    """Each brings 300 timings, half of them the same; of those the newer ones must be there in the end."""
    parts = [TimingCache(tmp_path / name) for name in ("one", "two")]
    for number, part in enumerate(parts):
        entries = []
        for i in range(300):
            name = f"both{i}" if i % 2 else f"{number}-{i}"
            newer = (i // 2) % 2 == number
            one = timing(graph_hash=name, **(CALM_NEW if newer else CALM_OLD))
            entries.append(Entry.of(network(name), fingerprint(), one))
        part.merge(entries)
        part.export(tmp_path / f"{number}.jsonl")
    go = tmp_path / "go"
    program = (
        "import sys, time, pathlib\n"
        "from archdsl.cli.main import run\n"
        "import archdsl.cli.cache\n"
        "pathlib.Path(sys.argv[2] + '.ready').touch()\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.001)\n"
        "sys.exit(run(['cache', 'import', sys.argv[2], '--json']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, go, tmp_path / f"{i}.jsonl"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    while len(list(tmp_path.glob("*.ready"))) < 2 and all(process.poll() is None for process in running):
        time.sleep(0.01)
    go.touch()
    told = [json.loads(process.communicate(timeout=50)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum(one["added"] for one in told) == 450
    assert sum(one["replaced"] + one["kept"] for one in told) == 150
    for i in range(1, 300, 2):
        assert cache.get(network(f"both{i}"), fingerprint()).date == CALM_NEW["date"]
    assert len(cache.entries()) == 450


def test_nobody_comes_between_an_imports_look_and_its_write(cache, monkeypatch):
    first, second, third = (
        Entry.of(network(), fingerprint(), timing(date=f"2026-01-0{day}T00:00:00Z")) for day in (1, 2, 3)
    )
    cache.merge([first])
    rival = threading.Thread(target=cache.merge, args=([third],))
    beats = Entry.beats

    def beats_while_a_rival_writes(self, other):
        if self is second:
            rival.start()
            rival.join(0.5)
        return beats(self, other)

    monkeypatch.setattr(Entry, "beats", beats_while_a_rival_writes)
    assert cache.merge([second]) == Merged(replaced=1)
    rival.join()
    assert cache.entries() == [third]


# --- the file itself --------------------------------------------------------------------------------------------------


def commands(tmp_path, line):
    path = tmp_path / "good.jsonl"
    path.write_text(json.dumps(line))
    return {
        "ls": ["ls"],
        "prune": ["prune", "--contended"],
        "export": ["export", str(tmp_path / "out.jsonl")],
        "import": ["import", str(path)],
    }


COMMANDS = ("ls", "prune", "export", "import")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_file_is_moved_aside_and_told(cache, line, tmp_path, capsys, command):
    cache.path.parent.mkdir()
    cache.path.write_bytes(b"not a database at all" * 100)
    assert run(["cache", *commands(tmp_path, line)[command]]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("warning: the timing cache was damaged") and "cache.py" not in shown
    aside = [path for path in cache.path.parent.iterdir() if ".corrupt-" in path.name]
    assert aside[0].read_bytes() == b"not a database at all" * 100
    assert len(cache.entries()) == (command == "import")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_archdsls_file_is_left_alone_and_told(cache, line, tmp_path, capsys, command):
    put(cache, "a")
    change(cache, "PRAGMA user_version = 99")
    before = cache.path.read_bytes()
    shown = refused(capsys, *commands(tmp_path, line)[command])
    assert "a newer archdsl wrote it (schema 99, this one knows 3) [cache]" in shown
    assert cache.path.read_bytes() == before


def test_a_full_disk_takes_the_whole_import_back(cache, line, tmp_path, capsys, monkeypatch):
    put(cache, "there")
    big = signed(line, environment={"filler": "x" * 30_000})
    path = tmp_path / "big.jsonl"
    path.write_text(f"{json.dumps(line)}\n{json.dumps(with_hash(big, 'big'))}\n")
    connect = sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 4")
        return connection

    monkeypatch.setattr(sqlite3, "connect", on_a_full_disk)
    assert "database or disk is full [cache]" in refused(capsys, "import", path)
    monkeypatch.undo()
    assert hashes(TimingCache(cache.path.parent)) == ["there"]


def with_hash(line, graph_hash):
    line = {**line, "graph_hash": graph_hash, "key": key_of(graph_hash, line["build"], line["fingerprint"])}
    return signed(line, graph_hash=graph_hash)


def test_a_full_disk_while_exporting_leaves_the_export_before(four, tmp_path, capsys, monkeypatch):
    path = tmp_path / "timings.jsonl"
    four.export(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written: No space left on device" in refused(capsys, "export", path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "timings.jsonl"]


@contextlib.contextmanager
def as_another_user():
    """File permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def guarded():
    """A cache that may be read, in a folder where nothing may be written, which another user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    cache = TimingCache(folder)
    put(cache, "a")
    cache.path.chmod(0o444)
    folder.chmod(0o555)
    yield cache
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_cache_is_read_and_every_change_is_refused(guarded, line, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(guarded.path.parent))
    entries = guarded.entries()
    assert len(entries) == 1
    with as_another_user():
        assert guarded.get(network("a"), fingerprint()) == timing(graph_hash="a")
        assert run(["cache", "ls"]) == 0
        assert "net_a" in capsys.readouterr().out
        assert run(["cache", "export", "-"]) == 0
        assert capsys.readouterr().out.count("\n") == 1
        assert "could not be written: attempt to write a readonly database" in refused(capsys, "prune", "--all")
        with pytest.raises(CacheError, match="could not be written"):
            guarded.merge(entries)
        with pytest.warns(CacheWarning, match="could not be written"):
            assert not guarded.put(network("b"), fingerprint(), timing(graph_hash="b"))
        assert [p.name for p in guarded.path.parent.iterdir() if p.suffix != ".lock"] == ["timings.sqlite"]


def test_an_old_schema_where_nothing_may_be_written_is_told(guarded, capsys, monkeypatch):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(guarded.path.parent))
    guarded.path.chmod(0o644)
    shutil.copyfile(ROOT / "tests" / "data" / "timings_schema_1.sqlite", guarded.path)
    guarded.path.chmod(0o444)
    with as_another_user():
        assert "it is of schema 1 and cannot be brought to 3" in refused(capsys, "ls")


def test_prune_of_the_library_wants_to_know_what_too(four):
    with pytest.raises(ArchError, match="nothing says what to remove"):
        four.prune(Filter())
