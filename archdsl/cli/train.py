"""`archdsl train`: a spec, data and a recipe -> trained weights and their accuracy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli.output import json_option, print_json, set_option
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.spec.load import load
from archdsl.spec.yaml_text import parse

if TYPE_CHECKING:
    from archdsl.training.data import Source
    from archdsl.training.outcome import Epoch
    from archdsl.training.run import Trained

INTERRUPTED = 130


@click.command(
    epilog="Examples: archdsl train micro_swin --data synthetic --epochs 1 · archdsl train swin_free_b"
    " --data imagefolder:/data/imagenet --recipe swin · torchrun --nproc-per-node 8 -m archdsl train …"
)
@click.argument("spec", metavar="SPEC")
@click.option(
    "--data", required=True, metavar="DATA", help="synthetic, imagefolder:DIR, hf:DIR, a plain DIR, or {type: …}."
)
@click.option("--recipe", metavar="NAME|FILE", help="A recipe [default: swin, for synthetic data quick].")
@click.option("--epochs", type=int, help="Passes through the training set [default: the recipe's, as the next three].")
@click.option("--batch", type=int, help="Images a step, over all processes and micro-batches.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--amp", type=click.Choice(["auto", "off", "bf16", "fp16"]), help="Number format of the forward pass.")
@click.option("--micro-batch", type=click.IntRange(1), help="Images at once in one process [default: what fits].")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes that decode images [default: the data's, 2].")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of torch [default: torch's own choice].")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [default: runs/train_NAME].")
@click.option("--resume", is_flag=True, help="Go on with the training in that folder.")
@click.option("--log", type=click.Choice(["tensorboard"]), help="Also write events for TensorBoard.")
@set_option
@json_option
def train(
    spec: str,
    data: str,
    recipe: str | None,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    amp: str | None,
    micro_batch: int | None,
    seed: int,
    device: str,
    workers: int | None,
    threads: int | None,
    out: Path | None,
    resume: bool,
    log: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train SPEC on DATA and write its weights, so that `archdsl build` can take the folder.

    The state is kept after every epoch: Ctrl-C, kill -9 or a power cut costs at most one, and --resume goes on exactly
    as if nothing had happened. Where memory is short, fewer images go through the network at once; a step stays as
    large as the recipe says. With torchrun, several GPUs or processes share each batch.
    """
    _check_device(device)
    from archdsl.study.crew.interrupts import Interrupted, Interrupts
    from archdsl.training import parse_recipe
    from archdsl.training.processes import Elsewhere, in_environment
    from archdsl.training.run import Plan, train_in_folder

    loaded = load(spec, set=list(overrides) or None)
    source = source_of(data, workers)
    chosen = recipe or ("quick" if source.text().startswith("synthetic") else "swin")
    how = parse_recipe(chosen, at_argument("--recipe", chosen), epochs=epochs, batch=batch, lr=lr, amp=amp)
    folder = out or Path("runs") / f"train_{loaded.name}"
    plan = Plan(loaded, source, how, folder, seed, device, micro_batch, threads, log == "tensorboard")
    finished = 0

    def report(epoch: Epoch) -> None:
        nonlocal finished
        finished = epoch.number
        numbers = f"loss {epoch.train_loss:.4f}, accuracy {epoch.val_accuracy:.3f}, lr {epoch.lr:.2g}"
        click.echo(f"epoch {epoch.number} of {how.epochs}: {numbers}, {epoch.seconds:.1f} s", err=True)

    with Interrupts() as interrupts:
        try:
            with interrupts.open():
                found = train_in_folder(plan, resume=resume, report=report, say=_say, whole=interrupts.held_back)
        except Interrupted:
            if in_environment().first:
                where = f"after epoch {finished}" if finished else "before the first epoch here ended"
                click.echo(f"interrupted {where}; the same command with --resume goes on", err=True)
            return INTERRUPTED
        except Elsewhere as error:
            return error.exit_code
    if found is None:
        return 0
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    return 0


def data_fields(data: str) -> str | dict[str, Any]:
    """What `--data` says, as a space would say it: a folder stands for `imagefolder:` with its path, and a mapping in
    braces may give more fields. Errors: SpecError when it names no data
    """
    from archdsl.training import SOURCES, parse_source

    found: str | dict[str, Any] = data
    if data.lstrip().startswith("{"):
        found = parse(data, "--data").plain()
    elif data.partition(":")[0] not in SOURCES and ("/" in data.partition(":")[0] or Path(data).is_dir()):
        found = f"imagefolder:{data}"
    parse_source(found, at_argument("--data", data))
    return found


def source_of(data: str, workers: int | None = None) -> Source:
    """The data that `--data` names. Errors: SpecError; ArchError where --workers makes no sense"""
    from archdsl.training import parse_source

    found = data_fields(data)
    if workers is not None:
        if isinstance(found, str):
            name, colon, path = found.partition(":")
            found = {"type": name, **({"path": path} if colon else {})}
        if found["type"] == "synthetic":
            message = "generated images are not decoded, so there is nothing for --workers to do"
            raise ArchError(Problem(at_argument("--workers", str(workers)), "conflict", message, "leave it out"))
        found = {**found, "workers": workers}
    return parse_source(found, at_argument("--data", data))


def _say(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _print(found: Trained) -> None:
    accuracy: Any = found.accuracy
    click.echo(
        f"{found.settings['name']}: top-1 accuracy {accuracy}; ± is one standard error, recipe {accuracy.recipe}"
    )
    minutes = f"{accuracy.seconds:.0f} s" if accuracy.seconds < 120 else f"{accuracy.seconds / 60:.0f} min"
    images = f"{accuracy.num_val} validation images"
    click.echo(f"{minutes} on {found.device}, {images}")
    click.echo(f"wrote spec.yaml, model.safetensors, metrics.csv and train.json to {found.folder}")
    for note in found.outcome.notes:
        click.echo(f"note: {note}", err=True)


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        message = f"a device is auto, cpu, cuda or cuda:N, but got {device!r}"
        raise ArchError(Problem(at_argument("--device", device), "wrong-value", message, "write --device auto"))
