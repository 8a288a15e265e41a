"""The one class that owns Blender: a posed surface in normalised space, lights, a camera, and an image of it.

Blender gets a static GLB that `manifests.gltf` wrote, never the user's file, and the posed vertices of each frame.
So its importer's rules about fps, actions, slots, bone shapes and poses left over from another clip do not come into
play. Runs only inside the child process (`render.child`); facts: Blender 4.5 LTS, Cycles.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector

from manifests.cameras import project
from manifests.config import RenderConfig
from manifests.gltf import Poser, part_name, static_glb
from render.exr import read_exr

__all__ = ["Scene", "bpy_version", "to_srgb"]

_MARGIN_PX = 3
"""Around the projected vertices: more than half of the widest default pixel filter."""
_DEPTH, _NORMAL = "View Layer.Depth.Z", "View Layer.Normal."


def bpy_version() -> str:
    """What is recorded of Blender: version and build."""
    return f"{bpy.app.version_string} {bpy.app.build_hash.decode()}"


class Scene:
    """A surface that Blender holds, to be posed and seen.

    Args:
        poser: the asset.
        positions: (num_vertices, 3) for each part, in normalised space: the first pose.
        normals: (num_vertices, 3) or None for each part.
        config: samples, bounces and filter.
        threads: of the renderer; does not change a bit of the image.
        folder: private and writable, for the GLB and the image that Blender writes.
    """

    def __init__(
        self,
        poser: Poser,
        positions: list[np.ndarray],
        normals: list[np.ndarray | None],
        config: RenderConfig,
        *,
        threads: int,
        folder: Path,
    ) -> None:
        self._config, self._folder = config, folder
        bpy.ops.wm.read_factory_settings(use_empty=True)
        glb = folder / "asset.glb"
        glb.write_bytes(static_glb(poser, positions, normals))
        bpy.ops.import_scene.gltf(filepath=str(glb), import_shading="NORMALS", merge_vertices=False)
        glb.unlink()
        self._scene = bpy.context.scene
        self._meshes = [self._mesh(index, part.num_vertices) for index, part in enumerate(poser.parts)]
        self._smooth = [normal is not None for normal in normals]
        self._shown, self._shaded = [points.copy() for points in positions], list(normals)
        self._points = np.concatenate(positions)
        self._make_camera()
        self._make_settings(threads)

    # -- what is seen ---------------------------------------------------------------------------------------------

    def pose(self, positions: list[np.ndarray], normals: list[np.ndarray | None]) -> None:
        """Move the surface; parts that did not move cost nothing."""
        for index, (mesh, points) in enumerate(zip(self._meshes, positions, strict=True)):
            same = np.array_equal(points, self._shown[index])
            if same and (normals[index] is None or np.array_equal(normals[index], self._shaded[index])):
                continue
            self._shown[index], self._shaded[index] = points.copy(), normals[index]
            mesh.vertices.foreach_set("co", np.ascontiguousarray(points, np.float32).ravel())
            if self._smooth[index]:
                mesh.normals_split_custom_set_from_vertices(normals[index])
            mesh.update()
        self._points = np.concatenate(positions)

    def light(self, lights: dict[str, Any], world: dict[str, Any]) -> None:
        """Set lights and sky to those of a sample's ``render`` field; once in the life of a scene.

        Lights that replace others reach Cycles in another order, which gives the same picture with another noise.
        """
        assert not self._scene.world, "lit already; make another scene for other lights"
        for light in lights["lights"]:
            self._add_sun(light)
        sky = bpy.data.worlds.new("sky")
        self._scene.world = sky
        sky.use_nodes = True
        background = sky.node_tree.nodes["Background"]
        background.inputs["Color"].default_value = (*world["color"], 1.0)
        background.inputs["Strength"].default_value = world["strength"]

    # -- images ---------------------------------------------------------------------------------------------------

    def image(self, c2w: np.ndarray, K: np.ndarray, width: int, height: int, seed: int) -> np.ndarray:
        """Colour seen by a camera.

        Args:
            c2w: (4, 4).
            K: (3, 3), square pixels, principal point in the middle.
            seed: of the render noise, in [0, 2**31).

        Returns:
            (height, width, 4) uint8: straight alpha, sRGB-encoded, RGB = 0 where alpha = 0.
        """
        out = np.zeros((height, width, 4), np.uint8)
        box = self._aim(c2w, K, width, height)
        if box is not None:
            cycles = self._scene.cycles
            cycles.seed = seed
            channels = self._render("color.exr")
            linear = np.stack([channels[f"View Layer.Combined.{c}"] for c in "RGBA"], axis=-1)
            x0, y0, x1, y1 = box
            assert linear.shape[:2] == (y1 - y0, x1 - x0), f"Blender rendered {linear.shape}, box {box}"
            out[y0:y1, x0:x1] = to_srgb(linear)
        return out

    def geometry(self, c2w: np.ndarray, K: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """What lies at the centre of each pixel, one exact ray each; glass counts, cut-out holes do not.

        Returns:
            depth (height, width) float32 along the viewing axis, inf where nothing is; shading normals (height,
            width, 3) float32 in normalised space, of unit length, towards the camera, 0 where nothing is.
        """
        depth = np.full((height, width), np.inf, np.float32)
        normals = np.zeros((height, width, 3), np.float32)
        box = self._aim(c2w, K, width, height)
        if box is None:
            return depth, normals
        cycles, layer = self._scene.cycles, self._scene.view_layers[0]
        cycles.samples, cycles.use_denoising, cycles.use_adaptive_sampling = 1, False, False
        cycles.pixel_filter_type, cycles.filter_width, cycles.seed = "BOX", 0.01, 0
        layer.use_pass_z = layer.use_pass_normal = True
        try:
            channels = self._render("geometry.exr")
        finally:
            layer.use_pass_z = layer.use_pass_normal = False
            self._apply_config()
        x0, y0, x1, y1 = box
        near = channels[_DEPTH]
        hit = near < 1e9
        depth[y0:y1, x0:x1] = np.where(hit, near, np.inf)
        found = np.stack([channels[_NORMAL + axis] for axis in "XYZ"], axis=-1)
        length = np.linalg.norm(found, axis=-1, keepdims=True)
        normals[y0:y1, x0:x1] = np.where(hit[..., None] & (length > 0), found / np.maximum(length, 1e-12), 0.0)
        return depth, normals

    # -- Blender --------------------------------------------------------------------------------------------------

    def _aim(self, c2w: np.ndarray, K: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Point the camera and crop to what the surface can cover: (x0, y0, x1, y1) in pixels, None for nothing."""
        uv, depth = project(self._points, c2w, K)
        if (depth <= 0).any():
            box = (0, 0, width, height)  # a vertex behind the camera projects anywhere
        else:
            low = np.floor(uv.min(0)).astype(int) - _MARGIN_PX
            high = np.ceil(uv.max(0)).astype(int) + _MARGIN_PX
            box = (max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1]))
            if box[0] >= box[2] or box[1] >= box[3]:
                return None
        self._camera.matrix_world = Matrix(np.asarray(c2w).tolist())
        self._camera.data.angle_y = 2 * math.atan2(0.5 * height, K[1][1])
        render = self._scene.render
        render.resolution_x, render.resolution_y = width, height
        x0, y0, x1, y1 = (int(value) for value in box)
        # Blender truncates fraction x size to pixels; a hundredth of a pixel keeps clear of the edge.
        render.border_min_x, render.border_max_x = (x0 + 0.01) / width, (x1 + 0.01) / width
        render.border_min_y, render.border_max_y = (height - y1 + 0.01) / height, (height - y0 + 0.01) / height
        return x0, y0, x1, y1

    def _render(self, name: str) -> dict[str, np.ndarray]:
        path = self._folder / name
        self._scene.render.filepath = str(path)
        with _quiet():
            bpy.ops.render.render(write_still=True)
        return read_exr(path)

    def _mesh(self, index: int, num_vertices: int) -> bpy.types.Mesh:
        mesh = bpy.data.objects[part_name(index)].data
        assert len(mesh.vertices) == num_vertices, f"part {index}: {len(mesh.vertices)} vertices, not {num_vertices}"
        return mesh

    def _make_camera(self) -> None:
        self._camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        self._camera.data.sensor_fit = "VERTICAL"
        self._camera.data.clip_start, self._camera.data.clip_end = 1e-3, 1e3
        self._scene.collection.objects.link(self._camera)
        self._scene.camera = self._camera

    def _make_settings(self, threads: int) -> None:
        render = self._scene.render
        render.engine = "CYCLES"
        render.resolution_percentage = 100
        render.film_transparent = True
        render.use_border = render.use_crop_to_border = True
        render.use_persistent_data = True  # another view of the same frame then builds nothing anew
        render.threads_mode, render.threads = "FIXED", threads
        render.dither_intensity = 0.0
        render.use_compositing = render.use_sequencer = False
        render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
        render.image_settings.color_depth, render.image_settings.exr_codec = "32", "NONE"
        self._scene.view_layers[0].name = "View Layer"
        # Depth and normals are those of the first surface that shows at all; at Blender's 0.5 the seed would decide
        # whether a ray that meets a fainter one goes through.
        self._scene.view_layers[0].pass_alpha_threshold = 1 / 255
        self._scene.view_settings.view_transform = "Standard"
        self._scene.cycles.device = "CPU"
        self._apply_config()

    def _apply_config(self) -> None:
        cycles, config = self._scene.cycles, self._config
        cycles.samples = config.samples
        cycles.use_adaptive_sampling = config.adaptive
        cycles.use_denoising = config.denoise
        # Guides as they are: prefiltering them costs as much as the image and gains a tenth of a dB.
        cycles.denoiser, cycles.denoising_prefilter = "OPENIMAGEDENOISE", "NONE"
        cycles.max_bounces = config.bounces
        cycles.diffuse_bounces, cycles.glossy_bounces = config.diffuse_bounces, config.glossy_bounces
        cycles.transmission_bounces, cycles.volume_bounces = config.transmission_bounces, 0
        cycles.transparent_max_bounces = config.transparent_bounces
        cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", config.filter_width_px

    def _add_sun(self, light: dict[str, Any]) -> None:
        data = bpy.data.lights.new(light["name"], "SUN")
        data.energy, data.angle, data.color = light["energy"], math.radians(light["angle_deg"]), light["color"]
        azimuth, elevation = math.radians(light["azimuth_deg"]), math.radians(light["elevation_deg"])
        towards = Vector(
            (math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation))
        )
        sun = bpy.data.objects.new(light["name"], data)
        sun.rotation_euler = towards.to_track_quat("Z", "Y").to_euler()
        self._scene.collection.objects.link(sun)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Blender's twenty status lines an image on stdout; what goes wrong is on stderr."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Premultiplied linear RGBA as stored pixels.

    This is Blender's Standard view transform without exposure or look: the sRGB curve of IEC 61966-2-1 on straight
    colour.

    Args:
        linear: (..., 4) float32, Rec.709 primaries.

    Returns:
        (..., 4) uint8, straight alpha, sRGB-encoded, RGB = 0 where alpha rounds to 0.
    """
    alpha = np.clip(linear[..., 3:], 0.0, 1.0)
    color = np.clip(linear[..., :3] / np.maximum(alpha, 1e-8), 0.0, 1.0)
    curve = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
    pixels = np.rint(np.concatenate([curve, alpha], axis=-1) * 255.0)
    pixels[pixels[..., 3] == 0] = 0
    return pixels.astype(np.uint8)
