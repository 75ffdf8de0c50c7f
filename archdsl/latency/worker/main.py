"""The worker process: loads artefacts, checks their output, times them. Started by `warm.py`, never imported there.

Its environment was fixed before Python started, and `processes.channel` connects it to its parent. Its own messages go
through a socket; whatever libraries print is caught by the parent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from archdsl.errors import MeasureError
from archdsl.failures import exception_reason, failed
from archdsl.latency.sampling import Call, Samples, Sampling, Warm, interleave
from archdsl.latency.summary import WorkerResult
from archdsl.processes.channel import connect
from archdsl.processes.frames import Message, unpack_array
from archdsl.processes.limits import memory_in_use
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.protocol import LoadedNetwork, OpProfile, Profilable, Profiler
from archdsl.runtimes.registry import RUNTIMES
from archdsl.runtimes.registry import runtime as runtime_named
from archdsl.runtimes.target import Target
from archdsl.telemetry.cpu import Usage, Watch, allowed_cores, pin_to, quietest_cores
from archdsl.telemetry.energy import Energy, EnergyUnavailable, energy_meter, measure_energy
from archdsl.telemetry.energy import most_s as energy_most_s
from archdsl.telemetry.gpu import GpuStates, read_gpu
from archdsl.telemetry.gpu_wait import prepare_gpu
from archdsl.telemetry.peak_memory import memory_meter
from archdsl.telemetry.worker_environment import RECORDED

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT_SEED = 0


class Tell(Protocol):
    """Reports to the parent which step begins, and how many seconds it will take at most, where that is known."""

    def __call__(self, step: str, most_s: float | None = None) -> None: ...


def main(arguments: list[str]) -> None:
    """Answer jobs until the parent hangs up. arguments: as `channel.connect` takes them."""
    cores = allowed_cores()
    channel = connect(arguments)
    while (job := channel.receive()) is not None:
        channel.send(answer(job, cores, channel.tell))


def answer(job: Message, cores: tuple[int, ...] | None, tell: Tell) -> Message:
    """Do one job. Every exception becomes a `failure`; only what kills the process gets past this."""
    try:
        result = do(job, cores, tell)
        return {"kind": "result", **result.as_json(), "resident_bytes": memory_in_use()}
    except MeasureError as error:
        problem = error.problems[0]
        reason, message, where, hint = problem.rule, problem.message, problem.place.file, problem.hint
    except Exception as error:  # whatever a runtime raises is a failed measurement
        message = f"{type(error).__name__}: {error}"[:2000]
        reason, where, hint = str(exception_reason(error)), job["target"]["runtime"], None
    return {"kind": "failure", "reason": reason, "message": message, "where": where, "hint": hint}


def do(job: Message, allowed: tuple[int, ...] | None, tell: Tell) -> WorkerResult:
    """Load every artefact, check its output, then measure all interleaved (not when the job has no `pace`).

    A job with `profile` also asks for what the ops of each take, one with `energy` for the energy of each.
    """
    RUNTIMES[job["target"]["runtime"]] = job["module"]  # the parent's table counts: a plug-in may have added to it
    target = Target(**job["target"])
    artefacts = [Artefact.from_json(data) for data in job["artefacts"]]
    runtime = runtime_named(target.runtime)
    if target.device == "cuda":
        prepare_gpu()
    cores = None
    if not runtime.analytic:
        cores = quietest_cores(allowed, target.threads)
        pin_to(cores)
    for module in runtime.modules:
        import_module(module)  # what a library takes by itself is not the networks' memory
    ready: list[tuple[LoadedNetwork, NDArray[Any]]] = []
    worst: list[float | None] = []
    peaks: list[int | None] = []
    seconds: dict[str, float] = {}
    for artefact, reference in zip(artefacts, job["references"], strict=True):
        tell(f"loading {artefact.name}")
        meter = None if runtime.analytic else memory_meter(target.device, torch_tensors="spec" in runtime.kinds)
        with timed_step(seconds, "loading"):
            loaded = runtime.load(artefact, target.config)
        tell(f"checking the output of {artefact.name}")
        x_BX = random_input(artefact, target)
        with timed_step(seconds, "checking"):
            if reference is None:
                check_outputs(loaded.outputs(x_BX), artefact, target)
            worst.append(None if reference is None else check_reference(loaded, reference, artefact, target))
        peaks.append(meter() if meter else None)
        ready.append((loaded, x_BX))

    def load_again(i: int, loaded: LoadedNetwork) -> LoadedNetwork:
        return runtime.load_again(loaded, artefacts[i], target.config)

    samples: list[Samples] = []
    profiles: list[OpProfile] = []
    energies: list[Energy] = []
    gpu: GpuStates | None = None
    if job["pace"] is not None:
        sampling, names = Sampling(**job["pace"]), ", ".join(artefact.name for artefact in artefacts)
        step = f"{'profiling' if job['profile'] else 'timing'} {names}"
        tell(step)
        before = read_gpu() if target.device == "cuda" and not runtime.analytic else None
        with timed_step(seconds, "timing"):
            if job["profile"]:
                samples, profiles = profiled(ready, sampling, cores, target, warm=partial(tell, step))
            else:
                reload = load_again if runtime.reloads else None
                samples = samples_of(ready, sampling, cores, reload, warm=partial(tell, step))
        after = read_gpu() if before else None
        gpu = GpuStates(before, after) if before and after else None
        if job["energy"]:
            energy_s = sum(energy_most_s(median(one.wall_ms) / 1000) for one in samples)
            tell(f"taking the energy of {names}", energy_s)
            with timed_step(seconds, "energy"):
                energies = energies_of(ready, target, cores)
    return WorkerResult(
        runtime_version=runtime.version(),
        environment={name: os.environ[name] for name in RECORDED if name in os.environ},
        cores=cores,
        gpu=gpu,
        readings=tuple(samples),
        profiles=tuple(profiles),
        worst=tuple(worst),
        peak_memory_bytes=tuple(peaks),
        energy=tuple(energies),
        seconds=seconds,
    )


@contextmanager
def timed_step(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to those of a step."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


Reload = Callable[[int, LoadedNetwork], LoadedNetwork]
"""From a network's number and what was loaded of it to the same, loaded again."""


def samples_of(
    ready: list[tuple[LoadedNetwork, NDArray[Any]]],
    sampling: Sampling,
    cores: tuple[int, ...] | None,
    load_again: Reload | None = None,
    warm: Warm = lambda most_s: None,
) -> list[Samples]:
    """Timed runs of real runtimes; the formula's value, once, of those that compute it.

    load_again: called before each session but the first; what it returns takes the network's place in `ready`
    warm: as in `interleave`
    """
    known = [loaded.known_ms for loaded, _ in ready]
    if any(ms is None for ms in known):

        def anew(i: int) -> Call:
            assert load_again is not None
            loaded, x_BX = ready[i]
            ready[i] = load_again(i, loaded), x_BX.copy()
            return ready[i][0].timed(ready[i][1])

        calls = [loaded.timed(x_BX) for loaded, x_BX in ready]
        return interleave(calls, sampling, cores=cores, anew=anew if load_again else None, warm=warm)
    nobody = Usage(None, None, None)
    return [Samples((ms,), (ms,), (0,), 0, 0.0, nobody) for ms in known if ms is not None]


BUSY = 0.15
"""From so many busy cores of others on, a note says that they were counted too: a tenth of one is the system itself."""


def energies_of(
    ready: list[tuple[LoadedNetwork, NDArray[Any]]], target: Target, cores: tuple[int, ...] | None
) -> list[Energy]:
    """The energy of one run of each network, one after the other; with the reason where it cannot be read."""
    found = []
    for loaded, x_BX in ready:
        call, watch = loaded.timed(x_BX), Watch(cores)
        try:
            with energy_meter(target.device, cores) as meter:
                energy = measure_energy(call, meter)
        except EnergyUnavailable as error:
            energy = Energy(None, None, f"unknown: {error}")
        else:
            busy = watch.usage().busy_neighbours or 0.0
            if target.device == "cpu" and busy > BUSY:
                energy = replace(energy, note=f"{energy.note}, which {busy:.1f} other busy cores used too")
        found.append(energy)
    return found


def profiled(
    ready: list[tuple[LoadedNetwork, NDArray[Any]]],
    sampling: Sampling,
    cores: tuple[int, ...] | None,
    target: Target,
    warm: Warm = lambda most_s: None,
) -> tuple[list[Samples], list[OpProfile]]:
    """Timed runs, interleaved with runs of a second copy of each network whose profiler is on.

    Raises: MeasureError (`no-profile`) when the runtime does not tell what single ops take
    """
    profilers: list[Profiler] = []
    for loaded, x_BX in ready:
        if not isinstance(loaded, Profilable):
            raise failed("no-profile", "this runtime does not tell what single ops take", where=target.runtime)
        profilers.append(loaded.profiler(x_BX))
    plain = [loaded.timed(x_BX) for loaded, x_BX in ready]
    samples = interleave([*plain, *(profiler.run for profiler in profilers)], sampling, cores=cores, warm=warm)
    watched = samples[len(ready) :]
    profiles = [profiler.finish(one.numbers) for profiler, one in zip(profilers, watched, strict=True)]
    return samples[: len(ready)], profiles


def random_input(artefact: Artefact, target: Target) -> NDArray[Any]:
    """Standard normal numbers [B, *input_shape], the same every time."""
    import numpy as np

    random = np.random.default_rng(INPUT_SEED)
    return random.standard_normal((target.batch, *artefact.input_shape), dtype=np.float32)


def check_outputs(outputs: list[NDArray[Any]], artefact: Artefact, target: Target) -> None:
    """Raises: `not-finite` for NaN or infinity, `wrong-artefact` when the outputs' shapes are not the promised ones."""
    import numpy as np

    if not outputs:
        raise failed("wrong-artefact", f"{artefact.name} has no output", where=target.runtime)
    for output in outputs:
        if not np.isfinite(output).all():
            bad = int(output.size - np.isfinite(output).sum())
            message = f"{artefact.name}: {bad} of {output.size} output values are NaN or infinite"
            raise failed("not-finite", message, where=target.runtime, hint="look for NaN in the weights")
    got = [list(output.shape) for output in outputs]
    promised = [[target.batch, *output.shape] for output in artefact.outputs]
    if got[0][:1] != [target.batch] or (promised and got != promised):
        names = [f"{output.name} {shape}" for output, shape in zip(artefact.outputs, promised, strict=True)]
        expected = ", ".join(names) or f"[{target.batch}, …]"
        message = f"{artefact.name}: the output must be {expected}, got {', '.join(map(str, got))}"
        raise failed("wrong-artefact", message, where=target.runtime)


def check_reference(loaded: LoadedNetwork, reference: Message, artefact: Artefact, target: Target) -> float:
    """The numeric gate: returns the largest difference as a share of the largest expected value.

    The reference is run in pieces of the target's batch size, the last one filled up with its first example.
    Raises: `numeric-gate`; what `check_outputs` raises
    """
    import numpy as np

    x_NX, expected_NC = unpack_array(reference["inputs"]), unpack_array(reference["outputs"])
    found = []
    for start in range(0, len(x_NX), target.batch):
        piece = x_NX[start : start + target.batch]
        missing = target.batch - len(piece)
        full = np.concatenate([piece, np.repeat(piece[:1], missing, axis=0)]) if missing else piece
        outputs = loaded.outputs(np.ascontiguousarray(full, dtype=np.float32))
        check_outputs(outputs, artefact, target)
        found.append(outputs[0][: len(piece)])
    actual_NC = np.concatenate(found)
    if actual_NC.shape != expected_NC.shape:
        message = f"{artefact.name}: outputs {list(expected_NC.shape)} are expected, got {list(actual_NC.shape)}"
        raise failed("numeric-gate", message, where=target.runtime)
    largest = max(float(np.abs(expected_NC).max()), 1e-30)
    worst = float(np.abs(actual_NC.astype(np.float64) - expected_NC).max()) / largest
    if not worst <= reference["tolerance"]:
        message = (
            f"{artefact.name}: the output differs by {worst:.2g} of the largest expected value, "
            f"allowed is {reference['tolerance']:.2g}"
        )
        hint = "the artefact computes something else than the network; its time does not count"
        raise failed("numeric-gate", message, where=target.runtime, hint=hint)
    return worst
