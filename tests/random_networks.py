"""Small random networks for tests of passes."""

from __future__ import annotations

import random

from archdsl.ir.graph import Graph, Value
from archdsl.ir.op import Op
from archdsl.ir.order import Groups2x2, Order, Planes, Raster, Windows
from archdsl.ir.types import TensorType
from archdsl.ops.attention import Attention, RelativePositionBias, ShiftMask
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import BatchNorm, LayerNorm, TokenBatchNorm
from archdsl.ops.pointwise import Activation, Add, Dropout, DropPath, LayerScale
from archdsl.ops.tokens import AddPosition, MeanPool, MergeGroups, PrependToken, Reorder, Slice, TakeToken

RASTER = Raster(4, 4)
WINDOWS = Windows(4, 4, (2, 2))
SHIFTED = Windows(4, 4, (2, 2), (1, 1))
PADDED = Windows(4, 4, (3, 3))
GROUPS = Groups2x2(4, 4, Raster(2, 2))
PLANES = Planes(4, 4)


class Drawing:
    """A random network: ops on maps of 4x4 tokens, in all orders, of 8 channels."""

    def __init__(self, seed: int):
        self.draw, self.g = random.Random(seed), Graph()
        order = self.draw.choice([RASTER, WINDOWS, SHIFTED, PLANES])
        self.values: list[Value] = [self.g.input("x", TensorType((16, 8), order=RASTER).in_order(order))]
        self.count = 0

    def add(self, op: Op, *inputs: Value) -> Value:
        self.count += 1
        return self.g.add(op, *inputs, path=f"n{self.count}")

    def pick(self) -> Value:
        """Mostly the newest."""
        return self.values[-1] if self.draw.random() < 0.7 else self.draw.choice(self.values)

    def in_order(self, x: Value, *orders: Order) -> Value:
        order = self.draw.choice(orders)
        return x if x.type.order == order else self.add(Reorder(order), x)

    def next_value(self, x: Value) -> Value:
        draw, kind = self.draw, self.draw.randrange(12)
        if kind == 0:
            return self.in_order(x, RASTER, WINDOWS, SHIFTED, PADDED, GROUPS, PLANES)
        if kind == 1:
            return self.add(draw.choice([Activation("relu"), Activation("gelu"), DropPath(0.1), Dropout(0.1)]), x)
        if kind == 2:
            planes = self.in_order(x, PLANES)
            conv = Conv2d(8, 8, 1) if draw.random() < 0.4 else Conv2d(8, 8, 3, padding=1, groups=draw.choice([1, 2, 8]))
            return self.add(conv, planes)
        if kind == 3:
            return self.add(TokenBatchNorm(16), self.in_order(x, RASTER))
        if kind == 4:
            return self.sum(x, draw.choice(self.values))
        if isinstance(x.type.order, Planes):
            x = self.in_order(x, RASTER, WINDOWS, SHIFTED)
        if kind in (5, 6):
            return self.add(Linear(8, 8, bias=draw.random() < 0.7), x)
        if kind == 7:
            return self.add(LayerNorm(8), x)
        if kind == 8:
            return self.add(BatchNorm(8), self.in_order(x, RASTER, WINDOWS, SHIFTED, GROUPS))
        if kind == 9:
            return self.add(LayerScale(8), x)
        return self.attention(x)

    def sum(self, x: Value, y: Value) -> Value:
        order = self.draw.choice([x.type.order, y.type.order, RASTER])
        return self.add(Add(), *(z if z.type.order == order else self.add(Reorder(order), z) for z in (x, y)))

    def attention(self, x: Value) -> Value:
        order = self.draw.choice([WINDOWS, SHIFTED, PADDED])
        qkv = self.add(Linear(8, 24, bias=self.draw.random() < 0.7), self.in_order(x, order))
        starts = self.draw.choice([(0, 8, 16), (0, 8, 16), (16, 0, 8), (0, 4, 16), (0, 0, 8)])
        parts = [self.add(Slice(start, start + 8), qkv) for start in starts]
        bias = self.add(RelativePositionBias(order.window, 2))
        if order.shifted:
            bias = self.add(Add(), bias, self.add(ShiftMask(order)))
        return self.add(Attention(2, 0.4), *parts, *([bias] if self.draw.random() < 0.8 else []))

    def graph(self) -> Graph:
        for _ in range(self.draw.randint(4, 14)):
            self.values.append(self.next_value(self.pick()))
        y = self.values[-1]
        if self.draw.random() < 0.3:
            norm = self.add(LayerNorm(8), self.in_order(y, RASTER))
            y = self.add(TakeToken(1), self.add(AddPosition(17, 8), self.add(PrependToken(8), norm)))
        elif self.draw.random() < 0.4:
            y = self.add(MergeGroups(), self.in_order(y, GROUPS))
        else:
            y = self.add(MeanPool(), self.in_order(y, RASTER, PLANES))
        self.g.output("y", self.add(Linear(y.type.channels, 5, bias=False), y))
        if self.draw.random() < 0.3:
            self.g.output("z", self.draw.choice(self.values[1:]))
        return self.g
