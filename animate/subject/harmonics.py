"""Real spherical harmonics as 3D Gaussian Splatting stores them, and how their coefficients turn with a scene.

Degrees 1 to 3, whose colour depends on the direction; degree 0 does not turn. Signs and order are those of Kerbl et
al., 3D Gaussian Splatting, ACM TOG 42(4), 2023: with the Condon-Shortley phase, order m = -l to l within a degree.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import lpmv

__all__ = ["harmonics", "turned"]

DIRECTIONS = 64
"""Directions in which a turned function is compared; any number above 7 gives the same."""


def harmonics(directions: np.ndarray, count: int) -> np.ndarray:
    """Values of the harmonics of degrees 1 to 3.

    Args:
        directions: (..., 3) unit vectors.
        count: 3, 8 or 15 of them.

    Returns:
        (..., count) float64.
    """
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    azimuth = np.arctan2(y, x)
    columns = []
    for degree in range(1, _degree(count) + 1):
        for order in range(-degree, degree + 1):
            m = abs(order)
            norm = (2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m)
            around = 1.0 if m == 0 else math.sqrt(2) * (np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth))
            columns.append(math.sqrt(norm) * around * lpmv(m, degree, z))
    return np.stack(columns, axis=-1)


def turned(sh: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Coefficients of the same colours after a scene was turned.

    Args:
        sh: (N, K, 3) coefficients of degrees 1 to 3, K of 3, 8 or 15.
        rotation: (3, 3), new position = rotation @ old position.

    Returns:
        (N, K, 3) float64: the colour seen along ``rotation @ direction`` is that seen along ``direction`` before.
    """
    # A degree's harmonics turn among themselves, so the matrix between them follows from their values anywhere.
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    count = sh.shape[1]
    before, after = harmonics(directions, count), harmonics(directions @ np.asarray(rotation, np.float64).T, count)
    result = np.empty(sh.shape)
    for degree in range(1, _degree(count) + 1):
        own = slice(degree**2 - 1, (degree + 1) ** 2 - 1)
        matrix = np.linalg.lstsq(after[:, own], before[:, own], rcond=None)[0]
        result[:, own] = np.einsum("jk,nkc->njc", matrix, sh[:, own])
    return result


def _degree(count: int) -> int:
    degrees = {3: 1, 8: 2, 15: 3}
    assert count in degrees, f"{count} coefficients, expected 3, 8 or 15"
    return degrees[count]
