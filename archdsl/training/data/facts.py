"""What a spec takes from data, and what is kept of data beside a network that was trained on them."""

from __future__ import annotations

from typing import Any

from archdsl.language.architecture.from_data import wants_classes, with_classes
from archdsl.language.architecture.load import checked
from archdsl.language.architecture.model import Spec
from archdsl.outside_text import printable
from archdsl.training.data import Data, DataSource


def with_classes_of(spec: Spec, source: DataSource) -> Spec:
    """The spec with as many classes as the data have where it says `head.classes: data`; its graph was built.

    The data are opened (listed, not decoded) only where the spec asks for it.

    Args:   spec: as `load(…, check=False)` gives it: with `data` for its classes it has no graph yet
    Raises: ShapeError when the parts do not fit; TrainingError as `source.open`

    Example:
        >>> from archdsl.language import load
        >>> from archdsl.training import parse_source
        >>> spec = load("micro_swin", {"head.classes": "data"}, check=False)
        >>> with_classes_of(spec, parse_source({"type": "synthetic", "colours": 3})).head.classes
        6
    """
    if wants_classes(spec):
        spec = with_classes(spec, source.open(spec.input.size, spec.input.channels).num_classes)
    return checked(spec)


def data_facts(data: Data) -> dict[str, Any]:
    """What is stored of the data with a network that was trained on them: `classes` by name and `validation`, where
    there are some, and `preprocessing`, None for images that are not pixels.
    """
    classes = [printable(name) for name in getattr(data, "classes", ())] or None
    found = {"classes": classes, "validation": data.validation or None}
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "preprocessing": getattr(data, "preprocessing", None)}
