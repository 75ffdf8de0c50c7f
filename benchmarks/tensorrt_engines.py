"""What NVIDIA's TensorRT for RTX makes of networks, for GPUs that are not here: kernels, bytes, fused attentions.

    python benchmarks/tensorrt_engines.py [SPEC|timm:NAME|FILE.onnx …] [--gpu sm86,sm120] [--precision fp16]
                                          [--batch 1,8] [--out engines.jsonl]

Without networks: all shipped specs that differ. Without --gpu: every capability that the compiler builds for. Each
network is exported once for a precision and batch, and compiled for each GPU. With --out each row is appended to a file
as it is made, and rows that are there already, of the same network, GPU, precision, batch and compiler, are not made
again: the script can be interrupted and started anew. The table is printed as Markdown at the end.

Nothing is run. The estimate is a roofline that was not validated (docs/engines.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archdsl
from archdsl.backends.trt.gpus import BUILT_FOR
from archdsl.backends.trt.library import RTX, load_tensorrt
from archdsl.errors import ArchError
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.target import Target
from archdsl.runtimes.timm_models import PREFIX, reference_network

SPECS = Path(__file__).parents[1] / "specs"
FACTS = ("kernels", "bytes_moved", "attentions", "attentions_fused", "engine_bytes", "build_s", "estimate_ms")
KEY = ("network", "identity", "gpu", "precision", "batch", "compiler")


def distinct() -> list[str]:
    """The names of the shipped specs, one for each network."""
    found: dict[str, str] = {}
    for path in sorted(SPECS.glob("*.yaml")):
        found.setdefault(archdsl.identity(path.stem, training=False), path.stem)
    return list(found.values())


def identity_of(name: str) -> str:
    """What must be equal for a row to be of the same network."""
    if name.startswith(PREFIX):
        return name
    if name.endswith(".onnx"):
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()
    return archdsl.identity(name, training=False)


def model_of(name: str, target: Target, folder: Path) -> Path:
    """The network's ONNX file, as the compiler gets it."""
    if name.endswith(".onnx"):
        return Path(name)
    network = reference_network(name) if name.startswith(PREFIX) else None
    path = network.made(target, folder)[0].path if network else artefact_of(archdsl.load(name), target, folder).path
    assert path is not None
    return path


def rows(names: list[str], gpus: list[str], precision: str, batches: list[int], known: list[dict]) -> Iterator[dict]:
    """Each row that is not known yet, as soon as it is made."""
    compiler = f"{RTX.title} {load_tensorrt(RTX).__version__}"
    there = {tuple(row[name] for name in KEY) for row in known}
    for name in names:
        for batch in batches:
            keys = [
                dict(zip(KEY, (name, identity_of(name), gpu, precision, batch, compiler), strict=True)) for gpu in gpus
            ]
            wanted = [key for key in keys if tuple(key.values()) not in there]
            if not wanted:
                continue
            with tempfile.TemporaryDirectory(prefix="archdsl-") as folder:
                target = Target("tensorrt-rtx", device="cuda", precision=precision, batch=batch)
                model = model_of(name, target, Path(folder))
                for key in wanted:
                    yield {**key, **compiled(model, key["gpu"], batch)}


def compiled(model: Path, gpu: str, batch: int) -> dict[str, Any]:
    """The facts of one engine, or why there is none."""
    start = time.perf_counter()
    try:
        report = archdsl.compile_engine(model, gpu, batch=batch)
    except ArchError as error:
        return {"refused": error.problems[0].message, "seconds": round(time.perf_counter() - start, 2)}
    counts = {"moves": len(report.moves), "padding": report.padding("attention")}
    return {**{name: getattr(report, name) for name in FACTS}, **counts}


def table(found: list[dict]) -> str:
    """The rows as Markdown."""
    heads = ["network", "GPU", "precision", "batch", "kernels", "only move data", "attentions fused", "GB moved"]
    heads += ["engine, MB", "built in, s", "estimate, ms (not validated)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in found:
        cells = [row["network"], row["gpu"], row["precision"], str(row["batch"])]
        if "refused" in row:
            lines.append(f"| {' | '.join(cells)} | refused: {row['refused']}{' |' * (len(heads) - 4)}")
            continue
        fused = f"{row['attentions_fused']} of {row['attentions']}" if row["attentions"] else "–"
        cells += [str(row["kernels"]), str(row["moves"]), fused, f"{row['bytes_moved'] / 1e9:.3f}"]
        cells += [f"{row['engine_bytes'] / 1e6:.1f}", f"{row['build_s']:.1f}"]
        cells.append("–" if row["estimate_ms"] is None else f"{row['estimate_ms']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read(path: Path | None) -> list[dict]:
    """The rows of a file; a line that an interruption cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path is not None and path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--gpu", default=",".join(BUILT_FOR))
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names, gpus, batches = (
        args.networks or distinct(),
        args.gpu.split(","),
        [int(size) for size in args.batch.split(",")],
    )
    known = read(args.out)
    for row in rows(names, gpus, args.precision, batches, known):
        known.append(row)
        if args.out is not None:
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(
            f"{row['network']} {row['gpu']} batch {row['batch']}: {row.get('refused', row.get('kernels'))}", flush=True
        )
    wanted = {(name, gpu, args.precision, batch) for name in names for gpu in gpus for batch in batches}
    print(
        table([row for row in known if tuple(row[name] for name in ("network", "gpu", "precision", "batch")) in wanted])
    )


if __name__ == "__main__":
    main()
