"""Stage 1 of 3to4D: a field of space and time that shows the object at rest at every time.

One random camera and one random time a step; colour, depth and normal are held to renders of the mesh by their mean
absolute errors. Source: 3to4D (arXiv 2412.20422v2), section 3.1 and equation 1; cameras as in Animate124, as the paper
does not give them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from animate.config import AnimateConfig
from animate.fields.nerf import NerfImages, StaticDynamicNerf
from animate.run.stage import Stage
from animate.shot import intrinsics_of
from animate.subject.mesh import RestMesh
from animate.subject.raycast import Raycaster
from animate.viewpoints import scattered
from manifests.cameras import look_at_origin

__all__ = ["ADAM_EPS", "MeshRenders", "StaticField", "film_mesh", "look_at", "static_losses"]

ADAM_EPS = 1e-15


class MeshRenders(NamedTuple):
    """Renders of a mesh at rest; each (V, C, S, S) float32.

    Attributes:
        images: composited on a background, sRGB-encoded.
        alphas: coverage.
        depth: along the axis, 0 where nothing is.
        normals: in normalised space, unit length, 0 where nothing is.
    """

    images: Tensor
    alphas: Tensor
    depth: Tensor
    normals: Tensor


def film_mesh(
    raycaster: Raycaster, mesh: RestMesh, c2w: Tensor, K: Tensor, size: int, background: tuple[float, float, float]
) -> MeshRenders:
    """A mesh at rest through some cameras, on their device."""
    pictures = raycaster.render(
        mesh.vertices, c2w.cpu().double().numpy(), K.cpu().double().numpy(), size, background=background
    )

    def tensor(array, channels: int) -> Tensor:
        found = torch.from_numpy(array).float().reshape(len(array), size, size, channels)
        return found.permute(0, 3, 1, 2).to(c2w.device)

    return MeshRenders(
        tensor(pictures.rgb, 3), tensor(pictures.alpha, 1), tensor(pictures.depth, 1), tensor(pictures.normal, 3)
    )


def look_at(azimuth_deg: float, config: AnimateConfig, elevation_deg: float = 15.0) -> Tensor:
    """c2w (1, 4, 4) float32 of a camera at the distance that 3to4D's are."""
    return torch.from_numpy(look_at_origin(azimuth_deg, elevation_deg, config.dynamic.distance)).float()[None]


class StaticField(Stage):
    """Learns the object at rest.

    Args:
        nerf: the field; learnt.
        mesh: the object.
        raycaster: of the mesh.
        config: of the run.
    """

    name = "static"

    def __init__(self, nerf: StaticDynamicNerf, mesh: RestMesh, raycaster: Raycaster, config: AnimateConfig) -> None:
        self.nerf, self.mesh, self.raycaster, self.config = nerf, mesh, raycaster, config
        self.steps, self.modules = config.static.steps, {"nerf": nerf}
        self.device = next(nerf.parameters()).device

    modules: dict[str, nn.Module]

    def begin(self, folder: Path) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.nerf.parameter_groups("static"), betas=(0.9, 0.99), eps=ADAM_EPS)

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        config = self.config.static
        low, high = config.elevation_range_deg
        camera = scattered(
            1,
            elevation_range_deg=(low, high),
            distance=self.config.dynamic.distance,
            fov_y_deg=self.config.dynamic.fov_y_deg,
            generator=generator,
        )
        c2w, K = camera.c2w.to(self.device), intrinsics_of(camera.fov_y_deg, config.size).to(self.device)
        target = film_mesh(self.raycaster, self.mesh, c2w, K, config.size, self.config.background)
        times = torch.rand(1, generator=generator).to(self.device)
        shown = self.nerf.render(
            c2w,
            K,
            (config.size, config.size),
            times,
            generator=generator,
            background=self.config.background,
            normals=True,
        )
        losses = static_losses(shown, target, (config.depth_weight, config.normal_weight, config.mask_weight))
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        return {name: float(value.detach()) for name, value in losses.items()} | {"loss": float(loss.detach())}

    def preview(self) -> Tensor:
        size = self.config.static.size
        c2w = torch.cat([look_at(self.mesh.front_azimuth_deg + 45 * number, self.config) for number in range(8)])
        c2w = c2w.to(self.device)
        K = intrinsics_of(torch.full((8,), self.config.dynamic.fov_y_deg), size).to(self.device)
        with torch.no_grad():
            times = torch.linspace(0, 1, 8, device=self.device)
            shown = self.nerf.render(c2w, K, (size, size), times, background=self.config.background).images
            target = film_mesh(self.raycaster, self.mesh, c2w, K, size, self.config.background).images
        both = torch.cat([target, shown], -1)
        return (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def static_losses(shown: NerfImages, target: MeshRenders, weights: tuple[float, float, float]) -> dict[str, Tensor]:
    """Equation 1: mean absolute errors of colour, depth and normal, and of coverage.

    Depth and normals are compared where the mesh is, over all pixels, so that a small object weighs little everywhere.

    Args:
        shown: of the field; its depth and normals are premultiplied by coverage.
        target: of the mesh.
        weights: of depth, normal and coverage.
    """
    depth, normal, mask = weights
    inside = (target.depth > 0).float()
    losses = {"rgb": (shown.images - target.images).abs().mean()}
    if depth:
        losses["depth"] = depth * (inside * (shown.depth - target.depth)).abs().mean()
    if normal and shown.normals is not None:
        losses["normal"] = normal * (inside * (shown.normals - target.normals)).abs().mean()
    if mask:
        losses["mask"] = mask * (shown.alphas - target.alphas).abs().mean()
    assert all(math.isfinite(weight) for weight in weights), f"weights are {weights}"
    return losses
