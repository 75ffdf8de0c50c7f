"""Early stopping with several objectives: who goes on, what a stopped study looks like, and that it goes on exactly."""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import optuna
import pytest
from fake_table import EPOCHS, quickstart, write_fake_table

from archdsl.evaluators.tabular import TabularEvaluator
from archdsl.language.architecture.model import Spec
from archdsl.study.campaign import Campaign
from archdsl.study.config import StudyConfig
from archdsl.study.early_stopping import Stopped, SuccessiveHalving, ranked, train
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import chosen
from archdsl.study.record import Record
from archdsl.study.storage.opening import open_storage
from archdsl.study.tabular import Table, TableRow, TabularAssessor
from archdsl.training import Accuracy

OBJECTIVES = chosen((), ("accuracy", "latency"))
RULE = SuccessiveHalving(EPOCHS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table.load("fake", write_fake_table(tmp_path_factory.mktemp("table")))


def campaign(
    table: Table, folder: Path | None, trials: int, halving: SuccessiveHalving | None = RULE, seed: int = 0
) -> Campaign:
    """A study in random order, so that there is something to stop."""
    storage = optuna.storages.InMemoryStorage() if folder is None else open_storage(folder / "study.journal")
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy", early_stopping=halving)
    return Campaign(quickstart(), StudyConfig("s", OBJECTIVES, trials, seed, "random"), assessor, storage)


def told(records: tuple[Record, ...]) -> list[tuple[Any, ...]]:
    return [
        (r.number, r.state, dict(r.assignment), r.values, dict(r.rungs), r.rule) for r in records if r.state != "open"
    ]


# --- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "first", "eta", "rungs"),
    [(9, 1, 3, (1, 3)), (10, 1, 3, (1, 3, 9)), (300, 10, 4, (10, 40, 160)), (2, 1, 2, (1,)), (1, 1, 3, ())],
)
def test_rungs_grow_by_eta_and_end_before_the_training_does(
    epochs: int, first: int, eta: int, rungs: tuple[int, ...]
) -> None:
    assert SuccessiveHalving(epochs, first, eta).rungs == rungs


@pytest.mark.parametrize("wrong", [(9, 0, 3), (9, 10, 3), (9, 1, 1)])
def test_rungs_that_make_no_sense_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="rungs from epoch"):
        SuccessiveHalving(*wrong)


def test_fronts_come_first_and_within_a_front_the_far_ones() -> None:
    front = [[0.0, 4.0], [0.1, 3.9], [2.0, 2.0], [4.0, 0.0]]
    behind = [[4.0, 4.0], [3.0, 3.0]]
    order = ranked([*behind, *front])
    assert order[:4] == [2, 5, 4, 3], "an end, the other end, the middle, and last the neighbour of the first"
    assert order[4:] == [1, 0]


def test_the_first_at_a_rung_go_on_and_later_only_the_best_third() -> None:
    slow_and_bad = (0.1, 9.0)
    others = [(0.5, 5.0), (0.6, 6.0), (0.9, 4.0), (0.4, 1.0), (0.7, 2.0)]
    assert RULE.continues(slow_and_bad, others[:1], OBJECTIVES)
    assert not RULE.continues(slow_and_bad, others, OBJECTIVES)
    assert RULE.continues((0.3, 0.5), others, OBJECTIVES), "the fastest of all is not behind, however inaccurate"
    assert RULE.continues((0.95, 9.0), others, OBJECTIVES), "nor is the most accurate"


def test_a_front_with_more_members_than_a_third_loses_none() -> None:
    front = [(0.1 * i, float(i)) for i in range(1, 9)]
    for mine in front:
        assert RULE.continues(mine, [other for other in front if other != mine], OBJECTIVES)
    assert not RULE.continues((0.38, 4.1), front, OBJECTIVES)


# --- in a study ------------------------------------------------------------------------------------------------------


def test_a_stopped_network_says_why_has_no_values_and_is_not_on_the_front(table: Table) -> None:
    records = campaign(table, None, 40).run().records
    stopped = [record for record in records if record.state == "stopped"]
    complete = [record for record in records if record.state == "complete" and not record.cheap]
    assert len(stopped) > 10 and len(complete) > 4
    for record in stopped:
        assert record.values is None and record.rule == "stopped" and not record.cheap
        assert record.reason is not None and "not among the best 1/3" in record.reason
        assert record.accuracy is not None and record.accuracy.epochs == max(record.rungs) < EPOCHS
    for record in complete:
        row = table.row(record.assignment)
        assert list(record.rungs) == [1, 3]
        assert record.rungs[3] == pytest.approx((row.accuracy("toy", seeds=(0, 1), epoch=3), row.latency_ms))
        assert record.accuracy is not None and record.accuracy.is_final
    assert {p.record.state for p in front_of(records, OBJECTIVES).members} == {"complete"}


def test_a_network_that_was_stopped_is_not_paid_for_again(table: Table) -> None:
    records = campaign(table, None, 60).run().records
    first = {}
    for record in records:
        if record.hash in first:
            assert record.cheap and record.duplicate_of == first[record.hash].number
            assert record.state == first[record.hash].state
        first.setdefault(record.hash, record)
    assert any(record.cheap and record.state == "stopped" for record in records)


def test_the_front_is_found_with_fewer_epochs(table: Table) -> None:
    """Random order; benchmarks/early_stopping.py does it with real accuracies and the real campaign."""

    def epochs_until(goal: float, seed: int, halving: SuccessiveHalving | None) -> int:
        assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
        training = TabularEvaluator(table, "toy", (0, 1), assessor._rows)
        records, rows, spent = list[Record](), list[TableRow](), 0
        for assignment in Random(seed).sample(list(quickstart().iterate()), quickstart().num_total):
            candidate, rungs, row = (
                assessor.candidate(assignment),
                dict[int, tuple[float, ...]](),
                table.row(assignment),
            )
            if any(record.hash == row.hash for record in records):
                continue
            try:
                if halving is not None:
                    train(
                        halving,
                        training,
                        candidate.spec,
                        seed=0,
                        objectives=OBJECTIVES,
                        values_with=lambda mean, row=row: (mean, row.latency_ms),
                        others=lambda: records,
                        store=lambda key, value, rungs=rungs: note(rungs, key, value),
                    )
                rows.append(row)
                spent += EPOCHS
            except Stopped:
                spent += max(rungs)
            records.append(Record(len(records), "complete", assignment, row.hash, rungs=rungs))
            if table.hypervolume(rows, "toy", OBJECTIVES) >= goal:
                return spent
        return spent

    shares = [epochs_until(0.95, seed, RULE) / epochs_until(0.95, seed, None) for seed in range(5)]
    assert median(shares) <= 0.8


def note(rungs: dict[int, tuple[float, ...]], key: str, value: object) -> None:
    if key.startswith("rung@") and isinstance(value, list):
        rungs[int(key.removeprefix("rung@"))] = tuple(value)


def test_a_study_with_early_stopping_that_is_cut_anywhere_is_the_uninterrupted_one(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = campaign(table, None, 14).run().records
    advance, asked = TabularEvaluator.advance, 0

    class Cut(BaseException):
        pass

    def cut(self: TabularEvaluator, spec: Spec, *, seed: int = 0, to_epoch: int) -> Accuracy:
        nonlocal asked
        asked += 1
        if asked in (2, 9, 14, 21):
            raise Cut
        return advance(self, spec, seed=seed, to_epoch=to_epoch)

    monkeypatch.setattr(TabularEvaluator, "advance", cut)
    cuts = 0
    while True:
        try:
            last = campaign(table, tmp_path, 14).run().records
            break
        except Cut:
            cuts += 1
            put_back(tmp_path)
    assert cuts == 4
    assert told(last) == told(whole)


def put_back(folder: Path) -> None:
    """What another process finds when this one is dead: here it is the same process, so its trials are put back."""
    storage = open_storage(folder / "study.journal")
    study = optuna.load_study(study_name="s", storage=storage)
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.RUNNING:
            storage.set_trial_state_values(trial._trial_id, state=optuna.trial.TrialState.WAITING)
