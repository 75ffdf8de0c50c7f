"""Every shipped spec at full size: counts, a training step, parity on PyTorch and ONNX Runtime, NVIDIA's compiler.

    python benchmarks/all_specs.py [SPEC …] [--out all_specs.jsonl] [--largest 100M] [--no-engines]

For each network: whether it comes to what `expect` says; whether one step of training gives every weight a finite
gradient that is not 0 throughout; how far its deploy form in fp32 is from its train form on PyTorch and on ONNX
Runtime (as `deploy_parity.py`); whether TensorRT for RTX takes it in fp16 for SM86, and what it makes of it. Each row
is appended to --out as soon as it is known; rows that are there are not made again, so that the script can be
interrupted. Specs that are one network in training and at inference are run once. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from deploy_parity import rows, telling_module

import archdsl
from archdsl.language.architecture.model import Spec
from archdsl.language.text.quantities import count_text, read_count

SPECS = Path(__file__).parents[1] / "specs"
ENGINE = {"gpu": "sm86", "precision": "fp16", "batch": 1}


def expected(spec: Spec) -> str:
    """Whether the counts are those that the spec expects."""
    costs = archdsl.cost(spec)
    if spec.expect is None:
        return "none stated"
    wrong = [name for name in ("params", "macs") if getattr(spec.expect, name) not in (None, getattr(costs, name))]
    return f"**other {', '.join(wrong)}**" if wrong else "met"


def gradients(spec: Spec) -> str:
    """Which weights have no finite gradient, or none at all, after one step on two images of noise."""
    module = telling_module(spec).train()
    for drop in (each for each in module.modules() if hasattr(each, "rate")):
        drop.eval()  # which may leave out a whole block for both images
    draw = torch.Generator().manual_seed(0)
    module.zero_grad()
    outputs = module(torch.randn(2, spec.input.channels, *spec.input.size, generator=draw))
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, tuple) else [outputs]
    sum((value * torch.randn(value.shape, generator=draw)).mean() for value in values).backward()
    wrong = [
        name
        for name, weight in module.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.abs().sum() > 0
    ]
    return "all finite" if not wrong else f"**{len(wrong)} wrong**, such as {wrong[0]}"


def parity(spec: Spec) -> dict[str, str]:
    """The largest error of the deploy form, by runtime; with what does not pass its gate in bold."""
    found = {}
    for precision, runtime, error, _, _, gate in rows(spec, ["fp32"], 2):
        del precision
        found[runtime] = error if gate == "passed" else f"**{error or gate}**"
    return found


def engine(name: str) -> dict[str, Any]:
    """What NVIDIA's compiler makes of it; nothing is run."""
    try:
        report = archdsl.compile_engine(name, **ENGINE)
    except archdsl.errors.ArchError as error:
        return {"engine": f"**{error.problems[0].message[:120]}**"}
    fused = f"{report.attentions_fused}/{report.attentions}" if report.attentions else "–"
    return {"engine": f"{report.kernels} kernels, {report.bytes_moved / 1e6:.0f} MB", "fused": fused}


def row(name: str, *, engines: bool) -> dict[str, Any]:
    """All about one spec; what fails is said in its cell."""
    spec, begun = archdsl.load(name), time.monotonic()
    costs = archdsl.cost(spec)
    found: dict[str, Any] = {
        "spec": name, "identity": archdsl.identity(spec), "params": costs.params, "macs": costs.macs,
        "expect": expected(spec),
    }  # fmt: skip
    for key, make in (("gradients", gradients), ("parity", parity)):
        try:
            found[key] = make(spec)
        except Exception as error:  # whatever a library raises is this row's result
            found[key] = f"**{type(error).__name__}: {str(error).splitlines()[0][:120]}**"
        gc.collect()
    if engines:
        found |= engine(name)
    return found | {"seconds": round(time.monotonic() - begun)}


def cells(found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    apart = found["parity"] if isinstance(found["parity"], dict) else {"torch": found["parity"]}
    counts = [count_text(found["params"]), count_text(found["macs"])]
    return [
        f"`{found['spec']}`", *counts, found["expect"], found["gradients"], apart.get("torch", ""),
        apart.get("onnxruntime", ""), found.get("engine", ""), found.get("fused", ""),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="by default all that are shipped")
    parser.add_argument("--out", type=Path, default=Path("all_specs.jsonl"))
    parser.add_argument("--largest", type=read_count, help="leave out networks of more parameters")
    parser.add_argument("--no-engines", action="store_true", help="leave NVIDIA's compiler out")
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    there = {(one["spec"], one["identity"]) for one in known}
    names = options.specs or sorted(path.stem for path in SPECS.glob("*.yaml"))
    seen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: archdsl.cost(name).macs):
        identity = archdsl.identity(name)
        if seen.setdefault(identity, name) != name or (name, identity) in there:
            continue
        if options.largest is not None and archdsl.cost(name).params > options.largest:
            continue
        known.append(row(name, engines=not options.no_engines))
        with options.out.open("a") as file:
            file.write(json.dumps(known[-1]) + "\n")
        print(*cells(known[-1]), f"{known[-1]['seconds']} s", file=sys.stderr, flush=True)
    head = ["spec", "parameters", "MACs", "expect", "gradients", "torch", "ONNX Runtime", "TensorRT for RTX", "fused"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for found in known:
        print(f"| {' | '.join(cells(found))} |")


if __name__ == "__main__":
    main()
