"""Depth and normals as stored images: what the values mean and how exact they are.

Both come from one ray through each pixel's centre. The entries of `SERIES` go into dataset.json, where readers find
them.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["DEPTH_UNIT", "SERIES", "encode_depth", "encode_normals"]

DEPTH_UNIT = 1 / 16384
"""A step of stored depth, in units of normalised space; 65535 of them reach to 4."""

SERIES: dict[str, dict[str, Any]] = {
    "depth": {
        "series": "depth",
        "suffix": "png",
        "dtype": "uint16",
        "channels": 1,
        "unit": "normalised space, along the viewing axis, at the pixel's centre",
        "scale": DEPTH_UNIT,
        "offset": 0.0,
        "invalid": 0,
    },
    "normals": {
        "series": "normals",
        "suffix": "webp",
        "dtype": "uint8",
        "channels": 3,
        "unit": "unit vector in normalised space (x, y, z), shading normal at the pixel's centre, towards the camera",
        "scale": 1 / 127,
        "offset": -128 / 127,
        "invalid": 0,
    },
}
"""Modality -> its description: value = stored * scale + offset; ``invalid`` is stored where nothing is seen."""


def encode_depth(depth: np.ndarray) -> bytes:
    """16-bit PNG of (height, width) float32 depth, inf where nothing is; off by half a `DEPTH_UNIT` at most."""
    seen = np.isfinite(depth)
    steps = np.where(seen, np.clip(np.rint(np.where(seen, depth, 0.0) / DEPTH_UNIT), 1, 65535), 0)
    out = io.BytesIO()
    Image.fromarray(steps.astype(np.uint16)).save(out, "PNG", compress_level=6)
    return out.getvalue()


def encode_normals(normals: np.ndarray) -> bytes:
    """Lossless WebP of (height, width, 3) float32 unit normals, 0 where nothing is; off by 0.4 degrees at most."""
    seen = np.abs(normals).max(axis=-1, keepdims=True) > 0
    steps = np.where(seen, np.rint(normals * 127 + 128), 0).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(steps).save(out, "WEBP", lossless=True, exact=True, method=4, quality=100)
    return out.getvalue()
