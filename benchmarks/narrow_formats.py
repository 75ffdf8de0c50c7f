"""What int8, int8-weights and fp8 cost in accuracy, on networks that are far from perfect.

    python benchmarks/narrow_formats.py [--seeds 2]

Micro networks learn the generated task with noise 1.0, at which they do not reach its ceiling, and answer 4,096 images
that they have not seen: the fp32 network, and the quantized ONNX files, all by ONNX Runtime's CPU provider. Ranges come
from 256 images of the training set. Printed are accuracies, the loss in points, and how often the first class agrees.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import archdsl
from archdsl.backends.onnx.run import run_onnx
from archdsl.training import parse_recipe, parse_source, train

NETWORKS = ("micro_swin", "micro_swin_free", "micro_swin_free_br")
FORMATS = ("fp16", "int8", "int8-weights", "fp8")
DATA = {"type": "synthetic", "noise": 1.0, "num_train": 4096, "num_val": 4096}
CALIBRATED_ON = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each network")
    parser.add_argument("--epochs", type=int, default=2, help="of each training")
    options = parser.parse_args()
    print("| network, seed | fp32 | " + " | ".join(f"{each}: accuracy, loss, agreement" for each in FORMATS) + " |")
    print("|" + "---|" * (2 + len(FORMATS)))
    data = parse_source(DATA).open((32, 32))
    images, labels = (torch.cat(each).numpy() for each in zip(*data.val_batches(256), strict=True))
    calibrating = data.sample(CALIBRATED_ON).numpy()
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            for seed in range(options.seeds):
                module = archdsl.build(name, seed=seed)
                train(module, data, parse_recipe("quick", epochs=options.epochs), seed=seed, threads=1)
                answers = {}
                for precision in ("fp32", *FORMATS):
                    path = Path(folder) / f"{precision}.onnx"
                    how = {"precision": precision, "images": calibrating, "batch": None}
                    archdsl.export_onnx(name, path, module.state_dict(), **how)
                    answers[precision] = run_onnx(path, images, precision)[1].argmax(1)
                right = {precision: float((answer == labels).mean()) for precision, answer in answers.items()}
                cells = [
                    f"{right[each]:.4f}, {100 * (right['fp32'] - right[each]):+.2f}, "
                    f"{(answers[each] == answers['fp32']).mean():.2%}"
                    for each in FORMATS
                ]
                print(f"| {name}, {seed} | {right['fp32']:.4f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
