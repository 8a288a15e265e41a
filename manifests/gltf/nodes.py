"""The node tree and the default scene, walked without recursion.

Checks that the nodes form a forest no deeper than the limit; does not read meshes or skins. Facts: glTF 2.0
specification, section 3.5; EXT_mesh_gpu_instancing.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import Rejected
from manifests.gltf.accessors import Accessors
from manifests.gltf.fields import Fields
from manifests.gltf.limits import Limits
from manifests.gltf.scene import Node

__all__ = ["compose", "decompose", "read_nodes", "read_order", "unit_quaternions"]

INSTANCING = {"TRANSLATION": 3, "ROTATION": 4, "SCALE": 3}


def read_nodes(document: Fields, accessors: Accessors, limits: Limits) -> tuple[Node, ...]:
    """All nodes of the file.

    Raises:
        Rejected: too-large, node-cycle, node-too-deep, bad-structure, non-finite.
    """
    raw = document.array("nodes")
    if len(raw) > limits.nodes:
        raise Rejected("too-large", f"nodes: found {len(raw)}, expected at most {limits.nodes}")
    fields = document.objects("nodes")
    children = [tuple(node.indices("children", len(fields))) for node in fields]
    parents = _parents(children)
    _check_forest(children, parents, limits.depth)
    return tuple(_node(f, parents[i], children[i], document, accessors) for i, f in enumerate(fields))


def _parents(children: list[tuple[int, ...]]) -> list[int]:
    parents = [-1] * len(children)
    for parent, own in enumerate(children):
        for child in own:
            if parents[child] != -1:
                raise Rejected(
                    "node-cycle",
                    f"nodes[{child}]: found the parents {parents[child]} and {parent}, expected at most one",
                )
            parents[child] = parent
    return parents


def _check_forest(children: list[tuple[int, ...]], parents: list[int], limit: int) -> None:
    level = [i for i, parent in enumerate(parents) if parent == -1]
    seen, depth = 0, 0
    while level:
        depth += 1
        if depth > limit:
            raise Rejected("node-too-deep", f"nodes[{level[0]}]: found depth {depth}, expected at most {limit}")
        seen += len(level)
        level = [child for node in level for child in children[node]]
    if seen < len(parents):  # one parent each and not below a root: they can only go round in circles
        raise Rejected("node-cycle", f"nodes: found {len(parents) - seen} that are their own ancestors, expected trees")


def _node(fields: Fields, parent: int, children: tuple[int, ...], document: Fields, accessors: Accessors) -> Node:
    columns = fields.numbers("matrix", 16)
    translation, rotation = fields.numbers("translation", 3), fields.numbers("rotation", 4)
    scale = fields.numbers("scale", 3)
    if columns is not None:
        matrix = columns.reshape(4, 4).T.copy()
        matrix[3] = (0, 0, 0, 1)
        translation, rotation, scale = decompose(matrix)
    weights = None
    if fields.has("weights"):
        weights = fields.numbers("weights", len(fields.array("weights")))
    return Node(
        name=fields.text("name"),
        parent=parent,
        children=children,
        translation=np.zeros(3) if translation is None else translation,
        rotation_xyzw=np.array([0.0, 0, 0, 1]) if rotation is None else unit_quaternions(rotation),
        scale=np.ones(3) if scale is None else scale,
        matrix=None if columns is None else matrix,
        mesh=fields.index("mesh", len(document.array("meshes")), -1),
        skin=fields.index("skin", len(document.array("skins")), -1),
        weights=weights,
        instances=_instances(fields, accessors),
    )


def _instances(fields: Fields, accessors: Accessors) -> np.ndarray | None:
    extension = fields.extension("EXT_mesh_gpu_instancing")
    if extension is None:
        return None
    attributes = extension.required("attributes")
    found = {
        key: accessors.read(attributes, key, types=(f"VEC{width}",), role="parts:instanced").astype(np.float64)
        for key, width in INSTANCING.items()
        if attributes.has(key)
    }
    counts = {len(array) for array in found.values()}
    if len(counts) != 1:
        raise Rejected("bad-structure", f"{attributes.where}: found counts {sorted(counts)}, expected one")
    count = counts.pop()
    return compose(
        found.get("TRANSLATION", np.zeros((count, 3))),
        unit_quaternions(found.get("ROTATION", np.tile([0.0, 0, 0, 1], (count, 1)))),
        found.get("SCALE", np.ones((count, 3))),
    )


def read_order(document: Fields, nodes: tuple[Node, ...]) -> tuple[int, ...]:
    """Nodes of the default scene (`scene`, else the first, else all trees), parents first."""
    scenes = document.array("scenes")
    if scenes:
        index = document.index("scene", len(scenes), 0)
        level = Fields(scenes[index], f"scenes[{index}]").indices("nodes", len(nodes))
    else:
        level = [i for i, node in enumerate(nodes) if node.parent == -1]
    order: dict[int, None] = {}
    while level:
        fresh = [i for i in dict.fromkeys(level) if i not in order]
        order.update(dict.fromkeys(fresh))
        level = [child for i in fresh for child in nodes[i].children]
    return tuple(order)


def unit_quaternions(quat_xyzw: np.ndarray) -> np.ndarray:
    """Quaternions (..., 4) scaled to unit length; the zero quaternion becomes the identity."""
    largest = np.abs(quat_xyzw).max(axis=-1, keepdims=True)
    scaled = quat_xyzw / np.where(largest > 0, largest, 1)  # squares of 1e-200 would be zero
    length = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    unit = scaled / np.where(length > 0, length, 1)
    unit[..., 3] = np.where(largest[..., 0] > 0, unit[..., 3], 1)
    return unit


def compose(translation: np.ndarray, quat_xyzw: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Matrices (..., 4, 4) of translation * rotation * scale, given (..., 3), unit (..., 4), (..., 3)."""
    x, y, z, w = np.moveaxis(quat_xyzw, -1, 0)
    matrix = np.zeros((*x.shape, 4, 4))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
    )
    matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2] = (
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
    )
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = (
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    )
    matrix[..., :3, :3] *= scale[..., None, :]
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1
    return matrix


def decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Translation (3,), unit quaternion xyzw (4,) and scale (3,) of one (4, 4) matrix; shear is lost."""
    linear = matrix[:3, :3]
    with np.errstate(all="ignore"):
        scale = np.linalg.norm(linear, axis=0)
        scale = np.where(np.isfinite(scale), scale, 0.0)
        if np.linalg.det(linear) < 0:
            scale = scale * [-1, 1, 1]
        rotation = linear / np.where(scale == 0, 1, scale)
    rotation = np.where(scale == 0, np.eye(3), rotation)
    return matrix[:3, 3].copy(), _quaternion(rotation), scale


def _quaternion(r: np.ndarray) -> np.ndarray:
    """The eigenvector of Bar-Itzhack's symmetric matrix: stable for every rotation, also slightly sheared ones."""
    k = np.array([
        [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
        [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
        [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
    ])  # fmt: skip
    if not np.isfinite(k).all():
        return np.array([0.0, 0, 0, 1])
    return np.linalg.eigh(k)[1][:, -1]
