"""Graph -> one plain PyTorch file: a class for each kind of block, loops over the depth, torch the only import.

The file is text for people: it trains, and takes and gives the same state dicts as the module of the `torch` backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from archdsl.backends.source.alike import make_alike
from archdsl.backends.source.classes import Names
from archdsl.backends.source.functions import FUNCTIONS, functions
from archdsl.backends.source.layouts import layouts_of
from archdsl.backends.source.model import Model
from archdsl.backends.source.scopes import Kind, Reading, camel
from archdsl.ir.graph import Graph, Input
from archdsl.ir.types import TensorType
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec


def emit_spec(spec: Spec, *, version: str | None = None) -> str:
    """The file of a spec. version: archdsl's, to be named in it; by default the installed one."""
    version = _own_version() if version is None else version
    return emit(lower(spec), kinds=_kinds(spec), source=spec.source or "", version=version)


def _own_version() -> str:
    try:
        return installed("archdsl")
    except PackageNotFoundError:
        return ""


def emit(graph: Graph, *, kinds: Mapping[str, Kind] | None = None, source: str = "", version: str = "") -> str:
    """The text of a Python module whose last class is the network: images [B, C, H, W] -> its output.

    graph: as `lower` gives it, before any pass
    kinds: what each part (`stem`, `stages.0.blocks.1`, …) is to be called
    source, version: where the architecture and the file come from
    Errors: BackendError when an op has no emitter, or a name cannot be written in Python
    """
    kinds = kinds or {}
    alike = make_alike(graph, {part: kind.name for part, kind in kinds.items()})
    names = Names([*FUNCTIONS, "Tensor", "torch", "nn", "F", "Stage", "annotations", "None", "True", "False"])
    name = names.free(camel(graph.name))
    reading = Reading(alike, kinds, layouts_of(alike), names)
    root = reading.scopes()
    reading.form_all(root)
    model = Model(reading, root, name)
    body = model.lines(_class_doc(graph))
    made = functions(sorted(reading.functions), reading.layouts)
    classes = ["\n".join(cls.lines()) for cls in reading.classes] + model.stage() + ["\n".join(body)]
    head = _head(graph, name, source, version, uses_functional=any("F." in part for part in (*made, *classes)))
    return "\n\n\n".join([head, *made, *classes]) + "\n"


def _kinds(spec: Spec) -> dict[str, Kind]:
    """What the spec calls its parts."""
    parts = {"stem": spec.stem, "head": spec.head}
    for index, stage in enumerate(spec.stages):
        if stage.downsample is not None:
            parts[f"stages.{index}.downsample"] = stage.downsample
        parts |= {f"stages.{index}.blocks.{number}": block for number, block in enumerate(stage.blocks)}
    return {path: Kind(camel(type(part).__name__), _first_line(type(part).__doc__)) for path, part in parts.items()}


def _first_line(doc: str | None) -> str:
    return _safe((doc or "").strip().split("\n")[0])


def _safe(words: str) -> str:
    """Words that may stand in a docstring, whatever they are."""
    plain = "".join(sign if sign.isprintable() else " " for sign in words)
    return plain.replace("\\", "/").replace('"', "'").strip()


def _shape(type: TensorType) -> str:
    return f"[{', '.join(map(str, ('B', *type.shape)))}]"


def _class_doc(graph: Graph) -> list[str]:
    """What the network takes and gives."""
    takes = ", ".join(f"{node.path} {_shape(node.type)}" for node in graph.live() if isinstance(node.op, Input))
    gives = ", ".join(f"{name} {_shape(node.type)}" for name, node in graph.outputs.items())
    return [f'"""{_safe(graph.name)}: {takes} -> {gives}."""']


def _head(graph: Graph, name: str, source: str, version: str, *, uses_functional: bool) -> str:
    """The file's docstring, imports and the letters of its axes."""
    made = f"Made by archdsl{f' {_safe(version)}' if version else ''} from the spec `{_safe(graph.name)}`"
    lines = [f'"""{_safe(graph.name)} in plain PyTorch.', ""]
    lines += [f"Source: {_safe(source)}"] if source else []
    lines += [
        f"{made}, graph {graph.hash()}.",
        "",
        "A new network has torch's random weights. Trained ones are loaded by archdsl's names:",
        "",
        f"    model = {name}()",
        '    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))  # or torch.load("model.pt")',
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import torch",
        "from torch import Tensor, nn",
        *(["from torch.nn import functional as F"] if uses_functional else []),
        "",
        "# B = batch, N = tokens, C = channels, H x W = the map",
    ]
    return "\n".join(lines)
