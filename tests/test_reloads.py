"""Loading a network again puts it elsewhere in memory, and it computes the same there."""

from __future__ import annotations

import numpy as np
import pytest
from test_worker import TINY_SPEC

from archdsl.language.architecture.load import loads
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.runtimes.target import Target

TARGETS = [
    Target(name)
    for name in sorted(RUNTIMES)
    if name != "null" and "cpu" in runtime(name).devices and runtime(name).reloads
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_network_that_is_loaded_again_answers_the_same(target, tmp_path):
    for module in runtime(target.runtime).modules:
        pytest.importorskip(module)
    artefact = artefact_of(loads(TINY_SPEC), target, tmp_path)
    x_BX = np.random.default_rng(0).standard_normal((1, *artefact.input_shape)).astype(np.float32)
    loaded = runtime(target.runtime).load(artefact, target.config)
    (before,) = loaded.outputs(x_BX)
    (after,) = runtime(target.runtime).load_again(loaded, artefact, target.config).outputs(x_BX)
    np.testing.assert_array_equal(before, after)


def test_an_eager_networks_numbers_move(tmp_path):
    target = Target("torch")
    artefact = artefact_of(loads(TINY_SPEC), target, tmp_path)
    loaded = runtime("torch").load(artefact, target.config)
    before = [tensor.data_ptr() for tensor in loaded.module.parameters()]
    kept = [tensor.data for tensor in loaded.module.parameters()]  # so that their places are not given out again
    again = runtime("torch").load_again(loaded, artefact, target.config)
    assert not set(before) & {tensor.data_ptr() for tensor in again.module.parameters()}
    assert kept


def test_what_takes_minutes_to_load_is_loaded_once():
    assert {name for name in RUNTIMES if runtime(name).loading_s >= 600} <= {
        name for name in RUNTIMES if not runtime(name).reloads
    }
