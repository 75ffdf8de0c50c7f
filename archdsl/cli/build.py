"""`archdsl build`: a spec as a PyTorch network, an ONNX model, and the facts about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from archdsl.cli.output import human, json_option, print_json, set_option
from archdsl.compiler import build as build_module
from archdsl.compiler import cost, export_onnx, identity
from archdsl.errors import ArchError, Problem, at_argument
from archdsl.spec.load import load
from archdsl.spec.model import Spec
from archdsl.writing import as_json as json_text
from archdsl.writing import claim_folder, write_file

MARKER = "build.json"
EMITS = ("torch", "onnx")


@click.command(
    epilog="Examples: archdsl build swin_t -o out/ · archdsl build swin_t --weights w.safetensors --from timm"
)
@click.argument("spec", metavar="SPEC")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for what is built; without it, only check.")
@click.option("--emit", multiple=True, type=click.Choice(EMITS), help="What to write [default: all].")
@click.option("--weights", type=click.Path(path_type=Path), help="A .safetensors file (or .pth, see --allow-pickle).")
@click.option("--from", "source", default="archdsl", show_default=True, help="Whose names the weights file uses.")
@click.option("--allow-pickle", is_flag=True, help="Read .pth files; only for files you trust.")
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights, when none are given.")
@set_option
@json_option
def build(
    spec: str,
    out: Path | None,
    emit: tuple[str, ...],
    weights: Path | None,
    source: str,
    allow_pickle: bool,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Build SPEC, run it once, and write it to a folder: spec.yaml, model.safetensors, model.onnx, build.json.

    Foreign weights are imported strictly: every tensor is used, or named as unused.
    """
    loaded = load(spec, set=list(overrides) or None)
    state = _weights(loaded, weights, source, allow_pickle)
    module = build_module(loaded, state, seed=seed)
    facts = _facts(loaded, module, str(weights) if weights else f"initial weights, seed {seed}")
    if out is not None:
        facts["files"] = _write(out, loaded, module, set(emit) or set(EMITS), facts)
    if as_json:
        print_json(facts)
    else:
        _print(facts, out)
    return 0


def _weights(spec: Spec, path: Path | None, source: str, allow_pickle: bool) -> dict[str, Any] | None:
    if path is None:
        return None
    from archdsl.weights.importing import import_weights
    from archdsl.weights.reading import read_weights

    return import_weights(spec, read_weights(path, allow_pickle=allow_pickle), source=source)


def _facts(spec: Spec, module: Any, weights: str) -> dict[str, Any]:
    """What was built, and that it runs: one random image through the network."""
    import torch

    image = torch.randn(1, spec.input.channels, *spec.input.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = module.eval()(image)
    if not bool(torch.isfinite(logits).all()):
        problem = Problem(at_argument("--weights", weights), "not-finite", "the network's output is not finite")
        raise ArchError(problem)
    costs = cost(spec)
    return {
        "name": spec.name,
        "hash": identity(spec),
        "params": costs.params,
        "macs": costs.macs,
        "weights": weights,
        "input": ["batch", spec.input.channels, *spec.input.size],
        "output": ["batch", *logits.shape[1:]],
        "torch": torch.__version__,
    }


def _write(out: Path, spec: Spec, module: Any, emit: set[str], facts: dict[str, Any]) -> list[str]:
    """Write the files, build.json last, so that a folder with it is complete."""
    from archdsl.weights.writing import write_weights

    folder = claim_folder(out, MARKER)
    state = {name: tensor for name, tensor in module.state_dict().items() if "num_batches_tracked" not in name}
    files = ["spec.yaml"]
    write_file(folder / "spec.yaml", spec.to_yaml())
    if "torch" in emit:
        write_weights(folder / "model.safetensors", state)
        files.append("model.safetensors")
    if "onnx" in emit:
        export_onnx(spec, folder / "model.onnx", {name: tensor.numpy() for name, tensor in state.items()})
        files.append("model.onnx")
    write_file(folder / MARKER, json_text({**facts, "files": files}))
    return [*files, MARKER]


def _print(facts: dict[str, Any], out: Path | None) -> None:
    shapes = " -> ".join(f"[{', '.join(map(str, facts[end]))}]" for end in ("input", "output"))
    click.echo(f"{facts['name']}: {human(facts['params'])} parameters, {human(facts['macs'])} MACs, {shapes}")
    click.echo(f"weights: {facts['weights']}; one image ran, output finite")
    if out is not None:
        click.echo(f"wrote {', '.join(facts['files'])} to {out}")
