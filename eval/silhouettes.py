"""Where the object is in a picture: what every figure about "the object" without a network reads.

Controls, guards, classical flow and mask metrics share it; it is the only place where a silhouette is derived from
colours when a video brings no transparency.
"""

from __future__ import annotations

import numpy as np

from eval.extractor import Clip

__all__ = ["OPAQUE", "border_color", "has_silhouette", "object_masks", "sampled"]

OPAQUE = 127
"""Alpha above this is the object (half covered)."""
FAR = 24
"""Without alpha: levels by which one channel must differ from the border. Video codecs stay below 10 on flat colour."""


def sampled(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every image at the pixel centres of a smaller grid (nearest pixel, no filter).

    Args:
        images: (frame, height, width, ...).
        size: (height, width) of the grid; the images' own size gives them back as they are.
    """
    if images.shape[1:3] == tuple(size):
        return images
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, images.shape[1:3], strict=True)
    )
    return images[:, rows[:, None], columns[None, :]]


def border_color(frames: np.ndarray) -> np.ndarray:
    """The median colour (3,) of the outermost pixels over all frames (frame, height, width, 3).

    An object that crosses a part of the border does not change it, and neither does a background other than the
    protocol's.
    """
    sides = (frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1])
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)


def has_silhouette(clip: Clip) -> bool:
    """Whether alpha tells object from background: it is there, and not opaque everywhere."""
    return clip.alpha is not None and bool((clip.alpha <= OPAQUE).any())


def object_masks(clip: Clip, size: tuple[int, int] | None = None) -> np.ndarray:
    """Which pixels show the object.

    Args:
        clip: any clip.
        size: (height, width) of a grid to sample at; None for the clip's own.

    Returns:
        (frame, height, width) bool: alpha above 127; in a clip without a silhouette in its alpha, pixels of which a
        channel differs from the colour of the border by more than 24 levels.
    """
    size = size or clip.size
    if has_silhouette(clip):
        return sampled(clip.alpha, size) > OPAQUE
    frames, border = sampled(clip.frames, size), border_color(clip.frames)
    return np.stack([(np.abs(frame - border.astype(np.float32)) > FAR).any(-1) for frame in frames])
