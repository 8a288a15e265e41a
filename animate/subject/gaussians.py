"""`Gaussians`, the splats of an object at rest, and `BoundGaussians`, splats that follow the vertices of a mesh.

One Gaussian a vertex is Animate3D's rule for meshes (its mesh_animation tool); points spread over the surface suit
meshes whose triangles are large or uneven. Nothing here renders. Spherical harmonics as 3D Gaussian Splatting has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from animate.config import SubjectConfig
from animate.subject.mesh import RestMesh
from animate.subject.surface import Surface

__all__ = ["SH_C0", "BoundGaussians", "Gaussians", "from_mesh"]

SH_C0 = 0.28209479177387814
"""Spherical harmonic of degree 0: color = 0.5 + SH_C0 * f_dc."""
OPACITY = 0.99
EDGE_SHARE = 1 / 1.1
"""Size of a vertex's Gaussian along an axis, as a share of its edges' mean extent along it (released tool)."""
SPACING_SHARE = 0.35
"""Size of a surface point's Gaussian as a share of the distance between points."""
THICKNESS = 1.0
"""Optical thickness of one coat of surface Gaussians; thicker swells silhouettes, thinner lets light through."""
BLUR_PX2 = 0.3
"""Variance that rasterizers add to every splat, square pixels."""
THINNEST = 0.05
"""Smallest over largest size of a vertex's Gaussian; a flat fan of edges has no extent along its normal."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gaussians:
    """N splats in normalised space, z up.

    Attributes:
        means: (N, 3) float32.
        quats_wxyz: (N, 4) float32, unit length; turns a splat's own axes into the world's.
        scales: (N, 3) float32, standard deviations along its own axes, > 0.
        opacities: (N,) float32, 0 to 1.
        colors: (N, 3) float32, sRGB-encoded: what harmonics of degree 0 give, 0 to 1 where `sh` is None.
        sh: (N, K, 3) float32, coefficients of degrees 1 to 3 (K of 3, 8 or 15), or None.
    """

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    sh: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.means)
        shapes = {"means": (3,), "quats_wxyz": (4,), "scales": (3,), "opacities": (), "colors": (3,)}
        for name, shape in shapes.items():
            found = tuple(getattr(self, name).shape)
            assert found == (count, *shape), f"{name} is {found}, expected {(count, *shape)}"
        sh = self.sh
        assert sh is None or (sh.shape[0] == count and sh.shape[1] in (3, 8, 15)), f"sh is {tuple(sh.shape)}"

    def __len__(self) -> int:
        return len(self.means)

    def to(self, device: torch.device | str) -> Gaussians:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__ if name != "sh"}
        return replace(self, **moved, sh=None if self.sh is None else self.sh.to(device))

    def colors_seen(self, c2w: Tensor) -> Tensor:
        """Colours as cameras see them.

        Args:
            c2w: (V, 4, 4).

        Returns:
            (V, N, 3) sRGB-encoded, at least 0; a splat's direction is that of its mean at rest.
        """
        if self.sh is None:
            return self.colors.clamp(min=0).expand(len(c2w), -1, -1)
        seen = torch.nn.functional.normalize(self.means - c2w[:, None, :3, 3], dim=-1)
        basis = _harmonics(seen, self.sh.shape[1])
        return (self.colors + torch.einsum("vnk,nkc->vnc", basis, self.sh)).clamp(min=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class BoundGaussians:
    """Gaussians of a mesh of M welded points, each at a fixed place of a triangle (or on a point).

    Attributes:
        gaussians: at rest.
        corners: (N, 3) int64 welded points; three times the same for a Gaussian on a point.
        weights: (N, 3) float32 barycentric.
    """

    gaussians: Gaussians
    corners: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)

    def to(self, device: torch.device | str) -> BoundGaussians:
        """The same on another device."""
        return replace(
            self,
            gaussians=self.gaussians.to(device),
            corners=self.corners.to(device),
            weights=self.weights.to(device),
        )

    @property
    def on_points(self) -> bool:
        """Whether Gaussian i lies on point i for every point."""
        everywhere = torch.arange(len(self.corners), device=self.corners.device)
        return bool((self.corners == everywhere[:, None]).all())

    def positions(self, points_moved: Tensor) -> Tensor:
        """Means (F, N, 3) that follow the welded points (F, M, 3), differentiable in them."""
        if self.on_points and len(self.corners) == points_moved.shape[1]:
            return points_moved
        return torch.einsum("fnkc,nk->fnc", points_moved[:, self.corners], self.weights.to(points_moved.dtype))


def from_mesh(mesh: RestMesh, config: SubjectConfig, *, pixel: float = 0.0) -> BoundGaussians:
    """A mesh as Gaussians that can follow its points.

    Args:
        mesh: at rest.
        config: `gaussians` chooses one a welded point, or `surface_points` spread over the surface.
        pixel: width of a pixel at the object's distance, normalised units, of the pictures to come. Surface
            Gaussians are the less opaque the more a rasterizer's blur of about a pixel spreads them; 0: no blur.
            `animate.subject.fit` does better, for some seconds of work.

    Source: Animate3D's released `mesh2gaussian` tool for one a vertex (arXiv 2407.11398, mesh animation).
    """
    surface = Surface(mesh)
    if config.gaussians == "vertices":
        return _on_points(mesh, surface)
    return _on_surface(mesh, surface, config, pixel)


def _on_points(mesh: RestMesh, surface: Surface) -> BoundGaussians:
    count = len(mesh.points)
    extent = np.abs(mesh.points[mesh.edges[:, 0]] - mesh.points[mesh.edges[:, 1]]).astype(np.float64)
    total, degree = np.zeros((count, 3)), np.zeros(count)
    for end in mesh.edges.T:
        np.add.at(total, end, extent)
        np.add.at(degree, end, 1)
    sizes = total / np.maximum(degree, 1)[:, None] * EDGE_SHARE
    # An axis without extent would vanish from the side; a point without edges would everywhere.
    sizes = np.maximum(sizes, THINNEST * sizes.max(axis=1, keepdims=True))
    sizes = np.maximum(sizes, 1e-4 * mesh.diagonal)
    colors, counted = np.zeros((count, 3)), np.zeros(count)
    shares = surface.corner_counts()
    np.add.at(colors, mesh.weld, surface.vertex_colors() * shares[:, None])
    np.add.at(counted, mesh.weld, shares)
    colors /= np.maximum(counted, 1)[:, None]
    corners = torch.arange(count)[:, None].expand(-1, 3).contiguous()
    weights = torch.tensor([1.0, 0.0, 0.0]).expand(count, 3).contiguous()
    return BoundGaussians(gaussians=_plain(mesh.points, sizes, colors), corners=corners, weights=weights)


def _on_surface(mesh: RestMesh, surface: Surface, config: SubjectConfig, pixel: float) -> BoundGaussians:
    spread = surface.spread(config.surface_points, seed=0)
    corners = torch.from_numpy(mesh.weld[mesh.triangles[spread.triangles]])
    weights = torch.from_numpy(spread.barycentric).float()
    means = torch.einsum("nkc,nk->nc", torch.from_numpy(mesh.points)[corners], weights).numpy()
    size = SPACING_SHARE * spread.spacing
    # A splat's alpha sums up to opacity times 2 pi variance, and there is one splat for each square of the spacing.
    opacity = THICKNESS * spread.spacing**2 / (2 * math.pi * (size**2 + BLUR_PX2 * pixel**2))
    gaussians = _plain(means, np.full((len(means), 3), size), spread.colors[:, :3])
    gaussians = replace(gaussians, opacities=torch.full((len(means),), min(OPACITY, opacity)))
    return BoundGaussians(gaussians=gaussians, corners=corners, weights=weights)


def _plain(means: np.ndarray, sizes: np.ndarray, colors: np.ndarray) -> Gaussians:
    count = len(means)
    return Gaussians(
        means=torch.from_numpy(np.asarray(means, np.float32)),
        quats_wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.from_numpy(np.asarray(sizes, np.float32)),
        opacities=torch.full((count,), OPACITY),
        colors=torch.from_numpy(np.asarray(colors, np.float32)),
    )


def _harmonics(direction: Tensor, count: int) -> Tensor:
    """Real spherical harmonics of degrees 1 to 3, signs and order as 3D Gaussian Splatting stores them.

    Args:
        direction: (..., 3) unit, from the camera to the splat.
        count: 3, 8 or 15 of them.
    """
    x, y, z = direction.unbind(-1)
    basis = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count > 3:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if count > 8:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)
