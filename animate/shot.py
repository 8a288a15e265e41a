"""`Shot`: what is asked of a prior; `Footage`: what it shows. The words that priors and methods share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Footage", "Shot", "intrinsics_of"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Shot:
    """One clip to be filmed: cameras that stand still, the object at rest through each, and what shall happen.

    Attributes:
        prompt: what happens.
        c2w: (V, 4, 4) float32, camera to world in normalised space, z up; x right, y up, looking down -z.
        K: (V, 3, 3) float32, pixels of images of `size`.
        size: height and width, pixels.
        first: (V, 3, size, size) float32, sRGB-encoded 0 to 1: the object at rest, composited on `background`.
        times_s: (F,) float64 seconds from frame 0, which shows the object at rest.
        background: sRGB-encoded 0 to 1.
        front_azimuth_deg: of the object's front in normalised space.
    """

    prompt: str
    c2w: Tensor
    K: Tensor
    size: int
    first: Tensor
    times_s: Tensor
    background: tuple[float, float, float] = (0.5, 0.5, 0.5)
    front_azimuth_deg: float = 270.0

    def __post_init__(self) -> None:
        views = self.c2w.shape[0]
        assert self.c2w.shape == (views, 4, 4), f"c2w is {tuple(self.c2w.shape)}"
        assert self.K.shape == (views, 3, 3), f"K is {tuple(self.K.shape)}"
        assert self.first.shape == (views, 3, self.size, self.size), f"first is {tuple(self.first.shape)}"

    @property
    def num_views(self) -> int:
        return self.c2w.shape[0]

    @property
    def num_frames(self) -> int:
        return self.times_s.shape[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Footage:
    """A clip as a prior shows it, with the cameras that it was filmed through.

    Attributes:
        images: (V, F, 3, S, S) float32, sRGB-encoded 0 to 1, composited on `background`.
        masks: (V, F, 1, S, S) float32 coverage 0 to 1.
        c2w: (V, 4, 4) float32.
        K: (V, 3, 3) float32, pixels.
        times_s: (F,) float64 seconds from frame 0.
        background: sRGB-encoded 0 to 1.
    """

    images: Tensor
    masks: Tensor
    c2w: Tensor
    K: Tensor
    times_s: Tensor
    background: tuple[float, float, float]


def intrinsics_of(fov_y_deg: Tensor, size: int) -> Tensor:
    """K (V, 3, 3) float32 of square images from vertical fields of view (V,) in degrees."""
    focal_px = 0.5 * size / torch.tan(torch.deg2rad(fov_y_deg.double()) / 2)
    K = torch.zeros(len(focal_px), 3, 3, dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = focal_px
    K[:, 0, 2] = K[:, 1, 2] = size / 2
    K[:, 2, 2] = 1
    return K.float()
