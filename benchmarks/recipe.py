"""The common recipe, to be measured against: one Blender process an asset, one render call an image, a PNG each.

This is how the public Objaverse-family scripts work (see README of this folder): Blender's importer, whole images,
Blender's own threading, nothing kept between images. Lights, bounces, cameras, poses and times are those of the samples
it is given, so that both sides do the same work. Run as ``python benchmarks/recipe.py JOB.json``; prints one JSON line.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

began = time.perf_counter()

import bpy  # noqa: E402
from mathutils import Matrix, Vector  # noqa: E402


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = 24
    bpy.ops.import_scene.gltf(filepath=job["path"], disable_bone_shape=True)
    root = bpy.data.objects.new("root", None)
    scene.collection.objects.link(root)
    for thing in list(scene.objects):
        if thing.parent is None and thing is not root:
            thing.parent = root
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit = "VERTICAL"
    scene.collection.objects.link(camera)
    scene.camera = camera
    first = job["samples"][0]
    _settings(scene, first, job)
    _lights(scene, first)
    ready = time.perf_counter()
    images = 0
    for sample in job["samples"]:
        _animation(scene, sample["animation"]["name"])
        normalization, cameras = sample["normalization"], sample["cameras"]
        root.scale = (normalization["scale"],) * 3
        root.location = -Vector(normalization["center"]) * normalization["scale"]
        camera.data.angle_y = math.radians(cameras["fov_y_deg"])
        for frame, time_s in enumerate(sample["times_s"]):
            if frame not in job["frames"]:
                continue
            whole = math.floor(time_s * 24)
            scene.frame_set(whole, subframe=min(time_s * 24 - whole, 0.999999))
            for view, c2w in enumerate(cameras["c2w"]):
                camera.matrix_world = Matrix(c2w)
                scene.render.filepath = str(out / f"{sample['clip_id']}_{view:02d}_{frame:03d}.png")
                bpy.ops.render.render(write_still=True)
                images += 1
    done = time.perf_counter()
    print(json.dumps({"start_s": ready - began, "images": images, "render_s": done - ready}), flush=True)


def _settings(scene: bpy.types.Scene, sample: dict, job: dict) -> None:
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y = sample["cameras"]["width"], sample["cameras"]["height"]
    render.film_transparent = True
    render.threads_mode, render.threads = "FIXED", job["threads"]
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    scene.view_settings.view_transform = "Standard"
    cycles.device, cycles.samples = "CPU", job["samples_a_pixel"]
    cycles.use_adaptive_sampling = False
    cycles.use_denoising = job["denoise"]
    cycles.denoiser = "OPENIMAGEDENOISE"
    bounces = sample["render"]["bounces"]
    cycles.max_bounces, cycles.diffuse_bounces = bounces["total"], bounces["diffuse"]
    cycles.glossy_bounces, cycles.transmission_bounces = bounces["glossy"], bounces["transmission"]
    cycles.transparent_max_bounces, cycles.volume_bounces = bounces["transparent"], bounces["volume"]


def _lights(scene: bpy.types.Scene, sample: dict) -> None:
    for light in sample["render"]["lights"]["lights"]:
        data = bpy.data.lights.new(light["name"], "SUN")
        data.energy, data.angle, data.color = light["energy"], math.radians(light["angle_deg"]), light["color"]
        azimuth, elevation = math.radians(light["azimuth_deg"]), math.radians(light["elevation_deg"])
        towards = Vector(
            (math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation))
        )
        sun = bpy.data.objects.new(light["name"], data)
        sun.rotation_euler = towards.to_track_quat("Z", "Y").to_euler()
        scene.collection.objects.link(sun)
    world = sample["render"]["world"]
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    background = scene.world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*world["color"], 1.0)
    background.inputs["Strength"].default_value = world["strength"]


def _animation(scene: bpy.types.Scene, name: str) -> None:
    """Assign the action of that name, with its slot, to every object and shape key that has one."""
    action = bpy.data.actions.get(name) or bpy.data.actions[0]
    slots = {slot.identifier: slot for slot in action.slots}
    for thing in scene.objects:
        keys = thing.data.shape_keys if thing.type == "MESH" else None
        for block, slot in ((thing, f"OB{thing.name}"), (keys, f"KE{keys.name}" if keys else "")):
            if block is not None and slot in slots:
                data = block.animation_data or block.animation_data_create()
                data.action, data.action_slot = action, slots[slot]


if __name__ == "__main__":
    main()
