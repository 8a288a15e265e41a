"""A cube that slides, as a file, and shots of it: the smallest known motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from animate.config import SubjectConfig
from animate.shot import Shot, intrinsics_of
from animate.subject.mesh import RestMesh, open_mesh
from manifests.cameras import look_at_origin
from manifests.gltf import GlbWriter

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip
STEP = (1.0, 0.5, 0.25)
"""How far it slides in a second, in glTF's axes."""
START_S, END_S = 0.5, 1.5


def write_sliding_cube(path: Path) -> Path:
    """A red cube; animation "slide" goes by `STEP` from 0.5 s to 1.5 s, "stay" turns it a little."""
    writer = GlbWriter()
    red = writer.add_material({"pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.1, 0.1, 1]}, "doubleSided": True})
    mesh = writer.add_mesh("cube", [{"positions": CUBE, "triangles": FACES, "material": red}])
    node = writer.add_node("cube", mesh=mesh)
    slide = {"node": node, "path": "translation", "times": [START_S, END_S], "values": [[0, 0, 0], list(STEP)]}
    writer.add_animation("slide", [slide])
    turn = {"node": node, "path": "rotation", "times": [0, 1], "values": [[0, 0, 0, 1], [0, 0.6, 0, 0.8]]}
    writer.add_animation("stay", [turn])
    path.write_bytes(writer.to_bytes())
    return path


def rest_of(path: Path, pose: str = "bind") -> RestMesh:
    """The subject: the same file at rest."""
    return open_mesh(path, pose=pose, config=SubjectConfig(radius=0.3))


def box_of(mesh: RestMesh) -> np.ndarray:
    """(2, 3) corners, normalised."""
    return np.stack([mesh.vertices.min(0), mesh.vertices.max(0)])


def shot_of(
    times_s: list[float],
    *,
    views: int = 2,
    size: int = 16,
    prompt: str = "a red cube slides",
    first: torch.Tensor | None = None,
    background: tuple[float, float, float] = (0.5, 0.5, 0.5),
    elevation_deg: float = 15.0,
) -> Shot:
    """Evenly spaced cameras at distance 1.5."""
    poses = [look_at_origin(360 * k / views, elevation_deg, 1.5) for k in range(views)]
    return Shot(
        prompt=prompt,
        c2w=torch.from_numpy(np.stack(poses)).float(),
        K=intrinsics_of(torch.full((views,), 40.0), size),
        size=size,
        first=torch.full((views, 3, size, size), 0.5) if first is None else first,
        times_s=torch.tensor(times_s, dtype=torch.float64),
        background=background,
    )
