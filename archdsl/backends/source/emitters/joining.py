"""Products, differences and channels side by side in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from archdsl.backends.source.writer import Emitter, Expression, Writer
from archdsl.ir.graph import Node
from archdsl.ir.op import Op
from archdsl.ir.order import Planes
from archdsl.ops.joining import AddVector, Concat, Mul, MulVector, Sub


def _signed(sign: str, everywhere: str = "") -> Callable[..., Expression]:
    """everywhere: what makes a vector stand at every place of a map"""

    def emit(w: Writer, node: Node, op: Op, x: Expression, y: Expression) -> Expression:
        return Expression(f"{x.atom} {sign} {y.atom}{everywhere}", max(x.depth, y.depth), infix=True)

    return emit


def _concat(w: Writer, node: Node, op: Concat, *xs: Expression) -> Expression:
    axis = 1 if isinstance(node.type.order, Planes) else -1
    return Expression(f"torch.cat([{', '.join(x.text for x in xs)}], dim={axis})", 1 + max(x.depth for x in xs))


EMITTERS: dict[type[Op], Emitter] = {
    Mul: _signed("*"),
    Sub: _signed("-"),
    MulVector: _signed("*", "[:, :, None, None]"),
    AddVector: _signed("+", "[:, :, None, None]"),
    Concat: _concat,
}
