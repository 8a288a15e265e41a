"""What the pixels of a clip say about it: the sample's ``quality`` figures.

Gathered image by image, keeping one earlier frame a view, so that memory does not grow with the clip. Figures are
stored and never decide anything here; filters run on the tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Quality"]


class Quality:
    """Feed it every image of a clip, frames of a view in order; `figures` sums up."""

    def __init__(self) -> None:
        self._coverage: list[float] = []
        self._border = self._blank = 0
        self._magenta = self._object = 0
        self._last: dict[int, list[np.ndarray]] = {}
        self._flicker: list[float] = []

    def add(self, view: int, rgba: np.ndarray) -> None:
        """One image (height, width, 4) uint8 of a view, the next frame after the one given before."""
        solid = rgba[..., 3] > 127
        self._coverage.append(float(solid.mean()))
        self._blank += not solid.any()
        edge = (rgba[0], rgba[-1], rgba[:, 0], rgba[:, -1])
        self._border += any(bool((side[..., 3] > 0).any()) for side in edge)
        # Blender paints (1, 0, 1) where an image is missing; lit, it keeps green at zero and red equal to blue.
        red, green, blue = (rgba[..., c].astype(np.int16) for c in range(3))
        magenta = solid & (green <= 2) & (red >= 40) & (abs(red - blue) <= 2)
        self._magenta += int(magenta.sum())
        self._object += int(solid.sum())
        light = (rgba[..., :3].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])) * (
            rgba[..., 3] / np.float32(255)
        )
        history = self._last.setdefault(view, [])
        history.append(light)
        if len(history) == 3:
            # The second difference vanishes for even change and is large where brightness goes up and down again.
            change = np.abs(history[0] - 2 * history[1] + history[2]) / 4
            seen = np.maximum.reduce(history) > 0
            self._flicker.append(float(change[seen].mean()) / 255 if seen.any() else 0.0)
            history.pop(0)

    def figures(self) -> dict[str, Any]:
        """The sample's ``quality``."""
        return {
            "coverage_mean": round(float(np.mean(self._coverage)), 6),
            "coverage_min": round(float(np.min(self._coverage)), 6),
            "border_images": int(self._border),
            "blank_images": int(self._blank),
            "missing_texture": round(self._magenta / max(1, self._object), 6),
            "flicker": round(float(np.mean(self._flicker)) if self._flicker else 0.0, 6),
        }
