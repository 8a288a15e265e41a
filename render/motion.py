"""How an asset moves: what the clips of an animation are normalised by, and how much they move.

Everything comes from posed vertices, streamed a few frames at a time, so that memory does not grow with the length of
an animation. Definitions: design 3.1 (normalised space) and the columns ``motion_*``; nothing here renders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from manifests.errors import Rejected
from manifests.gltf import Poser

__all__ = ["Sweep", "frames_of", "sweep"]

_VERTICES_AT_ONCE = 2_000_000
_NOTHING = 1e-12


@dataclass(frozen=True)
class Sweep:
    """What one pass over F frames of an animation gives; lengths in the asset's world units."""

    center: np.ndarray
    """(3,) centre of frame 0's box."""
    frame0_radius: float
    """Of frame 0 around `center`."""
    radius: float
    """Of all frames around `center`; the clip's sphere."""
    low: np.ndarray
    """(3,) of the box over all frames."""
    high: np.ndarray
    """(3,) of the box over all frames."""
    mean_displacement: float
    """Mean distance of a vertex from where frame 0 has it, over vertices and later frames."""
    peak_displacement: float
    """The largest such distance."""
    mean_step: float
    """Mean distance of a vertex from where the frame before has it."""
    root_travel: float
    """Furthest that the box's centre gets from frame 0's."""
    scale_change: float
    """Largest over smallest radius of a frame about its own centre, minus 1; a ratio."""
    closing: float
    """Distance of the furthest vertex between the first and the last frame."""
    offsets: np.ndarray = field(repr=False)
    """(F, 3) travel taken out of each frame; zero where root motion is kept."""

    def figures(self, fps: float) -> dict[str, float]:
        """The sample's ``motion``, in radii of the clip's sphere."""
        radius = max(self.radius, _NOTHING)
        figures = {
            "mean_displacement": self.mean_displacement / radius,
            "peak_displacement": self.peak_displacement / radius,
            "mean_speed": self.mean_step / radius * fps,
            "root_travel": self.root_travel / radius,
            "scale_change": self.scale_change,
        }
        return {name: round(value, 6) for name, value in figures.items()}


def frames_of(poser: Poser, animation: int | None, times_s: np.ndarray) -> Iterator[list[np.ndarray]]:
    """World positions of the parts, one frame at a time: a list of (num_vertices, 3) arrays."""
    step = max(1, _VERTICES_AT_ONCE // max(1, poser.num_vertices))
    for begin in range(0, len(times_s), step):
        chunk = poser.positions(animation, times_s[begin : begin + step])
        for frame in range(len(times_s[begin : begin + step])):
            yield [part[frame] for part in chunk]


def sweep(poser: Poser, animation: int | None, times_s: np.ndarray, *, remove_root: bool = False) -> Sweep:
    """Measures the frames at `times_s`.

    Parts that a zero scale has collapsed to a point in a frame are invisible there and do not count in its box.

    Raises:
        Rejected: ``no-visible-mesh`` where a frame, in full or in its first, shows nothing at all.
    """
    first: np.ndarray | None = None
    travel, offsets, radii, centers = 0.0, [], [], []
    displacement_sum, step_sum, peak, radius, closing = 0.0, 0.0, 0.0, 0.0, 0.0
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index, parts in enumerate(frames_of(poser, animation, times_s)):
        points = np.concatenate(parts).astype(np.float64)
        if first is None:
            start = points.mean(0)
        offset = points.mean(0) - start if remove_root else np.zeros(3)
        offset[2] = 0.0
        offsets.append(offset)
        points -= offset
        seen = points[_visible(parts)]
        if not len(seen):
            if index == 0:
                raise Rejected(
                    "no-visible-mesh",
                    f"at {float(times_s[0]):.4g} s every part has zero size, expected a visible surface in frame 0",
                )
            seen = points[:1]
        box_low, box_high = seen.min(0), seen.max(0)
        middle = (box_low + box_high) / 2
        centers.append(middle)
        radii.append(_reach(seen, middle))
        if first is None:
            first, previous, center = points, points, middle
        else:
            moved = np.sqrt(((points - first) ** 2).sum(1))
            displacement_sum += float(moved.mean())
            closing = float(moved.max())
            peak = max(peak, closing)
            step_sum += float(np.sqrt(((points - previous) ** 2).sum(1)).mean())
            previous = points
        travel = max(travel, float(np.linalg.norm(middle - center)))
        radius = max(radius, _reach(seen, center))
        low, high = np.minimum(low, box_low), np.maximum(high, box_high)
    later = max(1, len(radii) - 1)
    return Sweep(
        center=center,
        frame0_radius=radii[0],
        radius=radius,
        low=low,
        high=high,
        mean_displacement=displacement_sum / later,
        peak_displacement=peak,
        mean_step=step_sum / later,
        root_travel=travel,
        scale_change=max(radii) / max(min(radii), _NOTHING * max(radii), 1e-300) - 1 if max(radii) > 0 else 0.0,
        closing=closing,
        offsets=np.array(offsets),
    )


def _reach(points: np.ndarray, center: np.ndarray) -> float:
    return float(np.sqrt(((points - center) ** 2).sum(1).max()))


def _visible(parts: list[np.ndarray]) -> np.ndarray:
    """(N,) whether the vertex belongs to a part that is more than a point."""
    flags = []
    for part in parts:
        extent = float((part.max(0) - part.min(0)).max())
        flags.append(np.full(len(part), extent > 1e-7 * max(1e-30, float(np.abs(part).max()))))
    return np.concatenate(flags)
