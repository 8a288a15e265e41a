"""Soft bodies: capsules and ellipsoids melted into one closed surface, with colours and skin weights.

A body is a signed distance field (smooth union of simple solids, each tied to a bone and a colour), meshed by surface
nets on a grid that every solid touches only inside its own box, then relaxed and projected back onto the field. Weights
follow the distance to each bone's solids. Own implementation of textbook methods (S. Gibson, "Constrained elastic
surface nets", 1998; polynomial smooth minimum).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from .draw import linear
from .mesh import Mesh

__all__ = ["Blob"]


@dataclass(frozen=True, eq=False)
class _Solid:
    bone: str
    color: np.ndarray  # (3,) linear
    blend: float
    a: np.ndarray  # capsule: start; ellipsoid: centre
    b: np.ndarray  # capsule: end; ellipsoid: radii
    r0: float
    r1: float
    turn: np.ndarray | None  # (3, 3) of an ellipsoid, None for a capsule

    def distance(self, p: np.ndarray) -> np.ndarray:
        """Signed distance (approximate for ellipsoids) of points (..., 3)."""
        if self.turn is None:
            axis = self.b - self.a
            t = np.clip(((p - self.a) @ axis) / max(axis @ axis, 1e-12), 0, 1)
            return np.linalg.norm(p - self.a - t[..., None] * axis, axis=-1) - (self.r0 + (self.r1 - self.r0) * t)
        q = (p - self.a) @ self.turn
        k0 = np.linalg.norm(q / self.b, axis=-1)
        k1 = np.linalg.norm(q / self.b**2, axis=-1)
        return np.where(k1 > 1e-9, k0 * (k0 - 1) / np.maximum(k1, 1e-9), -self.b.min())

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        if self.turn is None:
            r = max(self.r0, self.r1)
            return np.minimum(self.a, self.b) - r, np.maximum(self.a, self.b) + r
        reach = np.linalg.norm(self.turn * self.b, axis=1)
        return self.a - reach, self.a + reach


@dataclass
class Blob:
    """A soft body under construction.

    Attributes:
        blend: how far two solids melt into each other, in the body's unit.
    """

    blend: float = 0.1
    solids: list[_Solid] = field(default_factory=list)

    def rod(
        self,
        bone: str,
        color: Sequence[float],
        a: Sequence[float],
        b: Sequence[float],
        r0: float,
        r1: float | None = None,
        blend: float | None = None,
    ) -> Blob:
        """Add a tapered capsule from a to b; colour sRGB-encoded."""
        a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        k = self.blend if blend is None else blend
        self.solids.append(_Solid(bone, linear(color), k, a, b, r0, r0 if r1 is None else r1, None))
        return self

    def ball(
        self,
        bone: str,
        color: Sequence[float],
        center: Sequence[float],
        radii: float | Sequence[float],
        turn: np.ndarray | None = None,
        blend: float | None = None,
    ) -> Blob:
        """Add an ellipsoid with three radii (or one); `turn` (3, 3) rotates it; colour sRGB-encoded."""
        radii = np.broadcast_to(np.asarray(radii, dtype=np.float64), 3)
        k = self.blend if blend is None else blend
        turn = np.eye(3) if turn is None else turn
        center = np.asarray(center, dtype=np.float64)
        self.solids.append(_Solid(bone, linear(color), k, center, radii, 0.0, 0.0, turn))
        return self

    def distance(self, p: np.ndarray) -> np.ndarray:
        """Signed distance of the melted body at points (..., 3)."""
        total = np.full(p.shape[:-1], np.inf)
        for solid in self.solids:
            total = _smooth_min(total, solid.distance(p), solid.blend)
        return total

    def mesh(
        self,
        cell: float,
        paint: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
        sharp: float = 0.25,
    ) -> Mesh:
        """The surface.

        Args:
            cell: grid spacing; the number of triangles is about 2.3 times area / cell^2.
            paint: (positions, normals, colours (N, 3) linear) -> colours.
            sharp: width of the change between two solids' colours, in units of `blend`.
        """
        points, triangles = _surface_net(self, cell)
        neighbours = _neighbours(len(points), triangles)
        for _ in range(3):
            points = 0.4 * points + 0.6 * (neighbours @ points)
            for _ in range(2):
                normals = self._normals(points, 0.3 * cell)
                points = points - np.clip(self.distance(points), -cell, cell)[:, None] * normals
        normals = self._normals(points, 0.3 * cell)
        apart = np.stack([s.distance(points) for s in self.solids], -1)
        share = np.exp(-(apart - apart.min(-1, keepdims=True)) / max(sharp * self.blend, 1e-6))
        colors = share @ np.stack([s.color for s in self.solids]) / share.sum(-1, keepdims=True)
        if paint:
            colors = np.clip(paint(points, normals, colors), 0, 1)
        low, high = points.min(0), points.max(0)
        uvs = np.stack([(points[:, 2] - low[2]), (points[:, 1] - low[1])], -1) / max((high - low).max(), 1e-9)
        return Mesh(points, normals, uvs, triangles, colors)

    def weights(self, mesh: Mesh, bones: Sequence[str], width: float = 0.6, smooth: int = 3) -> np.ndarray:
        """(N, len(bones)) rows that sum to 1: near a bone's solids, smooth across joints.

        Args:
            width: of the change between two bones, in units of `blend`.
            smooth: rounds of averaging over the surface.
        """
        apart = np.full((len(mesh.positions), len(bones)), np.inf)
        for solid in self.solids:
            k = bones.index(solid.bone)
            apart[:, k] = np.minimum(apart[:, k], solid.distance(mesh.positions))
        weights = np.exp(-(apart - apart.min(-1, keepdims=True)) / (width * self.blend))
        weights[weights < 1e-3] = 0.0
        weights /= weights.sum(-1, keepdims=True)
        neighbours = _neighbours(len(mesh.positions), mesh.triangles)
        for _ in range(smooth):
            weights = 0.5 * weights + 0.5 * (neighbours @ weights)
        return weights

    def _normals(self, p: np.ndarray, step: float) -> np.ndarray:
        offsets = np.eye(3) * step
        both = np.concatenate([p[None] + offsets[:, None], p[None] - offsets[:, None]])
        d = self.distance(both)
        gradient = (d[:3] - d[3:]).T
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)


def _smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    far = ~np.isfinite(a)
    h = np.maximum(k - np.abs(np.where(far, 1e9, a) - b), 0) / max(k, 1e-9)
    return np.minimum(a, b) - h * h * k * 0.25


def _neighbours(count: int, triangles: np.ndarray) -> sparse.csr_matrix:
    """Row-normalised: the mean of a vertex's neighbours."""
    i = triangles.ravel()
    j = triangles[:, [1, 2, 0]].ravel()
    m = sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(count, count))
    m = ((m + m.T) > 0).astype(np.float64)
    return sparse.diags(1.0 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)) @ m


def _surface_net(blob: Blob, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """One vertex a cell that the surface crosses, one quad a crossed grid edge; (N, 3) and (T, 3)."""
    boxes = [s.bounds() for s in blob.solids]
    origin = np.min([b[0] for b in boxes], axis=0) - 2.5 * cell
    size = np.ceil((np.max([b[1] for b in boxes], axis=0) - origin) / cell).astype(int) + 3
    values = np.full(size, 1e3 * cell)
    axes = [origin[k] + cell * np.arange(size[k]) for k in range(3)]
    for solid, (low, high) in zip(blob.solids, boxes, strict=True):
        pad = solid.blend + 2 * cell
        i0 = np.maximum(np.floor((low - pad - origin) / cell).astype(int), 0)
        i1 = np.minimum(np.ceil((high + pad - origin) / cell).astype(int) + 1, size)
        part = tuple(slice(i0[k], i1[k]) for k in range(3))
        p = np.stack(np.meshgrid(*(axes[k][part[k]] for k in range(3)), indexing="ij"), -1)
        values[part] = _smooth_min(values[part], solid.distance(p), solid.blend)
    inside = values < 0
    corners = np.stack([inside[_shift(size, d)] for d in np.ndindex(2, 2, 2)])
    crossed = corners.any(0) & ~corners.all(0)
    index = np.full(crossed.shape, -1)
    cells = np.argwhere(crossed)
    index[crossed] = np.arange(len(cells))
    total, count = np.zeros((len(cells), 3)), np.zeros((len(cells), 1))
    for axis in range(3):
        for d in np.ndindex(2, 2):
            start = np.insert(np.array(d), axis, 0)
            at, to = cells + start, cells + start + np.eye(3, dtype=int)[axis]
            va, vb = values[tuple(at.T)], values[tuple(to.T)]
            hit = (va < 0) != (vb < 0)
            t = va[hit] / (va[hit] - vb[hit])
            total[hit] += at[hit] + t[:, None] * np.eye(3)[axis]
            count[hit] += 1
    quads = []
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        low = np.argwhere(inside != np.roll(inside, -1, axis))
        low = low[(low[:, axis] < size[axis] - 1)]
        out = inside[tuple(low.T)]
        unit = np.eye(3, dtype=int)
        around = [low - unit[i] - unit[j], low - unit[j], low, low - unit[i]]
        quad = np.stack([index[tuple(c.T)] for c in around], -1)
        quads.append(np.where(out[:, None], quad, quad[:, ::-1]))
    quads = np.concatenate(quads)
    return origin + cell * total / count, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _shift(size: np.ndarray, d: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(d[k], size[k] - 1 + d[k]) for k in range(3))
