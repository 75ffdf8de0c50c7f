"""The OpenVINO runtime: right numbers in both precisions, no silent fp32, and it works inside the worker's limits."""

from __future__ import annotations

import dataclasses
import gc

import numpy as np
import pytest

from archdsl.backends.precision import precision_named
from archdsl.errors import MeasureError
from archdsl.failures import reason_of
from archdsl.language.architecture.load import load
from archdsl.latency import Worker, measure
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.reference import reference_of
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target

openvino = pytest.importorskip("openvino", reason="the runtime is not installed")

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16 arithmetic")
PRECISIONS = ["fp32", pytest.param("bf16", marks=bf16)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_from_file_to_timing_through_the_gate(precision, tmp_path):
    spec, target = load("micro_swin"), Target("openvino", precision=precision, batch=3)
    with Worker(memory_bytes=2 * 2**30) as worker:
        artefact = artefact_of(spec, target, tmp_path)
        expected = reference_of(spec, precision)
        timing = measure(artefact, target, reference=expected, worker=worker, budget_s=0.1)
        assert 0 < timing.median_ms < 500
        assert timing.precision == precision
        wrong = dataclasses.replace(expected, outputs=1.2 * expected.outputs)
        with pytest.raises(MeasureError, match="differs by") as caught:
            measure(artefact, target, reference=wrong, worker=worker)
        assert reason_of(caught.value) == "numeric-gate"


@bf16
def test_bf16_computes_in_bf16(tmp_path):
    spec, outputs = load("micro_swin"), {}
    image = np.random.default_rng(0).standard_normal((1, 3, *spec.input.size), dtype=np.float32)
    for precision in ("fp32", "bf16"):
        target = Target("openvino", precision=precision)
        (outputs[precision],) = (
            runtime("openvino").load(artefact_of(spec, target, tmp_path), target.config).outputs(image)
        )
    worst = np.abs(outputs["bf16"] - outputs["fp32"]).max() / np.abs(outputs["fp32"]).max()
    assert 1e-4 < worst < precision_named("bf16").tolerance


def test_a_processor_that_computes_in_another_precision_is_refused(tmp_path):
    from archdsl.runtimes.adapters.openvino_runtime import compiled, model_of

    target = Target("openvino", precision="bf16")
    model = model_of(artefact_of(load("micro_swin"), target, tmp_path), target.config)
    with pytest.raises(MeasureError, match="computes in f32 where bf16 was asked for") as caught:
        compiled(model, target.config, INFERENCE_PRECISION_HINT="f32")  # what such a processor answers
    assert reason_of(caught.value) == "wrong-artefact"


def test_a_file_for_another_batch_is_refused(tmp_path):
    artefact = artefact_of(load("micro_swin"), Target("openvino", batch=2), tmp_path)
    with pytest.raises(MeasureError, match=r"must be \[4, 3") as caught:
        runtime("openvino").load(artefact, Target("openvino", batch=4).config)
    assert reason_of(caught.value) == "wrong-artefact"


def test_the_input_lives_as_long_as_the_request_reads_it(tmp_path):
    """OpenVINO holds the memory of its input, not the array."""
    spec, target = load("micro_swin"), Target("openvino")
    loaded = runtime("openvino").load(artefact_of(spec, target, tmp_path), target.config)
    image = np.random.default_rng(0).standard_normal((1, 3, *spec.input.size), dtype=np.float32)
    (expected,) = loaded.outputs(image)
    frozen = image.copy()
    frozen.flags.writeable = False  # as arrays from the parent are
    call = loaded.timed(frozen)
    del frozen
    gc.collect()
    rubbish = [np.full(image.shape, 1e9, np.float32) for _ in range(50)]
    call()
    assert np.array_equal(loaded.request.output_tensors[0].data, expected)
    assert rubbish


def test_a_dynamic_batch_is_fixed_at_the_targets(tmp_path):
    from archdsl.backends import backend
    from archdsl.runtimes.export import network_of

    spec, target = load("micro_swin"), Target("openvino", batch=2)
    network, path = network_of(spec), tmp_path / "dynamic.onnx"
    backend("onnx").save(network.graph, path, network.weights)
    artefact = dataclasses.replace(artefact_of(spec, target, tmp_path), path=path)
    loaded = runtime("openvino").load(artefact, target.config)
    assert list(loaded.compiled.inputs[0].shape) == [2, 3, *spec.input.size]
