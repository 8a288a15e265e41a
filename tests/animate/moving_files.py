"""Meshes with a motion for the tests of what is written: real ones, and one with everything that is awkward."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from animate.config import SubjectConfig
from animate.subject.mesh import RestMesh, open_mesh
from manifests.gltf import GlbWriter
from tests.broken import CUBE, CUBE_TRIANGLES, png
from tests.manifests.gltf_samples import everything

__all__ = ["awkward_glb", "moving", "plain_glb", "quad_obj", "webp_glb"]


def moving(path: Path, name: str | None = None, *, frames: int = 5, up: str = "auto") -> tuple[RestMesh, list]:
    """A mesh and its world positions a frame: an animation of the file by name, or a swirl of our own."""
    times = np.arange(frames) / 8
    if name is None:
        mesh = open_mesh(path, config=SubjectConfig(up=up))
        angle = 0.7 * times[:, None] * (1 + mesh.vertices[:, 2])
        x, y, z = (np.broadcast_to(column, angle.shape) for column in mesh.vertices.T.astype(np.float64))
        moved = [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z + 0.1 * angle]
        vertices = np.stack(moved, axis=-1)
        vertices[0] = mesh.vertices
        return mesh, mesh.to_world(vertices)
    index = [animation.name for animation in open_mesh(path).asset.animations].index(name)
    mesh = open_mesh(path, pose=f"{index}@0")
    return mesh, mesh.to_world(mesh.posed(index, times))


def awkward_glb(path: Path) -> Path:
    """Skin, morphs, instances, mirrored nodes, several primitives, UV sets, colours, a moved texture."""
    path.write_bytes(everything())
    return path


def quad_obj(folder: Path) -> Path:
    """A textured cube as OBJ with a material library."""
    corners = ["v " + " ".join(f"{x:g}" for x in corner) for corner in CUBE]
    faces = [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in CUBE_TRIANGLES]
    lines = ["mtllib c.mtl", *corners, "vt 0 0", "vt 1 0", "vt 0 1", "usemtl m", *faces]
    (folder / "c.obj").write_text("\n".join(lines) + "\n")
    (folder / "c.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd c.png\n")
    (folder / "c.png").write_bytes(png())
    return folder / "c.obj"


def plain_glb(path: Path) -> Path:
    """One cube with neither normals, UVs nor a material."""
    writer = GlbWriter()
    writer.add_node("n", mesh=writer.add_mesh("m", [{"positions": CUBE, "triangles": CUBE_TRIANGLES}]))
    path.write_bytes(writer.to_bytes())
    return path


def webp_glb(path: Path) -> Path:
    """A cube with a WebP texture, vertex colours and half transparency."""
    out = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(out, "WEBP", lossless=True)
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(out.getvalue(), "image/webp"), {"wrapS": 33648, "wrapT": 33071})
    base = {"baseColorTexture": {"index": texture}, "baseColorFactor": [0.5, 1, 1, 0.5]}
    material = writer.add_material({"pbrMetallicRoughness": base, "alphaMode": "BLEND", "doubleSided": True})
    cube = {"positions": CUBE, "triangles": CUBE_TRIANGLES, "uvs": CUBE[:, :2], "material": material}
    writer.add_node("n", mesh=writer.add_mesh("m", [cube]))
    path.write_bytes(writer.to_bytes())
    return path
