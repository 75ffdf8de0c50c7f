"""A runtime with a menu of faults, for tests: the artefact's text says which one happens, and with what argument."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from archdsl.runtimes.protocol import Runtime


def segfault():
    ctypes.string_at(0)


def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def loop():
    while True:
        pass


def hang_with_a_child():
    child = subprocess.Popen(["sleep", "60"])
    print(f"child {child.pid}", flush=True)
    hang()


def eat_memory():
    kept = []
    while True:
        kept.append(bytearray(64 * 2**20))


def thirty_gibibytes():
    """Piece by piece, as a system that lends more memory than it has would let us."""
    return [np.empty(2**30, np.uint8) for _ in range(30)]


def fork_bomb():
    """Sixteen children with children of their own, all of which would outlive us."""
    program = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    for _ in range(16):
        subprocess.Popen([sys.executable, "-S", "-c", program])
    os.abort()


def die_once(marker):
    """Crash, unless that has happened before: then all is fine."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    segfault()


def illegal_access():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def illegal_access_once(marker):
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    illegal_access()


def library_out_of_memory():
    raise RuntimeError("std::bad_alloc")


def write_into_the_socket():
    os.write(int(sys.argv[3]), b"hello, is this a frame? " * 10)
    time.sleep(60)


def flood():
    for _ in range(100):
        os.write(1, b"x" * 2**20)


def speak():
    print("a warning that nobody needs\n" * 20_000)


def fail():
    print("the last words of a library", flush=True)
    raise ValueError("no kernel for this op")


MENU = {
    "segfault": segfault,
    "abort": os.abort,
    "os._exit": lambda: os._exit(7),
    "hang": hang,
    "loop": loop,
    "thirty GiB": thirty_gibibytes,
    "fork bomb": fork_bomb,
    "die once": die_once,
    "illegal access": illegal_access,
    "illegal access once": illegal_access_once,
    "hang with a child": hang_with_a_child,
    "eat memory": eat_memory,
    "library out of memory": library_out_of_memory,
    "write into the socket": write_into_the_socket,
    "flood": flood,
    "speak": speak,
    "fail": fail,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Network:
    """Multiplies by a constant; slow when the text says `slow` or `sleep: SECONDS`; wrong in the ways the text says."""

    known_ms = None

    def __init__(self, fault, batch, argument=""):
        self.fault, self.batch, self.argument = fault, batch, argument
        self.size = 900_000 if fault == "slow" else 300_000
        self.held = np.ones(64 * 2**20 if fault == "big" else 1, np.uint8)

    def outputs(self, x):
        if len(x) != self.batch:
            raise ValueError(f"built for {self.batch} examples, got {len(x)}")
        y = x.reshape(len(x), -1)[:, :2].copy()
        if self.fault == "nan":
            y[0, 0] = np.nan
        if self.fault == "infinite":
            y[0, 0] = np.inf
        if self.fault == "corrupt weight":
            y[:, 1] += 1
        return [y]

    def timed(self, x):
        numbers = np.ones(self.size)
        if self.fault == "segfault while timing":
            return segfault
        if self.fault == "sleep":
            return lambda: time.sleep(float(self.argument))
        return lambda: np.sqrt(numbers)


class Faulty(Runtime):
    name = "faulty"
    kinds = ("spec",)
    precisions: ClassVar = {"cpu": ("fp32",), "cuda": ("fp32",)}

    def version(self):
        return "1"

    def device_name(self, device):
        return "a device for tests"

    def load(self, artefact, config):
        fault, _, argument = artefact.text.partition(": ")
        MENU.get(fault, lambda *_: None)(*([argument] if argument else []))
        return Network(fault, config.batch, argument)


RUNTIME = Faulty()
