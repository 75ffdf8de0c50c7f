"""What a plug-in imports: all that a part of one's own is written with.

A plug-in is a Python file that registers parts (`archdsl --plugin FILE`), or a package that names its module in the
entry-point group `archdsl.blocks`. Names that are not here may move in any release.

- `Stem`, `Block`, `Downsample`, `Neck`, `Head`: the bases of parts; `register` makes one known in YAML
- `Flow`, `Scope`, `Value`: what `lower` is given and returns; `as_tokens`, `as_planes` change the layout of a value
- `norm`, `mlp`, `self_attention`, `residual`, `check_heads`: the sublayers of the built-in families
- `ActivationName` … `Window`: the types of fields that many parts share, with their limits and descriptions
- `ops`: the primitives of the graph; `Planes`, `Raster`, `Windows`, `window_order`: the orders of a value
- `RuleBroken`: raised by `lower` where the fields do not fit; the place in the YAML file is added
- `WeightNames`: the names of a part's tensors in other libraries

Examples:
    A block with fields of its own, and one mistake that it knows:

    >>> from archdsl.plugins import *
    >>> @register("token_mixer")
    ... class TokenMixer(Block):
    ...     '''x += attention(norm(x)) in windows; x += mlp(x).'''
    ...     heads: Heads
    ...     window: Window = 4
    ...     mlp_ratio: Ratio = 2.0
    ...     act: ActivationName = "gelu"
    ...     norm: NormName = "layer"
    ...     norm_axis: NormAxis = "channel"
    ...     eps: Eps = 1e-6
    ...     drop_path: Rate | None = None
    ...     def lower(self, g: Scope, flow: Flow) -> Flow:
    ...         x: Value = as_tokens(g, flow.x)
    ...         if not isinstance(x.type.order, Raster):
    ...             raise RuleBroken("tokens must lie in raster order", hint="leave the class token out")
    ...         order = window_order(x.type.order.height, x.type.order.width, self.window, shift=False)
    ...         x = g.add(ops.Reorder(order), x, name="windows") if isinstance(order, Windows) else x
    ...         check_heads(x.type.channels, self.heads)
    ...         y = norm(g, x, self.norm, axis=self.norm_axis, eps=self.eps, name="norm1")
    ...         x = residual(g, x, self_attention(g, y, self.heads, qkv_bias=True), self.drop_path)
    ...         return flow.to(residual(g, x, mlp(g, x, self.mlp_ratio, self.act), self.drop_path))

    The other kinds of part, with the types of their fields:

    >>> @register("strided")
    ... class Strided(Stem):
    ...     dim: Dim
    ...     kernel: Kernel = 4
    ...     def lower(self, g: Scope, flow: Flow) -> Flow:
    ...         conv = ops.Conv2d(flow.x.type.channels, self.dim, self.kernel, stride=self.kernel)
    ...         return flow.to(g.add(conv, flow.x, name="proj"))
    >>> @register("halve")
    ... class Halve(Downsample):
    ...     def lower(self, g: Scope, flow: Flow, dim: int) -> Flow:
    ...         x = as_planes(g, flow.x)
    ...         return flow.to(g.add(ops.Conv2d(x.type.channels, dim, 2, stride=2), x, name="conv"))
    >>> @register("coarsest")
    ... class Coarsest(Neck):
    ...     def lower(self, g: Scope, flow: Flow) -> Flow:
    ...         return flow.to(list(flow.maps.values())[-1])
    >>> @register("linear")
    ... class LinearHead(Head):
    ...     weight_names = {"mine": WeightNames({"classifier.": "head.fc."})}
    ...     classes: Classes = 10
    ...     def lower(self, g: Scope, flow: Flow) -> Flow:
    ...         x = g.add(ops.MeanPool(), as_tokens(g, flow.x), name="pool")
    ...         return flow.to(g.add(ops.Linear(x.type.channels, self.classes), x, name="fc"))
    >>> from archdsl.language import loads
    >>> spec = loads('''
    ... input: {size: 16}
    ... stem: {type: strided, dim: 8}
    ... stages: [{block: token_mixer, depth: 2, heads: 2}, {block: token_mixer, depth: 1, heads: 4, downsample: halve}]
    ... neck: [coarsest]
    ... head: linear
    ... ''')
    >>> spec.stages[1].blocks[0].heads
    4

    >>> Planes(8, 8).num_slots, Raster(8, 8).num_slots
    (64, 64)
"""

from archdsl import ops
from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope, Value
from archdsl.ir.order import Planes, Raster, Windows, window_order
from archdsl.parts.fields import (
    ActivationName,
    Classes,
    Dim,
    Eps,
    Heads,
    Kernel,
    NormAxis,
    NormName,
    Rate,
    Ratio,
    Window,
)
from archdsl.parts.flow import Flow, as_planes, as_tokens
from archdsl.parts.layers.sublayers import check_heads, mlp, norm, residual, self_attention
from archdsl.parts.part import Block, Downsample, Head, Neck, Stem, register
from archdsl.parts.weight_names import WeightNames

__all__ = [
    "ActivationName",
    "Block",
    "Classes",
    "Dim",
    "Downsample",
    "Eps",
    "Flow",
    "Head",
    "Heads",
    "Kernel",
    "Neck",
    "NormAxis",
    "NormName",
    "Planes",
    "Raster",
    "Rate",
    "Ratio",
    "RuleBroken",
    "Scope",
    "Stem",
    "Value",
    "WeightNames",
    "Window",
    "Windows",
    "as_planes",
    "as_tokens",
    "check_heads",
    "mlp",
    "norm",
    "ops",
    "register",
    "residual",
    "self_attention",
    "window_order",
]
