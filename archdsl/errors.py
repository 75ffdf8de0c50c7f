"""What archdsl says when something is wrong: where, which rule, what came, and a way out.

Every error that archdsl raises is an `ArchError`. It carries one `Problem` for each thing that is wrong, so a file
with five mistakes is mended in one go. Its text starts `file:line:column:`, which editors and CI systems can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from archdsl.outside_text import printable

MAX_SHOWN = 20
"""How many problems the text of an error shows; `problems` always holds all of them."""


@dataclass(frozen=True)
class Place:
    """A position in something the user wrote. Lines and columns count from 1; `text` is the source line, if known."""

    file: str
    line: int = 1
    column: int = 1
    text: str | None = None
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    rule: the rule's short name (`unknown-key`, `out-of-range`, …), stable for scripts
    message: what must hold and what came instead
    hint: one way out
    path: the dotted path in the spec (`stages.2.window`), if it is about one

    Example:
        >>> print(Problem(Place("a.yaml", 2, 5), "unknown-key", "unknown key `widht`", "did you mean `width`?"))
        a.yaml:2:5: unknown key `widht` [unknown-key]
          hint: did you mean `width`?
    """

    place: Place
    rule: str
    message: str
    hint: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        lines = [printable(f"{self.place}: {self.message} [{self.rule}]")]
        if self.place.text is not None:
            number = str(self.place.line)
            shown, shift = _window_of(self.place.text, self.place.column)
            caret = "^" * max(1, min(self.place.width, len(shown) - shift + 1))
            lines.append(f"  {number} | {shown}")
            lines.append(f"  {' ' * len(number)} | {' ' * (shift - 1)}{caret}")
        if self.hint:
            lines.append(f"  hint: {printable(self.hint)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The problem as a plain mapping: file, line, column, rule, message, hint, path."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "rule": self.rule,
            "message": self.message,
            "hint": self.hint,
            "path": self.path,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Problem:
        """The problem that `as_json` described; the source line is not in it.

        Raises: KeyError, TypeError or ValueError for anything else
        """
        place = Place(str(data["file"]), int(data["line"]), int(data["column"]))
        return cls(place, str(data["rule"]), str(data["message"]), data.get("hint"), data.get("path"))


def _window_of(text: str, column: int, width: int = 110) -> tuple[str, int]:
    """The part of a long source line around `column`, and the column in that part. Control characters are blanked."""
    start = max(0, min(column - 1 - width // 2, len(text) - width))
    shown = text[start : start + width]
    return "".join(c if c.isprintable() else " " for c in shown), column - start


class ArchError(Exception):
    """The base of every error archdsl raises. `str(error)` starts `file:line:column:`.

    exit_code is what the command line returns: 1 when the user's input is wrong, 2 when archdsl or its tools failed.

    Example:
        >>> from archdsl.language import loads
        >>> try:
        ...     loads("{extends: swin_t, input: {size: 0}}", "mine.yaml")
        ... except ArchError as error:
        ...     [(str(problem.place), problem.rule, error.exit_code) for problem in error.problems]
        [('mine.yaml:1:33', 'out-of-range', 1)]
    """

    exit_code = 1

    def __init__(self, problems: Problem | Sequence[Problem]):
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.text())

    def __reduce__(self) -> tuple[Any, ...]:
        """From one process to another, an error takes its problems along."""
        return type(self), (self.problems,)

    @classmethod
    def at(cls, name: str, text: str, rule: str, message: str, hint: str | None = None) -> Self:
        """The error of one problem with something that came as an argument, not from a file.

        name: of the option or argument; text: what was given; rule, message, hint: as in `Problem`
        """
        return cls(Problem(at_argument(name, text), rule, message, hint))

    def text(self) -> str:
        """What is printed: the problems, each with its source line, cut after `MAX_SHOWN`."""
        shown = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            shown.append(f"… and {len(self.problems) - MAX_SHOWN} more problems")
        return "\n".join(shown)


class SpecError(ArchError):
    """A spec or a space breaks a rule of the language."""


class ShapeError(ArchError):
    """Two parts of a network do not fit together."""


class WeightsError(ArchError):
    """A weights file does not fit the network, or may not be read."""


class BackendError(ArchError):
    """A backend cannot make the artefact: a library is missing, a version is wrong, an op is not supported."""

    exit_code = 2


class MeasureError(ArchError):
    """A latency could not be measured: the runtime is missing, or the worker crashed, hung or ran out of memory."""

    exit_code = 2


class TrainingError(ArchError):
    """A network could not be trained: the data are missing or do not fit, or the loss is no longer a number."""


class StudyError(ArchError):
    """A study cannot be created or continued as asked."""


class RuleBroken(Exception):
    """Raised by an op or a block, which know the rule but not the place; the builder of the graph adds the place.

    message: what must hold and what came
    hint:    a way out
    field:   the spec field to point at, if there is one
    rule:    the rule's short name
    """

    def __init__(self, message: str, *, hint: str | None = None, field: str | None = None, rule: str = "shape"):
        super().__init__(message)
        self.message, self.hint, self.field, self.rule = message, hint, field, rule


def at_argument(name: str, text: str) -> Place:
    """The place of something that came on the command line or as an argument, not from a file."""
    return Place(file=name, line=1, column=1, text=text or None, width=max(1, len(text)))
