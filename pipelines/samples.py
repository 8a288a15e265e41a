"""The JSON of a clip before it is rendered: everything but what the pixels say.

Joins what the probe found with cameras, lights and seeds, all of them pure functions of config and content, so any clip
can be planned, and rendered, again alone.
"""

from __future__ import annotations

from typing import Any

from manifests.clip import clip_id
from manifests.config import BuildConfig
from manifests.rigs import camera_rig, light_rig
from manifests.seeds import integer

__all__ = ["planned_sample"]


def planned_sample(
    asset: dict[str, Any], animation: dict[str, Any], clip: dict[str, Any], config: BuildConfig
) -> dict[str, Any]:
    """A sample without quality figures and versions.

    Args:
        asset: row of assets.parquet.
        animation: entry of a probe's ``animations``.
        clip: entry of that animation's ``clips``.
        config: of the build.
    """
    window, render = clip["window"], config.render
    identity = (config.seed, asset["sha256"], animation["index"])
    # The camera is one for all windows of an animation (MV-Video); lights are drawn for each clip.
    lights, world = light_rig(render.lights, config.camera.front_azimuth_deg, *identity, window["index"])
    name = clip_id(asset["asset_id"], animation["index"], window["index"])
    return {
        "schema": "mvvideo.clip/1",
        "clip_id": name,
        "asset_id": asset["asset_id"],
        "asset_sha256": asset["sha256"],
        "source": asset["source"],
        "license": asset["license"],
        "attribution": asset["attribution"],
        "caption": "",
        "animation": {key: animation[key] for key in ("index", "name", "duration_s", "start_s")},
        "window": {key: window[key] for key in ("index", "start_s", "loops", "time_scale")},
        "fps": window["fps"],
        "times_s": list(window["times_s"]),
        "normalization": clip["normalization"],
        "cameras": camera_rig(config.camera, *identity),
        "motion": clip["motion"],
        "quality": {},
        "render": {
            "engine": "CYCLES",
            "device": "CPU",
            "samples": render.samples,
            "bounces": {
                "total": render.bounces,
                "diffuse": render.diffuse_bounces,
                "glossy": render.glossy_bounces,
                "transmission": render.transmission_bounces,
                "transparent": render.transparent_bounces,
                "volume": 0,
            },
            "denoise": render.denoise,
            "adaptive": render.adaptive,
            "filter": {"type": "BLACKMAN_HARRIS", "width_px": render.filter_width_px},
            "lights": lights,
            "world": world,
            "view_transform": "Standard",
            "color_space": "sRGB",
            "alpha": "straight",
            "bpy": "",
            "encoder": "",
            "seed": integer(*identity, window["index"], "render"),
        },
    }
