"""`archdsl build`: a spec as files to run, to train or to own, and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from archdsl.backends.onnx.dialects import DIALECTS
from archdsl.backends.parity import agreement_text
from archdsl.backends.precision import PRECISIONS
from archdsl.builds.config import KINDS, BuildConfig
from archdsl.cli import options
from archdsl.cli.build_images import images_of, validator_of
from archdsl.cli.output import echo_note, echo_progress, print_json, say
from archdsl.cli.parameters import SpecName, Words
from archdsl.cli.weights import unused_weights_options, weights_of
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.language.architecture.backbone import backbone_of
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.language.text.files import StandardInput
from archdsl.language.text.quantities import count_text
from archdsl.language.text.yaml_text import scalar_of
from archdsl.runs.network_folder import SPEC, folder_of
from archdsl.runs.trained_on import KEYS, TrainingData
from archdsl.runs.validator import scoring

MOST_AT_ONCE = 4096


@click.command(
    epilog="Examples: archdsl build swin_t -o out/ · archdsl build swin_t --weights w.safetensors --from timm"
    " --emit onnx --precision fp16 -o out/"
)
@click.argument("spec", metavar="SPEC", type=SpecName())
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for what is built; without it, only try.")
@click.option(
    "--emit", multiple=True, type=click.Choice(KINDS), help="What to write, repeatable [default: torch and onnx]."
)
@options.weights
@options.source
@options.allow_pickle
@options.ema
@options.new_head
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights, when none are given.")
@click.option("--deploy/--no-deploy", default=True, show_default=True, help="Rewrite onnx and pt2 for inference.")
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Of onnx, pt2 and engines.",
)
@click.option("--batch", default="1", show_default=True, help="Images these take at once, or `dynamic`.")
@click.option("--features", is_flag=True, help="Build the backbone alone: its feature maps are the outputs, by name.")
@click.option("--for", "runtime", type=click.Choice(list(DIALECTS)), help="Write onnx as is fastest on this runtime.")
@click.option("--opset", type=int, help="Of onnx, 13 or newer [default: 20, for bf16 22, for onnxruntime 23].")
@click.option("--gpu", "gpus", type=Words(), multiple=True, metavar="SM|NAME", help="Of tensorrt-rtx: sm86, rtx4090, …")
@click.option("--engine", multiple=True, metavar="KEY=VALUE", help="Of the TensorRT builder: optimization_level=5, …")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Real images to measure and calibrate with: .npy or a folder."
)
@click.option("--data", metavar="DATA", help="Also tell accuracies on these data; int8 and fp8 calibrate with them.")
@options.overrides
@options.as_json
def build(
    spec: str | StandardInput,
    out: Path | None,
    emit: tuple[str, ...],
    weights: Path | None,
    source: str | None,
    allow_pickle: bool,
    ema: bool,
    new_head: bool,
    seed: int,
    deploy: bool,
    precision: str,
    batch: str,
    features: bool,
    runtime: str | None,
    opset: int | None,
    gpus: tuple[list[str], ...],
    engine: tuple[str, ...],
    images: Path | None,
    data: str | None,
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
    tensorrt-rtx  model.rtx.engine, built ahead of time for the GPUs of --gpu; it needs none

    Each artefact but an engine is run on the same images as the fp32 network; one that answers differently is refused.
    int8 and fp8 need real images: --data, of which it takes some to train on; or --images, an .npy file of floats
    [N, C, H, W], normalised, or a folder with train/ and val/. --data also tells the accuracy of fp32, and of each onnx
    and pt2, on its validation set; a loss beyond half a point is noted. Foreign weights are imported strictly: every
    tensor is used, or named as unused; what was chosen or adapted is printed on stderr and stands in build.json.
    """
    folder = folder_of(spec)
    facts_there = folder.facts if folder is not None and weights is None else {}
    if folder is not None:
        spec, weights = str(folder.path / SPEC), weights or folder.needed_weights()
    artefacts = [("--emit", ", ".join(emit), ""), ("--precision", precision, "fp32"), ("--batch", batch, "1")]
    artefacts += [("--for", runtime or "", ""), ("--opset", "" if opset is None else str(opset), "")]
    chosen = [word for words in gpus for word in words]
    artefacts += [("--engine", " ".join(engine), ""), ("--gpu", ",".join(chosen), "")]
    unused = unused_weights_options(weights, source, allow_pickle=allow_pickle, ema=ema, new_head=new_head)
    _check_options(out, artefacts, unused)
    loaded = load(spec, set=overrides)
    if not facts_there and loaded.trained_on is not None:
        facts_there = loaded.trained_on.model_dump(mode="json", exclude_none=True)
    trained_on = TrainingData.read(facts_there, str(spec))
    imported = weights_of(loaded, weights, source, allow_pickle=allow_pickle, ema=ema, new_head=new_head, seed=seed)
    if features:
        loaded = _without_head(loaded, data)
        needed = lower(loaded).tensors()
        weights_used = {name: imported.weights[name] for name in needed} if imported else None
    else:
        weights_used = imported.weights if imported else None
    validator = validator_of(data, loaded, trained_on, weights, new_head=new_head)
    real, images_from = images_of(images, loaded, trained_on, validator)
    config = BuildConfig(
        loaded,
        weights=weights_used,
        weights_notes=imported.notes if imported else (),
        weights_from=str(weights) if weights else f"initial weights, seed {seed}",
        emit=emit or BuildConfig.emit,
        deploy=deploy,
        precision=precision,
        batch=_batch(batch),
        runtime=runtime,
        opset=opset,
        engine=_engine(engine),
        gpus=chosen,
        images=real,
        images_from=images_from,
        trained_on={key: facts_there[key] for key in KEYS if key in facts_there},
        score=scoring(validator, echo_progress()) if validator else None,
        scored_on=f"{validator.text}: {validator.data.validation}" if validator else "",
        seed=seed,
    )
    facts = _facts(config, out)
    if "image_note" in facts:
        echo_note(facts["image_note"])
    for each in facts.get("artefacts", ()):
        for note in (each[name] for name in ("note", "accuracy_note") if name in each):
            echo_note(note)
    if as_json:
        print_json(facts)
    else:
        _print(facts, out)
    return 0


def _facts(config: BuildConfig, out: Path | None) -> dict[str, Any]:
    """What `build.json` says, or would."""
    config.check()
    from archdsl.builds.artefact import make_ready
    from archdsl.builds.write import facts_of, write_build

    return write_build(config, out) if out else facts_of(make_ready(config))


def _check_options(out: Path | None, artefacts: Sequence[tuple[str, str, str]], unused: list[Problem]) -> None:
    """Errors: ArchError when an option would have no effect.

    artefacts: the options about what is written, with what came and what is usual; unused: what is known already
    """
    problems = []
    option, got = next(((option, got) for option, got, usual in artefacts if got != usual), ("", ""))
    if out is None and option:
        message = f"{option} says what to write, but not where"
        problems.append(Problem(at_argument(option, got), "missing-key", message, "give a folder with -o"))
    if problems := problems + unused:
        raise ArchError(problems)


def _without_head(spec: Spec, data: str | None) -> Spec:
    """The backbone of a spec. Errors: ArchError where something is to be told of answers that it does not give."""
    if data is not None:
        message = "--features builds a network that gives maps and no answers, so there is no accuracy to tell"
        raise ArchError.at("--data", data, "conflict", message, "leave out one of the two")
    return backbone_of(spec)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MOST_AT_ONCE:
        message = f"a batch is a whole number from 1 to {MOST_AT_ONCE}, or `dynamic`, but got {text!r}"
        raise ArchError.at("--batch", text, "wrong-value", message, "write --batch 1")
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


def _print(facts: dict[str, Any], out: Path | None) -> None:
    outputs = facts.get("outputs", {"": facts["output"]})
    shapes = f"{_shape(facts['input'])} -> " + ", ".join(
        f"{name} {_shape(out)}".strip() for name, out in outputs.items()
    )
    say(f"{facts['name']}: {count_text(facts['params'])} parameters, {count_text(facts['macs'])} MACs, {shapes}")
    say(f"weights: {facts['weights']}; it ran, and its output is finite")
    if "accuracy" in facts:
        say(f"accuracy in fp32: {_accuracy(facts['accuracy']['fp32'])}; {facts['accuracy']['scored_on']}")
    for made in facts.get("artefacts", []):
        say(f"{', '.join(made['files'])}: {made['form']} form, {made['precision']}; {_parity(made)}")
        if "kernels" in made:
            fused = f"{made['attentions_fused']} of {made['attentions']} attentions fused"
            say(f"  {made['kernels']} kernels, {fused}; for {made['gpu']}")
        if "accuracy" in made:
            scores = made["accuracy"]
            say(f"  accuracy in {made['precision']}: {_accuracy(scores)}; {_points(scores['change'])}")
    if out is not None:
        say(f"wrote {', '.join(file['name'] for file in facts['files'])} and build.json to {out}")


def _shape(sides: Sequence[object]) -> str:
    return f"[{', '.join(map(str, sides))}]"


def _parity(made: dict[str, Any]) -> str:
    parity = made["parity"]
    if parity is None:
        return f"not run: {made['unmeasured']}"
    agreement = agreement_text(parity["top1_agreement"], parity["images"], parity["pixels"])
    error = f"max error {parity['max_rel_error']:.1e} of the largest output, cosine {parity['cosine']:.6f}"
    return f"{error}, {agreement} ({made['run_by']})"


def _accuracy(scores: Mapping[str, Any]) -> str:
    """`top-1 81.20%, top-5 95.10%`."""
    return ", ".join(f"{metric['name']} {metric['value']:.2%}" for metric in scores["metrics"])


def _points(change: float) -> str:
    return f"{100 * change:+.2f} points" if change else "no change"
