"""`extends`: one spec on top of another, every value remembering the file it came from.

Mappings merge key by key. Lists of mappings merge entry by entry (`{}` leaves one as it is; there may be more entries
than in the base, not fewer). Everything else replaces. A mapping that names another `block` or `type` than its base, or
turns `block` + `depth` into `blocks`, is a different thing and replaces it whole. `name` and `expect` describe one file
and are not inherited.
"""

from __future__ import annotations

from archdsl.spec import limits
from archdsl.spec.files import Budget, Folder, Home, is_name, open_below, open_named
from archdsl.spec.model import PART_SHORTHANDS
from archdsl.spec.node import Node, check_size, fail
from archdsl.spec.render import shown
from archdsl.spec.yaml_text import parse

_NOT_INHERITED = ("name", "expect", "extends")
_KINDS = ("block", "type")


def compose(node: Node, home: Home, budget: Budget, chain: tuple[Home, ...] = ()) -> Node:
    """A spec with everything it extends merged in; `extends` itself is gone."""
    reference = node.get("extends")
    if reference is None:
        return node
    chain = (*chain, home)
    base_home, base = _open_base(reference, chain, budget)
    merged = check_size(merge(_inherited(compose(base, base_home, budget, chain)), node))
    return _without(merged, ("extends",))


def _open_base(reference: Node, chain: tuple[Home, ...], budget: Budget) -> tuple[Home, Node]:
    data, home = open_reference(reference, "extends", "specs", chain[-1], budget)
    steps = [step for step in chain if step.identity is not None and step.identity == home.identity]
    if steps:
        names = " -> ".join(step.shown for step in (*chain[chain.index(steps[0]) :], home))
        raise fail(reference.mark, "extends", f"the spec extends itself: {names}", path="extends")
    if len(chain) > limits.MAX_EXTENDS:
        raise fail(
            reference.mark, "limit", f"at most {limits.MAX_EXTENDS} specs may extend one another", path="extends"
        )
    base = parse(data, home.shown)
    if not base.is_map:
        raise fail(base.mark, "wrong-type", f"a spec is a mapping, but got {shown(base.plain())}")
    return home, base


def open_reference(reference: Node, key: str, folder: Folder, home: Home, budget: Budget) -> tuple[bytes, Home]:
    """The file that a text names: a shipped name, or a path relative to the text."""
    text = reference.value
    if not isinstance(text, str) or not text:
        message = f"`{key}` must be the name of a shipped spec or a relative path, but got {shown(reference.plain())}"
        raise fail(reference.mark, "wrong-type", message, path=key)
    if is_name(text):
        return open_named(text, folder, reference.mark, budget)
    return open_below(text, home, reference.mark, budget)


def merge(base: Node, over: Node, key: str = "") -> Node:
    """`over` on top of `base`. Marks stay: each value stands where it was written."""
    if (
        key in PART_SHORTHANDS
        and isinstance(base.value, str)
        and over.is_map
        and over.get("type") is None
        and over.value
    ):
        base = Node.mapping({"type": base}, {"type": base.mark}, base.mark)
    if base.is_map and over.is_map:
        return _merge_maps(base, over)
    if base.is_list and over.is_list and base.value and all(item.is_map for item in (*base.value, *over.value)):
        if len(over.value) < len(base.value):
            message = f"the list has {len(over.value)} entries, but the one it builds on has {len(base.value)}"
            raise fail(over.mark, "extends", message, "write {} for an entry that stays as it is", path=key or None)
        merged = [merge(below, item) for below, item in zip(base.value, over.value, strict=False)]
        return Node.sequence(merged + over.value[len(base.value) :], over.mark)
    return over


def _merge_maps(base: Node, over: Node) -> Node:
    if not over.value:
        return base
    if _is_another(base, over):
        return over
    items = dict(base.value)
    keys = dict(base.keys or {})
    for name, node in over.value.items():
        items[name] = merge(items[name], node, name) if name in items else node
        keys[name] = over.key_mark(name)
    return Node.mapping(items, keys, over.mark)


def _is_another(base: Node, over: Node) -> bool:
    """Whether `over` names another kind of thing than `base`, so that their fields have nothing in common."""
    for key in _KINDS:
        mine, other = base.get(key), over.get(key)
        if mine is not None and other is not None and mine.value != other.value:
            return True
    for one, two in (("block", "blocks"), ("blocks", "block")):
        if base.get(one) is not None and base.get(two) is None and over.get(two) is not None:
            return True
    return False


def _inherited(node: Node) -> Node:
    return _without(node, _NOT_INHERITED)


def _without(node: Node, names: tuple[str, ...]) -> Node:
    return Node.mapping(
        {key: value for key, value in node.value.items() if key not in names}, node.keys or {}, node.mark
    )
