"""One process of the `levers` benchmark: renders a clip with levers on or off, prints seconds and images as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from manifests.config import PRESETS, RenderConfig
from manifests.rigs import camera_rig, light_rig
from render.clip import _posed
from render.probe import load, probe
from render.scene import Scene

job = json.loads(sys.argv[1])
config = PRESETS["demo"]
from manifests.gltf import Poser  # noqa: E402

asset = load(job["path"], config.limits)
poser = Poser(asset)
entry = next(e for e in probe(job["path"], config)["animations"] if e["status"] == "accepted")
clip = entry["clips"][0]
sample = {"normalization": clip["normalization"], "times_s": clip["window"]["times_s"]}
cameras = camera_rig(config.camera, "lever")
lights, world = light_rig("studio-1", 270.0)
positions, normals = _posed(poser, sample, entry["index"], [], 0)
with tempfile.TemporaryDirectory() as folder:
    scene = Scene(poser, positions, normals, RenderConfig(samples=16), threads=job["threads"], folder=Path(folder))
    scene.light(lights, world)
    scene._scene.render.use_persistent_data = job["keep"]
    if not job["crop"]:
        corners = np.array([[x, y, z] for x in (-9, 9) for y in (-9, 9) for z in (-9, 9)], np.float32)
    K, images, began = np.array(cameras["K"][0]) * 2, 0, 0.0
    for frame in range(9):
        if frame == 1:
            began = time.perf_counter()  # the first frame warms up
        positions, normals = _posed(poser, sample, entry["index"], [], frame)
        scene.pose(positions, normals)
        if not job["crop"]:
            scene._points = corners  # some behind the camera: the whole image
        for c2w in cameras["c2w"]:
            scene.image(np.array(c2w), K, 256, 256, images)
            images += frame > 0
    print(json.dumps({"images": images, "seconds": time.perf_counter() - began}))
