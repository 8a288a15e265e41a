"""`animated_glb`: the input's vertices, faces and surface with a motion, as a GLB that plays in any viewer.

One morph target a frame with linear weights, so that at most two are at work at any time, far within what the least
viewer has to offer. Frame 0 is the mesh itself and needs no target. Like `manifests.gltf.static` it writes anew what
was read and checked, and images as they are; nothing of the input file passes through unread.
Facts: glTF 2.0 specification, sections 3.7.2.2 (morph targets) and 3.11 (animations).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from animate.subject.mesh import RestMesh
from manifests.gltf import Asset, GlbWriter, from_z_up, part_name
from manifests.gltf.materials import texture_infos

__all__ = ["animated_glb", "check_motion", "rest_normals"]


def animated_glb(
    mesh: RestMesh,
    world: Sequence[np.ndarray],
    times_s: Sequence[float] | np.ndarray,
    *,
    name: str = "animated",
    copyright: str | None = None,
) -> bytes:
    """The mesh with its motion.

    Positions are the input's own, in its units: those of a .glb or .gltf with its nodes applied, each part (a primitive
    at a node or instance) a node and mesh ``part00000`` and so on. glTF has y up; a mesh that was opened as having z up
    is turned upright. Normals are those at rest, since targets move positions alone.

    Args:
        mesh: the object at rest.
        world: (F, n, 3) for each part as `RestMesh.to_world` gives them: world, z up; frame 0 the object at rest.
        times_s: (F,) seconds, rising from 0 or later; the keys.
        name: of the animation.
        copyright: of the file; None keeps the input's.

    Returns:
        GLB bytes, the same for the same input.
    """
    times = np.asarray(times_s, np.float64)
    check_motion(mesh, world, times)
    writer = GlbWriter(copyright=mesh.asset.copyright if copyright is None else copyright)
    surface = _Surface(writer, mesh.asset)
    normals, weights = rest_normals(mesh), np.eye(len(times))[:, 1:]
    channels = []
    for index, (part, rest, moved) in enumerate(zip(mesh.poser.parts, mesh.part_positions, world, strict=True)):
        source, rows = part.source, part.vertex_ids
        base, normal = rest.astype(np.float64), normals[index]
        primitive = {
            "positions": from_z_up(base),
            "triangles": part.triangles,
            "normals": None if normal is None else from_z_up(normal),
            "uvs": [uv[rows] for uv in source.uvs],
            "colors": None if source.colors is None else source.colors[rows],
            "material": surface.material(source.material),
            "targets": [from_z_up(frame - base) for frame in moved[1:]],
        }
        added = writer.add_mesh(part_name(index), [primitive], weights=weights[0])
        node = writer.add_node(part_name(index), mesh=added)
        channels.append({"node": node, "path": "weights", "times": times, "values": weights})
    writer.add_animation(name, channels)
    return writer.to_bytes()


def rest_normals(mesh: RestMesh) -> list[np.ndarray | None]:
    """(n, 3) float32 of each part in the pose at rest, in the world, z up; None where the file has none."""
    posed = mesh.poser.normals(mesh.animation, np.array([mesh.time_s]))
    found = [None if normals is None else normals[0] for normals in posed]
    return [n if n is None or mesh.up == "y" else from_z_up(n) for n in found]


def check_motion(mesh: RestMesh, world: Sequence[np.ndarray], times: np.ndarray) -> None:
    """Stops on a motion that does not belong to the mesh: a mistake of ours, not the user's."""
    assert len(times) >= 2, f"{len(times)} frames, expected at least two"
    assert len(world) == len(mesh.part_positions), f"{len(world)} parts, expected {len(mesh.part_positions)}"
    size = mesh.diagonal / mesh.scale
    for index, (rest, moved) in enumerate(zip(mesh.part_positions, world, strict=True)):
        wanted = (len(times), *rest.shape)
        assert moved.shape == wanted, f"part {index} is {moved.shape}, expected {wanted}"
        assert np.isfinite(moved).all(), f"part {index} has positions that are not finite"
        away = float(np.abs(moved[0] - rest).max()) / size
        assert away < 1e-5, f"part {index} is {away:.1g} of the size away from rest in frame 0"


class _Surface:
    """Copies materials with their textures and images, each once."""

    def __init__(self, writer: GlbWriter, asset: Asset) -> None:
        self.writer, self.asset = writer, asset
        self.materials: dict[int, int] = {}
        self.textures: dict[int, int] = {}
        self.images: dict[int, int] = {}

    def material(self, index: int) -> int | None:
        """Its index in the new file; None for -1, glTF's default."""
        if index >= 0 and index not in self.materials:
            material = copy.deepcopy(self.asset.materials[index])
            for info in texture_infos(material):
                info["index"] = self._texture(info["index"])
            self.materials[index] = self.writer.add_material(material | {"name": f"material{index:05d}"})
        return self.materials.get(index)

    def _texture(self, index: int) -> int:
        if index not in self.textures:
            texture = self.asset.textures[index]
            source, sampler = texture["source"], texture["sampler"]
            if source not in self.images:
                image = self.asset.images[source]
                assert image.data is not None, f"image {source} was not read"
                self.images[source] = self.writer.add_image(image.data, image.mime, f"image{source:05d}")
            wrap = self.asset.samplers[sampler] if sampler >= 0 else None
            self.textures[index] = self.writer.add_texture(self.images[source], wrap)
        return self.textures[index]
