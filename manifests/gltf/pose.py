"""`Poser`: world positions and normals of everything that an asset shows, at many times at once.

Poses exactly as the specification says: morph targets first, then skinning by joint matrices (the mesh node's own
transform is ignored), else the node's global transform. Output is z up: glTF (x, y, z) becomes (x, -z, y). A skinned
vertex is linear in its joints' matrices, so one sparse product with the matrices of all times poses a whole character.
Facts: glTF 2.0 specification, sections 3.7.2 and 3.7.3.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from manifests.errors import Rejected
from manifests.gltf.animation import sample
from manifests.gltf.nodes import compose
from manifests.gltf.scene import Asset, Channel, Primitive

__all__ = ["Part", "Poser", "from_z_up", "to_z_up"]

Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Rows of the rotation from glTF's y up to the contract's z up."""
CHUNK_MATRICES = 2**20
"""Node matrices held at a time; 128 MiB."""
CHUNK_VERTICES = 2**23
"""Posed vertices held in float64 at a time; 192 MiB."""


def to_z_up(points: np.ndarray) -> np.ndarray:
    """glTF's (x, y, z) as (x, -z, y); any leading shape."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)


def from_z_up(points: np.ndarray) -> np.ndarray:
    """The inverse of `to_z_up`."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


@dataclass(frozen=True, eq=False)
class Part:
    """One primitive as one node (or instance) shows it, with the vertices that its triangles use."""

    node: int
    mesh: int
    primitive: int
    instance: int
    """-1 where the node is not instanced."""
    name: str
    """The node's name, for people; not unique."""
    num_vertices: int
    triangles: np.ndarray
    """(T, 3) int32 into this part's vertices, counter-clockwise from outside also under mirroring transforms."""
    vertex_ids: np.ndarray
    """(num_vertices,) int64, rising, into the source's vertices."""
    source: Primitive
    skinned: bool


@dataclass(frozen=True, eq=False)
class _SkinGroup:
    """All parts of one skin: their vertices one after the other, and the matrices that pose them."""

    skin: int
    parts: list[int]
    starts: np.ndarray
    positions: sparse.csr_matrix
    """(N, 4J): weight * (x, y, z, 1) at the columns of each joint."""
    normals: sparse.csr_matrix
    """(N, 3J): weight * normal; zero rows where a part has none."""
    morphs: list[tuple[int, int, sparse.csr_matrix, sparse.csr_matrix | None]]
    """(node, target, (N, 4J) of the displacements, (N, 3J) of the changes of the normals)."""


class Poser:
    """Poses one asset. Building it costs a few milliseconds; it holds no state between calls.

    Args:
        asset: what `read` gave.

    Attributes:
        parts: what is shown, in the order of the scene, each with a fixed number of vertices.

    Raises:
        Rejected: no-mesh where every triangle is degenerate in its indices.
    """

    def __init__(self, asset: Asset) -> None:
        self.asset = asset
        self._needed, self._levels, self._slot = _hierarchy(asset)
        with np.errstate(all="ignore"):
            self.parts = self._make_parts(self._globals(None, np.zeros(1)))
        if not self.parts:
            raise Rejected(
                "no-mesh", "the default scene: found only triangles with repeated vertices, expected a surface"
            )
        self._groups = self._make_groups()

    @property
    def num_vertices(self) -> int:
        """Vertices over all parts."""
        return sum(part.num_vertices for part in self.parts)

    def positions(self, animation: int | None, times_s: np.ndarray) -> list[np.ndarray]:
        """World positions, z up, in the asset's units.

        Args:
            animation: index, or None for the nodes' own transforms and default morph weights.
            times_s: (F,) seconds inside the animation; clamped to each channel's keys.

        Returns:
            One (F, num_vertices, 3) float32 array for each part.

        Raises:
            Rejected: non-finite where a pose overflows float32.
        """
        out = [np.empty((len(times_s), part.num_vertices, 3), np.float32) for part in self.parts]
        with np.errstate(all="ignore"):  # what overflows is found at the end, as a position that is not finite
            for frames, matrices, weights in self._chunks(animation, times_s):
                self._pose_skinned(out, frames, matrices, weights, normals=False)
                for index, part in enumerate(self.parts):
                    if not part.skinned:
                        points = _morphed(part, weights.get(part.node), part.source.positions, part.source.targets)
                        transform = Z_UP @ self._part_matrix(part, matrices)[:, :3]
                        out[index][frames] = points @ transform[:, :, :3].swapaxes(1, 2) + transform[:, None, :, 3]
        for part, array in zip(self.parts, out, strict=True):
            if not np.isfinite(array).all():
                raise Rejected(
                    "non-finite", f"nodes[{part.node}]: found a pose beyond float32, expected finite positions"
                )
        return out

    def normals(self, animation: int | None, times_s: np.ndarray) -> list[np.ndarray | None]:
        """World normals of unit length, z up; None for parts that have none (flat shading, by specification).

        Returns:
            One (F, num_vertices, 3) float32 array for each part, or None. Where a normal vanishes it is +z.
        """
        out: list[np.ndarray | None] = [
            None if part.source.normals is None else np.empty((len(times_s), part.num_vertices, 3), np.float32)
            for part in self.parts
        ]
        with np.errstate(all="ignore"):
            for frames, matrices, weights in self._chunks(animation, times_s):
                self._pose_skinned(out, frames, matrices, weights, normals=True)
                for index, part in enumerate(self.parts):
                    if part.skinned or out[index] is None:
                        continue
                    turned = _morphed(part, weights.get(part.node), part.source.normals, part.source.target_normals)
                    linear = _inverse_transpose(self._part_matrix(part, matrices)[:, :3, :3])
                    out[index][frames] = _unit(turned @ (Z_UP @ linear).swapaxes(1, 2))
        return out

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _chunks(self, animation: int | None, times_s: np.ndarray):
        """Slices of frames with their node matrices (nodes, f, 4, 4) and morph weights {node: (f, T)}."""
        times = np.asarray(times_s, np.float64)
        assert times.ndim == 1, f"times_s of shape {times.shape}, expected (F,)"
        step = max(1, min(CHUNK_MATRICES // len(self._needed), CHUNK_VERTICES // self.num_vertices))
        for start in range(0, len(times), step):
            frames = slice(start, min(start + step, len(times)))
            chunk = times[frames]
            yield frames, self._globals(animation, chunk), self._weights(animation, chunk)

    def _globals(self, animation: int | None, times: np.ndarray) -> np.ndarray:
        """Global matrices (needed nodes, F, 4, 4) in glTF's axes."""
        nodes = [self.asset.nodes[i] for i in self._needed]
        count = len(times)

        def repeated(arrays: list[np.ndarray], width: int) -> np.ndarray:
            stacked = np.array(arrays, np.float64).reshape(len(arrays), 1, width)
            return np.repeat(stacked, count, axis=1)

        tracks = {
            "translation": repeated([node.translation for node in nodes], 3),
            "rotation": repeated([node.rotation_xyzw for node in nodes], 4),
            "scale": repeated([node.scale for node in nodes], 3),
        }
        moved = set()
        for channel in self._channels(animation):
            if channel.path != "weights" and channel.node in self._slot:
                slot = self._slot[channel.node]
                tracks[channel.path][slot] = sample(channel, times)
                moved.add(slot)
        local = compose(tracks["translation"], tracks["rotation"], tracks["scale"])
        for slot, node in enumerate(nodes):
            if node.matrix is not None and slot not in moved:
                local[slot] = node.matrix  # not its decomposition, which loses shear
        for slots, parents in self._levels:
            local[slots] = local[parents] @ local[slots]
        return local

    def _channels(self, animation: int | None) -> tuple[Channel, ...]:
        return () if animation is None else self.asset.animations[animation].channels

    def _weights(self, animation: int | None, times: np.ndarray) -> dict[int, np.ndarray]:
        """Morph weights (F, T) of each shown node that has targets."""
        result = {}
        for index in self.asset.shown:
            node = self.asset.nodes[index]
            default = self.asset.meshes[node.mesh].weights
            if len(default):
                own = default if node.weights is None else node.weights
                result[index] = np.repeat(own[None], len(times), axis=0)
        for channel in self._channels(animation):
            if channel.path == "weights" and channel.node in result:
                result[channel.node] = sample(channel, times)
        return result

    def _part_matrix(self, part: Part, matrices: np.ndarray) -> np.ndarray:
        own = matrices[self._slot[part.node]]
        if part.instance < 0:
            return own
        return own @ self.asset.nodes[part.node].instances[part.instance]

    def _joint_matrices(self, skin: int, matrices: np.ndarray) -> np.ndarray:
        """(F, J, 3, 4) from bind space to the z-up world."""
        source = self.asset.skins[skin]
        slots = [self._slot[int(joint)] for joint in source.joints]
        return (Z_UP @ matrices[slots][:, :, :3] @ source.inverse_bind[:, None]).swapaxes(0, 1)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _make_parts(self, rest: np.ndarray) -> list[Part]:
        parts = []
        compact: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for index in self.asset.shown:
            node = self.asset.nodes[index]
            for k, primitive in enumerate(self.asset.meshes[node.mesh].primitives):
                if (node.mesh, k) not in compact:
                    compact[node.mesh, k] = _compact(primitive.triangles)
                vertex_ids, triangles = compact[node.mesh, k]
                if not len(triangles):
                    continue
                skinned = node.skin >= 0 and primitive.joints is not None
                instances = [-1] if node.instances is None or skinned else range(len(node.instances))
                for instance in instances:
                    part = Part(
                        node=index, mesh=node.mesh, primitive=k, instance=instance, name=node.name, skinned=skinned,
                        num_vertices=len(vertex_ids), triangles=triangles, vertex_ids=vertex_ids, source=primitive,
                    )  # fmt: skip
                    parts.append(self._facing_out(part, rest))
        return parts

    def _facing_out(self, part: Part, rest: np.ndarray) -> Part:
        """Turn the triangles round where the transform at rest mirrors them (specification, 3.7.4)."""
        if part.skinned:  # by the joints' majority, each with the weight that it has in this part
            joints = self._joint_matrices(self.asset.nodes[part.node].skin, rest)[0]
            signs = np.sign(np.linalg.det(joints[:, :, :3]))
            rows = part.vertex_ids
            mirrored = float((part.source.weights[rows] * signs[part.source.joints[rows]]).sum()) < 0
        else:
            mirrored = bool(np.linalg.det(self._part_matrix(part, rest)[0, :3, :3]) < 0)
        if not mirrored:
            return part
        return replace(part, triangles=np.ascontiguousarray(part.triangles[:, [0, 2, 1]]))

    # -- skins ----------------------------------------------------------------------------------------------------

    def _make_groups(self) -> list[_SkinGroup]:
        by_skin: dict[int, list[int]] = defaultdict(list)
        for index, part in enumerate(self.parts):
            if part.skinned:
                by_skin[self.asset.nodes[part.node].skin].append(index)
        return [self._make_group(skin, indices) for skin, indices in by_skin.items()]

    def _make_group(self, skin: int, indices: list[int]) -> _SkinGroup:
        count = len(self.asset.skins[skin].joints)
        parts = [self.parts[i] for i in indices]
        starts = np.concatenate([[0], np.cumsum([part.num_vertices for part in parts])])
        positions = sparse.vstack([_binding(p, p.source.positions, count, 4) for p in parts], format="csr")
        normals = sparse.vstack([_binding(p, p.source.normals, count, 3) for p in parts], format="csr")
        morphs = []
        for k, part in enumerate(parts):
            for target, deltas in enumerate(part.source.targets):
                bends = part.source.target_normals[target]
                morphs.append((
                    k, target, _binding(part, deltas, count, 4, homogeneous=0.0),
                    None if bends is None or part.source.normals is None else _binding(part, bends, count, 3),
                ))  # fmt: skip
        return _SkinGroup(skin, indices, starts, positions, normals, morphs)

    def _pose_skinned(
        self, out, frames: slice, matrices: np.ndarray, weights: dict[int, np.ndarray], *, normals: bool
    ) -> None:
        for group in self._groups:
            joints = self._joint_matrices(group.skin, matrices)
            width = 3 if normals else 4
            stacked = joints[..., :width].transpose(1, 3, 0, 2)  # (J, width, F, 3)
            count = stacked.shape[2]
            dense = np.ascontiguousarray(stacked).reshape(-1, 3 * count)
            binding = group.normals if normals else group.positions
            posed = (binding @ dense).reshape(-1, count, 3)
            for k, target, deltas, bends in group.morphs:
                extra = bends if normals else deltas
                strength = weights[self.parts[group.parts[k]].node][:, target]
                if extra is not None and strength.any():
                    scaled = (stacked * strength[:, None]).reshape(-1, 3 * count)
                    posed[group.starts[k] : group.starts[k + 1]] += (extra @ scaled).reshape(-1, count, 3)
            for k, index in enumerate(group.parts):
                if out[index] is not None:
                    block = posed[group.starts[k] : group.starts[k + 1]].swapaxes(0, 1)
                    out[index][frames] = _unit(block) if normals else block


def _hierarchy(asset: Asset) -> tuple[list[int], list[tuple[np.ndarray, np.ndarray]], dict[int, int]]:
    """The nodes that posing needs, level by level below the roots as (slots, parents' slots), and node -> slot."""
    wanted: set[int] = set()
    stack = [*asset.shown]
    stack += [int(j) for i in asset.shown if asset.nodes[i].skin >= 0 for j in asset.skins[asset.nodes[i].skin].joints]
    while stack:
        index = stack.pop()
        if index >= 0 and index not in wanted:
            wanted.add(index)
            stack.append(asset.nodes[index].parent)
    needed: list[int] = []
    slot: dict[int, int] = {}
    levels = []
    level = sorted(i for i in wanted if asset.nodes[i].parent < 0)
    while level:
        for index in level:
            slot[index] = len(needed)
            needed.append(index)
        if asset.nodes[level[0]].parent >= 0:
            levels.append((np.array([slot[i] for i in level]), np.array([slot[asset.nodes[i].parent] for i in level])))
        level = [child for i in level for child in asset.nodes[i].children if child in wanted]
    return needed, levels, slot


def _compact(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that proper triangles use, and the triangles renumbered to them."""
    a, b, c = triangles.T
    proper = triangles[(a != b) & (b != c) & (c != a)]
    vertex_ids, inverse = np.unique(proper, return_inverse=True)
    return vertex_ids.astype(np.int64), inverse.reshape(-1, 3).astype(np.int32)


def _binding(
    part: Part, vectors: np.ndarray | None, joints: int, width: int, homogeneous: float = 1.0
) -> sparse.csr_matrix:
    """(num_vertices, width * joints): weight * vector at the columns of each joint; rows that are zero cost nothing."""
    shape = (part.num_vertices, width * joints)
    if vectors is None:
        return sparse.csr_matrix(shape)
    rows = vectors[part.vertex_ids].astype(np.float64)
    if width == 4:
        rows = np.concatenate([rows, np.full((len(rows), 1), homogeneous)], axis=1)
    values = part.source.weights[part.vertex_ids].astype(np.float64)[:, :, None] * rows[:, None, :]
    columns = part.source.joints[part.vertex_ids][:, :, None] * width + np.arange(width)
    keep = values != 0
    row_of = np.broadcast_to(np.arange(len(rows))[:, None, None], values.shape)
    return sparse.csr_matrix((values[keep], (row_of[keep], columns[keep])), shape)


def _morphed(part: Part, weights: np.ndarray | None, base: np.ndarray, targets) -> np.ndarray:
    """(F or 1, num_vertices, 3) float64: the base plus weighted displacements."""
    points = base[part.vertex_ids].astype(np.float64)[None]
    if weights is None:
        return points
    for target, strength in zip(targets, weights.T, strict=True):
        if target is not None and strength.any():
            points = points + strength[:, None, None] * target[part.vertex_ids].astype(np.float64)
    return points


def _inverse_transpose(linear: np.ndarray) -> np.ndarray:
    """(..., 3, 3) that turns normals, up to a positive factor; the cofactors exist also for flattening matrices."""
    a, b, c = np.moveaxis(linear, -1, 0)
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-1)
    sign = np.where(np.sum(a * np.cross(b, c), axis=-1) < 0, -1.0, 1.0)
    return cofactors * sign[..., None, None]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scaled to length 1; what has no direction becomes +z."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / largest
    unit = scaled / np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    return np.where(np.isfinite(unit).all(axis=-1, keepdims=True), unit, [0.0, 0.0, 1.0])
