"""The training process: jobs come on stdin, answers go to stdout. `train_processes.py` starts it by this name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archdsl import compiler
from archdsl.errors import ArchError, Place, Problem
from archdsl.evaluators.start_weights import BuildFrom, StartWeights
from archdsl.evaluators.train import TrainEvaluator
from archdsl.failures import exception_reason
from archdsl.language.architecture.load import loads
from archdsl.language.architecture.model import Spec
from archdsl.processes.channel import Channel, connect
from archdsl.processes.frames import Message
from archdsl.training import Epoch, JsonLines, parse_recipe, parse_source
from archdsl.training.recipe import BuildFor


def main(arguments: list[str]) -> None:
    """Answer jobs until the search ends. arguments: as `channel.connect` takes them."""
    channel = connect(arguments)
    evaluators: dict[str, TrainEvaluator[Spec]] = {}
    while (job := channel.receive()) is not None:
        channel.send(_answer(job, evaluators, channel))


def _answer(job: dict[str, Any], evaluators: dict[str, TrainEvaluator[Spec]], channel: Channel) -> Message:
    try:
        evaluator = _evaluator(job, evaluators)
        epochs = evaluator.recipe.epochs

        def report(seed: int, epoch: Epoch) -> None:
            del seed
            step = f"training, after epoch {epoch.number} of {epochs}"
            channel.tell(step, epoch=epoch.number, epochs=epochs)

        evaluator.report, spec = report, loads(job["spec"])
        if job.get("discard"):
            evaluator.discard(spec, seed=job["seed"])
            return {"kind": "result", "accuracy": {}}
        to_epoch = job.get("to_epoch", epochs)
        accuracy = evaluator.advance(spec, seed=job["seed"], to_epoch=to_epoch)
        return {"kind": "result", "accuracy": accuracy.as_json()}
    except ArchError as error:
        return _failure(*error.problems)
    except MemoryError:
        return _failure(Problem(Place("training"), "out-of-memory", "the training ran out of memory"))
    except Exception as error:
        return _failure(Problem(Place("training"), exception_reason(error), f"{type(error).__name__}: {error}"[:500]))


def _evaluator(job: dict[str, Any], evaluators: dict[str, TrainEvaluator[Spec]]) -> TrainEvaluator[Spec]:
    """The evaluator for a job's data and recipe; kept, so that the data are read once."""
    key = json.dumps([job["data"], job["recipe"], job["results"], job.get("start")], sort_keys=True)
    if key not in evaluators:
        recipe, start = parse_recipe(job["recipe"]), None
        if job.get("start") is not None:
            start = StartWeights.from_json(job["start"])
            recipe = recipe.model_copy(update={"init": "built"})  # `fan_in` would draw the weights anew
        evaluators[key] = TrainEvaluator(
            parse_source(job["data"]),
            recipe,
            build=BuildFor(recipe) if start is None else BuildFrom(recipe, start),
            identify=compiler.identity,
            start=start.key() if start is not None else "",
            results=JsonLines(job["results"]),
            checkpoints=Path(job["checkpoints"]),
            threads=job["threads"],
            device=_device(job["device"], job["number"]),
        )
    return evaluators[key]


def _device(asked: str, number: int) -> str:
    """`auto`: the GPU of this process, by its number among its siblings, where there are GPUs."""
    import torch

    if asked != "auto":
        return asked
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def _failure(*problems: Problem) -> Message:
    return {"kind": "failure", "problems": [problem.as_json() for problem in problems]}
