"""Pictures of networks and spaces: what is drawn is what is there, well-formed, inside its frame, and escaped."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from archdsl.cli.main import run
from archdsl.compiler import compile
from archdsl.language import Spec, load, loads, loads_space
from archdsl.language.architecture.lower import lower
from archdsl.report.network_picture import COLUMN, IN_A_ROW, network_mermaid, network_page, network_svg
from archdsl.report.space_picture import space_svg
from archdsl.report.stages import stage_facts

SVG = "{http://www.w3.org/2000/svg}"
ONE_OF_EACH = (
    "micro_swin", "swin_free_t", "swinv2_t_w8_256", "vit_ti_16", "convnext_t", "resnet_50", "ghostnet_050",
    "deit_ti_distilled", "aff_resnet_50",
)  # fmt: skip


def svg_of(spec: Spec) -> str:
    return network_svg(spec, lower(spec), stage_facts(lower(spec), compile(spec)))


def page_of(spec: Spec) -> str:
    return network_page(spec, lower(spec), compile(spec), stage_facts(lower(spec), compile(spec)))


def by_class(svg: str, kind: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(svg).iter() if kind in one.get("class", "").split()]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_picture_is_well_formed_and_inside_its_frame(name: str) -> None:
    svg = svg_of(load(name))
    root = ElementTree.fromstring(svg)
    width, height = (float(side) for side in root.get("viewBox", "").split()[2:])
    for text in root.iter(f"{SVG}text"):
        wide = 6.0 * len(text.text or "") * (0.5 if text.get("text-anchor") == "middle" else 1)
        at = float(text.get("x", "0"))
        assert at + wide <= width and (text.get("text-anchor") != "middle" or at - wide >= 0), text.text
        assert 0 < float(text.get("y", "0")) < height - 8
    names = [text.text for text in by_class(svg, "name")]
    assert names == [stage.name for stage in stage_facts(lower(load(name)), compile(load(name)))]


def test_windows_are_drawn_where_they_are() -> None:
    """A map of 56 x 56 in windows of 7 x 7 has seven borders each way; shifted by three, eight."""
    svg = svg_of(load("swin_t"))
    plain, shifted = by_class(svg, "window")[0].get("d", ""), by_class(svg, "shifted")[0].get("d", "")
    assert (plain.count("h"), plain.count("v")) == (7, 7) and (shifted.count("h"), shifted.count("v")) == (8, 8)
    side = float(by_class(svg, "map")[1].get("width", "0"))
    left = float(by_class(svg, "map")[1].get("x", "0"))
    columns = [float(x) for x in re.findall(r"M([\d.]+) [\d.]+v", plain)]
    assert columns == pytest.approx([left + side * at / 8 for at in range(1, 8)], abs=0.11)
    first = min(float(x) for x in re.findall(r"M([\d.]+) [\d.]+v", shifted))
    assert first == pytest.approx(left + side * 3 / 56, abs=0.11)
    assert len(by_class(svg, "window")) == 3, "one window covers the last map"
    assert "dashed" in svg and not by_class(svg_of(load("swin_free_t")), "shifted")
    assert "dashed" not in svg_of(load("swin_free_t"))


def test_a_map_that_is_not_square_is_drawn_so_and_long_networks_wrap() -> None:
    spec = load("micro_swin", set={"input.size": [32, 64]})
    first = by_class(svg_of(spec), "map")[0]
    assert float(first.get("width", "0")) == pytest.approx(2 * float(first.get("height", "0")), abs=0.11)
    assert float(ElementTree.fromstring(svg_of(load("ghostnet_050"))).get("viewBox", "").split()[2]) > COLUMN * IN_A_ROW
    rows = {text.get("y") for text in by_class(svg_of(load("ghostnet_050")), "name")}
    assert len(rows) == 2


def test_the_bars_are_the_shares() -> None:
    svg = svg_of(load("swin_b"))
    for kind, at_least in (("macs", 0.7), ("params", 0.6)):
        bars = [float(bar.get("width", "0")) for bar in by_class(svg, kind)]
        assert sum(bars) == pytest.approx(112, abs=0.5) and max(bars) > at_least * 112
        assert bars.index(max(bars)) == 3, "of Swin-B, the third stage"


@pytest.mark.parametrize("source", ["</script><script>alert(1)</script>", "a\x1b[31mb", '"><b>&amp;', "x" * 1000])
def test_text_from_a_file_is_escaped_and_bounded(source: str) -> None:
    spec = load("micro_swin", set={"source": source.replace("\x1b", "")})
    page = page_of(spec)
    assert "<script" not in page and "<b>&" not in page and "\x1b" not in page
    assert "x" * 400 not in page.split("<details>")[0], "the YAML is whole, the rest is short"
    assert source.startswith("x") == ("x" * 1000 in page)


def test_the_page_has_every_op_of_the_compiled_network() -> None:
    spec = load("micro_swin_free")
    page = page_of(spec)
    for node in compile(spec).live()[1:]:
        assert f"<code>{node.path}</code>" in page
    assert page.count("<details>") == len(stage_facts(lower(spec), compile(spec))) + 1
    assert "name: micro_swin_free" in page


def test_a_flow_chart_has_a_box_for_each_stage_in_a_row() -> None:
    spec = load("swin_t")
    chart = network_mermaid(spec, stage_facts(lower(spec), compile(spec)))
    assert chart.startswith("flowchart LR\n") and chart.count("-->") == 5
    assert '  s1["stages.0<br/>56 × 56, 96 wide<br/>2 × swin<br/>windows 7x7<br/>windows 7x7, shift 3x3"]' in chart


def test_a_space_shows_each_choice_and_each_option() -> None:
    space = loads_space(
        "{name: s, base: micro_swin, choices: {stages.0.window: [2, 4], defaults: [{norm: layer}, "
        "{norm: batch, choices: {mlp_ratio: [1, 2, 3]}}], stages.*.heads: {range: [1, 60]}}}"
    )
    svg = space_svg(space, "12 distinct networks")
    texts = [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "over micro_swin · 5 choices · 12 distinct networks" in texts
    assert {"stages.0.window", "defaults", "2", "4", "60", "{norm: layer}"} <= set(texts)
    width = float(ElementTree.fromstring(svg).get("viewBox", "").split()[2])
    chips = by_class(svg, "chip")
    assert (
        len(chips) == 2 + 2 + 3 + 2 * 60
        and max(float(c.get("x", "0")) + float(c.get("width", "0")) for c in chips) < width
    )
    starts = {one.name: one for one in space.choices}
    outer, inner = (next(t for t in ElementTree.fromstring(svg).iter(f"{SVG}text") if t.text == name)
                    for name in ("defaults", next(n for n in starts if starts[n].parent)))  # fmt: skip
    assert float(inner.get("x", "0")) > float(outer.get("x", "0")), "what depends on an option stands further in"


@pytest.mark.parametrize("form", ["--svg", "--html", "--mermaid", "--graph"])
def test_the_command_prints_each_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "micro_swin", form]) == 0
    begins = {"--svg": "<svg", "--html": "<!doctype html>", "--mermaid": "flowchart LR", "--graph": ""}[form]
    shown = capsys.readouterr().out.lstrip()
    assert shown.startswith(begins) and len(shown) > 100
    assert run(["show", "micro_swin", form, "--json"]) == 1
    assert "two forms of one result" in capsys.readouterr().out
    assert run(["show", "quickstart", form]) == (0 if form == "--svg" else 1)


def test_the_picture_in_the_documents_is_made_from_the_spec() -> None:
    picture = Path(__file__).parents[1] / "docs" / "swin_t.svg"
    assert picture.read_text(encoding="utf-8") == svg_of(load("swin_t")), "archdsl show swin_t --svg > docs/swin_t.svg"


def test_a_block_of_many_windows_names_how_many() -> None:
    spec = loads("{name: x, extends: micro_swin, stages: [{depth: 3, window: [2, 4, 8], shift: false}, {}]}")
    assert "and 2 other windows" in svg_of(spec)
