"""Engines kept on disk, so that minutes of building are spent once; one that does not fit here and now is built anew.

What must agree is in the sidecar: the ONNX model, the options, the versions of TensorRT and of the driver, the GPU, and
the plan's own digest, checked before TensorRT sees a byte of it. A plan is code: only folders of ours are looked in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from pathlib import Path

from archdsl.backends.trt.cache import TimingCacheWarning
from archdsl.backends.trt.engine import Engine, build_engine, load_engine, sidecar
from archdsl.backends.trt.library import TensorRT, gpu_driver, gpu_name
from archdsl.backends.trt.options import EngineOptions
from archdsl.errors import ArchError, BackendError

MOST_KEPT = 32
"""Engines in one folder; the ones used longest ago go first."""


def kept_engine(model: Path, options: EngineOptions, folder: Path, *, trt: TensorRT) -> Engine:
    """The engine of an ONNX file of ours: the one kept in `folder` if it fits, else a new one, which is then kept.

    The digest of such a file covers its weights, because the files they are in are named by digest.
    Where GPU or driver cannot be told nothing is kept. Errors: BackendError as `build_engine`
    """
    gpu, driver = gpu_name(), gpu_driver()
    if gpu is None or driver is None:
        return build_engine(model, options, trt=trt)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    path = folder / f"{_name(digest, options, trt.__version__, gpu)}.engine"
    with contextlib.suppress(BackendError):  # none is there, or it is damaged
        found = load_engine(path)
        if not misfits(found, digest, options, trt.__version__, gpu, driver):
            with contextlib.suppress(OSError):
                os.utime(path)
            return found
    built = build_engine(model, options, trt=trt)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        built.save(path)
        _drop_old(folder)
    except (ArchError, OSError) as error:
        warnings.warn(f"the engine could not be kept: {error}", TimingCacheWarning, stacklevel=2)
    return built


def misfits(
    engine: Engine, onnx_sha256: str, options: EngineOptions, tensorrt: str, gpu: str, driver: str
) -> list[str]:
    """Why an engine is not the one that would be built, in words; empty when it is."""
    pairs = {
        "model": (engine.onnx_sha256, onnx_sha256),
        "options": (_asked(engine.options), _asked(options)),
        "TensorRT": (engine.tensorrt, tensorrt),
        "GPU": (engine.gpu, gpu),
        "driver": (engine.driver, driver),
    }
    return [f"another {what}: {was} and not {now}" for what, (was, now) in pairs.items() if was != now]


def _asked(options: EngineOptions) -> str:
    """The options as text, without the timing cache: it decides how long a build takes."""
    return json.dumps({**options.as_json(), "timing_cache": None}, sort_keys=True)


def _name(digest: str, options: EngineOptions, tensorrt: str, gpu: str) -> str:
    return hashlib.sha256("\0".join([digest, _asked(options), tensorrt, gpu]).encode()).hexdigest()[:32]


def _drop_old(folder: Path) -> None:
    """Remove all but the `MOST_KEPT` engines used last."""
    engines = sorted(folder.glob("*.engine"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in engines[MOST_KEPT:]:
        for file in (path, sidecar(path)):
            file.unlink(missing_ok=True)
