"""`Body`: the points that a method moves, and the Gaussians that show them.

For a mesh the points are its welded vertices, and the Gaussians sit on them or follow their triangles; for a Gaussian
scene the points are the Gaussians' own centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from animate.config import ReconstructionConfig
from animate.fields.arap import Neighbors
from animate.fields.deformation import Motion
from animate.splat.rasterize import Splats, rasterize
from animate.subject.gaussians import BoundGaussians, Gaussians

__all__ = ["Body", "Posed", "body_of_mesh", "body_of_scene"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Posed:
    """Gaussians of some frames.

    Attributes:
        means: (F, N, 3) normalised space.
        quats_wxyz: (N, 4) or (F, N, 4).
        scales: (N, 3) or (F, N, 3).
    """

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor


class _Follows(Protocol):
    def __call__(self, points: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Body:
    """What moves.

    Attributes:
        points: (M, 3) float32, where they rest, normalised space.
        neighbors: of each point, for the as-rigid-as-possible energy.
        gaussians: at rest.
        follow: moved points (F, M, 3) to centres (F, N, 3).
        turns: Gaussians turn and change size with their points (scenes); those of a mesh keep both.
    """

    points: Tensor
    neighbors: Neighbors
    gaussians: Gaussians
    follow: _Follows
    turns: bool

    @cached_property
    def squared_edge(self) -> float:
        """Mean squared distance of neighbours at rest."""
        edges = self.points[self.neighbors.indices] - self.points[:, None]
        mask = self.neighbors.mask
        return max(float((edges.square().sum(-1) * mask).sum() / mask.sum().clamp(min=1)), 1e-12)

    def posed(self, motion: Motion) -> Posed:
        """The Gaussians as a motion has them."""
        gaussians = self.gaussians
        if not self.turns:
            return Posed(means=self.follow(motion.positions), quats_wxyz=gaussians.quats_wxyz, scales=gaussians.scales)
        return Posed(
            means=self.follow(motion.positions),
            quats_wxyz=_product(motion.quats_wxyz, gaussians.quats_wxyz),
            scales=gaussians.scales * motion.log_scales.exp(),
        )

    def show(
        self,
        posed: Posed,
        frames: Tensor,
        c2w: Tensor,
        K: Tensor,
        size: int,
        background: tuple[float, float, float] | None,
    ) -> Splats:
        """Images of some of the posed frames, each through a camera.

        Args:
            posed: the Gaussians.
            frames: (I,) int64 into `posed`.
            c2w: (I, 4, 4).
            K: (I, 3, 3) pixels of `size`.
            size: height and width.
            background: sRGB-encoded 0 to 1; None is black.
        """
        back = None if background is None else torch.tensor(background, device=posed.means.device)
        colors = self.gaussians.colors if self.gaussians.sh is None else self.gaussians.colors_seen(c2w)
        return rasterize(
            posed.means[frames],
            posed.quats_wxyz if posed.quats_wxyz.dim() == 2 else posed.quats_wxyz[frames],
            posed.scales if posed.scales.dim() == 2 else posed.scales[frames],
            self.gaussians.opacities,
            colors,
            c2w,
            K,
            (size, size),
            background=back,
        )


def body_of_mesh(bound: BoundGaussians, points: Tensor, edges: Tensor, config: ReconstructionConfig) -> Body:
    """Of a mesh: its welded vertices move, neighbours share an edge.

    Args:
        bound: its Gaussians.
        points: (M, 3) welded vertices.
        edges: (E, 2) between them.
        config: `arap_neighbors` of the scene's kind is taken where the mesh has no edges.
    """
    neighbors = (
        Neighbors.from_edges(edges, len(points))
        if len(edges)
        else Neighbors.nearest(points, config.arap_neighbors or 3)
    )
    return Body(points=points, neighbors=neighbors, gaussians=bound.gaussians, follow=bound.positions, turns=False)


def body_of_scene(gaussians: Gaussians, config: ReconstructionConfig) -> Body:
    """Of a Gaussian scene: the centres move, neighbours are the nearest at rest."""
    neighbors = Neighbors.nearest(gaussians.means, config.arap_neighbors or 3)
    return Body(points=gaussians.means, neighbors=neighbors, gaussians=gaussians, follow=lambda x: x, turns=True)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of quaternions wxyz."""
    a, b, c, d = left.unbind(-1)
    e, f, g, h = right.unbind(-1)
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )
