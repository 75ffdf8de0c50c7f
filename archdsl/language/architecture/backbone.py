"""The backbone of a spec as a spec of its own: its feature maps are what it gives."""

from __future__ import annotations

from collections.abc import Sequence

from archdsl.language.architecture.load import checked
from archdsl.language.architecture.model import Spec
from archdsl.language.architecture.override import DESCRIBING_THE_NETWORK, override
from archdsl.language.architecture.read import read_spec

HEAD = "features"
"""The name of the head that gives the feature maps."""
_BEHIND = ("neck", "head", "heads")


def backbone_of(spec: Spec, taps: Sequence[str] | None = None) -> Spec:
    """The spec without neck and heads, whose outputs are its feature maps.

    A spec that gives feature maps already keeps its neck.

    Args: taps: the parts that make the maps (`stages.2`); by default those of the spec, or every stage
    Raises: SpecError for a tap that is no part of the spec, ShapeError where a tap has no map

    Example:
        >>> from archdsl.language import load
        >>> backbone_of(load("micro_swin"), ["stages.1"]).features.taps
        ('stages.1',)
    """
    if taps is None and spec.head.type_name == HEAD:
        return spec
    assert spec._tree is not None, "it was read from a text"
    tree = spec._tree.without(*_BEHIND, *DESCRIBING_THE_NETWORK)
    tapped = {} if taps is None else {"features.taps": list(taps)}
    return checked(read_spec(override(tree, {"head": HEAD, **tapped})))
