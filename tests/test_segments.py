"""Segments: they cover a network once, compute what it computes when chained, add up to its cost, have honest keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import archdsl
from archdsl.backends.torch import fx as torch_fx
from archdsl.compiler import compile
from archdsl.errors import MeasureError
from archdsl.ir.graph import Graph, Input
from archdsl.ir.order import Groups2x2, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.language.architecture.lower import lower
from archdsl.latency.predictor.predictor import NetworkSegments
from archdsl.ops.attention import Attention
from archdsl.ops.linear import Linear
from archdsl.ops.pointwise import Add
from archdsl.ops.tokens import MeanPool, MergeGroups, Reorder
from archdsl.passes.drop_train_only import drop_train_only
from archdsl.passes.propagate_layouts import data_moving_reorders
from archdsl.passes.segments import Segment, segments_of, work_of
from archdsl.runtimes.placeholder_weights import placeholder_weights

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "specs").glob("*.yaml"))
SMALL = ["micro_swin", "micro_swin_free", "micro_swin_free_br", "micro_swin_isolated"]


WHOLE = [name for name in NAMES if len(lower(archdsl.load(name)).inference().outputs) > 1]
"""Networks of several outputs, which are not cut."""
CUT = [name for name in NAMES if name not in WHOLE]
STREAMED = [name for name in CUT if any(part.type_name == "fpn" for part in archdsl.load(name).neck)]
"""Networks in which maps of all stages go past the later ones."""


@cache
def cut(name: str) -> tuple[Graph, tuple[Segment, ...]]:
    """A shipped network without what only training needs, and its segments."""
    graph = compile(name)
    return drop_train_only(graph), segments_of(graph)


def keys_of(name: str, **changes: object) -> dict[str, str]:
    """Segment name -> key."""
    spec = archdsl.load(name, set={path.replace("__", "."): value for path, value in changes.items()})
    return {segment.name: segment.key for segment in segments_of(compile(spec))}


@pytest.mark.parametrize("name", CUT)
def test_segments_cover_what_depends_on_the_image_once(name: str):
    graph, segments = cut(name)
    wanted = sorted(node.path for node in graph.live() if node.type.batched and not isinstance(node.op, Input))
    held = [node for segment in segments for node in segment.graph.live() if not isinstance(node.op, Input)]
    assert sorted(node.path for node in held if node.type.batched) == wanted
    assert len(segments) >= 5


@pytest.mark.parametrize("name", CUT)
def test_the_costs_of_segments_add_up(name: str):
    graph, segments = cut(name)
    whole, costs = work_of(graph), [segment.cost for segment in segments]
    for field in ("macs", "params", "constants", "bytes_read", "bytes_written"):
        assert sum(getattr(cost, field) for cost in costs) == getattr(whole, field), field


@pytest.mark.parametrize("name", CUT)
def test_each_segment_takes_what_the_one_before_gives(name: str):
    graph, segments = cut(name)
    ends = [graph.inputs[0].type, *(segment.graph.outputs["y"].type for segment in segments)]
    assert [segment.graph.inputs[0].type for segment in segments] == ends[:-1]
    (output,) = graph.outputs.values()
    assert ends[-1] == output.type


@pytest.mark.parametrize("name", [name for name in CUT if name not in STREAMED])
def test_blocks_are_cut_one_by_one(name: str):
    """Where nothing goes past a block, no segment is more than one group."""
    _, segments = cut(name)
    assert not [segment.name for segment in segments if " + " in segment.name]
    blocks = sum(len(stage.blocks) for stage in archdsl.load(name).stages)
    assert sum(".blocks." in segment.name and not segment.only_moves for segment in segments) == blocks


@pytest.mark.parametrize("name", [*WHOLE, *STREAMED[:1]])
def test_a_network_whose_maps_go_past_each_other_is_measured_whole(name: str):
    with pytest.raises(MeasureError, match=r"is not cut into segments, it is measured whole.*\[not-cut\]"):
        NetworkSegments.of(name)


def chained(segments: tuple[Segment, ...], weights: dict[str, object], x: torch.Tensor) -> torch.Tensor:
    for segment in segments:
        mine = {name: weights[name] for name in segment.graph.tensors()}
        x = torch_fx.emit(segment.graph, mine).eval()(x)
    return x


@pytest.mark.parametrize("name", [*SMALL, "convnext_swin_t", "vit_ti_16"])
def test_chained_segments_compute_what_the_network_does(name: str):
    size = {} if name in SMALL else {"input.size": 64 if name != "vit_ti_16" else 32}
    spec = archdsl.load(name, set=size)
    graph = compile(spec)
    weights = placeholder_weights(graph)
    x = torch.randn(2, *graph.inputs[0].type.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = torch_fx.emit(graph, weights).eval()(x)
        parts = chained(segments_of(graph), weights, x)
    assert float((whole[0] - whole[1]).abs().max()) > 1e-3 * float(whole.abs().max())
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_equal_blocks_have_equal_keys_and_others_do_not():
    keys = keys_of("swin_t")
    assert keys["stages.2.blocks.0"] == keys["stages.2.blocks.2"] == keys["stages.2.blocks.4"]
    assert keys["stages.2.blocks.0"] != keys["stages.2.blocks.1"]  # shifted
    assert keys["stages.2.blocks.0"] != keys["stages.1.blocks.0"]  # wider
    assert keys["stages.0.blocks.0"] == keys_of("swin_s")["stages.0.blocks.0"]
    assert keys["stages.0.blocks.0"] != keys_of("swin_t", defaults__norm="batch")["stages.0.blocks.0"]


def test_the_order_is_left_out_of_a_key_only_where_it_makes_no_difference():
    """Downsampling and head do the same to tokens in windows; attention within windows does not."""
    seven, fourteen = keys_of("swin_free_b", stages__1__window=7), keys_of("swin_free_b", stages__1__window=14)
    assert seven["stages.1.downsample"] == fourteen["stages.1.downsample"]
    assert seven["stages.1.blocks.0"] != fourteen["stages.1.blocks.0"]
    assert keys_of("micro_swin")["head"] == keys_of("micro_swin_free")["head"]


def segment_on(order: object, channels: int = 8, *, pooled: bool = False) -> Segment:
    graph = Graph()
    x = graph.input("x", TensorType((order.num_slots, channels), order=order))
    y = graph.add(Linear(channels, channels), x, path="fc")
    graph.output("y", graph.add(MeanPool(), y, path="pool") if pooled else y)
    return Segment("it", graph)


def test_a_key_holds_the_order_when_slots_are_padding():
    assert segment_on(Raster(8, 8)).key == segment_on(Windows(8, 8, (4, 4))).key
    assert segment_on(Raster(8, 8)).key == segment_on(Windows(8, 8, (4, 4), (2, 2))).key
    padded = segment_on(Windows(7, 7, (4, 4)))
    assert padded.key == padded.graph.hash(training=False)
    assert padded.key != segment_on(Raster(8, 8)).key


def test_attention_without_a_bias_keeps_its_windows_in_a_key():
    """Nothing in the types forbids to run it on raster tokens; but then all of them attend to each other."""

    def attending(order: object) -> Segment:
        graph = Graph()
        x = graph.input("x", TensorType((64, 8), order=order))
        graph.output("y", graph.add(Attention(2, 0.5), x, x, x, path="attend"))
        return Segment("attend", graph)

    assert attending(Windows(8, 8, (4, 4))).key != attending(Raster(8, 8)).key
    assert attending(Windows(8, 8, (4, 4))).key != attending(Windows(8, 8, (2, 2))).key


def test_groups_keep_their_kind_in_a_key():
    def merging(outer: object) -> Segment:
        graph = Graph()
        order = Groups2x2(8, 8, outer)
        x = graph.input("x", TensorType((64, 8), order=order))
        graph.output("y", graph.add(MergeGroups(), x, path="merge"))
        return Segment("merge", graph)

    assert merging(Raster(4, 4)).key == merging(Windows(4, 4, (2, 2))).key
    assert merging(Raster(4, 4)).key != segment_on(Raster(8, 8)).key


def test_moves_between_blocks_are_segments_of_their_own():
    graph, segments = cut("swin_t")
    moves = [segment for segment in segments if segment.only_moves]
    assert len(moves) == len(data_moving_reorders(graph)) - 1 == 10  # one is within the stem
    assert all(isinstance(node.op, Input | Reorder) for segment in moves for node in segment.graph.live())
    assert all(segment.num_bytes == 2 * segment.graph.inputs[0].type.size_bytes for segment in moves)


def two_streams(*, crossing: bool) -> Graph:
    """Two blocks; with `crossing`, the second also reads what the first had inside."""
    graph = Graph()
    x = graph.input("image", TensorType((4, 8)))
    inner = graph.add(Linear(8, 8), x, path="stages.0.blocks.0.a")
    first = graph.add(Linear(8, 8), inner, path="stages.0.blocks.0.b")
    second = graph.add(Linear(8, 8), first, path="stages.0.blocks.1.a")
    second = graph.add(Add(), second, inner if crossing else first, path="stages.0.blocks.1.add")
    graph.output("logits", graph.add(MeanPool(), second, path="head.pool"))
    return graph


def test_blocks_that_share_a_second_stream_stay_one_segment():
    apart = ["stages.0.blocks.0", "stages.0.blocks.1", "head"]
    together = ["stages.0.blocks.0 + stages.0.blocks.1", "head"]
    assert [segment.name for segment in segments_of(two_streams(crossing=False))] == apart
    assert [segment.name for segment in segments_of(two_streams(crossing=True))] == together


def test_a_graph_with_two_inputs_is_not_cut():
    graph = two_streams(crossing=False)
    graph.input("more", TensorType((4, 8)))
    with pytest.raises(ValueError, match="one input and one output are needed, got 2 and 1"):
        segments_of(graph)
