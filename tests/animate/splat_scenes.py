"""Small scenes of Gaussians with cameras around them, for the tests of everything that draws them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from animate.shot import intrinsics_of

__all__ = ["Scene", "cameras_around", "scene"]


class Scene(NamedTuple):
    """The first seven arguments of `rasterize`."""

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    c2w: Tensor
    K: Tensor


def cameras_around(num_images: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """c2w and K of cameras on a circle 15 degrees up at distance 1.5, with 40 degrees of view."""
    azimuth = torch.arange(num_images, dtype=torch.float64) * (2 * math.pi / num_images)
    elevation = torch.full_like(azimuth, math.radians(15))
    back = torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], -1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], -1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_images, 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], -1)
    c2w[:, :3, 3] = 1.5 * back
    return c2w.to(dtype), intrinsics_of(torch.full((num_images,), 40.0), size).to(dtype)


def scene(
    num_gaussians: int = 60,
    num_images: int = 2,
    size: int = 17,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    thickness: float = 0.05,
    opacities: tuple[float, float] = (0.05, 0.98),
) -> Scene:
    """Gaussians of any shape and direction within radius 0.4, each image with means of its own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    low, high = opacities
    means = 0.8 * (draw(num_images, num_gaussians, 3) - 0.5)
    c2w, K = cameras_around(num_images, size)
    values = (
        means,
        draw(num_gaussians, 4) - 0.5,
        thickness * (0.3 + draw(num_gaussians, 3)),
        low + (high - low) * draw(num_gaussians),
        draw(num_gaussians, 3),
        c2w,
        K,
    )
    return Scene(*(value.to(dtype) for value in values))
