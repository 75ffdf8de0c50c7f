"""What reaches the terminal: tables that fit it, one filter for text from outside, streams that fail."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from test_bench import row

from archdsl.cli import streams
from archdsl.cli.main import COMMANDS, run
from archdsl.errors import Place, Problem, SpecError
from archdsl.latency.statistics import Ratio
from archdsl.outside_text import printable, spreadsheet_cell
from archdsl.report.bench_table import bench_table
from archdsl.report.terminal_table import TerminalTable
from archdsl.training import parse_recipe

ROOT = Path(__file__).parents[1] / "archdsl"
EVIL = "\x1b]0;pwn\x07\x1b[31mRED\nnote: forged\r\u202e\udcff"


def lines_of(table: object, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    with console.capture() as captured:
        console.print(table)
    return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in captured.get().splitlines()]


# --- tables ----------------------------------------------------------------------------------------------------------

WIDE = TerminalTable(
    ("network", "runtime", "latency", "ratio to the first of them", "MACs", "what is said of it"),
    [
        (
            "micro_swin",
            "onnxruntime",
            "0.38 ms ± 0.04",
            "1.000 same",
            "2.38M",
            "it says a few words, and then some more",
        ),
        ("micro_swin_free", "onnxruntime", "10.36 ms ± 0.04", "0.944 [0.866, 1.019] same", "2.43M", ""),
    ],
    right=("latency", "ratio to the first of them", "MACs"),
    prose=("what is said of it",),
    common=("runtime",),
    optional=("MACs",),
    title="two networks",
)


@pytest.mark.parametrize("width", [140, 100, 90, 80, 70, 60, 40, 30])
def test_no_number_is_folded_and_no_name_is_cut_however_narrow_the_terminal_is(width):
    lines = lines_of(WIDE, width)
    assert max(map(len, lines)) <= width
    for cell in ("micro_swin_free", "0.38 ms ± 0.04", "10.36 ms ± 0.04", "onnxruntime"):
        assert any(cell in line for line in lines)
    if width >= 40:
        assert any("0.944 [0.866, 1.019] same" in line for line in lines)
    shown = " ".join(" ".join(lines).split())
    assert "2.43M" in shown or "no room for MACs" in shown


def test_what_all_rows_share_is_said_once_before_a_column_is_left_out():
    lines = lines_of(WIDE, 100)
    assert "all with runtime onnxruntime" in lines and "2.43M" in "\n".join(lines)
    assert "no room for" not in "\n".join(lines)


def test_rows_are_stacked_where_no_table_fits():
    lines = lines_of(WIDE, 40)
    assert "  latency  10.36 ms ± 0.04" in lines and lines[-1].startswith("  MACs")


@pytest.mark.parametrize("width", [80, 100])
def test_a_comparison_fits_80_columns(width):
    rows = [row("micro_swin", Ratio(1, 1, 1), notes=["a", "b"]), row("micro_swin_free", Ratio(0.944, 0.866, 1.019))]
    lines = lines_of(bench_table(rows), width)
    assert max(map(len, lines)) <= width
    assert any("micro_swin_free" in line and "0.944 [0.866, 1.019] same" in line for line in lines)


def test_doctor_and_the_cache_fit_80_columns(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("archdsl.cli.output.WIDTH_OF_FILES", 80)
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("runtime onnxruntime " in line for line in lines)


# --- text from outside -----------------------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text) and "\nnote: forged" not in text


@pytest.mark.parametrize("text", [EVIL, "\x9b31m", "a\u2028b", "\x00", "tab\there"])
def test_printable_text_is_one_line_that_no_terminal_obeys(text):
    assert printable(text).isprintable()
    assert printable(f"plain {text}").startswith("plain ")


def test_a_problem_is_told_without_what_a_terminal_obeys():
    assert is_harmless(str(Problem(Place(EVIL, text=EVIL), "syntax", EVIL, EVIL)))


def test_cells_titles_and_captions_of_a_table_pass_the_filter():
    table = TerminalTable(("a", "b"), [(EVIL, Text(EVIL, "red"))], title=EVIL, caption=EVIL)
    for width in (400, 60):
        assert is_harmless("\n".join(lines_of(table, width)))


def test_the_log_is_told_in_one_line_a_record(capsys, monkeypatch):
    monkeypatch.setattr(logging, "lastResort", type(logging.lastResort)(logging.WARNING))
    streams.log_in_lines()
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "skipped %s", (EVIL,), None)
    logging.lastResort.handle(record)
    shown = capsys.readouterr().err
    assert shown.startswith("skipped ") and shown.count("\n") == 1 and is_harmless(shown)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_nothing_of_a_cell(text):
    cell = spreadsheet_cell(text)
    assert isinstance(cell, str) and cell.startswith("'")
    out = io.StringIO()
    csv.writer(out).writerow([cell])
    assert len(out.getvalue().splitlines()) == 1


def test_numbers_stay_numbers_in_a_cell():
    assert [spreadsheet_cell(value) for value in (-1.5, 3, None, True, "plain")] == [-1.5, 3, None, True, "plain"]


@pytest.mark.parametrize("name", ["\\e[31mRED", "two words", "a\\nb", "-x", "ü"])
def test_a_recipe_is_named_as_a_spec_is(name, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f'extends: quick\nname: "{name}"\n')
    with pytest.raises(SpecError, match="`name` must be letters, digits"):
        parse_recipe(str(path))


def test_only_one_module_of_the_command_line_prints():
    prints = re.compile(r"\bclick\.(s?echo|style)\(|(?<![\w.])print\(|sys\.std(out|err)\.write\(")
    found = [path.name for path in sorted((ROOT / "cli").glob("*.py")) if prints.search(path.read_text())]
    assert found == ["output.py", "streams.py"]


# --- streams ---------------------------------------------------------------------------------------------------------


class Failing(io.StringIO):
    """A stream that takes nothing. error: what it raises"""

    def __init__(self, error: OSError):
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


FULL = OSError(28, "No space left on device")
GONE = BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    "arguments", [["check", "micro_swin"], ["show", "micro_swin"], ["show", "micro_swin", "--json"]]
)
@pytest.mark.parametrize(("stdout", "reason"), [(Failing(FULL), "No space left on device"), (None, "it is closed")])
def test_a_stdout_that_takes_nothing_is_one_line(arguments, stdout, reason, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run(arguments) == 1
    expected = f"stdout:1:1: standard output cannot be written: {reason} [cannot-write]\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("arguments", [["show", "micro_swin"], ["show", "micro_swin", "--json"], ["--help"]])
def test_a_reader_that_has_read_enough_is_no_error(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(GONE))
    assert run(arguments) == 0
    assert capsys.readouterr().err == ""


def test_an_error_that_stdout_cannot_take_is_still_told_with_its_exit_code(monkeypatch, capsys):
    for failure in (FULL, GONE):
        monkeypatch.setattr(sys, "stdout", Failing(failure))
        assert run(["show", "nosuch", "--json"]) == 1
        assert capsys.readouterr().err.startswith("nosuch:1:1: no spec called `nosuch`")


def test_a_stderr_that_takes_nothing_stops_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Failing(FULL))
    arguments = ["bench", "micro_swin", "--on", "null", "--json"]
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["results"]


def test_a_bench_that_cannot_be_printed_is_in_the_cache(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "stdout", Failing(FULL))
    assert run(["bench", "micro_swin", "--on", "null", "--json"]) == 1
    assert "bug" not in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path))
    assert run(["cache", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1


def test_what_nothing_else_keeps_goes_to_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(FULL))

    def command() -> None:
        with streams.guarded_streams():
            streams.keep_unwritten()
            print("half of a result")
            print("the other half")

    with pytest.raises(streams.StdoutLost, match="No space left"):
        command()
    assert capsys.readouterr().err == "half of a result\nthe other half\n"


@pytest.mark.parametrize(
    ("text", "ascii"),
    [("0.38 ms ± 0.04 …", "0.38 ms +- 0.04 ..."), ("── a → b │", "-- a -> b |"), ("≈ ü 模", "~ \\xfc \\u6a21")],
)
def test_what_an_encoding_lacks_is_written_in_ascii(text, ascii):
    assert streams.encodable(text, "ascii") == ascii
    assert streams.encodable(text, "utf-8") == text
    assert streams.encodable("± …", "latin-1") == "± ..."


def test_a_table_is_printed_where_only_ascii_is(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run(["bench", "micro_swin", "--on", "null"]) == 0
    assert b"ms +- 0.0000" in raw.getvalue()


def test_no_color_is_heeded(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    for name, expected in (("FORCE_NOTHING", True), ("NO_COLOR", False)):
        monkeypatch.setenv(name, "1")
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        assert run(["doctor"]) == 0
        assert ("\x1b[32m" in terminal.getvalue()) is expected


def test_closed_and_full_descriptors_of_a_process_are_told_in_one_line(tmp_path):
    call = f"{sys.executable} -m archdsl"
    environment = {**os.environ, "ARCHDSL_CACHE_DIR": str(tmp_path)}
    script = f"{call} check micro_swin >&-; echo $?; {call} check micro_swin --json >/dev/full; echo $?; "
    script += f"{call} check micro_swin >&- 2>&- <&-; echo $?; {call} check micro_swin 2>/dev/full; echo $?"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, timeout=300)
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["1", "1", "1", "0"]
    assert len(done.stderr.splitlines()) == 2 and "Traceback" not in done.stderr


def test_every_command_prints_its_help_to_a_reader_that_leaves(monkeypatch):
    for command in COMMANDS:
        monkeypatch.setattr(sys, "stdout", Failing(GONE))
        assert run([command, "--help"]) == 0
