"""propagate_layouts: what moves, and how often."""

import pytest

import archdsl
from archdsl.errors import RuleBroken
from archdsl.ir.graph import Graph, Value
from archdsl.ir.order import Groups2x2, Planes, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.language.architecture.lower import lower
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import LayerNorm
from archdsl.ops.pointwise import Activation, Add
from archdsl.ops.tokens import MeanPool, MergeGroups, Reorder
from archdsl.passes.network import Network
from archdsl.passes.propagate_layouts import data_moving_reorders, propagate, propagate_layouts
from archdsl.passes.runner import Pass, PassBroken, run_passes

RASTER = Raster(4, 4)
WINDOWS = Windows(4, 4, (2, 2))
SHIFTED = Windows(4, 4, (2, 2), (1, 1))
PADDED = Windows(4, 4, (3, 3))


def tokens(g: Graph, order=RASTER) -> Value:
    return g.input("x", TensorType((16, 8), order=RASTER).in_order(order))


def attend(g: Graph, x: Value, name: str) -> Value:
    return g.add(Attention(2, 0.5), x, x, x, path=name)


def moves(g: Graph) -> int:
    return len(data_moving_reorders(g))


def test_a_round_trip_disappears():
    g = Graph()
    there = g.add(Reorder(WINDOWS), tokens(g), path="there")
    g.output("y", g.add(Reorder(RASTER), there, path="back"))
    assert propagate_layouts(g).text() == "x: f32[B, 16, 8] raster(4x4)\nreturn y = x"


def test_a_round_trip_around_a_tokenwise_op_disappears():
    g = Graph()
    there = g.add(Reorder(WINDOWS), tokens(g), path="there")
    y = g.add(Linear(8, 4), there, path="fc")
    g.output("y", g.add(Reorder(RASTER), y, path="back"))
    assert moves(propagate_layouts(g)) == 0


def test_two_reorders_become_one():
    g = Graph()
    x = g.add(Reorder(WINDOWS), tokens(g), path="a")
    g.output("y", g.add(Reorder(SHIFTED), x, path="b"))
    after = propagate_layouts(g)
    assert [str(node.op) for node in data_moving_reorders(after)] == [f"Reorder(to={SHIFTED})"]


def test_a_round_trip_through_padding_keeps_the_zeros():
    """Linear(0) is its bias: padding must be zero where attention reads it, so the reorder must not pass the linear."""
    g = Graph()
    x = g.add(Linear(8, 8), tokens(g), path="before")
    x = g.add(Reorder(PADDED), x, path="pad")
    x = g.add(Linear(8, 8), x, path="inside")
    x = g.add(Reorder(RASTER), attend(g, x, "attend"), path="back")
    g.output("y", x)
    after = propagate_layouts(g)
    paths = [node.path for node in after.live()]
    assert paths.index("inside") > next(i for i, n in enumerate(after.live()) if isinstance(n.op, Reorder))
    assert moves(after) == 2


def test_filling_padding_again_is_not_the_identity():
    g = Graph()
    x = g.add(Reorder(PADDED), tokens(g), path="pad")
    x = g.add(Linear(8, 8), x, path="inside")
    g.output("y", g.add(Reorder(PADDED), x, path="again"))
    assert moves(propagate_layouts(g)) == 2


def test_a_residual_branch_in_windows_moves_the_stream_once_for_each_new_order():
    g = Graph()
    x = tokens(g)
    for index, order in enumerate((WINDOWS, WINDOWS, SHIFTED, WINDOWS)):
        y = g.add(LayerNorm(8), x, path=f"norm{index}")
        y = attend(g, g.add(Reorder(order), y, path=f"in{index}"), f"attend{index}")
        x = g.add(Add(), x, g.add(Reorder(RASTER), y, path=f"out{index}"), path=f"sum{index}")
        x = g.add(Add(), x, g.add(Activation("gelu"), x, path=f"act{index}"), path=f"more{index}")
    g.output("y", g.add(MeanPool(), x, path="pool"))
    assert moves(g) == 8
    assert moves(propagate_layouts(g)) == 3


def test_patch_merging_absorbs_the_merge_before_and_the_partition_after():
    g = Graph()
    x = g.add(Reorder(WINDOWS), tokens(g), path="in")
    x = g.add(Reorder(RASTER), attend(g, x, "attend"), path="out")
    x = g.add(MergeGroups(), g.add(Reorder(Groups2x2(4, 4, Raster(2, 2))), x, path="gather"), path="merge")
    small = Windows(2, 2, (1, 1))
    x = attend(g, g.add(Reorder(small), g.add(Linear(32, 8), x, path="reduce"), path="in2"), "attend2")
    g.output("y", g.add(MeanPool(), x, path="pool"))
    after = propagate_layouts(g)
    assert [node.op for node in data_moving_reorders(after)] == [Reorder(WINDOWS), Reorder(Groups2x2(4, 4, small))]


def test_convolutions_and_tokens_meet_with_one_change_of_layout_each_way():
    g = Graph()
    x = g.input("x", TensorType((8, 4, 4), order=Planes(4, 4)))
    for index in range(3):
        y = g.add(Conv2d(8, 8, 3, padding=1, groups=8), x, path=f"conv{index}")
        y = g.add(LayerNorm(8), g.add(Reorder(RASTER), y, path=f"in{index}"), path=f"norm{index}")
        y = g.add(Linear(8, 8), y, path=f"fc{index}")
        x = g.add(Add(), x, g.add(Reorder(Planes(4, 4)), y, path=f"out{index}"), path=f"sum{index}")
    g.output("y", g.add(MeanPool(), x, path="pool"))
    assert moves(propagate_layouts(g)) == 6


def test_equal_orders_are_never_reordered():
    g = Graph()
    g.output("y", g.add(Reorder(RASTER), tokens(g), path="nothing"))
    assert moves(propagate_layouts(g)) == 0 and len(propagate_layouts(g).live()) == 1


@pytest.mark.parametrize(("spec", "before", "after"), [("swin_t", 24, 11), ("swin_free_t", 12, 4), ("vit_ti_16", 1, 1)])
def test_how_often_shipped_networks_move_tokens(spec: str, before: int, after: int):
    graph = lower(archdsl.load(spec))
    assert (moves(graph), moves(propagate_layouts(graph))) == (before, after)


def test_swin_free_moves_at_most_once_a_stage_beside_patch_merging():
    moved = data_moving_reorders(archdsl.compile("swin_free_t"))
    beside_merging = [node for node in moved if not isinstance(node.op.to, Groups2x2)]
    assert len(beside_merging) == 1 and len(moved) == 4


@pytest.mark.parametrize("spec", ["swin_t", "swin_free_t", "convnext_t", "convnext_swin_t", "vit_ti_16"])
def test_settling_keeps_every_parameter_every_mac_and_every_name(spec: str):
    graph = lower(archdsl.load(spec))
    after = propagate_layouts(graph)
    assert (after.cost().params, after.cost().macs) == (graph.cost().params, graph.cost().macs)

    def named(g: Graph) -> set[str]:
        return {node.path for node in g.live() if node.op.tensors()}

    assert named(after) == named(graph)


def test_settling_twice_is_settling_once():
    once = propagate_layouts(lower(archdsl.load("swin_t")))
    assert propagate_layouts(once).hash() == once.hash()


def test_the_runner_reports_what_a_pass_did():
    graph = lower(archdsl.load("swin_free_t"))
    _, (report,) = run_passes(Network(graph), [propagate])
    assert report.changed and report.nodes_after < report.nodes_before


def test_the_runner_catches_a_pass_that_changes_the_output():
    def cut(graph: Graph) -> Graph:
        other = Graph()
        other.output("y", other.input("x", TensorType((3,))))
        return other

    g = Graph()
    g.output("y", tokens(g))
    with pytest.raises(PassBroken, match="changed the signature"):
        run_passes(Network(g), [Pass.of_graph("cut", cut)])


def test_the_type_system_refuses_a_sum_of_two_orders():
    g = Graph()
    x = tokens(g)
    with pytest.raises(RuleBroken, match="two values of one type"):
        g.add(Add(), x, g.add(Reorder(WINDOWS), x, path="w"), path="sum")


def test_padding_is_dropped_before_what_would_count_it():
    g = Graph()
    x = g.add(Reorder(PADDED), tokens(g), path="pad")
    x = g.add(Reorder(RASTER), attend(g, x, "attend"), path="back")
    g.output("y", g.add(MeanPool(), x, path="pool"))
    assert [node.op for node in data_moving_reorders(propagate_layouts(g))] == [Reorder(PADDED), Reorder(RASTER)]


@pytest.mark.parametrize("spec", ["swin_t", "swin_free_t_br"])
def test_a_network_with_padded_windows_pads_and_drops_once_a_block(spec: str):
    """The stream between the blocks holds no padding: each block adds its own."""
    graph = lower(archdsl.load(spec, set={"input.size": 200}))
    after = propagate_layouts(graph)
    assert moves(after) == moves(graph)
    assert not any(node.type.order.padded for node in after.live() if isinstance(node.op, Add) and node.type.order)
