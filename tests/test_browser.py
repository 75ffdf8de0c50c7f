"""The page of a search in a real browser: sorting, saving, hovering, on dark pages and on a telephone.

Chromium runs a page to which a script was added that does what a user would, and prints the page as it is then.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_study import fake_accuracy, fake_timing

from archdsl.language import load
from archdsl.report.front_page import front_page
from archdsl.report.front_rows import FrontRow
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import chosen
from archdsl.study.record import Record

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here (apt-get install chromium)"),
    pytest.mark.timeout(300),
]
OBJECTIVES = chosen((), ("accuracy", "latency"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A front of four networks, the parameters of which are in another order than their accuracies."""
    records = [
        Record(
            number, "complete", {}, f"h{number}", f"net-{number}", params, 10**6, fake_timing(latency),
            fake_accuracy(accuracy), (accuracy, latency),
        )
        for number, (accuracy, latency, params) in enumerate(
            [(0.5, 1.0, 900), (0.6, 2.0, 1_200_000), (0.7, 3.0, 95_000), (0.8, 10.0, 2_000)]
        )
    ]  # fmt: skip
    front = front_of(records, OBJECTIVES)
    rows = [
        FrontRow(str(m.record.name), m.record, load("micro_swin"), "=1+1, a \"b\", c", ()) for m in front.members
    ]  # fmt: skip
    text = front_page("A page", {"space": "x"}, front, rows, records, lambda record: f"changes {record.number}")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def done(page: Path, script: str, *options: str, folder: Path) -> Any:
    """What a script gives that runs at the end of the page, as JSON."""
    copy = folder / "page.html"
    told = f"const found = await (async () => {{ {script} }})(); document.title = 'told:' + JSON.stringify(found);"
    late = f"<script type=module>await new Promise((r) => setTimeout(r, 500)); {told}</script></body>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", late), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
        f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=200).stdout
    found = re.search(r"<title>told:(.*?)</title>", shown, flags=re.DOTALL)
    assert found is not None, shown[-2000:]
    return json.loads(html.unescape(found[1]))


NAMES = "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map((row) => row.cells[0].textContent)"


def test_a_click_on_a_head_sorts_by_the_numbers_with_their_units(page: Path, tmp_path: Path) -> None:
    script = f"""
        const table = document.querySelector("table.sortable"), head = [...table.tHead.rows[0].cells];
        const at = head.findIndex((cell) => cell.textContent === "params"), before = {NAMES};
        head[at].click(); const once = {NAMES}, how = head[at].getAttribute("aria-sort");
        head[at].click(); const twice = {NAMES};
        head[0].dispatchEvent(new KeyboardEvent("keydown", {{key: "Enter"}}));
        return {{before, once, how, twice, byName: {NAMES}}};
    """
    found = done(page, script, folder=tmp_path)
    assert found["before"] == ["net-3", "net-2", "net-1", "net-0"], "the most accurate first"
    assert found["once"] == ["net-0", "net-3", "net-2", "net-1"] and found["how"] == "ascending"
    assert found["twice"] == found["once"][::-1]
    assert found["byName"] == ["net-0", "net-1", "net-2", "net-3"]


def test_a_table_is_saved_as_csv_without_formulas(page: Path, tmp_path: Path) -> None:
    script = """
        let saved; window.Blob = function (parts) { saved = parts.join(""); };
        URL.createObjectURL = () => "blob:x";
        const name = []; HTMLAnchorElement.prototype.click = function () { name.push(this.download); };
        document.querySelector("button[title='save this table']").click();
        return {text: saved, name: name[0]};
    """
    found = done(page, script, folder=tmp_path)
    lines = found["text"].splitlines()
    assert found["name"] == "front.csv" and len(lines) == 5 and lines[0].startswith("network,")
    assert '"\'=1+1, a ""b"", c"' in lines[1]


def test_networks_are_drawn_with_what_they_change(page: Path, tmp_path: Path) -> None:
    script = """
        const plot = document.querySelector(".js-plotly-plot");
        return plot.data.map((trace) => ({name: trace.name, text: trace.text, bars: !!trace.error_x}));
    """
    front = next(trace for trace in done(page, script, folder=tmp_path) if trace["name"] == "front")
    assert front["bars"] and len(front["text"]) == 4
    assert any("net-2" in text and "changes 2" in text for text in front["text"])


def test_dark_pages_are_dark_and_a_telephone_needs_no_scrolling_sideways(page: Path, tmp_path: Path) -> None:
    script = """
        const style = getComputedStyle(document.body);
        return {ink: style.color, page: style.backgroundColor, width: innerWidth,
                wide: document.documentElement.scrollWidth, bar: !!document.querySelector(".modebar:not([hidden])")};
    """
    light = done(page, script, "--window-size=1200,900", folder=tmp_path)
    dark = done(page, script, "--blink-settings=preferredColorScheme=0", "--window-size=1200,900", folder=tmp_path)
    assert (light["ink"], light["page"]) == ("rgb(31, 35, 40)", "rgb(255, 255, 255)")
    assert (dark["ink"], dark["page"]) == ("rgb(240, 246, 252)", "rgb(13, 17, 23)")
    phone = done(page, script, "--window-size=500,900", folder=tmp_path)
    assert phone["wide"] <= phone["width"]


def test_a_page_with_all_of_plotly_is_small_enough(page: Path) -> None:
    assert page.stat().st_size < 6 * 2**20
