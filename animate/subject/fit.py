"""`fitted`: a mesh's Gaussians brought to look at rest as the mesh itself does, at the size of the pictures to come.

A splat is never narrower than about a pixel, so that a thick coat of them swells silhouettes; how opaque, how large and
of which colour each must be follows from pictures of the mesh at rest, from all around. Places are not touched.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from animate.splat.rasterize import rasterize
from animate.subject.gaussians import BoundGaussians, Gaussians
from animate.subject.raycast import Raycaster
from manifests.cameras import intrinsics, look_at_origin

__all__ = ["fitted"]

VIEWS = 48
VIEWS_PER_STEP = 6
GOLDEN_DEG = 137.50776
RATES = {"size": 0.03, "opacity": 0.1, "color": 0.05}
"""Of Adam, for the logarithm of sizes and the log-odds of opacities and colours."""


def fitted(
    bound: BoundGaussians,
    raycaster: Raycaster,
    *,
    size: int,
    steps: int = 60,
    seed: int = 0,
    distance: float = 1.5,
    fov_y_deg: float = 40.0,
) -> BoundGaussians:
    """The same Gaussians with opacities, sizes (in proportion) and colours fitted to the mesh at rest.

    Args:
        bound: on any device; where it stays.
        raycaster: of the same mesh.
        size: height and width of the pictures that the Gaussians shall suit, pixels.
        steps: optimiser steps; 0 changes nothing.
        seed: of views and backgrounds.
        distance: of the cameras from the centre.
        fov_y_deg: of the cameras.
    """
    if steps == 0:
        return bound
    start, rng = bound.gaussians, np.random.default_rng(seed)
    assert start.sh is None, "Gaussians of a mesh have no harmonics"
    device = start.means.device
    c2w, K, target = (tensor.to(device) for tensor in _pictures(raycaster, size, distance, fov_y_deg))
    free = {
        "size": torch.zeros(len(start), 1, device=device),
        "opacity": torch.logit(start.opacities.clamp(0.01, 0.7)),
        "color": torch.logit(start.colors.clamp(0.01, 0.99)),
    }
    free = {name: values.requires_grad_() for name, values in free.items()}
    optimizer = torch.optim.Adam([{"params": [values], "lr": RATES[name]} for name, values in free.items()])
    for _ in range(steps):
        views = torch.from_numpy(rng.choice(VIEWS, VIEWS_PER_STEP, replace=False)).to(device)
        back = torch.from_numpy(rng.random(3, dtype=np.float32)).to(device)
        now = _with(start, free)
        images, alphas = rasterize(
            now.means.expand(VIEWS_PER_STEP, -1, -1), now.quats_wxyz, now.scales, now.opacities, now.colors,
            c2w[views], K[views], (size, size), background=back,
        )  # fmt: skip
        color, coverage = target[views, :3], target[views, 3:]
        # On a background of its own each step, what is missing in coverage cannot hide in colour.
        composited = color + (1 - coverage) * back[:, None, None]
        loss = (images - composited).square().mean() + (alphas - coverage).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return replace(bound, gaussians=_with(start, free))


def _with(start: Gaussians, free: dict[str, Tensor]) -> Gaussians:
    return replace(
        start,
        scales=start.scales * free["size"].exp(),
        opacities=torch.sigmoid(free["opacity"]),
        colors=torch.sigmoid(free["color"]),
    )


def _pictures(raycaster: Raycaster, size: int, distance: float, fov_y_deg: float) -> tuple[Tensor, Tensor, Tensor]:
    """c2w (V, 4, 4), K (V, 3, 3) and premultiplied RGBA (V, 4, S, S) from all around, more from above than below."""
    elevations = np.degrees(np.arcsin(np.linspace(-0.6, 0.95, VIEWS)))
    c2w = np.stack([look_at_origin(i * GOLDEN_DEG, elevation, distance) for i, elevation in enumerate(elevations)])
    K = np.tile(intrinsics(fov_y_deg, size, size), (VIEWS, 1, 1))
    seen = raycaster.render(raycaster.mesh.vertices, c2w, K, size)
    rgba = np.concatenate([seen.rgb, seen.alpha[..., None]], axis=-1).transpose(0, 3, 1, 2)
    return torch.from_numpy(c2w).float(), torch.from_numpy(K).float(), torch.from_numpy(np.ascontiguousarray(rgba))
