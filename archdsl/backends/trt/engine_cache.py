"""A disk cache of built engines, because a build takes minutes. An engine that does not match is built again.

The sidecar of an engine records what must match: the digest of the ONNX model, the options, the versions of TensorRT
and of the driver, the GPU, and the plan's own digest, which is checked before TensorRT reads the plan. A plan contains
code, so only archdsl's own cache folder is read.
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
from archdsl.backends.trt.library import CLASSIC, Product, TensorRT, gpu_driver, gpu_name
from archdsl.backends.trt.options import EngineOptions
from archdsl.errors import ArchError, BackendError
from archdsl.owned import own_folder

MAX_CACHED = 32
"""Engines in one folder; the least recently used are removed."""


def cached_engine(
    model: Path, options: EngineOptions, folder: Path, *, trt: TensorRT, product: Product = CLASSIC
) -> Engine:
    """The engine of an ONNX file, from the cache if one matches, else built and stored there.

    Args:
        model: an ONNX file that archdsl wrote: its digest covers the weights, because files of external weights are
            named by digest
        folder: the cache, made if it is missing; it is not used where the GPU or the driver is unknown

    Raises: BackendError as `build_engine`
    """
    gpu, driver = gpu_name(), gpu_driver()
    if gpu is None or driver is None:
        return build_engine(model, options, product=product, trt=trt)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    made_for = f"{gpu}, {driver}" if product.ahead_of_time else gpu
    path = folder / f"{_name(digest, options, trt.__version__, made_for)}.engine"
    with contextlib.suppress(BackendError):  # none is there, or it is damaged
        found = load_engine(path)
        made_from = (found.onnx_sha256, _asked(found.options), found.tensorrt, found.gpu, found.driver)
        built_on = (", ".join(options.capabilities), None) if product.ahead_of_time else (gpu, driver)
        if made_from == (digest, _asked(options), trt.__version__, *built_on) and found.product == product.module:
            with contextlib.suppress(OSError):
                os.utime(path)
            return found
    built = build_engine(model, options, product=product, trt=trt)
    try:
        own_folder(folder, 0o700)
        built.save(path)
        _drop_old(folder)
    except (ArchError, OSError) as error:
        warnings.warn(f"the engine could not be kept: {error}", TimingCacheWarning, stacklevel=2)
    return built


def _asked(options: EngineOptions) -> str:
    """The options as text, without the timing cache, which changes only the time of a build."""
    return json.dumps({**options.as_json(), "timing_cache": None}, sort_keys=True)


def _name(digest: str, options: EngineOptions, tensorrt: str, gpu: str) -> str:
    return hashlib.sha256("\0".join([digest, _asked(options), tensorrt, gpu]).encode()).hexdigest()[:32]


def _drop_old(folder: Path) -> None:
    """Remove all but the `MAX_CACHED` most recently used engines."""
    engines = sorted(folder.glob("*.engine"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in engines[MAX_CACHED:]:
        for file in (path, sidecar(path)):
            file.unlink(missing_ok=True)
