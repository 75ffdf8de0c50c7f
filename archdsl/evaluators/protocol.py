"""What an evaluator is: spec -> accuracy, with an error bar, what it cost, and how far it can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from archdsl.evaluators.agreement import RankAgreement
from archdsl.training.outcome import Accuracy

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["train", "supernet", "inherit", "proxy"]
"""How an evaluator comes to its numbers. Only `train` is the reference; the others are compared with it."""


class InputOf(Protocol):
    """The part of a spec's `input` that an evaluator looks at: pixels, square or (height, width), and channels."""

    @property
    def size(self) -> int | tuple[int, int]: ...
    @property
    def channels(self) -> int: ...


class Trainable(Protocol):
    """The part of a spec that an evaluator looks at."""

    @property
    def input(self) -> InputOf: ...


S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S", bound=Trainable)
T_contra = TypeVar("T_contra", bound=Trainable, contravariant=True)


class Build(Protocol[T_contra]):
    """Spec -> trainable model with the first weights of `seed`: `archdsl.build` is one."""

    def __call__(self, spec: T_contra, *, seed: int) -> nn.Module: ...


class Evaluator(Protocol[S_contra]):
    """Spec -> accuracy. The same spec and seed give the same accuracy.

    name:      as users write it
    kind:      how it comes to its numbers
    agreement: its measured rank correlation with real training; None: not measured. Reports show it (`trust_of`)
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def agreement(self) -> RankAgreement | None: ...
    def __call__(self, spec: S_contra, *, seed: int) -> Accuracy: ...


@runtime_checkable
class Stepwise(Protocol[S_contra]):
    """An evaluator that can evaluate a network after part of its training and go on later, as early stopping needs."""

    def advance(self, spec: S_contra, *, seed: int, to_epoch: int) -> Accuracy:
        """The accuracy after `to_epoch` epochs of the whole schedule; `paid_epochs` says what was trained for it now.

        It goes on where an earlier call for this spec and seed ended. After the last epoch it is what a call gives.
        """
        ...

    def discard(self, spec: S_contra, *, seed: int) -> None:
        """Remove what was kept to go on with this network."""
        ...


REAL_TRAINING = "real training, the reference itself"
"""What reports say of accuracies that training has come to."""


def trust_of(evaluator: Evaluator[Any]) -> str:
    """The sentence with which reports show an evaluator's numbers."""
    if evaluator.kind == "train":
        return f"{evaluator.name}: {REAL_TRAINING}"
    measured = str(evaluator.agreement) if evaluator.agreement is not None else "not measured"
    return f"{evaluator.name} ({evaluator.kind}): rank correlation with real training {measured}"
