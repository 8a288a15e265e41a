"""Machine parts built from the meshes: plates, axles, rods and flat rings, laid along the axis a machine needs.

No family is made here; every piece is closed and centred on the axis about which it will turn.
"""

from __future__ import annotations

import numpy as np

from .mesh import (
    Mesh,
    cylinder,
    extrude,
    ring,
    tube,
)

__all__ = ["axle", "capsule_z", "ring_x", "slab"]


def slab(outline: list[tuple[float, float]], width: float, bevel: float = 0.0) -> Mesh:
    """A plate in the yz plane from (z, y) points around their mean, `width` along x."""
    points = np.array(outline, dtype=np.float64)
    center = points.mean(0)
    return extrude(points - center, width, bevel).turned(yaw_deg=-90).moved(0, center[1], center[0])


def axle(radius: float, width: float, bevel: float = 0.0, segments: int = 24) -> Mesh:
    """A cylinder along x about the origin."""
    return cylinder(radius, width, bevel=bevel, segments=segments).moved(0, -width / 2, 0).turned(roll_deg=90)


def capsule_z(radius: float, start: float, end: float) -> Mesh:
    """A rod along z."""
    return tube(np.linspace([0, 0, start], [0, 0, end], 3), np.full(3, radius), segments=12)


def ring_x(outer: float, inner: float, width: float) -> Mesh:
    """A flat ring about the x axis."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    circle = np.stack([np.cos(t), np.sin(t)], -1)
    return ring(outer * circle, inner * circle, width).turned(yaw_deg=90)
