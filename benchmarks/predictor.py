"""How well are latencies predicted from segments? Networks are measured only after they were predicted.

    python benchmarks/predictor.py [--space search/swin_free_imagenet.yaml] [--held-out 40] [--json]
    python benchmarks/predictor.py --rehearse        # micro networks, under a minute: does the script run?

With an empty timing cache: the segments of the space's networks are timed, all in turns in one worker; then the
networks from which the predictor learns, which it chooses itself, in turns too. MACs and parameters as predictors get a
line fitted to the same networks. Then networks drawn at random, which are none of those, are predicted, and measured in
groups whose members take turns.

Each group also holds an anchor, the middle one of the networks that were learnt from. A machine that has become slower
since then made the anchor slower too; times are divided by how much. Without that, ten minutes of a shared machine's
history would be in the error. Both are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from archdsl.events import Event, Step
from archdsl.language import load_space
from archdsl.latency import TimingCache, close_workers
from archdsl.latency.predictor.holdout import Checked, check, hold_out
from archdsl.latency.predictor.networks import networks_of
from archdsl.latency.predictor.predictions import Forecast, forecast
from archdsl.report.prediction_rows import checked_json
from archdsl.runtimes.target import Target, resolve
from archdsl.telemetry.cpu import cpu_name, load_average

SPACE = "search/swin_free_imagenet.yaml"
REHEARSAL = {"space": "quickstart", "sample": 12, "held_out": 4, "networks": 3, "segment_s": 0.02, "network_s": 0.03}
NAMES = {"segments": "**archdsl, segments**", "macs": "MACs, a line", "params": "parameters, a line"}


def main() -> None:
    options = read_options()
    target = Target.parse({"runtime": options.on, "batch": options.batch, "threads": options.threads})
    start, load = time.monotonic(), load_average()
    try:
        with tempfile.TemporaryDirectory(prefix="archdsl-benchmark-") as folder:
            made = predicted(options, target, TimingCache(Path(folder)))
        held = hold_out(made, options.held_out, seed=options.seed)
        if len(held) < options.held_out:
            sys.exit(f"only {len(held)} networks are left to hold out, {options.held_out} are wanted: raise --sample")
        found = check(made, held, target, budget_s=options.network_s, attempts=options.attempts, on_event=show)
    finally:
        close_workers()
    facts = facts_of(made, found, target, time.monotonic() - start, load)
    print(json.dumps(facts, indent=2) if options.json else table(facts, options.space))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default=SPACE)
    parser.add_argument("--on", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=200, help="networks drawn from the space, to choose among")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--networks", type=int, default=11, help="measured whole, to learn from")
    parser.add_argument("--segments", type=int, default=60, help="at most so many, the call included")
    parser.add_argument("--segment-s", type=float, default=0.5, help="seconds of timed runs of each")
    parser.add_argument("--network-s", type=float, default=1.0)
    parser.add_argument("--attempts", type=int, default=1, help="of a group, while others use our cores")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rehearse:
        vars(options).update(REHEARSAL)
    return options


def show(event: Event) -> None:
    if isinstance(event, Step):
        print(f"{time.strftime('%H:%M:%S')} {event.text}", file=sys.stderr, flush=True)


def predicted(options: argparse.Namespace, target: Target, cache: TimingCache) -> Forecast:
    show(Step(f"drawing {options.sample} networks of {options.space}"))
    networks = networks_of(load_space(options.space), sample=options.sample, seed=options.seed)
    return forecast(
        networks,
        target,
        cache=cache,
        num_networks=options.networks,
        most_segments=options.segments,
        segment_s=options.segment_s,
        network_s=options.network_s,
        on_event=show,
    )


def facts_of(made: Forecast, found: Checked, target: Target, seconds: float, load: float) -> dict[str, Any]:
    calibration, predictor = made.calibration, made.calibration.predictor
    asked = time.perf_counter()
    for network in found.networks:
        predictor.predict(network.spec)
    return {
        "target": target.as_json(),
        "fingerprint": resolve(target).fingerprint,
        "machine": cpu_name(),
        "load_average_at_start": load,
        "seconds": seconds,
        "networks_drawn": len(made.networks),
        "networks_predicted": len(made.predicted),
        "segments_measured": calibration.segments,
        "networks_measured": calibration.networks,
        "left_out_error": predictor.left_out_error,
        "predict_ms": 1000 * (time.perf_counter() - asked) / len(found.networks),
        **checked_json(found),
    }


def table(facts: dict[str, Any], space: str) -> str:
    """Markdown."""
    rows = [(NAMES[quality["name"]], quality) for quality in facts["qualities"]]
    rows.insert(1, ("the same, not corrected for drift", facts["without_drift_correction"]))
    lines = [
        f"`python benchmarks/predictor.py`: {len(facts['networks'])} networks of `{space}`, drawn at random, "
        f"predicted, then measured in groups that take turns. {facts['fingerprint']}.",
        "",
        f"Measured before: {facts['segments_measured']} segments (one of them the empty call) and "
        f"{facts['networks_measured']} whole networks; error on those when left out: "
        f"{facts['left_out_error']:.1%}. Predicting one network takes {facts['predict_ms']:.1f} ms. Drift of the "
        f"anchor, group by group: {', '.join(f'{drift:.3f}' for drift in facts['drift'])}. "
        f"Everything took {facts['seconds'] / 60:.1f} minutes; load average at the start "
        f"{facts['load_average_at_start']:.1f}.",
        "",
        "| predictor | mean error (MAPE) | Spearman | in the 90 % interval | its width |",
        "|---|---|---|---|---|",
    ]
    for name, quality in rows:
        cells = [
            f"{quality['mape']:.1%}",
            "" if quality["spearman"] is None else f"{quality['spearman']:.3f}",
            "" if quality["coverage"] is None else f"{quality['coverage']:.0%}",
            "" if quality["width"] is None else f"{quality['width']:.1%}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
