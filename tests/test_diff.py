"""`diff`: what is different between two networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_study import fake_timing

import archdsl
from archdsl.cli.main import run
from archdsl.compiler import identity
from archdsl.language import load, loads
from archdsl.latency.cache.entry import Entry, checksum_of, key_of
from archdsl.report.spec_difference import UNSET, spec_difference


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_what_is_written_and_what_becomes_of_it() -> None:
    found = spec_difference(load("swin_t"), load("swin_free_t"))
    assert not found.same
    fields = {field.path: (field.one, field.other) for field in found.fields}
    assert fields["stages.1.window"] == ("7", "14") and fields["stages.3.shift"] == ("true", "false")
    assert set(fields) == {f"stages.{i}.shift" for i in range(4)} | {"stages.1.window", "stages.2.window"}
    counts = {count.name: (count.one, count.other) for count in found.counts}
    assert counts["parameters"] == (archdsl.cost("swin_t").params, archdsl.cost("swin_free_t").params)
    assert counts["reorders as drawn"] == (24, 12) and counts["reorders as compiled"] == (11, 4)
    ops = {op.name: op.other - op.one for op in found.ops}
    assert ops == {"Add": -5, "ShiftMask": -5}, "a shifted window has a mask, which is added"
    assert next(count for count in found.counts if count.name == "MACs").ratio == pytest.approx(1.049, abs=1e-3)


def test_two_ways_to_write_one_network_are_the_same() -> None:
    other = loads("{name: other, extends: micro_swin, stages: [{window: [4, 4]}, {}]}")
    base = load("micro_swin", set={"stages.0.window": 4})
    found = spec_difference(base, other)
    assert found.same and not found.ops
    assert [(field.path, field.one, field.other) for field in found.fields] == [("stages.0.window", "4", "[4, 4]")]
    assert all(count.one == count.other for count in found.counts)


def test_what_one_does_not_have_is_a_dash_and_descriptions_do_not_count() -> None:
    found = spec_difference(load("convnext_t"), load("resnet_50"))
    fields = {field.path: (field.one, field.other) for field in found.fields}
    assert fields["stem.patch"] == ("4", UNSET) and fields["stages.1.stride"] == (UNSET, "2")
    assert not {"name", "source", "expect.params"} & set(fields)


def entry(name: str, milliseconds: float, date: str, fingerprint: str = "null") -> Entry:
    """A row of the cache."""
    timing = fake_timing(milliseconds, date=f"{date}T00:00:00Z", graph_hash=identity(load(name)))
    key, body = key_of(timing.graph_hash, "deploy", fingerprint), json.dumps(timing.as_json(), sort_keys=True)
    return Entry(
        key, name, timing.graph_hash, fingerprint, "deploy", timing.date, body, checksum_of(key, body)
    )  # fmt: skip


def test_the_latest_timings_on_the_same_target_stand_beside_each_other() -> None:
    kept = [
        entry("micro_swin", 9.0, "2026-01-01"),
        entry("micro_swin", 2.0, "2026-02-01"),
        entry("micro_swin_free", 1.0, "2026-01-05"),
        entry("swin_t", 7.0, "2026-03-01"),
    ]
    one, other = load("micro_swin"), load("micro_swin_free")
    (latency,) = spec_difference(one, other, kept).latencies
    assert (latency.one_ms, latency.other_ms, latency.form) == (2.0, 1.0, "deploy")
    assert spec_difference(one, load("swin_t"), kept[:3]).latencies == ()
    elsewhere = [entry("micro_swin", 2.0, "2026-02-01"), entry("micro_swin_free", 1.0, "2026-01-05", "another target")]
    assert spec_difference(one, other, elsewhere).latencies == ()


def test_what_was_timed_here_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    assert run(["bench", "micro_swin", "micro_swin_free", "--seconds", "0.2"]) == 0
    capsys.readouterr()
    assert run(["diff", "micro_swin", "micro_swin_free"]) == 0
    shown = capsys.readouterr().out
    assert "latency, onnxruntime on cpu, fp32, batch 1" in shown and "`archdsl bench` takes them in turns" in shown


def test_the_command_takes_folders_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", "micro_swin", "-o", str(tmp_path / "built"), "--emit", "torch"]) == 0
    capsys.readouterr()
    assert run(["diff", "micro_swin", str(tmp_path / "built")]) == 0
    shown = capsys.readouterr().out
    assert "both are the same network" in shown
    assert run(["diff", "swin_t", "swin_free_t"]) == 0
    shown = capsys.readouterr().out
    assert "stages.1.window" in shown and "0.364" in shown and "-5 ShiftMask" in shown
    assert run(["diff", "swin_t", "swin_tt", "--json"]) == 1
    assert "swin_t" in told(capsys)["errors"][0]["hint"]
    (tmp_path / "empty").mkdir()
    assert run(["diff", "swin_t", str(tmp_path / "empty")]) == 1
