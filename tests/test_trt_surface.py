"""Our Protocols of TensorRT, and its stand-in in tests, against the published Python bindings of two versions.

Opt-in: it downloads the bindings with pip, about 2 MB for each version. The bindings alone cannot be imported; beside
empty libraries with the names they look for, they can, and every class, enum and signature can be read. Nothing of
TensorRT runs. The files are NVIDIA's: they stay in the temporary folder of the test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from trt_comparison import attributes, bound_name, fake_lacks, reachable

VERSIONS = ("10.16.1.11", "11.4.0.106")

ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
"""The functions that the bindings want of TensorRT's libraries when they are loaded."""

opt_in = pytest.mark.skipif(
    not os.environ.get("ARCHDSL_TRT_SURFACE"),
    reason="downloads TensorRT's bindings; to run it: ARCHDSL_TRT_SURFACE=1 pytest tests/test_trt_surface.py",
)


def make_surface(version: str, folder: Path) -> dict[str, str]:
    """Put the bindings of a version and empty libraries for them into `folder`. -> the environment to import them in"""
    package = f"tensorrt-cu13-bindings=={version}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    got = subprocess.run(download, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.fail(f"pip could not download {package}:\n{got.stderr}")
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    source = folder / "nothing.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in ENTRY_POINTS))
    inside = folder / "tensorrt_bindings"
    for library in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        name = f"{library}.so.{version.split('.')[0]}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(inside / name)]
        subprocess.run([shutil.which("gcc") or "cc", *options, str(source)], check=True)
    paths = [str(folder), str(Path(__file__).parent), str(Path(__file__).parents[1])]
    libraries = [str(inside), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


@opt_in
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="needs a C compiler")
@pytest.mark.parametrize("version", VERSIONS)
def test_our_protocols_and_the_stand_in_agree_with_the_bindings(version, tmp_path):
    environment = make_surface(version, tmp_path)
    program = [sys.executable, str(Path(__file__).with_name("trt_comparison.py")), "tensorrt_bindings"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{found['version']}: {len(found['compared'])} members, {len(found['fake_compared'])} of the stand-in")
    assert found["version"] == version
    assert found["wrong"] == []
    assert found["fake_wrong"] == []
    named = {f"{bound_name(protocol)}.{name}" for protocol in reachable() for name in attributes(protocol)}
    assert named <= set(found["compared"])
    assert found["use"] == {
        "messages": [["ERROR", "said"]],
        "flag": 1 << found["use"]["flag"].bit_length() - 1,
        "refused": "no-gpu",
        "status": f"TensorRT {version}, but no NVIDIA GPU was found",
    }


def test_the_stand_in_has_every_member_that_the_protocols_name():
    assert fake_lacks() == []


def test_the_protocols_are_walked_as_a_whole():
    from archdsl.backends.trt import api

    written = {
        thing.__name__
        for thing in vars(api).values()
        if getattr(thing, "_is_protocol", False) and thing.__module__ == api.__name__
    }
    assert {protocol.__name__ for protocol in reachable()} == written - {"Member", "Constructors"}
    assert sum(len(attributes(protocol)) for protocol in reachable()) > 60
