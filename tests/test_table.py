"""A table of trained networks: what is in it, and whole studies replayed on it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from fake_table import EPOCHS, SEEDS, accuracy, distinct, quickstart, write_fake_table

from archdsl.compiler import cost, identity
from archdsl.errors import StudyError
from archdsl.evaluators import Stepwise
from archdsl.language import load_space, loads_space
from archdsl.study.campaign import Campaign
from archdsl.study.config import StudyConfig
from archdsl.study.early_stopping import SuccessiveHalving
from archdsl.study.objectives import chosen
from archdsl.study.proposals.proposer import Proposer
from archdsl.study.record import Record
from archdsl.study.tabular import Table, TabularAssessor, shipped_tables
from archdsl.training import JsonLines

OBJECTIVES = chosen((), ("accuracy", "latency"))
SHIPPED = sorted(path.name.removesuffix(".csv.gz") for path in shipped_tables().glob("*.csv.gz"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table.load("fake", write_fake_table(tmp_path_factory.mktemp("table")))


def campaign(
    table: Table, *, trials: int, seed: int = 0, sampler: str = "ehvi", halving: SuccessiveHalving | None = None
) -> Campaign:
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy", early_stopping=halving)
    plan = StudyConfig("replay", OBJECTIVES, trials, seed, sampler)
    return Campaign(quickstart(), plan, assessor, optuna.storages.InMemoryStorage(), num_distinct=len(table.rows))


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_every_setting_of_the_space_leads_to_its_network(table: Table) -> None:
    for setting in quickstart().iterate():
        assert table.row(setting).hash == identity(quickstart().spec(setting, check=False))


def test_an_accuracy_is_the_mean_over_the_seeds_that_are_asked_for_after_the_epoch_that_is_asked_for(
    table: Table,
) -> None:
    setting = distinct()[0][3]
    row = table.row(setting)
    assert row.accuracy("toy", seeds=(1,), epoch=2) == pytest.approx(accuracy(setting, 1, 2, 0.01), abs=1e-5)
    last = [accuracy(setting, seed, EPOCHS, 0.01) for seed in SEEDS]
    assert row.accuracy("toy") == pytest.approx(sum(last) / 3, abs=1e-5)


def test_the_front_of_a_table_is_beaten_by_none_and_holds_all_of_the_hypervolume(table: Table) -> None:
    front = table.front("toy", OBJECTIVES)
    for row in front:
        assert not any(
            other.accuracy("toy") >= row.accuracy("toy") and other.latency_ms < row.latency_ms for other in table.rows
        )
    assert 3 <= len(front) < 60
    assert table.hypervolume(front, "toy", OBJECTIVES) == pytest.approx(1.0)
    assert 0 < table.hypervolume(front[:1], "toy", OBJECTIVES) < 1


def test_a_table_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write_fake_table(tmp_path)
    with pytest.raises(StudyError, match=r"no table `fke`") as caught:
        Table.load("fke", tmp_path)
    assert caught.value.problems[0].hint == "did you mean `fake`? Tables: fake."


@pytest.mark.parametrize("harm", ["cut", "format", "settings", "not a number", "column"])
def test_a_damaged_table_is_refused_and_says_what_to_do(tmp_path: Path, harm: str) -> None:
    write_fake_table(tmp_path)
    packed, sidecar = tmp_path / "fake.csv.gz", tmp_path / "fake.json"
    about = json.loads(sidecar.read_text())
    if harm == "cut":
        packed.write_bytes(packed.read_bytes()[:-100])
    elif harm == "format":
        sidecar.write_text(json.dumps({**about, "format": 99}))
    elif harm == "settings":
        sidecar.write_text(json.dumps({**about, "settings": about["settings"][1:]}))
    else:
        text = gzip.decompress(packed.read_bytes()).decode()
        text = text.replace("toy_s1_e4", "toy") if harm == "column" else text.replace(",0.", ",zero.", 1)
        packed.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(StudyError, match="the table is damaged") as caught:
        Table.load("fake", tmp_path)
    assert "make_table.py" in str(caught.value.problems[0].hint)


def test_a_table_is_not_for_another_space(table: Table) -> None:
    text = (quickstart().to_yaml()).replace("[2, 4, 8]", "[2, 4]")
    with pytest.raises(StudyError, match=r"the choices of `stages.0.window` differ"):
        TabularAssessor(loads_space(text), OBJECTIVES, table, task="toy")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_table_is_of_its_space_as_it_is_today(name: str) -> None:
    table, space = Table.load(name), load_space(name)
    table.refuse_other(space)
    rows: dict[str, int] = {}
    for setting in space.iterate():
        spec, row = space.spec(setting, check=False), table.row(setting)
        assert rows.setdefault(identity(spec), row.index) == row.index
        counts = cost(spec)
        assert (row.params, row.macs) == (counts.params, counts.macs)
    assert len(rows) == len(table.rows) >= 200
    for task, how in table.tasks.items():
        assert len(how["seeds"]) >= 2
        assert 0.5 < max(row.accuracy(task) for row in table.rows) <= 1


# --- replaying -------------------------------------------------------------------------------------------------------


def test_a_study_on_a_table_is_the_real_campaign_and_sees_the_tables_numbers(table: Table) -> None:
    records = campaign(table, trials=12).run().records
    assert [record.name for record in records[:4]] == [start.name for start in quickstart().start]
    for record in records:
        row = table.row(record.assignment)
        assert record.values == (pytest.approx(row.accuracy("toy", seeds=(0, 1))), row.latency_ms)
        assert record.accuracy is not None and record.accuracy.data == "table fake"
        assert record.timing is not None and record.timing.runtime == "onnxruntime"
    assert len({record.hash for record in records}) == 12


def test_the_campaign_pays_for_what_the_proposer_proposes(table: Table) -> None:
    replayed = campaign(table, trials=10, seed=5).run().records
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
    proposer = Proposer(quickstart(), OBJECTIVES, assessor.known_costs, seed=5)
    records: list[Record] = []
    for number, then in enumerate(replayed):
        if number >= 4:
            assert proposer.propose(records, number) == then.assignment
        records.append(then)


def test_looking_up_an_accuracy_counts_the_epochs_that_would_have_been_paid(table: Table) -> None:
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
    spec = assessor.candidate(distinct()[0][0]).spec
    training = assessor.accuracy
    assert isinstance(training, Stepwise)
    assert [training.advance(spec, seed=0, to_epoch=epoch).paid_epochs for epoch in (1, 3, 3, 9)] == [2, 4, 0, 12]
    assert not training.advance(spec, seed=0, to_epoch=3).is_final


# --- making one ------------------------------------------------------------------------------------------------------


def make_table() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "make_table.py"
    found = importlib.util.spec_from_file_location("make_table", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["make_table"] = module
    found.loader.exec_module(module)
    return module


def test_a_table_is_made_of_real_trainings_and_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    maker = make_table()
    key, seconds = maker.train_one(("quick", 0, 0, str(tmp_path / "trainings.jsonl")))
    run = JsonLines(tmp_path / "trainings.jsonl").get(key)
    assert run is not None and len(run["accuracies"]) == 2 and seconds > 0
    assert 1 / 12 < run["accuracies"][-1] <= 1

    known, assignment = JsonLines(tmp_path / "trainings.jsonl"), maker.networks()[0]
    with pytest.raises(SystemExit, match="not trained with two seeds"):
        maker.write(tmp_path, tmp_path / "a")
    for task, seed in maker.ROUNDS[:4]:
        for network in range(len(assignment)):
            run = {"accuracies": [0.5] * maker.TASKS[task].parsed().epochs, "num_val_independent": 512, "seconds": 1.0}
            known.__setitem__(maker.key_of(task, network, seed), run)
    times = JsonLines(tmp_path / "timings.jsonl")
    everyone = list(range(len(assignment)))
    for number in range(3):
        ratios = [1 + index / 100 + number / 1000 for index in everyone]
        where = {"contended": False, "runtime_version": "0", "device_name": "none"}
        times[f"pass={number}"] = {"networks": everyone, "anchor_ms": 2.0, "ratios": ratios, **where}
    for folder in ("a", "b"):
        maker.write(tmp_path, tmp_path / folder)
    table = Table.load("quickstart", tmp_path / "a")
    assert table.rows[7].latency_ms == pytest.approx(2.0 * 1.071)
    assert table.tasks["long"]["epochs"] == 9
    for file in ("quickstart.csv.gz", "quickstart.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
