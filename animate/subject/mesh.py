"""`RestMesh`: the object at rest as one mesh in the space of the cameras, and the way back to the file's own space.

Opens .glb, .gltf and .obj through `manifests.gltf` and refuses what no method could move; it neither colours nor
renders. Vertices that the file splits along seams of texture or material are welded, so that what moves is a surface
without cracks. Space: design 3.1, normalised by the box and the sphere of the object at rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from animate.config import SubjectConfig
from manifests.errors import InputError, Rejected
from manifests.gltf import Asset, Limits, Poser, from_z_up, load_obj, read
from manifests.gltf.rest import parse_pose

__all__ = ["SUFFIXES", "RestMesh", "open_mesh", "weld_points"]

SUFFIXES = (".glb", ".gltf", ".obj")
WELD = 1e-6
"""Distance below which two vertices are one point, in radii of the object."""
BYTES_PER_VERTEX = 16 * 4 * 600
"""Of a step over 16 frames: the field's features and the layers behind them, about 600 float32 a vertex and frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RestMesh:
    """All parts of an asset in one pose. N vertices, T triangles, M welded points, E edges.

    Attributes:
        name: the file's name without its suffix.
        asset: what was read; holds materials and images.
        poser: poses the asset; its parts' order is the order of the vertices.
        up: the axis that points up in the file; "y" for all that follow glTF.
        animation: index of the animation that poses it, None for the bind pose.
        time_s: inside that animation, seconds.
        part_positions: (n, 3) float32 for each part, in the world, z up, in the file's units.
        center: (3,) float64 in the world; normalised = (world - center) * scale.
        scale: see `center`.
        front_azimuth_deg: of the object's front, from +x towards +y.
        vertices: (N, 3) float32, normalised, all parts one after the other.
        triangles: (T, 3) int64 into the vertices, counter-clockwise from outside.
        starts: (parts + 1,) int64; vertices of part i are starts[i] .. starts[i + 1].
        weld: (N,) int64, the welded point of each vertex.
        points: (M, 3) float32, normalised.
        edges: (E, 2) int64 between different points, smaller first, each once.
        diagonal: of the box around the object at rest, normalised.
    """

    name: str
    asset: Asset
    poser: Poser
    up: Literal["y", "z"]
    animation: int | None
    time_s: float
    part_positions: list[np.ndarray] = field(repr=False)
    center: np.ndarray
    scale: float
    front_azimuth_deg: float
    vertices: np.ndarray = field(repr=False)
    triangles: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    weld: np.ndarray = field(repr=False)
    points: np.ndarray = field(repr=False)
    edges: np.ndarray = field(repr=False)
    diagonal: float

    @cached_property
    def part_of_triangle(self) -> np.ndarray:
        """(T,) int64, the part that each triangle belongs to."""
        return np.repeat(np.arange(len(self.poser.parts)), [len(part.triangles) for part in self.poser.parts])

    def to_world(self, vertices: np.ndarray) -> list[np.ndarray]:
        """Moved vertices in the world, z up, in the file's units.

        What did not move comes back bit by bit as `part_positions` has it.

        Args:
            vertices: (..., N, 3) normalised.

        Returns:
            (..., n, 3) float64 for each part.
        """
        moved = (np.asarray(vertices, np.float64) - self.vertices) / self.scale
        moved += np.concatenate(self.part_positions).astype(np.float64)
        return [moved[..., low:high, :] for low, high in pairwise(self.starts)]

    def posed(self, animation: int | None, times_s: np.ndarray) -> np.ndarray:
        """(F, N, 3) float32, normalised as at rest: the vertices as an animation of the file has them.

        Args:
            animation: index, or None for the bind pose.
            times_s: (F,) seconds inside the animation, clamped to its keys.

        Raises:
            InputError: a pose that cannot be computed.
        """
        return ((_positions(self.poser, animation, times_s, self.up, self.name) - self.center) * self.scale).astype(
            np.float32
        )


def open_mesh(
    path: str | Path,
    *,
    pose: str = "bind",
    config: SubjectConfig = SubjectConfig(),  # noqa: B008 (frozen)
    normalization: tuple[Sequence[float] | np.ndarray, float] | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> RestMesh:
    """The mesh of a .glb, .gltf or .obj file at rest.

    Args:
        path: the file.
        pose: ``bind`` or ``ANIMATION@SECONDS``, the animation by index or name.
        config: front, up axis, radius and the greatest number of vertices.
        normalization: (center (3,), scale) in the world, z up, instead of those of the object's own box and radius.
        limits: of the reader.

    Raises:
        InputError: no such file, not one that can be read, no such pose, too many vertices, or nothing with a surface.
    """
    path = Path(path)
    asset, poser = _read(path, limits)
    if poser.num_vertices > config.max_vertices:
        gib = poser.num_vertices * BYTES_PER_VERTEX / 2**30
        raise InputError(
            f"{path.name}: found {poser.num_vertices} vertices, which would need about {gib:.0f} GiB of memory with 16 "
            f"frames, expected at most {config.max_vertices}; simplify the mesh or raise --max-vertices"
        )
    try:
        animation, time_s = parse_pose(asset, pose)
    except Rejected as rejected:
        raise InputError(f"{path.name}: {rejected.detail}; choose one of these") from rejected
    up: Literal["y", "z"] = "z" if config.up == "z" else "y"
    world = _positions(poser, animation, np.array([time_s]), up, path.name)[0]
    starts = np.concatenate([[0], np.cumsum([part.num_vertices for part in poser.parts])]).astype(np.int64)
    triangles = np.concatenate(
        [part.triangles.astype(np.int64) + start for part, start in zip(poser.parts, starts, strict=False)]
    )
    low, high = _box(path.name, world, starts, triangles)
    own = world.astype(np.float64)
    center = (low + high) / 2 if normalization is None else np.asarray(normalization[0], np.float64)
    if normalization is None:
        inside = ((own >= low) & (own <= high)).all(axis=1)  # a part shrunk to a point elsewhere is not seen
        scale = config.radius / float(np.linalg.norm(own[inside] - center, axis=1).max())
    else:
        scale = float(normalization[1])
    vertices = ((own - center) * scale).astype(np.float32)
    weld, points = weld_points(vertices, WELD * float(np.linalg.norm(high - low)) * scale / 2)
    return RestMesh(
        name=path.stem, asset=asset, poser=poser, up=up, animation=animation, time_s=time_s,
        part_positions=np.split(world, starts[1:-1]), center=center, scale=scale,
        front_azimuth_deg=config.front_azimuth_deg, vertices=vertices, triangles=triangles, starts=starts,
        weld=weld, points=points, edges=_edges(weld[triangles]),
        diagonal=float(np.linalg.norm(high - low)) * scale,
    )  # fmt: skip


def weld_points(vertices: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at the same place as one point.

    Args:
        vertices: (N, 3) finite.
        tolerance: distance below which two are one; chains of such vertices become one point as well.

    Returns:
        weld (N,) int64, the point of each vertex, points numbered by their first vertex; points (M, 3), that vertex.
    """
    # A first pass into cells of that size leaves at most a few neighbours to each, however many vertices coincide.
    cells = np.round(vertices.astype(np.float64) / max(tolerance, 1e-300))
    _, first, cell_of = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    pairs = cKDTree(vertices[first].astype(np.float64)).query_pairs(tolerance, output_type="ndarray")
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    label = group[cell_of.reshape(-1)]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)].astype(np.int64), vertices[first[order]]


def _read(path: Path, limits: Limits) -> tuple[Asset, Poser]:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f'{path.name}: found a file of type "{path.suffix}", expected {", ".join(SUFFIXES)} or a Gaussian .ply; '
            "export the object as GLB"
        )
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected a mesh; check the path")
    try:
        asset = load_obj(path, limits=limits) if path.suffix.lower() == ".obj" else read(path, limits=limits)
        return asset, Poser(asset)
    except Rejected as rejected:
        raise InputError(
            f"{path.name}: {rejected.detail} ({rejected.reason}); mend the file or export it anew"
        ) from rejected


def _positions(poser: Poser, animation: int | None, times_s: np.ndarray, up: str, name: str) -> np.ndarray:
    """(F, N, 3) float32 in the world, z up."""
    try:
        world = np.concatenate(poser.positions(animation, times_s), axis=1)
    except Rejected as rejected:
        raise InputError(f"{name}: {rejected.detail} ({rejected.reason}); mend the file or choose another pose") from (
            rejected
        )
    return from_z_up(world) if up == "z" else world


def _box(name: str, world: np.ndarray, starts: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner, float64, around all parts that are more than a point.

    Raises:
        InputError: nothing with a surface.
    """
    where = f"{name}: found"
    parts = [world[low:high].astype(np.float64) for low, high in pairwise(starts)]
    seen = [part for part in parts if np.ptp(part, axis=0).max() > 1e-7 * max(1e-30, np.abs(part).max())]
    rule = "expected a mesh with a surface; choose another --pose or mend the file"
    if not seen:
        raise InputError(f"{where} all vertices of each part in one point in this pose, {rule}")
    low = np.min([part.min(axis=0) for part in seen], axis=0)
    high = np.max([part.max(axis=0) for part in seen], axis=0)
    size = np.linalg.norm(high - low)
    a, b, c = ((world[triangles[:, k]].astype(np.float64) - low) / size for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    if not area > 1e-9:
        raise InputError(f"{where} {len(triangles)} triangles without area, {rule}")
    return low, high


def _edges(corners: np.ndarray) -> np.ndarray:
    """(E, 2) unique edges of triangles (T, 3), without those from a point to itself."""
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.unique(pairs, axis=0).astype(np.int64).reshape(-1, 2)
