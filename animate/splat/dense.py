"""The reference compositor: every Gaussian at every pixel, short enough to be checked by eye; for tests and oddities.

Its gradient is torch's own. Source: "3D Gaussian Splatting" (arXiv 2308.04079, eq. 3), with gsplat's thresholds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from animate.splat.project import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, Ellipses

__all__ = ["composite_dense"]


def composite_dense(
    ellipses: Ellipses, opacities: Tensor, colors: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Blends ellipses front to back, on black.

    Args:
        ellipses: of I images.
        opacities: (N,), 0 to 1.
        colors: (N, C) or (I, N, C).
        size: (height, width), px.

    Returns:
        Images (I, C, H, W) and coverage (I, 1, H, W); memory grows with I x N x H x W.
    """
    height, width = size
    num_images, num_gaussians = ellipses.depths.shape
    ys, xs = torch.meshgrid(
        torch.arange(height, device=colors.device) + 0.5, torch.arange(width, device=colors.device) + 0.5, indexing="ij"
    )
    pixels = torch.stack([xs, ys], -1).reshape(-1, 2).to(ellipses.means)
    order = ellipses.depths.argsort(dim=1, stable=True)

    def sorted_by_depth(values: Tensor) -> Tensor:
        values = values.expand(num_images, num_gaussians, values.shape[-1])
        return values.gather(1, order[..., None].expand_as(values))

    dx, dy = (pixels - sorted_by_depth(ellipses.means)[:, :, None]).unbind(-1)
    xx, xy, yy = sorted_by_depth(ellipses.conics)[:, :, None].unbind(-1)
    exponent = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (sorted_by_depth(opacities[:, None]) * torch.exp(-exponent)).clamp(max=MAX_ALPHA)
    seen = (sorted_by_depth(ellipses.radii)[..., :1] >= 0) & (alpha >= MIN_ALPHA)
    alpha = torch.where(seen, alpha, torch.zeros_like(alpha))
    through = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], 1)
    weights = alpha * before * (through > MIN_TRANSMITTANCE)
    images = torch.einsum("inp,inc->icp", weights, sorted_by_depth(colors))
    return images.unflatten(2, size), weights.sum(1)[:, None].unflatten(2, size)
