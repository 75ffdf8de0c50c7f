"""Which ONNX form of an op is fastest on ONNX Runtime's CPU provider. The emitters use what wins here.

    python benchmarks/onnx_forms.py [--seconds 1] [--only reorder|padding|linear|class|batch]

Attention, and what else shows only in a whole network, is in `onnx_network_forms.py`.

Each form is a model of its own with one float input; all forms of a question must give the same numbers. One thread,
batch 1 and 8, median of paired ratios to the first form, which is the one in use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from paired import compare

from archdsl.backends.onnx.emitters.tokens import token_index
from archdsl.ir.order import Groups2x2, Order, Raster, Windows

DRAW = np.random.default_rng(0)


@dataclass
class Model:
    """A small ONNX model under construction; "x" is its input."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; arrays and lists of integers among the inputs become constants."""
        names = [x if isinstance(x, str) else self.constant(np.asarray(x)) for x in inputs]
        made = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, numbers: Any) -> str:
        self.constants.append(numpy_helper.from_array(numbers, f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def reshape(self, x: str, *shape: int) -> str:
        return str(self("Reshape", x, [0, *shape]))

    def transpose(self, x: str, *order: int) -> str:
        return str(self("Transpose", x, perm=list(order)))

    def gather(self, x: str, source: Order, target: Order) -> str:
        return str(self("Gather", x, token_index(source, target), axis=1))

    def session(self, shape: tuple[int, ...], output: str) -> onnxruntime.InferenceSession:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "form", [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


Form = Callable[[Model], str]
Question = tuple[str, tuple[int, ...], dict[str, Form]]


def reorders() -> Iterator[Question]:
    """Gather, or Reshape - Transpose - Reshape, with Slice and Concat for a roll."""
    for side, c in ((56, 96), (28, 192), (14, 384)):
        n, k = side * side, side // 7
        raster, half = Raster(side, side), Raster(side // 2, side // 2)
        windows, shifted = Windows(side, side, (7, 7)), Windows(side, side, (7, 7), (3, 3))
        groups = Groups2x2(side, side, half)

        def part(m: Model, x: str = "x", k: int = k, n: int = n, c: int = c) -> str:
            return m.reshape(m.transpose(m.reshape(x, k, 7, k, 7, c), 0, 1, 3, 2, 4, 5), n, c)

        def merge(m: Model, x: str = "x", k: int = k, n: int = n, c: int = c) -> str:
            return m.reshape(m.transpose(m.reshape(x, k, k, 7, 7, c), 0, 1, 3, 2, 4, 5), n, c)

        def quads(m: Model, x: str = "x", side: int = side, n: int = n, c: int = c) -> str:
            cut = m.transpose(m.reshape(x, side // 2, 2, side // 2, 2, c), 0, 1, 3, 4, 2, 5)
            return m.reshape(cut, n, c)

        def roll(m: Model, x: str = "x", side: int = side, n: int = n, c: int = c) -> str:
            x = m.reshape(x, side, side, c)
            for axis in (1, 2):
                late, early = m("Slice", x, [3], [side], [axis]), m("Slice", x, [0], [3], [axis])
                x = m("Concat", late, early, axis=axis)
            return m.reshape(x, n, c)

        def gather(source: Order, target: Order) -> Form:
            return lambda m: m.gather("x", source, target)

        tokens = (n, c)
        at = f"{side}x{side}x{c}"
        yield f"raster -> windows, {at}", tokens, {"gather": gather(raster, windows), "transpose": part}
        yield f"windows -> raster, {at}", tokens, {"gather": gather(windows, raster), "transpose": merge}
        yield (
            f"raster -> shifted windows, {at}",
            tokens,
            {"gather": gather(raster, shifted), "roll + transpose": lambda m, part=part, roll=roll: part(m, roll(m))},
        )
        yield (
            f"windows -> shifted windows, {at}",
            tokens,
            {
                "gather": gather(windows, shifted),
                "transpose + roll + transpose": lambda m, part=part, roll=roll, merge=merge: part(m, roll(m, merge(m))),
            },
        )
        yield f"raster -> groups2x2, {at}", tokens, {"gather": gather(raster, groups), "transpose": quads}
        yield (
            f"windows -> groups2x2, {at}",
            tokens,
            {
                "gather": gather(windows, groups),
                "two transposes": lambda m, quads=quads, merge=merge: quads(m, merge(m)),
            },
        )
        yield (
            f"planes -> windows, {at}",
            (c, side, side),
            {
                "transpose + gather": lambda m, c=c, n=n, r=raster, w=windows: m.gather(
                    m.transpose(m.reshape("x", c, n), 0, 2, 1), r, w
                ),
                "one transpose": lambda m, c=c, n=n, k=k: m.reshape(
                    m.transpose(m.reshape("x", c, k, 7, k, 7), 0, 2, 4, 3, 5, 1), n, c
                ),
            },
        )
        yield (
            f"windows -> planes, {at}",
            tokens,
            {
                "gather + transpose": lambda m, r=raster, w=windows: m.transpose(m.gather("x", w, r), 0, 2, 1),
                "one transpose": lambda m, c=c, n=n, k=k: m.reshape(
                    m.transpose(m.reshape("x", k, k, 7, 7, c), 0, 5, 1, 3, 2, 4), c, n
                ),
            },
        )


def padding() -> Iterator[Question]:
    """A zero token behind the others, or a padded map; and dropping the padding again."""
    side, full, c = 30, 35, 192
    raster, windows = Raster(side, side), Windows(side, side, (7, 7))
    index = token_index(raster, windows)
    assert index is not None
    real = (index < side * side).astype(np.float32)[:, None]

    def masked(m: Model) -> str:
        return str(m("Mul", m("Gather", "x", np.where(real[:, 0] > 0, index, 0), axis=1), real))

    def padded_map(m: Model) -> str:
        x = m("Pad", m.reshape("x", side, side, c), [0, 0, 0, 0, 0, 5, 5, 0])
        return m.reshape(m.transpose(m.reshape(x, 5, 7, 5, 7, c), 0, 1, 3, 2, 4, 5), full * full, c)

    def unpadded_map(m: Model) -> str:
        x = m.reshape(m.transpose(m.reshape("x", 5, 5, 7, 7, c), 0, 1, 3, 2, 4, 5), full, full, c)
        return m.reshape(m("Slice", x, [0, 0], [side, side], [1, 2]), side * side, c)

    yield (
        "raster -> padded windows, 30x30x192",
        (side * side, c),
        {
            "zero token + gather": lambda m: m.gather(m("Pad", "x", [0, 0, 0, 0, 1, 0]), raster, windows),
            "gather * mask": masked,
            "padded map": padded_map,
        },
    )
    yield (
        "padded windows -> raster, 30x30x192",
        (full * full, c),
        {"gather": lambda m: m.gather("x", windows, raster), "transpose + slice": unpadded_map},
    )


def linear() -> Iterator[Question]:
    for n, c, d in ((3136, 96, 288), (196, 384, 1536)):
        weight = DRAW.standard_normal((c, d), dtype=np.float32) * np.float32(0.05)
        bias = DRAW.standard_normal(d, dtype=np.float32)
        yield (
            f"linear, {n} tokens, {c} -> {d}",
            (n, c),
            {
                "MatMul + Add": lambda m, w=weight, b=bias: m("Add", m("MatMul", "x", w), b),
                "Gemm": lambda m, w=weight, b=bias, n=n, c=c, d=d: m(
                    "Reshape", m("Gemm", m("Reshape", "x", [-1, c]), w, b), [-1, n, d]
                ),
            },
        )


def class_token() -> Iterator[Question]:
    n, c = 196, 192
    token = DRAW.standard_normal((1, 1, c), dtype=np.float32)
    row = np.concatenate([token, np.zeros((1, n, c), np.float32)], axis=1)

    def slice_times_zero(m: Model) -> str:
        nothing = m("Mul", m("Slice", "x", [0], [1], [1]), np.array(0, np.float32))
        return str(m("Concat", m("Add", nothing, token), "x", axis=1))

    def expand(m: Model) -> str:
        shape = m("Concat", m("Shape", "x", start=0, end=1), [1, c], axis=0)
        return str(m("Concat", m("Expand", token, shape), "x", axis=1))

    def pad(m: Model) -> str:
        return str(m("Add", m("Pad", "x", [0, 1, 0, 0, 0, 0]), row))

    yield "class token, 196x192", (n, c), {"slice * 0": slice_times_zero, "shape + expand": expand, "pad + add": pad}


def batch_norm() -> Iterator[Question]:
    n, c = 784, 192
    scale, shift = DRAW.standard_normal((2, c), dtype=np.float32)
    still = [scale, shift, np.zeros(c, np.float32), np.ones(c, np.float32)]
    yield (
        "batch norm, 784x192",
        (n, c),
        {
            "Mul + Add": lambda m: m("Add", m("Mul", "x", scale), shift),
            "BatchNormalization on [B C N]": lambda m: m.transpose(
                m("BatchNormalization", m.transpose("x", 0, 2, 1), *still, epsilon=0.0), 0, 2, 1
            ),
            "BatchNormalization on [B N, C]": lambda m: m(
                "Reshape", m("BatchNormalization", m("Reshape", "x", [-1, c]), *still, epsilon=0.0), [-1, n, c]
            ),
        },
    )


QUESTIONS = {
    "reorder": reorders,
    "padding": padding,
    "linear": linear,
    "class": class_token,
    "batch": batch_norm,
}


def answer(question: Question, seconds: float) -> None:
    title, shape, forms = question
    sessions = {}
    for name, form in forms.items():
        model = Model()
        sessions[name] = model.session(shape, form(model))
    print(title)
    for batch in (1, 8):
        x = {"x": DRAW.standard_normal((batch, *shape), dtype=np.float32)}
        results = [session.run(None, x)[0] for session in sessions.values()]
        assert all(np.allclose(results[0].ravel(), y.ravel(), atol=1e-4) for y in results), title
        runs = {name: (lambda session=session, x=x: session.run(None, x)) for name, session in sessions.items()}
        for name, times in compare(runs, rounds=15, seconds=seconds).items():
            low, high = times.spread
            print(
                f"  batch {batch}  {name:32} {1e3 * times.median:9.3f} ms  x {times.ratio:.2f} [{low:.2f}, {high:.2f}]"
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=1.0, help="for each question and batch")
    arguments.add_argument("--only", choices=list(QUESTIONS))
    given = arguments.parse_args()
    for name, questions in QUESTIONS.items():
        if given.only in (None, name):
            for question in questions():
                answer(question, given.seconds)


if __name__ == "__main__":
    main()
