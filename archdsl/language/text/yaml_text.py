"""YAML text -> a tree of nodes with marks.

Only PyYAML's *events* are used: its C composer crashes on deep nesting, and both composers take duplicate keys. Scalars
follow YAML 1.2 core (`no` is a word, `1e-4` a number, `0o17` octal, `012` is twelve); whole numbers may also be written
`28_288_354`. Tags, merge keys (`<<`), duplicate keys and second documents are errors. The limits are in `limits`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import yaml

from archdsl.errors import Problem, SpecError
from archdsl.language.text import limits
from archdsl.language.text.file_kinds import kind_of_file
from archdsl.language.text.node import Mark, Scalar, SourceText, YamlNode, check_int, check_text, fail

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*\Z")
_HEX_OR_OCTAL = re.compile(r"(0x[0-9a-fA-F]+|0o[0-7]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_LONGEST_INT = 40
"""Digits after which a number is too long to be worth converting."""

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow in a text."""


_USES = {"an ONNX model": "`archdsl bench` takes it"}


def parse(data: bytes | str, file: str, *, source: SourceText | None = None) -> YamlNode:
    """Read one YAML document.

    file: the name in errors; source: given instead when the text shown in errors is another one
    Raises: SpecError (rules `syntax`, `duplicate-key`, `tag`, `limit`, …), always with a position
    """
    text = _decode(data, file)
    source = source or SourceText(file, tuple(_LINE_BREAK.split(text)))
    _check_characters(text, source)
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except (yaml.YAMLError, ValueError, OverflowError, IndexError, RecursionError) as error:
        raise fail(source.mark(), "syntax", f"this is not YAML: {str(error).splitlines()[0][:200]}") from None
    if builder.root is None:
        raise fail(source.mark(), "syntax", "there is nothing in it")
    if builder.empty:
        message = "this entry of the list is empty"
        hint = "remove the dash, or write `{}` for an entry as in the base and `null` for no value"
        dashes = [mark._replace(column=mark.column - 1).place() for mark in builder.empty[: limits.MAX_PROBLEMS]]
        raise SpecError([Problem(place, "syntax", message, hint) for place in dashes])
    return builder.root


def scalar_of(text: str) -> Scalar:
    """What a plain (unquoted) scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        digits = text.replace("_", "")
        return int(digits) if len(digits) <= _LONGEST_INT else limits.MAX_INT + 1
    if _HEX_OR_OCTAL.match(text):
        return int(text, 0) if len(text) <= _LONGEST_INT else limits.MAX_INT + 1
    if _FLOAT.match(text):
        return float(text)
    return text


def _decode(data: bytes | str, file: str) -> str:
    size = len(data.encode("utf-8", "surrogatepass")) if isinstance(data, str) else len(data)
    if size > limits.MAX_FILE_BYTES:
        message = f"a file may have at most {limits.MAX_FILE_BYTES:_} bytes, this has {size:_}"
        raise fail(SourceText(file).mark(), "limit", message)
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    if kind := kind_of_file(data):
        raise fail(SourceText(file).mark(), "syntax", f"this is {kind}, not YAML", _USES.get(kind))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = _LINE_BREAK.split(data[: error.start].decode("utf-8-sig", "replace"))
        shown = _LINE_BREAK.split(data[error.start :].decode("utf-8", "replace"))[0]
        source = SourceText(file, (*lines[:-1], lines[-1] + shown))
        mark = source.mark(len(lines) - 1, len(lines[-1]))
        raise fail(mark, "syntax", "this is not UTF-8 text", hint="save the file as UTF-8") from None


def _check_characters(text: str, source: SourceText) -> None:
    bad = _FORBIDDEN.search(text)
    if bad:
        lines = _LINE_BREAK.split(text[: bad.start()])
        mark = source.mark(len(lines) - 1, len(lines[-1]))
        raise fail(mark, "syntax", f"the character U+{ord(bad.group()):04X} is not allowed in YAML")


def _syntax_error(error: yaml.MarkedYAMLError, source: SourceText) -> SpecError:
    where = error.problem_mark or error.context_mark
    mark = source.mark(where.line, where.column) if where else source.mark()
    message = str(error.problem or error.context or "this is not YAML")
    began = error.context_mark
    lines = source.lines
    if mark.line >= len(lines) - 1 and not "".join(lines[mark.line :])[mark.column :].strip():
        what = _UNCLOSED.get(error.context or "")
        if what is not None and began is not None:
            return fail(source.mark(began.line, began.column), "syntax", f"this {what} is never closed")
        last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
        return fail(source.mark(last, len(lines[last])), "syntax", f"{message} (the text ends here)")
    if error.context and error.problem:
        message += f" {error.context}"
        if began is not None and began.line != mark.line:
            message += f" that starts at line {began.line + source.first_line}"
    return fail(mark, "syntax", message, hint=_syntax_hint(message, mark))


_UNCLOSED = {
    "while scanning a quoted scalar": "quote",
    "while parsing a flow sequence": "bracket",
    "while parsing a flow mapping": "brace",
}


def _syntax_hint(message: str, mark: Mark) -> str | None:
    line = mark.source.lines[mark.line] if mark.line < len(mark.source.lines) else ""
    if "\t" in line[: mark.column + 1]:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in message:
        return "quote a text that holds `: `, and check the indentation of the line before"
    if "',' or '}'" in message or "',' or ']'" in message:
        return "a comma or a closing bracket is missing, or a `:` has no space after it"
    if "expected ':'" in message:
        return "a key is written `key: value`"
    return None


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    mark: Mark
    anchor: str | None
    is_map: bool
    items: list[YamlNode] = field(default_factory=list)
    entries: dict[str, YamlNode] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)
    waiting: str | None = None  # the key whose value comes next


class _Builder:
    """Turns events into nodes, without recursion, counting what the limits limit."""

    def __init__(self, source: SourceText):
        self.source = source
        self.root: YamlNode | None = None
        self.open: list[_Open] = []
        self.anchors: dict[str, YamlNode | None] = {}  # None while the anchored value is still open
        self.documents = 0
        self.nodes = 0
        self.empty: list[Mark] = []  # right behind the dashes of entries that say nothing

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise fail(self._mark(event), "syntax", "a file holds one document, but a second one starts here")

    def _mark(self, event: yaml.Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        assert start is not None and end is not None  # every event of a parser has its marks
        width = end.column - start.column if end.line == start.line else 1
        return self.source.mark(start.line, start.column, max(1, width))

    def _key_comes_next(self) -> bool:
        return bool(self.open) and self.open[-1].is_map and self.open[-1].waiting is None

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        mark = self._mark(event)
        text = event.value
        self._refuse_tag(event.tag, mark)
        check_text(text, mark)
        value: Scalar = text
        if self._is_empty_dash(event, mark):
            self.empty.append(mark)
        if self._key_comes_next():
            if text == "<<" and event.implicit[0]:
                message = "merge keys (`<<`) are not part of YAML 1.2"
                raise fail(mark, "syntax", message, "use `extends` to build on another spec")
        elif event.implicit[0]:
            value = scalar_of(text)
            if isinstance(value, int):
                check_int(value, mark)
        node = YamlNode(value, mark)
        if event.anchor:
            self.anchors[event.anchor] = node
        self._add(node)

    def _is_empty_dash(self, event: yaml.ScalarEvent, mark: Mark) -> bool:
        """Whether nothing stands behind the dash of a list's entry; YAML puts the value right behind it."""
        if event.value or event.style or event.anchor or not self.open or self.open[-1].is_map:
            return False
        line = self.source.lines[mark.line] if mark.line < len(self.source.lines) else ""
        return line[mark.column - 1 : mark.column] == "-"

    def _alias(self, event: yaml.AliasEvent) -> None:
        mark = self._mark(event)
        if event.anchor not in self.anchors:
            raise fail(mark, "syntax", f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        node = self.anchors[event.anchor]
        if node is None:
            raise fail(mark, "syntax", f"the alias *{event.anchor} stands inside its own anchor")
        if len(self.open) + node.height > limits.MAX_NESTING:
            raise fail(mark, "limit", f"nested deeper than {limits.MAX_NESTING} levels once aliases are expanded")
        if self._key_comes_next() and not isinstance(node.value, str):
            raise fail(mark, "syntax", "a key must be a plain word")
        self._add(node.moved(mark))

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        mark = self._mark(event)
        self._refuse_tag(event.tag, mark)
        if len(self.open) >= limits.MAX_NESTING:
            raise fail(mark, "limit", f"nested deeper than {limits.MAX_NESTING} levels")
        if self._key_comes_next():
            raise fail(mark, "syntax", "a key must be a plain word, not a list or a mapping")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(mark, event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _end(self, event: yaml.CollectionEndEvent) -> None:
        closed = self.open.pop()
        mark, end = closed.mark, event.end_mark
        if end is not None and end.line == mark.line and end.column > mark.column:
            mark = mark._replace(width=end.column - mark.column)
        if closed.is_map:
            node = YamlNode.mapping(closed.entries, closed.keys, mark)
        else:
            node = YamlNode.sequence(closed.items, mark)
        self.nodes -= node.size - 1  # its children were charged one by one; _add charges the whole
        if closed.anchor:
            self.anchors[closed.anchor] = node
        self._add(node)

    def _add(self, node: YamlNode) -> None:
        self.nodes += node.size
        if self.nodes > limits.MAX_NODES:
            raise fail(node.mark, "limit", f"more than {limits.MAX_NODES:_} values once aliases are expanded")
        if not self.open:
            self.root = node
            return
        top = self.open[-1]
        if not top.is_map:
            top.items.append(node)
        elif top.waiting is None:
            key = node.value
            if key in top.keys:
                first = top.keys[key].line + self.source.first_line
                message = f"the key `{key[:60]}` is set twice; first at line {first}"
                raise fail(node.mark, "duplicate-key", message, "keep one of the two")
            if len(top.keys) >= limits.MAX_KEYS:
                raise fail(node.mark, "limit", f"a mapping may have at most {limits.MAX_KEYS:_} keys")
            self.nodes -= node.size  # keys are free, their values are not
            top.keys[key] = node.mark
            top.waiting = key
        else:
            top.entries[top.waiting] = node
            top.waiting = None

    def _refuse_tag(self, tag: str | None, mark: Mark) -> None:
        if tag is not None:
            hint = "leave the tag out; a spec never makes objects"
            raise fail(mark, "tag", f"tags are not allowed, but got `{tag[:60]}`", hint)
