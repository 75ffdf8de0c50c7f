"""The timing cache: nothing is taken twice, and nothing that happens to its file stops a measurement."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_timing import timing

from archdsl.cli import doctor
from archdsl.cli.main import run
from archdsl.errors import ArchError, MeasureError
from archdsl.failures import failed
from archdsl.files import cache_folder, why_no_cache
from archdsl.latency import CacheWarning, TimingCache, Worker, measure
from archdsl.latency.cache.file import MIGRATIONS, SCHEMA
from archdsl.latency.cache.quarantine import Quarantine
from archdsl.latency.cache.timings import Filter
from archdsl.latency.repeatability import Repeat
from archdsl.latency.timing import utc_now
from archdsl.runtimes.artefact import Artefact, Reference
from archdsl.runtimes.registry import RUNTIMES
from archdsl.runtimes.target import METHOD, Target, resolve
from archdsl.telemetry.device_lock import device_lock
from archdsl.training import parse_source

ROOT = Path(__file__).resolve().parents[1]
FINGERPRINT = "a runtime 1 | cpu | fp32"


def network(graph_hash="abc", **fields):
    return Artefact(**{"kind": "null", "graph_hash": graph_hash, "input_shape": (3, 4), **fields})


@pytest.fixture
def cache(tmp_path):
    return TimingCache(tmp_path)


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warnings")
def test_what_was_put_is_got(cache):
    assert cache.get(network(), FINGERPRINT) is None
    assert cache.put(network(), FINGERPRINT, timing())
    assert cache.get(network(), FINGERPRINT) == timing()


@pytest.mark.promise(25)
@pytest.mark.usefixtures("no_warnings")
def test_another_graph_target_or_build_is_a_miss(cache):
    cache.put(network(), FINGERPRINT, timing())
    assert cache.get(network("abd"), FINGERPRINT) is None
    assert cache.get(network(), FINGERPRINT + " | batch 8") is None
    assert cache.get(network(build="deploy"), FINGERPRINT) is None


@pytest.mark.usefixtures("no_warnings")
def test_a_contended_timing_does_not_replace_one_taken_in_peace(cache):
    contended = timing(median_ms=12.4, contended=True, contention="others used 50% of its cores")
    assert cache.put(network(), FINGERPRINT, contended)
    assert cache.put(network(), FINGERPRINT, timing())
    assert not cache.put(network(), FINGERPRINT, contended)
    assert cache.get(network(), FINGERPRINT) == timing()


@pytest.mark.promise(42)
def test_the_file_can_be_read_by_nobody_else(cache):
    cache.put(network(), FINGERPRINT, timing())
    for path in cache.path.parent.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path.name


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder: none in the environment, and no entry in the user database."""

    def no_entry(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for name in ("HOME", "XDG_CACHE_HOME", "ARCHDSL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr("archdsl.latency.cache.file._said", set())


@pytest.mark.usefixtures("homeless")
def test_without_a_home_a_command_works_and_says_once_that_nothing_is_kept(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(CacheWarning, match="no home folder; ARCHDSL_CACHE_DIR names another folder") as said:
        assert run(["bench", "micro_swin", "micro_swin_free", "--on", "null", "--json"]) == 0
    assert len([warning for warning in said if warning.category is CacheWarning]) == 1
    assert len(json.loads(capsys.readouterr().out)["results"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_cache_and_doctor_say_so_and_a_path_of_the_home_is_not_there(capsys):
    assert run(["cache", "ls"]) == 1
    assert "because this user has no home folder [cache]" in capsys.readouterr().err
    assert [finding.ready for finding in doctor._machine() if finding.subject == "timing cache"] == [False]
    with pytest.raises(ArchError, match="~/images"):
        parse_source("imagefolder:~/images").open((8, 8))
    with device_lock("cpu"):
        pass


@pytest.mark.parametrize("place", ["file", "file/folder", "pipe", "dangling link"])
def test_where_no_folder_can_be_made_it_is_said_once(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling link").symlink_to(tmp_path / "nowhere" / "below")
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / place))

    def use_it_twice():
        for cached in (TimingCache(), TimingCache()):
            assert not cached.put(network(), FINGERPRINT, timing())
            cached.note(Repeat("here", "key", 1.0, "2026-01-01T00:00:00Z"))
            assert Quarantine().note(network(), FINGERPRINT, failed("crash", "it crashed", where="null"))

    with pytest.warns(CacheWarning, match="could not be made") as said:
        use_it_twice()
    assert len(said) == 1
    assert why_no_cache(tmp_path / "new" / "folder") is None


def test_a_folder_that_may_not_be_written_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how, **more: False)
    assert why_no_cache(tmp_path).endswith("cannot be written")


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("ARCHDSL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert TimingCache().path == Path("/somewhere/archdsl/timings.sqlite")
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", "/elsewhere")
    assert TimingCache().path == Path("/elsewhere/timings.sqlite")
    monkeypatch.delenv("ARCHDSL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    assert cache_folder() == Path.home() / ".cache" / "archdsl"


def change(path, sql):
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE timings SET body = replace(body, '12.34', '2.34')",
        "UPDATE timings SET checksum = 'x'",
        "UPDATE timings SET body = x'00ff'",
        "UPDATE timings SET body = ''",
        "UPDATE timings SET key = 'x'",
    ],
)
@pytest.mark.usefixtures("no_warnings")
def test_a_damaged_row_is_a_miss_and_is_replaced(cache, sql):
    cache.put(network(), FINGERPRINT, timing())
    change(cache.path, sql)
    assert cache.get(network(), FINGERPRINT) is None
    assert cache.put(network(), FINGERPRINT, timing())
    assert cache.get(network(), FINGERPRINT) == timing()


@pytest.mark.usefixtures("no_warnings")
def test_a_row_copied_from_another_target_is_a_miss(cache):
    cache.put(network(), FINGERPRINT, timing())
    cache.put(network(), "other", timing(median_ms=12.4))
    rows = "(SELECT {0} FROM timings WHERE fingerprint = 'other')"
    change(cache.path, f"UPDATE timings SET body = {rows.format('body')}, checksum = {rows.format('checksum')}")
    assert cache.get(network(), FINGERPRINT) is None


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=str)
def test_a_file_that_is_no_database_is_moved_aside_with_a_note(cache, content):
    cache.path.write_bytes(content)
    with pytest.warns(CacheWarning, match="was damaged"):
        assert cache.get(network(), FINGERPRINT) is None
    assert cache.put(network(), FINGERPRINT, timing())
    assert cache.get(network(), FINGERPRINT) == timing()
    aside = [path for path in cache.path.parent.iterdir() if ".corrupt-" in path.name]
    assert len(aside) == 1
    assert aside[0].read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 50, 100, 1000, 4096, 6000])
def test_a_cut_file_never_stops_anything(cache, size):
    cache.put(network(), FINGERPRINT, timing())
    cache.path.write_bytes(cache.path.read_bytes()[:size])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert cache.get(network(), FINGERPRINT) in (None, timing())
        cache.put(network(), FINGERPRINT, timing())
        assert cache.get(network(), FINGERPRINT) == timing()


@pytest.mark.promise(25)
def test_no_flipped_byte_gives_a_wrong_timing_or_an_error(cache):
    """Every byte of the header and the schema, and some of the rest, is spoilt once."""
    cache.put(network(), FINGERPRINT, timing())
    sound = cache.path.read_bytes()
    text = sound.index(b"CREATE TABLE")
    positions = {*range(110), *range(text - 60, text + 260, 5), *range(0, len(sound), 97)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for position in sorted(positions):
            spoilt = bytearray(sound)
            spoilt[position] ^= 0xFF
            for path in cache.path.parent.iterdir():
                path.unlink()
            cache.path.write_bytes(bytes(spoilt))
            assert cache.get(network(), FINGERPRINT) in (None, timing()), position
            cache.put(network(), FINGERPRINT, timing())
            assert cache.get(network(), FINGERPRINT) in (None, timing()), position


@pytest.mark.parametrize(
    ("sound", "spoilt"),
    [
        (b"checksum TEXT", b"checksun TEXT"),
        (b"checksum TEXT", b"checksum\x8bTEXT"),
        (b"CREATE TABLE", b"CREATE T\xbeBLE"),
    ],
    ids=str,
)
def test_a_damaged_schema_is_moved_aside(cache, sound, spoilt):
    cache.put(network(), FINGERPRINT, timing())
    cache.path.write_bytes(cache.path.read_bytes().replace(sound, spoilt))
    with pytest.warns(CacheWarning, match="was damaged"):
        assert cache.get(network(), FINGERPRINT) is None
    assert cache.put(network(), FINGERPRINT, timing())
    assert cache.get(network(), FINGERPRINT) == timing()


def test_a_newer_version_is_left_alone(cache):
    cache.put(network(), FINGERPRINT, timing())
    change(cache.path, "PRAGMA user_version = 99")
    before = cache.path.read_bytes()
    with pytest.warns(CacheWarning, match="a newer archdsl wrote it"):
        assert not cache.put(network(), FINGERPRINT, timing())
    assert cache.path.read_bytes() == before


OLD_FINGERPRINT = "onnxruntime 1.31.1 | cpu a processor | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 1"


@pytest.fixture
def old(cache):
    """A cache whose file the archdsl of schema 1 wrote: `abc` taken in peace, `def` contended."""
    shutil.copyfile(ROOT / "tests" / "data" / "timings_schema_1.sqlite", cache.path)
    return cache


def rows(path, sql="SELECT key, graph_hash, fingerprint, build, date, body, checksum FROM timings"):
    connection = sqlite3.connect(path)
    found = connection.execute(sql).fetchall()
    connection.close()
    return found


@pytest.mark.usefixtures("no_warnings")
def test_a_file_of_schema_1_is_migrated_and_keeps_its_timings(old, tmp_path):
    before = rows(old.path)
    assert rows(old.path, "PRAGMA user_version") == [(1,)] and len(before) == 2
    assert old.get(network(build="deploy"), OLD_FINGERPRINT) == timing()
    assert rows(old.path) == before
    assert rows(old.path, "SELECT DISTINCT network FROM timings") == [("",)]
    assert rows(old.path, "PRAGMA user_version") == [(SCHEMA,)]
    assert old.put(network(build="deploy", name="my_net"), OLD_FINGERPRINT, timing(median_ms=12.2))
    assert rows(old.path, "SELECT network FROM timings ORDER BY network") == [("",), ("my_net",)]
    new = TimingCache(tmp_path / "new")
    new.put(network(), FINGERPRINT, timing())
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    assert dict(rows(old.path, tables)) == dict(rows(new.path, tables))


@pytest.mark.usefixtures("no_warnings")
def test_a_file_of_schema_2_is_migrated_and_keeps_its_timings(cache, tmp_path):
    """Its timings are of an archdsl that knew nothing of sittings: they are listed, and say so by their defaults."""
    shutil.copyfile(ROOT / "tests" / "data" / "timings_schema_2.sqlite", cache.path)
    before = rows(cache.path, "SELECT * FROM timings")
    assert rows(cache.path, "PRAGMA user_version") == [(2,)] and len(before) == 2
    assert [entry.network for entry in cache.entries()] == ["my_net", "other_net"]
    found = cache.get(network(build="deploy"), OLD_FINGERPRINT)
    assert (found, found.sittings, found.repeats, found.peak_memory_bytes) == (timing(), 1, 0, None)
    assert rows(cache.path, "SELECT * FROM timings") == before
    assert rows(cache.path, "PRAGMA user_version") == [(SCHEMA,)]
    new = TimingCache(tmp_path / "new")
    new.put(network(), FINGERPRINT, timing())
    tables = "SELECT name, sql FROM sqlite_master"
    assert dict(rows(cache.path, tables)) == dict(rows(new.path, tables))


def test_a_timing_of_an_older_method_is_listed_but_not_served(old):
    assert len(old.entries()) == 2
    assert resolve(Target("null")).fingerprint.endswith(f"method {METHOD}") and METHOD > 1


def test_the_key_of_a_timing_stays_what_it_was_when_a_release_measures_as_before(monkeypatch):
    """What archdsl 0.1.0 wrote; the installed release has no part in it."""
    monkeypatch.setattr("importlib.metadata.version", lambda package: "9.9.9")
    found = [
        resolve(target).fingerprint for target in (Target("null"), Target("null", precision="bf16", batch=8, threads=2))
    ]
    assert found == [
        "null 1 | cpu no device | fp32 | batch 1 | threads 1 | archdsl 0.1.0 | method 2",
        "null 1 | cpu no device | bf16 | batch 8 | threads 2 | archdsl 0.1.0 | method 2",
    ]


def test_there_is_a_migration_for_every_schema():
    assert list(MIGRATIONS) == list(range(SCHEMA))


@pytest.mark.usefixtures("no_warnings")
def test_a_row_too_damaged_to_migrate_does_not_keep_the_others_back(old):
    change(old.path, "PRAGMA writable_schema = 1")
    with sqlite3.connect(old.path) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'body TEXT NOT NULL', 'body TEXT')")
    connection.close()
    change(old.path, "UPDATE timings SET body = NULL WHERE graph_hash = 'def'")
    with sqlite3.connect(old.path) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'body TEXT', 'body TEXT NOT NULL')")
    connection.close()
    assert old.get(network(build="deploy"), OLD_FINGERPRINT) == timing()
    assert [entry.graph_hash for entry in old.entries()] == ["abc"]


def test_a_migration_that_fails_half_way_leaves_the_file_as_it_was(old, monkeypatch):
    before = rows(old.path)
    monkeypatch.setitem(MIGRATIONS, 1, (*MIGRATIONS[1], "INSERT INTO timings SELECT * FROM timings_of_another_day"))
    with pytest.warns(CacheWarning, match="could not be read: no such table"):
        assert old.get(network(build="deploy"), OLD_FINGERPRINT) is None
    monkeypatch.undo()
    assert rows(old.path, "PRAGMA user_version") == [(1,)]
    assert rows(old.path) == before
    assert old.get(network(build="deploy"), OLD_FINGERPRINT) == timing()


def test_a_full_disk_while_migrating_leaves_the_file_as_it_was(old, monkeypatch):
    change(old.path, "PRAGMA journal_mode = WAL")
    before, connect = rows(old.path), sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", on_a_full_disk)
    with pytest.warns(CacheWarning, match="full"):
        assert old.get(network(build="deploy"), OLD_FINGERPRINT) is None
    monkeypatch.undo()
    assert rows(old.path, "PRAGMA user_version") == [(1,)]
    assert rows(old.path) == before


def test_eight_processes_migrate_one_file_once(old):
    program = """
        import sys, time, warnings
        from pathlib import Path
        from archdsl.latency import TimingCache
        from archdsl.latency.cache.file import MIGRATIONS
        MIGRATIONS[1] = (*MIGRATIONS[1], "UPDATE timings SET date = date || '!'")
        folder = Path(sys.argv[1])
        (folder / f"{sys.argv[2]}.ready").touch()
        while not (folder / "go").exists():
            time.sleep(0.001)
        assert len(TimingCache(folder).entries()) == 2
    """
    folder = old.path.parent
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    readers = [
        subprocess.Popen([*command, str(i)], env=environment, stderr=subprocess.PIPE, text=True) for i in range(8)
    ]
    while len(list(folder.glob("*.ready"))) < 8 and all(reader.poll() is None for reader in readers):
        time.sleep(0.01)
    (folder / "go").touch()
    errors = [reader.communicate(timeout=50)[1] for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * 8, errors
    assert sorted(rows(old.path, "SELECT date FROM timings")) == [
        ("2025-12-31T23:59:59Z!",),
        ("2026-01-02T03:04:05Z!",),
    ]
    assert not [path for path in folder.iterdir() if "corrupt" in path.name]


def test_another_programs_database_is_left_alone(cache):
    change(cache.path, "CREATE TABLE passwords (secret TEXT)")
    before = cache.path.read_bytes()
    with pytest.warns(CacheWarning, match="another program"):
        assert cache.get(network(), FINGERPRINT) is None
    with pytest.warns(CacheWarning, match="another program"):
        assert not cache.put(network(), FINGERPRINT, timing())
    assert cache.path.read_bytes() == before


def test_a_link_or_a_folder_or_a_pipe_in_its_place_is_not_followed(cache, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    cache.path.symlink_to(victim)
    with pytest.warns(CacheWarning, match="could not be written"):
        assert not cache.put(network(), FINGERPRINT, timing())
    assert victim.read_bytes() == b""
    cache.path.unlink()
    cache.path.mkdir()
    with pytest.warns(CacheWarning, match="could not be written"):
        assert not cache.put(network(), FINGERPRINT, timing())
    cache.path.rmdir()
    os.mkfifo(cache.path)
    with pytest.warns(CacheWarning, match="not a regular file"):
        assert not cache.put(network(), FINGERPRINT, timing())


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(CacheWarning, match="could not be made"):
        assert not TimingCache(tmp_path / "file" / "folder").put(network(), FINGERPRINT, timing())


@pytest.mark.parametrize("filled", [False, True], ids=["while creating", "while writing"])
def test_a_full_disk_costs_the_row_and_not_the_measurement(cache, monkeypatch, filled):
    if filled:
        cache.put(network("first"), FINGERPRINT, timing(graph_hash="first"))
    connect = sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", on_a_full_disk)
    big = network(macs=10**6, name="big", build="x" * 20_000)
    with Worker() as worker, pytest.warns(CacheWarning, match="full"):
        assert measure(big, Target("null"), cache=cache, worker=worker).median_ms > 0
    monkeypatch.undo()
    assert cache.put(network(), FINGERPRINT, timing())
    if filled:
        assert cache.get(network("first"), FINGERPRINT) is not None


@pytest.mark.promise(25)
def test_eight_writers_at_once_lose_nothing(cache):
    program = """
        import sys, time, warnings
        from pathlib import Path
        from archdsl.latency import Timing, TimingCache
        from archdsl.runtimes.artefact import Artefact
        from archdsl.runtimes.target import Target
        folder, me, body = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        while not (folder / "go").exists():
            time.sleep(0.001)
        cache, one = TimingCache(folder), Timing.model_validate_json(body)
        for i in range(20):
            name = f"{me if i % 2 else 'shared'}-{i}"
            mine = one.model_copy(update={"graph_hash": name})
            assert cache.put(Artefact("null", name, (3,)), "f", mine)
            assert cache.get(Artefact("null", name, (3,)), "f") == mine
    """
    folder = cache.path.parent
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    body = timing().model_dump_json()
    writers = [
        subprocess.Popen([*command, str(i), body], env=environment, stderr=subprocess.PIPE, text=True) for i in range(8)
    ]
    (folder / "go").touch()
    errors = [writer.communicate(timeout=50)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, errors
    for i in range(20):
        for name in [f"{me}-{i}" for me in range(8)] if i % 2 else [f"shared-{i}"]:
            assert cache.get(Artefact("null", name, (3,)), "f").graph_hash == name


@pytest.mark.usefixtures("no_warnings")
def test_a_timing_from_the_cache_starts_no_worker(cache):
    target = Target("null")
    with Worker() as worker:
        first = measure(network(macs=10**6), target, cache=cache, worker=worker)
    with Worker() as worker:
        assert measure(network(macs=10**6), target, cache=cache, worker=worker) == first
        assert worker.pid is None
        measure(network(macs=10**6), target, cache=cache, worker=worker, refresh=True)
        assert worker.pid is not None


def test_the_gate_is_passed_even_when_the_time_is_known(cache, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")
    x = np.ones((1, 3, 4), np.float32)
    expected = Reference(x, x.reshape(1, -1)[:, :2].copy())
    options = {"target": Target("faulty"), "cache": cache, "budget_s": 0.05, "reference": expected}
    with Worker() as worker:
        good, bad = (network(kind="spec", text=text) for text in ("none", "corrupt weight"))
        first = measure(good, worker=worker, **options)
        assert measure(good, worker=worker, **options) == first
        with pytest.raises(MeasureError, match="differs by"):
            measure(bad, worker=worker, **options)


def test_a_failed_measurement_is_not_kept(cache, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")
    with Worker() as worker, pytest.raises(MeasureError, match="NaN"):
        measure(network(kind="spec", text="nan"), Target("faulty"), cache=cache, worker=worker)
    assert cache.get(network(kind="spec", text="nan"), resolve(Target("faulty")).fingerprint) is None


def repeat(median_ms=1.0, key="k", place="here", date=None):
    return Repeat(place, key, median_ms, date or utc_now())


@pytest.mark.usefixtures("no_warnings")
def test_repeats_are_kept_by_place_in_their_order(cache):
    assert cache.repeats("here") == []
    taken = [repeat(1.0), repeat(1.1, key="l"), repeat(1.2)]
    for one in (taken[0], repeat(9.0, place="there"), *taken[1:]):
        cache.note(one)
    assert cache.repeats("here") == taken


@pytest.mark.usefixtures("no_warnings")
def test_only_the_latest_repeats_of_a_place_are_kept_and_none_that_is_old(cache, monkeypatch):
    monkeypatch.setattr("archdsl.latency.cache.timings.MOST_REPEATS", 3)
    cache.note(repeat(5.0, place="there"))
    cache.note(repeat(1.0, date="2020-01-01T00:00:00Z"))
    assert cache.repeats("here") == [] and rows(cache.path, "SELECT count(*) FROM repeats") == [(1,)]
    for i in range(5):
        cache.note(repeat(float(i + 1)))
    assert [one.median_ms for one in cache.repeats("here")] == [3.0, 4.0, 5.0]
    assert len(cache.repeats("there")) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE repeats SET median_ms = 0.9",
        "UPDATE repeats SET median_ms = 'x'",
        "UPDATE repeats SET median_ms = -1.0",
        "UPDATE repeats SET median_ms = 9e999",
        "UPDATE repeats SET key = 'other'",
        "UPDATE repeats SET checksum = x'00ff'",
    ],
)
@pytest.mark.usefixtures("no_warnings")
def test_a_damaged_repeat_does_not_count(cache, sql):
    cache.note(repeat(1.0))
    change(cache.path, sql)
    cache.note(repeat(2.0))
    assert [one.median_ms for one in cache.repeats("here")] == [2.0]


@pytest.mark.parametrize(
    "wrong",
    [repeat(0.0), repeat(float("inf")), repeat(date="yesterday, long after 2020")],
    ids=["zero", "infinite", "no date"],
)
def test_a_repeat_that_makes_no_sense_does_not_count(cache, wrong):
    cache.note(wrong)
    assert cache.repeats("here") == []


def test_a_cache_that_cannot_be_used_costs_the_repeat_and_not_the_measurement(tmp_path):
    (tmp_path / "timings.sqlite").mkdir()
    cache = TimingCache(tmp_path)
    with pytest.warns(CacheWarning, match="timing cache"):
        assert cache.repeats("here") == []
    with pytest.warns(CacheWarning, match="timing cache"):
        cache.note(repeat())


def test_pruning_everything_forgets_the_repeats_where_there_are_no_timings_too(cache):
    cache.note(repeat())
    assert cache.prune(Filter(), everything=True, dry_run=True) == []
    assert cache.repeats("here")
    assert cache.prune(Filter(), everything=True) == []
    assert cache.repeats("here") == []


def test_pruning_makes_no_file(cache):
    assert cache.prune(Filter(), everything=True) == []
    assert not cache.path.exists()


def test_pruning_everything_forgets_the_repeats_and_pruning_some_does_not(cache):
    cache.put(network(), FINGERPRINT, timing())
    cache.note(repeat())
    cache.prune(Filter(runtimes=("onnxruntime",)))
    assert cache.repeats("here")
    cache.put(network(), FINGERPRINT, timing())
    cache.prune(Filter(), everything=True)
    assert cache.repeats("here") == []
