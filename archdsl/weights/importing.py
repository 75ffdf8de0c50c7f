"""Another library's state dict -> ours, strictly: every tensor finds its place, or is named.

The libraries' names are tables in `archdsl.weights.sources`; to add a library is to add a table there. No network is
known here by name: what a spec needs comes from its graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from archdsl.errors import MAX_SHOWN, Problem, WeightsError, at_argument
from archdsl.ir.op import ParamSpec
from archdsl.spec.load import load
from archdsl.spec.lower import lower
from archdsl.spec.model import Spec
from archdsl.spec.words import did_you_mean
from archdsl.weights.sources import IGNORED, SOURCES, Source


def import_weights(
    spec: Spec | str | os.PathLike[str], state_dict: Mapping[str, Any], source: str = "timm"
) -> dict[str, Tensor]:
    """The weights of `spec` by our names, float32, from a state dict of another library.

    state_dict: tensors (or numpy arrays) by that library's names; float32 tensors are not copied
    source: `timm`, `microsoft` (Swin's own code), `huggingface` (transformers' …ForImageClassification) or `archdsl`

    Errors: WeightsError naming every tensor that is missing, left over or of another shape; only what is in
    `sources.IGNORED` may be left over
    """
    if source not in SOURCES:
        hint = did_you_mean(source, SOURCES) or f"Available: {', '.join(SOURCES)}."
        raise WeightsError(_problem(source, "unknown-name", f"there is no source of weights called {source!r}", hint))
    needed = lower(spec if isinstance(spec, Spec) else load(spec)).tensors()
    fitting = _Fitting(needed, SOURCES[source])
    fitting.take(state_dict)
    fitting.join()
    if fitting.problems():
        raise WeightsError(_with_other_source(fitting, state_dict, source))
    return {name: fitting.given[name][1] for name in needed}


class _Fitting:
    """Tensors finding their places. `given`: our name -> (the source's name, the tensor)."""

    def __init__(self, needed: Mapping[str, ParamSpec], source: Source):
        self.needed, self.source = needed, source
        self.given: dict[str, tuple[str, Tensor]] = {}
        self.strange: list[str] = []
        self.wrong: list[Problem] = []

    def take(self, state_dict: Mapping[str, Any]) -> None:
        """Give each tensor our name."""
        for name, value in state_dict.items():
            ours = self.source.ours(name)
            if name.rpartition(".")[2] in IGNORED:
                continue
            if ours is None:
                self.strange.append(name)
            elif ours in self.given:
                message = f"{self.given[ours][0]!r} and {name!r} are both {ours!r}"
                self.wrong.append(_problem(name, "duplicate-key", message))
            else:
                tensor = _tensor(value)
                if tensor is None:
                    message = f"{name!r} must be a tensor of real numbers, but got {_kind(value)}"
                    self.wrong.append(_problem(name, "wrong-type", message))
                else:
                    self.given[ours] = (name, tensor)

    def join(self) -> None:
        """Stack what the source holds in pieces. Pieces that do not fit together stay, and are named as left over."""
        for whole, pieces in self.source.joined.items():
            for name in self.needed:
                before, found, after = name.rpartition(f"{whole}.")
                places = [f"{before}{piece}.{after}" for piece in pieces]
                if not found or name in self.given or any(place not in self.given for place in places):
                    continue
                tensors = [self.given[place][1] for place in places]
                if len({tensor.shape[1:] for tensor in tensors}) == 1 and tensors[0].ndim:
                    names = [self.given.pop(place)[0] for place in places]
                    self.given[name] = (" + ".join(names), torch.cat(tensors))

    def problems(self) -> list[Problem]:
        """All that does not fit: shapes, then what is missing, then what is left over."""
        missing = [name for name in self.needed if name not in self.given]
        extra = {ours: name for ours, (name, _) in self.given.items() if ours not in self.needed}
        found = self.wrong + [
            self._misshapen(name) for name in self.needed if name in self.given and not self._fits(name)
        ]
        for name in missing:
            shape = list(self.needed[name].shape)
            near = _near(name, extra, len(found))
            hint = f"{extra[near]!r} would be our {near!r}" if near else None
            found.append(
                _problem(name, "missing-key", f"the network needs {name!r} {shape}, but it is not there", hint)
            )
        for ours, name in [*extra.items(), *(("", name) for name in self.strange)]:
            near = _near(ours or name, missing, len(found))
            hint = f"the network lacks {near!r}" if near else None
            meant = f" (our {ours!r})" if ours and ours != name else ""
            found.append(_problem(name, "unused", f"the network has no place for {name!r}{meant}", hint))
        return found

    def _fits(self, name: str) -> bool:
        return tuple(self.given[name][1].shape) == self.needed[name].shape

    def _misshapen(self, name: str) -> Problem:
        (theirs, tensor), want = self.given[name], self.needed[name]
        message = f"{name!r} must be {list(want.shape)}, but {theirs!r} is {list(tensor.shape)}"
        return _problem(theirs, "shape", message)


def _with_other_source(fitting: _Fitting, state_dict: Mapping[str, Any], source: str) -> list[Problem]:
    """The problems; when another source's names fit better, that is said first."""
    problems = fitting.problems()
    fits = {name: sum(other.ours(key) in fitting.needed for key in state_dict) for name, other in SOURCES.items()}
    fits |= {name: fits[name] + _pieces(fitting, state_dict, other) for name, other in SOURCES.items() if other.joined}
    best = max(fits, key=lambda name: fits[name])
    if fits[best] <= 2 * fits[source]:
        return problems
    message = f"of {len(state_dict)} tensors {fits[source]} have names as in {source}, and {fits[best]} as in {best}"
    return [_problem(source, "wrong-value", message, f"take the source {best!r} (--from {best})"), *problems]


def _pieces(fitting: _Fitting, state_dict: Mapping[str, Any], source: Source) -> int:
    """How many tensors are pieces of one that the network needs."""
    wholes = {
        name.replace(f".{whole}.", f".{piece}.")
        for whole, pieces in source.joined.items()
        for piece in pieces
        for name in fitting.needed
        if f".{whole}." in name
    }
    return sum(source.ours(key) in wholes for key in state_dict)


def _tensor(value: Any) -> Tensor | None:
    """The value as float32; None when it is no tensor of real numbers."""
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        return None
    return tensor.to(torch.float32) if tensor.is_floating_point() else None


def _kind(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _near(name: str, names: Iterable[str], position: int) -> str | None:
    """The most similar name, for problems that will be shown; comparing takes time."""
    if position >= MAX_SHOWN:
        return None
    return next(iter(get_close_matches(name, list(names)[:500], n=1, cutoff=0.8)), None)


def _problem(name: str, rule: str, message: str, hint: str | None = None) -> Problem:
    return Problem(at_argument("--weights", name), rule, message, hint)
