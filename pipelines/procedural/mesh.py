"""Closed triangle meshes made from rings of points: spheres, tubes, lathed and extruded shapes, bevelled boxes.

Everything is a loft (rings joined one to the next, ends capped), so surfaces are closed and face outwards by
construction: the signed volume decides the winding. Normals are area-weighted and split at creases. Axes as in glTF:
y up, the front towards +z. Knows nothing of skeletons or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.interpolate import CubicSpline

from .draw import linear

__all__ = [
    "Mesh",
    "beside",
    "box",
    "capsule",
    "cylinder",
    "extrude",
    "gear_outline",
    "join",
    "lathe",
    "loft",
    "mesh_from",
    "ring",
    "rotation_matrix",
    "smooth_curve",
    "sphere",
    "torus",
    "tube",
]


def rotation_matrix(pitch_deg: float = 0.0, yaw_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """(3, 3): first roll about z, then pitch about x, then yaw about y; degrees, right-handed."""
    a, b, c = np.radians([pitch_deg, yaw_deg, roll_deg])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return y @ x @ z


def beside(point: Sequence[float] | np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """A point (3,), or points (..., 3), shifted by x, y, z."""
    return np.asarray(point, dtype=np.float64) + np.array([x, y, z])


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        positions, normals: (N, 3); normals of length 1.
        uvs: (N, 2); u around, v along a loft.
        triangles: (T, 3), counter-clockwise seen from outside.
        colors: (N, 3) linear 0..1, or None.
    """

    positions: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    triangles: np.ndarray
    colors: np.ndarray | None = None

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Shifted."""
        return replace(self, positions=self.positions + np.array([x, y, z]))

    def turned(self, pitch_deg: float = 0.0, yaw_deg: float = 0.0, roll_deg: float = 0.0) -> Mesh:
        """Rotated about the origin; order as in `rotation_matrix`."""
        m = rotation_matrix(pitch_deg, yaw_deg, roll_deg)
        return replace(self, positions=self.positions @ m.T, normals=self.normals @ m.T)

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> Mesh:
        """Scaled about the origin; one number for all axes. A mirror keeps the surface facing outwards."""
        s = np.array([x, x if y is None else y, x if z is None else z])
        normals = self.normals / s
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        triangles = self.triangles[:, ::-1] if np.prod(s) < 0 else self.triangles
        return replace(self, positions=self.positions * s, normals=normals, triangles=triangles)

    def painted(self, color: Sequence[float]) -> Mesh:
        """With one vertex colour, given sRGB-encoded."""
        return replace(self, colors=np.tile(linear(color), (len(self.positions), 1)))


def join(*meshes: Mesh) -> Mesh:
    """One mesh of many; colours are kept only if all have them."""
    starts = np.cumsum([0] + [len(m.positions) for m in meshes])
    colored = all(m.colors is not None for m in meshes)
    return Mesh(
        np.concatenate([m.positions for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uvs for m in meshes]),
        np.concatenate([m.triangles + s for m, s in zip(meshes, starts, strict=False)]),
        np.concatenate([m.colors for m in meshes]) if colored else None,
    )


def mesh_from(positions: np.ndarray, triangles: np.ndarray, uvs: np.ndarray, crease_deg: float = 40.0) -> Mesh:
    """A mesh with normals from a closed surface whose seams may be doubled.

    Args:
        positions: (N, 3).
        triangles: (T, 3), any consistent winding; degenerate ones are dropped.
        uvs: (N, 2).
        crease_deg: faces that meet at a larger angle do not share a normal.
    """
    eps = 1e-6 * max(float(np.ptp(positions, axis=0).max()), 1e-12)
    _, weld = np.unique(np.round(positions / eps).astype(np.int64), axis=0, return_inverse=True)
    weld = weld.reshape(-1)
    w = weld[triangles]
    triangles = triangles[(w[:, 0] != w[:, 1]) & (w[:, 1] != w[:, 2]) & (w[:, 2] != w[:, 0])]
    a, b, c = (positions[triangles[:, k]] for k in range(3))
    if np.einsum("ij,ij->", a, np.cross(b, c)) < 0:
        triangles = triangles[:, ::-1]
        a, c = c, a
    area = np.cross(b - a, c - a)
    unit = area / np.maximum(np.linalg.norm(area, axis=1, keepdims=True), 1e-30)
    corner = triangles.ravel()
    face = np.repeat(np.arange(len(triangles)), 3)
    incidence = sparse.csr_matrix((np.ones(len(corner)), (np.arange(len(corner)), weld[corner])))
    pairs = (incidence @ incidence.T).tocoo()
    near = np.einsum("ij,ij->i", unit[face[pairs.row]], unit[face[pairs.col]]) >= np.cos(np.radians(crease_deg))
    share = sparse.csr_matrix(
        (np.ones(int(near.sum())), (pairs.row[near], pairs.col[near])), shape=(len(corner), len(corner))
    )
    normals = share @ area[face]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    key = np.column_stack([corner, np.round(normals * 1000).astype(np.int64)])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return Mesh(positions[corner[first]], normals[first], uvs[corner[first]], inverse.reshape(-1, 3))


def loft(rings: np.ndarray, *, closed_along: bool = False, crease_deg: float = 40.0) -> Mesh:
    """Rings of points joined one to the next; ends that are not points get a flat cap.

    Args:
        rings: (K, M, 3); ring k is a closed loop of M points, star-shaped around its mean if it is an end.
        closed_along: the last ring is joined to the first instead of capping (a torus).
        crease_deg: as in `mesh_from`.
    """
    rings = np.asarray(rings, dtype=np.float64)
    if closed_along:
        rings = np.concatenate([rings, rings[:1]])
    num_rings, around = rings.shape[:2]
    grid = np.concatenate([rings, rings[:, :1]], axis=1)
    centers = rings.mean(axis=1)
    reach = np.abs(rings - centers[:, None]).max(axis=(1, 2))
    step = np.linalg.norm(np.diff(rings, axis=0), axis=2).mean(axis=1)
    along = np.concatenate([[0.0], np.cumsum(step)])
    along /= max(along[-1], 1e-12)
    u, v = np.meshgrid(np.linspace(0, 1, around + 1), along)
    at = np.arange(num_rings * (around + 1)).reshape(num_rings, around + 1)
    p, q, r, s = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    triangles = [np.stack([p, q, r], -1).reshape(-1, 3), np.stack([p, r, s], -1).reshape(-1, 3)]
    positions, uvs = [grid.reshape(-1, 3)], [np.stack([u, v], -1).reshape(-1, 2)]
    count = grid.shape[0] * grid.shape[1]
    if not closed_along:
        for k, flip in ((0, True), (num_rings - 1, False)):
            if reach[k] <= 1e-6 * max(reach.max(), 1e-12):
                continue
            positions.append(np.concatenate([grid[k], centers[k : k + 1]]))
            angle = np.linspace(0, 2 * np.pi, around + 1)
            disc = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], -1)
            uvs.append(np.concatenate([disc, [[0.5, 0.5]]]))
            i = count + np.arange(around)
            fan = np.stack([i, i + 1, np.full(around, count + around + 1)], -1)
            triangles.append(fan[:, ::-1] if flip else fan)
            count += around + 2
    return mesh_from(np.concatenate(positions), np.concatenate(triangles), np.concatenate(uvs), crease_deg)


def smooth_curve(points: Sequence[Sequence[float]], count: int) -> np.ndarray:
    """(count, D) points on the natural spline through the given (K, D) ones, evenly spaced in its chord length."""
    points = np.asarray(points, dtype=np.float64)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return CubicSpline(chord, points, bc_type="natural")(np.linspace(0, chord[-1], count))


def lathe(profile: Sequence[Sequence[float]], segments: int = 24, crease_deg: float = 40.0) -> Mesh:
    """A profile of (radius, y) points, bottom to top, turned about the y axis."""
    radius, y = np.asarray(profile, dtype=np.float64).T
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = np.stack(
        [np.outer(radius, np.sin(angle)), np.repeat(y[:, None], segments, 1), np.outer(radius, np.cos(angle))], -1
    )
    return loft(rings, crease_deg=crease_deg)


def sphere(radius: float = 1.0, segments: int = 24) -> Mesh:
    """A sphere about the origin, its poles on the y axis; half as many rings as segments."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    profile = np.stack([np.cos(angle), np.sin(angle)], -1) * radius
    profile[[0, -1], 0] = 0.0
    return lathe(profile, segments, crease_deg=80)


def cylinder(radius: float, height: float, *, top: float | None = None, bevel: float = 0.0, segments: int = 24) -> Mesh:
    """Upright from y = 0; `top` is the upper radius (a cone may end at 0), `bevel` breaks the two edges."""
    top = radius if top is None else top
    b = min(bevel, 0.45 * height)
    profile = [(max(radius - b, 0), 0), (radius, b), (top, height - b), (max(top - b, 0), height)]
    return lathe(profile if b else [profile[1], profile[2]], segments, crease_deg=35)


def torus(radius: float, thickness: float, segments: int = 32, around: int = 12) -> Mesh:
    """About the y axis; `radius` to the middle of the tube, `thickness` is the tube's radius."""
    a = np.linspace(0, 2 * np.pi, around, endpoint=False)
    b = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    r, y = radius + thickness * np.cos(a), thickness * np.sin(a)
    rings = np.stack([np.outer(np.sin(b), r), np.tile(y, (segments, 1)), np.outer(np.cos(b), r)], -1)
    return loft(rings, closed_along=True, crease_deg=80)


def tube(
    path: Sequence[Sequence[float]],
    radii: Sequence[float] | np.ndarray,
    *,
    segments: int = 12,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    rounded: bool = True,
    crease_deg: float = 60.0,
) -> Mesh:
    """A tube along a path; uv v runs from 0 at the start to 1 at the end.

    Args:
        path: (K, 3).
        radii: (K,) or (K, 2) for (sideways, upwards).
        up: the ring's second axis leans this way, so it must not run along the path.
        rounded: half-round ends added beyond the path; else flat caps (none where the radius is 0).
    """
    path, radii = np.asarray(path, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    radii = np.stack([radii, radii], -1) if radii.ndim == 1 else radii
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    if rounded:
        angle = np.radians([90, 67, 45, 22])
        for end in (0, -1):
            sign, r = (-1 if end == 0 else 1), radii[end]
            caps = path[end] + sign * np.outer(np.sin(angle), tangent[end]) * r.min()
            cap_radii = np.outer(np.cos(angle), r)
            cap_radii[0] = 0.0
            tangents = np.repeat(tangent[end][None], 4, 0)
            if end == 0:
                path, radii = np.concatenate([caps, path]), np.concatenate([cap_radii, radii])
                tangent = np.concatenate([tangents, tangent])
            else:
                path, radii = np.concatenate([path, caps[::-1]]), np.concatenate([radii, cap_radii[::-1]])
                tangent = np.concatenate([tangent, tangents])
    side = np.cross(np.asarray(up, dtype=np.float64), tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    lift = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = (
        path[:, None]
        + radii[:, None, :1] * np.cos(angle)[None, :, None] * side[:, None]
        + radii[:, None, 1:] * np.sin(angle)[None, :, None] * lift[:, None]
    )
    return loft(rings, crease_deg=crease_deg)


def capsule(a: Sequence[float], b: Sequence[float], r0: float, r1: float | None = None, segments: int = 14) -> Mesh:
    """A rod with round ends from a to b, radius r0 at a and r1 at b."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    along = np.abs(b - a)
    up = (0.0, 0.0, 1.0) if along[1] >= max(along[0], along[2]) else (0.0, 1.0, 0.0)
    t = np.linspace(0, 1, 3)[:, None]
    return tube(a + (b - a) * t, np.linspace(r0, r0 if r1 is None else r1, 3), segments=segments, up=up)


def box(x: float, y: float, z: float, bevel: float = 0.0) -> Mesh:
    """A box about the origin with full sizes x, y, z; edges rounded by `bevel` (same unit, one segment)."""
    half = np.array([x, y, z]) / 2
    b = min(bevel, 0.49 * half.min() * 2) if bevel else 0.0
    positions, triangles, uvs, count = [], [], [], 0
    steps = [np.array([-h, -h + b, h - b, h]) if b else np.array([-h, h]) for h in half]
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        n = len(steps[i])
        gi, gj = np.meshgrid(steps[i], steps[j], indexing="ij")
        at = np.arange(n * n).reshape(n, n)
        quads = np.stack([at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]], -1).reshape(-1, 4)
        for sign in (-1, 1):
            p = np.empty((n * n, 3))
            p[:, axis], p[:, i], p[:, j] = sign * half[axis], gi.ravel(), gj.ravel()
            core = np.clip(p, -(half - b), half - b)
            away = p - core
            length = np.linalg.norm(away, axis=1, keepdims=True)
            positions.append(core + away / np.maximum(length, 1e-12) * np.minimum(length, b) if b else p)
            faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
            triangles.append((faces if sign > 0 else faces[:, ::-1]) + count)
            uvs.append(np.stack([gi.ravel() / (2 * half[i]), gj.ravel() / (2 * half[j])], -1) + 0.5)
            count += n * n
    return mesh_from(np.concatenate(positions), np.concatenate(triangles), np.concatenate(uvs), 60 if b else 30)


def extrude(outline: np.ndarray, depth: float, bevel: float = 0.0) -> Mesh:
    """A star-shaped outline (M, 2) in xy, pulled from z = -depth/2 to +depth/2, edges bevelled inwards."""
    outline = np.asarray(outline, dtype=np.float64)
    inner = outline * (1 - bevel / np.abs(outline).max())
    layers = [(inner, -depth / 2), (outline, -depth / 2 + bevel), (outline, depth / 2 - bevel), (inner, depth / 2)]
    layers = layers if bevel else layers[1:3]
    return loft(np.stack([np.column_stack([o, np.full(len(o), z)]) for o, z in layers]), crease_deg=30)


def ring(outer: np.ndarray, inner: np.ndarray, depth: float) -> Mesh:
    """Between two outlines (M, 2) in xy with equal point counts, depth along z about 0."""
    layers = [(outer, -depth / 2), (outer, depth / 2), (inner, depth / 2), (inner, -depth / 2)]
    rings = np.stack([np.column_stack([o, np.full(len(o), z)]) for o, z in layers])
    return loft(rings, closed_along=True, crease_deg=30)


def gear_outline(teeth: int, radius: float, tooth: float) -> np.ndarray:
    """(8 * teeth, 2): pitch radius, teeth from radius - tooth to radius + tooth; the first tooth points along +x."""
    shape = [(-0.25, -1), (-0.17, 0.0), (-0.12, 0.8), (-0.08, 1), (0.08, 1), (0.12, 0.8), (0.17, 0.0), (0.25, -1)]
    angle = np.concatenate([[(k + a) * 2 * np.pi / teeth for a, _ in shape] for k in range(teeth)])
    r = np.tile([radius + tooth * h for _, h in shape], teeth)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)
