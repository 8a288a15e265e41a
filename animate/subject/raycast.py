"""`Raycaster`: pictures of a mesh at rest or moved, by casting rays with Embree; the truth that methods are held to.

Shows the surface's own colour without light, as its Gaussians do, with coverage, depth and normals. Not differentiable.
Silhouettes are those of the recorded renders: pinhole cameras of `manifests.cameras`, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from animate.subject.mesh import RestMesh
from animate.subject.surface import Surface

__all__ = ["Pictures", "Raycaster"]

LAYERS = 8
"""See-through layers that a ray is followed through."""
SOLID = 0.5
"""Alpha from which a surface stops a ray."""
STEP = 1e-5
"""How far behind a see-through hit a ray goes on, normalised units."""
RAYS = 2**20
"""Rays in memory at a time."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """V images of (height, width).

    Attributes:
        rgb: (V, H, W, 3) float32, sRGB-encoded; premultiplied by alpha, or composited where a background was given.
        alpha: (V, H, W) float32, share of the pixel's samples that meet the surface.
        depth: (V, H, W) float32 along the viewing axis at pixel centres, 0 where there is nothing.
        normal: (V, H, W, 3) float32, of the triangle at pixel centres, in the world, towards the camera; 0 where
            there is nothing.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True, eq=False)
class _Hits:
    """What R rays meet; `rays` (P,) are those that meet something."""

    rays: np.ndarray
    triangles: np.ndarray
    barycentric: np.ndarray
    distance: np.ndarray


class Raycaster:
    """Renders one mesh in any position of its vertices.

    Args:
        mesh: its triangles, and the scale of what is see-through.
        surface: its colours; made from the mesh where it is not given.
    """

    def __init__(self, mesh: RestMesh, surface: Surface | None = None) -> None:
        self.mesh = mesh
        self.surface = Surface(mesh) if surface is None else surface

    def render(
        self,
        vertices: np.ndarray,
        c2w: np.ndarray,
        K: np.ndarray,
        size: int | tuple[int, int],
        *,
        samples: int = 2,
        background: Sequence[float] | None = None,
    ) -> Pictures:
        """The mesh through several cameras.

        Args:
            vertices: (N, 3) normalised; triangles with a corner that is not finite are left out.
            c2w: (V, 4, 4).
            K: (V, 3, 3) pixels.
            size: height and width, pixels; one number for square images.
            samples: rays along each side of a pixel, in the middles of equal cells.
            background: sRGB-encoded 0 to 1 behind the object; None leaves the colours premultiplied.
        """
        height, width = (size, size) if isinstance(size, int) else size
        vertices = np.ascontiguousarray(vertices, np.float32)
        assert vertices.shape == self.mesh.vertices.shape, f"vertices are {vertices.shape}"
        scene = _Scene(vertices, self.mesh.triangles)
        views = [
            self._view(scene, np.asarray(c2w[view], float), np.asarray(K[view], float), height, width, samples)
            for view in range(len(c2w))
        ]
        rgb, alpha, depth, normal = (np.stack(images) for images in zip(*views, strict=True))
        if background is not None:
            rgb += (1 - alpha[..., None]) * np.asarray(background, np.float32)
        return Pictures(rgb=rgb, alpha=alpha, depth=depth, normal=normal)

    def _view(self, scene: _Scene, c2w: np.ndarray, K: np.ndarray, height: int, width: int, samples: int) -> Any:
        rgb, alpha = np.zeros((height * width, 3), np.float32), np.zeros(height * width, np.float32)
        depth, normal = np.zeros(height * width, np.float32), np.zeros((height * width, 3), np.float32)
        window = scene.window(c2w, K, height, width)
        pixels = (window[0][:, None] * width + window[1]).reshape(-1)
        centers = np.stack([pixels % width, pixels // width], axis=1) + 0.5
        cells = (np.arange(samples) + 0.5) / samples - 0.5
        chunk = max(1, RAYS // samples**2)
        for start in range(0, len(pixels), chunk):
            some = slice(start, start + chunk)
            middle = self._cast(scene, c2w, K, centers[some])
            axis = _directions(c2w, K, centers[some][middle.rays])
            depth[pixels[some][middle.rays]] = middle.distance  # directions have length 1 along the axis
            facing = scene.normals(middle.triangles)
            facing *= -np.sign(np.einsum("pc,pc->p", facing, axis))[:, None]
            normal[pixels[some][middle.rays]] = facing
            if samples == 1:
                hits, target = middle, pixels[some]
            else:
                offsets = np.stack(np.meshgrid(cells, cells, indexing="xy"), axis=-1).reshape(-1, 2)
                hits = self._cast(scene, c2w, K, (centers[some][:, None] + offsets).reshape(-1, 2))
                target = np.repeat(pixels[some], samples**2)
            footprint = hits.distance / (K[1, 1] * samples)
            colors = self.surface.colors_at(hits.triangles, hits.barycentric, footprint)
            place = target[hits.rays]
            alpha += np.bincount(place, minlength=height * width).astype(np.float32)
            for channel in range(3):
                rgb[:, channel] += np.bincount(place, colors[:, channel], minlength=height * width).astype(np.float32)
        count = np.float32(samples**2)
        image = (height, width)
        return (
            (rgb / count).reshape(*image, 3), (alpha / count).reshape(image), depth.reshape(image),
            normal.reshape(*image, 3),
        )  # fmt: skip

    def _cast(self, scene: _Scene, c2w: np.ndarray, K: np.ndarray, uv: np.ndarray) -> _Hits:
        """The first solid hits of the rays through pixel positions (R, 2)."""
        directions = _directions(c2w, K, uv)
        waiting = np.arange(len(uv))
        behind = np.zeros(len(uv))
        found: list[_Hits] = []
        for _ in range(LAYERS if self.surface.see_through else 1):
            origins = c2w[:3, 3] + directions[waiting] * behind[waiting, None]
            hits = scene.hits(origins, directions[waiting])
            rays, distance = waiting[hits.rays], hits.distance + behind[waiting[hits.rays]]
            solid = np.ones(len(rays), bool)
            if self.surface.see_through:
                solid = self.surface.colors_at(hits.triangles, hits.barycentric)[:, 3] >= SOLID
            found.append(_Hits(rays[solid], hits.triangles[solid], hits.barycentric[solid], distance[solid]))
            behind[rays] = distance + STEP
            waiting = rays[~solid]
            if not len(waiting):
                break
        columns = zip(*((h.rays, h.triangles, h.barycentric, h.distance) for h in found), strict=True)
        return _Hits(*(np.concatenate(column) for column in columns))


class _Scene:
    """The triangles in one position, in Embree's tree."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.kept = np.flatnonzero(np.isfinite(vertices).all(axis=1)[triangles].all(axis=1))
        corners = triangles[self.kept]
        self.corners = vertices[corners]
        self.places = vertices[np.unique(corners)].astype(np.float64)
        self.scene = None
        if len(corners):
            self.scene = EmbreeScene(robust=True)
            TriangleMesh(self.scene, vertices, corners.astype(np.int32))

    def window(self, c2w: np.ndarray, K: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels that can see anything; most of a picture cannot."""
        everything = np.arange(height), np.arange(width)
        if not len(self.places):
            return everything[0][:0], everything[1][:0]
        camera = (self.places - c2w[:3, 3]) @ c2w[:3, :3]
        if (camera[:, 2] > -1e-3).any():  # reaches behind the camera: no bound by its projection
            return everything
        across = K[0, 2] - K[0, 0] * camera[:, 0] / camera[:, 2]
        down = K[1, 2] + K[1, 1] * camera[:, 1] / camera[:, 2]
        rows = np.clip([np.floor(down.min()), np.floor(down.max()) + 1], 0, height).astype(int)
        columns = np.clip([np.floor(across.min()), np.floor(across.max()) + 1], 0, width).astype(int)
        return np.arange(*rows), np.arange(*columns)

    def hits(self, origins: np.ndarray, directions: np.ndarray) -> _Hits:
        """First hits; distances in lengths of the directions."""
        if self.scene is None or not len(origins):
            none = np.zeros(0, np.int64)
            return _Hits(none, none, np.zeros((0, 3)), np.zeros(0))
        result = self.scene.run(origins.astype(np.float32), directions.astype(np.float32), output=True)
        rays = np.flatnonzero(result["primID"] >= 0)
        u, v = result["u"][rays].astype(np.float64), result["v"][rays].astype(np.float64)
        triangles = self.kept[result["primID"][rays]]
        return _Hits(rays, triangles, np.stack([1 - u - v, u, v], axis=1), result["tfar"][rays].astype(np.float64))

    def normals(self, triangles: np.ndarray) -> np.ndarray:
        """(P, 3) float32 unit normals, by the order of the corners."""
        a, b, c = self.corners[np.searchsorted(self.kept, triangles)].swapaxes(0, 1).astype(np.float64)
        across = np.cross(b - a, c - a)
        return (across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)).astype(np.float32)


def _directions(c2w: np.ndarray, K: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(R, 3) in the world through pixel positions, of length 1 along the viewing axis."""
    y = -(uv[:, 1] - K[1, 2]) / K[1, 1]
    x = (uv[:, 0] - K[0, 2]) / K[0, 0]
    return np.stack([x, y, np.full(len(uv), -1.0)], axis=1) @ c2w[:3, :3].T
