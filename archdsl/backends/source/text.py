"""Text with holes: code whose numbers are still open, the names it reads, and how long lines are broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

LINE_LENGTH = 120


@dataclass(frozen=True)
class Hole:
    """A number in the code of one instance. Instances that differ in such numbers alone share a class.

    kind: numbers of one kind may stand for each other when they are equal (`channels`, `heads`, `size`, …)
    name: what the number is called if it becomes an argument
    late: read in `forward`, not in `__init__`
    passed: handed to a part of this one, so that it stays an argument even where it is the same for all
    """

    kind: str
    name: str
    value: object
    late: bool = False
    passed: bool = False


@dataclass(frozen=True)
class Var:
    """A local variable of `forward`: the value of the node or part called `key`."""

    key: str


@dataclass(frozen=True)
class Arguments:
    """What a part's class is called with: names and numbers."""

    items: tuple[tuple[str, Hole], ...]


Piece = str | Hole | Var | Arguments
Text = tuple[Piece, ...]


def text(*pieces: Piece | Text) -> Text:
    """Pieces and texts as one text."""
    return tuple(part for piece in pieces for part in (piece if isinstance(piece, tuple) else (piece,)))


def holes(code: Text) -> Iterator[Hole]:
    """The holes of a text in reading order."""
    for piece in code:
        if isinstance(piece, Hole):
            yield piece
        elif isinstance(piece, Arguments):
            yield from (hole for _, hole in piece.items)


def pattern(code: Text) -> tuple[object, ...]:
    """The text without its numbers: equal for codes that may share a class."""
    return tuple(_pattern(piece) for piece in code)


def _pattern(piece: Piece) -> object:
    match piece:
        case Hole():
            return (piece.kind, piece.name, piece.late)
        case Arguments():
            return tuple((name, _pattern(hole)) for name, hole in piece.items)
    return piece


def fill(code: Text, number: Callable[[Hole], str], variable: Callable[[Var], str]) -> str:
    """The text with its holes and variables filled."""
    parts = []
    for piece in code:
        match piece:
            case Hole():
                parts.append(number(piece))
            case Var():
                parts.append(variable(piece))
            case Arguments():
                parts.append(arguments([(name, number(hole)) for name, hole in piece.items]))
            case _:
                parts.append(piece)
    return "".join(parts)


def arguments(items: list[tuple[str, str]]) -> str:
    """`dim, heads, window=7`: by position as long as the value is called like the argument, then by name."""
    parts: list[str] = []
    for name, value in items:
        bare = name == value and all("=" not in part for part in parts)
        parts.append(value if bare else f"{name}={value}")
    return ", ".join(parts)


def literal(value: object) -> str:
    """A number or a tuple of numbers as Python writes it."""
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-")
    return repr(value)


OPENING, CLOSING = "([{", ")]}"


def wrapped(line: str, indent: int = 0) -> list[str]:
    """One logical line at `indent`, broken at its brackets as ruff and black break it when it is too long."""
    space = " " * indent
    if indent + len(line) <= LINE_LENGTH or '"""' in line or line.startswith("#"):
        return [space + line]
    found = _last_brackets(line)
    if found is None:
        return [space + line]
    start, stop = found
    head, body, tail = line[: start + 1], line[start + 1 : stop], line[stop:]
    return [space + head, *_broken(body, indent + 4, literal_list=_is_literal(head)), space + tail]


def _broken(body: str, indent: int, *, literal_list: bool) -> list[str]:
    """The inside of brackets on lines of its own."""
    items = _split(body, ",")
    if len(items) == 1:
        element, *clauses = _split(body, " for ")
        if not clauses or indent + len(body) <= LINE_LENGTH:
            return wrapped(body, indent)
        return [*wrapped(element, indent), *(line for c in clauses for line in wrapped(f"for {c}", indent))]
    if indent + len(body) <= LINE_LENGTH and not literal_list:
        return [" " * indent + body]
    return [line for item in items for line in wrapped(f"{item},", indent)]


def _is_literal(head: str) -> bool:
    """Whether the bracket at the end of `head` opens a list or tuple rather than a call."""
    return head[-1] in "[{" or head[-2:-1] in ("", " ", "=", "(")


def _last_brackets(line: str) -> tuple[int, int] | None:
    """Where the last outermost brackets open and close, when nothing but a few signs follows them."""
    depth, start, found = 0, 0, None
    for position, sign in enumerate(line):
        if sign in OPENING:
            start = position if depth == 0 else start
            depth += 1
        elif sign in CLOSING:
            depth -= 1
            if depth == 0 and position > start + 1:
                found = (start, position)
    return found


def _split(body: str, by: str) -> list[str]:
    """`body` cut at `by` where it stands outside brackets."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(body):
        sign = body[position]
        depth += (sign in OPENING) - (sign in CLOSING)
        if depth == 0 and body.startswith(by, position):
            parts.append(body[start:position].strip())
            position += len(by)
            start = position
        else:
            position += 1
    return [*parts, body[start:].strip()]
