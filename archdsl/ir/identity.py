"""The text by which an op enters the identity of a network (`Graph.hash`).

Identities are the keys of timing caches, studies and build folders, so the text must outlive changes of the code. A
class declares it in `identity`, as a signature:

    identity = "Conv2d(c_in, c_out, kernel=size, padding=old_padding, *, dilation)"

- The name and the field names in it stay what they are when the class, its module or a field is renamed:
  `kernel=size` prints the field `size` as `kernel`.
- Fields before `*` are always printed. Fields after it, and fields that the signature does not name, were added later:
  they are printed where they differ from their default, so that networks known before keep their identity.
- A field whose form has widened prints its old form where that can say it: the property `old_padding`, which stands for
  the field `padding`, gives 3 for (3, 3, 3, 3), and the value itself where the old form cannot say it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple


class Identified:
    """Base of the frozen dataclasses whose values enter identities: ops, orders, types and initialisers.

    identity: the signature of the class. It is not inherited: a class without one is printed as dataclasses print
              themselves, by its qualified name and all its fields.
    """

    identity: ClassVar[str] = ""

    def identity_text(self) -> str:
        """`Linear(d_in=96, d_out=288, bias=True, init=Init(law='normal', value=0.02))`

        Raises: TypeError when the signature names what is neither a field nor a property
        """
        text: str | None = getattr(self, "_identity_text", None)
        if text is None:
            form = _FORMS.get(type(self)) or _form_of(type(self))
            values = form.values(self)
            if not _PLAIN.issuperset(map(type, values)):
                values = tuple([value if type(value) in _PLAIN else _text(value) for value in values])
            text = form.always % values
            for name, attribute, default in form.added:
                if (value := getattr(self, attribute)) != default:
                    text += f"{', ' * (text[-1] != '(')}{name}={_text(value)}"
            text += ")"
            object.__setattr__(self, "_identity_text", text)  # many ops share an order or an initialiser
        return text


class _Form(NamedTuple):
    """A parsed signature.

    always: a template of the text up to the fields that were added later (`Linear(d_in=%s, d_out=%s`)
    values: takes from an instance what fills it
    added:  (printed name, attribute, default)
    """

    always: str
    values: Callable[[object], tuple[object, ...]]
    added: list[tuple[str, str, object]]


_FORMS: dict[type[Any], _Form] = {}
"""The signatures that were parsed so far."""

_PLAIN = frozenset({int, float, bool, type(None)})
"""Types that `%s` prints as `repr` does."""


def _form_of(kind: type[Any]) -> _Form:
    known = {field.name: field for field in fields(kind)}
    name, _, rest = vars(kind).get("identity", "").partition("(")
    first, _, later = rest.rstrip(")").partition("*")
    if not name:
        name, first = kind.__qualname__, ",".join(known)
    always, added = ([_entry(word) for word in words.split(",") if word.strip()] for words in (first, later))
    for _, attribute in (*always, *added):
        if attribute not in known and not isinstance(getattr(kind, attribute, None), property):
            raise TypeError(f"the identity of {kind.__qualname__} names {attribute!r}, which it does not have")
    named = {attribute.removeprefix("old_") for _, attribute in (*always, *added)}
    added += [(field, field) for field in known if field not in named]
    _FORMS[kind] = _Form(
        f"{name}({', '.join(f'{printed}=%s' for printed, _ in always)}",
        _getter([attribute for _, attribute in always]),
        [(printed, attribute, _default(known[attribute.removeprefix("old_")])) for printed, attribute in added],
    )
    return _FORMS[kind]


def _entry(word: str) -> tuple[str, str]:
    """`kernel=size` -> ("kernel", "size"), `kernel` -> ("kernel", "kernel")"""
    printed, _, attribute = word.strip().partition("=")
    return printed, attribute or printed


def _getter(names: list[str]) -> Callable[[object], tuple[object, ...]]:
    """Like `operator.attrgetter`, and a tuple for one name or none too."""
    return attrgetter(*names) if len(names) > 1 else lambda x: tuple([getattr(x, name) for name in names])


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _text(value: object) -> str:
    """The value as `repr` prints it, with the values inside it by their own signatures."""
    if isinstance(value, Identified):
        return value.identity_text()
    if type(value) is tuple:
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    return repr(value)
