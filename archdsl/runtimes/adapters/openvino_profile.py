"""Attribute OpenVINO's performance counters to the nodes of the file.

OpenVINO takes ops of the file apart (LayerNormalization becomes MVN, Multiply, Add) and fuses others. What it makes
itself has a name like `MVN_30`. Two things lead back: in the model as it was read, such an op feeds the one that bears
the file's name; in the compiled model, `originalLayersNames` tells what was fused. What is made later still and tells
nothing (`Multiply_8672`, for the scaling of q) belongs to the op that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.runtimes.adapters.onnx_profile import OnnxNode, nodes_of
from archdsl.runtimes.adapters.openvino_model import bind_input, compiled, model_of
from archdsl.runtimes.op_names import KnownNames
from archdsl.runtimes.protocol import OpProfile, OpTime, RunConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact

INSERTED = ("Reorder", "Convert")
"""Ops of OpenVINO that change a memory layout or a number format; they are inserted unless they tell an origin."""


class RequestProfiler:
    """A request with performance counters on."""

    def __init__(self, artefact: Artefact, config: RunConfig, x_BX: NDArray[Any]):
        assert artefact.path is not None
        model = model_of(artefact, config)
        self.compiled = compiled(model, config, PERF_COUNT=True)
        # the model that was compiled, not read again: its made-up names are numbered through the whole process
        self.origins = Origins(nodes_of(artefact.path), model, self.compiled.get_runtime_model())
        self.request = self.compiled.create_infer_request()
        self._x_BX = bind_input(self.request, x_BX)
        self._taken: list[Any] = []

    def run(self) -> object:
        self.request.infer()
        self._taken.append(self.request.get_profiling_info())
        return self._taken[-1]

    def finish(self, counted: Sequence[int]) -> OpProfile:
        ops = [self._op(one) for one in self._taken[-1]]
        runs = [[one.real_time.total_seconds() * 1000 for one in self._taken[number]] for number in counted]
        return OpProfile.of_runs(ops, runs, "OpenVINO's performance counters, median of runs")

    def _op(self, counter: Any) -> OpTime:
        name, also = self.origins.of(counter.node_name)
        inserted = not name and counter.node_type in INSERTED
        return OpTime(name or counter.node_name, counter.node_type, 0.0, also, inserted)


class Origins:
    """From ops of a compiled model to nodes of the file."""

    def __init__(self, file: list[OnnxNode], read: Any, compiled_model: Any):
        self.of_value = {output: node.name for node in file for output in node.outputs}
        self.of_value.update({node.name: node.name for node in file})
        self.known = KnownNames(self.of_value)
        self.aliases: dict[str, str] = {}
        for op in reversed(read.get_ordered_ops()):
            name = self._named(op.get_friendly_name()) or next(self._of_readers(op), None)
            if name is not None:
                self.aliases[op.get_friendly_name()] = name
        self.ops = {op.get_friendly_name(): op for op in compiled_model.get_ordered_ops()}

    def of(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The node of the file that the compiled op is named for, or '', and those that were fused into it."""
        op = self.ops.get(name)
        if op is None:
            return "", ()
        originals = [origin for origin in _originals(op) if origin]
        origins = [found for origin in originals if (found := self._named(origin) or self.aliases.get(origin))]
        first = (self._named(name) or self.aliases.get(name)) if originals else None
        if first is None and origins:
            first = origins[-1]
        if first is None and originals:
            first = self._of_next(op)
        return first or "", tuple(dict.fromkeys(origin for origin in origins if origin != first))

    def _named(self, name: str) -> str | None:
        found = self.known.find(name)
        return None if found is None else self.of_value[found]

    def _of_readers(self, op: Any) -> Iterator[str]:
        """The names of the ops that read `op`, as far as they have one."""
        for reader in _readers(op):
            name = reader.get_friendly_name()
            found = self.aliases.get(name) or self._named(name)
            if found is not None:
                yield found

    def _of_next(self, op: Any) -> str | None:
        """The name of the nearest op downstream that has one."""
        seen, queue = set(), [op]
        while queue:
            one = queue.pop(0)
            found = next(self._of_readers(one), None)
            if found is not None:
                return found
            for after in _readers(one):
                if after.get_friendly_name() not in seen:
                    seen.add(after.get_friendly_name())
                    queue.append(after)
        return None


def _readers(op: Any) -> Iterator[Any]:
    for output in op.outputs():
        for reader in output.get_target_inputs():
            yield reader.get_node()


def _originals(op: Any) -> list[str]:
    info = op.get_rt_info()
    names: str = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
    return names.split(",")
