"""What a search writes: CSV, specs, pictures; and that it overwrites nothing that is not its own."""

from __future__ import annotations

import csv
import io
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_study import FakeTraining, fake_campaign, fake_space, fake_timing
from rich.console import Console

from archdsl import build, cost, identity, load
from archdsl.errors import ArchError
from archdsl.events import EpochEnded
from archdsl.language.text.quantities import count_text
from archdsl.report.front_csv import columns, front_csv
from archdsl.report.front_picture import axis, front_scatter, front_svg
from archdsl.report.front_rows import FrontRow, front_rows
from archdsl.report.front_specs import MARK, front_spec
from archdsl.report.front_table import front_table
from archdsl.report.live import Progress
from archdsl.runs.folder import RunFolder
from archdsl.study.events import Began, StepBegan, TrialBegan, TrialEnded
from archdsl.study.front.pareto import Front, front_of
from archdsl.study.objectives import OBJECTIVES
from archdsl.study.record import Record

BOTH = (OBJECTIVES["accuracy"], OBJECTIVES["latency"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Front, tuple[FrontRow, ...]]:
    folder = tmp_path_factory.mktemp("study")
    noisy = lambda spec: fake_timing(cost(spec).macs / 1e6, 0.05)  # noqa: E731
    records = fake_campaign(folder, training=FakeTraining(), latency=noisy, trials=16).run().records
    front = front_of(records, BOTH)
    return front, front_rows(front, fake_space())


def test_rows_say_what_differs_from_the_base(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    _, rows = study
    space = fake_space()
    for row in rows:
        parts = [part for part in row.differs.split(", ") if part and "{" not in part and "}" not in part]
        changed = dict(part.rsplit(" ", 1) for part in parts)
        settings = space.values_of(row.record.assignment)
        base = space.values_of(space.assignment_of(space.base) or {})
        expected = {path: value for path, value in settings.items() if base[path] != value and path != "defaults"}
        assert changed.keys() - {"defaults"} == set(expected)
    assert len({row.name for row in rows}) == len(rows)


def test_the_csv_has_a_line_for_each_network_with_plain_numbers(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    _, rows = study
    lines = list(csv.DictReader(io.StringIO(front_csv(rows))))
    assert len(lines) == len(rows) >= 2
    for line, row in zip(lines, rows, strict=True):
        assert tuple(line) == columns()
        assert row.record.accuracy is not None
        assert row.record.timing is not None
        assert float(line["accuracy"]) == row.record.accuracy.mean
        assert float(line["latency_ms"]) == row.record.timing.median_ms
        assert float(line["latency_low_ms"]) < float(line["latency_ms"]) < float(line["latency_high_ms"])
        assert int(line["params"]) == cost(row.spec).params
        assert line["spec"] == f"front/{row.name}.yaml"


def test_each_spec_of_the_front_loads_as_the_network_it_was(
    study: tuple[Front, tuple[FrontRow, ...]], tmp_path: Path
) -> None:
    _, rows = study
    for row in rows:
        path = tmp_path / f"{row.name}.yaml"
        path.write_text(front_spec(row, "fake"))
        spec = load(path)
        assert identity(spec) == row.record.hash
        assert spec.name == row.name
        assert spec.expect is not None
        assert (spec.expect.params, spec.expect.macs) == (cost(spec).params, cost(spec).macs)
    build(spec)


def test_text_from_outside_stays_inside_its_comment(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    _, rows = study
    text = front_spec(rows[0], "evil\nname: other\x1b[31m\u2028more")
    assert text.splitlines()[0] == f"{MARK} evil\\nname: other\\x1b[31m\\u2028more, trial {rows[0].record.number}"


def test_the_table_shows_spread_interval_and_counts(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    _, rows = study
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(front_table(rows, "title"))
    text = console.export_text()
    for row in rows:
        assert row.record.accuracy is not None
        assert f"{row.record.accuracy.mean:.3f} ± " in text
        assert str(row.record.timing) in text
        assert "used the same cores" not in text
        assert count_text(row.record.macs) in text


def test_a_contended_latency_is_marked(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    row = study[1][0]
    timing = fake_timing(1.0, 0.1, contended=True, contention="others used 90% of its cores")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(front_table([replace(row, record=replace(row.record, timing=timing))], "title"))
    text = console.export_text()
    assert "1.0 ms ± 0.1*" in text
    assert "* other processes used the same cores" in text


def test_the_picture_is_valid_svg_with_axes_units_and_error_bars(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    front, rows = study
    svg = front_svg(front, [row.name for row in rows], "a title")
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"accuracy", "latency (ms)", "a title", *(row.name for row in rows)} <= set(texts)
    circles = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles.count("front") == len(rows)
    assert len(circles) == len(rows) + len(front.contenders) + len(front.others)
    bars = [element for element in root.iter("{http://www.w3.org/2000/svg}line") if element.get("class") == "bar"]
    assert len(bars) == 2 * len(rows)
    assert "prefers-color-scheme: dark" in svg
    for element in root.iter():
        for key in ("x", "y", "cx", "cy", "x1", "y1", "x2", "y2"):
            assert -1 <= float(element.get(key, 0)) <= 761


XSS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]>",
    "&lt;",
    "a\x00b\x1b",
    "' onload='x",
    "<!--",
]


@pytest.mark.parametrize("text", XSS)
def test_names_cannot_break_out_of_the_picture(study: tuple[Front, tuple[FrontRow, ...]], text: str) -> None:
    front, rows = study
    svg = front_svg(front, [text for _ in rows], text)
    root = ET.fromstring(svg)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "rect", "text", "line", "path", "circle"}
    assert "<script" not in svg.replace("<style>", "")


def test_the_terminal_scatter_marks_front_and_rest(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    front, rows = study
    text = front_scatter(front, width=60, height=12)
    assert 1 <= text.count("●") <= len(rows)
    assert "·" in text
    assert "latency (ms)" in text
    assert text.startswith("accuracy")
    assert front_scatter(Front(BOTH, (), (), ())) == ""


@pytest.mark.parametrize(
    "values", [[1.0], [0.0], [-5, 5], [1e-9, 2e-9], [95128, 95448], [0.999, 1.0], [1e12, 1e3], [0.2, 1.0], []]
)
def test_an_axis_holds_its_values_between_round_ticks(values: list[float]) -> None:
    found = axis(values, 0, 100)
    assert all(found.low <= value <= found.high for value in values)
    assert 2 <= len(found.ticks) <= 12
    for tick in found.ticks:
        text = found.label(tick)
        shown = float(text.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
        assert shown == pytest.approx(tick, rel=1e-3, abs=1e-12), "a tick stands where its label says"


def test_an_axis_of_accuracies_ends_at_one() -> None:
    assert axis([0.5, 1.0], 0, 100, least=0.0, most=1.0).ticks[-1] == pytest.approx(1.0)


# --- the folder -----------------------------------------------------------------------------------------------------


def write(folder: RunFolder, study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    folder.write_front(*study, "fake", "title")


def test_the_folder_holds_the_front_and_can_be_written_again(
    study: tuple[Front, tuple[FrontRow, ...]], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.describe({"study": "fake"})
    write(folder, study)
    before = {path.relative_to(tmp_path): path.read_bytes() for path in sorted(tmp_path.rglob("*.*"))}
    names = {path.name for path in (tmp_path / "run" / "front").iterdir()}
    assert names == {f"{row.name}.yaml" for row in study[1]}
    again = RunFolder(tmp_path / "run")
    write(again, study)
    assert {path.relative_to(tmp_path): path.read_bytes() for path in sorted(tmp_path.rglob("*.*"))} == before


def test_specs_of_an_earlier_front_go_and_other_files_stay(
    study: tuple[Front, tuple[FrontRow, ...]], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.describe({})
    write(folder, study)
    (tmp_path / "run/front/mine.yaml").write_text("name: mine\n")
    (tmp_path / "run/front/notes.txt").write_text("hello")
    front, rows = study
    folder.write_front(replace(front, members=front.members[:1]), rows[:1], "fake", "title")
    left = {path.name for path in (tmp_path / "run/front").iterdir()}
    assert left == {f"{rows[0].name}.yaml", "mine.yaml", "notes.txt"}


@pytest.mark.promise(42)
def test_a_folder_with_somebody_elses_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ArchError, match="did not write"):
        RunFolder(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchError, match="link"):
        RunFolder(tmp_path / "run")


@pytest.mark.promise(42)
@pytest.mark.parametrize("trap", ["link", "file", "spec link", "foreign spec"])
def test_nothing_is_written_through_traps_inside(
    study: tuple[Front, tuple[FrontRow, ...]], tmp_path: Path, trap: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.describe({})
    precious = tmp_path / "precious"
    specs = tmp_path / "run/front"
    name = f"{study[1][0].name}.yaml"
    if trap == "link":
        precious.mkdir()
        specs.symlink_to(precious)
    elif trap == "file":
        specs.write_text("x")
    else:
        specs.mkdir()
        precious.write_text("x")
        if trap == "spec link":
            (specs / name).symlink_to(precious)
        else:
            (specs / name).write_text("name: mine\n")
    with pytest.raises(ArchError, match="not overwritten"):
        write(folder, study)
    assert precious.read_text() == "x" if precious.is_file() else not precious.exists() or not list(precious.iterdir())


def test_a_link_in_place_of_the_csv_is_replaced_not_followed(
    study: tuple[Front, tuple[FrontRow, ...]], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.describe({})
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "run/front.csv").symlink_to(precious)
    write(folder, study)
    assert precious.read_text() == "x"
    assert not (tmp_path / "run/front.csv").is_symlink()


def test_a_study_is_set_aside_not_deleted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for text in ("first", "second"):
        folder.journal.write_text(text)
        folder.set_aside()
    assert not folder.journal.exists()
    assert Path(f"{folder.journal}.1").read_text() == "first"
    assert Path(f"{folder.journal}.2").read_text() == "second"


# --- progress -------------------------------------------------------------------------------------------------------


def events(study: tuple[Front, tuple[FrontRow, ...]]) -> list[Any]:
    record = study[1][0].record
    failed = Record(1, "failed", {}, name="odd", reason="the [red]worker[/red] crashed", rule="crash")
    double = Record(2, "complete", {}, name="same", duplicate_of=0, cheap=True, values=record.values)
    return [
        Began("tpe", "as asked", ()),
        TrialBegan(0, "net"),
        StepBegan(0, "latency"),
        StepBegan(0, "training"),
        TrialEnded(record),
        TrialEnded(failed),
        TrialEnded(double),
    ]


def test_progress_in_a_file_is_plain_lines(
    study: tuple[Front, tuple[FrontRow, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(BOTH, 10) as progress:
        for event in events(study):
            progress(event)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "sampler tpe: as asked"
    assert lines[1].startswith(f"[1/10] {study[1][0].record.name}: accuracy ")
    assert lines[2] == "[2/10] odd: failed, the [red]worker[/red] crashed"
    assert lines[3] == "[2/10] same: duplicate of trial 0"
    assert "\x1b" not in err


def test_the_live_picture_shows_the_front_so_far(study: tuple[Front, tuple[FrontRow, ...]]) -> None:
    progress = Progress(BOTH, 10)
    for event in events(study)[:4]:
        progress(event)
    progress(EpochEnded(0, 1, 2))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(progress._picture())
    assert "net (trial 0): training, 1/2 epochs" in console.export_text()
    progress(events(study)[4])
    console.print(progress._picture())
    text = console.export_text()
    assert "front so far: 1" in text
    assert "1/10 networks" in text


def test_quiet_progress_says_nothing(
    study: tuple[Front, tuple[FrontRow, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(BOTH, 10, quiet=True) as progress:
        for event in events(study):
            progress(event)
    assert capsys.readouterr() == ("", "")
