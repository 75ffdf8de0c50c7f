"""What a spec takes from data, and what it says of them.

`head.classes: data` is as many classes as the data have: put in where there are data, refused where there are none.
`trained_on` says which classes and which preprocessing a network was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.errors import RuleBroken
from archdsl.ir.graph import Scope
from archdsl.language.architecture.model import Spec
from archdsl.language.architecture.override import DESCRIBING_THE_NETWORK, PathStep, change
from archdsl.language.architecture.read import read_spec
from archdsl.language.text import limits
from archdsl.language.text.node import YamlNode, node_of
from archdsl.parts.fields import FROM_DATA
from archdsl.parts.flow import Flow


def wants_classes(spec: Spec) -> bool:
    """Whether the spec leaves the number of its classes to the data."""
    return FROM_DATA in [getattr(head, "classes", None) for head in (spec.head, *(each.head for each in spec.heads))]


def with_classes(spec: Spec, num_classes: int) -> Spec:
    """The spec with a number where it says `head.classes: data`; another spec as it is.

    Example:
        >>> from archdsl.language import loads
        >>> spec = loads("{name: pets, extends: micro_swin, head: {classes: data}}", check=False)
        >>> with_classes(spec, 37).head.classes
        37
    """
    if not wants_classes(spec):
        return spec
    assert spec._tree is not None, "it was read from a text"
    return read_spec(put_classes(spec._tree, num_classes))


def put_classes(tree: YamlNode, num_classes: int) -> YamlNode:
    """The tree of a spec with that number of classes, at the place of what stood there.

    What describes the network goes: it cannot have known the number.
    """
    heads = tree.get("heads")
    mark = tree.mark
    named = [f"heads.{name}" for name, head in heads.value.items() if _asks(head)] if heads is not None else []
    for path in named or ["head"]:
        steps = [PathStep(name, mark) for name in (*path.split("."), "classes")]
        tree = change(tree, steps, lambda old: YamlNode(num_classes, mark if old is None else old.mark))
    return tree.without(*DESCRIBING_THE_NETWORK)


def _asks(head: YamlNode) -> bool:
    classes = head.get("classes") if head.is_map else None
    return classes is not None and classes.value == FROM_DATA


def with_trained_on(spec: Spec, facts: Mapping[str, Any]) -> Spec:
    """The spec with `trained_on`, in place of what it said before.

    facts: `classes` by name, `preprocessing`; what is empty, or too much for a spec, is left out
    """
    assert spec._tree is not None, "it was read from a text"
    tree, said = spec._tree.without("trained_on"), trained_on_of(facts, spec)
    if said:
        items = {**tree.value, "trained_on": node_of(said, tree.mark)}
        tree = YamlNode.mapping(items, {**(tree.keys or {}), "trained_on": tree.mark}, tree.mark)
    return read_spec(tree)


def trained_on_of(facts: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """What a spec says of the data that a network like it was trained on, as it stands in YAML."""
    classes, preprocessing = facts.get("classes"), facts.get("preprocessing")
    found: dict[str, Any] = {}
    if classes and len(classes) <= limits.MAX_CLASS_NAMES and len(classes) == getattr(spec.head, "classes", None):
        found["classes"] = list(classes)
    if preprocessing and len(preprocessing["mean"]) == spec.input.channels:
        found["preprocessing"] = {**preprocessing, "size": list(spec.input.size)}
    return found


def no_classes(g: Scope, flow: Flow) -> Flow:
    """Lowers a head whose classes are not known, which cannot be.

    Raises: RuleBroken (`needs-data`)
    """
    del g, flow
    message = f"`classes: {FROM_DATA}` takes the number of classes from data, and there are none here"
    hint = "give a number: --set head.classes=N, or here; train, search and eval take it from their data"
    raise RuleBroken(message, field="classes", hint=hint, rule="needs-data")
