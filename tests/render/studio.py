"""What the render tests share: tiny configs and assets, and a clip rendered through the real child process.

Parts are read back with `tarfile` and Pillow, not with the project's own readers.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from manifests.config import PRESETS, BuildConfig, to_dict
from manifests.gltf import GlbWriter
from pipelines.samples import planned_sample
from render.process import BlenderProcess
from tests.broken import CUBE, CUBE_TRIANGLES, png

__all__ = ["SHARED", "Clip", "ball", "block", "plan", "render", "still_life", "tiny", "write"]

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
"""Real assets beside the checkout; tests that want them skip where they are not."""

_count = itertools.count()


@dataclass(frozen=True)
class Clip:
    """A rendered clip: its JSON, the bytes of its parts by series, and their decoded images."""

    sample: dict[str, Any]
    parts: dict[str, bytes]
    rgba: np.ndarray
    """(V, F, H, W, 4) uint8."""
    depth: np.ndarray | None
    """(V, F, H, W) uint16 as stored."""
    normals: np.ndarray | None
    """(V, F, H, W, 3) uint8 as stored."""

    @property
    def alpha(self) -> np.ndarray:
        """(V, F, H, W)."""
        return self.rgba[..., 3]


def tiny(
    *, views: int = 2, frames: int = 3, fps: float = 4.0, size: int = 64, samples: int = 4, **motion: Any
) -> BuildConfig:
    """A small build; what is left over goes to its motion."""
    demo = PRESETS["demo"]
    return dataclasses.replace(
        demo,
        camera=dataclasses.replace(demo.camera, views=views, size=size),
        motion=dataclasses.replace(demo.motion, frames=frames, fps=fps, **motion),
        render=dataclasses.replace(demo.render, samples=samples),
    )


def plan(
    process: BlenderProcess, path: Path, config: BuildConfig, *, animation: int = 0, window: int = 0
) -> tuple[dict[str, Any], list]:
    """(sample, offsets) of an accepted clip."""
    probed = process.ask("probe", path=str(path), config=to_dict(config))
    entry = probed["animations"][animation]
    assert entry["status"] == "accepted", (entry["reason"], entry["detail"])
    clip = entry["clips"][window]
    assert clip["status"] == "accepted", (clip["reason"], clip["detail"])
    row = {
        "asset_id": "test-0123456789",
        "sha256": probed["sha256"],
        "source": path.name,
        "license": "",
        "attribution": "",
    }
    return planned_sample(row, entry, clip, config), clip["offsets"]


def render(
    process: BlenderProcess,
    path: Path,
    config: BuildConfig,
    folder: Path,
    *,
    planned: tuple[dict[str, Any], list] | None = None,
    animation: int = 0,
    window: int = 0,
    threads: int = 1,
    series: tuple[str, ...] = (),
) -> Clip:
    """Render one clip and read its parts."""
    sample, offsets = planned or plan(process, path, config, animation=animation, window=window)
    number = next(_count)
    out = {name: str(folder / f"{number}{name}.part") for name in ("", *series)}
    index = sample["animation"]["index"]
    process.ask(
        "render", path=str(path), sample=sample, source_animation=index, offsets=offsets, config=to_dict(config),
        out=out, threads=threads,
    )  # fmt: skip
    parts = {name: Path(target).read_bytes() for name, target in out.items()}
    shape = (len(sample["cameras"]["K"]), len(sample["times_s"]))
    members = {name: _members(data) for name, data in parts.items()}
    written = json.loads(next(data for name, data in members[""] if name.endswith(".json")))
    return Clip(
        sample=written,
        parts=parts,
        rgba=_images(members[""][1:], shape, "RGBA"),
        depth=_images(members["depth"], shape, None) if "depth" in members else None,
        normals=_images(members["normals"], shape, "RGB") if "normals" in members else None,
    )


def _members(part: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(part + bytes(1024)), mode="r:") as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]


def _images(members: list[tuple[str, bytes]], shape: tuple[int, int], mode: str | None) -> np.ndarray:
    assert len(members) == shape[0] * shape[1]
    images = [Image.open(io.BytesIO(data)) for _, data in members]
    arrays = [np.asarray(image if mode is None else image.convert(mode)) for image in images]
    return np.stack(arrays).reshape(*shape, *arrays[0].shape)


def write(path: Path, writer: GlbWriter) -> Path:
    """The asset as a GLB."""
    path.write_bytes(writer.to_bytes())
    return path


def ball(radius: float = 1.0, segments: int = 48, *, smooth: bool = True) -> dict[str, Any]:
    """A sphere as a primitive, y up."""
    rings = segments // 2
    theta = np.linspace(0, np.pi, rings + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None]
    normals = np.stack(np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)), -1)
    normals = normals.reshape(-1, 3)
    grid = np.arange(len(normals)).reshape(rings + 1, segments)
    a, b = grid[:-1], np.roll(grid, -1, 1)[:-1]
    c, d = grid[1:], np.roll(grid, -1, 1)[1:]
    upper, lower = np.stack([a, b, c], -1)[1:], np.stack([b, d, c], -1)[:-1]  # without the slivers at the poles
    triangles = np.concatenate([upper.reshape(-1, 3), lower.reshape(-1, 3)])
    primitive = {"positions": radius * normals, "triangles": triangles}
    return primitive | ({"normals": normals} if smooth else {})


def block(half: float = 1.0, at: tuple[float, float, float] = (0, 0, 0)) -> dict[str, Any]:
    """A cube as a primitive, flat-shaded, each face with its own vertices."""
    corners = CUBE.astype(np.float64)[CUBE_TRIANGLES.reshape(-1)]
    return {"positions": corners * half + np.array(at), "triangles": np.arange(len(corners)).reshape(-1, 3)}


def still_life() -> GlbWriter:
    """A textured ball that morphs, a glowing block that turns and a pane of coloured glass; three animations."""
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(png(16)))
    skin = writer.add_material(
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}, "roughnessFactor": 0.4}}
    )
    glow = writer.add_material({"emissiveFactor": [1, 0.6, 0.1], "extensions": {
        "KHR_materials_emissive_strength": {"emissiveStrength": 3.0}}})  # fmt: skip
    glass = writer.add_material({"alphaMode": "BLEND", "doubleSided": True, "pbrMetallicRoughness": {
        "baseColorFactor": [0.1, 0.4, 0.9, 0.35]}})  # fmt: skip
    sphere = ball(0.6, 24)
    normals = np.array(sphere["normals"])
    tall = sphere["positions"] * [0, 0.8, 0]
    bent = {"targets": [tall, normals * 0.3], "target_normals": [normals * [0, -0.5, 0], None]}
    ball_mesh = writer.add_mesh("ball", [{**sphere, **bent, "uvs": normals[:, :2] / 2 + 0.5, "material": skin}])
    block_mesh = writer.add_mesh("block", [{**block(0.25), "material": glow}])
    square = [[-0.7, -0.7, 0], [0.7, -0.7, 0], [0.7, 0.7, 0], [-0.7, 0.7, 0]]
    pane = {"positions": square, "triangles": [[0, 1, 2], [0, 2, 3]], "normals": [[0, 0, 1]] * 4, "material": glass}
    round_, cube = (
        writer.add_node("ball", mesh=ball_mesh),
        writer.add_node("block", mesh=block_mesh, translation=[1, 0, 0]),
    )
    sheet = writer.add_node("pane", mesh=writer.add_mesh("pane", [pane]), translation=[0.3, 0, 0.8])
    writer.add_node("all", children=[round_, cube, sheet])
    quarter = [0, 0.5**0.5, 0, 0.5**0.5]
    writer.add_animation("bend", [
        {"node": round_, "path": "weights", "times": [0, 1], "values": [[0, 0], [1, 0]]},
        {"node": cube, "path": "rotation", "times": [0, 1], "values": [[0, 0, 0, 1], quarter]},
    ])  # fmt: skip
    writer.add_animation("swell", [
        {"node": round_, "path": "weights", "times": [0, 1], "values": [[0.2, 0], [0, 1]]},
        {"node": cube, "path": "scale", "times": [0, 1], "values": [[1, 1, 1], [2, 0.5, 1]]},
    ])  # fmt: skip
    writer.add_animation("slide", [
        {"node": sheet, "path": "translation", "times": [0, 1], "values": [[0.3, 0, 0.8], [-0.5, 0.2, 0.8]]},
    ])  # fmt: skip
    return writer
