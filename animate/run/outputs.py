"""What a finished run leaves in its folder: the animated mesh, the Gaussians, pictures for people and for scoring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from animate.config import AnimateConfig
from animate.export.frames import EVALUATIONS, FrameOptions, write_evaluation, write_orbit, write_video
from animate.export.gaussian_sequence import write_sequence
from animate.export.glb import animated_glb
from animate.export.usd import animated_usd
from animate.fields.arap import distortion
from animate.methods.distillation import film_field
from animate.methods.static_field import look_at
from animate.run.opened import Opened
from animate.run.plan import Plan
from animate.subject.mesh import RestMesh
from animate.subject.placement import Z_UP_FROM, Placement
from animate.subject.ply import RestGaussians
from animate.subject.raycast import Raycaster
from manifests.publish import write_bytes

__all__ = ["moved_vertices", "write_outputs"]

RASTERIZED = 8
"""Gaussian images of the export drawn at a time."""


def moved_vertices(plan: Plan, mesh: RestMesh) -> np.ndarray:
    """(F, N, 3) float32 normalised vertices of a mesh in all frames; frame 0 is the rest, bit by bit."""
    points = plan.motion().positions.cpu().numpy()
    moved = mesh.vertices + (points - points[:1])[:, mesh.weld]
    moved[0] = mesh.vertices
    return moved.astype(np.float32)


def write_outputs(
    folder: Path, opened: Opened, plan: Plan, config: AnimateConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """Writes everything; a repeated call writes the same again.

    Args:
        folder: of the run.
        opened: the object.
        plan: after its stages.
        config: of the run.
        say: told of each kind of file.

    Returns:
        facts for ``animate.json``: files, and how far the surface was stretched.
    """
    times_s = plan.times_s.numpy() - float(plan.times_s[0])
    mesh, files = opened.mesh, []
    if mesh is not None:
        say("animated.glb, animated.usdz")
        vertices = moved_vertices(plan, mesh)
        world = mesh.to_world(vertices)
        name = opened.model.stem
        write_bytes(folder / "animated.glb", animated_glb(mesh, world, times_s, name=name))
        animated_usd(folder / "animated.usdz", mesh, world, times_s)
        render = _mesh_render(mesh, vertices, config)
        files += ["animated.glb", "animated.usdz"]
    else:
        render = _scene_render(plan)
    if config.method == "animate3d":
        say("gaussians/")
        files.append(_gaussians(folder / "gaussians", opened, plan))
    fps = (len(times_s) - 1) / float(times_s[-1])
    options = FrameOptions(
        fps=fps,
        front_azimuth_deg=opened.subject.front_azimuth_deg,
        background=config.background,
        size=config.frame_size,
    )
    say("orbit")
    write_orbit(folder, render, len(times_s), options=options)
    for preset in EVALUATIONS:
        say(f"views of {preset}")
        write_evaluation(folder, opened.model.stem, render, len(times_s), preset=preset, options=options)
    if plan.nerf is not None:
        say("the field's own video")
        files.append(_field_video(folder, opened, plan, config, fps))
    files += ["frames/", "videos/"]
    return {"files": files, "fps": fps, "times_s": times_s.tolist(), "distortion": _distortion(plan)}


def _distortion(plan: Plan) -> list[float]:
    """Of each frame: what is left of the edges' change after the best rotations, over their length."""
    moved = plan.motion().positions
    return [round(float(value), 6) for value in distortion(plan.body.points, moved, plan.body.neighbors)]


def _mesh_render(mesh: RestMesh, vertices: np.ndarray, config: AnimateConfig) -> Any:
    raycaster = Raycaster(mesh)

    def render(frames: np.ndarray, c2w: np.ndarray, K: np.ndarray, size: int) -> np.ndarray:
        out = np.empty((len(frames), size, size, 4), np.uint8)
        for frame in np.unique(frames):
            which = np.flatnonzero(frames == frame)
            seen = raycaster.render(vertices[frame], c2w[which], K[which], size)
            out[which] = _straight(seen.rgb, seen.alpha)
        return out

    return render


def _scene_render(plan: Plan) -> Any:
    posed = plan.posed()

    @torch.no_grad()
    def render(frames: np.ndarray, c2w: np.ndarray, K: np.ndarray, size: int) -> np.ndarray:
        device, out = posed.means.device, []
        for part in np.array_split(np.arange(len(frames)), max(1, len(frames) // RASTERIZED)):
            c2w_part, K_part = (torch.from_numpy(x[part]).float().to(device) for x in (c2w, K))
            shown = plan.body.show(posed, torch.from_numpy(frames[part]).to(device), c2w_part, K_part, size, None)
            images, alphas = (x.permute(0, 2, 3, 1).cpu().numpy() for x in shown)
            out.append(_straight(images, alphas[..., 0]))
        return np.concatenate(out)

    return render


def _straight(premultiplied: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint8 RGBA, straight alpha, no colour where alpha is 0."""
    alpha = np.clip(alpha, 0, 1)
    rgb = premultiplied / np.maximum(alpha, 1e-6)[..., None]
    rgba = np.round(np.clip(np.concatenate([rgb, alpha[..., None]], -1), 0, 1) * 255).astype(np.uint8)
    return rgba * (rgba[..., 3:] > 0)


def _gaussians(folder: Path, opened: Opened, plan: Plan) -> str:
    posed = plan.posed()
    subject = opened.subject
    if isinstance(subject, RestGaussians):
        placement = subject.placement
    else:
        placement = Placement(center=subject.center, scale=subject.scale, rotation=Z_UP_FROM[subject.up])
    moved = {"quats_wxyz": posed.quats_wxyz, "scales": posed.scales} if plan.body.turns else {}
    write_sequence(folder, plan.body.gaussians, posed.means, placement, **moved)
    return f"{folder.name}/"


def _field_video(folder: Path, opened: Opened, plan: Plan, config: AnimateConfig, fps: float) -> str:
    assert plan.nerf is not None, "there is no field"
    front = opened.subject.front_azimuth_deg
    device = plan.body.points.device
    c2w = torch.cat([look_at(front + 90 * number, config) for number in range(4)]).to(device)
    footage = film_field(plan.nerf, c2w, config, fps, config.background)
    write_video(folder / "videos" / "field.mp4", _side_by_side(footage.images), fps, config.background)
    return "videos/field.mp4"


def _side_by_side(images: Tensor) -> list[np.ndarray]:
    """Opaque frames with the views beside each other."""
    rows = torch.cat(list(images), -1).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return [np.concatenate([np.round(row * 255), np.full_like(row[..., :1], 255)], -1).astype(np.uint8) for row in rows]
