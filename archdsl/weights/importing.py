"""Another library's state dict -> ours, strictly: every tensor finds its place, or is named.

The libraries' names are tables beside the blocks of each family (`Part.weight_names`): to add a library is to add a
table there. No network is known here by name: what a spec needs comes from its graph.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archdsl.backends.initial import initial_tensor
from archdsl.errors import MAX_SHOWN, Problem, WeightsError, at_argument
from archdsl.ir.op import ParamSpec
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.parts.part import Part, parts
from archdsl.parts.weight_names import IGNORED, WeightNames, merged
from archdsl.suggestions import LONGEST_NAME, closest, did_you_mean
from archdsl.weights.adapting import MASK, adapt_positions
from archdsl.weights.prefixes import Naming, is_averaged, naming_of

HEAD = ("head.", "heads.", "neck.", "features.")
"""How the names of tensors behind the backbone begin, and of the classifiers there (`head.fc`, `head.fc_dist`)."""
CLASSIFIER = "head.fc"
HEADS = ("fc", "fc_norm", "logits", "pooler", "pre_logits", "projector", "decoder", "mask_token")
"""How names of what other libraries put upon a backbone begin, beside `head…`, `classifier…` and `norm…`."""
MOST_NAMED = 6
"""More new tensors of a head are counted."""
MOST_PROBLEMS = 20
"""More are one problem: the weights are of another network."""
ARCHDSL = WeightNames({word: word for word in ("stem.", "stages.", "features.", "neck.", "head.", "heads.")})


@dataclass(frozen=True)
class ImportedWeights:
    """Weights by our names, float32; in sentences what was done to make them fit; whether a prefix said `ema`."""

    weights: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    averaged: bool = False


def import_weights(
    spec: Spec | str | os.PathLike[str],
    state_dict: Mapping[str, Any],
    source: str = "timm",
    *,
    new_head: bool = False,
    ema: bool = False,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Tensor]:
    """The weights of `spec` by our names, float32, from a state dict of another library.

    A prefix before all names is recognised. Position tables for another window or image size are adapted.

    Args:
        spec: a spec, or the name or path of one
        state_dict: tensors (or NumPy arrays) by that library's names; float32 tensors are not copied
        source: `timm`, `microsoft` (Swin's own code), `facebook` (ConvNeXt's own code), `torchvision`, `huggingface`
            (transformers' …ForImageClassification) or `archdsl`
        new_head: start the classifier with initial weights, and the neck and other heads where there are any; the state
            dict may have other ones, or none
        ema: take moving averages, where they stand beside the plain weights under a prefix of their own
        seed: of a new head
        say: called with a sentence for each thing that was chosen or adapted
    Returns: tensors by the names that `build`, `deploy` and `export_onnx` take
    Raises: WeightsError naming every tensor that is missing, left over or of another shape; only what is in
        `weight_names.IGNORED` may be left over
    Example:
        >>> import archdsl
        >>> trained = archdsl.build("micro_swin").state_dict()
        >>> weights = archdsl.import_weights("micro_swin", trained, source="archdsl")
        >>> len(weights) == len(trained)
        True
    """
    found = import_with_notes(spec, state_dict, source, new_head=new_head, ema=ema, seed=seed)
    if say is not None:
        for note in found.notes:
            say(note)
    return found.weights


def import_with_notes(
    spec: Spec | str | os.PathLike[str],
    state_dict: Mapping[str, Any],
    source: str,
    *,
    new_head: bool = False,
    ema: bool = False,
    seed: int = 0,
    partly: bool = False,
) -> ImportedWeights:
    """`import_weights`, with its sentences. Arguments and errors as there.

    partly: take what fits; the rest of the network starts with initial weights of `seed`, the rest of the file is left
    """
    spec = spec if isinstance(spec, Spec) else load(spec)
    sources = names_of(spec)
    if source not in sources:
        hint = did_you_mean(source, sources) or f"Available: {', '.join(sources)}."
        raise WeightsError(_problem(source, "unknown-name", f"there is no source of weights called {source!r}", hint))
    graph = lower(spec)
    needed = graph.tensors()
    asked = [name for name in needed if not (new_head and name.startswith(HEAD))]
    naming = naming_of(state_dict, sources[source], asked, ema=ema)
    fitting = _Fitting(needed, naming)
    fitting.take(state_dict, ema)
    fitting.join()
    fitting.flatten()
    fitting.adapt(partial(adapt_positions, graph))
    if new_head:
        fitting.renew_head(seed)
    if partly:
        fitting.fill(seed)
    if problems := fitting.problems():
        raise WeightsError(_readable(problems, fitting, state_dict, source, sources, asked))
    return ImportedWeights({name: fitting.given[name][1] for name in needed}, tuple(fitting.notes), naming.averaged)


def names_of(spec: Spec) -> dict[str, WeightNames]:
    """The names of the spec's tensors by source of weights: those of its parts, or of all blocks if those have none."""
    blocks: dict[str, type[Part]] = {block.type_name: type(block) for stage in spec.stages for block in stage.blocks}
    families = [cls for cls in blocks.values() if cls.weight_names] or list(parts("block").values())
    families += [type(part) for part in (*spec.neck, spec.head) if part.weight_names]
    known = dict.fromkeys(source for cls in parts("block").values() for source in cls.weight_names)
    tables = {source: [cls.weight_names[source] for cls in families if source in cls.weight_names] for source in known}
    return {"archdsl": ARCHDSL, **{source: merged(names) for source, names in tables.items()}}


class _Fitting:
    """Tensors finding their places. `given`: our name -> (the file's name, the tensor)."""

    def __init__(self, needed: Mapping[str, ParamSpec], naming: Naming):
        self.needed, self.naming = needed, naming
        self.given: dict[str, tuple[str, Tensor]] = {}
        self.masks: dict[str, Tensor] = {}
        self.strange: list[str] = []
        self.wrong: list[Problem] = []
        self.notes = [note] if (note := naming.note()) else []

    def take(self, state_dict: Mapping[str, Any], ema: bool) -> None:
        """Give each tensor our name. Plain weights beside averages are left, or the other way round."""
        left = []
        for name, value in state_dict.items():
            last = name.rpartition(".")[2]
            if not name.startswith(self.naming.before) if self.naming.averaged else is_averaged(name):
                left.append(name)
                continue
            ours = self.naming.ours(name)
            if last == MASK and ours is not None and isinstance(value, Tensor):
                self.masks[ours.removesuffix(f".{MASK}")] = value
            if last in IGNORED:
                continue
            if ours is None:
                self.strange.append(name)
            elif ours in self.given:
                message = f"{self.given[ours][0]!r} and {name!r} are both {ours!r}"
                self.wrong.append(_problem(name, "duplicate-key", message))
            elif (tensor := _tensor(value)) is None:
                kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                message = f"{name!r} must be a tensor of real numbers, but got a {kind}"
                self.wrong.append(_problem(name, "wrong-type", message))
            else:
                self.given[ours] = (name, tensor)
        if self.naming.averaged:
            self.notes.append("these are averaged weights (EMA)")
        if left:
            kind = "plain" if self.naming.averaged else "averaged"
            how = "" if ema else "; --ema (ema=True) takes them" if kind == "averaged" else ""
            self.notes.append(f"{len(left)} {kind} weights, such as {left[0]!r}, were left{how}")

    def join(self) -> None:
        """Stack what the source holds in pieces. Pieces that do not fit together stay, and are named as left over."""
        for whole, pieces in self.naming.names.joined.items():
            for name in self.needed:
                before, found, after = name.rpartition(f"{whole}.")
                places = [f"{before}{piece}.{after}" for piece in pieces]
                if not found or name in self.given or any(place not in self.given for place in places):
                    continue
                tensors = [self.given[place][1] for place in places]
                if len({tensor.shape[1:] for tensor in tensors}) == 1 and tensors[0].ndim:
                    names = [self.given.pop(place)[0] for place in places]
                    self.given[name] = (" + ".join(names), torch.cat(tensors))

    def flatten(self) -> None:
        """Drop or add axes of length 1, as of a 1x1 convolution that is a linear layer here."""
        for name, (theirs, tensor) in self.given.items():
            want = self.needed[name].shape if name in self.needed else tuple(tensor.shape)
            if [side for side in tensor.shape if side != 1] == [side for side in want if side != 1]:
                self.given[name] = (theirs, tensor.reshape(want))

    def adapt(self, adapted: Callable[[dict[str, Tensor], Mapping[str, Tensor]], Sequence[str]]) -> None:
        """Let `adapted` replace tables of positions."""
        tensors = {name: tensor for name, (_, tensor) in self.given.items()}
        self.notes += adapted(tensors, self.masks)
        self.given = {name: (self.given[name][0], tensor) for name, tensor in tensors.items()}

    def renew_head(self, seed: int) -> None:
        """Start the classifier, and what the head lacks; drop what belonged to the head or stood beside a backbone."""
        theirs = self.given.get(f"{CLASSIFIER}.weight")
        new = [
            name
            for name in self.needed
            if name.startswith(CLASSIFIER)
            or (name.startswith(HEAD) and (name not in self.given or not self._fits(name)))
        ]
        extra = [ours for ours in self.given if ours not in self.needed and ours.startswith(HEAD)]
        dropped = [self.given.pop(ours)[0] for ours in extra]
        before = self.naming.before
        beside = [name for name in self.strange if not name.startswith(before) or _of_head(name.removeprefix(before))]
        self.strange = [name for name in self.strange if name not in set(beside)]
        for name in new:
            self.given[name] = (name, torch.from_numpy(initial_tensor(self.needed[name], name, seed)))
        had = "the file has none" if theirs is None else f"the file's has {theirs[1].shape[0]} outputs"
        if new:
            what = ", ".join(new) if len(new) <= MOST_NAMED else f"{len(new)} tensors, such as {new[0]!r},"
            self.notes.append(f"a new head: {what} start with initial weights, seed {seed}; {had}")
        if dropped := dropped + beside:
            self.notes.append(f"{len(dropped)} tensors of another head were left, such as {dropped[0]!r}")

    def fill(self, seed: int) -> None:
        """Start what is missing or of another shape with initial weights; leave what has no place."""
        new = [name for name in self.needed if name not in self.given or not self._fits(name)]
        left = [name for ours, (name, _) in self.given.items() if ours not in self.needed] + self.strange
        self.given = {ours: found for ours, found in self.given.items() if ours in self.needed}
        self.strange = []
        for name in new:
            self.given[name] = (name, torch.from_numpy(initial_tensor(self.needed[name], name, seed)))
        if new:
            whole = len(self.needed)
            self.notes.append(f"{len(new)} of {whole} tensors, such as {new[0]!r}, start with initial weights")
        if left:
            self.notes.append(f"{len(left)} tensors of the file, such as {left[0]!r}, have no place and were left")

    def problems(self) -> list[Problem]:
        """All that does not fit: shapes, then what is missing, then what is left over."""
        missing = [name for name in self.needed if name not in self.given]
        extra = {ours: name for ours, (name, _) in self.given.items() if ours not in self.needed}
        found = list(self.wrong)
        for name, want in self.needed.items():
            if name in self.given and not self._fits(name):
                theirs, tensor = self.given[name]
                other_size = name.startswith(CLASSIFIER) and tensor.shape[1:] == want.shape[1:]
                hint = "--new-head (new_head=True) starts a new head" if other_size else None
                message = f"{name!r} must be {list(want.shape)}, but {theirs!r} is {list(tensor.shape)}"
                found.append(_problem(theirs, "shape", message, hint))
        for name in missing:
            message = f"the network needs {name!r} {list(self.needed[name].shape)}, but it is not there"
            near = _near(name, extra, len(found))
            hint = f"{extra[near]!r} would be our {near!r}" if near else None
            found.append(_problem(name, "missing-key", message, hint))
        for ours, name in [*extra.items(), *(("", name) for name in self.strange)]:
            near = _near(ours or name, missing, len(found))
            hint = f"the network lacks {near!r}" if near else None
            meant = f" (our {ours!r})" if ours and ours != name else ""
            found.append(_problem(name, "unused", f"the network has no place for {name!r}{meant}", hint))
        return found

    def _fits(self, name: str) -> bool:
        return tuple(self.given[name][1].shape) == self.needed[name].shape


def _readable(
    problems: list[Problem],
    fitting: _Fitting,
    state_dict: Mapping[str, Any],
    source: str,
    sources: Mapping[str, WeightNames],
    asked: Sequence[str],
) -> list[Problem]:
    """The problems, few enough to read: one when another source fits better, or when the network is another."""
    covered = {name: naming_of(state_dict, table, asked).covers(state_dict, asked) for name, table in sources.items()}
    best = max(covered, key=lambda name: covered[name])
    if covered[best] > covered[source] and (covered[best] > 2 * covered[source] or covered[best] == len(asked)):
        message = (
            f"of the {len(asked)} tensors that the network needs, {covered[source]} have names as in {source}, "
            f"and {covered[best]} as in {best}"
        )
        return [_problem(source, "wrong-value", message, f"take the source {best!r} (--from {best})")]
    if len(problems) <= MOST_PROBLEMS:
        return problems
    counts = Counter(problem.rule for problem in problems)
    words = {"shape": "have another shape", "missing-key": "are missing", "unused": "have no place"}
    summary = ", ".join(f"{count} {words.get(rule, f'are wrong ({rule})')}" for rule, count in counts.items())
    message = f"these are the weights of another network: {summary}; for example: {problems[0].message}"
    hint = f"the network needs {len(fitting.needed)} tensors; `archdsl show` lists its parts"
    return [_problem(source, counts.most_common(1)[0][0], message, hint)]


def _of_head(name: str) -> bool:
    """Whether a name that has no place is of a head: a classifier, a pooler, what a detector puts upon a backbone."""
    word = name.partition(".")[0]
    return word in HEADS or word.startswith(("head", "norm", "classifier"))


def _tensor(value: Any) -> Tensor | None:
    """The value as float32; None when it is no tensor of real numbers."""
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        return None
    return tensor.to(torch.float32) if tensor.is_floating_point() else None


def _near(name: str, names: Iterable[str], position: int) -> str | None:
    """The most similar name, for problems that will be shown; comparing takes time."""
    if position >= MAX_SHOWN:
        return None
    return closest(name, list(names)[:500], longest=LONGEST_NAME)


def _problem(name: str, rule: str, message: str, hint: str | None = None) -> Problem:
    return Problem(at_argument("--weights", name), rule, message, hint)
