"""Small glTF files that tests share, built with the writer or by hand."""

from __future__ import annotations

import numpy as np

from manifests.gltf import GlbWriter
from tests.broken import CUBE, CUBE_TRIANGLES, patched, png

__all__ = ["everything"]


def everything() -> bytes:
    """A GLB that uses each feature once: skin, morphs, hierarchy, all interpolations, instances, textures, sparse."""
    rng = np.random.default_rng(0)
    writer = GlbWriter(copyright="CC0")
    texture = writer.add_texture(writer.add_image(png(), "image/png", "t"), {"magFilter": 9729, "wrapS": 33071})
    transform = {"KHR_texture_transform": {"offset": [0.5, 0.0], "rotation": 0.1, "scale": [2.0, 2.0]}}
    material = writer.add_material({
        "name": "m", "alphaMode": "MASK", "alphaCutoff": 0.4, "doubleSided": True, "emissiveFactor": [0.1, 0, 0],
        "pbrMetallicRoughness": {"baseColorFactor": [1, 0.5, 0, 1], "baseColorTexture": {
            "index": texture, "texCoord": 1, "extensions": transform}},
        "normalTexture": {"index": texture, "scale": 0.5},
        "extensions": {"KHR_materials_clearcoat": {"clearcoatFactor": 0.5, "clearcoatTexture": {"index": texture}}},
    })  # fmt: skip
    cube = {"positions": CUBE, "triangles": CUBE_TRIANGLES, "normals": CUBE, "uvs": [CUBE[:, :2], CUBE[:, 1:]]}
    weights = rng.random((8, 4)).astype(np.float32)
    skinned = {**cube, "joints": rng.integers(0, 2, (8, 4)), "weights": weights, "colors": rng.random((8, 4))}
    targets = {"targets": [CUBE * 0.5, CUBE * 0.25], "target_normals": [CUBE * 0.1, None], "material": material}
    first = writer.add_mesh("skinned", [{**skinned, **targets}], weights=[0.0, 0.5])
    second = writer.add_mesh("plain", [cube, {**cube, "material": material}])
    joint = writer.add_node("joint", translation=[0, 1, 0])
    root = writer.add_node("root", children=[joint], rotation_xyzw=[0, 0, 0, 1])
    inverse = np.tile(np.eye(4), (2, 1, 1))
    skin = writer.add_skin([root, joint], inverse)
    shown = writer.add_node("shown", mesh=first, skin=skin, weights=[0.1, 0.2])
    leaf = writer.add_node("leaf", mesh=second, scale=[1, -1, 2])
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, 3)
    writer.add_node("top", matrix=matrix, children=[leaf, shown])
    steps = [[0, 0, 0], [1, 1, 1]]
    turns = [[0, 0, 0, 1], [0, 0.6, 0, 0.8], [0, 1, 0, 0]]
    writer.add_animation("a", [
        {"node": joint, "path": "rotation", "times": [0, 1, 2], "values": turns},
        {"node": leaf, "path": "translation", "times": [0, 2], "values": steps, "interpolation": "STEP"},
        {"node": shown, "path": "weights", "times": [0, 1], "values": [[0, 0], [1, 1]]},
    ])  # fmt: skip
    spline = rng.normal(size=(2, 3, 3))
    writer.add_animation("b", [
        {"node": root, "path": "scale", "times": [0.5, 1], "values": spline, "interpolation": "CUBICSPLINE"},
    ])  # fmt: skip
    return patched(writer.to_bytes(), _by_hand)


def _by_hand(document: dict) -> None:
    """What the writer has no call for: GPU instances and a sparse accessor."""
    leaf = next(node for node in document["nodes"] if node.get("name") == "leaf")
    plain = document["meshes"][1]["primitives"][0]
    position = plain["attributes"]["POSITION"]
    leaf["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": position, "SCALE": position}}}
    indices = document["accessors"][plain["indices"]]["bufferView"]
    values = document["accessors"][position]["bufferView"]
    document["accessors"].append({
        "componentType": 5126, "count": 8, "type": "VEC3", "sparse": {
            "count": 1, "indices": {"bufferView": indices, "componentType": 5123}, "values": {"bufferView": values}},
    })  # fmt: skip
    target = document["meshes"][0]["primitives"][0]["targets"][0]
    target["POSITION"] = len(document["accessors"]) - 1
    document["extensionsUsed"] = [*document.get("extensionsUsed", []), "EXT_mesh_gpu_instancing"]
