"""`archdsl doctor`: what works on this machine, and what brings the rest; whether its latencies can be believed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from archdsl.cli.output import json_option, print_json, print_table
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.latency.runtimes import RUNTIMES, runtime
from archdsl.writing import cache_folder

if TYPE_CHECKING:
    from archdsl.latency.self_test import Check


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
@json_option
def doctor(latency: bool, on: str | None, as_json: bool) -> int:
    """Show which runtimes and libraries are ready, and for each that is not, the command that brings it.

    With --latency, small networks are measured in every way that can go wrong: units, clocks, batches, repeats, the
    numeric gate, a search's limit, predictions. The exit code is 1 when a check fails.
    """
    if latency:
        return _latency(on or "onnxruntime", as_json)
    if on is not None:
        message = "--on says where --latency measures, and is of no use alone"
        raise ArchError(Problem(at_argument("--on", on), "missing-key", message, "add --latency"))
    findings = _runtimes() + _libraries() + _machine()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return 0


def _latency(on: str, as_json: bool) -> int:
    """The self-test on a runtime, `onnxruntime` or `onnxruntime:cuda`."""
    from archdsl.latency import Target, close_workers
    from archdsl.report.self_test import run_self_test

    name, colon, device = on.partition(":")
    target = Target.parse({"runtime": name, **({"device": device} if colon else {})})
    try:
        checks = run_self_test(target, lambda check: click.echo(f"checking: {check} …", err=True))
    finally:
        close_workers()
    passed = all(check.passed is not False for check in checks)
    if as_json:
        print_json({"target": target.as_json(), "ok": passed, "checks": [check.as_json() for check in checks]})
    else:
        _print_checks(checks, str(target))
    return 0 if passed else 1


def _print_checks(checks: Sequence[Check], target: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=f"latencies on {target}", title_justify="left")
    for name in ("", "check", "measured"):
        table.add_column(name)
    marks = {True: "[green]passed[/]", False: "[red]FAILED[/]", None: "[yellow]not checked[/]"}
    for check in checks:
        table.add_row(marks[check.passed], Text(check.name), Text(check.measured))
    print_table(table)
    for check in checks:
        if check.passed is False:
            click.echo(f"{check.name} failed: {check.otherwise}")


FIT = "it, what it needs and Python must fit together: see `pip list`, or install it anew"


def _runtimes() -> list[Finding]:
    """A runtime is ready when its libraries can be imported: that their packages are installed does not say so."""
    found = []
    for name in RUNTIMES:
        subject = f"runtime {name}"
        try:
            chosen = runtime(name)
            told = chosen.version()
            broken = next(filter(None, map(_why_not_imported, chosen.modules)), None)
            found.append(Finding(subject, not broken, broken or told, FIT if broken else None))
        except ArchError as error:
            problem = error.problems[0]
            found.append(Finding(subject, False, problem.message, problem.hint))
        except Exception as error:  # what is broken is what this command is for
            found.append(Finding(subject, False, f"{type(error).__name__}: {error}", FIT))
    return found


def _why_not_imported(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:
        return f"`import {module}` fails: {type(error).__name__}: {error}"
    return None


def _libraries() -> list[Finding]:
    """Libraries that some command needs beyond the core."""
    extras = (
        ("onnxruntime", "ort"),
        ("timm", "train"),
        ("torchvision", "train"),
        ("pillow", "train"),
        ("scipy", "gp"),
    )
    found = []
    for package, extra in extras:
        try:
            found.append(Finding(package, True, version(package)))
        except PackageNotFoundError:
            found.append(Finding(package, False, "not installed", f"pip install 'archdsl[{extra}]'"))
    return found


def _machine() -> list[Finding]:
    found = [Finding("python", True, platform.python_version())]
    broken = _why_not_imported("torch")
    found += [Finding("torch", False, broken, FIT)] if broken else _devices()
    return [*found, Finding("timing cache", True, str(cache_folder()))]


def _devices() -> list[Finding]:
    import torch

    from archdsl.latency.clock.energy import why_no_energy

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    devices = {"cpu": "CPU", **({"cuda": "GPU"} if torch.cuda.is_available() else {})}
    reasons = {name: why_no_energy(device) for device, name in devices.items()}
    return [
        Finding("torch", True, torch.__version__),
        Finding("GPU", torch.cuda.is_available(), gpu),
        *(Finding(f"energy of the {name}", why is None, why or "is told") for name, why in reasons.items()),
    ]


def _print(findings: list[Finding]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in ("", "what", "found", "what helps"):
        table.add_column(name)
    for finding in findings:
        mark = "[green]ready[/]" if finding.ready else "[yellow]no[/]"
        table.add_row(mark, *map(escape, (finding.subject, finding.found, finding.fix or "")))
    print_table(table)
