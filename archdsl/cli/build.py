"""`archdsl build`: a spec as files to run, to train or to own, and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import click

from archdsl.backends.onnx.dialects import DIALECTS
from archdsl.backends.precision import PRECISIONS
from archdsl.builds.plan import KINDS, Plan
from archdsl.cli.output import human, json_option, print_json, set_option
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.spec.load import load
from archdsl.spec.model import Spec
from archdsl.spec.yaml_text import scalar_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_IMAGES = 64
"""How many images calibrate and measure a build."""
MOST_AT_ONCE = 4096


@click.command(
    epilog="Examples: archdsl build swin_t -o out/ · archdsl build swin_t --weights w.safetensors --from timm"
    " --emit onnx --precision fp16 -o out/"
)
@click.argument("spec", metavar="SPEC")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for what is built; without it, only try.")
@click.option(
    "--emit", multiple=True, type=click.Choice(KINDS), help="What to write, repeatable [default: torch and onnx]."
)
@click.option("--weights", type=click.Path(path_type=Path), help="A .safetensors file (or .pth, see --allow-pickle).")
@click.option("--from", "source", help="Whose names the weights file uses [default: archdsl].")
@click.option("--allow-pickle", is_flag=True, help="Read .pth files; only for files you trust.")
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights, when none are given.")
@click.option("--deploy/--no-deploy", default=True, show_default=True, help="Rewrite onnx and pt2 for inference.")
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Of onnx, pt2, tensorrt.",
)
@click.option("--batch", default="1", show_default=True, help="Images these take at once, or `dynamic`.")
@click.option("--for", "runtime", type=click.Choice(list(DIALECTS)), help="Write onnx as is fastest on this runtime.")
@click.option("--engine", multiple=True, metavar="KEY=VALUE", help="Of the TensorRT builder: optimization_level=5, …")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Real images to measure and calibrate with: .npy or a folder."
)
@set_option
@json_option
def build(
    spec: str,
    out: Path | None,
    emit: tuple[str, ...],
    weights: Path | None,
    source: str | None,
    allow_pickle: bool,
    seed: int,
    deploy: bool,
    precision: str,
    batch: str,
    runtime: str | None,
    engine: tuple[str, ...],
    images: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Build SPEC and write it to a folder, with build.json, which says what was made, from what, and how true it is.

    SPEC may be the folder of an earlier build: its spec.yaml, with its model.safetensors.

    \b
    torch     model.safetensors, the weights by archdsl's names
    source    model.py, one plain PyTorch file of your own, and its weights
    onnx      model.onnx, in the deploy form unless --no-deploy
    pt2       model.pt2, an exported program that runs without archdsl
    tensorrt  model.engine, for the NVIDIA GPU of this machine

    Each artefact but an engine is run on the same images as the fp32 network; one that answers differently is refused.
    int8 needs real images: an .npy file of floats [N, C, H, W], normalised, or a folder with train/ and val/ as for
    training. Foreign weights are imported strictly: every tensor is used, or named as unused.
    """
    spec, weights = _of_a_build(spec, weights)
    artefacts = [("--emit", ", ".join(emit), ""), ("--precision", precision, "fp32"), ("--batch", batch, "1")]
    artefacts += [("--for", runtime or "", ""), ("--engine", " ".join(engine), "")]
    _check_options(out, artefacts, weights, source, allow_pickle)
    loaded = load(spec, set=list(overrides) or None)
    plan = Plan(
        loaded,
        weights=_weights(loaded, weights, source or "archdsl", allow_pickle),
        weights_from=str(weights) if weights else f"initial weights, seed {seed}",
        emit=emit or Plan.emit,
        deploy=deploy,
        precision=precision,
        batch=_batch(batch),
        runtime=runtime,
        engine=_engine(engine),
        images=_images(images, loaded),
        images_from=str(images) if images else "generated",
        seed=seed,
    )
    facts = _facts(plan, out)
    if as_json:
        print_json(facts)
    else:
        _print(facts, out)
    return 0


def _facts(plan: Plan, out: Path | None) -> dict[str, Any]:
    """What `build.json` says, or would."""
    plan.check()
    from archdsl.builds.artefact import make_ready
    from archdsl.builds.write import facts_of, write_build

    return write_build(plan, out) if out else facts_of(make_ready(plan))


def _of_a_build(spec: str, weights: Path | None) -> tuple[str, Path | None]:
    """The spec and weights, where `spec` may be a folder that was built."""
    folder = Path(spec)
    if not (folder / "spec.yaml").is_file():
        return spec, weights
    found = folder / "model.safetensors"
    if weights is None and not found.is_file():
        message = f"{folder} has no model.safetensors, so its weights are not known"
        hint = f"build it with --emit torch, or build {folder / 'spec.yaml'} with --weights"
        if (folder / "train.json").is_file():
            hint = f"end its training first: archdsl train … --out {folder} --resume"
        raise ArchError(Problem(at_argument("spec", spec), "missing-file", message, hint))
    return str(folder / "spec.yaml"), weights or found


def _check_options(
    out: Path | None,
    artefacts: Sequence[tuple[str, str, str]],
    weights: Path | None,
    source: str | None,
    pickle: bool,
) -> None:
    """Errors: ArchError when an option would have no effect.

    artefacts: the options about what is written, with what came and what is usual
    """
    problems = []
    option, got = next(((option, got) for option, got, usual in artefacts if got != usual), ("", ""))
    if out is None and option:
        message = f"{option} says what to write, but not where"
        problems.append(Problem(at_argument(option, got), "missing-key", message, "give a folder with -o"))
    for option, got, given in (("--from", source or "", bool(source)), ("--allow-pickle", "", pickle)):
        if given and weights is None:
            message = f"{option} is about a weights file, and there is none"
            problems.append(Problem(at_argument(option, got), "missing-key", message, "name the file with --weights"))
    if problems:
        raise ArchError(problems)


def _weights(spec: Spec, path: Path | None, source: str, allow_pickle: bool) -> Mapping[str, Any] | None:
    if path is None:
        return None
    from archdsl.weights.importing import import_weights
    from archdsl.weights.reading import read_weights

    return import_weights(spec, read_weights(path, allow_pickle=allow_pickle), source=source)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MOST_AT_ONCE:
        message = f"a batch is a whole number from 1 to {MOST_AT_ONCE}, or `dynamic`, but got {text!r}"
        raise ArchError(Problem(at_argument("--batch", text), "wrong-value", message, "write --batch 1"))
    return int(text)


def _engine(words: tuple[str, ...]) -> dict[str, Any]:
    """Fields of `EngineOptions` from `key=value`. Errors: ArchError, one problem for each that is none."""
    if not words:
        return {}
    from archdsl.backends.trt.options import KNOBS

    found: dict[str, Any] = {}
    problems = []
    for word in words:
        key, _, text = word.partition("=")
        value = scalar_of(text)
        if key not in KNOBS:
            message = f"the TensorRT builder has no option {key!r}"
            problems.append(
                Problem(at_argument("--engine", word), "unknown-name", message, f"one of {', '.join(KNOBS)}")
            )
        elif type(value) is not KNOBS[key]:
            message = f"{key} is {KNOBS[key].__name__}, but got {text!r}"
            problems.append(Problem(at_argument("--engine", word), "wrong-type", message))
        else:
            found[key] = value
    if problems:
        raise ArchError(problems)
    return found


def _images(path: Path | None, spec: Spec) -> NDArray[Any] | None:
    """The first images of an array file [N, C, H, W], or some of the validation set of an image folder."""
    if path is None:
        return None
    import numpy as np

    try:
        found = _of_folder(path, spec) if path.is_dir() else np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it holds several arrays")
        found = np.array(found[:MOST_IMAGES] if found.ndim else found)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        message = f"{path} cannot be read as images: {error}"
        hint = "give an .npy file of floats [N, C, H, W], or a folder with train/ and val/"
        raise ArchError(Problem(at_argument("--images", str(path)), "cannot-read", message, hint)) from error
    return np.ascontiguousarray(found, np.float32) if found.dtype.kind == "f" else found


def _of_folder(path: Path, spec: Spec) -> NDArray[Any]:
    import numpy as np

    from archdsl.training.data.imagefolder import Folder, ImageFolder

    data = ImageFolder(path=str(path), workers=0).open(spec.input.size)
    assert isinstance(data, Folder)
    data.val = data.val[:: max(1, len(data.val) // MOST_IMAGES)]  # some of each class: they are in order
    images = [batch.numpy() for batch, _ in data.val_batches(MOST_IMAGES)]
    return np.concatenate(images) if images else np.empty(0, np.float32)


def _print(facts: dict[str, Any], out: Path | None) -> None:
    shapes = " -> ".join(f"[{', '.join(map(str, facts[end]))}]" for end in ("input", "output"))
    click.echo(f"{facts['name']}: {human(facts['params'])} parameters, {human(facts['macs'])} MACs, {shapes}")
    click.echo(f"weights: {facts['weights']}; it ran, and its output is finite")
    for made in facts.get("artefacts", []):
        click.echo(f"{', '.join(made['files'])}: {made['form']} form, {made['precision']}; {_parity(made)}")
    if out is not None:
        click.echo(f"wrote {', '.join(file['name'] for file in facts['files'])} and build.json to {out}")


def _parity(made: dict[str, Any]) -> str:
    parity = made["parity"]
    if parity is None:
        return f"not run: {made['unmeasured']}"
    return (
        f"max error {parity['max_rel_error']:.1e} of the largest output, cosine {parity['cosine']:.6f}, "
        f"top-1 agrees on {parity['top1_agreement']:.0%} of {parity['images']} images ({made['run_by']})"
    )
