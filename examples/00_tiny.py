"""The whole pipeline by hand: text -> spec -> graph -> PyTorch -> ONNX -> accuracy and latency -> front.

`archdsl search` does all of this with care (resume, intervals, a report). Here it is in a hundred lines, to be read.
Run: python examples/00_tiny.py (about half a minute on a laptop; needs the `ort` extra)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import archdsl
from archdsl.ir.graph import Graph
from archdsl.language import Spec, loads
from archdsl.language.architecture.lower import lower
from archdsl.latency import close_workers, compare
from archdsl.passes.propagate_layouts import data_moving_reorders
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.target import Target
from archdsl.training import parse_recipe, parse_source, train

# 1. An architecture is text. Swin shifts its windows in every other block, so that windows learn of one another.
SWIN = """
name: tiny_swin
input: {size: 32}
defaults: {norm: layer, act: gelu, mlp_ratio: 2}
stem: {type: patch, patch: 4, dim: 32}
stages:
  - {block: swin, depth: 2, heads: 2, window: 2, shift: true}
  - {block: swin, depth: 2, heads: 4, window: 2, shift: true, downsample: patch_merging}
head: {type: classifier, classes: 12}
"""

# 2. Variants say only what differs. Swin-Free drops the shift and takes larger windows instead.
VARIANTS = {
    "tiny_swin": {},
    "tiny_isolated": {"stages.*.shift": False},  # windows never learn of each other: can it solve the task at all?
    "tiny_swin_free": {"stages.*.shift": False, "stages.1.window": 4},
    "tiny_swin_free_br": {
        "stages.*.shift": False,
        "stages.1.window": 4,
        "defaults.norm": "batch",
        "defaults.act": "relu",
    },
}


def load_variants() -> list[Spec]:
    return [loads(SWIN, name, set={"name": name, **changes}) for name, changes in VARIANTS.items()]


def show_graphs(specs: list[Spec]) -> None:
    """3. A spec means a typed graph. A pass then moves tokens as seldom as possible."""
    for spec in specs:
        drawn: Graph = lower(spec)
        settled = archdsl.compile(spec)
        moves = f"{len(data_moving_reorders(drawn))} -> {len(data_moving_reorders(settled))}"
        cost = archdsl.cost(spec)
        print(f"{spec.name:18} {cost.params:7,} parameters  {cost.macs:10,} MACs  tokens are moved {moves} times")


def accuracies(specs: list[Spec]) -> list[float]:
    """4. An accuracy is what real training gives, on images whose label needs both halves of the picture."""
    data = parse_source({"type": "synthetic", "square": 0.25}).open((32, 32))
    recipe = parse_recipe("quick")
    found = []
    for spec in specs:
        outcome = train(archdsl.build(spec, seed=0), data, recipe, seed=0, threads=1)
        print(f"{spec.name:18} accuracy {outcome.accuracy:.3f} after {outcome.epochs} epochs, {outcome.seconds:.1f} s")
        found.append(outcome.accuracy)
    return found


def latencies(specs: list[Spec]) -> list[float]:
    """5. A latency is measured on a real runtime, in another process, the networks in turns."""
    target = Target("onnxruntime", batch=1)
    with tempfile.TemporaryDirectory() as folder:
        artefacts = []
        for spec in specs:
            path = Path(folder) / f"{spec.name}.onnx"
            archdsl.export_onnx(spec, path)
            artefacts.append(Artefact("onnx", archdsl.identity(spec), (3, 32, 32), path=path, name=spec.name))
        comparison = compare(artefacts, target, budget_s=1.0)
    for spec, timing, ratio in zip(specs, comparison.timings, comparison.ratios, strict=True):
        print(f"{spec.name:18} {timing}, {ratio.median:.2f} of the first's")
    return [timing.median_ms for timing in comparison.timings]


def main() -> None:
    specs = load_variants()
    show_graphs(specs)
    accuracy, latency_ms = accuracies(specs), latencies(specs)
    close_workers()

    # 6. The front: networks that no other beats in both.
    points = list(zip(accuracy, latency_ms, strict=True))
    front = [
        spec.name
        for spec, (a, t) in zip(specs, points, strict=True)
        if not any(b >= a and u <= t and (b, u) != (a, t) for b, u in points)
    ]
    print(f"on the front: {', '.join(front)}")


if __name__ == "__main__":
    main()
