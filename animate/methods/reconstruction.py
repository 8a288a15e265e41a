"""Stage 1 of Animate3D: the motion that a clip of a few fixed views shows, found by rendering and comparing.

The field is asked once for all points and frames of a step; images are then rendered and compared a few at a time,
each part's gradient being gathered at the Gaussians' centres, so that memory does not grow with views and frames.
Source: Animate3D's released system and configuration; its defects are named where they are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from animate.body import Body, Posed
from animate.config import ReconstructionConfig
from animate.fields.arap import arap_energy
from animate.fields.deformation import Deformation, Motion
from animate.run.stage import Stage
from animate.shot import Footage

__all__ = ["ADAM_EPS", "Held", "Reconstruction", "Weights", "arap_term", "fit_colors", "follow_footage"]

ARAP_POINTS = 512
"""Points over which the released weights of the as-rigid-as-possible energy are summed."""
ADAM_EPS = 1e-15


class Held:
    """A motion cut off from the field that gave it, so that many losses go back to it and the field is entered once.

    Attributes:
        motion: to be used in the losses.
    """

    def __init__(self, motion: Motion) -> None:
        self._given = [value for value in motion if value.requires_grad]
        self.motion = Motion(*(value.detach().requires_grad_(value.requires_grad) for value in motion))
        self._leaves = [value for value in self.motion if value.requires_grad]

    def release(self) -> None:
        """Sends what was gathered on to the field."""
        pairs = [(g, leaf.grad) for g, leaf in zip(self._given, self._leaves, strict=True) if leaf.grad is not None]
        if pairs:
            values, gradients = zip(*pairs, strict=True)
            torch.autograd.backward(values, gradients)


class Weights(NamedTuple):
    """Of the terms of the comparison with a clip."""

    rgb: float
    mask: float


class Reconstruction(Stage):
    """Makes the body follow a clip.

    Args:
        body: what moves.
        deformation: how it moves; learnt.
        footage: the clip, or what films it once the stage begins.
        config: steps, weights, curriculum.
        name: of the stage.
    """

    def __init__(
        self,
        body: Body,
        deformation: Deformation,
        footage: Footage | Callable[[], Footage],
        config: ReconstructionConfig,
        *,
        name: str = "reconstruction",
    ) -> None:
        self.name, self.steps, self.config = name, config.steps, config
        self.body, self.deformation, self._source = body, deformation, footage
        self.modules: dict[str, nn.Module] = {"deformation": deformation}

    def begin(self, folder: Path) -> torch.optim.Optimizer:
        footage = self._source if isinstance(self._source, Footage) else self._source()
        self.footage = _corrected(self.body, footage) if self.config.rest_relative else footage
        return torch.optim.Adam(self.deformation.parameter_groups(), eps=ADAM_EPS)

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        frames, scale = self._frames(step, generator)
        motion = self.deformation(self.body.points, frames, rotation=self.body.turns)
        held = Held(motion)
        config = self.config
        blur_px = config.blur_px * max(0.0, 1 - 2 * step / max(1, config.steps))
        losses = follow_footage(
            self.body,
            self.body.posed(held.motion),
            frames,
            self.footage,
            Weights(config.rgb_weight, config.mask_weight),
            generator=generator,
            chunk=config.chunk,
            visible_gradient=config.visible_gradient,
            blur_px=blur_px,
        )
        arap = scale * arap_term(self.body, held.motion.positions, config, config.arap_weight, generator)
        if arap.requires_grad:
            arap.backward()
        held.release()
        losses["arap"] = float(arap.detach())
        losses["loss"] = sum(losses.values())
        return losses

    def active(self, step: int) -> int:
        """Frames after the first that have joined by a step."""
        last, every = self.deformation.num_frames - 1, self.config.curriculum_steps
        return last if not every else min(last, 1 + step // every)

    def _frames(self, step: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """Frames of a step, the newest always among them, and how many joined ones each stands for."""
        active, wanted = self.active(step), self.config.frames_per_step
        if not wanted or wanted >= active:
            return torch.arange(1, active + 1), 1.0
        complete = active == self.deformation.num_frames - 1
        pool = active if complete else active - 1
        drawn = 1 + torch.randperm(pool, generator=generator)[: wanted if complete else wanted - 1]
        frames = drawn if complete else torch.cat([drawn, torch.tensor([active])])
        return frames.sort().values, active / wanted

    def preview(self) -> Tensor:
        with torch.no_grad():
            count = self.deformation.num_frames
            frames = torch.arange(count)
            posed = self.body.posed(self.deformation(self.body.points, frames, rotation=self.body.turns))
            footage, size = self.footage, self.footage.images.shape[-1]
            c2w, K = (camera[:1].expand(count, -1, -1) for camera in (footage.c2w, footage.K))
            shown = self.body.show(posed, frames, c2w, K, size, footage.background).images
            both = torch.cat([footage.images[0], shown], -1)
            return (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


def follow_footage(
    body: Body,
    posed: Posed,
    frames: Tensor,
    footage: Footage,
    weights: Weights,
    *,
    generator: torch.Generator | None = None,
    chunk: int = 16,
    visible_gradient: float = 1.0,
    blur_px: float = 0.0,
) -> dict[str, float]:
    """Compares posed Gaussians with a clip and leaves the gradients of the difference in what posed them.

    Args:
        body: whose Gaussians.
        posed: of `frames`, with gradients.
        frames: (F,) int64 frames of the clip.
        footage: the clip.
        weights: of colour and coverage, each a mean squared error over all images of the call.
        generator: of the Gaussians that a gradient reaches.
        chunk: images rendered at a time.
        visible_gradient: share of the Gaussians that an image's gradient reaches.
        blur_px: standard deviation of a blur of both sides.

    Returns:
        weighted losses ``rgb`` and ``mask``.
    """
    views, size = footage.c2w.shape[0], footage.images.shape[-1]
    count = views * len(frames)
    moving = {name: getattr(posed, name) for name in ("means", "quats_wxyz", "scales")}
    moving = {name: value for name, value in moving.items() if value.requires_grad}
    leaves = {name: value.detach().requires_grad_() for name, value in moving.items()}
    held = Posed(**({"means": posed.means, "quats_wxyz": posed.quats_wxyz, "scales": posed.scales} | leaves))
    index = torch.cartesian_prod(torch.arange(views), torch.arange(len(frames)))
    losses = {"rgb": 0.0, "mask": 0.0}
    for part in index.split(chunk):
        view, frame = part.unbind(1)
        thinned = _thinned(held, visible_gradient, generator)
        shown = body.show(thinned, frame, footage.c2w[view], footage.K[view], size, footage.background)
        images, masks = footage.images[view, frames[frame]], footage.masks[view, frames[frame]]
        share = len(part) / count
        pred, target = torch.cat([shown.images, shown.alphas], 1), torch.cat([images, masks], 1)
        if blur_px > 0.1:
            width = 2 * min(int(3 * blur_px) + 1, (size - 1) // 2) + 1
            pred, target = (gaussian_blur(x, [width, width], [blur_px, blur_px]) for x in (pred, target))
        error = (pred - target).square()
        rgb, mask = weights.rgb * error[:, :3].mean() * share, weights.mask * error[:, 3:].mean() * share
        (rgb + mask).backward()
        losses["rgb"] += float(rgb.detach())
        losses["mask"] += float(mask.detach())
    reached = [(value, leaves[name].grad) for name, value in moving.items() if leaves[name].grad is not None]
    if reached:
        values, gradients = zip(*reached, strict=True)
        torch.autograd.backward(values, gradients)
    return losses


@torch.no_grad()
def _corrected(body: Body, footage: Footage) -> Footage:
    """The clip with what the body shows at rest as its frame 0, the other frames differing from it as they did.

    Otherwise whatever the Gaussians get wrong at rest, along every outline, is explained by motion that is not there.
    """
    gaussians, views, size = body.gaussians, len(footage.c2w), footage.images.shape[-1]
    rest = Posed(means=gaussians.means[None], quats_wxyz=gaussians.quats_wxyz, scales=gaussians.scales)
    still = torch.zeros(views, dtype=torch.int64)
    shown = body.show(rest, still, footage.c2w, footage.K, size, footage.background)
    return replace(
        footage,
        images=footage.images + (shown.images - footage.images[:, 0])[:, None],
        masks=footage.masks + (shown.alphas - footage.masks[:, 0])[:, None],
    )


def _thinned(posed: Posed, share: float, generator: torch.Generator | None) -> Posed:
    """Only a drawn share of the Gaussians lets gradients through; the released renderer's way against overfitting."""
    if share >= 1:
        return posed
    count = posed.means.shape[1]
    keep = (torch.rand(count, generator=generator) < share).to(posed.means.device)[:, None]
    means = torch.where(keep, posed.means, posed.means.detach())
    return Posed(means=means, quats_wxyz=posed.quats_wxyz, scales=posed.scales)


def arap_term(
    body: Body, positions: Tensor, config: ReconstructionConfig, weight: float, generator: torch.Generator
) -> Tensor:
    """Weighted as-rigid-as-possible energy of moved points, summed over all frames given.

    In units of the sphere it is summed over as many points as the released code draws, the object's radius being 1
    there and 0.5 here; it then grows with the squared length of edges, so a weight suits one density of points. In
    units of edges it is a mean over points and neighbours, and a weight suits all. The released stage 2 leaves its last
    frame out, ours does not.

    Args:
        body: whose points.
        positions: (F, M, 3) moved points.
        config: which points and neighbours, and the unit.
        weight: of the term.
        generator: of the draws.
    """
    if not weight:
        return positions.new_zeros(())
    wanted, points = config.arap_neighbors, config.arap_points
    known = body.neighbors.draw(wanted, generator) if wanted else body.neighbors
    chosen = torch.randint(len(body.points), (points,), generator=generator) if points else None
    energy = arap_energy(body.points, positions, known, points=chosen).sum()
    count = points or len(body.points)
    if config.arap_unit == "sphere":
        return weight * energy * 4 * (ARAP_POINTS / count)
    edges = max(1.0, float(known.mask.sum()) * count / len(body.points))
    return weight * energy / (edges * body.squared_edge)


def fit_colors(body: Body, footage: Footage, steps: int) -> Body:
    """A body whose colours at rest are those of the clip's frame 0, with its light in them; unseen ones keep their own.

    Args:
        body: at rest.
        footage: its frame 0 shows the body at rest.
        steps: of Adam; 0 leaves the body as it is.
    """
    if not steps:
        return body
    gaussians = body.gaussians
    colors = gaussians.colors.clone().requires_grad_()
    optimizer = torch.optim.Adam([colors], lr=0.02)
    views, size = footage.c2w.shape[0], footage.images.shape[-1]
    frames = torch.zeros(views, dtype=torch.int64)
    rest = Posed(means=gaussians.means[None], quats_wxyz=gaussians.quats_wxyz, scales=gaussians.scales)
    for _ in range(steps):
        lit = replace(body, gaussians=replace(gaussians, colors=colors, sh=None))
        shown = lit.show(rest, frames, footage.c2w, footage.K, size, footage.background)
        optimizer.zero_grad()
        (shown.images - footage.images[:, 0]).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            colors.clamp_(0, 1)
    return replace(body, gaussians=replace(gaussians, colors=colors.detach(), sh=None))
