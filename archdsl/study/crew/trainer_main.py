"""The training process: jobs come on stdin, answers go to stdout. Started by `trainers.py`, never imported there."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from archdsl import compiler
from archdsl.errors import ArchError, Place, Problem
from archdsl.spec.load import loads
from archdsl.spec.model import Spec
from archdsl.training import Epoch, JsonLines, TrainEvaluator, parse_recipe, parse_source
from archdsl.training.stochastic_depth import BuildFor


def main() -> None:
    """Answer jobs until stdin ends: then the search has ended, and so does this process, even while it trains."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    evaluators: dict[str, TrainEvaluator[Spec]] = {}

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    while True:
        say(_answer(json.loads(jobs.get()), evaluators, say))


def _listen(jobs: queue.Queue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _answer(job: dict[str, Any], evaluators: dict[str, TrainEvaluator[Spec]], say: Any) -> dict[str, Any]:
    try:
        evaluator = _evaluator(job, evaluators)
        epochs = evaluator.recipe.epochs

        def report(seed: int, epoch: Epoch) -> None:
            del seed
            say({"epoch": epoch.number, "epochs": epochs})

        evaluator.report, spec = report, loads(job["spec"])
        if job.get("discard"):
            evaluator.discard(spec, seed=job["seed"])
            return {"accuracy": {}}
        to_epoch = job.get("to_epoch", epochs)
        return {"accuracy": evaluator.advance(spec, seed=job["seed"], to_epoch=to_epoch).as_json()}
    except ArchError as error:
        return {"problems": [problem.as_json() for problem in error.problems]}
    except MemoryError:
        return {"problems": [_problem("out-of-memory", "the training ran out of memory")]}
    except Exception as error:
        words = str(error).lower()
        rule = "out-of-memory" if "out of memory" in words or "allocate memory" in words else "exception"
        return {"problems": [_problem(rule, f"{type(error).__name__}: {error}"[:500])]}


def _evaluator(job: dict[str, Any], evaluators: dict[str, TrainEvaluator[Spec]]) -> TrainEvaluator[Spec]:
    """The evaluator for a job's data and recipe; kept, so that the data are read once."""
    key = json.dumps([job["data"], job["recipe"], job["results"]], sort_keys=True)
    if key not in evaluators:
        recipe = parse_recipe(job["recipe"])
        evaluators[key] = TrainEvaluator(
            parse_source(job["data"]),
            recipe,
            build=BuildFor(recipe),
            identify=compiler.identity,
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


def _problem(rule: str, message: str) -> dict[str, Any]:
    return Problem(Place("training"), rule, message).as_json()
