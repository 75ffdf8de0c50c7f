"""`archdsl train`: a spec, data and a recipe -> trained weights and their accuracy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archdsl.cli import options
from archdsl.cli.output import INTERRUPTED, echo_note, print_json, say
from archdsl.cli.parameters import SpecName
from archdsl.cli.weights import weights_of
from archdsl.errors import ArchError, at_argument
from archdsl.language.architecture.load import load
from archdsl.language.text.files import StandardInput
from archdsl.language.text.yaml_text import parse

if TYPE_CHECKING:
    from archdsl.training.data import DataSource
    from archdsl.training.outcome import Epoch
    from archdsl.training.run import Trained


@click.command(
    epilog="Examples: archdsl train micro_swin --data synthetic --epochs 1 · archdsl train swin_free_b"
    " --data imagefolder:/data/imagenet --recipe swin · torchrun --nproc-per-node 8 -m archdsl train …"
)
@click.argument("spec", metavar="SPEC", type=SpecName())
@options.data
@click.option("--recipe", metavar="NAME|FILE", help="A recipe [default: swin, for synthetic data quick].")
@click.option("--epochs", type=int, help="Passes through the training set [default: the recipe's, as the next three].")
@click.option("--batch", type=int, help="Images a step, over all processes and micro-batches.")
@click.option("--lr", type=float, help="Highest learning rate.")
@click.option("--amp", type=click.Choice(["auto", "off", "bf16", "fp16"]), help="Number format of the forward pass.")
@click.option("--micro-batch", type=click.IntRange(1), help="Images at once in one process [default: what fits].")
@options.weights
@options.source
@options.allow_pickle
@options.ema
@options.new_head
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes that decode images [default: the data's, 2].")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of torch [default: torch's own choice].")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [default: runs/train_NAME].")
@click.option("--resume", is_flag=True, help="Go on with the training in that folder.")
@click.option("--log", type=click.Choice(["tensorboard"]), help="Also write events for TensorBoard.")
@options.overrides
@options.as_json
def train(
    spec: str | StandardInput,
    data: str,
    recipe: str | None,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    amp: str | None,
    micro_batch: int | None,
    weights: Path | None,
    source: str | None,
    allow_pickle: bool,
    ema: bool,
    new_head: bool,
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
    large as the recipe says. With torchrun, several GPUs or processes share each batch. --weights starts from the
    weights of another training.
    """
    check_device(device)
    from archdsl.study.interrupts import Interrupted, Interrupts
    from archdsl.training import parse_recipe
    from archdsl.training.data.facts import with_classes_of
    from archdsl.training.processes import Elsewhere, in_environment
    from archdsl.training.run import TrainConfig, train_in_folder

    written = load(spec, set=overrides, check=False)
    images = source_of(data, workers)
    loaded = with_classes_of(written, images)
    if loaded is not written and in_environment().first:
        echo_note(f"head.classes is {getattr(loaded.head, 'classes', None)}, as in the data")
    chosen = recipe or ("quick" if images.text().startswith("synthetic") else "swin")
    how = parse_recipe(chosen, at_argument("--recipe", chosen), epochs=epochs, batch=batch, lr=lr, amp=amp)
    folder = out or Path("runs") / f"train_{loaded.name}"
    imported = weights_of(loaded, weights, source, allow_pickle=allow_pickle, ema=ema, new_head=new_head, seed=seed)
    config = TrainConfig(
        loaded,
        images,
        how,
        folder,
        seed,
        device,
        micro_batch,
        threads,
        log == "tensorboard",
        weights=imported.weights if imported else None,
        weights_from=str(weights) if weights else None,
        weights_notes=imported.notes if imported else (),
    )
    finished = 0

    def report(epoch: Epoch) -> None:
        nonlocal finished
        finished = epoch.number
        numbers = f"loss {epoch.train_loss:.4f}, accuracy {epoch.val_accuracy:.3f}, lr {epoch.lr:.2g}"
        say(f"epoch {epoch.number} of {how.epochs}: {numbers}, {epoch.seconds:.1f} s", err=True)

    with Interrupts() as interrupts:
        try:
            with interrupts.interruptible():
                whole = interrupts.uninterruptible
                found = train_in_folder(config, resume=resume, report=report, say=echo_note, whole=whole)
        except Interrupted:
            if in_environment().first:
                where = f"after epoch {finished}" if finished else "before the first epoch here ended"
                say(f"interrupted {where}; the same command with --resume goes on", err=True)
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


def source_of(data: str, workers: int | None = None) -> DataSource:
    """The data that `--data` names. Errors: SpecError; ArchError where --workers makes no sense"""
    from archdsl.training import parse_source

    found = data_fields(data)
    if workers is not None:
        if isinstance(found, str):
            name, colon, path = found.partition(":")
            found = {"type": name, **({"path": path} if colon else {})}
        if found["type"] == "synthetic":
            message = "generated images are not decoded, so there is nothing for --workers to do"
            raise ArchError.at("--workers", str(workers), "conflict", message, "leave it out")
        found = {**found, "workers": workers}
    return parse_source(found, at_argument("--data", data))


def _print(found: Trained) -> None:
    accuracy: Any = found.accuracy
    name = found.settings["name"]
    say(f"{name}: top-1 accuracy {accuracy}; ± is one standard error, recipe {accuracy.recipe}")
    minutes = f"{accuracy.seconds:.0f} s" if accuracy.seconds < 120 else f"{accuracy.seconds / 60:.0f} min"
    say(f"{minutes} on {found.device}, {accuracy.num_val} validation images")
    say(f"wrote spec.yaml, model.safetensors, metrics.csv and train.json to {found.folder}")
    for note in found.result.notes:
        echo_note(note)


def check_device(device: str) -> None:
    """Raises: ArchError (`wrong-value`) for a word that is no device"""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        message = f"a device is auto, cpu, cuda or cuda:N, but got {device!r}"
        raise ArchError.at("--device", device, "wrong-value", message, "write --device auto")
