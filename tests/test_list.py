"""`archdsl list`, and the page that is made of it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import archdsl
from archdsl.cli.main import run
from archdsl.language.text.files import shipped_names

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    assert run(["list", *words, "--json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)["specs"]
    return rows


def test_every_shipped_spec_is_listed_once_with_its_counts(capsys):
    rows = listed(capsys)
    assert sorted(str(row["name"]) for row in rows) == sorted(shipped_names("specs"))
    keys = [(row["families"], row["params"], row["macs"], row["name"]) for row in rows]
    assert keys == sorted(keys)
    (one,) = (row for row in rows if row["name"] == "deit_ti_distilled")
    costs = archdsl.cost("deit_ti_distilled")
    assert (one["params"], one["macs"], one["size"]) == (costs.params, costs.macs, "224x224")
    assert one["source"] == "https://arxiv.org/abs/2012.12877"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["swin_t"], {"swin_t"}),
        (["resnet_1*"], {"resnet_101", "resnet_152"}),
        (["ghostnet"], {"ghostnet_050", "ghostnet_100", "ghostnet_130"}),
        (["convnext_[sb]", "vit_b_1?"], {"convnext_s", "convnext_b", "vit_b_16"}),
    ],
)
def test_a_pattern_is_a_name_or_a_family(words, found, capsys):
    assert {row["name"] for row in listed(capsys, *words)} == found


def test_a_network_of_two_families_is_found_by_either(capsys):
    for family in ("convnext", "swin"):
        assert "convnext_swin_t" in {row["name"] for row in listed(capsys, family)}


def test_what_no_pattern_finds_is_told_with_what_was_meant(capsys):
    assert run(["list", "resnett"]) == 1
    told = capsys.readouterr()
    assert "no spec or family is called so [unknown-name]" in told.err and "did you mean `resnet`?" in told.err
    assert told.out == ""


def test_a_csv_file_has_all_digits(capsys):
    assert run(["list", "swin_t", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["name"], row["params"], row["macs"]) == ("swin_t", "28288354", str(archdsl.cost("swin_t").macs))


def test_the_table_fits_80_columns_without_cutting_a_name(monkeypatch, capsys):
    monkeypatch.setattr("archdsl.cli.output.WIDTH_OF_FILES", 80)
    assert run(["list", "swin_b_windows*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any("swin_b_windows_14_14_14_7" in line for line in lines)


def test_the_page_of_architectures_is_fresh(capsys):
    assert run(["list", "--markdown"]) == 0
    made = capsys.readouterr().out
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{made}"), "run: archdsl list --markdown, below the text"


def test_no_torch_is_loaded():
    code = "import sys; from archdsl.cli.main import run; run(['list']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0
