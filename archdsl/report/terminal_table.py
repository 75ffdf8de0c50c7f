"""A table that fits its terminal: no number is folded and no name is cut, however narrow it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from archdsl.outside_text import printable

_LEAST_PROSE = 20
"""Columns below which sentences are not squeezed."""
_LONGEST_WORD = 28
"""Longer words of a sentence, such as paths, may be folded."""

Cell = str | Text


@dataclass(frozen=True)
class TerminalTable:
    """Rows as a table where there is room. Where there is not, in this order: heads and prose are wrapped at spaces,
    common values are said once below the table, optional columns are left out, rows are stacked.

    heads: names of the columns, the first of which identifies a row; rows: a cell for each, plain text or styled
    right: columns aligned to the right, as numbers are
    prose: columns that may be wrapped at spaces; common: columns that may be said once where all rows agree
    optional: columns that may be left out, the first to go first
    title, caption: lines above and below; num_last: so many of the last rows have a rule above them
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Collection[str] = ()
    prose: Collection[str] = ()
    common: Collection[str] = ()
    optional: Sequence[str] = ()
    title: str | None = None
    caption: str | None = None
    num_last: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from next(layout for layout in self._layouts(options.max_width) if layout is not None)

    def _layouts(self, width: int) -> Iterator[list[RenderableType] | None]:
        """From the widest to one that fits everywhere: what to print, or None where it would not fit."""
        columns = list(range(len(self.heads)))
        caption = [_text(self.caption)] if self.caption else []
        yield self._table(columns, width, caption, wrapped=False)
        yield self._table(columns, width, caption, wrapped=True)
        common = {i: self.rows[0][i] for i in columns[1:] if self.heads[i] in self.common and self._agree(i)}
        columns = [i for i in columns if i not in common]
        said = ", ".join(f"{self.heads[i]} {cell}" for i, cell in common.items() if str(cell))
        below = [_text(f"all with {said}"), *caption] if said else caption
        yield self._table(columns, width, below, wrapped=True)
        left_out: list[str] = []
        for name in (name for name in self.optional if name in {self.heads[i] for i in columns}):
            columns = [i for i in columns if self.heads[i] != name]
            left_out.append(name)
            words = f"no room for {', '.join(left_out)}; a wider terminal and --json show it"
            yield self._table(columns, width, [*below, _text(words)], wrapped=True)
        yield [*self._stacked(width), *caption]

    def _agree(self, column: int) -> bool:
        return bool(self.rows) and len({str(row[column]) for row in self.rows}) == 1

    def _table(
        self, columns: Sequence[int], width: int, below: Sequence[RenderableType], *, wrapped: bool
    ) -> list[RenderableType] | None:
        """The table of some columns with what is said below it; None where it is wider than `width`."""
        cells = {i: [_text(row[i]) for row in self.rows] for i in columns}
        heads = {i: self.heads[i] for i in columns}
        widest = {i: max([1, *(cell.cell_len for cell in cells[i])]) for i in columns}
        least = dict(widest)
        if wrapped:
            for i in columns:
                if heads[i] in self.prose:
                    words = [min(_LONGEST_WORD, cell_len(word)) for cell in cells[i] for word in cell.plain.split()]
                    least[i] = min(widest[i], max([_LEAST_PROSE, *words]))
                lines = heads[i].split("\n")
                heads[i] = "\n".join(fill(line, max([least[i], *map(cell_len, line.split())])) for line in lines)
        for i in columns:
            least[i] = max([least[i], *map(cell_len, heads[i].split("\n"))])
        spare = width - sum(least.values()) - (2 * (len(columns) - 1) if wrapped else 3 * len(columns) + 1)
        if spare < 0:
            return None
        title = printable(self.title) if self.title else None
        table = Table(title=title, box=box.SIMPLE, title_justify="left", show_edge=not wrapped, pad_edge=not wrapped)
        table.collapse_padding = wrapped
        for i in columns:
            more = min(spare, max(0, widest[i] - least[i]))
            spare -= more
            justify: Literal["left", "right"] = "right" if self.heads[i] in self.right else "left"
            table.add_column(Text(heads[i]), justify=justify, width=least[i] + more, overflow="fold")
        for number in range(len(self.rows)):
            if self.num_last and number == len(self.rows) - self.num_last:
                table.add_section()
            table.add_row(*(cells[i][number] for i in columns))
        return [table, *below]

    def _stacked(self, width: int) -> Iterator[RenderableType]:
        """Each row as a block of `name  value`, on two lines where one is too short; empty cells are left out."""
        if self.title:
            yield Text(printable(self.title), "italic")
        names = [" ".join(head.split()) for head in self.heads]
        for row in self.rows:
            pairs = [(name, _text(cell)) for name, cell in zip(names, row, strict=True)]
            yield Text("")
            for number, (name, cell) in enumerate(pairs):
                if cell.plain and number == 0:
                    yield cell
                elif cell.plain and cell_len(name) + 4 + cell.cell_len <= width:
                    yield Text.assemble((f"  {name}  ", "dim"), cell)
                elif cell.plain:
                    yield Text(f"  {name}", "dim")
                    yield Padding(cell, (0, 0, 0, 4))


def _text(cell: Cell) -> Text:
    """A cell whose text a terminal shows as it is, and does not obey."""
    if isinstance(cell, Text):
        return Text(printable(cell.plain), cell.style)
    return Text(printable(cell))
