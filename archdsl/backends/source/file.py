"""Graph -> one plain PyTorch file: a class for each kind of block, loops over the depth, torch the only import.

The file is text for people: it trains, and takes and gives the same state dicts as the module of the `torch` backend.
A part whose values go out of a submodule and back in is written flat; one whose code is like no other's has a class of
its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from archdsl.backends.source.library import SNIPPETS, copies
from archdsl.backends.source.model import NetworkClass
from archdsl.backends.source.regular import without_idle_steps
from archdsl.backends.source.tree import Kind, ModuleTree, Submodule, camel
from archdsl.backends.source.writer import free_name
from archdsl.ir.graph import Graph, Input, Node
from archdsl.ir.paths import part_of
from archdsl.ir.types import TensorType
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.parts.part import Part
from archdsl.versions import installed_version

LINE_LENGTH = 120

RUFF_S = 60.0
"""How long ruff may take to break the lines of a file, in seconds."""

HEAD = '''"""{title} in plain PyTorch.

{source}Made by archdsl{version} from the spec `{title}`, graph {identity}.

A new network has torch's random weights. Trained ones are loaded by archdsl's names:

    model = {name}()
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))  # or torch.load("model.pt")
"""

from __future__ import annotations

{torch}from torch import Tensor, nn
{functional}
# B = batch, N = tokens, C = channels, H x W = the map
'''


@dataclass(frozen=True)
class SourceFile:
    """The text of an emitted file. note: why its lines are not broken as `ruff format` breaks them, or None."""

    text: str
    note: str | None = None


def emit_spec(spec: Spec, *, version: str | None = None) -> str:
    """The text of a spec's file: see `source_file`."""
    return source_file(spec, version=version).text


def source_file(spec: Spec, *, version: str | None = None) -> SourceFile:
    """The file of a spec.

    Args:
        version: archdsl's, to be named in it; by default the installed one

    Raises: BackendError when an op has no emitter, or a name cannot be written in Python
    """
    version = (installed_version("archdsl") or "") if version is None else version
    text = _module(lower(spec, regular=True), kinds_of(spec), spec.source or "", version, lower(spec).hash())
    return _formatted(text)


def emit(graph: Graph, *, kinds: Mapping[str, Kind] | None = None, source: str = "", version: str = "") -> str:
    """The text of a Python module whose last class is the network: images [B, C, H, W] -> its output.

    Args:
        graph: as `lower` gives it, before any pass
        kinds: what each part (`stem`, `stages.0.blocks.1`, …) is called
        source, version: where the architecture and the file come from

    Raises: BackendError when an op has no emitter, or a name cannot be written in Python
    """
    return _formatted(_module(graph, kinds or {}, source, version, graph.hash())).text


FEATURE = Kind("Feature", "A feature map: as planes, behind a norm where it has one.")


def kinds_of(spec: Spec) -> dict[str, Kind]:
    """What the classes of a spec's parts are called and say, and which of their fields the spec sets."""
    parts: dict[str, Part] = {"stem": spec.stem, "head": spec.head}
    parts |= {f"neck.{index}": neck for index, neck in enumerate(spec.neck)}
    parts |= {f"heads.{named.name}": named.head for named in spec.heads}
    for index, stage in enumerate(spec.stages):
        if stage.downsample is not None:
            parts[f"stages.{index}.downsample"] = stage.downsample
        parts |= {f"stages.{index}.blocks.{number}": block for number, block in enumerate(stage.blocks)}
    named = {f"features.{index}": FEATURE for index in range(len(spec.features.taps or ()) if spec.features else 0)}
    named |= {f"features.{index}": FEATURE for index in range(len(spec.stages))}
    return named | {
        path: Kind(camel(type(part).__name__), _first_line(type(part).__doc__), frozenset(part.model_fields_set))
        for path, part in parts.items()
    }


def _module(graph: Graph, kinds: Mapping[str, Kind], source: str, version: str, identity: str) -> str:
    """The text of the module, its lines as long as they are."""
    graph = without_idle_steps(graph, lambda node: _role(node, kinds))
    parts: dict[str, list[Node]] = {}
    nodes = [node for node in graph.live() if not isinstance(node.op, Input)]
    for node in nodes:
        if (part := part_of(node.path)) != node.path:
            parts.setdefault(part, []).append(node)
    names = {*SNIPPETS, "Tensor", "torch", "nn", "F", "annotations", "None", "True", "False"}
    name = free_name(camel(graph.name), names)
    names.add(name)
    tree = ModuleTree(graph, kinds, names)
    root = Submodule("", nodes, [tree.grow(Submodule(path, members)) for path, members in parts.items()])
    tree.form_all(root.children)
    model = NetworkClass(tree, root, name)
    classes = ["\n".join(lines) for lines in (*(cls.lines() for cls in tree.classes), model.lines(_class_doc(graph)))]
    made = copies(classes, tree.layouts)
    stage = [made.pop("Stage")] if "Stage" in made else []
    body = "\n\n\n".join([*made.values(), *classes[:-1], *stage, classes[-1]])
    head = HEAD.format(
        title=_safe(graph.name),
        source=f"Source: {_safe(source)}\n" if source else "",
        version=f" {_safe(version)}" if version else "",
        identity=identity,
        name=name,
        torch="import torch\n" if re.search(r"\btorch\.", body) else "",
        functional="from torch.nn import functional as F\n" if re.search(r"\bF\.", body) else "",
    )
    return f"{head}\n\n{body}\n"


def _role(node: Node, kinds: Mapping[str, Kind]) -> str:
    part = part_of(node.path)
    kind = kinds.get(part)
    return f"{kind.name if kind else part}{node.path.removeprefix(part)}"


def _formatted(text: str) -> SourceFile:
    """The text as `ruff format` breaks its lines; as it is, with a note, where ruff cannot run."""
    try:
        from ruff import find_ruff_bin

        command = [find_ruff_bin(), "format", "--isolated", f"--line-length={LINE_LENGTH}", "-"]
        done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", timeout=RUFF_S, check=True)
        return SourceFile(done.stdout)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return SourceFile(text, f"the source file is not formatted, because ruff cannot run: {why}")


def _first_line(doc: str | None) -> str:
    return _safe((doc or "").strip().split("\n")[0])


def _safe(words: str) -> str:
    """Words that may stand in a docstring, whatever they are."""
    plain = "".join(sign if sign.isprintable() else " " for sign in words)
    return plain.replace("\\", "/").replace('"', "'").strip()


def _shape(type: TensorType) -> str:
    return f"[{', '.join(map(str, ('B', *type.shape)))}]"


def _class_doc(graph: Graph) -> str:
    """What the network takes and gives."""
    takes = ", ".join(f"{node.path} {_shape(node.type)}" for node in graph.inputs)
    gives = ", ".join(f"{name} {_shape(node.type)}" for name, node in graph.outputs.items())
    return f"{_safe(graph.name)}: {takes} -> {gives}."
