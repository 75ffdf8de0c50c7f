"""The process in which a search compiles engines: whatever happens to NVIDIA's builder in it, the search goes on."""

from __future__ import annotations

from archdsl.errors import ArchError
from archdsl.failures import exception_reason
from archdsl.latency.engine.compile import compile_engine
from archdsl.processes.channel import connect
from archdsl.processes.frames import Message


def main(arguments: list[str]) -> None:
    """Answer jobs until the parent hangs up. arguments: as `channel.connect` takes them."""
    channel = connect(arguments)
    while (job := channel.receive()) is not None:
        channel.send(answer(job))


def answer(job: Message) -> Message:
    """Compile one ONNX file. job: `path`, `gpu`, `batch`. Every exception becomes a `failure`."""
    try:
        report = compile_engine(job["path"], job["gpu"], batch=job["batch"])
        return {"kind": "result", "estimate_ms": report.estimate_ms, "kernels": report.kernels}
    except ArchError as error:
        problem = error.problems[0]
        return {"kind": "failure", "rule": problem.rule, "message": problem.message, "hint": problem.hint}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"[:2000]
        return {"kind": "failure", "rule": exception_reason(error), "message": message, "hint": None}
