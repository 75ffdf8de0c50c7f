"""Signal handlers run on the interpreter's stack, also after a library has set up its own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import archdsl
from archdsl.backends.onnx.run import _open_openvino
from archdsl.runtimes.adapters.openvino_model import compiled, model_of
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import Target
from archdsl.signal_stack import _SignalStack, kept_signal_stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are looked at on Linux alone")


def signal_stack() -> tuple[int | None, int, int]:
    found = _SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.flags, found.size


def test_a_stack_that_is_set_in_the_block_is_put_back() -> None:
    before, other = signal_stack(), ctypes.create_string_buffer(1 << 16)
    with kept_signal_stack():
        theirs = _SignalStack(ctypes.addressof(other), 0, len(other))
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(theirs), None) == 0
        assert signal_stack() != before
    assert signal_stack() == before


def by_the_runtime(artefact: Artefact) -> object:
    config = Target("openvino").config
    return compiled(model_of(artefact, config), config)


@pytest.mark.parametrize("compile_model", [by_the_runtime, lambda artefact: _open_openvino(str(artefact.path), None)])
def test_openvino_leaves_the_interpreters_stack(tmp_path: Path, compile_model: Callable[[Artefact], object]) -> None:
    pytest.importorskip("openvino")
    artefact = artefact_of(archdsl.load("micro_swin"), Target("openvino"), tmp_path)
    before = signal_stack()
    model = compile_model(artefact)  # kept: the plug-in is unloaded with its last model
    assert signal_stack() == before
    del model
    assert signal_stack() == before
