"""A small dataset with random pixels, written through the same code as a real one. For tests of readers."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from manifests import clip as clips
from manifests.finish import finish
from manifests.images import encode_frame, encoder_version
from manifests.shards import commit, shard_name, write_clip_rows, write_shard
from manifests.tables import ASSETS, CLIPS, empty_row, facts_of_sample, write_rows
from manifests.tar import write_part

CLIPS_PER_SHARD = 3
DEPTH = {
    "series": "depth",
    "suffix": "png",
    "dtype": "uint16",
    "channels": 1,
    "unit": "normalised units along the axis",
}
DEPTH |= {"scale": 3.0 / 65535, "offset": 0.0, "invalid": 0}
TOOLS = {"bpy": "0.0.0-test", "encoder": encoder_version()}


def look_at(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """c2w (4, 4) of a camera that looks at the origin, z up."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    back = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(back, right), back], 1)
    c2w[:3, 3] = distance * back
    return c2w


def make_sample(
    number: int = 0,
    *,
    views: int = 2,
    frames: int = 3,
    size: int = 16,
    animation_name: str = "Walk",
    moving: bool = False,
) -> dict[str, Any]:
    """A valid sample, different for each number; pixels are not its business."""
    asset = number // 2  # two animations an asset
    sha256 = hashlib.sha256(f"asset {asset}".encode()).hexdigest()
    asset_id = f"asset{asset}-{sha256[:10]}"
    azimuths = [float(k * 360 / views + number) for k in range(views)]
    poses = [look_at(azimuth, 10.0 + number, 1.5).tolist() for azimuth in azimuths]
    focal = size / 2 / math.tan(math.radians(20))
    K = [[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]]

    def each(value: Any) -> Any:
        return [value] * frames if moving else value

    sample = {
        "schema": clips.SCHEMA,
        "clip_id": clips.clip_id(asset_id, number % 2, 0),
        "asset_id": asset_id,
        "asset_sha256": sha256,
        "source": f"models/asset{asset}.glb",
        "license": ("CC-BY-4.0", "CC0-1.0", "")[asset % 3],
        "attribution": f"Asset {asset} by Ånna | nobody",
        "caption": "",
        "animation": {"index": number % 2, "name": animation_name, "duration_s": 2.5, "start_s": 0.1},
        "window": {"index": 0, "start_s": 0.1, "loops": 1, "time_scale": 1.0},
        "fps": 8.0,
        "times_s": [0.1 + frame / 8 for frame in range(frames)],
        "normalization": {
            "mode": "clip",
            "center": [0.1, -0.2, 1.0 / 3.0],
            "scale": 0.7 + number,
            "frame0_center": [0.0, 0.0, 0.0],
            "frame0_radius": 0.4,
            "root_motion": "keep",
        },
        "cameras": {
            "convention": "blender",
            "width": size,
            "height": size,
            "front_azimuth_deg": 270.0,
            "fov_y_deg": 40.0,
            "K": [K] * views,
            "c2w": [each(pose) for pose in poses],
            "azimuth_deg": [each(azimuth) for azimuth in azimuths],
            "elevation_deg": [each(10.0 + number)] * views,
            "distance": [each(1.5)] * views,
        },
        "motion": {name: 0.125 * (k + 1) + number for k, name in enumerate(clips.MOTION)},
        "quality": {
            "coverage_mean": 0.25,
            "coverage_min": 1e-7,
            "border_images": 0,
            "blank_images": number,
            "missing_texture": 0.0,
            "flicker": 0.01,
        },
        "render": {
            "engine": "CYCLES",
            "device": "CPU",
            "samples": 4,
            "bounces": {"total": 4, "diffuse": 2, "glossy": 2, "transmission": 2, "transparent": 8, "volume": 0},
            "denoise": False,
            "adaptive": False,
            "filter": {"type": "BLACKMAN_HARRIS", "width_px": 1.5},
            "lights": {
                "rig": "studio-1",
                "lights": [
                    {
                        "name": "key",
                        "type": "SUN",
                        "azimuth_deg": 300.0,
                        "elevation_deg": 45.0,
                        "energy": 3.0,
                        "angle_deg": 5.0,
                        "color": [1.0, 1.0, 1.0],
                    }
                ],
            },
            "world": {"color": [1.0, 1.0, 1.0], "strength": 0.5},
            "view_transform": "Standard",
            "color_space": "sRGB",
            "alpha": "straight",
            "bpy": TOOLS["bpy"],
            "encoder": TOOLS["encoder"],
            "seed": 12345 + number,
        },
    }
    return clips.canonical(sample)


def make_pixels(number: int, *, views: int, frames: int, size: int) -> np.ndarray:
    """(view, frame, size, size, 4) uint8, random, RGB = 0 where alpha = 0; a blank border."""
    rng = np.random.default_rng(number)
    rgba = rng.integers(0, 256, (views, frames, size, size, 4), np.uint8)
    rgba[..., 3][rng.random(rgba.shape[:-1]) < 0.3] = 0
    rgba[..., [0, -1], :, 3] = rgba[..., :, [0, -1], 3] = 0
    rgba[..., :3] *= rgba[..., 3:] > 0
    return rgba


def make_depth(number: int, *, views: int, frames: int, size: int) -> np.ndarray:
    """(view, frame, size, size) uint16 as stored; 0 is none."""
    return np.random.default_rng(1000 + number).integers(0, 65536, (views, frames, size, size), np.uint16)


def write_clip(path: Path, sample: dict[str, Any], rgba: np.ndarray) -> Path:
    """Stages a sample and its (view, frame, height, width, 4) pixels as a part."""
    names = clips.members(sample)
    flat = rgba.reshape(-1, *rgba.shape[2:])
    payloads = [clips.to_json(sample), *(encode_frame(image, method=0) for image in flat)]
    write_part(path, zip(names, payloads, strict=True))
    return path


def write_depth(path: Path, sample: dict[str, Any], depth: np.ndarray) -> Path:
    """Stages (view, frame, height, width) uint16 as the part of a parallel series."""
    payloads = []
    for image in depth.reshape(-1, *depth.shape[2:]):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        payloads.append(out.getvalue())
    write_part(path, zip(clips.members(sample, "png"), payloads, strict=True))
    return path


def clip_row(sample: dict[str, Any], *, shard: str, position: int) -> dict[str, Any]:
    """The accepted row of a sample."""
    return {
        **empty_row(CLIPS),
        **facts_of_sample(sample),
        "license": sample["license"],
        "attribution": sample["attribution"],
        "split": "train",
        "shard": shard,
        "position": position,
        "status": "accepted",
        "seconds": 0.5,
        "attempts": 1,
    }


def make_tiny_dataset(
    folder: Path | str, clips: int = 5, views: int = 2, frames: int = 3, size: int = 16, depth: bool = False
) -> Path:
    """Writes a whole, valid dataset of random pixels; the same arguments give the same files.

    Beside the accepted clips there are two rejected rows, a failed one, and a rejected asset.
    """
    folder = Path(folder)
    staging = folder / "staging"
    shape = {"views": views, "frames": frames, "size": size}
    samples = [make_sample(k, **shape, animation_name=f"Walk <b>{k}</b>|") for k in range(clips)]
    for first in range(0, clips, CLIPS_PER_SHARD):
        shard = shard_name("train", first // CLIPS_PER_SHARD)
        numbers = range(first, min(first + CLIPS_PER_SHARD, clips))
        parts = [write_clip(staging / f"{k}.part", samples[k], make_pixels(k, **shape)) for k in numbers]
        committed = [write_shard(folder, shard, parts)]
        if depth:
            deep = [write_depth(staging / f"{k}.depth.part", samples[k], make_depth(k, **shape)) for k in numbers]
            committed.append(write_shard(folder, shard, deep, series="depth"))
        rows = [clip_row(samples[k], shard=shard, position=k - first) for k in numbers]
        if first == 0:
            rows.append(_left_out(samples[0], 5, "failed", "deadline", shard=shard, attempts=3))
        write_clip_rows(folder, shard, rows)
        commit(folder, committed)
    if not clips:
        commit(folder, [])
    sample = samples[0] if samples else make_sample(0, **shape)
    rejected = folder / "staging" / "rejected.parquet"
    write_rows(rejected, [_left_out(sample, k, "rejected", r) for k, r in ((6, "static"), (7, "too-short"))], CLIPS)
    write_rows(folder / "assets.parquet", _assets(samples or [sample]), ASSETS)
    config = {"preset": "test", "seed": 0, **shape, "cameras": {"fov_y_deg": 40.0, "distance": 1.5}}
    modalities = {"depth": DEPTH} if depth else None
    finish(folder, config=config, tools=TOOLS, rejected=[rejected], modalities=modalities, cpu=["test"], name="tiny")
    for path in staging.iterdir():
        path.unlink()
    staging.rmdir()
    return folder


def _left_out(sample: dict[str, Any], animation: int, status: str, reason: str, **more: Any) -> dict[str, Any]:
    key = clips.clip_id(sample["asset_id"], animation, 0)
    ids = {"clip_id": key, "asset_id": sample["asset_id"], "asset_sha256": sample["asset_sha256"]}
    base = {**empty_row(CLIPS), **ids, "animation": animation, "animation_name": "<script>alert(1)</script>"}
    return base | {
        "split": "train",
        "position": -1,
        "status": status,
        "reason": reason,
        "detail": "for the test",
        **more,
    }


def _assets(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = {}
    for sample in samples:
        ids = {"asset_id": sample["asset_id"], "sha256": sample["asset_sha256"], "source": sample["source"]}
        facts = {"license": sample["license"], "attribution": sample["attribution"], "tags": ["test", "tiny"]}
        counts = {"bytes": 1000, "animations": 8, "vertices": 8, "triangles": 12}
        rows[sample["asset_id"]] = {**empty_row(ASSETS), **ids, **facts, **counts, "status": "accepted"}
    ids = {"asset_id": "broken-0000000000", "sha256": "0" * 64, "source": "models/broken.glb"}
    why = {"status": "rejected", "reason": "truncated", "detail": "broken.glb: found 12 bytes, expected 100"}
    rows["broken"] = {**empty_row(ASSETS), **ids, **why}
    return list(rows.values())
