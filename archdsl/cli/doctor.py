"""`archdsl doctor`: what works on this machine, and what brings the rest."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import click

from archdsl.cli.output import json_option, print_json, print_table
from archdsl.errors import ArchError
from archdsl.latency.runtimes import RUNTIMES, runtime
from archdsl.writing import cache_folder


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is ready, its version or what is missing, and the command that helps."""

    subject: str
    ready: bool
    found: str
    fix: str | None = None


@click.command(epilog="Example: archdsl doctor --json")
@json_option
def doctor(as_json: bool) -> int:
    """Show which runtimes and libraries are ready, and for each that is not, the command that brings it."""
    findings = _runtimes() + _libraries() + _machine()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return 0


def _runtimes() -> list[Finding]:
    found = []
    for name in RUNTIMES:
        try:
            found.append(Finding(f"runtime {name}", True, runtime(name).version()))
        except ArchError as error:
            problem = error.problems[0]
            found.append(Finding(f"runtime {name}", False, problem.message, problem.hint))
    return found


def _libraries() -> list[Finding]:
    """Libraries that some command needs beyond the core."""
    extras = (
        ("onnxruntime", "ort"),
        ("timm", "train"),
        ("torchvision", "train"),
        ("pillow", "train"),
    )
    found = []
    for package, extra in extras:
        try:
            found.append(Finding(package, True, version(package)))
        except PackageNotFoundError:
            found.append(Finding(package, False, "not installed", f"pip install 'archdsl[{extra}]'"))
    return found


def _machine() -> list[Finding]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    return [
        Finding("python", True, platform.python_version()),
        Finding("torch", True, torch.__version__),
        Finding("GPU", torch.cuda.is_available(), gpu),
        Finding("timing cache", True, str(cache_folder())),
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
