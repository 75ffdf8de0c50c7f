"""A network as a runtime will run it: which file that is, or from what it is made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.precision import precision_named
from archdsl.compiler import export_onnx, identity
from archdsl.errors import ArchError
from archdsl.language.architecture.load import load
from archdsl.language.architecture.lower import lower
from archdsl.language.architecture.model import Spec
from archdsl.runs.network_folder import SPEC, BuiltFile, NetworkFolder, folder_of
from archdsl.runs.trained_on import TrainingData
from archdsl.runtimes.artefact import Artefact
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target
from archdsl.training.data import DataSource
from archdsl.training.data.facts import with_classes_of
from archdsl.training.tasks.maps import check_is_task, no_task

if TYPE_CHECKING:
    from archdsl.backends.initial import Array

DEFAULT_RUNTIME = {"onnx": "onnxruntime", "pt2": "torch", "engine": "tensorrt"}
"""What runs a file, where nobody says it."""


@dataclass(frozen=True)
class NamedNetwork:
    """The network that a user names.

    image_shape: [C, H, W]
    num_outputs: classes that it can answer; None: not known
    files:       what a runtime can run as it is
    spec, weights: from which it can be made for any runtime; weights by archdsl's names
    weights_from: where they come from, in words
    """

    name: str
    image_shape: tuple[int, int, int]
    num_outputs: int | None
    trained_on: TrainingData
    files: tuple[BuiltFile, ...] = ()
    spec: Spec | None = None
    weights: Mapping[str, Any] | None = None
    weights_from: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def network_named(
    network: Spec | str | os.PathLike[str],
    source: DataSource,
    weights: Mapping[str, Any] | None = None,
    *,
    weights_from: str = "weights that were given",
    overrides: Sequence[str] = (),
) -> NamedNetwork:
    """What `network` is: an ONNX file, the folder of a training or a build, or a spec with weights.

    Args:
        source: the data, from which a spec with `head.classes: data` takes their number
        weights: by archdsl's names; they win over a folder's
        overrides: changes of the spec, as `--set` takes them
    Raises: ArchError: `missing-key` for a spec without weights, `missing-file`, `conflict`, `damaged`; UnreadableOnnx
    """
    text = "" if isinstance(network, Spec) else os.fspath(network)
    if text.lower().endswith(".onnx"):
        for option, given in (("--weights", weights is not None), ("--set", bool(overrides))):
            if given:
                message = f"{text} holds its weights, so {option} cannot change them"
                raise ArchError.at(option, text, "conflict", message, f"leave {option} out, or name a spec")
        return _of_file(Path(text))
    folder = None if isinstance(network, Spec) else folder_of(text)
    if folder is None:
        spec = network if isinstance(network, Spec) else with_classes_of(load(network, overrides, check=False), source)
        if weights is None:
            message = f"{spec.name} has no weights, so there is nothing to evaluate"
            hint = "name them with --weights FILE --from SOURCE, or give the folder of a training or a build"
            raise ArchError.at("--weights", text or spec.name, "missing-key", message, hint)
        return _of_spec(spec, weights, weights_from, TrainingData.of_spec(spec))
    spec = load(folder.path / SPEC, set=overrides)
    if weights is not None:
        return _of_spec(spec, weights, weights_from, TrainingData())
    return _of_folder(folder, spec, changed=bool(overrides))


def _of_spec(
    spec: Spec, weights: Mapping[str, Any] | None, weights_from: str, trained_on: TrainingData
) -> NamedNetwork:
    check_is_task(spec)
    shape = (spec.input.channels, *spec.input.size)
    (output, *_) = lower(spec).outputs.values()
    classes = output.type.shape[-1] if len(output.type.shape) == 1 else None
    return NamedNetwork(spec.name, shape, classes, trained_on, (), spec, weights, weights_from)


def _of_folder(folder: NetworkFolder, spec: Spec, *, changed: bool) -> NamedNetwork:
    files = () if changed else folder.built
    weights = None
    if folder.weights is not None or not files:
        from archdsl.weights.from_file import weights_from_file

        weights = weights_from_file(spec, folder.needed_weights()).weights
    found = _of_spec(spec, weights, str(folder.weights or ""), folder.trained_on)
    return replace(found, files=files, facts=folder.facts)


def _of_file(path: Path) -> NamedNetwork:
    from archdsl.backends.onnx.read import read_onnx

    file = read_onnx(path)
    trained_on = TrainingData.of_metadata(file.metadata, str(path))
    size = trained_on.preprocessing.size if trained_on.preprocessing else (None, None)
    channels, height, width = (given or known for given, known in zip(file.input_shape, (None, *size), strict=True))
    if channels is None or height is None or width is None:
        message = f"{path} takes images of any size, and does not say which one it was trained on"
        hint = "fix the axes, e.g. with python -m onnxruntime.tools.make_dynamic_shape_fixed"
        raise ArchError.at(str(path), "", "shape", message, hint)
    if file.outputs and len(file.outputs) == 3:
        raise no_task(str(path))
    outputs = file.outputs[-1] if file.outputs and len(file.outputs) == 1 else None
    built = BuiltFile(path, "onnx", file.precision, file.batch, file.metadata.get("form", ""))
    name = file.metadata.get("spec") or path.stem
    return NamedNetwork(name, (channels, height, width), outputs, trained_on, (built,))


@dataclass(frozen=True)
class RunAs:
    """What is run, on what, and how: the answer to the wishes of a user.

    file: what is run as it is; None: it is made from the subject's spec and weights
    precision: of the network; computed_in: what the runtime is asked to compute in
    """

    runtime: str
    precision: str
    computed_in: str
    file: BuiltFile | None = None


def run_as(subject: NamedNetwork, runtime_name: str | None, precision: str | None) -> RunAs:
    """The first file that fits the wishes, or else the network made anew. None: no wish

    Raises: ArchError (`wrong-value`) when nothing fits; SpecError for unknown names
    """
    if runtime_name is not None:
        Target.parse({"runtime": runtime_name})  # says what is unknown
        if runtime(runtime_name).analytic:
            message = f"{runtime_name} computes latencies and runs no network"
            raise ArchError.at("--on", runtime_name, "wrong-value", message, "use --on onnxruntime")
    if precision is not None:
        precision_named(precision)
    for file in subject.files:
        name = runtime_name or DEFAULT_RUNTIME[file.kind]
        adapter = runtime(name)
        if file.kind not in adapter.kinds:
            continue
        if precision in (None, file.precision):
            return RunAs(name, file.precision, file.precision if adapter.typed else "fp32", file)
        if not adapter.typed and file.precision == "fp32" and file.kind == "onnx":
            return RunAs(name, precision, precision, file)  # the runtime computes an fp32 file in this precision
    if subject.spec is not None and subject.weights is not None:
        wanted = precision or "fp32"
        name = runtime_name or "onnxruntime"
        if precision_named(wanted).quantized and runtime(name).kinds[0] != "onnx":
            message = f"{wanted} is made as ONNX only, which {name} does not run"
            raise ArchError.at("--precision", wanted, "wrong-value", message, "use --on onnxruntime")
        between = precision_named(wanted).between
        known = sorted({each for on in runtime(name).precisions.values() for each in on})
        if wanted != between and between not in known:
            message = f"{name} runs {', '.join(known)}, but {wanted} is {between} between its linears"
            raise ArchError.at("--precision", wanted, "wrong-value", message, "use --on onnxruntime")
        return RunAs(name, wanted, between)
    there = ", ".join(f"{file.path.name} ({file.precision})" for file in subject.files) or "nothing"
    wishes = " in ".join(wish for wish in (f"on {runtime_name}" if runtime_name else "", precision or "") if wish)
    message = f"of {subject.name} there is {there} to run, and no weights to make it {wishes or 'anew'} from"
    raise ArchError.at("--on", wishes, "wrong-value", message, "leave out --on and --precision, or build it so")


def artefact_for(
    subject: NamedNetwork,
    choice: RunAs,
    device: str,
    batch: int,
    threads: int,
    folder: Path,
    images: Callable[[], Array],
) -> tuple[Artefact, Target]:
    """What the runtime loads, and the target that says how it runs it.

    Args: folder: where files are made; images: some to take the ranges of int8 and fp8 from, floats [N, C, H, W]
    Raises: SpecError when the runtime does not know the device or the precision; what making the artefact raises
    """
    fields = {"runtime": choice.runtime, "device": device, "threads": threads}
    file = choice.file
    if file is not None:
        known = runtime(choice.runtime).precisions[device]
        asked = choice.computed_in if choice.computed_in in known or not runtime(choice.runtime).typed else known[0]
        target = Target.parse({**fields, "precision": asked, "batch": file.batch or batch})
        return Artefact(file.kind, _digest(file.path), subject.image_shape, file.path, name=subject.name), target
    assert subject.spec is not None and subject.weights is not None
    target = Target.parse({**fields, "precision": choice.computed_in, "batch": batch})
    precision = precision_named(choice.precision)
    if precision.quantized:
        path = folder / f"{precision.name}.onnx"
        calibrating = images() if precision.calibrated else None
        export_onnx(subject.spec, path, subject.weights, True, precision.name, batch=batch, images=calibrating)
        return Artefact("onnx", identity(subject.spec), subject.image_shape, path, name=subject.name), target
    made = artefact_of(subject.spec, target, folder, subject.weights)
    if made.kind == "spec":
        import torch

        from archdsl.weights.writing import write_weights

        path = folder / "weights.safetensors"
        write_weights(path, {name: torch.as_tensor(value) for name, value in subject.weights.items()})
        made = replace(made, weights=path)
    return made, target


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
