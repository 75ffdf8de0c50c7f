"""Our graphs against timm's modules in PyTorch: eager forward at batch 1 and 8, a training step at batch 8.

The networks hold the same weights, so they compute the same function (for Swin-Free, timm's Swin-T is the opponent, as
in the paper). All are timed in turns, A B C A B C …; the ratio is the median over rounds of timm's time / ours.

Run: OMP_WAIT_POLICY=passive python benchmarks/forward.py [--threads 2] [--rounds 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from paired import Paired, compare
from timm_models import timm_model

import archdsl


def report(title: str, found: dict[str, Paired]) -> None:
    """One row a network; speed-ups are medians over rounds, with their quartiles."""
    for name, paired in found.items():
        low, high = paired.spread
        faster = f"{1 / paired.ratio:.2f} [{1 / high:.2f}, {1 / low:.2f}]"
        print(f"| {title} | {name} | {paired.median * 1e3:.1f} | {faster} |")


def forward(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def training_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    labels = torch.arange(len(images))

    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    reference = timm_model("swin_tiny_patch4_window7_224")
    ours = archdsl.build("swin_t", archdsl.import_weights(archdsl.load("swin_t"), reference.state_dict()))
    free = archdsl.build("swin_free_t")
    networks = {"timm Swin-T": reference, "archdsl Swin-T": ours, "archdsl Swin-Free-T": free}
    print(f"torch {torch.__version__}, {options.threads} threads, fp32, 224 px\n")
    print("| what | network | ms | timm's time / this [quartiles] |\n|---|---|---|---|")
    for batch in (1, 8):
        images = torch.randn(batch, 3, 224, 224)
        runs = {name: forward(model.eval(), images) for name, model in networks.items()}
        report(f"forward, batch {batch}", compare(runs, rounds=options.rounds, warm_up=2))
    images = torch.randn(8, 3, 224, 224)
    steps = {name: training_step(model.train(), images) for name, model in networks.items()}
    report("training step, batch 8", compare(steps, rounds=max(5, options.rounds // 3)))


if __name__ == "__main__":
    main()
