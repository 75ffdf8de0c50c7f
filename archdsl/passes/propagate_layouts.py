"""Propagate token layouts through the graph, so that tokens are moved as seldom as possible.

The rules, `x` being a map and `f` an op that does the same to every token:

    reorder(reorder(x, a), b)  =  reorder(x, b)
    reorder(x, order of x)     =  x                       when that order has no padding
    reorder(f(x), a)           =  f(reorder(x, a))        when a has no padding
    reorder(merge_groups(x), a) = merge_groups(reorder(x, groups2x2 in a))
    mean_pool(reorder(x, a))   =  mean_pool(x)

The rules are not applied one by one, because which one saves a move is no local question: the order of a sum depends
on the orders in which all its operands were made before. So the new graph is built on demand. Ops that need one order
(attention within windows, convolutions) and ops that join several maps (sums) are built in topological order; the ops
between them are built on demand, in the order that their first user needs. A sum is built in the order that
moves least, and, in a tie, in the order of its newest operand: so the residual stream of a Swin stage gets the
order of the last attention, a stage without shift is partitioned once, a shifted pair costs two gathers, and patch
merging absorbs the last merge and the next partition. Orders with padding are not propagated: zeros enter exactly where
the network has them.
"""

from __future__ import annotations

from archdsl.ir.graph import Graph, Node, Value
from archdsl.ir.order import Order
from archdsl.ops.tokens import Reorder
from archdsl.passes.runner import Pass


def propagate_layouts(graph: Graph) -> Graph:
    """The same function with fewer reorders."""
    return _LayoutPropagation(graph).run()


def data_moving_reorders(graph: Graph) -> list[Node]:
    """The reorders of a graph that change where a token is held (all but those between equal layouts)."""
    return [
        node
        for node in graph.live()
        if isinstance(node.op, Reorder) and (node.op.to != node.inputs[0].type.order or node.op.to.padded)
    ]


class _LayoutPropagation:
    """Builds the new graph. `made` holds, for each old node, its new values by the order they are in."""

    def __init__(self, old: Graph):
        self.old, self.new = old, Graph(old.name, notes=list(old.notes))
        self.made: dict[Node, dict[Order | None, Value]] = {node: {} for node in old.nodes}
        self.age = {node: position for position, node in enumerate(old.nodes)}

    def run(self) -> Graph:
        for node in self.old.live():
            if node.op.joins:
                self._make(node, self._best_order(node))
            elif not _follows(node) and not isinstance(node.op, Reorder):
                self._make(node, node.type.order)
        for name, node in self.old.outputs.items():
            self.new.output(name, self._get(node, node.type.order), training=name in self.old.training_outputs)
        return self.new.without_dead_nodes()

    def _get(self, node: Node, order: Order | None) -> Value:
        """`node`'s value in `order`: as it was made, or made now, or reordered.

        A padded order is only asked of a node that has it as its own, or of a reorder, which fills it with zeros.
        """
        made = self.made[node]
        if not made and not isinstance(node.op, Reorder):
            self._make(node, order)
        if order not in made:
            absorbed = isinstance(node.op, Reorder) and order is not None and not order.padded
            made[order] = self._get(node.inputs[0], order) if absorbed else self._reordered(node, order)
        return made[order]

    def _make(self, node: Node, order: Order | None) -> None:
        """Make `node` in `order`, or, where its op cannot, in the order that comes cheapest."""
        if node.op.joins:
            inputs = [self._get(x, order if _movable(node) else x.type.order) for x in node.inputs]
        elif _follows(node):
            order_in = _order_in(node, order)
            if order_in is None:
                order = next((o for o in self._natural(node.inputs[0]) if _order_in(node, o)), node.type.order)
                order_in = _order_in(node, order) or node.inputs[0].type.order
            inputs = [self._get(node.inputs[0], order_in)]
        elif node.op.order_rule == "any":
            inputs = [self._get(x, self._natural(x)[0]) for x in node.inputs]
        else:
            inputs = [self._get(x, x.type.order) for x in node.inputs]
        self.made[node][order] = self.new.add(node.op, *inputs, path=node.path)

    def _reordered(self, node: Node, order: Order | None) -> Value:
        """A new reorder of `node`'s value, from wherever it is already."""
        assert order is not None
        source = node
        while isinstance(source.op, Reorder):
            source = source.inputs[0]
        if not self.made[source]:
            self._make(source, source.type.order)
        value = next(iter(self.made[source].values()))
        return self.new.add(Reorder(order), value, path=f"{value.path}.reorder")

    def _best_order(self, node: Node) -> Order | None:
        """The order of a sum in which the fewest operands have to move; of two such, the newest operand's."""
        if not _movable(node):
            return node.type.order
        newest_first = sorted(node.inputs, key=lambda x: -self.age[x])
        natural = [self._natural(x) for x in newest_first]
        candidates = [order for orders in natural for order in orders] or [node.type.order]
        return min(candidates, key=lambda order: sum(order not in orders for orders in natural))

    def _natural(self, node: Node) -> list[Order | None]:
        """The orders without padding in which `node` can be had without moving anything; never empty."""
        orders = [order for order in self.made[node] if order is None or not order.padded]
        if isinstance(node.op, Reorder):
            before = [order for order in self._natural(node.inputs[0]) if order is None or not order.padded]
            orders += [order for order in before if order not in orders]
        elif not self.made[node] and _follows(node):
            orders += [order for order in self._natural(node.inputs[0]) if _order_in(node, order) == order]
        return orders or [node.type.order]


def _movable(node: Node) -> bool:
    """Whether the value is a map in an order that others may replace."""
    return node.type.order is not None and not node.type.order.padded


def _follows(node: Node) -> bool:
    """Whether the op does the same in any order, so that it can be made on demand."""
    return (
        node.op.order_rule in ("elementwise", "tokenwise", "channelwise") and len(node.inputs) == 1 and _movable(node)
    )


def _order_in(node: Node, order: Order | None) -> Order | None:
    """The order that `node`'s input must have for a result in `order`; None where that cannot be."""
    (x,) = node.inputs
    order_in = node.op.order_in(order, x.type) if order is not None else None
    if order_in is not None and order_in.padded and order_in != x.type.order and not isinstance(x.op, Reorder):
        return None
    return order_in


propagate = Pass.of_graph("propagate_layouts", propagate_layouts)
