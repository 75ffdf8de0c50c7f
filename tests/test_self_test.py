"""`archdsl doctor --latency`: instruments that lie are found out, each by the check that is there for that lie."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fake_study import fake_timing

from archdsl.cli.main import run
from archdsl.errors import MeasureError
from archdsl.failures import failed
from archdsl.runs import self_test as real
from archdsl.runs.self_test_checks import CHECKS, Check, TimedRun, self_test
from archdsl.runtimes.target import Target


class Honest:
    """A machine on which a GMAC takes 10 ms, loading takes half a second, and everything else is as it should be."""

    loading_s = 0.5
    noise = 0.02

    def __init__(self) -> None:
        self.count = 0

    def macs(self, network: str) -> int:
        return {"small": 10**9, "big": 10**10}[network]

    def ms(self, network: str, batch: int) -> float:
        return 10.0 * self.macs(network) / 1e9 * batch

    def told_ms(self, network: str, batch: int) -> float:
        """What the machine says; the truth, but for those that lie."""
        self.count += 1
        return self.ms(network, batch) * (1 + self.noise * (-1) ** self.count / 2)

    def take(self, network: str, *, batch: int = 1, budget_s: float = 1.0) -> TimedRun:
        true, told = self.ms(network, batch), self.told_ms(network, batch)
        runs = max(5, int(budget_s * 1000 / true))
        timing = fake_timing(told, told * self.noise, batch=batch, runs=runs, warmup=3, environment=self.environment())
        return TimedRun(timing, self.loading_s + (runs + 3) * true / 1000)

    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def num_cores(self) -> int:
        return 8

    def keeps(self, network: str, most_ms: float) -> bool:
        return self.told_ms(network, 1) <= most_ms

    def refuses_corrupted(self, network: str) -> bool:
        return True

    def predicted_and_measured(self) -> tuple[float, float] | None:
        return 5.1, 5.0


class Seconds(Honest):
    """It says seconds where milliseconds are meant."""

    def told_ms(self, network: str, batch: int) -> float:
        return super().told_ms(network, batch) / 1000


class Microseconds(Honest):
    def told_ms(self, network: str, batch: int) -> float:
        return super().told_ms(network, batch) * 1000


class NotSynchronised(Honest):
    """It stops the clock when the work is queued: a fifth of the time."""

    def told_ms(self, network: str, batch: int) -> float:
        return super().told_ms(network, batch) / 5


class Constant(Honest):
    """It times something else: always the same."""

    def told_ms(self, network: str, batch: int) -> float:
        return 10.0


class Backwards(Honest):
    def told_ms(self, network: str, batch: int) -> float:
        return {"small": 100.0, "big": 10.0}[network] * batch


class PerImage(Honest):
    """It divides a batch's time by its size, twice."""

    def told_ms(self, network: str, batch: int) -> float:
        return super().told_ms(network, batch) / batch**2


class Repeating(Honest):
    """Batches take far longer than their images."""

    def told_ms(self, network: str, batch: int) -> float:
        return super().told_ms(network, batch) * batch**2


class NoGate(Honest):
    def refuses_corrupted(self, network: str) -> bool:
        return False


class NoisyClock(Honest):
    """Repeats differ by 30 %, and each is sure of itself."""

    def take(self, network: str, *, batch: int = 1, budget_s: float = 1.0) -> TimedRun:
        taken, factor = super().take(network, batch=batch, budget_s=budget_s), 1 + 0.3 * (self.count % 2)
        ms = taken.timing.median_ms * factor
        sure = {"median_ms": ms, "ci_low_ms": ms, "ci_high_ms": ms, "p5_ms": ms, "p95_ms": ms, "p99_ms": ms}
        return replace(taken, timing=taken.timing.model_copy(update=sure))


class BadPredictor(Honest):
    def predicted_and_measured(self) -> tuple[float, float] | None:
        return 10.0, 5.0


class NoLimit(Honest):
    def keeps(self, network: str, most_ms: float) -> bool:
        return True


class NothingAllowed(Honest):
    def keeps(self, network: str, most_ms: float) -> bool:
        return False


class OtherThreads(Honest):
    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


class Spinning(Honest):
    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "1"}


class OnePinned(Honest):
    """Eight threads share one core."""

    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "8", "OMP_WAIT_POLICY": "PASSIVE"}

    def take(self, network: str, **how: Any) -> TimedRun:
        taken = super().take(network, **how)
        return replace(taken, timing=taken.timing.model_copy(update={"threads": 8, "cores": (3,)}))


def failing(instruments: Any) -> set[str]:
    return {check.name for check in self_test(instruments) if check.passed is False}


def test_an_honest_machine_passes_every_check() -> None:
    checks = self_test(Honest())
    assert [check.name for check in checks] == list(CHECKS)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    assert all(check.measured and check.otherwise for check in checks)


@pytest.mark.parametrize(
    ("lie", "found_by"),
    [
        (Seconds, {"clock"}),
        (Microseconds, {"clock"}),
        (NotSynchronised, {"clock"}),
        (Constant, {"bigger is slower", "constraint"}),
        (Backwards, {"bigger is slower", "constraint"}),
        (PerImage, {"batch"}),
        (Repeating, {"batch"}),
        (NoGate, {"numeric gate"}),
        (NoisyClock, {"repeats"}),
        (NoLimit, {"constraint"}),
        (NothingAllowed, {"constraint"}),
        (BadPredictor, {"prediction"}),
        (OtherThreads, {"conditions"}),
        (Spinning, {"conditions"}),
        (OnePinned, {"conditions"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_each_lie_is_caught_by_the_check_that_is_there_for_it(lie: type[Honest], found_by: set[str]) -> None:
    assert found_by <= failing(lie())
    if lie not in (Constant, Backwards):  # a clock that knows nothing is wrong about more than one thing
        assert failing(lie()) == found_by


def test_every_check_catches_some_lie() -> None:
    liars = (Seconds, Constant, PerImage, NoGate, NoisyClock, NoLimit, BadPredictor, OtherThreads)
    assert set().union(*(failing(lie()) for lie in liars)) == set(CHECKS)


def test_where_nothing_is_predicted_nothing_is_checked_and_that_is_said() -> None:
    class Nothing(Honest):
        def predicted_and_measured(self) -> tuple[float, float] | None:
            return None

    check = next(check for check in self_test(Nothing()) if check.name == "prediction")
    assert check.passed is None and "nothing is predicted" in check.measured


def test_a_check_that_cannot_be_made_has_failed_and_the_others_are_told() -> None:
    class Broken(Honest):
        def predicted_and_measured(self) -> tuple[float, float] | None:
            raise failed("extrapolation", "too far to predict it")

    checks = self_test(Broken())
    assert [check.name for check in checks] == list(CHECKS)
    (check,) = [check for check in checks if not check.passed]
    assert (check.name, check.passed) == ("prediction", False) and "too far to predict it" in check.measured


def test_where_nothing_can_be_timed_there_is_nothing_to_tell() -> None:
    class Dead(Honest):
        def take(self, network: str, **how: Any) -> TimedRun:
            raise failed("crash", "the worker crashed")

    with pytest.raises(MeasureError, match="the worker crashed"):
        self_test(Dead())


def test_as_many_threads_as_the_machine_has_cores_are_pinned_to_all_of_them() -> None:
    class Small(OnePinned):
        def num_cores(self) -> int:
            return 1

    assert failing(Small()) == set()


def test_contention_is_told_where_conditions_are() -> None:
    class Crowded(Honest):
        def take(self, network: str, **how: Any) -> TimedRun:
            taken = super().take(network, **how)
            busy = {"contended": True, "contention": "others used 90% of its cores"}
            return replace(taken, timing=taken.timing.model_copy(update=busy))

    told = next(check for check in self_test(Crowded()) if check.name == "conditions")
    assert told.passed and "contended now: others used 90% of its cores" in told.measured


# --- the real instruments --------------------------------------------------------------------------------------------


def test_the_two_networks_are_about_ten_times_apart() -> None:
    machine = real.Machine(Target(), __import__("pathlib").Path("."))
    assert 8 <= machine.macs("big") / machine.macs("small") <= 14


def test_a_corrupted_weight_changes_what_is_expected_by_more_than_any_tolerance() -> None:
    import numpy as np

    from archdsl.runtimes.reference import reference_of

    sound, wrong = reference_of(real.spec_of("small")), real.corrupted("small")
    assert np.array_equal(sound.inputs, wrong.inputs)
    assert np.abs(sound.outputs - wrong.outputs).max() > 0.2 * np.abs(sound.outputs).max()


def test_a_runtime_that_computes_has_nothing_to_test() -> None:
    with pytest.raises(MeasureError, match="null computes latencies from counts"):
        real.run_self_test(Target("null"))


@pytest.mark.parametrize("passed", [True, None, False])
def test_the_command_says_what_a_failure_means_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool | None
) -> None:
    check = Check("clock", passed, "1.00 s against 1000 s", "the times are in a wrong unit")
    monkeypatch.setattr("archdsl.runs.self_test.run_self_test", lambda target, on_event: [check])
    assert run(["doctor", "--latency"]) == (1 if passed is False else 0)
    shown = capsys.readouterr().out
    assert "1.00 s against 1000 s" in shown
    assert ("clock failed: the times are in a wrong unit" in shown) is (passed is False)
    assert run(["doctor", "--latency", "--on", "torch:cpu", "--json"]) == (1 if passed is False else 0)
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["target"]["runtime"]) == (passed is not False, "torch")
    assert (told["checks"][0]["name"], told["checks"][0]["passed"]) == ("clock", passed)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--on", "torch"], "add --latency"),
        (["--latency", "--on", "torsh"], "did you mean `torch`?"),
        (["--latency", "--on", "torch:gpu"], "torch knows the devices cpu, cuda"),
    ],
)
def test_a_wrong_target_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", *arguments]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.alone
def test_the_real_machine_has_live_checks(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its noise: networks are told apart, units are right, the gate and the constraint are live."""
    run(["doctor", "--latency", "--json"])
    passed = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    for name in ("bigger is slower", "constraint", "clock", "batch", "numeric gate", "conditions"):
        assert passed[name]["passed"], passed[name]
    assert passed["prediction"]["passed"] is not None, "it was checked; what came of it depends on who else is at work"
