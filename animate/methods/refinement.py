"""Stage 2 of Animate3D: the motion as the prior would have it from any side, held to what stage 1 found.

A step films the body through orthogonal cameras drawn anew, asks the prior how the clip should look (4D-SDS), and
compares the body through the cameras of stage 1 with the renders that stage 1 ended with. Source: Animate3D's released
system and configuration; unlike there, the energy that keeps it rigid sees every moved frame.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from animate.body import Body
from animate.config import AnimateConfig
from animate.fields.deformation import Deformation
from animate.methods.reconstruction import ADAM_EPS, Held, Weights, arap_term, follow_footage
from animate.priors.prior import Guidance, Prior
from animate.run.stage import Stage
from animate.sds import sds_loss, timestep_of
from animate.shot import Footage, Shot, intrinsics_of
from animate.viewpoints import orthogonal

__all__ = ["Refinement"]


class Refinement(Stage):
    """Distils the prior into the motion.

    Args:
        body: what moves.
        deformation: how it moves; learnt, from where stage 1 left it.
        footage: the clip of stage 1, whose cameras are used again.
        prior: what is distilled.
        prompt: what happens.
        config: of the run.
        front_azimuth_deg: of the object's front in normalised space.
    """

    def __init__(
        self,
        body: Body,
        deformation: Deformation,
        footage: Footage,
        prior: Prior,
        prompt: str,
        config: AnimateConfig,
        front_azimuth_deg: float,
    ) -> None:
        self.name, self.steps, self.config = "refinement", config.refine.steps, config
        self.body, self.deformation, self.footage = body, deformation, footage
        self.prior, self.prompt, self.front_azimuth_deg = prior, prompt, front_azimuth_deg
        self.modules: dict[str, nn.Module] = {"deformation": deformation}
        self.frames = torch.arange(deformation.num_frames)

    def begin(self, folder: Path) -> torch.optim.Optimizer:
        self.reference = self._renders(self.config.refine.reconstruction_size)
        return torch.optim.Adam(self.deformation.parameter_groups(), eps=ADAM_EPS)

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        config, moved = self.config.refine, self.frames[1:]
        motion = self.deformation(
            self.body.points, moved, rotation=self.body.turns, scale=config.deform_scale and self.body.turns
        )
        held = Held(motion)
        losses = {"sds": self._distil(held, step, generator)}
        losses |= follow_footage(
            self.body,
            self.body.posed(held.motion),
            moved,
            self.reference,
            Weights(config.rgb_weight, config.mask_weight),
            generator=generator,
            chunk=self.config.recon.chunk,
            visible_gradient=self.config.recon.visible_gradient,
        )
        arap = arap_term(self.body, held.motion.positions, self.config.recon, config.arap_weight, generator)
        if arap.requires_grad:
            arap.backward()
        held.release()
        losses["arap"] = float(arap.detach())
        losses["loss"] = sum(losses.values())
        return losses

    def _distil(self, held: Held, step: int, generator: torch.Generator) -> float:
        config, prior = self.config.refine, self.prior
        if not config.sds_weight:
            return 0.0
        shot = self._shot(generator)
        images = self._film(held, shot)
        leaf = images.detach().requires_grad_()
        latents = prior.encode(leaf)
        timestep = timestep_of(config.timestep_range, "uniform", step, self.steps, generator, len(prior.alphas_cumprod))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        guidance = Guidance(scale=config.guidance_scale, rescale=config.guidance_rescale)
        found = sds_loss(prior, latents, shot, timestep=timestep, noise=noise, guidance=guidance, form=config.sds_form)
        loss = config.sds_weight * found.loss
        loss.backward()
        assert leaf.grad is not None, "the prior's latents do not depend on the images"
        images.backward(leaf.grad)
        return float(loss.detach())

    def _shot(self, generator: torch.Generator) -> Shot:
        """Cameras drawn for a step, and the body at rest through them."""
        config, device = self.config.refine, self.body.points.device
        cameras = orthogonal(config, generator)
        c2w, K = cameras.c2w.to(device), intrinsics_of(cameras.fov_y_deg, config.size).to(device)
        background = self.prior.background or self.config.background
        with torch.no_grad():
            rest = self.body.posed(self.deformation(self.body.points, self.frames[:1]))
            still = torch.zeros(len(c2w), dtype=torch.int64)
            first = self.body.show(rest, still, c2w, K, config.size, background).images
        return Shot(
            prompt=self.prompt,
            c2w=c2w,
            K=K,
            size=config.size,
            first=first,
            times_s=self.footage.times_s,
            background=background,
            front_azimuth_deg=self.front_azimuth_deg,
        )

    def _film(self, held: Held, shot: Shot) -> Tensor:
        """(V, F, 3, S, S) of the body in motion, frame 0 at rest."""
        moved = self.body.posed(held.motion)
        frames = len(self.frames) - 1
        index = torch.cartesian_prod(torch.arange(shot.num_views), torch.arange(frames))
        shown = [
            self.body.show(moved, frame, shot.c2w[view], shot.K[view], shot.size, shot.background).images
            for view, frame in (part.unbind(1) for part in index.split(self.config.recon.chunk))
        ]
        images = torch.cat(shown).unflatten(0, (shot.num_views, frames))
        return torch.cat([shot.first[:, None], images], 1)

    def _renders(self, size: int) -> Footage:
        """What stage 1 ended with, through its cameras."""
        footage = self.footage
        scale = size / footage.images.shape[-1]
        K = footage.K.clone()
        K[:, :2] *= scale
        views, count = len(K), len(self.frames)
        index = torch.cartesian_prod(torch.arange(views), torch.arange(count))
        images, masks = [], []
        with torch.no_grad():
            posed = self.body.posed(self.deformation(self.body.points, self.frames))
            for part in index.split(self.config.recon.chunk):
                view, frame = part.unbind(1)
                shown = self.body.show(posed, frame, footage.c2w[view], K[view], size, footage.background)
                images.append(shown.images)
                masks.append(shown.alphas)
        return Footage(
            images=torch.cat(images).unflatten(0, (views, count)),
            masks=torch.cat(masks).unflatten(0, (views, count)),
            c2w=footage.c2w,
            K=K,
            times_s=footage.times_s,
            background=footage.background,
        )

    def preview(self) -> Tensor:
        with torch.no_grad():
            posed = self.body.posed(self.deformation(self.body.points, self.frames))
            footage, count = self.footage, len(self.frames)
            c2w, K = (camera[:1].expand(count, -1, -1) for camera in (footage.c2w, footage.K))
            size = footage.images.shape[-1]
            shown = self.body.show(posed, self.frames, c2w, K, size, footage.background).images
        both = torch.cat([footage.images[0], shown], -1)
        return (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
