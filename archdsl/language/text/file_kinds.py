"""What a file is that is no YAML, by its first bytes."""

from __future__ import annotations

_BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive, such as a .pth or .pt2 file of PyTorch"),
    (b"\x80\x02", "a Python pickle, such as an old .pth file of PyTorch"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x1f\x8b", "a file that gzip compressed"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program or library"),
    (b"ftrt", "a TensorRT engine"),
)
_ONNX = b"\x08"
"""The first field of an ONNX model: its version, a small number."""


def kind_of_file(data: bytes) -> str | None:
    """`an ONNX model`, `a PNG image`, … from a file's first bytes; None where they say nothing."""
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < 1 << 30:
        return "a safetensors file of weights"
    if data[:1] == _ONNX and len(data) > 2 and data[1] < 32 and data[2] in (0x12, 0x1A, 0x22, 0x2A, 0x3A, 0x42):
        return "an ONNX model"
    return None
