"""Whether rendered masks are where the geometry is: the box of a mask against the box of the projected vertices.

Poses the asset with `manifests.gltf` at ``times_s``, normalises and projects it as the sample says, with formulas
written out here. Used by the tests on single clips and by ``check_masks.py`` on whole datasets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from manifests.gltf import Poser, load_obj, read

__all__ = ["ALPHA", "MAX_PX", "P99_PX", "THIN_PX", "box_errors", "posed", "summary"]

ALPHA = 7
"""A pixel belongs to the mask where alpha is above this."""
THIN_PX = 3.0
"""Views whose projected hull is thinner are left out: what is seen edge-on covers no whole pixel."""
P99_PX, MAX_PX = 2.0, 4.0
"""What is allowed."""
_COLLAPSED = 1e-7


def posed(asset_path: Path | str, sample: dict[str, Any]) -> list[np.ndarray]:
    """The visible vertices of each frame in normalised space, (N, 3); parts that a zero scale hides are left out."""
    path = Path(asset_path)
    poser = Poser(load_obj(path) if path.suffix.lower() == ".obj" else read(path))
    animation = _animation(poser, sample)
    parts = poser.positions(animation, np.array(sample["times_s"]))
    normalization = sample["normalization"]
    frames, first = [], None
    for frame in range(len(sample["times_s"])):
        points = [part[frame].astype(np.float64) for part in parts]
        middle = np.concatenate(points).mean(0)
        first = middle if first is None else first
        travel = (middle - first) * [1, 1, 0] if normalization["root_motion"] == "remove" else np.zeros(3)
        seen = [part for part in points if np.ptp(part, axis=0).max() > _COLLAPSED * np.abs(part).max()]
        all_seen = np.concatenate(seen) if seen else np.zeros((0, 3))
        frames.append((all_seen - travel - normalization["center"]) * normalization["scale"])
    return frames


def box_errors(asset_path: Path | str, sample: dict[str, Any], frames_rgba: np.ndarray) -> np.ndarray:
    """How far each side of each mask's box is from where the vertices project to.

    Args:
        asset_path: the file that was rendered.
        sample: its clip's JSON.
        frames_rgba: (V, F, H, W, 4) uint8.

    Returns:
        (V, F, 4) pixels: left, top, right, bottom; NaN where the projected hull is thinner than `THIN_PX` or leaves the
        image (which modes `frame0` and `given` allow), inf where there is no mask.
    """
    views, frames, height, width = frames_rgba.shape[:4]
    c2w, K = np.array(sample["cameras"]["c2w"]), np.array(sample["cameras"]["K"])
    assert (views, frames) == (len(K), len(sample["times_s"])), "frames of another clip"
    errors = np.full((views, frames, 4), np.nan)
    for frame, points in enumerate(posed(asset_path, sample)):
        for view in range(views):
            camera = c2w[view] if c2w.ndim == 3 else c2w[view, frame]
            expected = _projected_box(points, camera, K[view], width, height)
            if expected is not None:
                errors[view, frame] = np.abs(_mask_box(frames_rgba[view, frame, ..., 3]) - expected)
    return errors


def summary(errors: np.ndarray) -> tuple[float, float, int]:
    """(99th percentile, maximum, number of images) over what was not left out."""
    kept = errors[~np.isnan(errors)]
    if not len(kept):
        return 0.0, 0.0, 0
    return float(np.quantile(kept, 0.99, method="higher")), float(kept.max()), len(kept) // 4


def _animation(poser: Poser, sample: dict[str, Any]) -> int | None:
    index, name = sample["animation"]["index"], sample["animation"]["name"]
    if index >= 0:
        return index
    # A still: as an animation of that name has it, or at rest.
    return next((a.index for a in poser.asset.animations if name and a.name == name), None)


def _projected_box(points: np.ndarray, c2w: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """Pixels (left, top, right, bottom) that hold the outermost vertices; None where nothing can be said."""
    if not len(points):
        return None
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    x, y, z = local.T
    assert (z < 0).all(), "a vertex behind the camera"
    uv = np.column_stack([K[0, 2] - K[0, 0] * x / z, K[1, 2] + K[1, 1] * y / z])
    if _thickness(uv) < THIN_PX:
        return None
    low, high = np.floor(uv.min(0)), np.floor(uv.max(0))
    if (low < 0).any() or high[0] >= width or high[1] >= height:
        return None
    return np.array([*low, *high])


def _thickness(uv: np.ndarray) -> float:
    """Smallest distance between two parallel lines that hold all points."""
    try:
        hull = ConvexHull(uv)
    except QhullError:  # all on one line
        return 0.0
    reach = hull.equations[:, :2] @ uv[hull.vertices].T
    return float((reach.max(1) - reach.min(1)).min())


def _mask_box(alpha: np.ndarray) -> np.ndarray:
    mask = alpha > ALPHA
    if not mask.any():
        return np.full(4, np.inf)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)
