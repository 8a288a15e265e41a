"""Frames as bytes and back, and the one right way to put a background behind them.

A frame is RGBA uint8, straight alpha, sRGB-encoded, RGB = 0 where alpha = 0; stored as lossless WebP it decodes to
exactly these values. Parallel series (depth, normals) are decoded by what dataset.json says of them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from manifests.errors import DatasetError, InputError

__all__ = ["composite", "decode_frame", "decode_series", "encode_frame", "encoder_version"]


def encoder_version() -> str:
    """The libraries that decide the bytes of `encode_frame`; recorded in every sample."""
    return f"pillow {PIL.__version__}, libwebp {features.version_module('webp')}"


def encode_frame(rgba: np.ndarray, *, method: int = 4) -> bytes:
    """Lossless WebP that keeps RGB exact, also where alpha is low.

    Args:
        rgba: (height, width, 4) uint8.
        method: libwebp's effort, 0 to 6; the pixels are the same, the bytes are not.

    Raises:
        InputError: another shape or type, or colour behind alpha 0.
    """
    if rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4:
        raise InputError(f"frame: found {rgba.dtype} {rgba.shape}, expected uint8 (height, width, 4)")
    if rgba[rgba[..., 3] == 0].any():
        raise InputError("frame: found colour where alpha is 0, expected 0 0 0 there; multiply RGB by (alpha > 0)")
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "WEBP", lossless=True, exact=True, method=method, quality=20)
    return out.getvalue()


def decode_frame(data: bytes, where: str) -> np.ndarray:
    """(height, width, 4) uint8, straight alpha.

    Raises:
        DatasetError: not an image, or none with four channels.
    """
    image = _open(data, where)
    # libwebp drops a channel that is 255 everywhere; the frame is opaque then.
    if image.mode not in ("RGBA", "RGB"):
        raise DatasetError(
            f"{where}: found an image of mode {image.mode}, expected RGBA; run `mvv verify` on the dataset"
        )
    return np.asarray(image.convert("RGBA"))


def decode_series(data: bytes, modality: dict[str, Any], where: str) -> np.ndarray:
    """One frame of a parallel series in its unit: float32, NaN where the stored value is the invalid one.

    Args:
        data: PNG, WebP or npy bytes.
        modality: entry of dataset.json; value = stored * ``scale`` + ``offset``, in ``unit``.
        where: for errors.

    Returns:
        (height, width) or (height, width, channels) float32.

    Raises:
        DatasetError: bytes that do not decode.
    """
    if modality["suffix"] == "npy":
        try:
            stored = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DatasetError(f"{where}: found {error}, expected an npy array") from error
    else:
        stored = np.asarray(_open(data, where))
    values = stored.astype(np.float64) * modality.get("scale", 1.0) + modality.get("offset", 0.0)
    if "invalid" in modality:
        bad = stored == modality["invalid"]
        values[bad.all(axis=-1) if stored.ndim == 3 else bad] = np.nan
    return values.astype(np.float32)


def composite(
    rgba: np.ndarray, background: Sequence[float] | np.ndarray, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Frames over a colour: sRGB-encoded values are mixed, premultiplied before any resize.

    Args:
        rgba: (..., height, width, 4) uint8, straight alpha.
        background: three sRGB-encoded values in 0..1, e.g. 0.5 grey.
        size: (height, width) of the result; None keeps it. Resized with an antialiased bicubic filter.

    Returns:
        (..., height, width, 3) uint8.

    Raises:
        InputError: another shape or type, or a background outside 0..1.
    """
    color = np.asarray(background, np.float32)
    if rgba.dtype != np.uint8 or rgba.ndim < 3 or rgba.shape[-1] != 4:
        raise InputError(f"composite: found {rgba.dtype} {rgba.shape}, expected uint8 (..., height, width, 4)")
    if color.shape != (3,) or not ((color >= 0) & (color <= 1)).all():
        raise InputError(f"background: found {background}, expected three values from 0 to 1")
    if size is None or size == rgba.shape[-3:-1]:
        # Few pixels are translucent; the others need no arithmetic, which makes this four times as fast.
        alpha = rgba[..., 3]
        out = np.where((alpha == 255)[..., None], rgba[..., :3], _rounded(color * 255))
        some = (alpha > 0) & (alpha < 255)
        out[some] = _over(_premultiplied(rgba[some]), color)
        return out
    flat = rgba.reshape(-1, *rgba.shape[-3:])
    resized = np.stack([_resize(_premultiplied(image), size) for image in flat])
    return _over(resized, color).reshape(*rgba.shape[:-3], *size, 3)


def _premultiplied(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) float32: colour 0 to 255 times alpha, alpha 0 to 1."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.concatenate([rgba[..., :3].astype(np.float32) * alpha, alpha], -1)


def _over(layers: np.ndarray, color: np.ndarray) -> np.ndarray:
    return _rounded(layers[..., :3] + (1 - layers[..., 3:]) * color * 255)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[-1])]
    return np.stack([np.asarray(c.resize(size[::-1], Image.Resampling.BICUBIC)) for c in channels], -1)


def _open(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("WEBP", "PNG"))
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{where}: found {error}, expected an image; run `mvv verify` on the dataset") from error
    return image
