"""Proposals: hypervolumes, expected improvement, guesses, children; and that they find the front sooner."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from fake_study import fake_accuracy, fake_timing
from fake_table import quickstart, write_fake_table
from optuna._hypervolume import compute_hypervolume

from archdsl.compiler import cost, identity
from archdsl.ir.paths import stage_of
from archdsl.language import Space, loads_space
from archdsl.language.space.choices import Assignment
from archdsl.statistics import normal_cdf
from archdsl.study.candidate import KnownCosts
from archdsl.study.hypervolume import hypervolume, hypervolume_history, non_dominated, non_domination_ranks
from archdsl.study.objectives import Objective, chosen
from archdsl.study.proposals.acquisition import Acquisition, Proposal
from archdsl.study.proposals.ehvi import expected_improvement, halton
from archdsl.study.proposals.encoding import CostColumns, Encoder
from archdsl.study.proposals.gaussian_process import MOST_POINTS, GaussianProcess
from archdsl.study.proposals.operators import crossed, mutated
from archdsl.study.proposals.proposer import MOST_BUILT, MOST_LISTED, Proposer
from archdsl.study.record import Record
from archdsl.study.tabular import Table, TableRow, TabularAssessor

OBJECTIVES = chosen((), ("accuracy", "latency"))
LARGE = """
name: large
base: micro_swin
choices:
  stages.*.window: [2, 4]
  stages.*.depth: [1, 2, 3, 4, 5, 6, 7, 8]
  stages.*.shift: [true, false]
  stem.dim: [8, 16, 24, 32]
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu, choices: {mlp_ratio: [1, 2, 3]}}]
objectives: {accuracy: {train: {data: synthetic}}, params: {}, macs: {}}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table.load("fake", write_fake_table(tmp_path_factory.mktemp("table")))


# --- hypervolume -----------------------------------------------------------------------------------------------------


def counted(points: np.ndarray, reference: np.ndarray, cells: int) -> float:
    """The hypervolume by counting the cells of a grid: exact for points on it."""
    grid = np.array(list(product(range(cells), repeat=len(reference)))) / cells * reference
    inside = (points[None] <= grid[:, None] + 1e-9).all(axis=2).any(axis=1)
    return float(inside.mean() * np.prod(reference))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_a_hypervolume_is_the_share_of_cells_that_are_dominated(objectives: int) -> None:
    draw = np.random.default_rng(objectives)
    for num in (1, 2, 7):
        points = draw.integers(0, 8, size=(num, objectives)) / 6  # some beyond the reference
        reference = np.ones(objectives)
        assert hypervolume(points, reference) == pytest.approx(counted(points, reference, 6))


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_a_hypervolume_is_what_optuna_makes_of_it(objectives: int) -> None:
    draw = np.random.default_rng(objectives)
    points = 0.9 * draw.random((30, objectives))
    theirs = compute_hypervolume(points, np.full(objectives, 0.9))
    assert hypervolume(points, np.full(objectives, 0.9)) == pytest.approx(theirs)


def test_no_points_have_no_hypervolume_and_points_that_are_not_finite_are_refused() -> None:
    assert hypervolume([], [1.0, 1.0]) == 0
    with pytest.raises(ValueError, match="not finite"):
        hypervolume([[0.0, float("nan")]], [1.0, 1.0])


def test_layers_are_peeled_one_front_after_the_other() -> None:
    rows = [[0, 2], [1, 1], [2, 0], [1, 2], [2, 2], [1, 1]]
    assert non_domination_ranks(rows).tolist() == [0, 0, 0, 1, 2, 0]
    assert non_dominated(rows).tolist() == [True, True, True, False, False, True]


def test_the_history_of_a_study_grows_with_what_was_paid_for_alone() -> None:
    def record(number: int, state: str, values: tuple[float, ...] | None = None, cheap: bool = False) -> Record:
        return Record(number, state, {}, hash=str(number), values=values, cheap=cheap)  # type: ignore[arg-type]

    records = [
        record(0, "complete", (0.5, 2.0)),
        record(1, "infeasible", cheap=True),
        record(2, "failed"),
        record(3, "complete", (0.9, 3.0)),
        record(4, "complete", (0.4, 3.5)),
        record(5, "open"),
    ]
    assert hypervolume_history(records, OBJECTIVES, (0.0, 4.0)) == pytest.approx([1.0, 1.0, 1.4, 1.4])


# --- expected improvement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [False, True])
def test_the_expected_improvement_is_the_mean_improvement_of_many_draws(objectives: int, known: bool) -> None:
    draw = np.random.default_rng(objectives)
    front, reference = draw.random((6, objectives)), np.ones(objectives)
    mean, sd = draw.random((5, objectives)), 0.2 * draw.random((5, objectives))
    if known:
        sd[:, 1:] = 0
    before = hypervolume(front, reference)
    found = expected_improvement(mean, sd, front, np.full(objectives, -np.inf), reference)
    for row in range(5):
        drawn = mean[row] + sd[row] * draw.standard_normal((400, objectives))
        gains = [hypervolume(np.vstack([front, one]), reference) - before for one in drawn]
        assert found[row] == pytest.approx(fmean(gains), abs=5 * float(np.std(gains)) / 400**0.5 + 0.004)


def test_no_improvement_is_expected_below_what_is_possible() -> None:
    mean, sd = np.array([[-0.5, 0.2]]), np.array([[2.0, 0.0]])
    bounded = expected_improvement(mean, sd, np.empty((0, 2)), np.array([-1.0, -np.inf]), np.ones(2))
    assert 0 < bounded[0] <= 2 * 0.8
    assert expected_improvement(mean, sd, np.empty((0, 2)), np.full(2, -np.inf), np.ones(2))[0] > bounded[0]


def test_the_normal_distribution_and_the_even_points_are_right() -> None:
    z = np.array([-40.0, -1.96, 0.0, 1.0, 40.0])
    assert normal_cdf(z) == pytest.approx([0.0, 0.0249979, 0.5, 0.8413447, 1.0], abs=2e-7)
    assert halton(4, 2) == pytest.approx(np.array([[1 / 2, 1 / 3], [1 / 4, 2 / 3], [3 / 4, 1 / 9], [1 / 8, 4 / 9]]))


# --- guesses ---------------------------------------------------------------------------------------------------------


def test_a_guess_is_close_where_it_is_sure_and_its_uncertainty_is_honest() -> None:
    draw = np.random.default_rng(0)
    x = draw.random((120, 4))
    y = 0.6 + 0.3 * x[:, 0] - 0.2 * x[:, 1] * x[:, 2] + 0.01 * draw.standard_normal(120)
    guess = GaussianProcess(x[:40], y[:40])(x[40:])
    assert np.abs(guess.mean - y[40:]).mean() < 0.02
    few = GaussianProcess(x[:12], y[:12])(x[40:])
    assert np.mean(np.abs(few.mean - y[40:]) <= 1.96 * few.sd) >= 0.8
    assert guess.sd.mean() < few.sd.mean()
    alone = GaussianProcess(x[:1], y[:1])(x[40:])
    assert alone.mean == pytest.approx(np.full(80, y[0]))
    assert alone.sd.min() > 5 * guess.sd.mean()


# --- children --------------------------------------------------------------------------------------------------------


def large() -> Space:
    return loads_space(LARGE)


def test_a_mutation_changes_one_stage_and_stays_in_the_space() -> None:
    space, rng = large(), random.Random(0)
    for _ in range(300):
        parent = space.sample(rng)
        child = mutated(space, parent, rng)
        assert {choice.name for choice in space.active(child)} == set(child)
        stages = {
            stage_of(choice.path) for choice in space.choices if parent.get(choice.name) != child.get(choice.name)
        }
        assert len(stages) == 1


def test_a_crossing_takes_whole_stages_of_its_parents() -> None:
    space, rng = large(), random.Random(1)
    mixed = 0
    for _ in range(300):
        one, other = space.sample(rng), space.sample(rng)
        child = crossed(space, one, other, rng)
        assert {choice.name for choice in space.active(child)} == set(child)
        for stage in ("stages.0", "stages.1", "stem"):
            names = [choice.name for choice in space.active(child) if stage_of(choice.path) == stage]
            mine = [child[name] for name in names]
            assert mine in ([one[name] for name in names], [other[name] for name in names])
        mixed += child not in (one, other)
    assert mixed > 100


def test_features_are_ranks_for_numbers_and_a_column_for_each_other_option() -> None:
    space = large()
    encode = Encoder(space.choices)
    inner = next(choice for choice in space.choices if choice.parent is not None)
    low = {choice.name: 0 for choice in space.choices if choice.parent is None}
    rows = encode([low, {**low, "stages.0.depth": 7, "defaults": 1, inner.name: 2}])
    assert rows.min() >= 0 and rows.max() <= 1
    assert (rows[0] != rows[1]).sum() == 1 + 2 + 1, "a depth, the two columns of a mapping, the choice in it"
    assert encode.key(low) != encode.key({**low, "stem.dim": 1})


def test_a_choice_of_one_option_is_never_the_one_that_changes() -> None:
    space, rng = loads_space(LARGE.replace("stem.dim: [8, 16, 24, 32]", "stem.dim: [8]")), random.Random(0)
    for _ in range(100):
        parent = space.sample(rng)
        child = mutated(space, parent, rng)
        assert child != parent and child["stem.dim"] == 0


def test_a_choice_of_two_options_is_turned_to_the_other() -> None:
    two = "{name: two, base: micro_swin, choices: {stages.0.window: [2, 4], stages.1.window: [2, 4]}}"
    space, rng = loads_space(two), random.Random(0)
    for _ in range(50):
        parent = space.sample(rng)
        child = mutated(space, parent, rng)
        assert sum(child[name] != parent[name] for name in parent) == 1


def test_only_more_than_one_number_in_rising_order_is_a_scale() -> None:
    def width(options: str) -> int:
        return Encoder(loads_space(LARGE.replace("[8, 16, 24, 32]", options)).choices)([{"stem.dim": 0}]).shape[1]

    ordered = width("[8, 16, 24, 32]")
    assert width("[8, 16]") == ordered
    assert width("[16, 8, 24, 32]") == ordered - 1 + 4
    assert width("[8]") == ordered, "one option tells nothing: one column, as for any other that is no number"


# --- proposals -------------------------------------------------------------------------------------------------------


def paid_until(table: Table, goal: float, seed: int, *, proposing: bool) -> int:
    """Networks paid for until a share of the hypervolume is reached: by proposals, or in random order."""
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy", seeds=(0, 1))
    proposer = Proposer(quickstart(), OBJECTIVES, assessor.known_costs, seed=seed)
    order = random.Random(seed).sample(table.rows, len(table.rows))
    records: list[Record] = []
    rows: list[TableRow] = []
    while not rows or table.hypervolume(rows, "toy", OBJECTIVES) < goal:
        if proposing:
            assignment = proposer.propose(records, len(records))
            assert assignment is not None
            row = table.row(assignment)
        else:
            assignment, row = {}, order.pop()
        assert row not in rows, "paid for twice"
        rows.append(row)
        values = (row.accuracy("toy", seeds=(0, 1)), row.latency_ms)
        records.append(
            Record(len(records), "complete", assignment, row.hash, None, row.params, row.macs, values=values)
        )
    return len(rows)


def test_proposals_need_at_most_half_of_what_chance_needs(table: Table) -> None:
    ours = fmean(paid_until(table, 0.95, seed, proposing=True) for seed in range(3))
    chance = fmean(paid_until(table, 0.95, seed, proposing=False) for seed in range(40))
    assert ours <= chance / 2


def test_the_same_trials_give_the_same_proposal_and_another_number_of_a_large_space_another() -> None:
    space = large()
    records = some_records(space, 12)

    def proposed(number: int, seed: int = 0) -> dict[str, int] | None:
        return Proposer(space, OBJECTIVES, foresee_in(space), seed=seed).propose(records, number)

    assert proposed(12) == proposed(12)
    others = [proposed(12 + step, seed) for step, seed in ((1, 0), (2, 0), (0, 1), (0, 2))]
    assert any(other != proposed(12) for other in others)


def test_a_trial_that_was_put_back_is_proposed_what_it_was_proposed_before(table: Table) -> None:
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
    records = some_records(quickstart(), 6)
    proposer = Proposer(quickstart(), OBJECTIVES, assessor.known_costs)
    assignment = proposer.propose(records, 6)
    assert assignment is not None
    left = Record(6, "open", assignment, hash=table.row(assignment).hash)
    assert Proposer(quickstart(), OBJECTIVES, assessor.known_costs).propose([*records, left], 6) == assignment
    assert proposer.propose([*records, left], 7) != assignment, "somebody is at it"


def foresee_in(space: Space):  # type: ignore[no-untyped-def]
    def foresee(assignment: dict[str, int]) -> KnownCosts:
        spec = space.spec(assignment, check=False)
        counts = cost(spec)
        return KnownCosts(identity(spec), {"params": counts.params, "macs": counts.macs})

    return foresee


def some_records(space: Space, num: int, seed: int = 0) -> list[Record]:
    """Complete trials of random networks: accuracy grows with the MACs, with noise."""
    rng = random.Random(seed)
    found: list[Record] = []
    while len(found) < num:
        assignment = space.sample(rng)
        spec = space.spec(assignment, check=False)
        counts, name = cost(spec), identity(spec)
        if name in {record.hash for record in found}:
            continue
        accuracy = 1 - 1 / (1 + counts.macs / 1e6) + rng.gauss(0, 0.01)
        found.append(
            Record(
                len(found),
                "complete",
                assignment,
                name,
                params=counts.params,
                macs=counts.macs,
                timing=fake_timing(counts.macs / 1e6),
                accuracy=fake_accuracy(accuracy),
                values=(accuracy, counts.macs / 1e6),
            )
        )
    return found


def test_a_large_space_is_searched_without_being_listed_and_only_a_few_networks_are_built() -> None:
    space = large()
    assert space.num_total > MOST_LISTED
    looked: list[dict[str, int]] = []

    def foresee(assignment: dict[str, int]) -> KnownCosts:
        looked.append(assignment)
        return foresee_in(space)(assignment)

    proposer = Proposer(space, OBJECTIVES, foresee)
    records = some_records(space, 20)
    assignment = proposer.propose(records, 20)
    assert assignment is not None
    assert identity(space.spec(assignment)) not in {record.hash for record in records}
    assert len(looked) <= 12


def test_hard_limits_that_are_known_before_are_never_proposed_to_be_broken() -> None:
    from archdsl.language.space.objectives import CountBounds

    space = large()
    limit = 60_000
    proposer = Proposer(space, OBJECTIVES, foresee_in(space), constraints={"params": CountBounds(max=limit)})
    records = some_records(space, 8)
    for number in range(8, 14):
        assignment = proposer.propose(records, number)
        assert assignment is not None
        assert cost(space.spec(assignment)).params <= limit
    strict = Proposer(space, OBJECTIVES, foresee_in(space), constraints={"params": CountBounds(max=1)})
    assert strict.propose(records, 8) is None


def test_what_is_guessed_to_break_a_limit_is_proposed_last(table: Table) -> None:
    from archdsl.language.space.objectives import DurationBounds

    space, limit = quickstart(), 0.6

    def foresee(assignment: dict[str, int]) -> KnownCosts:
        row = table.row(assignment)
        return KnownCosts(row.hash, {"params": row.params, "macs": row.macs})

    rng = random.Random(0)
    rows = rng.sample(table.rows, 20)
    assignment_of = {table.row(setting): setting for setting in space.iterate()}
    records = [
        Record(
            i,
            "complete",
            assignment_of[row],
            row.hash,
            None,
            row.params,
            row.macs,
            values=(row.accuracy("toy"), row.latency_ms),
        )
        for i, row in enumerate(rows)
    ]
    for bounds, sign in ((DurationBounds(max=limit), 1), (DurationBounds(min=limit), -1)):
        proposer = Proposer(space, OBJECTIVES, foresee, constraints={"latency": bounds})
        assignment = proposer.propose(records, 20)
        assert assignment is not None
        assert sign * table.row(assignment).latency_ms <= sign * limit * (1 + sign * 0.05)


@pytest.mark.parametrize(
    "names", [("accuracy",), ("accuracy", "params", "macs"), ("accuracy", "latency", "params", "macs")]
)
def test_any_number_of_objectives_is_proposed_for(table: Table, names: tuple[str, ...]) -> None:
    objectives = chosen(names, names)
    assessor = TabularAssessor(quickstart(), objectives, table, task="toy")
    proposer = Proposer(quickstart(), objectives, assessor.known_costs)
    rows: list[TableRow] = []
    records: list[Record] = []
    for number in range(12):
        assignment = proposer.propose(records, number)
        assert assignment is not None
        row = table.row(assignment)
        values = tuple(row.value(name, "toy") for name in names)
        rows.append(row)
        records.append(Record(number, "complete", assignment, row.hash, None, row.params, row.macs, values=values))
    chance = [table.hypervolume(random.Random(seed).sample(table.rows, 12), "toy", objectives) for seed in range(50)]
    assert table.hypervolume(rows, "toy", objectives) > np.percentile(chance, 75)


def test_when_every_network_is_known_nothing_is_proposed(table: Table) -> None:
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
    assignment_of = {table.row(setting).index: setting for setting in quickstart().iterate()}
    records = [
        Record(
            row.index,
            "complete",
            assignment_of[row.index],
            row.hash,
            None,
            row.params,
            row.macs,
            values=(0.5, row.latency_ms),
        )
        for row in table.rows
    ]
    proposer = Proposer(quickstart(), OBJECTIVES, assessor.known_costs)
    assert proposer.propose(records, len(records)) is None
    assert table.row(proposer.propose(records[:-1], 1000) or {}).index == records[-1].number


def test_trials_that_failed_or_are_invalid_do_not_stop_the_proposals(table: Table) -> None:
    assessor = TabularAssessor(quickstart(), OBJECTIVES, table, task="toy")
    proposer = Proposer(quickstart(), OBJECTIVES, assessor.known_costs)
    records: list[Record] = []
    for number in range(6):
        assignment = proposer.propose(records, number)
        assert assignment is not None
        records.append(Record(number, "failed", assignment, table.row(assignment).hash, rule="crash"))
    assert len({record.hash for record in records}) == 6


def test_the_work_of_a_proposal_is_bounded_after_thousands_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    space = large()
    rng = random.Random(0)
    records = [
        Record(
            n,
            "complete",
            space.sample(rng),
            str(n),
            None,
            10_000 + n,
            10**6 + n,
            values=(rng.random(), 1 + rng.random()),
        )
        for n in range(2000)
    ]
    fitted: list[int] = []
    built: list[object] = []
    fit, foresee = GaussianProcess.__init__, foresee_in(space)

    def counting_fit(self: GaussianProcess, features: np.ndarray, values: np.ndarray) -> None:
        fitted.append(len(values))
        fit(self, features, values)

    def counting_costs(assignment: Assignment) -> KnownCosts | None:
        built.append(assignment)
        return foresee(assignment)

    monkeypatch.setattr(GaussianProcess, "__init__", counting_fit)
    proposer = Proposer(space, OBJECTIVES, counting_costs)
    for number in (2000, 2001, 2002):
        proposer.propose(records, number)
    assert 0 < len(built) <= 3 * 2 * MOST_BUILT, "the networks of the records are not built again"
    assert 0 < max(fitted) <= MOST_POINTS, "the time of a fit grows with the cube of its points"


def test_writing_the_table_leaves_no_other_files(tmp_path: Path) -> None:
    assert sorted(path.name for path in write_fake_table(tmp_path).iterdir()) == ["fake.csv.gz", "fake.json"]


# --- the acquisition -------------------------------------------------------------------------------------------------

COUNTED = chosen((), ("accuracy", "params"))


def acquisition(space: Space, objectives: Sequence[Objective] = COUNTED) -> Acquisition:
    return Acquisition(Encoder(space.choices), objectives, {}, is_small=False)


def test_the_first_network_is_of_middling_cost_where_costs_are_known() -> None:
    space, rng = large(), random.Random(0)
    candidates = [Proposal(space.sample(rng), {"params": float(10**i)}) for i in range(40)]
    first = acquisition(space)
    scores = first(candidates, first.observe([], [], rng), rng)
    middle = np.flatnonzero(scores > 0)
    assert set(middle) == set(range(15, 26)), "the places 15/40 … 25/40 are at most an eighth from the middle"
    unknown = [Proposal(one.assignment) for one in candidates]
    assert (first(unknown, first.observe([], [], rng), rng) > 0).all()


def test_what_is_open_a_duplicate_or_without_choices_is_not_learnt_from() -> None:
    space = large()
    records = some_records(space, 4)
    others = [
        replace(records[0], number=4, duplicate_of=0),
        replace(records[1], number=5, state="open"),
        replace(records[2], number=6, assignment={}),
    ]
    seen = acquisition(space).observe([*records, *others], [], random.Random(0))
    assert [record.number for record in seen.done] == [0, 1, 2, 3]


def test_no_accuracy_above_one_is_hoped_for() -> None:
    """At 0.99 an equally dear network can gain a hundredth; without that bound its sd alone would decide."""
    space, rng = large(), random.Random(3)
    best = [replace(record, values=(0.99, record.values[1])) for record in some_records(space, 6) if record.values]
    ranked = acquisition(space, OBJECTIVES)
    seen = ranked.observe(best, [], rng)
    candidates = [Proposal(space.sample(rng), {"latency": latency}) for latency in (1e-3, 1e3) for _ in range(5)]
    scores = ranked(candidates, seen, rng)
    assert scores[:5].min() > 0 and scores[5:].max() < 1e-3 * scores[:5].min()


def test_a_stopped_training_is_raised_by_what_the_others_gained_from_there() -> None:
    space = large()
    whole = [
        replace(record, rungs={1: (mean - gain, 1.0)}, accuracy=fake_accuracy(mean), values=(mean, 1.0))
        for record, mean, gain in zip(some_records(space, 3), (0.5, 0.6, 0.7), (0.1, 0.2, 0.4), strict=True)
    ]
    stopped = replace(
        whole[0], number=3, state="pruned", values=None, rungs={}, accuracy=fake_accuracy(0.3, epochs=1, of_epochs=9)
    )
    columns = CostColumns(OBJECTIVES, ())
    accuracies = -columns.observed([*whole, stopped])[:, 0]
    assert accuracies == pytest.approx([0.5, 0.6, 0.7, 0.3 + 0.2]), "the median gain is 0.2"
    timed = CostColumns(chosen((), ("latency", "params")), ())
    assert timed.observed(whole).shape == (3, 3), "a study without accuracy has no gains"
