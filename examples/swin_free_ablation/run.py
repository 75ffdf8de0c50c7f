"""Swin-Free's ablations at a size that a CPU trains: shift per stage (its Table 4) and window per stage (its Table 5).

    python examples/swin_free_ablation/run.py             # 14 networks, 4 seeds each: about 20 minutes on one core
    python examples/swin_free_ablation/run.py --rehearse  # one epoch, one seed: does it run?

`mini_swin.yaml` has Swin's four stages at 4/7 of their maps and windows: 4 is the paper's window 7, 8 its 14. The
data are archdsl's generated pictures, whose label needs both halves of the image. Runs that are done are kept in
results.jsonl and not done again; the tables are printed, and drawn as ablation.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import archdsl
from archdsl.evaluators import TrainEvaluator
from archdsl.language import Spec
from archdsl.training import Accuracy, JsonLines, parse_recipe, parse_source

HERE = Path(__file__).parent
DATA = {"type": "synthetic", "square": 0.2, "noise": 0.5, "colours": 6}
EPOCHS, SEEDS = 2, 4
"""By the fourth epoch nearly all of them are perfect; what is compared is how fast they learn."""
RECIPE = {"extends": "quick", "lr": 0.002}  # at the 0.004 of micro networks, one run in three of these never learns

SHIFTS = ("1111", "0111", "0011", "0001", "0010", "0100", "1000", "0000")
"""Cases of Table 4: whether each stage shifts. The last stage's window covers its map, so its bit changes nothing."""
WINDOWS = (
    (4, 4, 4, 4),
    (4, 4, 8, 4),
    (4, 8, 4, 4),
    (8, 4, 4, 4),
    (4, 8, 8, 4),
    (8, 4, 8, 4),
    (8, 8, 4, 4),
    (8, 8, 8, 4),
)
"""Cases of Table 5, in its order: windows per stage, no shift anywhere."""


def network(shifts: str, windows: tuple[int, ...] = (4, 4, 4, 4)) -> Spec:
    """mini_swin with these shifts and windows, its head fit for the data."""
    changes: dict[str, Any] = {f"stages.{i}.shift": bit == "1" for i, bit in enumerate(shifts)}
    changes |= {f"stages.{i}.window": window for i, window in enumerate(windows)}
    changes["head.classes"] = DATA["colours"] * (DATA["colours"] - 1)
    return archdsl.load(HERE / "mini_swin.yaml", set=changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="one epoch and one seed, nothing is kept")
    options = parser.parse_args()
    epochs, seeds = (1, 1) if options.rehearse else (EPOCHS, SEEDS)
    evaluator = TrainEvaluator(
        parse_source(DATA),
        parse_recipe(RECIPE, epochs=epochs),
        build=archdsl.build,
        identify=archdsl.identity,
        num_seeds=seeds,
        results={} if options.rehearse else JsonLines(HERE / "results.jsonl"),
        report=lambda seed, epoch: print(f"  seed {seed}, epoch {epoch.number}: {epoch.val_accuracy:.3f}", flush=True),
    )
    tables = {
        "Shift per stage, window 4 everywhere (the paper's Table 4)": {
            ",".join(bits): network(bits) for bits in SHIFTS
        },
        "Window per stage, no shift (the paper's Table 5)": {
            ",".join(map(str, windows)): network("0000", windows) for windows in WINDOWS
        },
    }
    rows = {title: measured(cases, evaluator) for title, cases in tables.items()}
    text = "\n\n".join(f"## {title}\n\n{table(found)}" for title, found in rows.items())
    print(text)
    if not options.rehearse:
        (HERE / "ablation.svg").write_text(picture(rows), encoding="utf-8")


def measured(cases: dict[str, Spec], evaluator: TrainEvaluator[Spec]) -> dict[str, Accuracy]:
    found = {}
    for name, spec in cases.items():
        print(name, flush=True)
        found[name] = evaluator(spec, seed=0)
    return found


def table(rows: dict[str, Accuracy]) -> str:
    """Mean over the seeds, and one standard error of it."""
    lines = ["| stages | accuracy | of each seed |", "|---|---|---|"]
    for name, found in rows.items():
        each = " ".join(f"{value:.3f}" for value in found.values)
        lines.append(f"| {name} | {found.mean:.3f} ± {found.standard_error:.3f} | {each} |")
    return "\n".join(lines)


def picture(tables: dict[str, dict[str, Accuracy]]) -> str:
    """A dot for each seed and a bar at the mean, a row for each network."""
    left, width, step, top = 120, 460, 24, 40
    parts, y = [], 0.0
    for title, rows in tables.items():
        y += top
        parts.append(f'<text x="{left}" y="{y - 14}" font-weight="600">{title}</text>')
        for name, found in rows.items():
            parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{name}</text>')
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#d1d9e0"/>')
            at = left + width * found.mean
            parts.append(f'<line x1="{at}" x2="{at}" y1="{y - 8}" y2="{y + 8}" stroke="#0969da" stroke-width="3"/>')
            dots = (left + width * value for value in found.values)
            parts.extend(f'<circle cx="{dot}" cy="{y}" r="4" fill="#0969da" fill-opacity=".4"/>' for dot in dots)
            y += step
        parts.extend(
            f'<text x="{left + width * tick / 4}" y="{y}" text-anchor="middle" fill="#59636e">{tick / 4:.0%}</text>'
            for tick in range(5)
        )
        y += step
    style = 'font-family="system-ui, sans-serif" font-size="13"'
    size = f'viewBox="0 0 {left + width + 40} {y:.0f}"'
    page = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', page, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
