"""The options that several commands share, each by the name of the argument that it fills."""

from __future__ import annotations

import os
from pathlib import Path

import click

from archdsl.cli.parameters import Seconds, WholeNumbers, Words
from archdsl.parts.part import PLUGINS_VARIABLE


def _name_plugins(context: click.Context, option: click.Parameter, files: tuple[str, ...]) -> None:
    """Name files, once each, where this process and those that it starts look for plug-ins."""
    del context, option
    known = [path for path in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if path]
    if files:
        named = dict.fromkeys([*known, *(os.path.abspath(path) for path in files)])
        os.environ[PLUGINS_VARIABLE] = os.pathsep.join(named)


plugin = click.option(
    "--plugin",
    multiple=True,
    expose_value=False,
    callback=_name_plugins,
    metavar="FILE.py",
    help="Python file that registers blocks.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
data = click.option(
    "--data", required=True, metavar="DATA", help="synthetic, imagefolder:DIR, hf:DIR, a plain DIR, or {type: …}."
)
overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change the spec, e.g. --set stages.2.depth=14 or --set 'stages.*.window=14'.",
)
weights = click.option(
    "--weights", type=click.Path(path_type=Path), help="A .safetensors file (or .pth, see --allow-pickle)."
)
source = click.option("--from", "source", help="Whose names the weights file uses [default: archdsl].")
allow_pickle = click.option("--allow-pickle", is_flag=True, help="Read .pth files; only for files you trust.")
ema = click.option("--ema", is_flag=True, help="Take the averaged weights (EMA) that the file has beside the plain.")
new_head = click.option(
    "--new-head", is_flag=True, help="Start the classifier anew: the file has another one, or none."
)
runtimes = click.option(
    "--on",
    "runtimes",
    type=Words(),
    default="onnxruntime",
    show_default=True,
    help="Runtimes, separated by commas, each with a device if you like: onnxruntime,tensorrt:cuda.",
)
device = click.option("--device", help="cpu or cuda, where --on says none; by default the one the runtime knows first.")
batches = click.option("--batch", "batches", type=WholeNumbers(), default="1", show_default=True, help="Batch sizes.")
threads = click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1, 1024), help="Threads of the runtime."
)


def _lease() -> str:
    from archdsl.study.storage.leases import LEASE_S

    return f"{LEASE_S:g}s"


study = click.option("--study", metavar="NAME", help="Which study; needed where the storage holds several.")
lease_s = click.option(
    "--lease",
    "lease_s",
    type=Seconds(1.0),  # a shorter one is not kept alive by a busy worker, and writes to the study without end
    default=_lease,
    help="After this long without a sign, a worker is replaced.",
)
