"""How far the deploy forms are from the networks they are made from: every shipped spec, at full size.

    python benchmarks/deploy_parity.py [SPEC ...] [--precisions fp32,fp16,bf16] [--images 2] [--out FILE]

Each spec gets random weights under which every tensor matters (batch norms the statistics of other images), is run in
its train form by PyTorch in fp32, and then in its deploy form by PyTorch and ONNX Runtime; bf16, for which ONNX Runtime
has no kernels on CPUs, by OpenVINO. Prints a table in Markdown, and each row as soon as it is known on stderr. Specs
that are one network at inference are run once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

import archdsl
from archdsl.backends.onnx import model as onnx_model
from archdsl.backends.parity import Parity, as_one, parity_of, probe_images
from archdsl.backends.precision import PRECISIONS
from archdsl.backends.torch import fx as torch_fx
from archdsl.compiler import deploy, identity
from archdsl.language.architecture.model import Spec
from archdsl.passes.network import Network

SPECS = Path(__file__).parents[1] / "specs"
HEAD = ("network", "precision", "runtime", "max error", "cosine", "top-1", "gate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="by default all that are shipped")
    parser.add_argument("--precisions", default="fp32,fp16,bf16", help="separated by commas")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a file for the table, too")
    arguments = parser.parse_args()

    names = arguments.specs or sorted(path.stem for path in SPECS.glob("*.yaml"))
    precisions = arguments.precisions.split(",")
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    seen: dict[str, str] = {}
    for name in names:
        spec = archdsl.load(name)
        twin = seen.setdefault(identity(spec, training=False), name)
        if twin != name:
            lines.append(f"| {name} | all | | | | | the network of {twin} |")
            continue
        start = time.monotonic()
        lines += [f"| {' | '.join((name, *row))} |" for row in rows(spec, precisions, arguments.images)]
        print(*lines[-5:], f"{time.monotonic() - start:.0f} s", sep="\n", file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def rows(spec: Spec, precisions: list[str], num_images: int) -> Iterator[tuple[str, ...]]:
    """For each precision and runtime: precision, runtime and what came out."""
    images = probe_images((spec.input.channels, *spec.input.size), num_images, seed=1)
    module = telling_module(spec)
    weights = {name: value.numpy() for name, value in module.state_dict().items() if value.is_floating_point()}
    with torch.inference_mode():
        want = outputs_of(module, images)
    del module
    apart = float(np.abs(want[1:] - want[:1]).max() / np.abs(want).max()) if num_images > 1 else 1.0
    if apart < 0.05:
        raise SystemExit(f"{spec.name}: these weights do not let the images through, the parity would say nothing")
    for precision in precisions:
        network = deploy(spec, weights, precision=precision)
        for runtime, run in {"torch": run_torch, "onnxruntime": run_onnxruntime, "openvino": run_openvino}.items():
            if runtime == "openvino" and (precision != "bf16" or find_spec("openvino") is None):
                continue
            try:
                got = run(network, images)
            except Exception as error:  # the runtimes have no common error
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                yield precision, runtime, "", "", "", f"cannot run: {reason[:160]}"
            else:
                yield precision, runtime, *cells(parity_of(got, want, precision))


def cells(parity: Parity) -> tuple[str, ...]:
    gate = PRECISIONS[parity.precision]
    verdict = "passed" if parity.passed else f"**not passed** (needs {gate.tolerance:g} and {gate.cosine:g})"
    return f"{parity.max_rel_error:.1e}", f"{parity.cosine:.7f}", f"{parity.top1_agreement:.0%}", verdict


def run_torch(network: Network, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    module = torch_fx.emit(network.graph, network.weights, deploy=True)
    with torch.inference_mode():
        return outputs_of(module, images)


def outputs_of(module: fx.GraphModule, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the module answers; several outputs side by side."""
    found = module(torch.from_numpy(images))
    return as_one([each.numpy() for each in (found.values() if isinstance(found, dict) else [found])])


def run_onnxruntime(network: Network, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        onnx_model.save(network.graph, path, network.weights, batch=1)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (taken,) = session.get_inputs()
        return np.concatenate([as_one(session.run(None, {taken.name: image[None]})) for image in images])


def run_openvino(network: Network, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In the formats of the file, if the processor has them: without a hint OpenVINO would choose its own."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        onnx_model.save(network.graph, path, network.weights, batch=1)
        how = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(str(path), "CPU", how)
        return np.concatenate([as_one([*map(np.array, compiled(image[None]).values())]) for image in images])


def telling_module(spec: Spec, seed: int = 0) -> fx.GraphModule:
    """The train form with weights that let the image through, in eval mode."""
    module = archdsl.build(spec, seed=seed)
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            set_telling(name, tensor, numbers)
        settle_statistics(module, spec)
    return module.eval()


def set_telling(name: str, tensor: torch.Tensor, numbers: torch.Generator) -> None:
    last = name.rpartition(".")[2]
    if last == "gamma":
        tensor.uniform_(0.5, 1, generator=numbers)
    elif last == "bias":
        tensor.normal_(0, 0.1, generator=numbers)
    elif tensor.ndim == 1:
        tensor.normal_(1, 0.2, generator=numbers)
    elif last in ("relative_position_bias_table", "cls_token", "pos_embed"):
        tensor.normal_(0, 1, generator=numbers)
    else:
        tensor.normal_(0, float(np.prod(tensor.shape[1:])) ** -0.5, generator=numbers)


def settle_statistics(module: nn.Module, spec: Spec) -> None:
    """Give batch norms the statistics of a few images; with any others, activations explode and say little."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    momenta: Mapping[nn.BatchNorm1d | nn.BatchNorm2d, float | None] = {norm: norm.momentum for norm in norms}
    drops = [each for each in module.modules() if hasattr(each, "rate")]
    for norm in norms:
        norm.momentum = None  # the mean over all that comes
    module.train()
    for drop in drops:
        drop.eval()
    module(torch.from_numpy(probe_images((spec.input.channels, *spec.input.size), 16, seed=2)))
    for norm, momentum in momenta.items():
        norm.momentum = momentum


if __name__ == "__main__":
    main()
