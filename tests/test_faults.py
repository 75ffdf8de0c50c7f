"""Faults never spread. One test for each of nine; each asks for the same, in `unharmed`:

    1  the worker is killed                    a failed measurement, `crash`
    2  the runtime segfaults                   a failed measurement, `crash`
    3  the runtime leaves by os._exit          a failed measurement, `exit`
    4  the runtime loops for ever              a failed measurement, `timeout`
    5  the runtime allocates 30 GiB            a failed measurement, `out-of-memory`
    6  the weights hold NaN                    a failed measurement, `not-finite`
    7  the disk is full for the cache          the measurement succeeds, the timing is not kept
    8  two processes use one cache             both succeed, all timings are kept
    9  the cache file is corrupt               the measurement succeeds, the file is moved aside

Then what the gate refuses although it is fast, many faults in a row, memory that comes back, retries, and quarantine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from archdsl import jsonl
from archdsl.cli.main import run as run_cli
from archdsl.errors import MeasureError
from archdsl.failures import REASONS, reason_of, spoils_device
from archdsl.language.architecture.load import load
from archdsl.latency import CacheWarning, TimingCache, Worker, measure
from archdsl.latency.cache.quarantine import MOST_CRASHES, Crash, Quarantine
from archdsl.latency.worker.main import check_reference
from archdsl.latency.worker.retries import RETRIES
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.reference import reference_of
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import Target, resolve

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 10.0
MOST_GROWTH = 50 * 2**20


@pytest.fixture(autouse=True)
def _faulty(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "faulty", "faulty_runtime")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A timing cache that holds two timings taken before, in the folder that the commands use too."""
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    found = TimingCache()
    with Worker() as worker:
        for name in EARLIER:
            take("none", worker, cache=found, name=name)
    return found


EARLIER = ("earlier", "earlier still")


def network(fault, name=None):
    name = name or fault
    return Artefact("spec", f"hash of {name}", (4, 2), text=fault, name=name)


def take(fault, worker, *, name=None, device="cpu", deadline_s=DEADLINE_S, **options):
    target = Target("faulty", device=device)
    return measure(network(fault, name), target, worker=worker, budget_s=0.03, deadline_s=deadline_s, **options)


def resident_bytes(pid="self"):
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def unharmed(cache, worker, *, limit_s, keeps=True):
    """Whatever happens inside: it ends in time, we do not grow, the next measurement works, no timing is lost."""
    before = {name: cache.get(network("none", name), resolve(Target("faulty")).fingerprint) for name in EARLIER}
    assert all(before.values())
    start, memory = time.monotonic(), resident_bytes()
    yield
    assert time.monotonic() - start < limit_s
    assert resident_bytes() - memory < MOST_GROWTH
    assert take("none", worker, name="the next").median_ms > 0
    if keeps:
        after = {name: cache.get(network("none", name), resolve(Target("faulty")).fingerprint) for name in EARLIER}
        assert after == before


def refused(reason, words, fault, worker, cache, **options):
    """A measurement that fails with this reason; what it says is matched with `words`."""
    with pytest.raises(MeasureError, match=words) as caught:
        take(fault, worker, cache=cache, **options)
    assert reason_of(caught.value) == reason
    assert cache.get(network(fault, options.get("name")), resolve(Target("faulty")).fingerprint) is None


# ---- the nine


@pytest.mark.alone
def test_1_a_worker_that_is_killed_costs_one_measurement(cache):
    with Worker() as worker, unharmed(cache, worker, limit_s=2 * (DEADLINE_S + 2)):
        killed = []

        def kill_twice():
            while len(killed) < 2:
                pid = worker.pid
                if pid is not None and pid not in killed:
                    time.sleep(0.5)
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                time.sleep(0.02)

        killer = threading.Thread(target=kill_twice, daemon=True)
        killer.start()
        refused("crash", r"was killed \(SIGKILL\) .* \(2 attempts\)", "loop", worker, cache)
        killer.join(timeout=5)
        assert len(killed) == 2


def test_2_a_segmentation_fault_costs_one_measurement(cache):
    with Worker() as worker, unharmed(cache, worker, limit_s=2 * (DEADLINE_S + 2)):
        refused("crash", r"crashed \(SIGSEGV\) while loading segfault \(2 attempts\)", "segfault", worker, cache)


def test_3_an_exit_costs_one_measurement(cache):
    with Worker() as worker, unharmed(cache, worker, limit_s=2 * (DEADLINE_S + 2)):
        refused("exit", r"exit code 7 while loading os\._exit \(2 attempts\)", "os._exit", worker, cache)


@pytest.mark.alone
def test_4_an_infinite_loop_ends_at_the_deadline_of_each_attempt(cache):
    with Worker() as worker, unharmed(cache, worker, limit_s=2 * (3 + 2)):
        refused("timeout", r"no answer within 3 s .* \(2 attempts\)", "loop", worker, cache, deadline_s=3.0)


def test_5_an_allocation_of_30_gib_costs_one_measurement(cache):
    with Worker() as worker, unharmed(cache, worker, limit_s=2 * (DEADLINE_S + 2)):
        assert 0 < worker.memory_bytes < 30 * 2**30
        refused("out-of-memory", r"allocate 1\.00 GiB .*\(2 attempts\)", "thirty GiB", worker, cache)


def test_6_weights_that_are_nan_cost_one_measurement_on_the_real_runtime(cache, exported):
    artefact, target, _ = exported
    change(artefact, "stages.0.blocks.0.mlp.fc1.bias", lambda x: np.where(np.arange(x.size) == 3, np.nan, x))
    with Worker() as worker, unharmed(cache, worker, limit_s=DEADLINE_S + 2):
        with pytest.raises(MeasureError, match=r"output values are NaN or infinite \[") as caught:
            measure(artefact, target, worker=worker, cache=cache, deadline_s=DEADLINE_S, budget_s=0.03)
        assert reason_of(caught.value) == "not-finite"  # tried once: the same would come out again
        assert cache.get(artefact, resolve(target).fingerprint) is None


@pytest.mark.promise(26)
def test_7_a_full_disk_costs_the_timing_and_not_the_measurement(cache):
    """The system refuses every byte beyond the first 512 of a file, as a full disk does."""
    program = """
        import json, resource, signal, sys, warnings
        sys.path.insert(0, sys.argv[1])
        from archdsl.latency import TimingCache, Worker, measure
        from archdsl.runtimes.artefact import Artefact
        from archdsl.runtimes.registry import RUNTIMES
        from archdsl.runtimes.target import Target, resolve
        RUNTIMES["faulty"] = "faulty_runtime"
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        free, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        cache, facts = TimingCache(), {}
        def take(name, fault="none"):
            artefact = Artefact("spec", f"hash of {name}", (4, 2), text=fault, name=name)
            return measure(artefact, Target("faulty"), cache=cache, worker=worker, budget_s=0.03).median_ms
        def kept(name):
            artefact = Artefact("spec", f"hash of {name}", (4, 2), text="")
            return cache.get(artefact, resolve(Target("faulty")).fingerprint)
        with Worker() as worker, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
            facts["measured"] = take("on a full disk")
            facts["told"] = [str(one.message) for one in told]
            try:
                take("a crash on a full disk", "segfault")
            except Exception as error:
                facts["crash"] = str(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
            facts["kept"] = kept("on a full disk") is not None
            facts["again"] = take("on a full disk")
            facts["kept again"] = kept("on a full disk") is not None
        print(json.dumps(facts))
    """
    with Worker() as worker, unharmed(cache, worker, limit_s=60):
        facts = json.loads(in_a_process(program))
    assert facts["measured"] > 0 and facts["again"] > 0
    assert any("the timing cache" in one and "could not be written" in one for one in facts["told"])
    assert "SIGSEGV" in facts["crash"]
    assert not facts["kept"] and facts["kept again"]


def test_8_two_processes_on_one_cache_keep_the_timings_of_both(cache):
    program = """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from archdsl.latency import TimingCache, Worker, measure
        from archdsl.runtimes.artefact import Artefact
        from archdsl.runtimes.registry import RUNTIMES
        from archdsl.runtimes.target import Target
        RUNTIMES["faulty"] = "faulty_runtime"
        cache, me = TimingCache(), sys.argv[2]
        (cache.path.parent / f"{me}.ready").touch()
        while len(list(cache.path.parent.glob("*.ready"))) < 2:
            time.sleep(0.005)
        with Worker() as worker:
            for i in range(12):
                name = f"{me if i % 2 else 'shared'} {i}"
                artefact = Artefact("spec", f"hash of {name}", (4, 2), text="none", name=name)
                measure(artefact, Target("faulty"), cache=cache, worker=worker, budget_s=0.01, refresh=True)
    """
    with Worker() as worker, unharmed(cache, worker, limit_s=60):
        both = [start(program, me) for me in ("one", "two")]
        errors = [process.communicate(timeout=50)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], errors
    names = {f"{me if i % 2 else 'shared'} {i}" for me in ("one", "two") for i in range(12)}
    assert {entry.network for entry in cache.entries() if entry.timing} == names | set(EARLIER)


def test_9_a_corrupt_cache_file_is_moved_aside_and_a_new_one_begun(cache):
    for suffix in ("-wal", "-shm"):  # all of it is merged: what is destroyed below is everything
        assert not cache.path.with_name(cache.path.name + suffix).exists()
    content = b"x" * 100 + cache.path.read_bytes()[100:]
    with Worker() as worker, unharmed(cache, worker, limit_s=DEADLINE_S + 2, keeps=False):
        cache.path.write_bytes(content)
        with pytest.warns(CacheWarning, match="was damaged"):
            timing = take("none", worker, cache=cache, name="after the damage")
    assert cache.get(network("none", "after the damage"), resolve(Target("faulty")).fingerprint) == timing
    (aside,) = (path for path in cache.path.parent.iterdir() if ".corrupt-" in path.name)
    assert aside.read_bytes() == content  # what it still holds can be looked at


def start(program, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(program), str(ROOT / "tests"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_a_process(program):
    process = start(program)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


# ---- the gate: fast and wrong is refused


@pytest.fixture
def exported(tmp_path):
    """micro_swin as ONNX Runtime is given it, and what PyTorch answers. -> artefact, target, reference"""
    pytest.importorskip("onnxruntime")
    spec, target = load("micro_swin"), Target("onnxruntime")
    (tmp_path / "models").mkdir()
    return artefact_of(spec, target, tmp_path / "models"), target, reference_of(spec)


def change(artefact, name, how):
    """Give one tensor of the file other numbers."""
    model = onnx.load(artefact.path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(tensor)).astype(np.float32), name))
    onnx.save(model, artefact.path)


def noise(x):
    return np.random.default_rng(0).standard_normal(x.shape)


@pytest.mark.parametrize("how", [noise, lambda x: 1.5 * x, lambda x: -x], ids=["noise", "half as much again", "sign"])
def test_one_corrupt_weight_tensor_is_refused_though_the_network_is_as_fast(how, exported, cache):
    artefact, target, expected = exported
    with Worker() as worker:
        options = {"reference": expected, "worker": worker, "cache": cache, "budget_s": 0.05}
        assert measure(artefact, target, **options).median_ms > 0
        change(artefact, "stages.0.blocks.1.mlp.fc1.weight.T", how)
        for refresh in (True, False):  # also where the time is known
            with pytest.raises(MeasureError, match="the output differs by") as caught:
                measure(artefact, target, refresh=refresh, **options)
            assert reason_of(caught.value) == "numeric-gate"


def test_a_network_without_one_window_block_is_refused_though_it_is_faster(exported):
    artefact, target, expected = exported
    shorter = replace(artefact, path=artefact.path.with_name("shorter.onnx"))
    num_removed = remove_block(artefact.path, shorter.path, before="stages.0.blocks.0.add_1.reorder", block=1)
    assert num_removed > 15
    with Worker() as worker:
        assert measure(shorter, target, worker=worker, budget_s=0.05).median_ms > 0  # it runs
        with pytest.raises(MeasureError, match="the output differs by") as caught:
            measure(shorter, target, reference=expected, worker=worker, budget_s=0.05)
    assert reason_of(caught.value) == "numeric-gate"


def remove_block(source, to, *, before, block):
    """Lead the value `before` past one block of stage 0. -> how many nodes that saved"""
    model = onnx.load(source)
    inside = f"stages.0.blocks.{block}."
    produced = {name for node in model.graph.node if node.name.startswith(inside) for name in node.output}
    outside = [node for node in model.graph.node if not node.name.startswith(inside)]
    (after,) = {name for node in outside for name in node.input if name in produced}
    for node in outside:
        node.input[:] = [before if name == after else name for name in node.input]
    num_before = len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(outside)
    onnx.checker.check_model(model)
    onnx.save(model, to)
    return num_before - len(outside)


def test_of_all_tensors_those_that_change_the_answer_are_refused(exported):
    """Every tensor of numbers in turn, half as much again: refused if and only if the answer leaves the tolerance."""
    artefact, target, expected = exported
    original = artefact.path.read_bytes()
    refusals = {}
    for tensor in onnx.load(artefact.path).graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        artefact.path.write_bytes(original)
        change(artefact, tensor.name, lambda x: 1.5 * x)
        loaded = runtime("onnxruntime").load(artefact, target.config)
        found = np.concatenate([loaded.outputs(expected.inputs[i : i + 1])[0] for i in range(len(expected.inputs))])
        worst = np.abs(found - expected.outputs).max() / np.abs(expected.outputs).max()
        packed = {"inputs": expected.inputs, "outputs": expected.outputs}
        try:
            check_reference(loaded, as_message(packed, expected.tolerance), artefact, target)
            refusals[tensor.name] = False
        except MeasureError:
            refusals[tensor.name] = True
        assert refusals[tensor.name] == (worst > expected.tolerance), tensor.name
    unseen = {name for name, is_refused in refusals.items() if not is_refused}
    assert len(refusals) > 50 and all(".attn." in name for name in unseen)
    assert sum(refusals.values()) > 0.75 * len(refusals)


def as_message(arrays, tolerance):
    from archdsl.processes.frames import pack_array

    return {**{name: pack_array(array) for name, array in arrays.items()}, "tolerance": tolerance}


# ---- many faults in a row, and memory


CAMPAIGN = {
    "segfault": "crash",
    "abort": "crash",
    "fork bomb": "crash",
    "os._exit": "exit",
    "flood": "output-flood",
    "eat memory": "out-of-memory",
    "fail": "exception",
    "kill": "crash",
    "hang": "timeout",  # it ignores SIGTERM
    "loop": "timeout",
}


@pytest.mark.promise(27)
@pytest.mark.alone
def test_sixty_mixed_faults_are_sixty_outcomes_in_time(tmp_path):
    faults = [name for i, name in enumerate([*CAMPAIGN] * 10) if CAMPAIGN[name] != "timeout" or i < 20][:60]
    np.random.default_rng(0).shuffle(faults)
    assert set(faults) == set(CAMPAIGN) and len(faults) == 60
    job = {"module": "faulty_runtime", "target": Target("faulty").as_json(), "references": [None], "pace": None}
    outcomes, slowest, sessions = [], 0.0, set()
    with Worker(memory_bytes=2**30) as worker:
        memory = resident_bytes()
        for fault in faults:
            deadline_s = 1.5 if CAMPAIGN[fault] == "timeout" else DEADLINE_S
            watch = threading.Timer(0.2, lambda: sessions.add(worker.pid))
            watch.start()
            began = time.monotonic()
            with pytest.raises(MeasureError) as caught:
                worker.run({**job, "artefacts": [network(fault).as_json()]}, deadline_s=deadline_s)
            slowest = max(slowest, time.monotonic() - began - deadline_s)
            watch.join()
            outcomes.append(reason_of(caught.value))
        grown = resident_bytes() - memory
        assert take("none", worker).median_ms > 0
        sessions.add(worker.pid)
    assert outcomes == [CAMPAIGN[fault] for fault in faults]
    assert slowest <= 2.0
    assert grown < 100 * 2**20
    assert len(sessions) > 10
    end = time.monotonic() + 5
    while (left := living_in(sessions)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def living_in(sessions):
    """The processes of these sessions that still run, dead ones that wait to be collected left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(session) in sessions and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.promise(30)
def test_memory_comes_back_after_big_measurements():
    with Worker() as worker:
        for name in ("big", "small") * 5:  # until what the libraries keep for good is there
            take(name, worker, deadline_s=20)
        ours, theirs, pid = resident_bytes(), resident_bytes(worker.pid), worker.pid
        for i in range(40):
            take("small" if i % 2 else "big", worker, deadline_s=20)
        assert worker.pid == pid  # not by being replaced
        assert resident_bytes() < 1.05 * ours
        assert resident_bytes(pid) < 1.05 * theirs + 2**20


# ---- retries


@pytest.mark.promise(28)
def test_every_reason_says_how_often_it_is_tried_again():
    assert set(RETRIES) == set(REASONS)
    assert all(RETRIES[reason] == 0 for reason in ("not-finite", "numeric-gate", "wrong-artefact", "runtime-missing"))
    assert all(RETRIES[reason] == 1 for reason in ("crash", "exit", "timeout", "out-of-memory"))


def test_an_accident_is_made_good_by_a_second_attempt_in_a_new_process(cache, tmp_path):
    with Worker() as worker:
        take("none", worker)
        pid = worker.pid
        assert take(f"die once: {tmp_path / 'died'}", worker, cache=cache, name="flaky").median_ms > 0
        assert (tmp_path / "died").exists() and worker.pid not in (pid, None)
    assert not Quarantine().path.read_bytes()  # forgiven


@pytest.mark.parametrize(("fault", "reason"), [("fail", "exception"), ("nan", "not-finite"), ("flood", "output-flood")])
def test_what_would_come_out_the_same_again_is_tried_once(fault, reason):
    with Worker() as worker, pytest.raises(MeasureError) as caught:
        take(fault, worker)
    assert reason_of(caught.value) == reason
    assert "attempts" not in str(caught.value)


# ---- errors of a GPU's driver stay in their process


@pytest.mark.promise(29)
@pytest.mark.alone
def test_after_an_illegal_access_on_a_gpu_the_process_is_discarded(tmp_path):
    with Worker(memory_bytes=0) as worker:
        take("none", worker, device="cuda")
        pid = worker.pid
        once = f"illegal access once: {tmp_path / 'done'}"
        assert take(once, worker, device="cuda").median_ms > 0  # the second attempt, in another process
        assert worker.pid not in (pid, None)
        pid = worker.pid
        with pytest.raises(MeasureError, match=r"illegal memory access .* \(2 attempts\)") as caught:
            take("illegal access", worker, device="cuda")
        assert reason_of(caught.value) == "device-error"
        assert worker.pid is None
        assert take("none", worker, device="cuda").median_ms > 0 and worker.pid != pid
        with pytest.raises(MeasureError) as caught:
            take("illegal access", worker)  # the same words on a CPU are an exception like others
        assert reason_of(caught.value) == "exception" and worker.pid is not None


@pytest.mark.parametrize(
    ("words", "spoils"),
    [
        ("RuntimeError: CUDA error: an illegal memory access was encountered", True),
        ("RuntimeError: CUDA error: device-side assert triggered", True),
        ("TensorRT failed while it ran the engine: Cuda Runtime (unspecified launch failure)", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("cudaErrorIllegalAddress", True),
        ("CUDA_ERROR_MISALIGNED_ADDRESS", True),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", False),
        ("ValueError: no kernel for this op", False),
        ("torch is built without CUDA", False),
    ],
)
def test_errors_of_cuda_are_told_from_others_by_their_words(words, spoils):
    assert spoils_device(words) == spoils


# ---- quarantine


@pytest.mark.promise(28)
def test_a_network_that_crashed_three_times_is_not_tried_again_until_that_is_lifted(cache, capsys):
    with Worker() as worker, unharmed(cache, worker, limit_s=60):
        refused("crash", r"\(2 attempts\)", "segfault", worker, cache)
        refused("crash", r"while loading segfault \[", "segfault", worker, cache)  # the third: one attempt
        worker.close()
        refused("quarantined", "crashed the worker 3 times on this target", "segfault", worker, cache)
        assert worker.pid is None
        assert take("none", worker, cache=cache, name="another").median_ms > 0

        capsys.readouterr()
        assert run_cli(["cache", "ls", "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)["quarantined"]
        assert (told["network"], told["crashes"], told["reason"]) == ("segfault", 3, "crash")
        assert run_cli(["cache", "ls"]) == 0
        assert "1 network quarantined; `archdsl cache prune --quarantined`" in capsys.readouterr().out
        assert run_cli(["cache", "prune", "--quarantined", "--dry-run"]) == 0
        assert "1 network would be tried again" in capsys.readouterr().out
        assert run_cli(["cache", "prune", "--quarantined", "--on", "torch", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"lifted": [], "dry_run": False}
        refused("quarantined", "--quarantined", "segfault", worker, cache)
        assert run_cli(["cache", "prune", "--quarantined"]) == 0
        refused("crash", "SIGSEGV", "segfault", worker, cache)


def test_pruning_quarantined_networks_and_timings_at_once_is_refused(cache, capsys):
    assert run_cli(["cache", "prune", "--quarantined", "--older-than", "1d"]) == 1
    assert "--quarantined is about networks" in capsys.readouterr().err


FINGERPRINT = "faulty 1 | cpu a device"


def crash(quarantine, name="bad", times=1, fingerprint=FINGERPRINT, reason="crash"):
    from archdsl.failures import failed

    error = failed(reason, "the worker crashed (SIGSEGV)")
    return [quarantine.note(network("segfault", name), fingerprint, error) for _ in range(times)]


@pytest.fixture
def quarantine(tmp_path):
    return Quarantine(tmp_path)


def test_crashes_count_for_one_network_on_one_target(quarantine):
    assert crash(quarantine, times=MOST_CRASHES) == [True, True, False]
    assert crash(quarantine, "other") == [True]
    assert crash(quarantine, fingerprint="faulty 2 | cpu a device") == [True]
    quarantine.check(network("", "bad"), "faulty 2 | cpu a device")  # a new version is another target
    with pytest.raises(MeasureError, match=r"another version of the runtime") as caught:
        quarantine.check(network("", "bad"), FINGERPRINT)
    assert reason_of(caught.value) == "quarantined"
    assert [(one.network, one.crashes) for one in quarantine.networks()] == [("bad", 3)]
    assert quarantine.lift() == quarantine.networks() or quarantine.networks() == []
    assert crash(quarantine, "other", times=2) == [True, False]  # what was not yet quarantined is still counted


@pytest.mark.parametrize("reason", ["timeout", "out-of-memory", "exception", "numeric-gate", "output-flood"])
def test_other_failures_do_not_count(quarantine, reason):
    assert crash(quarantine, times=5, reason=reason) == [True] * 5
    assert not quarantine.path.exists()


def test_a_success_between_crashes_starts_the_count_anew(quarantine):
    crash(quarantine, times=2)
    crash(quarantine, "other", times=2)
    quarantine.forgive(network("", "bad"), FINGERPRINT)
    assert crash(quarantine, times=2) == [True, True]
    assert crash(quarantine, "other") == [False]


@pytest.mark.parametrize("tail", [b"{", b"not json\n", b"[1, 2]\n", b'{"key": 3}\n', b"\xff\xfe\n"], ids=str)
def test_damaged_lines_are_moved_aside_and_the_others_kept(quarantine, tail):
    crash(quarantine, times=2)
    quarantine.path.write_bytes(quarantine.path.read_bytes() + tail)
    damaged = quarantine.path.read_bytes()
    with pytest.warns(CacheWarning, match="were damaged"):
        assert crash(quarantine) == [False]
    (aside,) = (path for path in quarantine.path.parent.iterdir() if ".corrupt-" in path.name)
    assert aside.read_bytes().startswith(damaged)
    assert quarantine.networks()[0].crashes == 3


def test_a_changed_name_or_target_in_a_line_is_damage(quarantine):
    crash(quarantine, times=3)
    quarantine.path.write_bytes(quarantine.path.read_bytes().replace(b"faulty 1", b"faulty 2", 1))
    with pytest.warns(CacheWarning, match="were damaged"):
        assert quarantine.networks() == []


def test_a_crash_that_cannot_be_kept_costs_nothing_else(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(CacheWarning, match="could not be"):
        assert crash(Quarantine(tmp_path / "file")) == [True]
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (tmp_path / "crashes.jsonl").symlink_to(victim)
    with pytest.warns(CacheWarning, match="could not be"):
        crash(Quarantine(tmp_path))
    assert victim.read_bytes() == b""


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(quarantine, monkeypatch):
    crash(quarantine)
    before, write = quarantine.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with pytest.warns(CacheWarning, match="the disk is full"):
        assert crash(quarantine) == [True]
    monkeypatch.undo()
    assert quarantine.path.read_bytes() == before
    assert sorted(path.name for path in quarantine.path.parent.iterdir()) == ["crashes.jsonl", "crashes.lock"]


def test_four_processes_that_note_and_forgive_crashes_at_once_lose_none(quarantine):
    program = """
        import sys
        from pathlib import Path
        from archdsl.runtimes.artefact import Artefact
        from archdsl.failures import failed
        from archdsl.latency.cache.quarantine import Quarantine
        for i in range(25):
            one, passing = (Artefact("spec", f"{sys.argv[3]}{mark}{i}", (4, 2), text="") for mark in "-+")
            for each in (one, passing):
                Quarantine(Path(sys.argv[2])).note(each, "f", failed("crash", "x" * 200))
            Quarantine(Path(sys.argv[2])).forgive(passing, "f")
    """
    writers = [start(program, str(quarantine.path.parent), str(i)) for i in range(4)]
    errors = [writer.communicate(timeout=50)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, errors
    found = [Crash.from_record(jsonl.parsed(line)) for line in quarantine.path.read_bytes().splitlines()]
    assert {one.graph_hash for one in found} == {f"{me}-{i}" for me in range(4) for i in range(25)}
