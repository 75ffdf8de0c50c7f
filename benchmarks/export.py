"""ONNX export: how long it takes and how much memory, ours and torch's.

    python benchmarks/export.py [--rounds 3]

Time: `archdsl.export_onnx("swin_t", file, weights)`, from the name of the spec to the deployed network on disk, against
`torch.onnx.export(dynamo=True)` of timm's Swin-T, both with static shapes, by turns in one process.
Memory: the highest resident memory (VmHWM) of a fresh process that exports Swin-B, weights in memory included.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from paired import compare


def export_time(rounds: int, folder: Path) -> None:
    import torch
    from timm_models import timm_model

    import archdsl
    from archdsl.backends.initial import initial_weights

    weights = initial_weights(archdsl.compile("swin_t"))
    model, image = timm_model("swin_tiny_patch4_window7_224"), torch.zeros(1, 3, 224, 224)

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            torch.onnx.export(model, (image,), folder / "theirs.onnx", dynamo=True)

    forms = {
        "archdsl.export_onnx": lambda: archdsl.export_onnx("swin_t", folder / "ours.onnx", weights),
        "torch.onnx.export": theirs,
    }
    taken = compare(forms, rounds=rounds, warm_up=1)
    print(f"Export of Swin-T with its weights to disk, {rounds} rounds")
    for name, times in taken.items():
        low, high = times.spread
        print(f"  {name:22} {times.median:8.2f} s   {times.ratio:6.1f} times ours [{low:.1f}, {high:.1f}]")


def export_memory(spec: str, folder: Path) -> None:
    child = [sys.executable, __file__, "--child", spec, str(folder / "big.onnx")]
    got = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    weights = got["weights"]
    print(f"Memory of the export of {spec} (weights {weights / 1e6:.0f} MB) in a fresh process")
    print(f"  after imports          {got['imported'] / 1e6:8.0f} MB")
    print(f"  with weights           {got['loaded'] / 1e6:8.0f} MB")
    print(f"  highest                {got['highest'] / 1e6:8.0f} MB")
    over = got["highest"] - got["imported"]
    print(
        f"  highest - imports      {over / 1e6:8.0f} MB   {over / weights:.2f} times the weights, themselves included"
    )
    print(f"  the export             {got['seconds']:8.2f} s")


def child(spec: str, path: str) -> None:
    """Export once; print what it took as JSON."""
    import time

    import onnx_ir  # noqa: F401  # what the export imports counts as imports

    import archdsl
    from archdsl.backends.initial import initial_weights
    from archdsl.backends.onnx import model as onnx_model  # noqa: F401

    imported = memory("VmHWM")
    weights = initial_weights(archdsl.compile(spec))
    loaded = memory("VmHWM")
    start = time.perf_counter()
    archdsl.export_onnx(spec, path, weights)
    seconds = time.perf_counter() - start
    taken = {"imported": imported, "loaded": loaded, "highest": memory("VmHWM"), "seconds": seconds}
    print(json.dumps(taken | {"weights": sum(x.nbytes for x in weights.values())}))


def memory(key: str) -> int:
    """Bytes, from Linux's account of this process. VmHWM is the highest resident size since the program started."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--child", nargs=2, metavar=("SPEC", "FILE"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        child(*given.child)
        return
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        export_memory("swin_b", Path(folder))
        export_time(given.rounds, Path(folder))


if __name__ == "__main__":
    main()
