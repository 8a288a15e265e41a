"""The rotations that come nearest to many 3 x 3 matrices, in closed form and without gradient.

The step of as-rigid-as-possible energies that takes longest, where `torch.linalg.svd` calls LAPACK for each small
matrix. Not a polar decomposition: a matrix that reflects gets the best proper rotation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_rotations"]

_PART = 4096
"""Matrices that are worked on together on a CPU."""


@torch.no_grad()
def best_rotations(covariances: Tensor) -> Tensor:
    """The rotation R that makes the trace of its transpose times each matrix largest, in closed form.

    The singular vectors of the two larger singular values decide; the third pair follows from both being right-handed,
    which is also what a reflection asks for. They come from the eigenvectors of M^T M: the eigenvalue that stands
    apart gives one, and a plane rotation the other two. That is several times faster than `torch.linalg.svd` of many
    small matrices. Squaring halves the digits, hence float64.

    Args:
        covariances: (B, 3, 3), finite; sums of (edge after) (edge before)^T.

    Returns:
        (B, 3, 3) of the same type. Of a matrix of rank 1 one of the many best; of a multiple of the identity, or zero,
        the identity.
    """
    # Temporaries of more matrices leave the processor's cache, which doubled the time.
    parts = [
        _rotations_of_part(part) for part in covariances.split(_PART if covariances.device.type == "cpu" else 2**20)
    ]
    return torch.cat(parts) if parts else covariances.clone()


def _rotations_of_part(covariances: Tensor) -> Tensor:
    # (row, column, B): arithmetic of long vectors instead of many small products.
    matrix = covariances.permute(1, 2, 0).double().contiguous()
    matrix = matrix / matrix.abs().amax((0, 1)).clamp_min(torch.finfo(torch.float64).tiny)
    first, second = _right_vectors(matrix)
    third = _cross(first, second)
    left_first = _unit(_image(matrix, first), first)
    # Where there is no second direction: any at right angles, and of the first one turned nowhere the second itself.
    otherwise = _unit(_beside(second, left_first), third)
    left_second = _unit(_beside(_image(matrix, second), left_first), otherwise)
    left_third = _cross(left_first, left_second)
    rotations = left_first[:, None] * first
    rotations += left_second[:, None] * second
    rotations += left_third[:, None] * third
    return rotations.permute(2, 0, 1).to(covariances.dtype)


def _right_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Right singular vectors (3, B) of the two largest singular values of (3, 3, B), largest first.

    Source: eigenvalues of a symmetric 3 x 3 matrix by the cosine of a third of an angle (Smith, CACM 4(4), 1961).
    """
    square = matrix[0][:, None] * matrix[0]
    square += matrix[1][:, None] * matrix[1]
    square += matrix[2][:, None] * matrix[2]
    spread = square.clone()
    diagonal = spread.diagonal()
    diagonal -= diagonal.mean(1, keepdim=True)
    spread /= (spread.square().sum((0, 1)) / 6).sqrt_().clamp_min_(1e-150)
    half = ((_cross(spread[0], spread[1]) * spread[2]).sum(0) / 2).clamp_(-1, 1)
    # Which of the outer eigenvalues lies further from the middle one: only that is safe where two are equal.
    largest = half >= 0
    diagonal = spread.diagonal()
    diagonal -= (2 * torch.cos(half.abs().acos_() / 3)).copysign_(half)[:, None]
    apart = _longest(*(_cross(spread[a], spread[b]) for a, b in ((0, 1), (1, 2), (2, 0))))
    side, other = _frame(apart)
    side_image, other_image = _image(square, side), _image(square, other)
    twice = 2 * (side * other_image).sum(0)
    angle = torch.atan2(twice, (side * side_image).sum(0) - (other * other_image).sum(0)) / 2
    major = torch.cos(angle) * side + torch.sin(angle) * other
    return torch.where(largest, apart, major), torch.where(largest, major, _cross(apart, major))


def _longest(*vectors: Tensor) -> Tensor:
    """The longest of three (3, B) in each column, at unit length; the x axis where all are nothing."""
    best, most = vectors[0], vectors[0].square().sum(0)
    for vector in vectors[1:]:
        length = vector.square().sum(0)
        best, most = torch.where(length > most, vector, best), torch.maximum(length, most)
    x_axis = torch.zeros_like(best)
    x_axis[0] = 1
    return torch.where(most > 1e-28, best / most.sqrt().clamp_min(1e-14), x_axis)


def _frame(unit: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors (3, B) at right angles to `unit` and to each other.

    Source: Duff et al., "Building an Orthonormal Basis, Revisited" (JCGT 6(1), 2017).
    """
    x, y, z = unit
    sign = torch.ones_like(z).copysign_(z)
    share = -1 / (sign + z)
    mixed = x * y * share
    return (
        torch.stack([1 + sign * x * x * share, sign * mixed, -sign * x]),
        torch.stack([mixed, sign + y * y * share, -y]),
    )


def _cross(left: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.cross(left, right, dim=0)


def _image(matrix: Tensor, vector: Tensor) -> Tensor:
    """Products (3, B) of matrices (3, 3, B) with vectors (3, B)."""
    return torch.addcmul(torch.addcmul(matrix[:, 0] * vector[0], matrix[:, 1], vector[1]), matrix[:, 2], vector[2])


def _beside(vectors: Tensor, unit: Tensor) -> Tensor:
    """What of the vectors (3, B) is at right angles to `unit`."""
    return vectors - (vectors * unit).sum(0) * unit


def _unit(vectors: Tensor, otherwise: Tensor) -> Tensor:
    """Unit vectors (3, B); `otherwise` for those that are nothing but rounding beside matrices of size 1."""
    length = vectors.square().sum(0).sqrt_()
    return torch.where(length > 1e-7, vectors / length.clamp_min(1e-7), otherwise)
