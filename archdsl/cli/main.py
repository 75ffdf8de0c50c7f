"""`archdsl`: the table of commands, and what becomes of errors.

Exit codes: 0 fine, 1 the input is wrong, 2 archdsl or one of its tools failed, 130 interrupted.
Results go to stdout, progress and errors to stderr; with `--json`, errors are JSON on stdout too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

import click

from archdsl.blocks.part import PLUGINS_VARIABLE
from archdsl.cli.output import print_json
from archdsl.errors import ArchError, Problem, at_argument

COMMANDS = {
    "check": "archdsl.cli.check",
    "show": "archdsl.cli.show",
    "build": "archdsl.cli.build",
    "bench": "archdsl.cli.bench",
    "profile": "archdsl.cli.profile",
    "predict": "archdsl.cli.predict",
    "train": "archdsl.cli.train",
    "search": "archdsl.cli.search",
    "worker": "archdsl.cli.worker",
    "cache": "archdsl.cli.cache",
    "schema": "archdsl.cli.schema",
    "doctor": "archdsl.cli.doctor",
}


class Commands(click.Group):
    """Commands are imported when they are asked for, so that none pays for the libraries of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="archdsl", prog_name="archdsl")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE.py", help="Python file that registers blocks.")
def archdsl(plugins: tuple[str, ...]) -> None:
    """Write a vision architecture as YAML, compile it, measure it, search for the best.

    \b
    archdsl check my_net.yaml            is it right, and what does it cost?
    archdsl show swin_free_t             stage by stage
    archdsl build swin_t -o out/         PyTorch weights, ONNX model, spec
    archdsl bench swin_t swin_free_t     which is faster here?
    archdsl profile swin_t               where does its time go?
    archdsl predict SPACE                how long would its networks take?
    archdsl train swin_t --data DIR      its weights and its accuracy
    archdsl search --objective latency   the front of accuracy against latency
    """
    if plugins:
        known = [path for path in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if path]
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join([*known, *(os.path.abspath(path) for path in plugins)])


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Nothing leaves as a traceback."""
    wants_json = "--json" in arguments
    try:
        result = archdsl.main(args=list(arguments), prog_name="archdsl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ArchError as error:
        return _fail(error, wants_json)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:  # `archdsl`, or `archdsl cache`
        click.echo(asked.format_message())
        return 0
    except click.ClickException as error:
        problem = Problem(at_argument("archdsl", " ".join(arguments)), "usage", error.format_message(), _usage(error))
        return _fail(ArchError(problem), wants_json)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("ARCHDSL_DEBUG"):
            raise
        message = f"archdsl failed: {type(error).__name__}: {error}"
        hint = "this is a bug; ARCHDSL_DEBUG=1 shows where"
        place = at_argument("archdsl", " ".join(arguments))
        _fail(ArchError(Problem(place, "internal", message, hint)), wants_json)
        return 2


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def _fail(error: ArchError, wants_json: bool) -> int:
    if wants_json:
        print_json({"ok": False, "errors": [problem.as_json() for problem in error.problems]})
    click.echo(error.text(), err=True)
    return error.exit_code


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context else "see `archdsl --help`"


Command = Callable[..., int]
