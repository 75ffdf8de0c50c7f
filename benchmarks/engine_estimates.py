"""How far are the estimates of engines from what others measured and published?

    python benchmarks/engine_estimates.py

`tables/tensorrt_measured.csv` holds the public measurements of networks that we have, in fp16 on TensorRT 10 and on
GPUs that TensorRT for RTX builds for, of GPU time without copies; each with its source. The estimate is of an engine
that TensorRT for RTX compiles here from our graph: another compiler, another export and unknown clocks stand between
the two. Nothing is fitted to these rows.
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import archdsl
from archdsl.language import Spec

TABLE = Path(__file__).parent / "tables" / "tensorrt_measured.csv"

CLIP_VIT_L_14 = {"stem.patch": 14, "stem.dim": 1024, "stages.0.depth": 24, "stages.0.heads": 16, "head.classes": 768}
"""CLIP's image encoder: ViT-L/14 with a projection to 768 numbers, arXiv 2103.00020, table 20."""


def spec_of(name: str) -> Spec:
    return archdsl.load("vit_b_16", set=CLIP_VIT_L_14) if name == "vit_l_14_clip" else archdsl.load(name)


def main() -> None:
    ratios: dict[tuple[str, str], list[float]] = {}
    print("| GPU | network, batch | TensorRT | measured, ms | estimate, ms | ratio |\n|---|---|---|---|---|---|")
    for row in csv.DictReader(TABLE.open(encoding="utf-8")):
        spec, batch = spec_of(row["network"]), int(row["batch"])
        report = archdsl.compile_engine(spec, gpu=row["gpu"], precision=row["precision"], batch=batch)
        assert report.estimate_ms is not None
        ratio = report.estimate_ms / float(row["measured_ms"])
        ratios.setdefault((row["gpu"], row["network"]), []).append(ratio)
        print(
            f"| {row['gpu']} | {row['network']}, {batch} | {row['tensorrt']} | {row['measured_ms']} "
            f"| {report.estimate_ms:.2f} | {ratio:.2f} |",
            flush=True,
        )
    medians = [statistics.median(each) for each in ratios.values()]
    low, high = min(medians), max(medians)
    print(f"\n{len(medians)} networks: the estimate is {low:.2f} to {high:.2f} times the measurement")


if __name__ == "__main__":
    main()
