"""Noise that is painted on a sphere around the object, so that views that see one place share its noise.

An option of the later version of 3to4D (arXiv 2412.20422 v2, section 3.3). The sphere is a grid of cells of one size,
each with a fixed Gaussian vector; a view looks its pixels up in it. What the paper leaves open is an option or said
here. The noise is white within a view only as far as no two pixels see one cell: `fitting_cell_deg`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from manifests.seeds import integer

__all__ = ["SphereNoise", "fitting_cell_deg"]


def fitting_cell_deg(latent_size: int, *, distance: float, fov_y_deg: float, radius: float = 0.5) -> float:
    """Side of a cell, in degrees, that is as wide as a latent pixel where the sphere is nearest to the camera.

    Larger cells are seen by several pixels of a view, whose noise is then no longer independent; of smaller ones, two
    views find the same one less often.

    Args:
        latent_size: pixels of a view's latents along its height.
        distance: of the camera from the centre, more than `radius`.
        fov_y_deg: vertical field of view.
        radius: of the sphere.
    """
    assert distance > radius, f"the camera at {distance} is within the sphere of radius {radius}"
    pixel = 2 * math.tan(math.radians(fov_y_deg) / 2) / latent_size
    return math.degrees(pixel * (distance - radius) / radius)


class SphereNoise:
    """Standard normal noise for any camera outside of the sphere.

    Args:
        num_frames: of a clip; frame f is at time f / (num_frames - 1).
        channels: of the latents.
        seed: of the cells and of the frozen noise.
        cell_deg: side of a cell; `fitting_cell_deg` of the largest latents.
        radius: of the sphere; the object's sphere has 0.5.
        roles: of the two terms of the paper's equation 4. ``swapped``: a frame at its own time has the sphere's noise,
            and strays towards the frozen one as its time does. ``printed``: the other way round; a frame at its own
            time then has frozen noise alone, which does not depend on the camera.
        normalized: the time that a frame strays is measured in distances between frames instead of clips, as the
            paper's 1 / V might have been meant; the second term's share is then up to 1 / 2 instead of 1 / 2 V.

    Pixels that miss the sphere, of which the paper does not speak, have frozen noise: one value for each pixel, frame
    and channel, whatever the camera.
    """

    def __init__(
        self,
        num_frames: int,
        channels: int,
        seed: int,
        *,
        cell_deg: float = 2.6,
        radius: float = 0.5,
        roles: Literal["swapped", "printed"] = "swapped",
        normalized: bool = False,
    ) -> None:
        assert roles in ("swapped", "printed"), f"roles is {roles}"
        self.num_frames, self.channels, self.seed = num_frames, channels, seed
        self.radius, self.roles, self.normalized = radius, roles, normalized
        rings = max(round(180 / cell_deg), 2)
        middle = (torch.arange(rings, dtype=torch.float64) + 0.5) * (math.pi / rings)
        # Every ring has as many cells as its length has sides of a cell, so that cells have one size and shape.
        self.counts = (2 * rings * middle.sin()).round().clamp(min=3).long()
        self.starts = self.counts.cumsum(0) - self.counts
        self.cells = self._normal(int(self.counts.sum()), num_frames, channels, what="cells")
        self._frozen: dict[tuple[int, int], Tensor] = {}

    def _normal(self, *shape: int, what: str) -> Tensor:
        generator = torch.Generator().manual_seed(integer("sphere-noise", self.seed, what))
        return torch.randn(shape, generator=generator)

    def frozen(self, height: int, width: int) -> Tensor:
        """(F, C, height, width): the noise that no camera moves."""
        if (height, width) not in self._frozen:
            self._frozen[height, width] = self._normal(self.num_frames, self.channels, height, width, what="frozen")
        return self._frozen[height, width]

    def cells_of(self, c2w: Tensor, K: Tensor, height: int, width: int) -> Tensor:
        """Which cell the middle of each pixel sees.

        Args:
            c2w: (..., 4, 4) in normalised space.
            K: (..., 3, 3) in pixels of an image of `height` and `width`.
            height: of the latents.
            width: of the latents.

        Returns:
            (..., height, width) int64, -1 where the pixel misses the sphere.
        """
        c2w, K = c2w.detach().cpu().double(), K.detach().cpu().double()
        v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        focal, centre = K[..., None, None, [0, 1], [0, 1]], K[..., None, None, [0, 1], [2, 2]]
        x, y = ((torch.stack([u, v], -1) - centre) / focal).unbind(-1)
        rays = torch.stack([x, -y, -torch.ones_like(x)], -1)
        rays = torch.nn.functional.normalize(rays @ c2w[..., None, :3, :3].mT, dim=-1)
        origin = c2w[..., None, None, :3, 3]
        along = -(origin * rays).sum(-1)
        inside = self.radius**2 - (origin.square().sum(-1) - along.square())
        reach = along - inside.clamp(min=0).sqrt()
        points = (origin + reach[..., None] * rays) / self.radius
        return torch.where((inside > 0) & (reach > 0), self._cell(points), -1)

    def _cell(self, points: Tensor) -> Tensor:
        """The cell of points on the unit sphere."""
        rings = len(self.counts)
        polar = torch.acos(points[..., 2].clamp(-1, 1)) / math.pi
        ring = (polar * rings).long().clamp(0, rings - 1)
        turn = torch.atan2(points[..., 1], points[..., 0]) / (2 * math.pi) % 1
        count = self.counts[ring]
        return self.starts[ring] + (turn * count).long().clamp(max=count - 1)

    def at(self, c2w: Tensor, K: Tensor, height: int, width: int, *, times: Tensor | None = None) -> Tensor:
        """The noise of one or more views.

        Args:
            c2w: (..., 4, 4) in normalised space, cameras outside of the sphere.
            K: (..., 3, 3) in pixels of an image of the latents' `height` and `width`, not of the render.
            height: of the latents.
            width: of the latents.
            times: (F,) in [0, 1], of the frames; None: each at its own. A frame is mixed by how far it strays from its
                own time, before or after; the paper, which only lets it stray after, says from the one before.

        Returns:
            (..., F, C, height, width) float32 on the device of `c2w`; every value standard normal.

        Source: arXiv 2412.20422 v2, equation 4.
        """
        cells = self.cells_of(c2w, K, height, width)
        painted = self.cells[cells.clamp(min=0)].movedim((-2, -1), (-4, -3))
        frozen = self.frozen(height, width)
        stray = self._stray(times)[:, None, None, None]
        sphere, rest = (stray, 1 - stray) if self.roles == "printed" else (1 - stray, stray)
        mixed = rest.sqrt() * frozen + sphere.sqrt() * painted
        return torch.where(cells[..., None, None, :, :] >= 0, mixed, frozen).to(c2w.device)

    def _stray(self, times: Tensor | None) -> Tensor:
        """(F,) the paper's tau."""
        if times is None:
            return torch.zeros(self.num_frames)
        assert times.shape == (self.num_frames,), f"times is {tuple(times.shape)}"
        last = max(self.num_frames - 1, 1)
        own = torch.arange(self.num_frames, dtype=torch.float64) / last
        stray = (times.detach().cpu().double() - own).abs() * (last if self.normalized else 1)
        return stray.clamp(max=1).float()
