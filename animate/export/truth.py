"""How far an animation is from the truth, where the truth is known: vertices, and pictures from any view.

Measures only; it neither poses nor renders. Frame 0 is given to every method and counts in none of the figures of
motion, which it would only flatter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from manifests.images import composite

__all__ = ["EXACT_DB", "compare_motion", "image_figures"]

EXACT_DB = 100.0
"""What a picture without any error counts as, so that a mean stays finite."""


def compare_motion(pred: np.ndarray, truth: np.ndarray, diagonal: float) -> dict[str, Any]:
    """Distances between vertices and where they should be.

    Args:
        pred: (F, N, 3), F at least 2, frame 0 the object at rest.
        truth: (F, N, 3), the same vertices.
        diagonal: of the box around the object at rest, in the unit of the vertices.

    Returns:
        plain numbers, distances as shares of the diagonal, over frames 1 to F - 1 and all vertices alike: ``mean``,
        ``p95`` (95th percentile), ``max``; ``static``, the mean of an object that never moves; ``share_of_static``,
        mean / static (1: no better than not moving), None where the truth stands still; ``frames``, the mean of each
        of the F frames; ``static_frames``, the same without motion.
    """
    pred, truth = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    assert pred.shape == truth.shape, f"{pred.shape} against {truth.shape}"
    assert pred.ndim == 3, f"{pred.shape}, expected (F, N, 3)"
    assert len(pred) >= 2, f"{len(pred)} frames, expected at least two"
    assert diagonal > 0, f"diagonal {diagonal}"
    error = np.linalg.norm(pred - truth, axis=-1) / diagonal
    static = np.linalg.norm(truth[:1] - truth, axis=-1) / diagonal
    moving = float(static[1:].mean())
    return {
        "mean": float(error[1:].mean()),
        "p95": float(np.percentile(error[1:], 95)),
        "max": float(error[1:].max()),
        "static": moving,
        "share_of_static": float(error[1:].mean()) / moving if moving > 0 else None,
        "frames": [float(mean) for mean in error.mean(axis=1)],
        "static_frames": [float(mean) for mean in static.mean(axis=1)],
    }


def image_figures(
    pred: np.ndarray, truth: np.ndarray, background: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> dict[str, float]:
    """How alike pictures are; each figure is computed a picture and averaged.

    Args:
        pred: (..., height, width, 4) uint8, straight alpha, sRGB-encoded.
        truth: as `pred`.
        background: put behind both, sRGB-encoded 0 to 1.

    Returns:
        ``psnr``: dB over the whole picture (empty background raises it); ``psnr_object``: dB over the box around what
        either of the two covers (alpha at least one half), the whole picture where none does; both at most `EXACT_DB`
        a picture. ``mask_iou``: pixels covered by both over pixels covered by one, 1 where nothing is.
    """
    assert pred.shape == truth.shape, f"{pred.shape} against {truth.shape}"
    shape = (-1, *pred.shape[-3:])
    whole, boxed, overlap = [], [], []
    for one, other in zip(pred.reshape(shape), truth.reshape(shape), strict=True):
        squared = np.square(composite(one, background).astype(np.float64) - composite(other, background))
        masks = one[..., 3] >= 128, other[..., 3] >= 128
        union = masks[0] | masks[1]
        whole.append(_decibels(squared))
        boxed.append(_decibels(squared[_box(union)]))
        overlap.append(float((masks[0] & masks[1]).sum() / union.sum()) if union.any() else 1.0)
    figures = {"psnr": whole, "psnr_object": boxed, "mask_iou": overlap}
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _decibels(squared: np.ndarray) -> float:
    error = float(squared.mean())
    return EXACT_DB if error == 0 else min(EXACT_DB, 10 * math.log10(255.0**2 / error))


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Rows and columns around a mask; all where it is empty."""
    spans = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    return tuple(slice(span[0], span[-1] + 1) if len(span) else slice(None) for span in spans)
