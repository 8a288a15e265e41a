"""Dense inverse search flow of OpenCV: motion without a network, on the CPU, the same numbers on every run.

For the offline metrics and the guards. It is no stand-in for RAFT: on large motions and untextured objects it is
coarser, so nothing computed from it carries the name of a VBench dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from eval.extractor import Clip, Compute, Features
from eval.silhouettes import object_masks

__all__ = ["SMALLEST", "WORKING_SIDE", "DisFlow", "working_size"]

WORKING_SIDE = 256
"""Longest the shorter side may be while flow is computed, pixels; larger frames are shrunk by area."""
SMALLEST = 16
"""Shorter side below which there is no flow: the search has no room for two of its 8-pixel patches."""


class DisFlow:
    """Flow between neighbouring frames.

    Features of a clip of T frames, none where its shorter side is below 16 pixels:

    - ``flow`` (T - 1, h, w, 2) float32: (x, y) from frame t to t + 1 in pixels of the clip's own size, on a grid whose
      shorter side is at most 256.
    - ``agrees`` (T - 1, h, w) bool: the flow back from frame t + 1 leads to where it started, within half a pixel of
      the grid or a tenth of the way; not so where the next frame hides it or there is nothing to hold on to.
    - ``change`` (T - 1,) float64: mean |I_t - I_t+1| in grey levels over object pixels of frame t on that grid.
    - ``unexplained`` (T - 1,) float64: the same after following the flow, |I_t(p) - I_t+1(p + flow(p))|.

    A pair of equal frames has flow 0 by definition. Source: Kroeger, Timofte, Dai, Van Gool, Fast Optical Flow using
    Dense Inverse Search, ECCV 2016, as in OpenCV (preset medium, refined at full resolution, which halves the error).
    """

    name: ClassVar[str] = "flow-dis"
    weights: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, compute: Compute):
        """Takes neither weights nor a device; ``compute`` is there because every extractor has it."""
        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._search.setFinestScale(0)

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """The features of each clip; a pair at a time."""
        return [self._clip(clip) for clip in clips]

    def _clip(self, clip: Clip) -> Features:
        if min(clip.size) < SMALLEST:
            return {}
        size = working_size(*clip.size)
        factor = np.array([clip.size[1] / size[1], clip.size[0] / size[0]], np.float32)
        pairs = clip.num_frames - 1
        flow, agrees = np.zeros((pairs, *size, 2), np.float32), np.ones((pairs, *size), bool)
        change, unexplained = np.zeros(pairs), np.zeros(pairs)
        masks = object_masks(clip, size)
        here = _grey(clip.frames[0], size)
        for t in range(pairs):
            there = _grey(clip.frames[t + 1], size)
            if not np.array_equal(here, there):
                moved, back = self._search.calc(here, there, None), self._search.calc(there, here, None)
                flow[t], agrees[t] = moved * factor, _agrees(moved, back)
                if masks[t].any():
                    change[t] = cv2.absdiff(here, there)[masks[t]].mean()
                    unexplained[t] = cv2.absdiff(here, _follow(there, moved))[masks[t]].mean()
            here = there
        return {"flow": flow, "agrees": agrees, "change": change, "unexplained": unexplained}


def working_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) at which flow is computed."""
    scale = min(1.0, WORKING_SIDE / min(height, width))
    return round(height * scale), round(width * scale)


def _grey(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return grey if grey.shape == size else cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)


def _agrees(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    missed = np.linalg.norm(flow + _follow(back, flow), axis=-1)
    return missed < np.maximum(0.5, 0.1 * np.linalg.norm(flow, axis=-1))


def _follow(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The image (height, width, ...) where each pixel's flow leads, bilinear."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
