"""ONNX Runtime's TensorRT execution provider on an .onnx file that says its precision.

The provider builds an engine for every piece of the network that TensorRT takes. Here that must be all of it: what it
leaves over is an error, not a detour over the CPU. It is not told to use fp16 or bf16, since the file says the
precision; whether it then builds a strongly typed network is the provider's affair, to be looked at first on a GPU.

The provider names the engines it keeps by the file's name and the names of nodes, not by shapes or weights (its
`TRTGenerateId`): two networks of a search can have one name. So each file has a folder of its own here, named by its
digest and by all that an engine depends on, with the digests of the engines in it; one that does not fit is emptied.

Source: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
State: the options and their names are those of the documentation; exercised with a stand-in. Not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.errors import ArchError
from archdsl.latency.failure import failed
from archdsl.latency.runtimes.onnx_runtime import BRING, BoundSession, check_provider
from archdsl.latency.runtimes.protocol import Loaded, Profiler, Runtime, library_version
from archdsl.writing import as_json, cache_folder, write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.latency.artefact import Artefact, ArtefactKind
    from archdsl.latency.target import Target

PROVIDER = "TensorrtExecutionProvider"
CONTENTS = "contents.json"
MOST_KEPT = 32
"""Folders of engines; the ones used longest ago go first."""


class TensorRtSession(BoundSession):
    """A session whose engines are kept in `folder`. Builds of one TensorRT and GPU share the timing cache above it."""

    def __init__(self, path: str, threads: int, folder: Path):
        _load_libraries()
        self.folder = folder
        super().__init__(path, threads, "cuda", provider=PROVIDER, settings=provider_settings(folder))

    def _open(self, change: Callable[[Any], None] = lambda options: None) -> Any:
        take_up(self.folder)
        session = super()._open(change)
        with contextlib.suppress(ArchError, OSError):  # engines that cannot be vouched for are built again next time
            vouch_for(self.folder)
        return session

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        message = "ONNX Runtime sees an engine of TensorRT as one op"
        hint = "`archdsl profile --on tensorrt` tells its layers apart"
        raise failed("no-profile", message, where="onnxruntime-tensorrt", hint=hint)


def provider_settings(folder: Path) -> dict[str, str]:
    """The provider's options: engines are kept in `folder`, timings of kernels in the folder above."""
    return {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder.parent),
        "trt_engine_hw_compatible": "False",
        "trt_builder_optimization_level": "3",  # TensorRT's default
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
    }


def engines_folder(model: Path, versions: str, gpu: str, driver: str, root: Path | None = None) -> Path:
    """Where the engines of an ONNX file are kept: one folder for each version and GPU, in it one for each file.

    The digest of a file of ours covers its weights, because the files they are in are named by digest.
    """
    place = re.sub(r"[^A-Za-z0-9.]+", "-", f"{versions} {gpu} {driver}").strip("-")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return (root or cache_folder()) / "onnxruntime-tensorrt" / place / digest[:32]


def take_up(folder: Path) -> None:
    """Make the folder ready for a session: empty, unless every file in it is one that `vouch_for` has seen.

    Errors: OSError when it cannot be made
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        told = json.loads((folder / CONTENTS).read_bytes())
    except (OSError, ValueError):
        told = None
    if told != _digests(folder):
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    folder.touch()
    others = sorted((path for path in folder.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in others[:-MOST_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def vouch_for(folder: Path) -> None:
    """Note the digests of the engines that a session of ours has just left in the folder."""
    write_file(folder / CONTENTS, as_json(_digests(folder)))


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != CONTENTS and not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _load_libraries() -> None:
    """Load CUDA's and TensorRT's libraries from their Python packages, where the system's loader does not look."""
    import onnxruntime

    with contextlib.suppress(Exception):  # what is then still missing, the session tells
        onnxruntime.preload_dlls()
    with contextlib.suppress(Exception):
        __import__("tensorrt")


class OnnxTensorRt(Runtime):
    """loading_s: an engine is built when the session is made, for minutes where no timing is known yet"""

    name = "onnxruntime-tensorrt"
    kinds: tuple[ArtefactKind, ...] = ("onnx",)
    precisions: Mapping[str, tuple[str, ...]] = {"cuda": ("fp32", "fp16", "bf16")}
    modules = ("onnxruntime",)
    loading_s = 900.0
    reloads = False  # building an engine takes minutes

    def version(self) -> str:
        """ONNX Runtime's version and, where it is installed as a package, TensorRT's."""
        found = library_version(self.name, ("onnxruntime-gpu", "onnxruntime"), bring=BRING[PROVIDER])
        check_provider(PROVIDER)
        for package in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
            with contextlib.suppress(PackageNotFoundError):
                return f"{found} with TensorRT {version(package)}"
        return found

    def device_name(self, device: str) -> str:
        from archdsl.backends.trt.library import gpu_name

        check_provider(PROVIDER)
        return gpu_name() or "unknown GPU"

    def load(self, artefact: Artefact, target: Target) -> Loaded:
        from archdsl.backends.trt.library import gpu_driver

        assert artefact.path is not None
        gpu, driver = self.device_name(target.device), gpu_driver() or "unknown driver"
        folder = engines_folder(artefact.path, self.version(), gpu, driver)
        return TensorRtSession(str(artefact.path), target.threads, folder)


RUNTIME = OnnxTensorRt()
