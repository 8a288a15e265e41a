"""Spheres and boxes drawn by ray casting with exact cameras, depth and a colour that belongs to the place in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from manifests.cameras import intrinsics, look_at_origin

__all__ = ["Shape", "box", "draw", "sphere"]

Shape = tuple[Callable[..., np.ndarray], tuple[float, float, float], object]
"""`sphere` or `box`, its centre, and its radius or half its sides."""


def sphere(origin: np.ndarray, rays: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    """Distance along each ray (point, 3) to a sphere; NaN where it is missed."""
    away = origin - center
    a, b, c = (rays**2).sum(-1), rays @ away, away @ away - radius**2
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.nan)


def box(origin: np.ndarray, rays: np.ndarray, center: np.ndarray, half: tuple[float, float, float]) -> np.ndarray:
    """The same for a box along the axes (slabs)."""
    with np.errstate(divide="ignore"):
        a, b = (center - half - origin) / rays, (center + np.array(half) - origin) / rays
    near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    return np.where(near < far, near, np.nan)


def draw(
    azimuth_deg: float, elevation_deg: float, shapes: Sequence[Shape], *, size: int, waves: Sequence[float] = (9.0,)
) -> tuple[np.ndarray, np.ndarray]:
    """One picture from distance 1.5 at 40 degrees.

    Args:
        azimuth_deg, elevation_deg: of the camera.
        shapes: what is there.
        size: width and height, pixels.
        waves: radians per unit of the sines that the colours are made of.

    Returns:
        (size, size, 4) uint8 with alpha 0 or 255, and (size, size) float32 depth, NaN beside the shapes.
    """
    c2w, K = look_at_origin(azimuth_deg, elevation_deg, 1.5), intrinsics(40, size, size)
    y, x = np.mgrid[:size, :size] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], -(y - K[1, 2]) / K[1, 1], -np.ones_like(x)], -1).reshape(-1, 3)
    rays = rays @ c2w[:3, :3].T
    hits = np.stack([kind(c2w[:3, 3], rays, np.array(center), extent) for kind, center, extent in shapes])
    distance = np.where(np.isnan(hits), np.inf, hits).min(0)  # rays have length 1 along the axis, so this is depth
    there = np.isfinite(distance)
    points = c2w[:3, 3] + rays * np.where(there, distance, 0)[:, None]
    # Each wave runs in a direction of its own, so that the pattern changes along every line.
    turned = [np.roll(points, k, axis=1) + 0.4 * k * np.roll(points, k + 1, axis=1) for k in range(len(waves))]
    shade = np.mean([np.sin(wave * place) for wave, place in zip(waves, turned, strict=True)], axis=0)
    rgba = np.concatenate([np.where(there[:, None], 128 + 100 * shade, 0), 255 * there[:, None]], -1)
    depth = np.where(there, distance, np.nan).astype(np.float32)
    return np.rint(rgba).astype(np.uint8).reshape(size, size, 4), depth.reshape(size, size)
