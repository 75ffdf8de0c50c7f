"""A study on several targets: an objective for each, named apart, from the space's file to the folder of results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from fake_study import fake_timing

from archdsl.cli.main import run
from archdsl.compiler import cost
from archdsl.errors import SpecError, StudyError
from archdsl.language import Space, Spec, loads_space
from archdsl.language.text.quantities import size_text
from archdsl.latency import Timing, close_workers
from archdsl.report.front_csv import columns
from archdsl.report.front_table import value_text
from archdsl.runs.search import SearchResult, search
from archdsl.study.candidate import Assessor, Infeasible
from archdsl.study.front.pareto import front_of
from archdsl.study.objectives import BadValues, chosen, objective_named
from archdsl.study.record import Record

SPACE = """
name: matrix
base: micro_swin
choices:
  stages.0.window: [2, 4]
  stages.*.shift: {same: [true, false]}
  stages.0.depth: [1, 2]
objectives:
  latency:
    - {runtime: "null"}
    - {name: bulk, runtime: "null", batch: 8}
search: {sampler: random, trials: 8, start: [micro_swin]}
"""
ONE = "latency@null"
BULK = "latency@bulk"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    yield
    close_workers()


def space(objectives: str, constraints: str = "{}") -> Space:
    text = f"base: micro_swin\nchoices: {{stages.0.window: [2, 4]}}\nconstraints: {constraints}\n"
    return loads_space(text + f"objectives: {objectives}")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objectives", "names"),
    [
        ("{latency: {runtime: openvino, batch: 8}}", ["latency"]),
        ("{latency: [{runtime: openvino}, {batch: 8}]}", ["latency@openvino", "latency@onnxruntime-b8"]),
        ("{latency: [{}, {device: cuda, precision: fp16, threads: 2}]}", [
            "latency@onnxruntime",
            "latency@onnxruntime-cuda-fp16-t2",
        ]),
        ("{latency: [{}, {name: bulk, batch: 64}], params: {}}", ["latency@onnxruntime", "latency@bulk", "params"]),
        ("{latency: {}, throughput: {batch: 64}}", ["latency@onnxruntime", "throughput@onnxruntime-b64"]),
        ("{latency: {runtime: openvino}, peak_memory: {}}", ["latency", "peak_memory"]),
        ("{throughput: {}}", ["throughput"]),
        ("{latency: [{}, {batch: 2}], throughput: {}}", [
            "latency@onnxruntime",
            "latency@onnxruntime-b2",
            "throughput@onnxruntime",
            "throughput@onnxruntime-b2",
        ]),
    ],
)  # fmt: skip
def test_one_target_needs_no_label_and_several_have_one_each(objectives: str, names: list[str]) -> None:
    assert list(space(objectives).objectives.names) == names


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        ("{latency: [{}, {}]}", "two targets are called `onnxruntime`"),
        ("{latency: {}, throughput: {name: onnxruntime, batch: 2}}", "two targets are called `onnxruntime`"),
        ("{latency: [{}, {name: again}]}", "`onnxruntime` and `again` are the same target"),
        ("{latency: {name: max}}", "cannot be called `min` or `max`"),
        ("{latency: {name: a b}}", "must be text that matches"),
        ("{latency: []}", "a list of at least 1 values"),
    ],
)
def test_targets_that_cannot_be_told_apart_are_refused(objectives: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        space(objectives)


def test_latency_on_the_command_line_is_the_latency_on_every_target() -> None:
    offered = space("{latency: [{}, {batch: 2}], params: {}}").objectives.names
    labels = ["onnxruntime", "onnxruntime-b2"]
    assert [o.name for o in chosen(["latency"], offered, labels)] == list(offered[:2])
    assert [o.name for o in chosen(["latency@onnxruntime-b2"], offered, labels)] == ["latency@onnxruntime-b2"]
    assert [o.name for o in chosen(["throughput@onnxruntime"], offered, labels)] == ["throughput@onnxruntime"]
    assert [o.name for o in chosen(["peak_memory"], offered, labels)] == [f"peak_memory@{label}" for label in labels]
    with pytest.raises(StudyError, match="no objective `latency@openvino`"):
        chosen(["latency@openvino"], offered, labels)


def test_five_objectives_are_too_many() -> None:
    offered = space("{latency: [{}, {batch: 2}, {batch: 4}], params: {}, macs: {}}").objectives.names
    with pytest.raises(StudyError, match="at most 4 objectives, but these are 5: latency@onnxruntime, "):
        chosen([], offered)


def test_a_labelled_objective_is_what_its_kind_is() -> None:
    bulk = objective_named("throughput@bulk")
    assert (bulk.kind, bulk.target, bulk.direction, bulk.title) == (
        "throughput",
        "bulk",
        "maximize",
        "throughput@bulk (images/s)",
    )


# --- values and constraints ------------------------------------------------------------------------------------------


def on_target(slower: float, **changes: Any) -> Any:
    """Takes made-up times: a millisecond for each million MACs, `slower` times as much."""
    return lambda spec: fake_timing(slower * cost(spec).macs / 1e6, 0.1, **changes)


def assessed(names: list[str], constraints: dict[str, Any], **latencies: Any) -> tuple[list[Any], dict[str, Any], Any]:
    """What the assessor says about the base: values, what it kept, violations."""
    here = space("{latency: {}}")
    kept: dict[str, Any] = {}
    objectives = [objective_named(name) for name in names]
    assessor = Assessor(here, objectives, constraints=constraints, latency=latencies)
    candidate = assessor.candidate({choice.name: 0 for choice in here.choices})
    values, violations = assessor.assess(candidate, lambda step: None, kept.__setitem__)
    return list(values), kept, violations


def test_each_target_gives_its_own_value() -> None:
    names = ["latency@a", "latency@b", "throughput@b", "peak_memory@b"]
    values, kept, _ = assessed(names, {}, a=on_target(1), b=on_target(3, batch=4, peak_memory_bytes=77))
    assert values[1] == pytest.approx(3 * values[0])
    assert values[2] == pytest.approx(4 * 1000 / values[1])
    assert values[3] == 77
    assert set(kept) == {"timing@a", "timing@b"}


def test_a_target_that_nothing_asks_for_is_not_measured() -> None:
    def never(spec: Spec) -> Timing:
        raise AssertionError

    assert len(assessed(["latency@a"], {}, a=on_target(1), b=never)[0]) == 1


def test_a_memory_that_is_not_known_is_said_and_no_value() -> None:
    with pytest.raises(BadValues, match="it is unknown how much memory a network needs in null on cpu"):
        assessed(["peak_memory@a"], {}, a=on_target(1))


def test_a_name_that_nothing_takes_is_a_bug_that_is_noticed() -> None:
    with pytest.raises(ValueError, match="nothing evaluates the latency@c"):
        assessed(["latency@c"], {}, a=on_target(1))


def bounds(constraints: str, objectives: str) -> dict[str, Any]:
    from archdsl.runs.search_parts import constraints_of

    here = space(objectives, constraints)
    found = constraints_of(here, tuple(target.label for target in here.objectives.targets))
    return {name: (bound.min, bound.max) for name, bound in found.items()}


def test_a_constraint_holds_on_every_target_unless_one_has_its_own() -> None:
    two = "{latency: [{}, {batch: 8}]}"
    assert bounds("{latency: {max: 5 ms}}", "{latency: {}}") == {"latency": (None, 5.0)}
    assert bounds("{latency: {max: 5 ms}}", two) == {
        "latency@onnxruntime": (None, 5.0),
        "latency@onnxruntime-b8": (None, 5.0),
    }
    assert bounds("{latency: {max: 5 ms, onnxruntime-b8: {max: 30 ms}}}", two) == {
        "latency@onnxruntime": (None, 5.0),
        "latency@onnxruntime-b8": (None, 30.0),
    }
    assert bounds("{throughput: {onnxruntime-b8: {min: 100}}, peak_memory: {max: 1 GiB}, params: {max: 1M}}", two) == {
        "throughput@onnxruntime-b8": (100.0, None),
        "peak_memory@onnxruntime": (None, 2**30),
        "peak_memory@onnxruntime-b8": (None, 2**30),
        "params": (None, 1_000_000),
    }


@pytest.mark.parametrize(
    ("constraints", "told"),
    [
        ("{latency: {mx: 5 ms}}", "unknown key `mx`"),
        ("{latency: {onnxruntime-b8: {mx: 5 ms}}}", "unknown key `mx`"),
        ("{latency: {onnxruntime-b8: {min: 5 ms, max: 1 ms}}}", "`min` must not be more than `max`"),
        ("{latency: {}}", "needs a `max` or a `min`"),
        ("{peak_memory: {max: 5 Q}}", "a size such as `512 MiB`"),
        ("{throughput: {min: -1}}", "at least 0"),
    ],
)
def test_a_wrong_constraint_is_told_at_its_place(constraints: str, told: str) -> None:
    with pytest.raises(SpecError, match=told) as caught:
        space("{latency: [{}, {batch: 8}]}", constraints)
    assert caught.value.problems[0].place.line == 3


def test_a_constraint_on_a_target_that_there_is_not_is_told() -> None:
    with pytest.raises(StudyError, match="there is no target `onnxruntime-b9`") as caught:
        bounds("{latency: {onnxruntime-b9: {max: 5 ms}}}", "{latency: [{}, {batch: 8}]}")
    assert caught.value.problems[0].place.line == 3
    assert "did you mean `onnxruntime-b8`?" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bound"), [("throughput@b", "min"), ("latency@b", "max"), ("peak_memory@b", "max")]
)  # fmt: skip
def test_a_constraint_on_one_target_rejects_what_breaks_it(name: str, bound: str) -> None:
    from archdsl.language.space.objectives import CountBounds

    b = on_target(1, peak_memory_bytes=1000)
    good = {"throughput@b": 1, "latency@b": 10_000, "peak_memory@b": 1000}[name]
    bad = {"throughput@b": 10_000_000, "latency@b": 0, "peak_memory@b": 999}[name]
    assert assessed(["latency@a"], {name: CountBounds(**{bound: good})}, a=on_target(1), b=b)[0]
    with pytest.raises(Infeasible, match=rf"{name} is .*, but must be at"):
        assessed(["latency@a"], {name: CountBounds(**{bound: bad})}, a=on_target(1), b=b)


def test_noise_of_each_target_is_an_interval_of_its_objective() -> None:
    def record(number: int, a_ms: float, b_ms: float) -> Record:
        timings = {"a": fake_timing(a_ms, 0.5), "b": fake_timing(b_ms, 1.0, batch=2)}
        return Record(number, "complete", {}, hash=str(number), values=(a_ms, 2000 / b_ms), timings=timings)

    front = front_of(
        [record(0, 2.0, 10.0), record(1, 2.1, 9.0)], [objective_named(n) for n in ("latency@a", "throughput@b")]
    )
    assert front.members[0].point.intervals[0] == (1.5, 2.5)
    assert front.members[0].point.intervals[1] == pytest.approx((2000 / 11, 2000 / 9))
    assert front.members[0].tied_with == (1,)


# --- a search --------------------------------------------------------------------------------------------------------


def made_up(folder: Path, text: str = SPACE, **more: Any) -> SearchResult:
    return search(loads_space(text), out=folder, **more)


def test_a_search_on_two_targets_ends_with_a_front_of_two_latencies(tmp_path: Path) -> None:
    result = made_up(tmp_path / "run")
    assert [objective.name for objective in result.objectives] == [ONE, BULK]
    assert result.rows and all(set(row.record.timings) == {"null", "bulk"} for row in result.rows)
    lines = list(csv.DictReader((tmp_path / "run/front.csv").open()))
    assert tuple(lines[0]) == columns(["bulk", "null"])
    for line, row in zip(lines, result.rows, strict=True):
        assert [float(line["latency@null_ms"]), float(line["latency@bulk_ms"])] == list(row.record.values or ())
        assert float(line["throughput@bulk_images_per_second"]) == pytest.approx(8000 / float(line["latency@bulk_ms"]))
    told = result.as_json()
    assert told["objectives"] == [ONE, BULK]
    assert told["front"][0][BULK]["batch"] == 8 and "latency" not in told["front"][0]
    spec = next((tmp_path / "run/front").glob("*.yaml")).read_text()
    assert "batch 1\n" in spec and "batch 8\n" in spec
    picture = (tmp_path / "run/front.svg").read_text()
    assert "latency@null (ms)" in picture and "latency@bulk (ms)" in picture


def test_the_same_targets_go_on_and_other_targets_are_refused(tmp_path: Path) -> None:
    first = made_up(tmp_path / "run")
    assert len(made_up(tmp_path / "run").records) == len(first.records)
    with pytest.raises(StudyError, match=r"latency\.bulk: .*batch 8 .* -> .*batch 16"):
        made_up(tmp_path / "run", SPACE.replace("batch: 8", "batch: 16"))
    with pytest.raises(StudyError, match=r"objectives.0: \"latency@null\" -> \"latency@bulk\""):
        made_up(tmp_path / "run", objectives=["latency@bulk", "params"])


def test_duplicates_have_the_timings_of_every_target(tmp_path: Path) -> None:
    records = made_up(tmp_path / "run", trials=100).records
    doubles = [record for record in records if record.duplicate_of is not None]
    assert doubles
    for record in doubles:
        assert record.timings == records[record.duplicate_of or 0].timings != {}


def test_optuna_knows_the_objectives_by_their_names(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    made_up(tmp_path / "run", trials=2)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "run/study.journal")))
    study = optuna.load_study(study_name="matrix", storage=storage)
    assert study.metric_names == [ONE, BULK]


def test_throughput_is_made_larger(tmp_path: Path) -> None:
    text = SPACE.replace("search:", "  params: {}\nsearch:")
    result = made_up(tmp_path / "run", text, objectives=["throughput@bulk", "params"])
    assert [objective.direction for objective in result.objectives] == ["maximize", "minimize"]
    best = max(record.values[0] for record in result.records if record.values)
    assert result.rows[0].record.values[0] == best


def test_on_does_not_say_which_of_several_targets_it_means(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--on takes the place of one target, but the space names 2"):
        made_up(tmp_path / "run", on="onnxruntime")


def test_the_command_prints_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(SPACE)
    assert run(["search", str(path), "--objective", "latency", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert "latency@null: null 1 on no device, fp32, batch 1" in shown.out
    assert "latency@bulk: null 1 on no device, fp32, batch 8" in shown.out
    assert f"{ONE} " in shown.err and f"{BULK} " in shown.err


def test_a_study_of_one_target_is_kept_as_before(tmp_path: Path) -> None:
    text = SPACE.replace('  latency:\n    - {runtime: "null"}\n    - {name: bulk, runtime: "null", batch: 8}', (
        '  latency: {runtime: "null"}\n  params: {}'
    ))  # fmt: skip
    result = made_up(tmp_path / "run", text)
    assert [objective.name for objective in result.objectives] == ["latency", "params"]
    assert all(record.timing is not None and not record.timings for record in result.records)
    assert (tmp_path / "run/front.csv").read_text().splitlines()[0] == ",".join(columns())


def test_values_are_shown_with_their_units() -> None:
    timing = fake_timing(2.0, batch=4, peak_memory_bytes=3 * 2**20)
    record = Record(0, "complete", {}, timings={"bulk": timing}, params=1_000_000)
    names = ("latency@bulk", "throughput@bulk", "peak_memory@bulk", "latency@other", "params", "accuracy")
    shown = [value_text(record, objective_named(name)) for name in names]
    assert shown == [str(timing), "2000 images/s", "3 MiB", "–", "1.00M", "–"]
    assert [size_text(size) for size in (None, 5, 2048, 300 * 2**20, 3 * 2**29)] == [
        "–",
        "5 B",
        "2 KiB",
        "300 MiB",
        "1.5 GiB",
    ]
