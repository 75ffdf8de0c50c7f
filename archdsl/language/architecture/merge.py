"""`extends`: one spec on top of another, every value remembering the file it came from.

Mappings merge key by key. Lists of mappings merge entry by entry (`{}` leaves one as it is; there may be more entries
than in the base, not fewer). Everything else replaces. A mapping that names another `block` or `type` than its base, or
turns `block` + `depth` into `blocks`, is a different thing and replaces it whole; a spec that names `heads` has no
`head` of its base, and the reverse. `name`, `expect` and `trained_on` describe one file and are not inherited.
"""

from __future__ import annotations

from archdsl.language.architecture.model import spelt_out
from archdsl.language.architecture.override import ARGUMENT, COMMAND_LINE
from archdsl.language.text import limits
from archdsl.language.text.files import Budget, Folder, Home, is_name, open_below, open_given, open_named
from archdsl.language.text.node import YamlNode, check_size, fail
from archdsl.language.text.render import shown
from archdsl.language.text.yaml_text import parse

_NOT_INHERITED = ("name", "expect", "trained_on", "extends")
_KINDS = ("block", "type")


def compose(node: YamlNode, home: Home, budget: Budget, chain: tuple[Home, ...] = ()) -> YamlNode:
    """A spec with everything it extends merged in; `extends` itself is gone."""
    reference = node.get("extends")
    if reference is None:
        return node
    chain = (*chain, home)
    base_home, base = _open_base(reference, chain, budget)
    inherited = compose(base, base_home, budget, chain).without(*_NOT_INHERITED)
    return check_size(merge(inherited, node)).without("extends")


def _open_base(reference: YamlNode, chain: tuple[Home, ...], budget: Budget) -> tuple[Home, YamlNode]:
    data, home = open_reference(reference, "extends", "specs", chain[-1], budget)
    steps = [step for step in chain if step.identity is not None and step.identity == home.identity]
    if steps:
        names = " -> ".join(step.shown for step in (*chain[chain.index(steps[0]) :], home))
        raise fail(reference.mark, "extends", f"the spec extends itself: {names}", path="extends")
    if len(chain) > limits.MAX_EXTENDS:
        message = f"at most {limits.MAX_EXTENDS} specs may extend one another"
        raise fail(reference.mark, "limit", message, path="extends")
    return home, parse_mapping(data, home.shown, "a spec")


def parse_mapping(data: bytes | str, file: str, what: str) -> YamlNode:
    """The tree of a text that must be a mapping; what: how an error calls it."""
    return as_mapping(parse(data, file), what)


def as_mapping(tree: YamlNode, what: str) -> YamlNode:
    """The tree of a text, which must be a mapping; what: how an error calls it."""
    if not tree.is_map:
        raise fail(tree.mark, "wrong-type", f"{what} is a mapping, but got {shown(tree.plain())}")
    return tree


def open_reference(reference: YamlNode, key: str, folder: Folder, home: Home, budget: Budget) -> tuple[bytes, Home]:
    """The file that a text names: a shipped name, or a path relative to the text; of `--set`, to the working folder."""
    text = reference.value
    if not isinstance(text, str) or not text:
        message = f"`{key}` must be the name of a shipped spec or a relative path, but got {shown(reference.plain())}"
        raise fail(reference.mark, "wrong-type", message, path=key)
    if is_name(text):
        return open_named(text, folder, reference.mark, budget)
    if reference.mark.source.file in (COMMAND_LINE, ARGUMENT):
        return open_given(text, folder, budget, reference.mark)
    return open_below(text, home, reference.mark, budget)


def merge(base: YamlNode, over: YamlNode, key: str = "") -> YamlNode:
    """`over` on top of `base`. Marks stay: each value stands where it was written."""
    if over.is_map and over.value and over.get("type") is None:
        base = spelt_out(base, key)
    if base.is_map and over.is_map:
        return _merge_maps(base, over, key)
    if base.is_list and over.is_list and base.value and all(item.is_map for item in (*base.value, *over.value)):
        if len(over.value) < len(base.value):
            message = f"the list has {len(over.value)} entries, but the one it builds on has {len(base.value)}"
            raise fail(over.mark, "extends", message, "write {} for an entry that stays as it is", path=key or None)
        merged = [merge(below, item) for below, item in zip(base.value, over.value, strict=False)]
        return YamlNode.sequence(merged + over.value[len(base.value) :], over.mark)
    return over


def _merge_maps(base: YamlNode, over: YamlNode, key: str) -> YamlNode:
    if not over.value:
        return base
    if _is_another(base, over):
        return over
    items = dict(base.value)
    keys = dict(base.keys or {})
    for one, two in (("head", "heads"), ("heads", "head")):  # two ways to say what is behind the features
        if not key and over.get(one) is not None and over.get(two) is None and base.get("stem") is not None:
            items.pop(two, None)
            keys.pop(two, None)
    for name, node in over.value.items():
        items[name] = merge(items[name], node, name) if name in items else node
        keys[name] = over.key_mark(name)
    return YamlNode.mapping(items, keys, over.mark)


def _is_another(base: YamlNode, over: YamlNode) -> bool:
    """Whether `over` names another kind of thing than `base`, so that their fields have nothing in common."""
    for key in _KINDS:
        mine, other = base.get(key), over.get(key)
        if mine is not None and other is not None and mine.value != other.value:
            return True
    for one, two in (("block", "blocks"), ("blocks", "block")):
        if base.get(one) is not None and base.get(two) is None and over.get(two) is not None:
            return True
    return False
