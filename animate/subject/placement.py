"""`Placement`: how an object's own space and the space of the cameras belong together, for Gaussians.

Turns centres, rotations, sizes and spherical harmonics there and back. Arrays alone: what reads and writes files needs
no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from animate.subject.harmonics import turned

__all__ = ["Z_UP_FROM", "Placement", "StoredGaussians", "as_array"]

Z_UP_FROM = {
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z": np.eye(3),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
"""Axis that points up in a file -> rotation into a world with z up."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredGaussians:
    """N splats as plain arrays, in any space; the fields are those of `Gaussians`, float64."""

    means: np.ndarray
    quats_wxyz: np.ndarray
    """(N, 4) as stored, not necessarily of unit length."""
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    sh: np.ndarray | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Placement:
    """Where an object stands in the space of the cameras: normalised = (rotation @ own - center) * scale.

    Attributes:
        center: (3,) in the world, z up.
        scale: see above.
        rotation: (3, 3), from the file's axes to the world's.
    """

    center: np.ndarray
    scale: float
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))

    def to_normalized(self, own: Any) -> StoredGaussians:
        """Gaussians of the file's space in normalised space."""
        means = (as_array(own.means) @ self.rotation.T - self.center) * self.scale
        return _turned(own, means, self.rotation, self.scale)

    def to_own(self, normalized: Any) -> StoredGaussians:
        """The inverse of `to_normalized`."""
        means = (as_array(normalized.means) / self.scale + self.center) @ self.rotation
        return _turned(normalized, means, self.rotation.T, 1 / self.scale)


def as_array(values: Any) -> np.ndarray:
    """float64 of an array or of a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)


def _turned(source: Any, means: np.ndarray, rotation: np.ndarray, scale: float) -> StoredGaussians:
    quats = as_array(source.quats_wxyz)
    own = Rotation.from_quat(quats[:, [1, 2, 3, 0]])
    xyzw = (Rotation.from_matrix(rotation) * own).as_quat()
    still = np.array_equal(rotation, np.eye(3))
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    return StoredGaussians(
        means=means, quats_wxyz=unit if still else xyzw[:, [3, 0, 1, 2]], scales=as_array(source.scales) * scale,
        opacities=as_array(source.opacities), colors=as_array(source.colors),
        sh=None if source.sh is None else as_array(source.sh) if still else turned(as_array(source.sh), rotation),
    )  # fmt: skip
