"""Messages between a parent and its child: JSON in frames of magic, length and checksum, at most `MOST_BYTES` long."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"adsl"
HEADER = struct.Struct(">4sQ32s")
MOST_BYTES = 256 * 2**20
_DTYPES = ("float16", "float32", "float64", "int32", "int64")

Message = dict[str, Any]


class FrameError(Exception):
    """The bytes are not a frame: another program wrote into the socket, or the child is damaged."""


def encode(message: Message) -> bytes:
    """The frame of a message. Raises FrameError above the cap, ValueError for NaN and what JSON cannot say."""
    body = json.dumps(message, allow_nan=False).encode()
    if len(body) > MOST_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is over the cap of {MOST_BYTES}")
    return HEADER.pack(MAGIC, len(body), hashlib.sha256(body).digest()) + body


class Decoder:
    """Collects bytes and gives messages back as they become whole."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def next(self) -> Message | None:
        """The next whole message, None if it is not all there. Raises FrameError for anything but a frame."""
        if len(self._bytes) < HEADER.size:
            return None
        magic, length, digest = HEADER.unpack_from(self._bytes)
        if magic != MAGIC or length > MOST_BYTES:
            raise FrameError("not a frame")
        end = HEADER.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[HEADER.size : end])
        del self._bytes[:end]
        if hashlib.sha256(body).digest() != digest:
            raise FrameError("the checksum is wrong")
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("a message is a mapping")
        return message


def pack_array(array: NDArray[Any]) -> Message:
    """An array of numbers as JSON."""
    if array.dtype.name not in _DTYPES:
        raise ValueError(f"arrays here are of {', '.join(_DTYPES)}, got {array.dtype}")
    data = base64.b64encode(array.tobytes(order="C")).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack_array(packed: Message) -> NDArray[Any]:
    """The array that `pack_array` packed. Raises ValueError when size and shape disagree."""
    import numpy as np

    if packed["dtype"] not in _DTYPES:
        raise ValueError(f"arrays here are of {', '.join(_DTYPES)}, got {packed['dtype']}")
    flat = np.frombuffer(base64.b64decode(packed["data"], validate=True), dtype=packed["dtype"])
    shape = tuple(int(size) for size in packed["shape"])
    if flat.size != prod(shape):
        raise ValueError(f"{flat.size} numbers do not fill {shape}")
    return flat.reshape(shape)
