"""Attribute ONNX Runtime's profile to the nodes of the file: its optimiser renames what it fuses.

The optimised model is written out without its weights. A node of it stands for those nodes of the file that lie between
its inputs and its outputs, whatever its name: `BiasGelu_token_3` is `…mlp.fc1` (the addition of the bias) and
`…mlp.act`. The one that takes longest by nature gives it its name, the others are `also`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from archdsl.runtimes.protocol import OpProfile, OpTime

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSERTED = ("ReorderInput", "ReorderOutput", "MemcpyToHost", "MemcpyFromHost")
"""Ops that the runtime puts in to change a memory layout or the device."""

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""Ops that move nothing. Those that the file does not have were put in; those that were fused away do not count."""

CAST = "InsertedPrecisionFreeCast_"
"""How names begin around casts that the runtime puts in, where it has no arithmetic of the file's number format."""

HEAVIEST = (
    ("Conv", "ConvTranspose", "MatMul", "Gemm", "Attention"),
    ("LayerNormalization", "BatchNormalization", "Softmax"),
    ("Gelu", "Erf", "Tanh", "Sigmoid", "Relu", "HardSwish"),
    ("Gather", "Transpose", "Split", "Concat", "Pad", "Slice", "ReduceMean"),
    ("Add", "Mul", "Sub", "Div"),
)
"""ONNX ops by what they take when they are fused; what is not here takes least."""

SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class OnnxNode:
    """One node of an ONNX file."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes_of(path: Path) -> list[OnnxNode]:
    """The nodes of an ONNX file; weights in other files are not read."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return [OnnxNode(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]


class SessionProfiler:
    """A session with profiling on, for the model at `path`.

    open_session: makes the session that is timed, its options first changed by what it is given
    """

    def __init__(self, path: Path, open_session: Callable[[Callable[[Any], None]], Any], x_BX: NDArray[Any]):
        self.path = path
        self.folder = TemporaryDirectory(prefix="archdsl-profile-")
        self.session = open_session(self._settings)
        Path(self.folder.name, "weights").unlink(missing_ok=True)
        self.feed = {self.session.get_inputs()[0].name: x_BX}

    def _settings(self, options: Any) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self.folder.name, "run"))
        options.optimized_model_filepath = str(Path(self.folder.name, "optimised.onnx"))
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")

    def run(self) -> object:
        return self.session.run(None, self.feed)

    def finish(self, counted: Sequence[int]) -> OpProfile:
        with self.folder:
            events = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
            sources = sources_of(nodes_of(self.path), nodes_of(Path(self.folder.name, "optimised.onnx")))
        taken = list(kernels_by_run(events))
        runs = [taken[number] for number in counted]
        times = [[event["dur"] / 1000 for event in run] for run in runs]
        return OpProfile.of_runs(list(_ops(runs[0], sources)), times, "ONNX Runtime's session profiler, median of runs")


def kernels_by_run(events: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The kernels of each run, in order: the profiler writes `model_run` behind them."""
    kernels: list[dict[str, Any]] = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(SUFFIX):
            kernels.append(event)
        elif event["name"] == "model_run":
            yield kernels
            kernels = []


def _ops(kernels: Iterable[dict[str, Any]], sources: dict[str, tuple[str, ...]]) -> Iterator[OpTime]:
    for event in kernels:
        name, op_type = event["name"].removesuffix(SUFFIX), event["args"]["op_name"]
        first, *also = sources.get(name) or (name.removeprefix(CAST),)
        inserted = op_type in INSERTED or (op_type in (*VIEWS, "Cast") and name not in sources)
        yield OpTime(first, op_type, 0.0, tuple(also), inserted)


def sources_of(file: Sequence[OnnxNode], optimised: Sequence[OnnxNode]) -> dict[str, tuple[str, ...]]:
    """For each node of the optimised model the nodes of the file that it stands for, the heaviest first.

    Nodes whose outputs the file does not have (a convolution in a blocked layout) are not in it.
    """
    makers = {output: node for node in file for output in node.outputs if output}
    made = {output for node in optimised for output in node.outputs}
    found = {}
    for node in optimised:
        replaced = list(_between(node, makers, made | set(node.inputs)))
        if replaced:
            first, *others = sorted(replaced, key=_lightness)
            found[node.name] = (first.name, *(one.name for one in others if one.op_type not in VIEWS))
    return found


def _between(node: OnnxNode, makers: dict[str, OnnxNode], known: set[str]) -> Iterator[OnnxNode]:
    """The nodes of the file behind `node`'s outputs, up to values that the optimised model still has."""
    seen: set[str] = set()
    stack = [output for output in node.outputs if output in makers]
    while stack:
        maker = makers[stack.pop()]
        if maker.name in seen:
            continue
        seen.add(maker.name)
        yield maker
        stack.extend(value for value in maker.inputs if value in makers and value not in known)


def _lightness(node: OnnxNode) -> int:
    return next((place for place, types in enumerate(HEAVIEST) if node.op_type in types), len(HEAVIEST))
