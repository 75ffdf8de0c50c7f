"""What early stopping did: which trainings it ended and when, and how many epochs that saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from archdsl.study.record import Record


@dataclass(frozen=True)
class StoppedEarly:
    """trainings: networks that were trained to their end, or stopped"""

    trainings: tuple[Record, ...]

    @property
    def stopped(self) -> tuple[Record, ...]:
        """Those that were stopped, by trial."""
        return tuple(record for record in self.trainings if record.state == "stopped")

    @property
    def after(self) -> dict[int, int]:
        """Epoch -> how many trainings were stopped after it, in the order of epochs."""
        return dict(sorted(Counter(last_epoch(record) for record in self.stopped).items()))

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs trained of all networks together, and those of whole trainings; of one seed each."""
        whole = [record.accuracy.of_epochs or record.accuracy.epochs for record in self.trainings if record.accuracy]
        done = [record.accuracy.epochs for record in self.trainings if record.accuracy]
        return sum(done), sum(whole)

    def __str__(self) -> str:
        """`6 of 9 trainings were stopped early (4 after epoch 1, 2 after epoch 3): 33 of 81 epochs were trained`"""
        num, many = len(self.trainings), "" if len(self.trainings) == 1 else "s"
        if not self.stopped:
            return f"none of {num} training{many} was stopped early"
        when = ", ".join(f"{count} after epoch {epoch}" for epoch, count in self.after.items())
        done, whole = self.epochs
        were = "was" if len(self.stopped) == 1 else "were"
        text = f"{len(self.stopped)} of {num} training{many} {were} stopped early ({when})"
        return f"{text}: {done} of {whole} epochs were trained"

    def as_json(self) -> dict[str, Any]:
        """The numbers, and the trials that were stopped."""
        done, whole = self.epochs
        return {
            "trainings": len(self.trainings),
            "stopped": [
                {"trial": record.number, "name": record.name, "after_epoch": last_epoch(record)}
                for record in self.stopped
            ],
            "epochs_trained": done,
            "epochs_of_whole_trainings": whole,
        }


def stopped_early(records: Iterable[Record]) -> StoppedEarly | None:
    """What early stopping did in a study, each network counted once; None where no training was ever looked at."""
    own = [record for record in records if record.duplicate_of is None and record.state != "open"]
    if not any(record.rungs for record in own):
        return None
    ended = [record for record in own if record.state == "stopped" or (record.accuracy and record.accuracy.is_final)]
    return StoppedEarly(tuple(ended))


def last_epoch(record: Record) -> int:
    """The epoch after which a stopped training was ended."""
    return max(record.rungs, default=0)
