"""Meshes as triangle lists: attributes, indices, strips and fans, morph targets, skin influences.

Only meshes that the default scene shows are read. Points and lines have no surface and are left out. Facts: glTF 2.0
specification, section 3.7; KHR_mesh_quantization; KHR_draco_mesh_compression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manifests.errors import Rejected
from manifests.gltf import draco
from manifests.gltf.accessors import Accessors
from manifests.gltf.fields import Fields
from manifests.gltf.limits import Budget
from manifests.gltf.scene import Mesh, Primitive

__all__ = ["MAX_UV_SETS", "read_mesh"]

MAX_UV_SETS = 8
MAX_INFLUENCE_SETS = 4
TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 4, 5, 6


@dataclass(frozen=True)
class _Source:
    """One primitive's attributes, whichever way they are stored."""

    fields: Fields
    attributes: Fields
    accessors: Accessors
    decoded: dict[str, np.ndarray]

    def read(self, key: str, types: tuple[str, ...], *, count: int = -1, integer: bool = False) -> np.ndarray | None:
        """The attribute as an array, checked to have `count` rows; None where absent."""
        if not self.attributes.has(key):
            return None
        if key in self.decoded:
            array = self.decoded[key]
            if f"VEC{array.shape[1]}" not in types or (integer and array.dtype.kind not in "iu"):
                raise Rejected(
                    "draco-corrupt", f"{self.attributes.at(key)}: found {array.dtype} {array.shape} in Draco data"
                )
            if not np.isfinite(array).all():
                raise Rejected("non-finite", f"{self.attributes.at(key)}: found NaN in Draco data, expected numbers")
        else:
            array = self.accessors.read(self.attributes, key, types=types, role=f"vertices:{key}", integer=integer)
        if count >= 0 and len(array) != count:
            raise Rejected("bad-structure", f"{self.attributes.at(key)}: found {len(array)} elements, expected {count}")
        return array


def read_mesh(fields: Fields, accessors: Accessors, budget: Budget, materials: int) -> Mesh:
    """One mesh; primitives without a surface are left out.

    Raises:
        Rejected: as `Accessors.read`, or bad-structure where counts contradict each other.
    """
    primitives = []
    for source in fields.objects("primitives"):
        budget.charge("parts:read", 1, source.where)
        primitive = _read_primitive(source, accessors, budget, materials)
        if primitive is not None:
            primitives.append(primitive)
    counts = {len(primitive.targets) for primitive in primitives}
    if len(counts) > 1:
        raise Rejected(
            "bad-structure", f"{fields.where}: found {sorted(counts)} morph targets, expected the same in all"
        )
    count = counts.pop() if counts else 0
    weights = np.zeros(count)
    if count and fields.has("weights"):
        weights = fields.numbers("weights", count)
    return Mesh(fields.text("name"), tuple(primitives), weights)


def _read_primitive(fields: Fields, accessors: Accessors, budget: Budget, materials: int) -> Primitive | None:
    mode = fields.integer("mode", TRIANGLES, high=6)
    attributes = fields.required("attributes")
    if mode < TRIANGLES or not attributes.has("POSITION"):
        return None
    triangles, decoded = _decode_draco(fields, attributes, accessors, budget)
    source = _Source(fields, attributes, accessors, decoded)
    positions = source.read("POSITION", ("VEC3",))
    count = len(positions)
    if triangles is None:
        triangles = _triangles(fields, accessors, budget, mode, count)
    if not len(triangles):
        return None
    uvs = []
    while len(uvs) < MAX_UV_SETS and (uv := source.read(f"TEXCOORD_{len(uvs)}", ("VEC2",), count=count)) is not None:
        uvs.append(uv)
    joints, weights = _influences(source, count)
    targets, target_normals = _targets(fields, accessors, budget, count)
    return Primitive(
        positions=positions,
        triangles=triangles,
        normals=source.read("NORMAL", ("VEC3",), count=count),
        uvs=tuple(uvs),
        colors=_colors(source.read("COLOR_0", ("VEC3", "VEC4"), count=count)),
        joints=joints,
        weights=weights,
        targets=targets,
        target_normals=target_normals,
        material=fields.index("material", materials, -1),
    )


def _triangles(fields: Fields, accessors: Accessors, budget: Budget, mode: int, count: int) -> np.ndarray:
    """(T, 3) int32 from indices or, without them, from the order of the vertices."""
    if fields.has("indices"):
        indices = accessors.read(fields, "indices", types=("SCALAR",), role="indices", integer=True)
        if indices.max() >= count:
            raise Rejected(
                "bad-structure", f"{fields.at('indices')}: found index {indices.max()}, expected below {count}"
            )
        indices = indices.astype(np.int32)
    else:
        indices = np.arange(count, dtype=np.int32)
    budget.charge("triangles", len(indices) // 3 if mode == TRIANGLES else len(indices), fields.where)
    if mode == TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int32)
    i = np.arange(len(indices) - 2)
    if mode == TRIANGLE_STRIP:  # every second triangle is turned, so that all face the same way
        return np.stack([indices[i], indices[i + 1 + i % 2], indices[i + 2 - i % 2]], axis=1)
    return np.stack([indices[i + 1], indices[i + 2], np.broadcast_to(indices[0], i.shape)], axis=1)


def _influences(source: _Source, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    joints, weights = [], []
    for i in range(MAX_INFLUENCE_SETS):
        joint = source.read(f"JOINTS_{i}", ("VEC4",), count=count, integer=True)
        weight = source.read(f"WEIGHTS_{i}", ("VEC4",), count=count)
        if joint is None or weight is None:
            break
        joints.append(joint.astype(np.int32))
        weights.append(weight)
    if not joints:
        return None, None
    joint, weight = np.concatenate(joints, axis=1), np.maximum(np.concatenate(weights, axis=1), np.float32(0))
    total = weight.sum(axis=1, keepdims=True, dtype=np.float64)
    # A vertex that nothing holds would fall to the origin; like most viewers, its first joint takes it.
    weight = np.where(total > 0, weight / np.where(total > 0, total, 1), np.eye(1, weight.shape[1]))
    return np.where(weight > 0, joint, 0).astype(np.int32), weight.astype(np.float32)


def _targets(
    fields: Fields, accessors: Accessors, budget: Budget, count: int
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    positions, normals = [], []
    for target in fields.objects("targets"):
        budget.charge("morph_targets", 1, target.where)
        found: dict[str, np.ndarray | None] = {"POSITION": None, "NORMAL": None}
        for key in found:
            if target.has(key):
                found[key] = accessors.read(target, key, types=("VEC3",), role=f"morph_vertices:{key}")
                if len(found[key]) != count:
                    raise Rejected("bad-structure", f"{target.at(key)}: found {len(found[key])}, expected {count}")
        still = np.broadcast_to(np.zeros(3, np.float32), (count, 3))  # a view: costs nothing however often
        positions.append(still if found["POSITION"] is None else found["POSITION"])
        normals.append(found["NORMAL"])
    return tuple(positions), tuple(normals)


def _colors(colors: np.ndarray | None) -> np.ndarray | None:
    if colors is None or colors.shape[1] == 4:
        return colors
    return np.concatenate([colors, np.ones((len(colors), 1), np.float32)], axis=1)


def _decode_draco(
    fields: Fields, attributes: Fields, accessors: Accessors, budget: Budget
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Triangles and attributes of a Draco-compressed primitive, (None, {}) where it is not compressed."""
    extension = fields.extension("KHR_draco_mesh_compression")
    if extension is None:
        return None, {}
    position = accessors.fields(attributes.index("POSITION", len(accessors)))
    vertices = position.integer("count", low=1)
    budget.charge("vertices:POSITION", vertices, position.where)
    indices = accessors.fields(fields.index("indices", len(accessors)))
    triangles = indices.integer("count", low=3) // 3
    budget.charge("triangles", triangles, indices.where)
    data = bytes(accessors.view(extension, "bufferView"))
    faces, by_id = draco.decode(data, vertices=vertices, triangles=triangles, where=extension.where)
    decoded = {}
    names = extension.required("attributes")
    for name in names.raw:
        unique_id = names.integer(name)
        if unique_id not in by_id:
            raise Rejected("draco-corrupt", f"{names.at(name)}: found id {unique_id}, expected one of {sorted(by_id)}")
        if attributes.has(name):
            accessor = accessors.fields(attributes.index(name, len(accessors)))
            decoded[name] = _as_promised(by_id[unique_id], accessor, name)
    if "POSITION" not in decoded:
        raise names.wrong("POSITION", "an attribute id")
    return faces.astype(np.int32), decoded


def _as_promised(array: np.ndarray, accessor: Fields, name: str) -> np.ndarray:
    """Draco's values in the type that the accessor promises: normalised integers become numbers."""
    if name.startswith("JOINTS_"):
        return array
    if array.dtype.kind in "iu" and accessor.boolean("normalized"):
        return np.maximum(array / np.float32(np.iinfo(array.dtype).max), -1).astype(np.float32)
    return array.astype(np.float32)
