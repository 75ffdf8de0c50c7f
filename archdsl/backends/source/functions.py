"""The functions and small modules that a file may hold, in the simplest form that the layouts of its network allow."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.backends.source.layouts import Layouts
from archdsl.ops.attention import MASKED


def functions(needed: Iterable[str], layouts: Layouts) -> list[str]:
    """The text of the functions called `needed`, and of those they call, in a fixed order.

    A name may carry forms after colons, e.g. `to_tokens:either`.
    """
    forms: dict[str, set[str]] = {}
    for name in needed:
        first, *more = name.split(":")
        forms.setdefault(first, set()).update(more)
    return [make(layouts, forms[name]) for name, make in FUNCTIONS.items() if name in forms]


def _sides(layouts: Layouts, name: str) -> tuple[str, str]:
    return (name, name) if layouts.square else (f"{name}[0]", f"{name}[1]")


def _both(layouts: Layouts, name: str) -> str:
    return f"({name}, {name})" if layouts.square else name


def _kind(layouts: Layouts) -> str:
    return "int" if layouts.square else "tuple[int, int]"


def _lines(*lines: str | None) -> str:
    return "\n".join(line for line in lines if line is not None)


def _to_tokens(layouts: Layouts, forms: set[str]) -> str:
    if "either" in forms:
        return _lines(
            "def to_tokens(x: Tensor) -> Tensor:",
            '    """Planes [B, C, H, W] -> tokens [B, N, C], row by row; tokens stay as they are."""',
            "    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x",
        )
    return _lines(
        "def to_tokens(x: Tensor) -> Tensor:",
        '    """Planes [B, C, H, W] -> tokens [B, N, C], row by row."""',
        "    return x.flatten(2).transpose(1, 2)",
    )


def _to_planes(layouts: Layouts, forms: set[str]) -> str:
    change = f"x.transpose(1, 2).unflatten(2, {_both(layouts, 'size')})"
    either = "either" in forms
    return _lines(
        f"def to_planes(x: Tensor, size: {_kind(layouts)}) -> Tensor:",
        f'    """Tokens [B, N, C] -> planes [B, C, H, W]{"; planes stay as they are" if either else ""}."""',
        f"    return {change} if x.ndim == 3 else x" if either else f"    return {change}",
    )


def _window_arguments(layouts: Layouts) -> str:
    shift = f", shift: {_kind(layouts)}" if layouts.shifted else ""
    return f"x: Tensor, size: {_kind(layouts)}, window: {_kind(layouts)}{shift}"


def _window_partition(layouts: Layouts, forms: set[str]) -> str:
    h, w = _sides(layouts, "window")
    rows, columns = _sides(layouts, "size")
    dy, dx = _sides(layouts, "shift")
    result = "[B * windows, places, C]" if layouts.folded else "window by window, [B, N, C]"
    first = [word for word, yes in (("rolled", layouts.shifted), ("padded", layouts.padded)) if yes]
    how = f", the map first {' and '.join(first)}" if first else ""
    flat = ".flatten(0, 2)" if layouts.folded else ".flatten(1, 3)"
    pad = f"F.pad(x, (0, 0, 0, -{columns} % {w}, 0, -{rows} % {h}))"
    return _lines(
        f"def window_partition({_window_arguments(layouts)}) -> Tensor:",
        f'    """Tokens row by row, [B, N, C] -> {result}{how}."""',
        f"    x = x.unflatten(1, {_both(layouts, 'size')})",
        f"    x = x.roll((-{dy}, -{dx}), dims=(1, 2))" if layouts.shifted else None,
        f"    x = {pad}" if layouts.padded else None,
        f"    x = x.unflatten(2, (-1, {w})).unflatten(1, (-1, {h}))  # [B, rows, {h}, columns, {w}, C]"
        if layouts.square
        else f"    x = x.unflatten(2, (-1, {w})).unflatten(1, (-1, {h}))  # [B, rows, height, columns, width, C]",
        f"    return x.transpose(2, 3).flatten(3, 4){flat}",
    )


def _window_reverse(layouts: Layouts, forms: set[str]) -> str:
    h, w = _sides(layouts, "window")
    rows, columns = _sides(layouts, "size")
    dy, dx = _sides(layouts, "shift")
    source = "[B * windows, places, C]" if layouts.folded else "Window by window, [B, N, C]"
    grid = (
        (f"-(-{rows} // {h})", f"-(-{columns} // {w})") if layouts.padded else (f"{rows} // {h}", f"{columns} // {w}")
    )
    split = (
        f"    x = x.unflatten(0, (-1, {grid[0]}, {grid[1]})).unflatten(3, {_both(layouts, 'window')})"
        if layouts.folded
        else f"    x = x.unflatten(1, ({grid[0]}, {grid[1]}, {h}, {w}))"
    )
    plain = not layouts.shifted and not layouts.padded
    return _lines(
        f"def window_reverse({_window_arguments(layouts)}) -> Tensor:",
        f'    """{source} -> tokens row by row, [B, N, C]: undo `window_partition`."""',
        split,
        "    return x.transpose(2, 3).flatten(1, 4)"
        if plain
        else "    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)",
        f"    x = x[:, :{rows}, :{columns}]" if layouts.padded else None,
        f"    return x.roll(({dy}, {dx}), dims=(1, 2)).flatten(1, 2)" if layouts.shifted else None,
        "    return x.flatten(1, 2)" if layouts.padded and not layouts.shifted else None,
    )


def _shift_mask(layouts: Layouts, forms: set[str]) -> str:
    h, w = _sides(layouts, "window")
    rows, columns = _sides(layouts, "size")
    dy, dx = _sides(layouts, "shift")

    def axis(side: str, window: str, shift: str) -> str:
        if layouts.padded:
            return f"region(-(-{side} // {window}) * {window}, {window}, {shift})"
        return f"region({side}, {window}, {shift})"

    kind = _kind(layouts)
    return _lines(
        f"def shift_mask(size: {kind}, window: {kind}, shift: {kind}) -> Tensor:",
        f'    """{MASKED:g} where two places of a window show different sides of the image, else 0:',
        "    [windows, 1, places, places].",
        '    """',
        "",
        "    def region(side: int, window: int, shift: int) -> Tensor:",
        "        place = torch.arange(side)",
        "        return (place >= side - window).int() + (place >= side - shift).int()",
        "",
        f"    y, x = {axis(rows, h, dy)}, {axis(columns, w, dx)}",
        f"    part = (3 * y[:, None] + x).unflatten(1, (-1, {w})).unflatten(0, (-1, {h}))",
        "    part = part.transpose(1, 2).flatten(2).flatten(0, 1)[:, None]  # [windows, 1, places]",
        f"    return torch.where(part[..., None] == part[..., None, :], 0.0, {MASKED})",
    )


def _relative_position_index(layouts: Layouts, forms: set[str]) -> str:
    h, w = _sides(layouts, "window")
    return _lines(
        f"def relative_position_index(window: {_kind(layouts)}) -> Tensor:",
        '    """The row of the bias table for each pair of places of a window: [places, places]."""',
        f'    y, x = torch.meshgrid(torch.arange({h}), torch.arange({w}), indexing="ij")',
        "    y, x = y.flatten(), x.flatten()",
        f"    return (y[:, None] - y + {h} - 1) * (2 * {w} - 1) + (x[:, None] - x + {w} - 1)",
    )


def _merge_2x2(layouts: Layouts, forms: set[str]) -> str:
    rows, columns = _sides(layouts, "size")
    return _lines(
        f"def merge_2x2(x: Tensor, size: {_kind(layouts)}) -> Tensor:",
        '    """Each 2x2 patch becomes one token, four times as wide: [B, N, C] -> [B, N / 4, 4 C]."""',
        f"    x = x.unflatten(1, {_both(layouts, 'size')})",
        f"    x = F.pad(x, (0, 0, 0, {columns} % 2, 0, {rows} % 2))" if layouts.odd else None,
        "    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, H / 2, y, W / 2, x, C]",
        "    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)",
    )


def _split_2x2(layouts: Layouts, forms: set[str]) -> str:
    rows, columns = _sides(layouts, "size")
    half = f"-(-{rows} // 2), -(-{columns} // 2)" if layouts.odd else f"{rows} // 2, {columns} // 2"
    return _lines(
        f"def split_2x2(x: Tensor, size: {_kind(layouts)}) -> Tensor:",
        '    """Each token becomes a 2x2 patch: [B, N / 4, 4 C] -> [B, N, C]; undoes `merge_2x2`."""',
        f"    x = x.unflatten(2, (2, 2, -1)).unflatten(1, ({half}))  # [B, H / 2, W / 2, x, y, C]",
        "    x = x.permute(0, 1, 4, 2, 3, 5).flatten(3, 4).flatten(1, 2)",
        f"    return x[:, :{rows}, :{columns}].flatten(1, 2)" if layouts.odd else "    return x.flatten(1, 2)",
    )


def _attend(layouts: Layouts, forms: set[str]) -> str:
    bias = ", bias: Tensor | None = None" if "bias" in forms else ""
    windows = ", windows: int = 1" if "windows" in forms else ""
    scale = ", scale: float | None = None" if "scale" in forms else ""
    heads = "x.unflatten(2, (heads, -1)).transpose(1, 2)"
    if windows:
        heads = f"x.unflatten(1, (windows, -1)).flatten(0, 1).{heads[2:]}"
    plus = " + bias" if bias else ""
    what = f"softmax(q k^T {'* scale' if scale else '/ sqrt(d)'}{plus}) v for each head"
    options = (", attn_mask=bias" if bias else "") + (", scale=scale" if scale else "")
    end = ".unflatten(0, (-1, windows)).flatten(1, 2)" if windows else ""
    return _lines(
        f"def attend(q: Tensor, k: Tensor, v: Tensor, heads: int{bias}{windows}{scale}) -> Tensor:",
        f'    """{what}{" within each window" if windows else ""}: [B, N, C] -> [B, N, C]."""',
        f"    q, k, v = ({heads} for x in (q, k, v))  # [B, heads, N, d]",
        "    if bias is not None and bias.shape[0] > 1:  # one for each window: the same for every image"
        if "many" in forms
        else None,
        "        bias = bias.repeat(len(q) // len(bias), 1, 1, 1)" if "many" in forms else None,
        f"    x = F.scaled_dot_product_attention(q, k, v{options})",
        f"    return x.transpose(1, 2).flatten(2){end}",
    )


def _prepend(layouts: Layouts, forms: set[str]) -> str:
    return _lines(
        "def prepend(token: Tensor, x: Tensor) -> Tensor:",
        '    """One token [1, 1, C] before the tokens [B, N, C] of each image."""',
        "    return torch.cat([token.expand(len(x), -1, -1), x], dim=1)",
    )


def _drop_path(layouts: Layouts, forms: set[str]) -> str:
    return _lines(
        "class DropPath(nn.Module):",
        '    """In training, zero whole images of a branch with probability `rate` and scale up the others."""',
        "",
        "    def __init__(self, rate: float) -> None:",
        "        super().__init__()",
        "        self.rate = rate",
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        "        if not self.training or self.rate == 0:",
        "            return x",
        "        keep = 1 - self.rate",
        "        mask = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)",
        "        return x * mask.div_(keep)",
    )


def _channel_batch_norm(layouts: Layouts, forms: set[str]) -> str:
    return _lines(
        "class ChannelBatchNorm(nn.BatchNorm1d):",
        '    """Batch norm over the last axis of [..., C]."""',
        "",
        "    def forward(self, input: Tensor) -> Tensor:",
        "        return super().forward(input.flatten(0, -2)).view_as(input)",
    )


def _affine(layouts: Layouts, forms: set[str]) -> str:
    return _scaling("Affine", "channel", "dim", "x * self.weight + self.bias")


def _token_affine(layouts: Layouts, forms: set[str]) -> str:
    return _scaling("TokenAffine", "token", "num_tokens", "x * self.weight[:, None] + self.bias[:, None]")


def _scaling(name: str, each: str, size: str, code: str) -> str:
    return _lines(
        f"class {name}(nn.Module):",
        f'    """x * weight + bias, a weight and a bias for each {each} of [B, N, C]."""',
        "",
        f"    def __init__(self, {size}: int) -> None:",
        "        super().__init__()",
        f"        self.weight = nn.Parameter(torch.ones({size}))",
        f"        self.bias = nn.Parameter(torch.zeros({size}))",
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        f"        return {code}",
    )


FUNCTIONS = {
    "to_tokens": _to_tokens,
    "to_planes": _to_planes,
    "window_partition": _window_partition,
    "window_reverse": _window_reverse,
    "shift_mask": _shift_mask,
    "relative_position_index": _relative_position_index,
    "merge_2x2": _merge_2x2,
    "split_2x2": _split_2x2,
    "prepend": _prepend,
    "attend": _attend,
    "DropPath": _drop_path,
    "ChannelBatchNorm": _channel_batch_norm,
    "Affine": _affine,
    "TokenAffine": _token_affine,
}
