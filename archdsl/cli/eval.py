"""`archdsl eval`: how accurate is a network as it is deployed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archdsl.backends.precision import PRECISIONS
from archdsl.cli import options
from archdsl.cli.output import INTERRUPTED, echo_note, echo_progress, print_json, say
from archdsl.cli.parameters import SpecName
from archdsl.cli.targets import runtime_and_device
from archdsl.cli.train import check_device, source_of
from archdsl.cli.weights import unused_weights_options, weights_of
from archdsl.errors import ArchError
from archdsl.language.architecture.load import load
from archdsl.language.text.files import StandardInput
from archdsl.runs.network_folder import SPEC, folder_of

if TYPE_CHECKING:
    from archdsl.runs.evaluate import Evaluation


@click.command(
    epilog="Examples: archdsl eval runs/train_swin_t --data imagenet/ · archdsl eval out/ --data imagenet/ --on torch"
    " · archdsl eval swin_t --weights w.safetensors --from timm --data imagenet/ --precision int8"
)
@click.argument("network", metavar="NET|FOLDER|MODEL.onnx", type=SpecName())
@options.data
@options.weights
@options.source
@options.allow_pickle
@options.ema
@click.option("--on", "word", metavar="RUNTIME", help="Where it runs [default: what the file is for, or onnxruntime].")
@click.option("--precision", type=click.Choice(list(PRECISIONS)), help="Of the network [default: the file's, or fp32].")
@click.option("--batch", type=click.IntRange(1, 65536), help="Images at once [default: the file's, or what is usual].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes that decode images [default: the data's, 2].")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the runtime [default: all cores].")
@options.overrides
@options.as_json
def eval(
    network: str | StandardInput,
    data: str,
    weights: Path | None,
    source: str | None,
    allow_pickle: bool,
    ema: bool,
    word: str | None,
    precision: str | None,
    batch: int | None,
    device: str,
    workers: int | None,
    threads: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """The accuracy of a network on DATA, by the answers of the runtime that it is deployed on.

    The network is a spec with --weights, the folder of a training or of a build, or an ONNX file of anybody's. The file
    of a build is run as it is, unless --on or --precision ask for another, which is made from the weights beside it.
    int8 and fp8 then take their ranges from images of the training set.

    Top-1 and top-5 on the validation set, each with its 95 % interval. Class names and preprocessing (mean, std, size,
    crop, interpolation) are those of the training, where train.json, build.json or the file's metadata say them, and
    data of other classes are refused. A field that --data gives wins: {type: imagefolder, path: DIR, crop: 0.9}.
    """
    check_device(device)
    from archdsl.runs.evaluate import evaluate
    from archdsl.study.interrupts import Interrupted, Interrupts
    from archdsl.training.data.facts import with_classes_of

    images = source_of(data, workers)
    runtime = None
    if word is not None:
        runtime, where = runtime_and_device(word, None)
        device = where.get("device", device)
    if problems := unused_weights_options(weights, source, allow_pickle=allow_pickle, ema=ema, new_head=False):
        raise ArchError(problems)
    imported = None
    if weights is not None and not str(network).lower().endswith(".onnx"):
        named = network if folder_of(network) is None else Path(network) / SPEC
        spec = with_classes_of(load(named, overrides, check=False), images)
        imported = weights_of(spec, weights, source, allow_pickle=allow_pickle, ema=ema, new_head=False, seed=0)
    with Interrupts() as interrupts:
        try:
            with interrupts.interruptible():
                found = evaluate(
                    network,
                    images,
                    weights=imported.weights if imported else {} if weights else None,  # an ONNX file takes none
                    weights_from=str(weights),
                    runtime=runtime,
                    precision=precision,
                    device=device,
                    batch=batch,
                    threads=threads,
                    overrides=overrides,
                    seen=echo_progress(),
                    say=echo_note,
                )
        except Interrupted:
            say("interrupted", err=True)
            return INTERRUPTED
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    return 0


def _print(found: Evaluation) -> None:
    for metric in found.metrics:
        say(f"{found.network}: {metric}")
    threads = f", {found.threads} threads" if found.device == "cpu" and found.threads > 1 else ""
    what = found.ran or f"made from {found.weights}"
    say(f"{what}, {found.precision}, on {found.runtime} {found.runtime_version}, {found.device}{threads}")
    images = f"{found.num_images} validation images of {found.num_classes} classes from {found.data}"
    say(f"{images}, {found.seconds:.1f} s")
    for note in found.notes:
        echo_note(note)
