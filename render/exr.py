"""Reads the one kind of OpenEXR file that the renderer writes: uncompressed scan lines of 32-bit floats.

Blender's own loader mangles multi-layer files and costs more than the render of a small image. Not a general reader:
anything else is refused. Layout: openexr.com, "OpenEXR File Layout".
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

__all__ = ["read_exr"]

_MAGIC = 20000630
_FLOAT = 2


def read_exr(path: str | Path) -> dict[str, np.ndarray]:
    """Channel name -> (height, width) float32, first row on top.

    Raises:
        ValueError: another compression, pixel type or layout.
    """
    data = Path(path).read_bytes()
    magic, version = struct.unpack_from("<ii", data)
    if magic != _MAGIC or version & ~0x4FF or version & 0x200:
        raise ValueError(f"{path}: found magic {magic} version {version:#x}, expected one part of scan lines")
    at, attributes = 8, {}
    while data[at]:
        name, at = _text(data, at)
        _, at = _text(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        attributes[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    if attributes["compression"] != b"\0":
        raise ValueError(f"{path}: found compression {attributes['compression']!r}, expected none")
    channels = _channels(attributes["channels"], path)
    x0, y0, x1, y1 = struct.unpack("<4i", attributes["dataWindow"])
    width, height = x1 - x0 + 1, y1 - y0 + 1
    start = at + 1 + 8 * height
    # A line is y, size, then each channel's row in the order of the (sorted) channel list.
    lines = np.frombuffer(data, np.float32, offset=start).reshape(height, 2 + len(channels) * width)
    rows = lines[:, 2:].reshape(height, len(channels), width)
    return {name: rows[:, index] for index, name in enumerate(channels)}


def _channels(data: bytes, path: str | Path) -> list[str]:
    names, at = [], 0
    while data[at]:
        name, at = _text(data, at)
        kind, _, x_step, y_step = struct.unpack_from("<iiii", data, at)
        if (kind, x_step, y_step) != (_FLOAT, 1, 1):
            raise ValueError(f"{path}: found channel {name} of type {kind}, expected 32-bit floats at every pixel")
        names.append(name)
        at += 16
    return names


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1
