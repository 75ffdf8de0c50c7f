"""ONNX files of anybody, and the folders of `archdsl build`, benchmarked as they are.

A file is given to the runtime unchanged, so its own types are its precision, and its own batch size is the target's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.onnx.read import precision_of
from archdsl.backends.precision import precision_named
from archdsl.compiler import cost
from archdsl.errors import ArchError
from archdsl.failures import failed
from archdsl.language.architecture.load import load
from archdsl.language.architecture.model import Spec
from archdsl.outside_text import printable
from archdsl.runtimes.artefact import Artefact, OutputShape, Reference
from archdsl.runtimes.export import artefact_of
from archdsl.runtimes.reference import reference_of
from archdsl.runtimes.registry import runtime
from archdsl.runtimes.target import Target

if TYPE_CHECKING:
    import onnx

NOT_COMPARED = "nothing says what it must answer; only that its output is finite was checked"


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file with one fp32 input [batch, …] of known size, as `side_by_side` takes it.

    path: of the file; spec, weights: what the folder of the build says it was made from, where it is in one
    """

    path: Path
    spec: Spec | None = None
    weights: Path | None = None

    @property
    def name(self) -> str:
        """The path as it was given, with what it was quantised to."""
        shown = printable(str(self.path.parent if self.spec is not None else self.path))
        return f"{shown} ({self.precision})" if self._is_quantized else shown

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before believing its time."""
        return () if self._is_compared else (NOT_COMPARED,)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image; None where no spec says what the network is."""
        return None if self.spec is None else cost(self.spec).macs

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model without its external data. Raises: ArchError (`cannot-read`) for what is no ONNX model"""
        import onnx

        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
            raise self._unreadable("is not a regular file")
        try:
            found = onnx.load(str(self.path), load_external_data=False)
        except Exception as error:  # protobuf's and onnx's own classes, and those of the file system
            reason = getattr(error, "strerror", None) or f"it is no ONNX model ({type(error).__name__})"
            raise self._unreadable(f"cannot be read: {reason}") from error
        if not found.graph.node:
            raise self._unreadable("holds no network: it has no ops")
        return found

    @cached_property
    def input_shape(self) -> tuple[int | None, ...]:
        """[batch, …] of its one input; a batch of None is any. Raises: ArchError (`cannot-read`) for other inputs"""
        import onnx

        stored = {tensor.name for tensor in self.model.graph.initializer}
        inputs = [value for value in self.model.graph.input if value.name not in stored]
        shapes = [_shape_of(value) for value in inputs]
        said = ", ".join(f"{value.name}{list(shape)}" for value, shape in zip(inputs, shapes, strict=True)) or "none"
        kinds = {value.type.tensor_type.elem_type for value in inputs}
        if len(inputs) != 1 or kinds != {onnx.TensorProto.FLOAT} or len(shapes[0]) < 2 or None in shapes[0][1:]:
            raise self._unreadable(f"needs one fp32 input [batch, …] whose other sizes are numbers; it has {said}")
        return shapes[0]

    @cached_property
    def precision(self) -> str:
        """The format of its numbers (see `precision_of`)."""
        return precision_of(self.model)

    @property
    def _is_quantized(self) -> bool:
        return precision_named(self.precision).quantized

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file and of the files that hold its tensors."""
        found = hashlib.sha256(self.path.read_bytes())
        for location in sorted({place for tensor in self.model.graph.initializer if (place := _location(tensor))}):
            try:
                with open(self._beside(location), "rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise self._unreadable(f"needs `{location}` beside it: {error.strerror or error}") from error
        return found.hexdigest()

    def check(self) -> None:
        """Look at what can be known without a runtime. Raises: ArchError (`cannot-read`)"""
        _ = self.model, self.input_shape

    def _beside(self, location: str) -> Path:
        """A file with tensors. Raises: ArchError (`cannot-read`) for one that lies elsewhere or is no regular file"""
        path = self.path.parent / location
        if not path.resolve().is_relative_to(self.path.parent.resolve()):
            raise self._unreadable(f"names `{printable(location)}`, which is not in its folder")
        if path.exists() and not path.is_file():
            raise self._unreadable(f"names `{printable(location)}`, which is not a regular file")
        return path

    def made(self, target: Target, folder: Path) -> tuple[Artefact, Reference | None]:
        """The file itself; on a runtime that takes specs, the network of the spec that it was built from.

        Raises: ArchError for a file that cannot be read; MeasureError (`wrong-artefact`) where the target is for
            another precision or batch, or takes no ONNX
        """
        chosen = runtime(target.runtime)
        if chosen.analytic or "onnx" not in chosen.kinds:
            if self.spec is None:
                takes = "it computes latencies" if chosen.analytic else f"it takes {' and '.join(chosen.kinds)}"
                raise failed("wrong-artefact", f"{target.runtime} is not for ONNX files: {takes}", where=target.runtime)
            if chosen.analytic:
                return artefact_of(self.spec, target, folder), None
            return artefact_of(self.spec, target, folder), replace(
                reference_of(self.spec), tolerance=precision_named(target.precision).tolerance
            )
        batch, *image = self.input_shape
        self._check_target(target, batch)
        artefact = Artefact(
            kind="onnx",
            graph_hash=self.digest,
            input_shape=tuple(size for size in image if size is not None),
            path=self.path,
            name=self.name,
            form="file",
            build=f"file {self.precision}",
            macs=self.macs or 0,
            outputs=self._outputs(),
        )
        return artefact, self._expected

    def _check_target(self, target: Target, batch: int | None) -> None:
        if batch not in (None, target.batch):
            message = f"{self.name} is for batches of {batch}, and the target for {target.batch}"
            raise failed("wrong-artefact", message, where=self.name, hint=f"give --batch {batch}")
        if runtime(target.runtime).typed and self.precision != target.precision and not self._is_quantized:
            message = f"{self.name} is in {self.precision}, and the target in {target.precision}"
            raise failed("wrong-artefact", message, where=self.name, hint=f"give --precision {self.precision}")

    @property
    def _is_compared(self) -> bool:
        return self.spec is not None and self.weights is not None and not self._is_quantized

    @cached_property
    def _expected(self) -> Reference | None:
        """What fp32 PyTorch answers with the weights of the build."""
        if self.spec is None or self.weights is None or not self._is_compared:
            return None
        from archdsl.weights.from_file import weights_from_file

        return reference_of(self.spec, self.precision, weights=weights_from_file(self.spec, self.weights).weights)

    def _outputs(self) -> tuple[OutputShape, ...]:
        shapes = [(value.name, _shape_of(value)) for value in self.model.graph.output]
        if any(not shape or None in shape[1:] for _, shape in shapes):
            return ()
        return tuple(OutputShape(name, tuple(size or 0 for size in shape[1:])) for name, shape in shapes)

    def _unreadable(self, message: str) -> ArchError:
        hint = "bench takes specs, ONNX files and folders that `archdsl build` wrote"
        return ArchError.at(printable(str(self.path)), str(self.path), "cannot-read", f"it {message}", hint)


def built_network(folder: Path) -> OnnxNetwork | Spec:
    """What a folder of `archdsl build` or `archdsl train` holds: its ONNX file, else its spec.

    Raises: ArchError (`missing-file`) for any other folder; SpecError as `load`
    """
    spec, model, weights = (folder / name for name in ("spec.yaml", "model.onnx", "model.safetensors"))
    if not spec.is_file():
        message = f"{printable(str(folder))} is a folder without spec.yaml, so archdsl did not build it"
        hint = "name a spec, an ONNX file, or a folder that `archdsl build` wrote"
        raise ArchError.at("SPEC", str(folder), "missing-file", message, hint)
    loaded = load(spec)
    return OnnxNetwork(model, loaded, weights if weights.is_file() else None) if model.is_file() else loaded


def _shape_of(value: Any) -> tuple[int | None, ...]:
    """The sizes of a value; None where a size is not a number."""
    return tuple(size.dim_value or None for size in value.type.tensor_type.shape.dim)


def _location(tensor: Any) -> str | None:
    """The file that holds a tensor's numbers; None for the model's own."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
