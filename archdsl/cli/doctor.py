"""`archdsl doctor`: what works on this machine, and what brings the rest; whether its latencies can be believed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import click

from archdsl.cli import options
from archdsl.cli.output import echo_step, print_json, print_rows, say
from archdsl.cli.streams import keep_unwritten
from archdsl.errors import ArchError
from archdsl.files import cache_folder, why_no_cache
from archdsl.runtimes.registry import RUNTIMES, runtime
from archdsl.versions import installed_version

if TYPE_CHECKING:
    from archdsl.runs.self_test_checks import Check


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is ready, its version or what is missing, and the command that helps."""

    subject: str
    ready: bool
    found: str
    fix: str | None = None


@click.command(epilog="Examples: archdsl doctor --json · archdsl doctor --latency --on openvino")
@click.option("--latency", is_flag=True, help="Test whether latencies taken here mean what they say; under a minute.")
@click.option("--on", metavar="RUNTIME[:DEVICE]", help="Where --latency takes them [default: onnxruntime].")
@options.as_json
def doctor(latency: bool, on: str | None, as_json: bool) -> int:
    """Show which runtimes and libraries are ready, and for each that is not, the command that brings it.

    With --latency, small networks are measured in every way that can go wrong: units, clocks, batches, repeats, the
    numeric gate, a search's limit, predictions. The exit code is 1 when a check fails.
    """
    if latency:
        return _latency(on or "onnxruntime", as_json)
    if on is not None:
        message = "--on says where --latency measures, and is of no use alone"
        raise ArchError.at("--on", on, "missing-key", message, "add --latency")
    findings = _runtimes() + _compilers() + _libraries() + _machine()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return 0


def _latency(on: str, as_json: bool) -> int:
    """The self-test on a runtime, `onnxruntime` or `onnxruntime:cuda`."""
    from archdsl.latency import close_workers
    from archdsl.runs.self_test import run_self_test
    from archdsl.runtimes.target import Target

    name, colon, device = on.partition(":")
    target = Target.parse({"runtime": name, **({"device": device} if colon else {})})
    try:
        checks = run_self_test(target, echo_step)
    finally:
        close_workers()
    keep_unwritten()
    passed = all(check.passed is not False for check in checks)
    if as_json:
        print_json({"target": target.as_json(), "ok": passed, "checks": [check.as_json() for check in checks]})
    else:
        _print_checks(checks, str(target))
    return 0 if passed else 1


def _print_checks(checks: Sequence[Check], target: str) -> None:
    from rich.text import Text

    marks = {True: Text("passed", "green"), False: Text("FAILED", "red"), None: Text("not checked", "yellow")}
    rows = [(marks[check.passed], check.name, check.measured) for check in checks]
    print_rows(("", "check", "measured"), rows, prose=("measured",), title=f"latencies on {target}")
    for check in checks:
        if check.passed is False:
            say(f"{check.name} failed: {check.otherwise}")


FIT = "it, what it needs and Python must fit together: see `pip list`, or install it anew"


def _runtimes() -> list[Finding]:
    """A runtime is ready when its libraries can be imported: that their packages are installed does not say so."""
    found = []
    for name in RUNTIMES:
        subject = f"runtime {name}"
        try:
            chosen = runtime(name)
            version = chosen.version()
            broken = next(filter(None, map(_why_not_imported, chosen.modules)), None)
            found.append(Finding(subject, not broken, broken or version, FIT if broken else None))
        except ArchError as error:
            problem = error.problems[0]
            found.append(Finding(subject, False, problem.message, problem.hint))
        except Exception as error:  # what is broken is what this command is for
            found.append(Finding(subject, False, f"{type(error).__name__}: {error}", FIT))
    return found


def _compilers() -> list[Finding]:
    """What builds engines for GPUs that are not here; whether it also runs them, its runtime's line says."""
    from archdsl.backends.trt.engine import build_status

    return [Finding("engines for other GPUs", *build_status())]


def _why_not_imported(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:
        return f"`import {module}` fails: {type(error).__name__}: {error}"
    return None


def _libraries() -> list[Finding]:
    """Libraries that some command needs beyond the core."""
    extras = {"onnxruntime": "ort", "timm": "train", "torchvision": "train", "pillow": "train"}
    found = []
    for package, extra in extras.items():
        version = installed_version(package)
        fix = None if version else f"pip install 'archdsl[{extra}]'"
        found.append(Finding(package, version is not None, version or "not installed", fix))
    return found


def _machine() -> list[Finding]:
    found = [Finding("python", True, platform.python_version())]
    broken = _why_not_imported("torch")
    found += [Finding("torch", False, broken, FIT)] if broken else _devices()
    folder = cache_folder()
    why = why_no_cache(folder)
    fix = "set ARCHDSL_CACHE_DIR to a folder that can be written" if why else None
    return [*found, Finding("timing cache", why is None, why or str(folder), fix)]


def _devices() -> list[Finding]:
    import torch

    from archdsl.telemetry.energy import why_no_energy

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    devices = {"cpu": "CPU", **({"cuda": "GPU"} if torch.cuda.is_available() else {})}
    reasons = {name: why_no_energy(device) for device, name in devices.items()}
    return [
        Finding("torch", True, torch.__version__),
        Finding("GPU", torch.cuda.is_available(), gpu),
        *(Finding(f"energy of the {name}", why is None, why or "has a counter") for name, why in reasons.items()),
    ]


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    marks = {True: Text("ready", "green"), False: Text("no", "yellow")}
    rows = [(marks[finding.ready], finding.subject, finding.found, finding.fix or "") for finding in findings]
    print_rows(("", "what", "found", "what helps"), rows, prose=("what", "found", "what helps"))
