"""What clips an asset can give: every animation with its figures, accepted or rejected with a reason.

Reads and poses with `manifests.gltf` alone; Blender is not started. A pure function of the file's bytes and the config,
run inside the isolated child process because the file is not trusted.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from manifests.config import BuildConfig, MotionConfig
from manifests.errors import Rejected
from manifests.gltf import Asset, Limits, Poser, load_obj, read
from manifests.gltf.rest import parse_pose
from manifests.windows import Window, plan_windows
from render.motion import Sweep, sweep

__all__ = ["load", "normalization_of", "probe", "probe_still"]

_ROUND = 9
_PHASES = np.linspace(0.0, 1.0, 33)
"""Where the animation as a whole is looked at; uneven, so that no short cycle meets every sample in the same pose."""
_PHASES[1:-1] += 0.4 / 32 * np.modf(np.arange(1, 32) * 0.6180339887)[0]


def load(path: str | Path, limits: Limits) -> Asset:
    """A .glb, .gltf or .obj file.

    Raises:
        Rejected: whatever is wrong with it.
    """
    path = Path(path)
    return load_obj(path, limits=limits) if path.suffix.lower() == ".obj" else read(path, limits=limits)


def probe(path: str | Path, config: BuildConfig) -> dict[str, Any]:
    """All animations of an asset and the clips that each would give.

    Returns:
        ``sha256``, ``vertices``, ``triangles``, ``animations``: a list with index, name, duration_s, start_s, end_s,
        channels (paths that are animated), status, reason, detail, motion (or {}), and ``clips``: window,
        normalization, motion, offsets, status, reason, detail. JSON values only.

    Raises:
        Rejected: the asset as a whole.
    """
    asset = load(path, config.limits)
    poser = Poser(asset)
    if not asset.animations:
        raise Rejected(
            "no-animation", f"{Path(path).name}: found no animation, expected at least one; `mvv still` takes it"
        )
    animations, seen = [], {}
    for animation in asset.animations:
        entry = {
            "index": animation.index,
            "name": animation.name,
            "duration_s": animation.duration_s,
            "start_s": animation.start_s,
            "end_s": animation.end_s,
            "channels": sorted({channel.path for channel in animation.channels}),
            "status": "accepted",
            "reason": "",
            "detail": "",
            "motion": {},
            "clips": [],
        }
        try:
            _probe_animation(poser, animation.index, entry, config.motion, seen)
        except Rejected as rejected:
            entry |= {"status": "rejected", "reason": rejected.reason, "detail": rejected.detail, "clips": []}
        animations.append(entry)
    if config.motion.normalization == "asset":
        _share_normalization(animations, config.motion)
    return {**_facts(asset, poser), "animations": animations}


def probe_still(path: str | Path, config: BuildConfig, pose: str) -> dict[str, Any]:
    """One clip of one frame: the object at rest, or as an animation has it at a time.

    Args:
        pose: ``bind``, or ``ANIMATION@SECONDS`` where ANIMATION is an index or a name.

    Returns:
        as `probe`, with a single animation of index -1 and a single clip; ``source_animation`` (-1 for bind) says
        which animation poses it.

    Raises:
        Rejected: the asset as a whole, or a pose that it does not have.
    """
    asset = load(path, config.limits)
    poser = Poser(asset)
    source, time_s = parse_pose(asset, pose)
    window = Window(index=0, start_s=time_s, loops=1, time_scale=1.0, fps=config.motion.fps, times_s=(time_s,))
    swept = sweep(poser, source, np.array([time_s]))
    if swept.radius <= 0:
        raise Rejected("no-visible-mesh", "every part has zero size in this pose, expected a visible surface")
    named = asset.animations[source] if source is not None else None
    clip = {
        "window": asdict(window),
        "normalization": normalization_of(swept, config.motion),
        "motion": swept.figures(window.fps),
        "offsets": [],
        "status": "accepted",
        "reason": "",
        "detail": "",
    }
    entry = {
        "index": -1,
        "source_animation": -1 if source is None else source,
        "name": "" if named is None else named.name,
        "duration_s": 0.0 if named is None else named.duration_s,
        "start_s": time_s,
        "end_s": time_s,
        "channels": [],
        "status": "accepted",
        "reason": "",
        "detail": "",
        "motion": clip["motion"],
        "clips": [clip],
    }
    return {**_facts(asset, poser), "animations": [entry]}


def normalization_of(swept: Sweep, motion: MotionConfig) -> dict[str, Any]:
    """The sample's ``normalization`` for one clip; mode `asset` is settled afterwards."""
    if motion.normalization == "given":
        center, scale = np.array(motion.given_center), motion.given_scale
    else:
        center = swept.center
        scale = 0.5 / (swept.frame0_radius if motion.normalization == "frame0" else swept.radius)
    # Rounded so that another CPU's last bit does not change the plan; 1e-9 of the object is far below a pixel.
    scale = float(f"{scale:.{_ROUND}g}")
    center = np.round(center, max(0, _ROUND + int(np.floor(np.log10(scale)))))
    return {
        "mode": motion.normalization,
        "center": [float(x) + 0.0 for x in center],
        "scale": scale,
        "frame0_center": [round(float(x), 6) + 0.0 for x in (swept.center - center) * scale],
        "frame0_radius": round(swept.frame0_radius * scale, 6),
        "root_motion": motion.root_motion,
    }


def _probe_animation(poser: Poser, index: int, entry: dict[str, Any], motion: MotionConfig, seen: dict) -> None:
    """Fills figures and clips of one animation's entry, or raises what it is rejected for."""
    start_s, end_s = entry["start_s"], entry["end_s"]
    remove = motion.root_motion == "remove"
    whole = sweep(poser, index, start_s + (end_s - start_s) * _PHASES, remove_root=remove)
    entry["motion"] = whole.figures((len(_PHASES) - 1) / (end_s - start_s) if end_s > start_s else 0.0)
    if end_s <= start_s:
        raise Rejected("still-pose", f"all keys lie at {start_s:.4g} s, expected an interval")
    if whole.radius <= 0:
        raise Rejected("no-visible-mesh", "every part has zero size, expected a visible surface")
    peak = whole.peak_displacement / whole.radius
    if peak < motion.min_motion:
        raise Rejected(
            "static",
            f'animation {index} "{entry["name"]}" moves {peak:.2g} of the radius, expected at least '
            f"{motion.min_motion:g}; lower --min-motion or leave the animation out",
        )
    signature = _signature(poser, index, start_s, end_s)
    if signature in seen:
        raise Rejected("duplicate-animation", f"the same poses as animation {seen[signature]}, expected another motion")
    seen[signature] = index
    windows = plan_windows(
        start_s,
        end_s,
        frames=motion.frames,
        fps=motion.fps,
        closes=whole.closing / whole.radius <= motion.loop_tolerance,
        stretch=motion.stretch,
        last=motion.last_window,
    )
    for window in windows:
        entry["clips"].append(_probe_window(poser, index, window, motion))
    refused = [clip for clip in entry["clips"] if clip["status"] == "rejected"]
    if len(refused) == len(windows):
        raise Rejected(refused[0]["reason"], refused[0]["detail"])


def _probe_window(poser: Poser, index: int, window: Window, motion: MotionConfig) -> dict[str, Any]:
    clip = {"window": asdict(window), "status": "accepted", "reason": "", "detail": ""}
    try:
        swept = sweep(poser, index, np.array(window.times_s), remove_root=motion.root_motion == "remove")
        if swept.radius <= 0:
            raise Rejected("no-visible-mesh", "every part has zero size, expected a visible surface")
    except Rejected as rejected:
        return clip | {
            "status": "rejected", "reason": rejected.reason, "detail": rejected.detail, "normalization": {},
            "motion": {}, "offsets": [],
        }  # fmt: skip
    clip["motion"] = swept.figures(window.fps)
    clip["normalization"] = normalization_of(swept, motion)
    clip["offsets"] = swept.offsets.round(_ROUND).tolist() if motion.root_motion == "remove" else []
    peak = clip["motion"]["peak_displacement"]
    filled = clip["normalization"]["frame0_radius"]
    if len(window.times_s) > 1 and peak < motion.min_motion:
        clip |= {
            "status": "rejected",
            "reason": "static",
            "detail": f"window {window.index} moves {peak:.2g} of the radius, expected at least {motion.min_motion:g}; "
            "lower --min-motion",
        }
    elif motion.normalization == "clip" and filled < motion.min_frame0_radius:
        clip |= {
            "status": "rejected",
            "reason": "frame0-too-small",
            "detail": f"frame 0 has radius {filled:.3g} in a sphere of 0.5, expected at least "
            f"{motion.min_frame0_radius:g}; lower --min-frame0-radius, or use --normalization frame0",
        }
    clip["low"], clip["high"] = swept.low.tolist(), swept.high.tolist()
    return clip


def _share_normalization(animations: list[dict[str, Any]], motion: MotionConfig) -> None:
    """Mode `asset`: one centre and scale that hold every frame of every clip."""
    clips = [clip for entry in animations for clip in entry["clips"] if clip["status"] == "accepted"]
    if not clips:
        return
    low = np.min([clip["low"] for clip in clips], axis=0)
    high = np.max([clip["high"] for clip in clips], axis=0)
    center = np.array((low + high) / 2)
    scale = float(f"{0.5 / np.linalg.norm(high - center):.{_ROUND}g}")
    for clip in clips:
        own = clip["normalization"]
        was = np.array(own["frame0_center"]) / own["scale"] + own["center"]
        radius = own["frame0_radius"] / own["scale"] * scale
        own |= {
            "center": [float(x) + 0.0 for x in np.round(center, max(0, _ROUND + int(np.floor(np.log10(scale)))))],
            "scale": scale,
            "frame0_center": [round(float(x), 6) + 0.0 for x in (was - center) * scale],
            "frame0_radius": round(radius, 6),
        }
        if radius < motion.min_frame0_radius:
            clip |= {
                "status": "rejected",
                "reason": "frame0-too-small",
                "detail": f"frame 0 has radius {radius:.3g} in the asset's sphere of 0.5, expected at least "
                f"{motion.min_frame0_radius:g}; lower --min-frame0-radius, or use --normalization clip",
            }
    for entry in animations:
        if entry["clips"] and all(clip["status"] == "rejected" for clip in entry["clips"]):
            last = entry["clips"][-1]
            entry |= {"status": "rejected", "reason": last["reason"], "detail": last["detail"], "clips": []}


def _signature(poser: Poser, index: int, start_s: float, end_s: float) -> str:
    sha = hashlib.sha256(np.float64(end_s - start_s).tobytes())
    for part in poser.positions(index, np.linspace(start_s, end_s, 5)):
        sha.update(part.tobytes())
    return sha.hexdigest()


def _facts(asset: Asset, poser: Poser) -> dict[str, Any]:
    return {
        "sha256": asset.sha256,
        "vertices": poser.num_vertices,
        "triangles": sum(len(part.triangles) for part in poser.parts),
        "generator": asset.generator,
        "copyright": asset.copyright,
    }
