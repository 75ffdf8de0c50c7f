"""The clock: how it warms up, when it stops, what it does with several callables."""

from __future__ import annotations

import gc
import time

import pytest

from archdsl.latency.sampling import FEWEST_RUNS, Samples, Sampling, interleave
from archdsl.telemetry.cpu import Watch, allowed_cores, busy_seconds, cpu_name, quietest_cores, waiting_seconds

QUICK = Sampling(budget_s=0.05, min_runs=20, warmup_s=0.02)


def time_callable(call, sampling=None):
    return interleave([call], sampling)[0]


class Clock:
    """A clock that only runs while something takes its time."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        return self.now_s

    def perf_counter_ns(self):
        return round(self.now_s * 1e9)

    process_time_ns = perf_counter_ns

    def taking(self, seconds):
        def call():
            self.now_s += seconds

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("archdsl.latency.sampling.time", clock)
    return clock


def test_readings_are_milliseconds_of_the_wall_and_of_the_processor():
    def spin():
        end = time.process_time() + 0.002
        while time.process_time() < end:
            pass

    asleep, awake = time_callable(lambda: time.sleep(0.005), QUICK), time_callable(spin, QUICK)
    assert 5.0 <= min(asleep.wall_ms) < 500  # a wrong unit breaks these bounds, a busy machine does not
    assert 2.0 <= min(awake.cpu_ms) < 200
    assert asleep.cpu_wall_ratio < 0.5
    assert awake.cpu_wall_ratio == pytest.approx(sum(awake.cpu_ms) / sum(awake.wall_ms))


def test_there_are_at_least_the_fewest_runs_even_when_one_takes_longer_than_the_budget(clock):
    samples = time_callable(clock.taking(0.015), Sampling(budget_s=0.01, min_runs=20, warmup_s=0))
    assert len(samples.wall_ms) == FEWEST_RUNS
    assert samples.warmup == 1


def test_runs_stop_at_the_limit(clock):
    assert len(time_callable(clock.taking(0.001), Sampling(budget_s=5, max_runs=50)).wall_ms) == 50


def test_the_budget_is_kept(clock):
    samples = time_callable(clock.taking(0.001), Sampling(budget_s=0.3, warmup_s=0.1))
    assert len(samples.wall_ms) == pytest.approx(300, abs=1)
    assert clock.now_s == pytest.approx(0.001 * (300 + samples.warmup), abs=0.002) and clock.now_s <= 0.402


def test_the_warm_up_goes_on_until_calls_are_steady(clock):
    calls = []

    def call():
        calls.append(1)
        clock.now_s += 1e-3 * max(0.5, 8 - 0.5 * len(calls))  # caches fill: each of the first fifteen is quicker

    samples = time_callable(call, Sampling(budget_s=0.05, warmup_s=5))
    assert 12 < samples.warmup < 40
    assert max(samples.wall_ms) == pytest.approx(0.5)


def test_several_callables_are_taken_in_turns(clock):
    order = []
    sampling = Sampling(budget_s=0.01, min_runs=6, max_runs=6, warmup_s=0)
    first, second = interleave([lambda: order.append("a"), lambda: order.append("b")], sampling)
    text = "".join(order)[2:]  # after one warm-up call each
    assert text.startswith("aaaabbbbaaaabbbb")
    assert first.rounds[:6] == (0, 0, 0, 1, 1, 1)
    assert len(first.round_medians()) == len(second.round_medians())


def test_slow_callables_take_one_run_a_turn(clock):
    order = []
    sampling = Sampling(budget_s=0.01, min_runs=2, max_runs=2, warmup_s=0)
    slow = clock.taking(0.025)
    interleave([lambda: (order.append("a"), slow()), lambda: (order.append("b"), slow())], sampling)
    assert "".join(order)[2:] == "abab"


def test_a_budget_is_spent_in_sessions_each_with_callables_made_anew():
    order, made = [], []

    def anew(i):
        made.append(i)
        mark = "ab"[i] + str(len(made) // 2 + len(made) % 2)
        return lambda: order.append(mark)

    sampling = Sampling(budget_s=0.01, min_runs=9, max_runs=9, warmup_s=0, sessions=3)
    calls = [lambda: order.append("a0"), lambda: order.append("b0")]
    first, second = interleave(calls, sampling, anew=anew)
    assert made == [0, 1, 0, 1]
    assert "".join(order)[:4] == "a0b0" and order[-1] == "b2"
    assert len(first.wall_ms) == len(second.wall_ms) == 9
    assert first.sessions == (0, 0, 0, 1, 1, 1, 2, 2, 2) and first.num_sessions == 3
    assert first.rounds == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert first.round_sessions() == [0, 1, 2]
    assert first.warmup == 3  # one run for each new place in memory


def test_the_runs_that_are_wanted_at_least_are_those_of_all_sessions(clock):
    sampling = Sampling(budget_s=0.03, min_runs=9, warmup_s=0, sessions=3)
    (samples,) = interleave([clock.taking(0.004)], sampling, anew=lambda i: clock.taking(0.004))
    assert len(samples.wall_ms) == 9


@pytest.mark.parametrize(
    ("seconds", "sessions", "least_s"),
    [([15.0], 1, 75), ([15.0, 0.01], 1, 75), ([15.0, 8.0], 1, 115), ([0.5], 3, 4), ([0.3, 0.001], 3, 4)],
    ids=str,
)
def test_slow_callables_have_one_session_and_say_how_long_they_will_take(clock, seconds, sessions, least_s):
    told, warm_at = [], []
    calls = [clock.taking(one) for one in seconds]
    sampling = Sampling(budget_s=2.0, sessions=3)
    taken = interleave(
        calls,
        sampling,
        anew=lambda i: clock.taking(seconds[i]),
        warm=lambda most_s: (told.append(most_s), warm_at.append(clock.now_s)),
    )
    took_s = clock.now_s - warm_at[0]
    assert [one.num_sessions for one in taken] == [sessions] * len(seconds)
    assert least_s <= took_s <= told[0] < 1.6 * took_s + 12 and len(told) == 1


def test_each_run_knows_which_of_all_calls_it_was():
    sampling = Sampling(budget_s=0.01, min_runs=6, max_runs=6, warmup_s=0)
    first, second = interleave([lambda: None, lambda: None], sampling)
    assert first.warmup == 1
    assert first.numbers == second.numbers == (2, 3, 4, 6, 7, 8)  # 0 warms up, 1 and 5 begin a turn
    assert time_callable(lambda: None, Sampling(budget_s=0.01, min_runs=3, max_runs=3, warmup_s=0)).numbers == (1, 2, 3)


def test_no_callable_is_there_more_than_twice_while_they_are_made_anew():
    class Call:
        alive = most = 0

        def __init__(self):
            Call.alive += 1
            Call.most = max(Call.most, Call.alive)

        def __call__(self):
            pass

        def __del__(self):
            Call.alive -= 1

    interleave([Call() for _ in range(4)], Sampling(budget_s=0.01, max_runs=20, warmup_s=0), anew=lambda i: Call())
    assert Call.most <= 5  # a new one before the old one goes, so that it lies elsewhere


def test_without_callables_made_anew_there_is_one_session():
    samples = time_callable(lambda: None, Sampling(budget_s=0.01, max_runs=30))
    assert (samples.sessions, samples.num_sessions) == ((), 1)


def test_a_slow_callable_is_warm_after_two_runs_alike(clock):
    samples = time_callable(clock.taking(0.16), Sampling(budget_s=0.01, min_runs=1, max_runs=1, warmup_s=5))
    assert 2 <= samples.warmup <= 4


def test_an_exception_comes_through_and_garbage_collection_goes_on():
    def call():
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError, match="no"):
        time_callable(call)
    assert gc.isenabled()


def test_readings_survive_json():
    samples = time_callable(lambda: None, Sampling(budget_s=0.01, max_runs=30))
    assert Samples.from_json(samples.as_json()) == samples


def test_nothing_to_time_gives_nothing():
    assert interleave([]) == []


@pytest.mark.parametrize(
    "wrong", [{"budget_s": 0}, {"min_runs": 0}, {"warmup_s": -1}, {"max_runs": 3}, {"sessions": 0}], ids=str
)
def test_a_pace_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="a sampling needs"):
        Sampling(**wrong)


def test_the_machine_has_a_name_and_cores():
    assert cpu_name().endswith("cores")
    cores = allowed_cores()
    if cores is not None:
        assert len(quietest_cores(cores, 1)) == 1
        assert quietest_cores(cores, 999) == cores
    assert quietest_cores(None, 1) is None


@pytest.mark.skipif(busy_seconds() is None or waiting_seconds() is None, reason="the system does not tell")
def test_our_own_work_is_not_blamed_on_neighbours():
    watch = Watch(None)
    end = time.perf_counter() + 0.6
    while time.perf_counter() < end:
        pass
    assert watch.usage().busy_neighbours < len(busy_seconds())  # own core is taken off


def test_a_short_look_says_nothing_about_cores():
    usage = Watch((0,)).usage()
    assert (usage.others_on_ours, usage.busy_neighbours) == (None, None)
