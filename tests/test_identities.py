"""Identities outlive the code: they are the keys of timing caches, studies and build folders."""

import csv
import hashlib
from collections import defaultdict
from dataclasses import dataclass, make_dataclass
from pathlib import Path

import pytest

from archdsl.compiler import compile, deploy
from archdsl.ir.graph import Graph, Input
from archdsl.ir.identity import Identified
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Planes, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.latency.predictor.segments import the_call
from archdsl.ops import OPS
from archdsl.ops.attention import ShiftMask
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.pointwise import Dropout
from archdsl.ops.tokens import AddPosition, PrependToken, Reorder, TakeToken
from archdsl.ops.values import Constant
from archdsl.passes.segments import segments_of

SPECS = Path(__file__).parents[1] / "specs"


def _frozen() -> dict[str, dict[str, str]]:
    """By spec: the identity of each of its graphs, as they were before ops declared their identities."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    with open(Path(__file__).parent / "data" / "identities.csv", newline="") as file:
        for row in csv.DictReader(file):
            found[row["spec"]][row["graph"]] = row["identity"]
    return found


FROZEN = _frozen()


@pytest.mark.promise(7)
@pytest.mark.parametrize("name", FROZEN)
def test_identities_are_what_they_were(name: str):
    """A change here makes every cached timing and every stored study of the network unknown."""
    spec = load(SPECS / f"{name}.yaml")
    for graph, wanted in FROZEN[name].items():
        match graph.split():
            case ["train"]:
                got = lower(spec).hash()
            case ["inference"]:
                got = lower(spec).hash(training=False)
            case ["segments"]:
                keys = " ".join(segment.key for segment in segments_of(compile(spec)))
                got = hashlib.sha256(keys.encode()).hexdigest()[:32]
            case [_, precision]:
                got = deploy(spec, precision=precision).graph.hash(training=False)
        assert got == wanted, graph


def test_the_identity_of_the_call_is_what_it_was():
    assert the_call().hash(training=False) == "e684ed9b6f6db07100adfd1c42796111"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Linear(8, 16), "Linear(d_in=8, d_out=16, bias=True, init=Init(law='normal', value=0.02))"),
        (
            Conv2d(3, 8, 4, bias=False),
            "Conv2d(c_in=3, c_out=8, kernel=4, stride=1, padding=0, groups=1, bias=False, init=None)",
        ),
        (Dropout(0.5), "Dropout(rate=0.5)"),
        (TakeToken(0), "TakeToken(position=0)"),
        (PrependToken(8), "PrependToken(dim=8, init=Init(law='normal', value=1e-06))"),
        (AddPosition(4, 8), "AddPosition(num_tokens=4, dim=8, init=Init(law='normal', value=0.02))"),
        (Constant((4,)), "Constant(shape=(4,))"),
        (Reorder(Planes(4, 4)), "Reorder(to=Planes(height=4, width=4))"),
        (
            Reorder(Groups2x2(4, 4, Raster(2, 2))),
            "Reorder(to=Groups2x2(height=4, width=4, outer=Raster(height=2, width=2)))",
        ),
        (
            ShiftMask(Windows(4, 4, (2, 2), (1, 1))),
            "ShiftMask(order=Windows(height=4, width=4, window=(2, 2), shift=(1, 1)))",
        ),
        (
            Input(TensorType((3, 4, 4), order=Planes(4, 4))),
            "Input(type=TensorType(shape=(3, 4, 4), dtype='f32', order=Planes(height=4, width=4), batched=True))",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_op_prints_its_fields_as_it_always_did(value: Op, text: str):
    assert value.identity_text() == text


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_every_op_declares_an_identity_of_its_own(op: type[Op]):
    assert "identity" in vars(op)
    assert [other for other in OPS if other.identity.partition("(")[0] == op.identity.partition("(")[0]] == [op]


class Toy(Op):
    """A base for variants of one op."""

    def infer(self, *inputs: TensorType) -> TensorType:
        return inputs[0]


@dataclass(frozen=True)
class Scale(Toy):
    identity = "Scale(by)"

    by: int = 1


def hash_of(op: Op) -> str:
    g = Graph()
    g.output("y", g.add(op, g.input("x", TensorType((4, 8))), path="y"))
    return g.hash()


def test_a_class_or_a_field_that_is_renamed_keeps_the_hash():
    @dataclass(frozen=True)
    class Multiply(Toy):
        identity = "Scale(by=factor)"

        factor: int = 1

    assert hash_of(Multiply(2)) == hash_of(Scale(2))
    assert hash_of(Multiply(3)) != hash_of(Scale(2))


@pytest.mark.parametrize("signature", ["Scale(by)", "Scale(by, *, start)"])
def test_a_field_that_is_added_counts_only_where_it_differs_from_its_default(signature: str):
    @dataclass(frozen=True)
    class Grown(Toy):
        identity = signature

        by: int = 1
        start: tuple[int, ...] = (0, 0)

    assert hash_of(Grown(2)) == hash_of(Scale(2))
    assert hash_of(Grown(2, (0, 1))) != hash_of(Scale(2))
    assert Grown(2, (0, 1)).identity_text() == "Scale(by=2, start=(0, 1))"


def test_a_field_that_is_added_to_none_follows_no_comma():
    @dataclass(frozen=True)
    class Grown(Toy):
        identity = "Nothing()"

        start: int = 0
        stop: int = 0

    assert [Grown().identity_text(), Grown(1, 2).identity_text()] == ["Nothing()", "Nothing(start=1, stop=2)"]


def test_a_field_whose_form_widens_prints_the_old_form_where_that_can_say_it():
    @dataclass(frozen=True)
    class Wide(Toy):
        identity = "Scale(by=old_by)"

        by: tuple[int, int] = (1, 1)

        @property
        def old_by(self) -> int | tuple[int, int]:
            return self.by[0] if self.by[0] == self.by[1] else self.by

    assert hash_of(Wide((2, 2))) == hash_of(Scale(2))
    assert Wide((2, 3)).identity_text() == "Scale(by=(2, 3))"


def test_a_field_of_an_order_that_is_added_keeps_the_hash():
    @dataclass(frozen=True)
    class Dilated(Windows):
        identity = Windows.identity

        dilation: int = 1

    def reordered(to: Windows) -> str:
        return Reorder(to).identity_text()

    assert reordered(Dilated(4, 4, (2, 2))) == reordered(Windows(4, 4, (2, 2)))
    assert reordered(Dilated(4, 4, (2, 2), dilation=2)) != reordered(Windows(4, 4, (2, 2)))


def test_an_op_without_an_identity_prints_itself_whole():
    """So a subclass is never taken for its base, and an op of a plug-in is what it always was."""
    plain = make_dataclass("Plain", [("by", int), ("name", str, "x")], bases=(Scale,), frozen=True)
    assert plain(2).identity_text() == repr(plain(2)) == "Plain(by=2, name='x')"


def test_a_signature_names_what_the_class_has():
    @dataclass(frozen=True)
    class Wrong(Identified):
        identity = "Wrong(size)"

        sides: int = 1

    with pytest.raises(TypeError, match=r"the identity of .*Wrong names 'size'"):
        Wrong().identity_text()
