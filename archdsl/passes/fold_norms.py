"""Fold norms into the linears and convolutions beside them.

At inference a batch norm is x * scale + shift, and so is the end of a layer norm. With W, b of the next linear (or
convolution without padding), the rules are

    linear(x * scale + shift)    =  linear'(x)        W' = W * scale (by column),  b' = b + W shift
    linear(x) * scale + shift    =  linear'(x)        W' = scale * W (by row),     b' = b * scale + shift
    layer_norm(x)                =  plain layer_norm(x) * weight + bias

A norm goes into what follows when everything that reads it is a linear, maybe through ops that treat channels alike
(reorders, means, one token); else into the linear before it, if nobody else reads that; what is left of a batch norm
after both is an `Affine`, which goes on when what stood in its way is gone. Nothing is shifted through a reorder that
adds padding: its zeros come after the norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.order import Planes
from archdsl.ops.linear import Conv2d, Linear
from archdsl.ops.norm import Affine, BatchNorm, LayerNorm, TokenAffine, TokenBatchNorm
from archdsl.ops.tokens import MeanPool, MergeGroups, Reorder, TakeToken
from archdsl.passes.network import Array, Network, Rewriting
from archdsl.passes.runner import Pass
from archdsl.passes.uses import Uses


@dataclass(frozen=True)
class ScaleShift:
    """x * scale + shift, one number of each for a channel; float64."""

    scale: Array
    shift: Array

    def repeated(self, times: int) -> ScaleShift:
        """For `times` copies of the channels side by side."""
        import numpy as np

        return ScaleShift(np.tile(self.scale, times), np.tile(self.shift, times))

    def at(self, positions: Sequence[int]) -> ScaleShift:
        """For the channels at `positions`, in that order."""
        return ScaleShift(self.scale[list(positions)], self.shift[list(positions)])


def fold_norms(network: Network) -> Network:
    """The same function without batch norms, and without the affine part of layer norms where that is exact."""
    while True:
        after = _Folder(network).run()
        if after is None:
            return network
        network = after


class _Folder:
    """One round: every norm finds the linears that take it over, then the graph is built anew.

    after, before: what a linear must do to its input, or to its result, on top of its own
    """

    def __init__(self, network: Network):
        self.network, self.uses = network, Uses(network.graph)
        self.after: dict[Node, ScaleShift] = {}
        self.before: dict[Node, ScaleShift] = {}
        self.replaced: dict[Node, LayerNorm | Affine | TokenAffine | None] = {}

    def run(self) -> Network | None:
        """The network after this round; None when there was nothing to do."""
        for node in self.network.graph.live():
            if isinstance(node.op, BatchNorm | Affine) or (isinstance(node.op, LayerNorm) and node.op.affine):
                self._fold(node)
            elif isinstance(node.op, TokenBatchNorm):
                self.replaced[node] = TokenAffine(node.op.num_tokens)
        if not self.replaced:
            return None
        self.rewriting = Rewriting(self.network)
        return self.rewriting.done(self.network.graph.rebuild(self._make))

    def _fold(self, node: Node) -> None:
        own = self._scale_shift(node)
        sinks = list(_sinks(node, own, self.uses))
        source = self.uses.only_linear_before(node)
        if all(found is not None for _, found in sinks) and not any(sink in self.after for sink, _ in sinks):
            self.after.update({sink: found for sink, found in sinks if found is not None})
            self.replaced[node] = replace(node.op, affine=False) if isinstance(node.op, LayerNorm) else None
        elif source is not None and source not in self.before and not isinstance(node.op, LayerNorm):
            self.before[source] = own
            self.replaced[node] = None
        elif isinstance(node.op, BatchNorm):
            self.replaced[node] = Affine(node.op.dim)

    def _scale_shift(self, node: Node) -> ScaleShift:
        import numpy as np

        numbers = {key: value.astype(np.float64) for key, value in self.network.of(node).items()}
        if isinstance(node.op, LayerNorm | Affine):
            return ScaleShift(numbers["weight"], numbers["bias"])
        scale = numbers["weight"] / np.sqrt(numbers["running_var"] + node.op.eps)  # type: ignore[attr-defined]
        return ScaleShift(scale, numbers["bias"] - numbers["running_mean"] * scale)

    def _make(self, new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        if node in self.after or node in self.before:
            return self._linear(new, node, inputs)
        if node not in self.replaced:
            return new.add(node.op, *inputs, path=node.path)
        match self.replaced[node]:
            case None:
                return inputs[0]
            case LayerNorm() as op:
                return new.add(op, *inputs, path=node.path)
            case Affine() as op:
                own = self._scale_shift(node)
                return self.rewriting.put(new, op, inputs, node.path, {"weight": own.scale, "bias": own.shift})
            case op:
                return self._token_affine(new, op, node, inputs[0])

    def _token_affine(self, new: Graph, op: TokenAffine, node: Node, x: Value) -> Value:
        """In the order that the tokens had before they were put into raster order, so that they need not be."""
        own, home = self._scale_shift(node), x.type.order
        order = x.inputs[0].type.order if isinstance(x.op, Reorder) else None
        if order is not None and not order.padded and not isinstance(order, Planes):
            own, x = own.at(order.slots()), x.inputs[0]
        x = self.rewriting.put(new, op, (x,), node.path, {"weight": own.scale, "bias": own.shift})
        return x if x.type.order == home or home is None else new.add(Reorder(home), x, path=f"{node.path}.reorder")

    def _linear(self, new: Graph, node: Node, inputs: tuple[Value, ...]) -> Value:
        """The linear or convolution with what it takes over."""
        import numpy as np

        assert isinstance(node.op, Linear | Conv2d)
        tensors = self.network.of(node)
        weight, bias = tensors["weight"], tensors.get("bias")
        shift: Array | float = 0.0 if bias is None else bias.astype(np.float64)
        if node in self.after:
            weight, shift = _taking_input(node.op, weight, shift, self.after[node])
        if node in self.before:
            own = self.before[node]
            weight = weight * _along(own.scale, weight).astype(np.float32)
            shift = shift * own.scale + own.shift
        tensors = {"weight": weight, "bias": np.asarray(shift)}
        return self.rewriting.put(new, replace(node.op, bias=True), inputs, node.path, tensors)


def _taking_input(op: Linear | Conv2d, weight: Array, shift: Array | float, x: ScaleShift) -> tuple[Array, Array]:
    """Weight and bias of the op that does to y what `op` does to y * scale + shift."""
    groups = op.groups if isinstance(op, Conv2d) else 1
    rows = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)  # [g, out / g, in / g, places]
    scaled = rows * x.scale.reshape(groups, 1, -1, 1).astype("float32")
    added = rows.sum(axis=3, dtype="float64") @ x.shift.reshape(groups, -1, 1)
    return scaled.reshape(weight.shape), shift + added.reshape(-1)


def _along(scale: Array, weight: Array) -> Array:
    """One number for each row of a weight of any rank."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _sinks(node: Node, own: ScaleShift, uses: Uses) -> Iterator[tuple[Node, ScaleShift | None]]:
    """The linears that read `node`, each with what `own` has become on the way; None for a reader that is none."""
    if uses.is_output(node):
        yield node, None
    for user in uses.of(node):
        match user.op:
            case Linear() | Conv2d(padding=0):
                yield user, own
            case MeanPool() | TakeToken():
                yield from _sinks(user, own, uses)
            case Reorder(to) if not to.padded or not own.shift.any():
                yield from _sinks(user, own, uses)
            case MergeGroups():
                yield from _sinks(user, own.repeated(4), uses)
            case _:
                yield user, None


fold = Pass("fold_norms", fold_norms)
