"""`static_glb`: one pose of an asset as a plain GLB, the only thing of an asset that Blender ever reads.

Holds flat, unparented, unanimated parts with checked materials and embedded images. Nothing of the user's file passes
through unread: no nodes, names, extensions, external files or JSON of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from manifests.gltf.materials import texture_infos
from manifests.gltf.pose import Poser, from_z_up
from manifests.gltf.scene import Asset
from manifests.gltf.write import GlbWriter

__all__ = ["part_name", "static_glb"]


def part_name(index: int) -> str:
    """Name of part `index` in the static GLB, of its node and of its mesh."""
    return f"part{index:05d}"


def static_glb(
    poser: Poser, positions: Sequence[np.ndarray], normals: Sequence[np.ndarray | None] | None = None
) -> bytes:
    """A GLB of given positions, with the asset's surface.

    Args:
        poser: names the parts, their triangles, colours, texture coordinates and materials.
        positions: (num_vertices, 3) for each part, z up (in the world or in normalised space).
        normals: (num_vertices, 3) or None for each part, z up, unit length; None for flat shading throughout.

    Returns:
        GLB bytes, the same for the same input. Node and mesh i are named ``part00000`` + i; vertices keep the parts'
        order.
    """
    asset = poser.asset
    writer = GlbWriter()
    textures: dict[int, int] = {}
    materials: dict[int, int] = {}
    images: dict[int, int] = {}
    for index, part in enumerate(poser.parts):
        source, rows = part.source, part.vertex_ids
        if source.material >= 0 and source.material not in materials:
            materials[source.material] = _add_material(writer, asset, source.material, textures, images)
        normal = None if normals is None else normals[index]
        mesh = writer.add_mesh(
            part_name(index),
            [
                {
                    "positions": from_z_up(np.asarray(positions[index])),
                    "triangles": part.triangles,
                    "normals": None if normal is None else from_z_up(np.asarray(normal)),
                    "uvs": [uv[rows] for uv in source.uvs],
                    "colors": None if source.colors is None else source.colors[rows],
                    "material": materials.get(source.material),
                }
            ],
        )
        writer.add_node(part_name(index), mesh=mesh)
    return writer.to_bytes()


def _add_material(writer: GlbWriter, asset: Asset, index: int, textures: dict[int, int], images: dict[int, int]) -> int:
    material = copy.deepcopy(asset.materials[index])
    material["name"] = f"material{index:05d}"
    for info in texture_infos(material):
        original = info["index"]
        if original not in textures:
            texture = asset.textures[original]
            source = texture["source"]
            image = asset.images[source]
            assert image.data is not None, f"image {source} of material {index} was not read"
            if source not in images:
                images[source] = writer.add_image(image.data, image.mime, f"image{source:05d}")
            sampler = asset.samplers[texture["sampler"]] if texture["sampler"] >= 0 else None
            textures[original] = writer.add_texture(images[source], sampler)
        info["index"] = textures[original]
    return writer.add_material(material)
