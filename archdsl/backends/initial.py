"""The tensors a graph needs, and numbers to start them with: the same for every backend.

Each tensor has its own random stream, keyed by the seed and the tensor's name. So a block's start does not depend on
what stands around it, and two backends, two processes and two machines begin with equal weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from archdsl.errors import Problem, WeightsError, at_argument
from archdsl.ir.graph import Graph
from archdsl.ir.op import ParamSpec
from archdsl.suggestions import LONGEST_NAME, did_you_mean

Array = np.ndarray[Any, Any]

QUANTILES = 1 << 16
"""A normal number is one of this many equally likely quantiles: 16 random bits and a look-up. That is four times as
fast as the ziggurat, the same on every machine, and ends by itself at 4.3 standard deviations."""


def initial_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """A float32 array for each of `graph.tensors()`, drawn as its `Init` says."""
    return {name: initial_tensor(tensor, name, seed) for name, tensor in graph.tensors().items()}


def initial_tensor(tensor: ParamSpec, name: str, seed: int = 0) -> Array:
    """The start of the tensor called `name`, float32."""
    match tensor.init.law:
        case "zeros":
            return np.zeros(tensor.shape, np.float32)
        case "ones":
            return np.ones(tensor.shape, np.float32)
        case "constant":
            return np.full(tensor.shape, tensor.init.value, np.float32)
        case "normal":
            bits = _stream(name, seed).random_raw(-(-tensor.size // 4)).view(np.uint16)[: tensor.size]
            drawn: Array = (_quantiles() * np.float32(tensor.init.value))[bits]
            return drawn.reshape(tensor.shape)
        case "uniform":
            numbers = np.random.Generator(_stream(name, seed)).random(tensor.shape, dtype=np.float32)
            numbers -= np.float32(0.5)
            numbers *= np.float32(2 * tensor.init.value)
            return numbers
        case "orthogonal":
            return _orthogonal(tensor, name, seed)
        case "sinusoid":
            return _sinusoid(*tensor.shape[-2:]).reshape(tensor.shape)


def _orthogonal(tensor: ParamSpec, name: str, seed: int) -> Array:
    """Rows (columns, where those are fewer) at right angles to each other, `init.value` long."""
    rows, columns = tensor.shape
    drawn = np.random.Generator(_stream(name, seed)).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diag(r)) * tensor.init.value
    made: Array = np.ascontiguousarray(q.T if rows < columns else q, np.float32)
    return made


def _sinusoid(tokens: int, dim: int) -> Array:
    """sin(t / 10000^(c / dim)) in even channels c, cos of the same angle in the odd one behind. Source: 1706.03762"""
    channel = np.arange(dim)
    angle = np.arange(tokens)[:, None] / 10000.0 ** (channel // 2 * 2 / dim)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def as_arrays(weights: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays or torch tensors of any device and format as float32 arrays; float32 on the CPU is not copied."""
    return {name: _as_array(value) for name, value in weights.items()}


def _as_array(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().to("cpu")
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def check_weights(graph: Graph, weights: Mapping[str, Any]) -> None:
    """Raise WeightsError, one problem a tensor, unless `weights` has each tensor of the graph, as shaped, and no other.

    Batch norm's step counters (`num_batches_tracked`) may be there or not.
    """
    problems = []
    needed = graph.tensors()
    for name in weights:
        if name not in needed and not name.endswith(".num_batches_tracked"):
            hint = did_you_mean(name, needed, longest=LONGEST_NAME)
            place = at_argument("--weights", name)
            problems.append(Problem(place, "unknown-key", f"the network has no tensor {name!r}", hint))
    for name, tensor in needed.items():
        place = at_argument("--weights", name)
        if name not in weights:
            message = f"the network needs the tensor {name!r} {list(tensor.shape)}"
            problems.append(Problem(place, "missing-key", message))
        elif tuple(weights[name].shape) != tensor.shape:
            got = list(weights[name].shape)
            problems.append(Problem(place, "shape", f"{name!r} must be {list(tensor.shape)}, but got {got}"))
    if problems:
        raise WeightsError(problems)


def _stream(name: str, seed: int) -> np.random.SFC64:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.SFC64(np.frombuffer(digest, np.uint32))


@cache
def _quantiles() -> Array:
    """Quantiles of the standard normal law in the middle of equal steps of probability, scaled to variance 1."""
    law = NormalDist()
    low = np.array([law.inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES // 2)])
    both = np.concatenate([low, -low[::-1]])
    scaled: Array = (both / both.std()).astype(np.float32)
    return scaled
