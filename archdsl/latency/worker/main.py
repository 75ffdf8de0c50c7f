"""The worker process: loads artefacts, checks their output, times them. Started by `warm.py`, never imported there.

Its environment was fixed before Python started, so this file only has to bind itself to its parent, limit its memory
and answer jobs. Its own messages go through a socket; whatever libraries print is caught by the parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from archdsl.errors import MeasureError
from archdsl.latency.artefact import Artefact
from archdsl.latency.clock.energy import Energy, NotTold, energy_meter, measure_energy
from archdsl.latency.clock.energy import most_s as energy_most_s
from archdsl.latency.clock.gpu_state import GpuStates, read_gpu
from archdsl.latency.clock.gpu_wait import prepare_gpu
from archdsl.latency.clock.machine import Usage, Watch, allowed_cores, pin_to, quietest_cores
from archdsl.latency.clock.peak_memory import memory_meter
from archdsl.latency.clock.runs import Call, Pace, Readings, Warm, interleave
from archdsl.latency.failure import exception_reason, failed
from archdsl.latency.runtimes import RUNTIMES, Loaded, OpProfile, Profilable, Profiler, Runtime
from archdsl.latency.runtimes import runtime as runtime_named
from archdsl.latency.target import Target
from archdsl.latency.worker.environment import RECORDED
from archdsl.latency.worker.frames import Decoder, Message, encode, unpack_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

PR_SET_PDEATHSIG = 1
INPUT_SEED = 0


class Tell(Protocol):
    """Tells the parent which step comes now, and how many seconds it will take at most, where that is known."""

    def __call__(self, step: str, most_s: float | None = None) -> None: ...


def main(arguments: list[str]) -> None:
    """arguments: the socket's file descriptor, the parent's process id, the memory limit in bytes (0: none)."""
    descriptor, parent, memory = (int(argument) for argument in arguments)
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    _limit(memory)
    faulthandler.enable()
    channel = Channel(socket.socket(fileno=descriptor))
    cores = allowed_cores()
    channel.send({"kind": "ready"})
    while (job := channel.receive()) is not None:
        channel.send(answer(job, cores, channel.tell))


def _die_with(parent: int) -> None:
    """Be killed when the thread that started us ends; leave at once if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


class Channel:
    """Whole messages over a socket."""

    def __init__(self, sock: socket.socket):
        self._socket, self._decoder = sock, Decoder()

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def tell(self, step: str, most_s: float | None = None) -> None:
        self.send({"kind": "progress", "step": step, "most_s": most_s})

    def receive(self) -> Message | None:
        """The next message; None when the parent has hung up."""
        while (message := self._decoder.next()) is None:
            data = self._socket.recv(2**20)
            if not data:
                return None
            self._decoder.feed(data)
        return message


def answer(job: Message, cores: tuple[int, ...] | None, tell: Tell) -> Message:
    """Do one job. Every exception becomes a `failure`; only what kills the process gets past this."""
    try:
        result = do(job, cores, tell)
        return {"kind": "result", **result, "resident_bytes": _resident_bytes()}
    except MeasureError as error:
        problem = error.problems[0]
        told = {"reason": problem.rule, "message": problem.message, "where": problem.place.file, "hint": problem.hint}
    except Exception as error:  # whatever a runtime raises is a failed measurement
        message = f"{type(error).__name__}: {error}"[:2000]
        told = {"reason": exception_reason(error), "message": message, "where": job["target"]["runtime"], "hint": None}
    return {"kind": "failure", **told}


def do(job: Message, allowed: tuple[int, ...] | None, tell: Tell) -> Message:
    """Load every artefact, check each one's output, then time them in turns (or not, when the job has no pace).

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
    ready: list[tuple[Loaded, NDArray[Any]]] = []
    worst: list[float | None] = []
    peaks: list[int | None] = []
    clock = Steps()
    for artefact, reference in zip(artefacts, job["references"], strict=True):
        tell(f"loading {artefact.name}")
        meter = None if runtime.analytic else memory_meter(target.device, torch_tensors="spec" in runtime.kinds)
        with clock.step("loading"):
            loaded = runtime.load(artefact, target)
        tell(f"checking the output of {artefact.name}")
        x_BX = random_input(artefact, target)
        with clock.step("checking"):
            if reference is None:
                check_outputs(loaded.outputs(x_BX), artefact, target)
            worst.append(None if reference is None else check_reference(loaded, reference, artefact, target))
        peaks.append(meter() if meter else None)
        ready.append((loaded, x_BX))
    readings: list[Readings] = []
    profiles: list[OpProfile] = []
    energies: list[Energy] = []
    gpu: GpuStates | None = None
    if job["pace"] is not None:
        pace, names = Pace(**job["pace"]), ", ".join(artefact.name for artefact in artefacts)
        step = f"{'profiling' if job.get('profile') else 'timing'} {names}"
        tell(step)
        before = read_gpu() if target.device == "cuda" and not runtime.analytic else None
        with clock.step("timing"):
            if job.get("profile"):
                readings, profiles = profiled(ready, pace, cores, target, warm=partial(tell, step))
            else:
                load_again = again(runtime, artefacts, target) if runtime.reloads else None
                readings = readings_of(ready, pace, cores, load_again, warm=partial(tell, step))
        after = read_gpu() if before else None
        gpu = GpuStates(before, after) if before and after else None
        if job.get("energy"):
            energy_s = sum(energy_most_s(median(one.wall_ms) / 1000) for one in readings)
            tell(f"taking the energy of {names}", energy_s)
            with clock.step("energy"):
                energies = energies_of(ready, target, cores)
    return {
        "readings": [each.as_json() for each in readings],
        "profiles": [each.as_json() for each in profiles],
        "worst": worst,
        "runtime_version": runtime.version(),
        "environment": {name: os.environ[name] for name in RECORDED if name in os.environ},
        "cores": None if cores is None else list(cores),
        "peak_memory_bytes": peaks,
        "energy": [each.as_json() for each in energies],
        "seconds": clock.seconds,
        "gpu": None if gpu is None else gpu.as_json(),
    }


class Steps:
    """The seconds that each step of a job took, all networks together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


Again = Callable[[int, Loaded], Loaded]
"""From a network's number and what was loaded of it to the same, loaded again."""


def again(runtime: Runtime, artefacts: Sequence[Artefact], target: Target) -> Again:
    return lambda i, loaded: runtime.load_again(loaded, artefacts[i], target)


def readings_of(
    ready: list[tuple[Loaded, NDArray[Any]]],
    pace: Pace,
    cores: tuple[int, ...] | None,
    load_again: Again | None = None,
    warm: Warm = lambda most_s: None,
) -> list[Readings]:
    """Timed runs of real runtimes; the formula's value, once, of those that compute it.

    load_again: called before each sitting but the first; what it returns takes the network's place in `ready`
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
        return interleave(calls, pace, cores=cores, anew=anew if load_again else None, warm=warm)
    nobody = Usage(None, None, None)
    return [Readings((ms,), (ms,), (0,), 0, 0.0, nobody) for ms in known if ms is not None]


BUSY = 0.15
"""Other cores at work from which on it is said that they were counted too: a tenth of one is the system itself."""


def energies_of(
    ready: list[tuple[Loaded, NDArray[Any]]], target: Target, cores: tuple[int, ...] | None
) -> list[Energy]:
    """The energy of one run of each network, one after the other; with the reason where nobody tells it."""
    found = []
    for loaded, x_BX in ready:
        call, watch = loaded.timed(x_BX), Watch(cores)
        try:
            with energy_meter(target.device, cores) as meter:
                energy = measure_energy(call, meter)
        except NotTold as error:
            energy = Energy(None, None, f"not told: {error}")
        else:
            busy = watch.usage().busy_neighbours or 0.0
            if target.device == "cpu" and busy > BUSY:
                energy = replace(energy, note=f"{energy.note}, which {busy:.1f} other busy cores used too")
        found.append(energy)
    return found


def profiled(
    ready: list[tuple[Loaded, NDArray[Any]]],
    pace: Pace,
    cores: tuple[int, ...] | None,
    target: Target,
    warm: Warm = lambda most_s: None,
) -> tuple[list[Readings], list[OpProfile]]:
    """Timed runs, and in turns with them runs of a second copy of each network whose profiler is on.

    Errors: MeasureError (`no-profile`) when the runtime does not tell what single ops take
    """
    profilers: list[Profiler] = []
    for loaded, x_BX in ready:
        if not isinstance(loaded, Profilable):
            raise failed("no-profile", "this runtime does not tell what single ops take", where=target.runtime)
        profilers.append(loaded.profiler(x_BX))
    plain = [loaded.timed(x_BX) for loaded, x_BX in ready]
    readings = interleave([*plain, *(profiler.run for profiler in profilers)], pace, cores=cores, warm=warm)
    watched = readings[len(ready) :]
    profiles = [profiler.finish(one.numbers) for profiler, one in zip(profilers, watched, strict=True)]
    return readings[: len(ready)], profiles


def random_input(artefact: Artefact, target: Target) -> NDArray[Any]:
    """Standard normal numbers [B, *input_shape], the same every time."""
    import numpy as np

    random = np.random.default_rng(INPUT_SEED)
    return random.standard_normal((target.batch, *artefact.input_shape), dtype=np.float32)


def check_outputs(outputs: list[NDArray[Any]], artefact: Artefact, target: Target) -> None:
    """Errors: `not-finite` for NaN or infinity, `wrong-artefact` when the output's shape is not the promised one."""
    import numpy as np

    if not outputs:
        raise failed("wrong-artefact", f"{artefact.name} has no output", where=target.runtime)
    for output in outputs:
        if not np.isfinite(output).all():
            bad = int(output.size - np.isfinite(output).sum())
            message = f"{artefact.name}: {bad} of {output.size} output values are NaN or infinite"
            raise failed("not-finite", message, where=target.runtime, hint="look for NaN in the weights")
    first = outputs[0]
    if first.shape[0] != target.batch or artefact.num_outputs not in (None, first.shape[-1]):
        expected = f"[{target.batch}, …, {artefact.num_outputs or 'any'}]"
        message = f"{artefact.name}: the output must be {expected}, got {list(first.shape)}"
        raise failed("wrong-artefact", message, where=target.runtime)


def check_reference(loaded: Loaded, reference: Message, artefact: Artefact, target: Target) -> float:
    """The numeric gate. -> the largest difference as a share of the largest expected value.

    The reference is run in pieces of the target's batch size, the last one filled up with its first example.
    Errors: `numeric-gate`; what `check_outputs` raises
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


def _resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
