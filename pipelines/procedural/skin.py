"""Skin weights of pieces that are not blobs: rigid ones, and tubes along a chain of joints.

Weights are rows over the joints of a skin, in their order; blobs weigh themselves.
"""

from __future__ import annotations

import numpy as np

from .mesh import (
    Mesh,
)

__all__ = ["chain_weights", "one_bone"]


def one_bone(mesh: Mesh, joints: list[str], bone: str) -> np.ndarray:
    """(N, J) weights of a rigid piece."""
    weights = np.zeros((len(mesh.positions), len(joints)))
    weights[:, joints.index(bone)] = 1.0
    return weights


def chain_weights(along: np.ndarray, stops: list[float], columns: list[int], width: int) -> np.ndarray:
    """(N, width) weights of points at `along` a chain whose joint k rules fully at stops[k], blended between."""
    weights = np.zeros((len(along), width))
    for k, column in enumerate(columns):
        hat = np.zeros(len(stops))
        hat[k] = 1.0
        weights[:, column] += np.interp(along, stops, hat)
    return weights
