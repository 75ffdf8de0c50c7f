"""What TensorRT made of a network: its layers, which attentions became one kernel, what only moves data.

Read from the engine inspector's JSON, whose details differ between versions and are documented only in part. So nothing
here is required but the layers' names: what cannot be read is left out, what is not known is counted as `other` and
named, and an attention that no layer tells of is `unknown`, not guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archdsl.json_fields import JsonFields

FUSED, APART, UNKNOWN = "fused", "apart", "unknown"

_PROFILE = re.compile(r"\s*\[profile (\d+)\]\s*$")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_ATTENTION_KERNEL = re.compile(r"(?:^|_)f?mha(?:_|$|v\d|\d)|flash_?attention", re.IGNORECASE)
_MYELIN = re.compile(r"^__myl_(?:bb\d+_\d+_)?([A-Z][A-Za-z]*)")
_WORD = re.compile(r"[A-Z][a-z]*")

_MOVES = ("Tran", "Resh", "Move", "Copy", "Slic", "Conc", "Gath", "Sque", "Unsq", "Spli", "Perm", "Pad")
"""How TensorRT's code generator abbreviates ops that only move data; its kernels are named after their ops."""
_SHORT_MOVES = {word[:3] for word in _MOVES}

_KINDS: tuple[tuple[str, str], ...] = (
    ("attention", r"attention|^f?mha"),
    ("convolution", r"conv(?!ert)|^correlation$"),
    ("linear", r"gemm|matrix|matmul|fully"),
    ("reformat", r"reformat|noop|identity"),
    ("shuffle", r"shuffle|transpose|permute|slice|concat|gather|reshape|move|copy"),
    ("cast", r"^cast|convert"),
    ("softmax", r"softmax"),
    ("normalization", r"norm"),
    ("pointwise", r"pointwise|elementwise|kgen|activation|unary|scale|fusion"),
    ("reduce", r"reduce|pool"),
    ("constant", r"constant"),
    ("wait", r"^wait$|^signal$|trainstation"),
)
"""A layer's kind by its type, the first that fits."""

KINDS: tuple[str, ...] = (*(kind for kind, _ in _KINDS), "region", "other")
"""`region`: a part of the network that TensorRT shows as one layer, without saying what is in it."""


@dataclass(frozen=True)
class Layer:
    """One layer of the engine. `origins` are the ONNX nodes it computes, as far as TensorRT tells."""

    name: str
    type: str
    kind: str
    origins: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    profile: int = 0


@dataclass(frozen=True)
class AttentionCore:
    """The ONNX nodes of one attention that a fused kernel computes all at once. `path`: ours, where it stands."""

    path: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Report(JsonFields):
    """The layers of an engine, and for each attention by path whether it is `fused`, `apart` or `unknown`."""

    layers: tuple[Layer, ...]
    attentions: Mapping[str, str]

    def counts(self, profile: int = 0) -> dict[str, int]:
        """How many layers there are of each kind."""
        found = Counter(layer.kind for layer in self.layers if layer.profile == profile)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @property
    def moves(self) -> int:
        """How many layers only move or convert data: reformats, shuffles, casts."""
        counts = self.counts()
        return sum(counts.get(kind, 0) for kind in ("reformat", "shuffle", "cast"))

    @property
    def others(self) -> tuple[str, ...]:
        """The layers of no known kind, as `type: name`."""
        return tuple(f"{layer.type}: {layer.name}" for layer in self.layers if layer.kind == "other")

    @property
    def num_fused(self) -> int:
        """How many attentions are one kernel."""
        return sum(verdict == FUSED for verdict in self.attentions.values())

    def text(self) -> str:
        """The report in a few lines."""
        counts = ", ".join(f"{number} {kind}" for kind, number in self.counts().items())
        lines = [
            f"layers: {counts or 'none known'}",
            f"attentions: {self.num_fused} of {len(self.attentions)} are one kernel",
        ]
        lines += [f"  {verdict}: {path}" for path, verdict in self.attentions.items() if verdict != FUSED]
        lines += [f"  other: {name}" for name in self.others]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {"counts": self.counts(), "moves": self.moves, **super().as_json()}


def named(layers: Sequence[Layer], name: str) -> Layer | None:
    """The layer that a profiler calls `name`."""
    plain = _PROFILE.sub("", name)
    return next((layer for layer in layers if layer.name == plain), None)


def report_of(inspected: str, cores: Sequence[AttentionCore] = ()) -> Report:
    """The report of what the inspector said. Text that is not what it used to say gives a report without layers."""
    return report_of_layers(tuple(_layers(inspected)), cores)


def report_of_layers(layers: Sequence[Layer], cores: Sequence[AttentionCore] = ()) -> Report:
    """The report on layers, each attention judged by those that name its nodes."""
    return Report(tuple(layers), {core.path: _verdict(core, layers) for core in cores})


def _layers(inspected: str) -> Iterable[Layer]:
    try:
        data = json.loads(inspected, strict=False)
    except ValueError:
        return
    entries = data.get("Layers") if isinstance(data, dict) else data
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, str):  # the engine was built without details
            entry = {"Name": entry}
        if isinstance(entry, dict):
            yield _layer(entry)


def _layer(entry: Mapping[str, Any]) -> Layer:
    full, type_ = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    profile = _PROFILE.search(full)
    name = _PROFILE.sub("", full)
    origins = tuple(dict.fromkeys(_ORIGIN.findall(str(entry.get("Metadata", ""))))) or _origins_in(name)
    tactic = str(entry.get("TacticName", ""))
    return Layer(name, type_, kind_of(name, type_, tactic), origins, _formats(entry), int(profile[1]) if profile else 0)


def _origins_in(name: str) -> tuple[str, ...]:
    """The ONNX nodes in a name such as `a/MatMul + a/Add`, as layers had them before there was metadata."""
    return tuple(dict.fromkeys(part.strip() for part in re.split(r" \+ |\|\||, ", name) if part.strip()))


def _formats(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The formats of a layer's outputs, such as `Half` or `Row major linear FP16 format`."""
    outputs = entry.get("Outputs")
    tensors = [tensor for tensor in outputs if isinstance(tensor, dict)] if isinstance(outputs, list) else []
    found = (tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("Format") for tensor in tensors)
    return tuple(dict.fromkeys(str(text) for text in found if text))


def kind_of(name: str, type_: str, tactic: str = "") -> str:
    """What a layer does, by its kernel's name where that says more than its type. One of KINDS."""
    if _ATTENTION_KERNEL.search(name) or _ATTENTION_KERNEL.search(tactic):
        return "attention"
    if "ForeignNode[" in name:
        return "region"
    if words := generated_from(name):
        if all(word.startswith("Cas") for word in words):
            return "cast"
        if all(word in _MOVES or word in _SHORT_MOVES for word in words):
            return "shuffle"
    if name.startswith("Reformatting CopyNode"):
        return "reformat"
    return next((kind for kind, pattern in _KINDS if re.search(pattern, type_, re.IGNORECASE)), "other")


def generated_from(name: str) -> list[str]:
    """`__myl_TranReshMove_myl3_4` -> Tran, Resh, Move: the ops in a kernel that TensorRT generated."""
    match = _MYELIN.match(name)
    return _WORD.findall(match[1]) if match else []


def only_moves(words: Sequence[str]) -> bool:
    """Whether ops, as `generated_from` abbreviates them, move, copy or convert numbers and compute none."""
    return bool(words) and all(word in (*_MOVES, "Cast", "Repl") or word in _SHORT_MOVES for word in words)


def _verdict(core: AttentionCore, layers: Sequence[Layer]) -> str:
    """Whether one kernel computes the whole core; with several profiles, whether it does so in each of them."""
    found = {_verdict_in([layer for layer in layers if layer.profile == i], core) for i in {x.profile for x in layers}}
    return next((verdict for verdict in (APART, FUSED) if verdict in found), UNKNOWN)


def _verdict_in(layers: Sequence[Layer], core: AttentionCore) -> str:
    wanted = set(core.nodes)
    idle = ("region", "reformat", "shuffle", "cast", "constant", "wait")
    telling = [layer for layer in layers if layer.kind not in idle and wanted.intersection(layer.origins)]
    if any(layer.kind == "attention" for layer in telling):
        return FUSED
    whole = [layer for layer in telling if wanted.issubset(layer.origins)]
    if len(whole) == 1 or (len(wanted) > 1 and whole):  # an `Attention` op in several layers was taken apart
        return FUSED
    return APART if telling else UNKNOWN
