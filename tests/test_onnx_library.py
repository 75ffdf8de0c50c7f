"""ONNX Runtime: nothing is written or sent for its makers, wherever archdsl imports it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_it_is_imported_in_one_place():
    imports = re.compile(r"^\s*import onnxruntime|import_module\(\"onnxruntime", re.MULTILINE)
    found = [path for path in (ROOT / "archdsl").rglob("*.py") if imports.search(path.read_text())]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["archdsl/backends/onnx/library.py"]


@pytest.mark.promise(40)
def test_a_session_leaves_nothing_in_the_home_directory(tmp_path):
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    (tmp_path / "home").mkdir()
    code = (
        "import sys; from archdsl.backends.onnx.library import import_onnxruntime\n"
        "import_onnxruntime().InferenceSession(sys.argv[1])"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.onnx")], env=environment, check=True, timeout=100)
    assert not any((tmp_path / "home").rglob("*"))
