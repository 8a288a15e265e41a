"""Child process: renders one pose with `render.scene` in several ways, and lets Blender write and read its own files.

``python blender_scene.py ASSET FOLDER``. Writes FOLDER/result.npz:
``cropped``, ``full``: (V, H, W, 4) uint8 with the box of the projected vertices and without any;
``cropped_depth``, ``full_depth``, ``cropped_normals``, ``full_normals``: the same of `Scene.geometry`;
``png``: (V, H, W, 4) uint8, Blender's own 8-bit PNG of the full frame with view transform Standard;
``linear``, ``blender``: (V, H, W, 4) float32 of the render as our reader and as Blender's loader read it;
``noise``, ``noise_read``: a float image that Blender saved, as it was and as our reader reads it.
"""

import dataclasses
import sys
from pathlib import Path

import bpy
import numpy as np
from PIL import Image

import render.scene as scenes
from manifests.cameras import intrinsics, look_at_origin
from manifests.config import PRESETS
from manifests.gltf import Poser, read
from manifests.rigs import light_rig
from render.exr import read_exr

SIZE = 48
VIEWS = ((300.0, 20.0), (75.0, -10.0))
SEED = 12345


def pixels_of(path: Path) -> np.ndarray:
    """(H, W, 4) float32 as Blender's loader has it, first row on top."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    image.alpha_mode = "CHANNEL_PACKED"
    width, height = image.size
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return values.reshape(height, width, 4)[::-1]


def render_full(scene: bpy.types.Scene, folder: Path) -> dict[str, np.ndarray]:
    """The last image again without a border, through Blender's own writers."""
    scene.render.use_border = False
    settings = scene.render.image_settings
    before = settings.file_format
    scene.render.filepath = str(folder / "full.exr")
    bpy.ops.render.render(write_still=True)
    result = bpy.data.images["Render Result"]
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
    result.save_render(str(folder / "full.png"), scene=scene)
    settings.file_format, settings.color_depth, settings.exr_codec = "OPEN_EXR", "32", "NONE"
    result.save_render(str(folder / "single.exr"), scene=scene)
    settings.file_format = before
    scene.render.use_border = True
    channels = read_exr(folder / "full.exr")
    found = {"linear": np.stack([channels[f"View Layer.Combined.{c}"] for c in "RGBA"], -1)}
    found["blender"] = pixels_of(folder / "single.exr")
    found["png"] = np.asarray(Image.open(folder / "full.png"))
    return found


def noise(folder: Path) -> dict[str, np.ndarray]:
    """A float image with values far outside 0..1, saved by Blender."""
    image = bpy.data.images.new("noise", 7, 5, alpha=True, float_buffer=True)
    values = np.random.default_rng(0).normal(scale=100, size=(5, 7, 4)).astype(np.float32)
    values[..., 3] = 1.0  # Blender multiplies by alpha when it writes
    image.pixels.foreach_set(np.ascontiguousarray(values[::-1]).ravel())
    settings = bpy.context.scene.render.image_settings
    settings.file_format, settings.color_depth, settings.exr_codec = "OPEN_EXR", "32", "NONE"
    image.save_render(str(folder / "noise.exr"), scene=bpy.context.scene)
    channels = read_exr(folder / "noise.exr")
    return {"noise": values, "noise_read": np.stack([channels[c] for c in "RGBA"], -1)}


def main() -> None:
    asset, folder = Path(sys.argv[1]), Path(sys.argv[2])
    poser = Poser(read(asset))
    time = np.array([0.3])
    points = [part[0] for part in poser.positions(0, time)]
    every = np.concatenate(points)
    center = (every.max(0) + every.min(0)) / 2
    scale = 0.5 / np.linalg.norm(every - center, axis=1).max()
    points = [((part - center) * scale).astype(np.float32) for part in points]
    normals = [None if part is None else part[0] for part in poser.normals(0, time)]
    config = dataclasses.replace(PRESETS["demo"].render, samples=8, denoise=False)
    scene = scenes.Scene(poser, points, normals, config, threads=1, folder=folder)
    scene.light(*light_rig("studio-1", 270.0))
    K = intrinsics(40.0, SIZE, SIZE)
    out: dict[str, list] = {}
    margin = scenes._MARGIN_PX
    for azimuth, elevation in VIEWS:
        camera = look_at_origin(azimuth, elevation, 2.2)
        for name, around in (("cropped", margin), ("full", 10**6)):
            scenes._MARGIN_PX = around
            depth, normal = scene.geometry(camera, K, SIZE, SIZE)
            out.setdefault(name, []).append(scene.image(camera, K, SIZE, SIZE, SEED))
            out.setdefault(f"{name}_depth", []).append(depth)
            out.setdefault(f"{name}_normals", []).append(normal)
        for name, value in render_full(bpy.context.scene, folder).items():
            out.setdefault(name, []).append(value)
    np.savez(folder / "result.npz", **{k: np.array(v) for k, v in out.items()}, **noise(folder))


if __name__ == "__main__":
    main()
