"""The page of a search: it holds what was found, needs nothing else, and shows text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_study import SPACE, fake_campaign, fake_space
from test_front import BOTH, COSTS, record

from archdsl.report.front_page import front_page
from archdsl.report.front_plots import growth
from archdsl.report.front_rows import FrontRow, differences, front_rows
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import OBJECTIVES
from archdsl.study.record import Record

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "\u2028</title><iframe src=//x>",
    "]]><!--<body onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
)


@pytest.fixture(autouse=True)
def short_script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plotly's 5 MB, which take a second to read; the last test has them."""
    if "whole" not in request.node.name:
        monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "var Plotly")


class Page(HTMLParser):
    """The tags of a page, the text outside of scripts, and what the last scripts say."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self._in_script = "", [], False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data


def page_of(records: list[Record], objectives: Any = BOTH, title: str = "study", of: Any = lambda r: "") -> str:
    front = front_of(records, objectives)
    spec = fake_space().base
    rows = [FrontRow(m.record.name or "?", m.record, spec, of(m.record), ()) for m in front.members]
    return front_page(title, {"space": title}, front, rows, records, of)


@pytest.fixture
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A page of a real (fake-valued) search and its front."""
    folder = tmp_path_factory.mktemp("page")
    outcome, space = fake_campaign(folder, trials=12).run(), fake_space()
    front = front_of(outcome.records, BOTH)
    base = space.assignment_of(space.base)
    rows = front_rows(front, space)
    text = front_page(
        "fake", {"target": "null"}, front, rows, outcome.records, lambda r: differences(space, r.assignment, base)
    )
    return text, rows


def test_every_network_of_the_front_is_in_the_table_and_in_the_plot(searched: tuple[str, Any]) -> None:
    text, rows = searched
    page = Page(text)
    assert len(rows) >= 2
    for row in rows:
        assert row.name in page.text
        assert f"<b>{row.name}</b>".replace("<", "\\u003c").replace(">", "\\u003e").replace("/", "\\u002f") in text


def test_hover_shows_what_differs_from_the_base(searched: tuple[str, Any]) -> None:
    text, rows = searched
    different = next(row for row in rows if row.differs)
    plot = next(script for script in Page(text).scripts if "front-0" in script)
    assert all(change in plot for change in different.differs.split(", "))


def test_the_page_loads_nothing_from_anywhere(searched: tuple[str, Any]) -> None:
    page = Page(searched[0])
    loading = [attrs for _, attrs in page.tags if attrs.keys() & {"src", "href", "srcset", "data"}]
    assert loading == []
    assert not re.search(r"@import|url\(", "".join(re.findall(r"<style>.*?</style>", searched[0], re.DOTALL)))


@pytest.mark.promise(15)
def test_equal_searches_give_equal_pages() -> None:
    records = [record(0, 0.5, 1.0), record(1, 0.6, 2.0), record(2, 0.4, 2.0)]
    assert page_of(records) == page_of(records)


@pytest.mark.promise(41)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_of_others_is_text_and_never_markup(hostile: str) -> None:
    plain = [record(0, 0.5, 1.0, name="a"), record(1, 0.6, 2.0), record(2, 0.1, 3.0, name="b")]
    spoilt = [record(0, 0.5, 1.0, name=hostile), record(1, 0.6, 2.0), record(2, 0.1, 3.0, name=hostile)]
    failed = {"state": "failed", "values": None, "name": hostile, "rule": "x", "reason": hostile}
    plain.append(record(3, 0.1, 1.0, **{**failed, "name": "c", "reason": "d"}))
    spoilt.append(record(3, 0.1, 1.0, **failed))
    calm = Page(page_of(plain, title="t", of=lambda r: "e"))
    page = Page(page_of(spoilt, title=hostile, of=lambda r: hostile))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in calm.tags]
    own = page.scripts[1:]  # the first is plotly itself
    assert all("<" not in _data_of(script) for script in own if "newPlot" in script)


WAYS_OUT = ("", '">', "'>", "</script>", "</title></style></textarea>", "]]>-->")
ATTACKS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<iframe src=javascript:x()>",
    "<ScRiPt\t>alert(1)</sCrIpT>", "<a href=\"java\nscript:alert(1)\">x</a>", "<math><mi xlink:href=javascript:x()>",
    "<meta http-equiv=refresh content=0;url=//x>", "<base href=//x>", "\x00<script\x00>alert(1)</script>",
)  # fmt: skip


@pytest.mark.promise(41)
def test_sixty_attacks_on_one_page_are_text() -> None:
    names = [way + attack for way in WAYS_OUT for attack in ATTACKS]
    assert len(names) == 60
    calm, spoilt = (
        [record(number, 0.5 + number / 1000, 1.0 + number, name=name) for number, name in enumerate(chosen)]
        for chosen in (["a"] * 60, names)
    )
    found, due = Page(page_of(spoilt, of=lambda r: names[0])), Page(page_of(calm, of=lambda r: "e"))
    assert [(tag, sorted(with_)) for tag, with_ in found.tags] == [(tag, sorted(with_)) for tag, with_ in due.tags]
    assert all("<" not in _data_of(script) for script in found.scripts[1:] if "newPlot" in script)


def _data_of(script: str) -> str:
    """What plotly is given to draw."""
    return script[script.index("newPlot(") :].split('{"template"')[0]


def test_failures_are_told_with_their_reasons() -> None:
    failed = record(1, 0.1, 1.0, state="failed", values=None, rule="timeout", reason="no answer within 3 s")
    assert "no answer within 3 s" in Page(page_of([record(0, 0.5, 1.0), failed])).text


def test_a_search_without_a_result_has_a_page_that_says_so() -> None:
    failed = record(1, 0.1, 1.0, state="failed", values=None, rule="timeout", reason="no answer")
    assert "No network was finished" in Page(page_of([failed])).text


def test_each_further_objective_has_a_plot_against_the_first() -> None:
    three = (*BOTH, OBJECTIVES["params"])
    records = [record(0, 0.5, 1.0, values=(0.5, 1.0, 9.0)), record(1, 0.6, 2.0, values=(0.6, 2.0, 5.0))]
    text = page_of(records, three)
    assert 'id="front-0"' in text
    assert 'id="front-1"' in text
    assert 'id="front-2"' not in text


def test_the_history_is_the_share_of_the_final_hypervolume() -> None:
    records = [record(0, 0.5, 2.0), record(1, 0.4, 4.0), record(2, 0.7, 3.0), record(3, 0.6, 2.5, cheap=True)]
    # the worst seen, a tenth further: accuracy 0.37, latency 4.2
    first, last = 0.13 * 2.2, 0.13 * 2.2 + 0.2 * 1.2
    assert growth(records, BOTH) == [
        (1, pytest.approx(first / last)),
        (2, pytest.approx(first / last)),
        (3, pytest.approx(1.0)),
    ]


def test_there_is_no_history_of_nothing() -> None:
    assert growth([record(0, 0.5, 2.0, state="failed", values=None)], COSTS) == []


def test_the_whole_page_is_written_beside_the_front(tmp_path: Path) -> None:
    import archdsl

    costs = SPACE.replace("  accuracy: {train: {data: synthetic}}\n", "")
    found = archdsl.search(
        fake_space(costs), objectives=["latency", "params"], trials=3, out=tmp_path / "run", on="null"
    )
    assert "plotly" in (found.folder.path / "report.html").read_text(encoding="utf-8")
