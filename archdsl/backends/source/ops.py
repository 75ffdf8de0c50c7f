"""How each op is written in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from archdsl.backends.errors import no_emitter
from archdsl.backends.source.alike import Layout, MaskIfShifted
from archdsl.backends.source.reorders import Args, layout, merge_groups, of_kind, reorder, windows_of
from archdsl.backends.source.text import Hole, Text, text
from archdsl.backends.source.writer import Expression, Writer, call
from archdsl.ir.graph import Node
from archdsl.ir.op import Init, Op
from archdsl.ir.order import Planes
from archdsl.ops import (
    Activation,
    Add,
    AddPosition,
    Affine,
    Attention,
    BatchNorm,
    Cast,
    Conv2d,
    Dropout,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    MeanPool,
    MergeGroups,
    PrependToken,
    RelativePositionBias,
    Reorder,
    ShiftMask,
    Slice,
    TakeToken,
    TokenAffine,
    TokenBatchNorm,
)
from archdsl.ops.attention import windows_in


def write(w: Writer, node: Node) -> Expression:
    """The code of one op. Errors: BackendError when it has no emitter."""
    emitter = EMITTERS.get(type(node.op))
    if emitter is None:
        raise no_emitter("source", node)
    infix = type(node.op) in INFIX
    return emitter(w, node, [w.read(x, nested=not infix, summed=infix) for x in node.inputs])


def channels(value: int, *, late: bool = False) -> Hole:
    return Hole("channels", "dim", value, late)


def _number(name: str, value: object, *, late: bool = False) -> Hole:
    return Hole(name, name, value, late)


def _linear(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, Linear)
    more = "" if op.bias else ", bias=False"
    return w.module(node, text("nn.Linear(", channels(op.d_in), ", ", channels(op.d_out), f"{more})"), *args)


def _conv(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, Conv2d)
    made = text(
        "nn.Conv2d(", channels(op.c_in), ", ", channels(op.c_out), ", kernel_size=", _number("kernel_size", op.kernel)
    )
    for name, default in (("stride", 1), ("padding", 0)):
        if getattr(op, name) != default:
            made = text(made, f", {name}=", _number(name, getattr(op, name)))
    if op.groups > 1:
        depthwise = op.groups in (op.c_in, op.c_out)
        made = text(made, ", groups=", channels(op.groups) if depthwise else _number("groups", op.groups))
    return w.module(node, text(made, ")" if op.bias else ", bias=False)"), *args)


def _layer_norm(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, LayerNorm)
    more = text(_unless("eps", op.eps, 1e-5), "" if op.affine else ", elementwise_affine=False")
    return w.module(node, text("nn.LayerNorm(", channels(op.dim), more, ")"), *args)


def _batch_norm(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, BatchNorm)
    w.function("ChannelBatchNorm")
    more = text(_unless("eps", op.eps, 1e-5), _unless("momentum", op.momentum, 0.1))
    return w.module(node, text("ChannelBatchNorm(", channels(op.dim), more, ")"), *args)


def _token_batch_norm(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, TokenBatchNorm)
    more = text(_unless("eps", op.eps, 1e-5), _unless("momentum", op.momentum, 0.1))
    return w.module(node, text("nn.BatchNorm1d(", _number("num_tokens", op.num_tokens), more, ")"), *args)


def _affine(w: Writer, node: Node, args: Args) -> Expression:
    w.function("Affine")
    return w.module(node, text("Affine(", channels(of_kind(node, Affine).dim), ")"), *args)


def _token_affine(w: Writer, node: Node, args: Args) -> Expression:
    w.function("TokenAffine")
    num_tokens = _number("num_tokens", of_kind(node, TokenAffine).num_tokens)
    return w.module(node, text("TokenAffine(", num_tokens, ")"), *args)


def _cast(w: Writer, node: Node, args: Args) -> Expression:
    formats = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64"}
    return Expression(text(args[0].atom, f".to(torch.{formats[of_kind(node, Cast).to]})"), args[0].depth)


def _unless(name: str, value: object, default: object) -> Text:
    return () if value == default else (f", {name}=", _number(name, value))


def _activation(w: Writer, node: Node, args: Args) -> Expression:
    match of_kind(node, Activation).name:
        case "gelu_tanh":
            return call("F.gelu(", args[0].text, ', approximate="tanh")', of=args)
        case name:
            return call(f"F.{name}(", args[0].text, ")", of=args)


def _add(w: Writer, node: Node, args: Args) -> Expression:
    x, y = args
    whole = Expression(text(x.text, " + ", y.text), max(x.depth, y.depth), infix=True)
    return whole if node.type.batched else Expression(whole.text, whole.depth, infix=True, name="bias", own_line=True)


def _start(init: Init, shape: Text) -> Text:
    match init.law:
        case "zeros" | "ones":
            return text(f"torch.{init.law}(", shape, ")")
        case "constant":
            return text("torch.full((", shape, "), ", Hole("start", "start", init.value), ")")
        case "normal":
            return text("torch.randn(", shape, ") * ", Hole("std", "std", init.value))
    return text("torch.rand(", shape, ") * ", Hole("std", "std", init.value))


def _layer_scale(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, LayerScale)
    start = op.tensors()[""].init
    shape = text(channels(op.dim), "," if start.law == "constant" else "")
    held = w.parameter(node, _start(start, shape))
    return Expression(text(args[0].atom, f" * {held}"), args[0].depth, infix=True)


def _add_position(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, AddPosition)
    held = w.parameter(node, _start(op.init, text("1, ", _number("num_tokens", op.num_tokens), ", ", channels(op.dim))))
    return Expression(text(args[0].text, f" + {held}"), args[0].depth, infix=True)


def _prepend(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, PrependToken)
    w.function("prepend")
    held = w.parameter(node, _start(op.init, text("1, 1, ", channels(op.dim))))
    return call(f"prepend({held}, ", args[0].text, ")", of=args)


def _drop_path(w: Writer, node: Node, args: Args) -> Expression:
    w.function("DropPath")
    held = w.helper("drop_path", text("DropPath(", _number("drop_path", of_kind(node, DropPath).rate), ")"))
    return call(f"{held}(", args[0].text, ")", of=args)


def _dropout(w: Writer, node: Node, args: Args) -> Expression:
    held = w.helper("dropout", text("nn.Dropout(", _number("dropout", of_kind(node, Dropout).rate), ")"))
    return call(f"{held}(", args[0].text, ")", of=args)


def _slice(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, Slice)
    start = channels(op.start, late=True) if op.start else ""
    stop = channels(op.stop, late=True) if op.stop < node.inputs[0].type.channels else ""
    cut = text(args[0].atom, "[..., ", start, ":", stop, "]")
    return Expression(cut, args[0].depth)


def split(w: Writer, source: Node, slices: Sequence[Node]) -> None:
    """Cut a value as a whole: one line makes all the slices."""
    x = w.read(source)
    sizes = [node.type.channels for node in slices]
    if len(set(sizes)) == 1:
        cut = text(x.atom, f".chunk({len(sizes)}, dim=-1)")
    else:
        numbers = [text(", " if index else "", channels(size, late=True)) for index, size in enumerate(sizes)]
        cut = text(x.atom, ".split((", *numbers, "), dim=-1)")
    w.several(tuple(slices), Expression(cut), tuple(node.path.rpartition(".")[2] for node in slices))


def _take_token(w: Writer, node: Node, args: Args) -> Expression:
    position = _number("position", of_kind(node, TakeToken).position, late=True)
    return Expression(text(args[0].atom, "[:, ", position, "]"), args[0].depth)


def _mean_pool(w: Writer, node: Node, args: Args) -> Expression:
    planes = isinstance(node.inputs[0].type.order, Planes)
    return Expression(text(args[0].atom, ".mean((2, 3))" if planes else ".mean(1)"), args[0].depth)


def _attention(w: Writer, node: Node, args: Args) -> Expression:
    op, q, bias = of_kind(node, Attention), node.inputs[0], node.inputs[3:]
    head, windows = q.type.channels // op.heads, windows_in(q.type)
    w.function("attend")
    code = text("attend(", *_commas(args[:3]), ", ", Hole("heads", "heads", op.heads, late=True))
    if bias:
        w.function("attend:bias" if bias[0].type.shape[0] == 1 else "attend:bias:many")
        code = text(code, ", ", args[3].text)
    if windows > 1 and not w.layouts.folded:
        w.function("attend:windows")
        code = text(code, ", windows=", _number("windows", windows, late=True))
    if abs(op.scale * head**0.5 - 1) > 1e-12:
        w.function("attend:scale")
        code = text(code, ", scale=", _number("scale", op.scale, late=True))
    return call(code, ")", of=args)


def _commas(args: Args) -> list[str | Text]:
    return [piece for index, x in enumerate(args) for piece in ((", ", x.text) if index else (x.text,))]


def _position_bias(w: Writer, node: Node, args: Args) -> Expression:
    op = of_kind(node, RelativePositionBias)
    w.function("relative_position_index")
    window, heads = w.layouts.side(op.window), Hole("heads", "heads", op.heads)

    def side(index: int) -> Text:
        hole = Hole("window", "window", window)
        return text("2 * ", hole, " - 1") if w.layouts.square else text("2 * ", hole, f"[{index}] - 1")

    rows = text("(", side(0), ") ** 2") if w.layouts.square else text("(", side(0), ") * (", side(1), ")")
    table = w.parameter(node, _start(op.init, text(rows, ", ", heads)))
    index = w.buffer("relative_position_index", text("relative_position_index(", Hole("window", "window", window), ")"))
    code = text(f"{table}[{index}].permute(2, 0, 1)[None]")
    return Expression(code, 1, name="bias", own_line=True)


def _shift_mask(w: Writer, node: Node, args: Args) -> Expression:
    w.function("shift_mask")
    made = text("shift_mask(", windows_of(w, of_kind(node, ShiftMask).order, late=False)[1:], ")")
    return Expression((w.buffer("mask", made),))


def _mask_if_shifted(w: Writer, node: Node, args: Args) -> Expression:
    order = of_kind(node, MaskIfShifted).order
    w.function("shift_mask")
    shift = Hole("shift", "shift", w.layouts.side(order.shift))
    condition = text(shift) if w.layouts.square else text("any(", shift, ")")
    made = text("shift_mask(", windows_of(w, order, late=False)[1:], ") if ", condition, " else None")
    held = w.buffer("mask", made, "Tensor | None")
    (bias,) = args
    code = text(bias.text, f" + {held}")
    return Expression(code, 1, name="bias", own_line=True, condition=f"{held} is not None", base=bias.text)


INFIX: tuple[type[Op], ...] = (Add, LayerScale, AddPosition)
"""Ops written with a sign between their operands."""

EMITTERS: dict[type[Op], Callable[[Writer, Node, Args], Expression]] = {
    Linear: _linear,
    Conv2d: _conv,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    TokenBatchNorm: _token_batch_norm,
    Affine: _affine,
    TokenAffine: _token_affine,
    Cast: _cast,
    Activation: _activation,
    Add: _add,
    LayerScale: _layer_scale,
    DropPath: _drop_path,
    Dropout: _dropout,
    Reorder: reorder,
    Layout: layout,
    MergeGroups: merge_groups,
    Slice: _slice,
    PrependToken: _prepend,
    AddPosition: _add_position,
    TakeToken: _take_token,
    MeanPool: _mean_pool,
    Attention: _attention,
    RelativePositionBias: _position_bias,
    ShiftMask: _shift_mask,
    MaskIfShifted: _mask_if_shifted,
}
