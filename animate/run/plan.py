"""Which stages a method runs, and what moves at the end of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animate.body import Body, Posed
from animate.config import AnimateConfig, ReconstructionConfig
from animate.fields.deformation import Deformation, Motion
from animate.fields.nerf import StaticDynamicNerf
from animate.methods.distillation import Distillation, film_field
from animate.methods.reconstruction import Reconstruction, fit_colors
from animate.methods.refinement import Refinement
from animate.methods.static_field import StaticField
from animate.priors.prior import Prior
from animate.run.opened import Opened
from animate.run.stage import Stage
from animate.run.target import target_footage
from animate.shot import Footage, Shot, intrinsics_of
from animate.subject.raycast import Raycaster
from animate.viewpoints import ring

__all__ = ["Plan", "make_plan"]


@dataclass(eq=False, kw_only=True)
class Plan:
    """A method made ready.

    Attributes:
        stages: in order.
        body: what moves.
        deformation: how, after the stages.
        times_s: (F,) float64 seconds from frame 0.
        nerf: the field of 3to4D.
    """

    stages: list[Stage]
    body: Body
    deformation: Deformation
    times_s: Tensor
    nerf: StaticDynamicNerf | None = field(default=None)

    @torch.no_grad()
    def motion(self) -> Motion:
        """Of all points in all frames."""
        frames = torch.arange(self.deformation.num_frames, device=self.body.points.device)
        turns = self.body.turns
        return self.deformation(self.body.points, frames, rotation=turns, scale=turns)

    def posed(self) -> Posed:
        """The Gaussians in all frames."""
        return self.body.posed(self.motion())


def make_plan(
    opened: Opened,
    prior: Prior,
    prompt: str,
    config: AnimateConfig,
    folder: Path,
    device: torch.device,
    told: Callable[[int, int], None] | None = None,
) -> Plan:
    """Films the target where the method has one, and builds the stages.

    Args:
        opened: the object.
        prior: of motion.
        prompt: what happens.
        config: of the run.
        folder: of the run; keeps the target.
        device: where all of it lives.
        told: called with steps of filming done and in all.

    Raises:
        InputError: a prior that does not fit the method's views, frames or sizes.
    """
    generator = torch.Generator().manual_seed(config.seed)
    if config.method == "threetofour":
        return _threetofour(opened, prior, prompt, config, device, generator)
    recon = config.recon
    prior.check(prompt=prompt, views=recon.views, frames=recon.frames, size=recon.size)
    if config.refine.steps:
        prior.check(prompt=prompt, views=config.refine.views, frames=recon.frames, size=config.refine.size)
    body = opened.body(config, device)
    shot = _shot(opened, body, prior, prompt, config, device)
    footage = target_footage(prior, shot, folder, seed=config.seed, told=told)
    body = fit_colors(body, footage, recon.fit_colors)
    deformation = Deformation(config.deformation, num_frames=recon.frames, generator=generator).to(device)
    stages: list[Stage] = [Reconstruction(body, deformation, footage, recon)]
    if config.refine.steps:
        front = opened.subject.front_azimuth_deg
        stages.append(Refinement(body, deformation, footage, prior, prompt, config, front))
    return Plan(stages=stages, body=body, deformation=deformation, times_s=footage.times_s.cpu())


def _shot(opened: Opened, body: Body, prior: Prior, prompt: str, config: AnimateConfig, device: torch.device) -> Shot:
    recon = config.recon
    cameras = ring(recon, opened.subject.front_azimuth_deg)
    c2w, K = cameras.c2w.to(device), intrinsics_of(cameras.fov_y_deg, recon.size).to(device)
    background = prior.background or config.background
    rest = Posed(means=body.gaussians.means[None], quats_wxyz=body.gaussians.quats_wxyz, scales=body.gaussians.scales)
    still = torch.zeros(len(c2w), dtype=torch.int64)
    with torch.no_grad():
        first = body.show(rest, still, c2w, K, recon.size, background).images
    # A model shows its own frames a second; a recorded clip tells with its film which of its frames it took.
    fps = recon.fps if prior.fps_free or not prior.any_camera else prior.fps
    times_s = torch.arange(recon.frames, dtype=torch.float64) / fps
    return Shot(
        prompt=prompt,
        c2w=c2w,
        K=K,
        size=recon.size,
        first=first.clamp(0, 1),
        times_s=times_s,
        background=background,
        front_azimuth_deg=opened.subject.front_azimuth_deg,
    )


def _threetofour(
    opened: Opened, prior: Prior, prompt: str, config: AnimateConfig, device: torch.device, generator: Any
) -> Plan:
    """The two stages of 3to4D, and one in which the mesh follows what the field shows: a field has no mesh."""
    mesh, dynamic = opened.mesh, config.dynamic
    assert mesh is not None, "a Gaussian scene came as far as a method of meshes"
    raycaster = Raycaster(mesh)
    nerf = StaticDynamicNerf(config.nerf, generator=generator).to(device)
    body = opened.body(config, device)
    deformation = Deformation(config.deformation, num_frames=dynamic.frames, generator=generator).to(device)
    follow = _following(config)

    def filmed() -> Footage:
        c2w = ring(follow, mesh.front_azimuth_deg).c2w.to(device)
        return film_field(nerf, c2w, config, prior.fps, prior.background or config.background, size=follow.size)

    stages: list[Stage] = [
        StaticField(nerf, mesh, raycaster, config),
        Distillation(nerf, mesh, raycaster, prior, prompt, config),
        Reconstruction(body, deformation, filmed, follow, name="mesh"),
    ]
    modules: dict[str, nn.Module] = {"nerf": nerf, "deformation": deformation}
    for stage in stages:
        stage.modules = modules
    times_s = torch.arange(dynamic.frames, dtype=torch.float64) / prior.fps
    return Plan(stages=stages, body=body, deformation=deformation, times_s=times_s, nerf=nerf)


def _following(config: AnimateConfig) -> ReconstructionConfig:
    """Stage 1 of Animate3D on the field's own video, with the cameras of 3to4D's distance and lens."""
    dynamic = config.dynamic
    return replace(config.recon, frames=dynamic.frames, distance=dynamic.distance, fov_y_deg=dynamic.fov_y_deg)
