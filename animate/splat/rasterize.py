"""`rasterize`: the one door to images of Gaussians, differentiable, whichever backend draws them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from animate.splat.bounded import composite_bounded
from animate.splat.cuda import gsplat_available, rasterize_gsplat
from animate.splat.dense import composite_dense
from animate.splat.project import project
from manifests.errors import InputError

__all__ = ["Backend", "Splats", "rasterize"]

Backend = Literal["auto", "dense", "bounded", "gsplat"]


class Splats(NamedTuple):
    """Images of Gaussians.

    Attributes:
        images: (I, C, H, W) on the background, or premultiplied by coverage where there is none.
        alphas: (I, 1, H, W) coverage, 0 to 1.
    """

    images: Tensor
    alphas: Tensor


def rasterize(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    c2w: Tensor,
    K: Tensor,
    size: tuple[int, int],
    *,
    background: Tensor | None = None,
    backend: Backend = "auto",
) -> Splats:
    """Draws Gaussians through cameras, each image with means of its own.

    Args:
        means: (I, N, 3), the space of the cameras.
        quats_wxyz: (N, 4) or (I, N, 4), any length but zero.
        scales: (N, 3) or (I, N, 3), standard deviations along the Gaussian's own axes, above 0.
        opacities: (N,), 0 to 1.
        colors: (N, C) or (I, N, C), blended as they are.
        c2w: (I, 4, 4), camera to world; x right, y up, looking down -z.
        K: (I, 3, 3), px.
        size: (height, width), px.
        background: (C,), or None for black.
        backend: auto takes gsplat for CUDA tensors where it is installed, else bounded; dense is the slow reference.

    Returns:
        Images and coverage, with gradient to whatever asks for one (not to the cameras).

    Raises:
        InputError: an unknown backend, or gsplat where it cannot be used.

    Source:
        "3D Gaussian Splatting" (arXiv 2308.04079), with the thresholds of gsplat's classic mode.
    """
    if backend == "auto":
        backend = "gsplat" if means.is_cuda and gsplat_available() else "bounded"
    _check_shapes(means, quats_wxyz, scales, opacities, colors, c2w, K)
    if backend == "gsplat":
        images, alphas = rasterize_gsplat(means, quats_wxyz, scales, opacities, colors, c2w, K, size)
    elif backend in ("dense", "bounded"):
        ellipses = project(means, quats_wxyz, scales, opacities, c2w, K, size)
        composite = composite_dense if backend == "dense" else composite_bounded
        images, alphas = composite(ellipses, opacities, colors, size)
    else:
        raise InputError(f'splat backend: found "{backend}", expected auto, dense, bounded or gsplat; choose one')
    if background is not None:
        images = images + (1 - alphas) * background[:, None, None]
    return Splats(images, alphas)


def _check_shapes(
    means: Tensor, quats_wxyz: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, c2w: Tensor, K: Tensor
) -> None:
    num_images, num_gaussians = means.shape[0], means.shape[1]
    assert means.shape == (num_images, num_gaussians, 3), f"means are {tuple(means.shape)}"
    assert c2w.shape == (num_images, 4, 4), f"c2w is {tuple(c2w.shape)} for {num_images} images"
    assert K.shape == (num_images, 3, 3), f"K is {tuple(K.shape)} for {num_images} images"
    assert opacities.shape == (num_gaussians,), f"opacities are {tuple(opacities.shape)}, not ({num_gaussians},)"
    for name, values in (("quats_wxyz", quats_wxyz), ("scales", scales), ("colors", colors)):
        shapes = (torch.Size([num_gaussians]), torch.Size([num_images, num_gaussians]))
        assert values.shape[:-1] in shapes, f"{name} are {tuple(values.shape)} for means {tuple(means.shape)}"
