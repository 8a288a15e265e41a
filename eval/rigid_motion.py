"""How much of the motion on an object a single rigid motion leaves over.

Points of the object are followed through eight frames along the flow. If camera and object move rigidly to each other,
their displacements are, seen from far away, an affine map of their places (with the two terms of a plane in
perspective) plus a depth of each point, the same in all frames, times a direction of each frame. What is left over is
the object's own motion.

Source: affine factorization (Tomasi, Kanade, IJCV 1992) with the terms of planar motion of Longuet-Higgins (1984).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, map_coordinates

__all__ = ["RigidFit", "fit_rigid"]

_WINDOW = 8
"""Frames through which a point is followed: enough that two limbs differ, few enough that most points stay visible."""
_SHORTEST = 4
"""Frames below which an arbitrary depth a point explains almost any motion."""
_POINTS = 600
_FEWEST = 50
_KEPT = 0.4
"""Share of the points that must stay on the object for a window to count."""
_EDGE_PX = 2
"""Distance from the silhouette, where flow mixes object and background."""
_TRUSTED = 0.9
"""Share of the points that count; those that fit worst are mostly hidden on the way."""


@dataclass(frozen=True, kw_only=True)
class RigidFit:
    """The middle of all windows.

    Attributes:
        left_over: RMS of the displacement that one rigid motion leaves, over the geometric mean of that of the whole
            displacement and of its part that is not common to all points; 0 for a rigid motion. The mean keeps both a
            pure slide (nothing but common motion) and limbs on a sliding body (mostly common motion) in their places.
        spread: median over the 95th percentile of how far points move; 0 where most of the object stands still.
    """

    left_over: float
    spread: float


def fit_rigid(flow: np.ndarray, masks: np.ndarray) -> RigidFit | None:
    """Fits one rigid motion to every window of a clip.

    Args:
        flow: (frame - 1, height, width, 2), from frame t to t + 1, in pixels of this grid.
        masks: (frame, height, width) bool, the object.

    Returns:
        None where the clip is too short, the object too small, or too few points can be followed.
    """
    length = min(_WINDOW, len(masks))
    if length < _SHORTEST:
        return None
    inner = np.stack([binary_erosion(mask, iterations=_EDGE_PX) for mask in masks])
    starts = range(0, len(masks) - length + 1, length - 1)
    windows = (_followed(flow[s : s + length - 1], inner[s : s + length]) for s in starts)
    found = [_left_over(places) for places in windows if places is not None]
    if not found:
        return None
    left_over, spread = np.median(found, axis=0)
    return RigidFit(left_over=float(left_over), spread=float(spread))


def _followed(flow: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
    """(frame, point, 2) places (x, y) of points that stay on the object, or None where too few do."""
    rows, columns = np.nonzero(masks[0])
    if len(rows) < _FEWEST:
        return None
    chosen = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(int)
    places = [np.stack([columns[chosen], rows[chosen]], -1).astype(float)]
    stays = np.ones(len(chosen), bool)
    last = np.array(masks.shape[:0:-1]) - 1
    for step, mask in zip(flow, masks[1:], strict=True):
        here = places[-1][:, ::-1].T
        moved = [map_coordinates(step[..., axis], here, order=1, mode="nearest") for axis in (0, 1)]
        places.append(places[-1] + np.stack(moved, -1))
        nearest = np.rint(places[-1]).astype(int)
        inside = ((nearest >= 0) & (nearest <= last)).all(-1)
        x, y = np.clip(nearest, 0, last).T
        stays &= inside & mask[y, x]
    enough = np.count_nonzero(stays) >= max(_FEWEST, _KEPT * len(stays))
    return np.stack(places)[:, stays] if enough else None


def _left_over(places: np.ndarray) -> tuple[float, float]:
    """(left_over, spread) of one window."""
    moved = places[1:] - places[0]  # (step, point, 2)
    x, y = ((places[0] - places[0].mean(0)) / places[0].std()).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    pairs = [(one, zero), (x, zero), (y, zero), (zero, one), (zero, x), (zero, y), (x * x, x * y), (x * y, y * y)]
    terms = np.stack([np.concatenate(pair) for pair in pairs], 1)  # (2 point, 8): u above v
    targets = np.concatenate([moved[..., 0], moved[..., 1]], 1).T  # (2 point, step)
    residual = targets - terms @ np.linalg.lstsq(terms, targets, rcond=None)[0]
    relief = residual.T.reshape(-1, len(x))  # (2 step, point): u and v of each step
    left, strength, depth = np.linalg.svd(relief, full_matrices=False)
    relief = (relief - strength[0] * np.outer(left[:, 0], depth[0])).reshape(len(moved), 2, -1)
    rest = np.sqrt((relief**2).sum(1).mean(0))
    whole = np.sqrt((moved**2).sum(-1).mean(0))
    own = np.sqrt(((moved - moved.mean(1, keepdims=True)) ** 2).sum(-1).mean(0))
    scale = np.sqrt(_rms(whole) * _rms(own))
    high = np.percentile(whole, 95)
    return (_rms(rest) / scale if scale > 0 else 0.0), (float(np.median(whole) / high) if high > 0 else 0.0)


def _rms(values: np.ndarray) -> float:
    trusted = np.sort(values)[: max(1, int(_TRUSTED * len(values)))]
    return float(np.sqrt(np.mean(trusted**2)))
