"""`archdsl`: the table of commands, and what becomes of errors.

Exit codes: 0 fine, 1 the input is wrong, 2 archdsl or one of its tools failed, 130 interrupted.
Results go to stdout, progress and errors to stderr; with `--json`, errors are JSON on stdout too. A result that stdout
cannot take is exit code 1; a reader that has read enough (`| head`) is none of our errors.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, say_lines
from archdsl.cli.streams import StdoutLost, guarded_streams, log_in_lines, open_missing_descriptors
from archdsl.errors import ArchError
from archdsl.study.storage.urls import masked, shown

COMPLETES = "_ARCHDSL_COMPLETE"
"""The environment variable by which a shell asks for completions: click answers it and exits."""
COMMANDS = {
    "init": "archdsl.cli.init",
    "check": "archdsl.cli.check",
    "show": "archdsl.cli.show",
    "list": "archdsl.cli.list",
    "diff": "archdsl.cli.diff",
    "build": "archdsl.cli.build",
    "bench": "archdsl.cli.bench",
    "profile": "archdsl.cli.profile",
    "predict": "archdsl.cli.predict",
    "train": "archdsl.cli.train",
    "eval": "archdsl.cli.eval",
    "search": "archdsl.cli.search",
    "worker": "archdsl.cli.worker",
    "status": "archdsl.cli.status",
    "report": "archdsl.cli.report",
    "compare": "archdsl.cli.compare",
    "cache": "archdsl.cli.cache",
    "schema": "archdsl.cli.schema",
    "explain": "archdsl.cli.explain",
    "doctor": "archdsl.cli.doctor",
}


class Commands(click.Group):
    """Commands are imported when they are asked for, so that no command loads the libraries of another.

    Each takes `--plugin`, as `archdsl` itself does: it may stand before and behind the command's name.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return _with_plugins(command)


def _with_plugins(command: click.Command) -> click.Command:
    """The command, and where it has commands of its own each of these, with the option `--plugin`."""
    if not any("--plugin" in option.opts for option in command.params):
        options.plugin(command)
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        _with_plugins(child)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="archdsl", prog_name="archdsl")
@options.plugin
def archdsl() -> None:
    """Write a vision architecture as YAML, compile it, measure it, search for the best.

    \b
    archdsl check my_net.yaml            is it right, and what does it cost?
    archdsl show swin_free_t             stage by stage
    archdsl list 'swin*'                 the specs that come with archdsl
    archdsl diff swin_t swin_free_t      what is different between two
    archdsl build swin_t -o out/         PyTorch weights, ONNX model, spec
    archdsl bench swin_t swin_free_t     which is faster here?
    archdsl profile swin_t               where does its time go?
    archdsl predict SPACE                how long would its networks take?
    archdsl train swin_t --data DIR      its weights and its accuracy
    archdsl eval out/ --data DIR         the accuracy of what is deployed
    archdsl search --objective latency   the front of accuracy against latency
    archdsl status runs/quickstart       how far is a search?
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Nothing leaves as a traceback."""
    try:
        with guarded_streams():
            return _run(arguments)
    except StdoutLost as lost:
        if lost.reason is None:
            return 0
        with guarded_streams():
            return _fail(lost.error, wants_json=False)


def _run(arguments: Sequence[str]) -> int:
    wants_json, line = "--json" in arguments, _shown(arguments)
    try:
        result = archdsl.main(args=list(arguments), prog_name="archdsl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ArchError as error:
        return _fail(error, wants_json)
    except StdoutLost:
        raise
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:  # `archdsl`, or `archdsl cache`
        say_lines(asked.format_message())
        return 0
    except click.ClickException as error:
        return _fail(ArchError.at("archdsl", line, "usage", masked(error.format_message()), _usage(error)), wants_json)
    except (KeyboardInterrupt, click.Abort):
        say_lines("interrupted", err=True)
        return 130
    except (Exception, SystemExit) as error:  # a library that exits does not decide the exit code
        if isinstance(error, SystemExit) and COMPLETES in os.environ:  # click has printed what completes the line
            return int(error.code or 0)
        if os.environ.get("ARCHDSL_DEBUG") and isinstance(error, Exception):
            raise
        message = masked(f"archdsl failed: {type(error).__name__}: {error}")
        hint = "this is a bug; ARCHDSL_DEBUG=1 shows where"
        _fail(ArchError.at("archdsl", line, "internal", message, hint), wants_json)
        return 2


def main() -> NoReturn:
    """The console script."""
    warnings.formatwarning = _as_a_line
    open_missing_descriptors()
    log_in_lines()
    sys.exit(run(sys.argv[1:]))


def _as_a_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Warnings of archdsl without the line of code that they come from."""
    if category.__module__.startswith("archdsl."):
        return f"warning: {message}\n"
    return _python_formats(message, category, filename, lineno, line)


_python_formats = warnings.formatwarning


def _fail(error: ArchError, wants_json: bool) -> int:
    """Say an error. Returns: its exit code, whether stdout takes it or not"""
    if wants_json:
        with suppress(StdoutLost):
            print_json({"ok": False, "errors": [problem.as_json() for problem in error.problems]})
    say_lines(error.text(), err=True)
    return error.exit_code


def _shown(arguments: Sequence[str]) -> str:
    """A command line for a message: what `--storage` says may be a URL with a password, or be meant as one."""
    found = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, is_given, value = argument.partition("=")
        if name == "--storage" and is_given:
            found.append(f"{name}={shown(value)}")
        else:
            found.append(shown(argument) if before == "--storage" else masked(argument))
    return " ".join(found)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context else "see `archdsl --help`"
