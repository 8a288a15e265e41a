"""The same images by gsplat's CUDA kernels, where gsplat is installed: an optional, faster backend, and a check."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from animate.splat.project import EPS_2D, NEAR
from manifests.errors import InputError

__all__ = ["gsplat_available", "rasterize_gsplat"]


def gsplat_available() -> bool:
    """Whether gsplat and a CUDA device are there."""
    return torch.cuda.is_available() and find_spec("gsplat") is not None


def rasterize_gsplat(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    c2w: Tensor,
    K: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Images (I, C, H, W) on black and coverage (I, 1, H, W); the arguments are those of `rasterize`.

    Raises:
        InputError: gsplat or a CUDA device is missing.
    """
    if not (means.is_cuda and gsplat_available()):
        raise InputError(
            f"splat backend: found gsplat for tensors on {means.device}, expected gsplat installed and tensors on CUDA;"
            " pip install gsplat, or choose the backend bounded"
        )
    from gsplat import rasterization

    num_images, num_gaussians = means.shape[:2]

    def of_each_image(values: Tensor) -> Tensor:
        return values.expand(num_images, num_gaussians, values.shape[-1])

    flip = torch.diag(c2w.new_tensor([1.0, -1.0, -1.0, 1.0]))
    images, alphas, _ = rasterization(
        means=means,
        quats=of_each_image(quats_wxyz),
        scales=of_each_image(scales),
        opacities=opacities.expand(num_images, -1),
        colors=of_each_image(colors),
        viewmats=torch.linalg.inv(c2w @ flip)[:, None],
        Ks=K[:, None],
        width=size[1],
        height=size[0],
        near_plane=NEAR,
        eps2d=EPS_2D,
        packed=False,
        rasterize_mode="classic",
    )
    return images[:, 0].permute(0, 3, 1, 2), alphas[:, 0].permute(0, 3, 1, 2)
