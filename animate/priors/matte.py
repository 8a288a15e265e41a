"""`mattes`: coverage of an object that was filmed on one known colour, without any network.

Animate3D segments its sampled clips with a tracker of masks; but the background is one constant colour, and frame 0 is
a render that shows exactly where the object is, so the difference from that colour tells enough. What has the
background's colour and touches the object's outline is lost; holes of that colour inside it are not.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

__all__ = ["mattes"]

_EXACT = 1.5 / 255
"""Difference from the background that a render does not have by rounding alone."""
_LEAST, _MOST = 0.03, 0.15
"""Range of the difference from which on a pixel of a sampled frame belongs to the object."""
_MARGIN_PX = 3
_SPECK = 2e-4
"""Islands below this share of the picture are noise."""


def mattes(images: Tensor, first: Tensor, background: tuple[float, float, float]) -> Tensor:
    """Coverage of the object in each image.

    Args:
        images: (V, F, 3, S, S) sRGB-encoded 0 to 1; frame 0 shows what `first` shows, as the sampler reproduces it,
            which tells how far its background strays from the true one.
        first: (V, 3, S, S) render at rest on the background.
        background: sRGB-encoded 0 to 1.

    Returns:
        (V, F, 1, S, S) float32, 0 to 1; frame 0 is that of `first`.
    """
    film, still = images.detach().cpu().float().numpy(), first.detach().cpu().float().numpy()
    color = np.asarray(background, np.float32)[:, None, None]
    found = np.empty((*film.shape[:2], 1, *film.shape[3:]), np.float32)
    for view, (frames, rest) in enumerate(zip(film, still, strict=True)):
        away = np.abs(rest - color).max(0)
        found[view, 0, 0] = _matte(away, _EXACT, 0)
        around = ~ndimage.binary_dilation(away > _EXACT, iterations=_MARGIN_PX)
        strays = np.abs(frames[0] - color).max(0)[around]
        threshold = float(np.clip(1.5 * np.quantile(strays, 0.995), _LEAST, _MOST)) if strays.size else _LEAST
        for number, frame in enumerate(frames[1:], 1):
            away = np.abs(frame - _behind(frame, color)).max(0)
            found[view, number, 0] = _matte(away, threshold, round(_SPECK * away.size))
    return torch.from_numpy(found).to(images.device)


def _behind(frame: np.ndarray, color: np.ndarray) -> np.ndarray:
    """(3, 1, 1) the background as this frame has it; samplers let its brightness drift."""
    near = np.abs(frame - color).max(0) < 0.1
    return np.median(frame[:, near], 1)[:, None, None] if near.mean() > 0.05 else color


def _matte(away: np.ndarray, threshold: float, speck: int) -> np.ndarray:
    """(S, S) coverage from the difference to the background."""
    core = ndimage.binary_fill_holes(away > threshold)
    if speck:
        labels, count = ndimage.label(core)
        sizes = ndimage.sum_labels(core, labels, np.arange(count + 1))
        core = core & (sizes[labels] > speck)
    inside = ndimage.binary_erosion(core)
    if not inside.any():
        return core.astype(np.float32)
    # At the rim a pixel is the mix of background and what lies next to it inside: their differences give the share.
    at = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    share = np.clip(away / np.maximum(away[tuple(at)], threshold), 0, 1)
    rim = ndimage.binary_dilation(core) & ~inside
    return np.where(inside, 1.0, np.where(rim, share, 0.0)).astype(np.float32)
