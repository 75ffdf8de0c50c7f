"""Why would a network without shifts be faster? Count how often Swin and Swin-Free move their tokens, and time it.

Run: python examples/02_why_no_shift.py (needs the `ort` extra)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import archdsl
from archdsl.language import Spec
from archdsl.language.architecture.lower import lower
from archdsl.latency import close_workers, compare
from archdsl.passes.propagate_layouts import data_moving_reorders
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import Target

# One stage-3 block pair less than the paper's, at 112 pixels, so that the example is quick.
SMALLER = {"stages.2.depth": 4, "input.size": 112}


def moved_bytes(spec: Spec) -> tuple[int, int]:
    """Bytes that reorders write for one image: as the papers draw the network, and after the pass."""
    graphs = (lower(spec), archdsl.compile(spec))
    before, after = (sum(node.type.size_bytes for node in data_moving_reorders(graph)) for graph in graphs)
    return before, after


def main() -> None:
    specs = [archdsl.load(name, set=SMALLER) for name in ("swin_t", "swin_free_t")]
    for spec in specs:
        before, after = moved_bytes(spec)
        share = 100 * after / archdsl.compile(spec).cost().bytes_written
        print(
            f"{spec.name:12} moves {before / 1e6:.1f} MB as drawn, {after / 1e6:.1f} MB compiled: {share:.1f} % of all"
        )

    print("\nwhere Swin still moves tokens:")
    for node in data_moving_reorders(archdsl.compile(specs[0])):
        print(f"  {node.path:36} {node.inputs[0].type.order}  ->  {node.type.order}")

    target = Target("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        found = compare([artefact_of(spec, target, Path(folder)) for spec in specs], target, budget_s=2.0)
    close_workers()
    for spec, timing, ratio in zip(specs, found.timings, found.ratios, strict=True):
        print(f"{spec.name:12} {timing}  ({ratio.median:.2f} of Swin's, [{ratio.low:.2f}, {ratio.high:.2f}])")
    print("Larger windows cost MACs that fewer moves do not always pay back: measure on your own runtime.")


if __name__ == "__main__":
    main()
