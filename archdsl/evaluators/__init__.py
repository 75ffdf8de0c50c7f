"""How accurate is a network? From a spec to its accuracy: by training it, or by looking it up in a table.

To add an evaluator: one file with a class that has the methods of `Evaluator`. Importing this imports no torch.
"""

from __future__ import annotations

from archdsl.evaluators.agreement import RankAgreement, measure_agreement
from archdsl.evaluators.protocol import Build, Evaluator, Kind, Stepwise, trust_of
from archdsl.evaluators.train import TrainEvaluator

__all__ = [
    "Build",
    "Evaluator",
    "Kind",
    "RankAgreement",
    "Stepwise",
    "TrainEvaluator",
    "measure_agreement",
    "trust_of",
]
