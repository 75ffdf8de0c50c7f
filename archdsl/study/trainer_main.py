"""The training process: jobs come on stdin, answers go to stdout. Started by `trainers.py`, never imported there."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

from archdsl import compiler
from archdsl.errors import ArchError, Place, Problem
from archdsl.spec.load import loads
from archdsl.spec.model import Spec
from archdsl.training import Epoch, JsonLines, TrainEvaluator, parse_recipe, parse_source


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

        evaluator.report = report
        return {"reused": evaluator(loads(job["spec"]), seed=job["seed"]).reused}
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
        evaluators[key] = TrainEvaluator(
            parse_source(job["data"]),
            parse_recipe(job["recipe"]),
            build=compiler.build,
            identify=compiler.identity,
            results=JsonLines(job["results"]),
            threads=job["threads"],
        )
    return evaluators[key]


def _problem(rule: str, message: str) -> dict[str, Any]:
    return Problem(Place("training"), rule, message).as_json()
