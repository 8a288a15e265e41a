"""From Gaussians in space to ellipses on images: the projection that every backend here shares, differentiable.

Sources: "EWA Splatting" (Zwicker et al. 2002, eq. 26-29), "3D Gaussian Splatting" (arXiv 2308.04079, section 4) and the
constants of gsplat 1.5's classic mode. It does no culling by tiles and no compositing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["EPS_2D", "MAX_ALPHA", "MIN_ALPHA", "MIN_TRANSMITTANCE", "NEAR", "Ellipses", "project", "rotations_of"]

EPS_2D = 0.3
"""Added to the variance of every ellipse along both axes, px^2, so that none falls between the pixels."""
NEAR = 0.01
"""Gaussians whose centre is nearer than this along the axis, or behind the camera, are left out."""
MAX_ALPHA = 0.999
"""No Gaussian covers a pixel more than this."""
MIN_ALPHA = 1.0 / 255.0
"""A Gaussian that covers a pixel less than this leaves it as it is."""
MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished before the Gaussian that would bring what shines through down to this."""


_ENTRIES = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
"""Rows and columns of what a symmetric matrix has above and on its diagonal."""


class Ellipses(NamedTuple):
    """Gaussians as images see them.

    Attributes:
        means: (I, N, 2) centres x, y, px from the image's left upper corner; pixel centres are at +0.5.
        conics: (I, N, 3) the inverse covariance's entries xx, xy, yy, 1/px^2.
        depths: (I, N) along the camera's axis, without gradient.
        radii: (I, N, 2) half the width and height of the box outside of which a Gaussian covers less than `MIN_ALPHA`,
            px, without gradient; negative where it is seen nowhere.
    """

    means: Tensor
    conics: Tensor
    depths: Tensor
    radii: Tensor


def rotations_of(quats_wxyz: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) of any length but zero."""
    w, x, y, z = torch.nn.functional.normalize(quats_wxyz, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def project(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    c2w: Tensor,
    K: Tensor,
    size: tuple[int, int],
) -> Ellipses:
    """Projects every Gaussian into every image.

    Args:
        means: (I, N, 3), the space of the cameras.
        quats_wxyz: (N, 4) or (I, N, 4), any length but zero.
        scales: (N, 3) or (I, N, 3), standard deviations along the Gaussian's own axes, above 0.
        opacities: (N,), 0 to 1.
        c2w: (I, 4, 4), camera to world; x right, y up, looking down -z.
        K: (I, 3, 3), px.
        size: (height, width), px.

    Returns:
        The ellipses, with gradient to means, quats_wxyz and scales.

    Source:
        3D Gaussian Splatting, eq. 5: J W Sigma W^T J^T, J's position clamped near the image as in gsplat.
    """
    axes = c2w[:, :3, :3] * means.new_tensor([1.0, -1.0, -1.0])  # to x right, y down, z ahead
    x, y, z = (axes.mT @ (means - c2w[:, None, :3, 3]).mT).unbind(1)
    seen = z.detach() >= NEAR
    # What is behind a camera is put before it: division by a depth near zero would spoil even masked gradients.
    inverse = 1 / torch.where(seen, z, torch.ones_like(z))
    slope_x, slope_y = x * inverse, y * inverse
    fx, fy, cx, cy = K[:, 0, 0, None], K[:, 1, 1, None], K[:, 0, 2, None], K[:, 1, 2, None]
    a, b = slope_x.clamp(*_bounds(fx, cx, size[1])), slope_y.clamp(*_bounds(fy, cy, size[0]))
    scale_x, scale_y = fx * inverse, fy * inverse
    xx, xy, yy = _flattened(_covariances(quats_wxyz, scales, axes), a, b)
    xx, xy, yy = scale_x * scale_x * xx + EPS_2D, scale_x * scale_y * xy, scale_y * scale_y * yy + EPS_2D
    determinant = xx * yy - xy * xy
    centers = torch.stack([fx * slope_x + cx, fy * slope_y + cy], -1)
    conics = torch.stack([yy / determinant, -xy / determinant, xx / determinant], -1)
    with torch.no_grad():
        reach = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1.0)))
        seen = seen & (opacities >= MIN_ALPHA) & (determinant > 0)
        radii = torch.stack([reach * xx.sqrt(), reach * yy.sqrt()], -1).masked_fill_(~seen[..., None], -1.0)
    return Ellipses(centers, conics, z.detach(), radii)


def _bounds(focal: Tensor, center: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    # 15 % of the image beyond its border: there the linearised perspective would blow far Gaussians up.
    margin = 0.3 * 0.5 * extent / focal
    return -center / focal - margin, (extent - center) / focal + margin


def _covariances(quats_wxyz: Tensor, scales: Tensor, axes: Tensor) -> tuple[Tensor, ...] | Tensor:
    # In the camera's space: the entries xx, xy, xz, yy, yz, zz; only the variance where all Gaussians are round.
    frozen = not (quats_wxyz.requires_grad or scales.requires_grad)
    if frozen and bool((scales == scales[..., :1]).all()):
        return scales[..., 0] * scales[..., 0]
    first, second = axes.new_tensor(_ENTRIES, dtype=torch.int64)
    own = rotations_of(quats_wxyz) * scales[..., None, :]
    entries = (own @ own.mT)[..., first, second].mT
    turned = axes.mT
    straight = turned[:, first][:, :, first] * turned[:, second][:, :, second]
    crossed = turned[:, first][:, :, second] * turned[:, second][:, :, first]
    return ((straight + (first != second) * crossed) @ entries).unbind(1)


def _flattened(covariances: tuple[Tensor, ...] | Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Seen along the direction (a, b, 1): entries xx, xy, yy at depth 1, without the focal length.
    if isinstance(covariances, Tensor):
        return covariances * (1 + a * a), covariances * (a * b), covariances * (1 + b * b)
    xx, xy, xz, yy, yz, zz = covariances
    across_x, across_y = xz - a * zz, yz - b * zz
    return xx - a * (xz + across_x), xy - b * xz - a * across_y, yy - b * (yz + across_y)
