"""ONNX Runtime's TensorRT execution provider on an .onnx file, whose types are its precision.

The provider builds an engine for every piece of the network that TensorRT takes. Here that must be all of it: what it
leaves over is an error, not a detour over the CPU. It is not asked for fp16 or bf16, since the file's types are
the precision; whether it then builds a strongly typed network is to be checked first on a GPU.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.backends.onnx.library import import_onnxruntime
from archdsl.errors import ArchError
from archdsl.failures import failed
from archdsl.files import as_json, cache_folder, why_no_cache, write_file
from archdsl.owned import own_folder, read_own
from archdsl.runtimes.adapters.onnx_runtime import BRING, BoundSession, check_provider
from archdsl.runtimes.protocol import LoadedNetwork, Profiler, RunConfig, Runtime, library_version
from archdsl.versions import installed_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archdsl.runtimes.artefact import Artefact, ArtefactKind

PROVIDER = "TensorrtExecutionProvider"
CONTENTS = "contents.json"
MOST_KEPT = 32
"""Folders of engines; the ones used longest ago go first."""


class TensorRtSession(BoundSession):
    """A session whose engines are kept in `folder`, unless it is None. Builds of one TensorRT and GPU share the timing
    cache above it.
    """

    def __init__(self, path: str, threads: int, folder: Path | None):
        _load_libraries()
        self.folder = folder
        super().__init__(path, threads, "cuda", provider=PROVIDER, settings=provider_settings(folder))

    def _open(self, change: Callable[[Any], None] = lambda options: None) -> Any:
        if self.folder is None:
            return super()._open(change)
        take_up(self.folder)
        session = super()._open(change)
        with contextlib.suppress(ArchError, OSError):  # engines that cannot be vouched for are built again next time
            vouch_for(self.folder)
        return session

    def profiler(self, x_BX: NDArray[Any]) -> Profiler:
        message = "ONNX Runtime sees an engine of TensorRT as one op"
        hint = "`archdsl profile --on tensorrt` tells its layers apart"
        raise failed("no-profile", message, where="onnxruntime-tensorrt", hint=hint)


def provider_settings(folder: Path | None) -> dict[str, str]:
    """The provider's options: engines are kept in `folder`, timings of kernels in the folder above; None: neither."""
    places = {"trt_engine_cache_enable": "False", "trt_timing_cache_enable": "False"}
    if folder is not None:
        places = {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder.parent),
        }
    return {
        "device_id": "0",
        **places,
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

    Raises: OSError when it cannot be made
    """
    own_folder(folder, 0o700)
    try:
        is_vouched_for = json.loads(read_own(folder / CONTENTS)) == _digests(folder)
    except (OSError, ValueError):
        is_vouched_for = False
    if not is_vouched_for:
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
    return {path.name: hashlib.sha256(read_own(path)).hexdigest() for path in files}


def _load_libraries() -> None:
    """Load CUDA's and TensorRT's libraries from their Python packages, where the system's loader does not look."""
    onnxruntime = import_onnxruntime()
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
        tensorrt = installed_version("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
        return found if tensorrt is None else f"{found} with TensorRT {tensorrt}"

    def device_name(self, device: str) -> str:
        from archdsl.backends.trt.library import gpu_name

        check_provider(PROVIDER)
        return gpu_name() or "unknown GPU"

    def load(self, artefact: Artefact, config: RunConfig) -> LoadedNetwork:
        from archdsl.backends.trt.library import gpu_driver

        assert artefact.path is not None
        gpu, driver = self.device_name(config.device), gpu_driver() or "unknown driver"
        is_kept = why_no_cache(cache_folder()) is None
        folder = engines_folder(artefact.path, self.version(), gpu, driver) if is_kept else None
        return TensorRtSession(str(artefact.path), config.threads, folder)


RUNTIME = OnnxTensorRt()
