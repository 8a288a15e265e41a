"""How much of the motion on an object a camera that circles it leaves unexplained.

Points of the object are followed through eight frames along the flow. If only the camera moves, around the object's
centre and at one distance, then each point has one depth for all frames and each frame one rotation for all points, and
in perspective these say where every point is seen. Depths and rotations are fitted; what is left over is motion of the
object itself. Two choices make the fit strict: no point may be deeper than the object is wide, and a step of a point
counts only where forward and backward flow agree (flow on hidden or flat parts explains nothing).

Source: structure from motion by alternating Gauss-Newton steps; the relief starts as the silhouette blown up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, map_coordinates

__all__ = ["OrbitFit", "fit_orbit"]

_WINDOW = 8
"""Frames through which points are followed: limbs have time to differ, and most points stay in sight."""
_SHORTEST = 4
"""Frames below which an arbitrary depth a point explains almost any motion."""
_POINTS = 300
_FEWEST = 40
_EDGE_PX = 2
"""Distance from the silhouette, where flow mixes object and background."""
_TRUSTED = 0.9
"""Share of the points that count; those that fit worst are mostly hidden on the way."""
_ROUNDS = 30
"""Not until it converges, on purpose: exact orbits are down to 0.05 by then, and a relief that is still near the blown
up silhouette cannot pass the bend of a wing off as depth."""


@dataclass(frozen=True, kw_only=True)
class OrbitFit:
    """The middle of all windows.

    Attributes:
        left_over: RMS of the displacement that no orbit explains, over the geometric mean of that of the whole
            displacement and of its part that is not common to all points; 0 for an orbit. The mean keeps limbs on a
            body that moves as a whole apart from a body that only moves.
        spread: median over the 95th percentile of how far points move; 0 where most of the object stands still.
    """

    left_over: float
    spread: float


def fit_orbit(
    flow: np.ndarray, agrees: np.ndarray, masks: np.ndarray, *, focal_px: float, center: tuple[float, float]
) -> OrbitFit | None:
    """Fits an orbit to every window of a clip.

    Args:
        flow: (frame - 1, height, width, 2), from frame t to t + 1, in pixels of this grid.
        agrees: (frame - 1, height, width) bool, where the flow can be trusted.
        masks: (frame, height, width) bool, the object.
        focal_px: of the camera, in pixels of this grid.
        center: (x, y) where the axis of the camera meets the picture, pixels.

    Returns:
        None where the clip is too short, the object too small, or too few points can be followed.
    """
    length = min(_WINDOW, len(masks))
    if length < _SHORTEST:
        return None
    found = []
    for start in range(0, len(masks) - length + 1, length - 1):
        window = slice(start, start + length - 1)
        places = _followed(flow[window], agrees[window], masks[start : start + length])
        if places is not None:
            found.append(_left_over(places, masks[start], focal_px, np.array(center) - 0.5))
    if not found:
        return None
    left_over, spread = np.median(found, axis=0)
    return OrbitFit(left_over=float(left_over), spread=float(spread))


def _followed(flow: np.ndarray, agrees: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
    """(frame, point, 2) places (x, y) of points that stay trusted and on the object, or None where too few do."""
    inner = [binary_erosion(mask, iterations=_EDGE_PX) for mask in masks]
    rows, columns = np.nonzero(inner[0])
    if len(rows) < _FEWEST:
        return None
    chosen = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(int)
    places = [np.stack([columns[chosen], rows[chosen]], -1).astype(float)]
    stays = np.ones(len(chosen), bool)
    last = np.array(masks.shape[:0:-1]) - 1
    for step, trusted, mask in zip(flow, agrees, inner[1:], strict=True):
        x, y = np.clip(np.rint(places[-1]), 0, last).astype(int).T
        stays &= trusted[y, x]
        here = places[-1][:, ::-1].T
        moved = [map_coordinates(step[..., axis], here, order=1, mode="nearest") for axis in (0, 1)]
        places.append(places[-1] + np.stack(moved, -1))
        x, y = np.clip(np.rint(places[-1]), 0, last).astype(int).T
        stays &= ((places[-1] >= 0) & (places[-1] <= last)).all(-1) & mask[y, x]
    return np.stack(places)[:, stays] if np.count_nonzero(stays) >= _FEWEST else None


def _left_over(places: np.ndarray, mask: np.ndarray, focal: float, center: np.ndarray) -> tuple[float, float]:
    """(left_over, spread) of one window."""
    rows, columns = np.nonzero(mask)
    reach = 0.5 * float(np.hypot(np.ptp(rows), np.ptp(columns)))
    inside = distance_transform_edt(mask)
    x, y = np.rint(places[0]).astype(int).T
    blown = np.sqrt(inside[y, x] * (2 * inside.max() - inside[y, x]))
    # The fit may end in a mirror image of the relief, and a card in front of the axis is far from a blown up outline.
    starts = (blown, -blown, np.full_like(blown, reach / 2))
    rest = min((_unexplained(places - center, start, focal, reach) for start in starts), key=_rms)
    moved = places[1:] - places[0]
    whole = np.sqrt((moved**2).sum(-1).mean(0))
    own = np.sqrt(((moved - moved.mean(1, keepdims=True)) ** 2).sum(-1).mean(0))
    scale, high = np.sqrt(_rms(whole) * _rms(own)), np.percentile(whole, 95)
    return (_rms(rest) / scale if scale > 0 else 0.0), (float(np.median(whole) / high) if high > 0 else 0.0)


def _unexplained(places: np.ndarray, depth: np.ndarray, focal: float, reach: float) -> np.ndarray:
    """(point,) RMS distance in pixels, over the frames, of where points are from where the best orbit puts them.

    Args:
        places: (frame, point, 2) from the picture's centre, x right, y down.
        depth: (point,) to start with, towards the camera from the object's centre; in pixels at the centre's distance,
            where the camera is ``focal`` away.
        focal: pixels.
        reach: largest depth either way.
    """
    turns = np.tile(np.eye(3), (len(places), 1, 1))
    weights = np.ones(len(depth))
    along = np.concatenate([-places[0] / focal, np.ones((len(depth), 1))], -1)  # how a point moves with its depth
    rest = np.concatenate([places[0], np.zeros((len(depth), 1))], -1)
    for _ in range(_ROUNDS):
        error, slope, turned = _compare(places, rest + along * depth[:, None], turns, focal)
        spin = slope @ _across(turned)
        normal = np.einsum("fpai,fpaj,p->fij", spin, spin, weights)
        normal += (1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-9) * np.eye(3)
        step = np.linalg.solve(normal, np.einsum("fpai,fpa,p->fi", spin, error, weights)[..., None])[..., 0]
        step[0] = 0  # frame 0 is where the depths are measured
        turns = _rotations(step) @ turns
        error, slope, _ = _compare(places, rest + along * depth[:, None], turns, focal)
        deeper = np.einsum("fpai,fij,pj->fpa", slope, turns, along)
        curvature = (deeper**2).sum((0, 2))
        depth = depth + (deeper * error).sum((0, 2)) / (curvature + 1e-3 * curvature.mean() + 1e-9)
        depth = np.clip(depth, -reach, reach)
        distance = np.sqrt((error**2).sum(-1).mean(0))
        weights = 1 / np.maximum(1, distance / (2 * np.median(distance) + 1e-6))  # Huber's
    error, _, _ = _compare(places, rest + along * depth[:, None], turns, focal)
    return np.sqrt((error[1:] ** 2).sum(-1).mean(0))


def _compare(
    places: np.ndarray, points: np.ndarray, turns: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is missing to the seen places (frame, point, 2), its slope (..., 2, 3) in the turned points, and these."""
    turned = np.einsum("fij,pj->fpi", turns, points)
    scale = focal / np.maximum(focal - turned[..., 2], 0.2 * focal)
    shown = turned[..., :2] * scale[..., None]
    slope = np.zeros((*shown.shape, 3))
    slope[..., 0, 0] = slope[..., 1, 1] = scale
    slope[..., 2] = shown * scale[..., None] / focal
    return places - shown, slope, turned


def _across(points: np.ndarray) -> np.ndarray:
    """(..., 3, 3) how points move with a small rotation vector w: w x point."""
    x, y, z = np.moveaxis(points, -1, 0)
    zero = np.zeros_like(x)
    rows = ((zero, z, -y), (-z, zero, x), (y, -x, zero))
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """(frame, 3, 3) of rotation vectors (frame, 3). Source: Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=-1)[:, None, None]
    cross = -_across(vectors)
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross


def _rms(values: np.ndarray) -> float:
    trusted = np.sort(values)[: max(1, int(_TRUSTED * len(values)))]
    return float(np.sqrt(np.mean(trusted**2)))
