"""Text that came from outside (file names, names in a recipe, messages of a library), made fit for where it is shown.

`printable` is for a terminal, a log, a picture and a page (which also escapes markup), `spreadsheet_cell` for CSV.
"""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet computes. Source: https://owasp.org/www-community/attacks/CSV_Injection"""


def printable(text: str) -> str:
    """One line of text: control characters, line breaks and bytes that are not UTF-8 as `\\x1b`, `\\n`, `\\xff`."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def spreadsheet_cell(value: object) -> object:
    """A value as a cell of a CSV file: text on one line, and with `'` before what a spreadsheet would compute."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # a byte that `os.fsdecode` could not read
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "replace").decode()
