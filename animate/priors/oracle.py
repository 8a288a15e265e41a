"""`Oracle`: knows how the object truly moves and shows it through any camera, at every noise level.

With it a whole method can be measured against the truth without any weights. It renders by ray casting the animated
file, or with the Gaussians of the subject itself, which makes the truth an exact fixed point of distillation.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from animate.priors.known import Known
from animate.priors.true_motion import PointsAt
from animate.shot import Footage, Shot
from animate.splat.rasterize import Backend, rasterize
from animate.subject.gaussians import BoundGaussians
from animate.subject.mesh import RestMesh

__all__ = ["Oracle", "Render", "raycast_truth", "splat_truth"]

_SPLATTED = 16
"""Images drawn at a time; bounds memory."""


class Render(Protocol):
    """Draws the truth.

    Args:
        times_s: (F,) seconds from frame 0.
        c2w: (V, 4, 4).
        K: (V, 3, 3) pixels.
        size: height and width, pixels.

    Returns:
        images (V, F, 3, size, size) float32, sRGB-encoded, premultiplied by coverage; coverage (V, F, 1, size, size).
    """

    def __call__(self, times_s: Tensor, c2w: Tensor, K: Tensor, size: int) -> tuple[Tensor, Tensor]: ...


class Oracle(Known):
    """The true motion behind a denoiser's face.

    Args:
        render: draws the truth.
        name: as the user gave it.
        factor: pixels a latent position, in each direction.
        err_on_background: how far its predictions are wrong where the object neither is nor was at rest, in units of
            latents from -1 to 1; a fixed pattern that drifts with the frames. The film and frame 0 have none of it.
        keeps_look: as an image-to-video model does, it goes on from the picture that it is given: what that one shows
            otherwise than the truth's own frame 0, because it was drawn otherwise, stays so.
    """

    def __init__(
        self,
        render: Render,
        *,
        name: str = "oracle",
        factor: int = 1,
        err_on_background: float = 0.0,
        keeps_look: bool = False,
    ) -> None:
        super().__init__(name, factor=factor)
        self.render, self.err_on_background, self.keeps_look = render, err_on_background, keeps_look

    def _filmed(self, shot: Shot) -> Footage:
        images, masks = self.render(shot.times_s, shot.c2w, shot.K, shot.size)
        expected = (shot.num_views, shot.num_frames, 3, shot.size, shot.size)
        assert tuple(images.shape) == expected, f"rendered {tuple(images.shape)}, expected {expected}"
        background = torch.tensor(shot.background, dtype=images.dtype, device=images.device)[:, None, None]
        return Footage(
            images=images + (1 - masks) * background,
            masks=masks,
            c2w=shot.c2w,
            K=shot.K,
            times_s=shot.times_s,
            background=shot.background,
        )

    def _clean(self, shot: Shot) -> Tensor:
        clean = super()._clean(shot)
        if self.keeps_look:
            clean = clean + (self.encode(shot.first[:, None]).to(clean) - clean[:, :1])
        if not self.err_on_background:
            return clean
        masks = self._truth(shot).masks
        seen = torch.maximum(masks, masks[:, :1]).flatten(0, 1)
        away = (torch.nn.functional.max_pool2d(seen, self.factor) == 0).unflatten(0, masks.shape[:2])
        return clean + self.err_on_background * away * _drifting(clean)


def splat_truth(bound: BoundGaussians, points_at: PointsAt, *, backend: Backend = "auto") -> Render:
    """Draws the truth with the subject's own Gaussians.

    Args:
        bound: Gaussians of the subject.
        points_at: as `truth_points` gives it.
        backend: see `animate.splat.rasterize`.
    """

    def render(times_s: Tensor, c2w: Tensor, K: Tensor, size: int) -> tuple[Tensor, Tensor]:
        gaussians, views, frames = bound.gaussians.to(c2w.device), len(c2w), len(times_s)
        points = torch.as_tensor(points_at(times_s.cpu().numpy()), dtype=torch.float32)
        means = bound.positions(points.to(bound.weights.device)).to(c2w.device)
        found = []
        for part in torch.cartesian_prod(torch.arange(views), torch.arange(frames)).split(_SPLATTED):
            view, frame = part.unbind(1)
            colors = gaussians.colors if gaussians.sh is None else gaussians.colors_seen(c2w[view])
            splats = rasterize(
                means[frame], gaussians.quats_wxyz, gaussians.scales, gaussians.opacities, colors,
                c2w[view], K[view], (size, size), backend=backend,
            )  # fmt: skip
            found.append(torch.cat([splats.images, splats.alphas], 1))
        both = torch.cat(found).unflatten(0, (views, frames))
        return both[:, :, :3], both[:, :, 3:]

    return render


def raycast_truth(truth: RestMesh, *, samples: int = 2) -> Render:
    """Draws an animated mesh by ray casting.

    Args:
        truth: as `animate.priors.true_motion.open_truth` gave it.
        samples: rays a pixel, along each axis.
    """
    from animate.subject.raycast import Raycaster

    caster, animation = Raycaster(truth), truth.animation
    assert animation is not None, "the truth has no motion"

    def render(times_s: Tensor, c2w: Tensor, K: Tensor, size: int) -> tuple[Tensor, Tensor]:
        # Channels hold their last key beyond it, so the motion stops at its end and does not begin again.
        vertices = truth.posed(animation, truth.time_s + times_s.cpu().numpy())
        cameras = c2w.cpu().numpy().astype(np.float64), K.cpu().numpy().astype(np.float64)
        rgba = []
        for posed in vertices:
            seen = caster.render(posed, *cameras, size, samples=samples)
            rgba.append(np.concatenate([seen.rgb, seen.alpha[..., None]], -1))
        both = torch.from_numpy(np.stack(rgba, 1).astype(np.float32)).permute(0, 1, 4, 2, 3).to(c2w.device)
        return both[:, :, :3].contiguous(), both[:, :, 3:].contiguous()

    return render


def _drifting(latents: Tensor) -> Tensor:
    """(F, C, h, w) smooth waves of amplitude 1 across the picture, another one in each channel; no chance in it."""
    _, frames, channels, height, width = latents.shape
    at = {"dtype": latents.dtype, "device": latents.device}
    f, c, y, x = torch.meshgrid(
        torch.arange(frames, **at) / frames,
        torch.arange(channels, **at) / channels,
        (torch.arange(height, **at) + 0.5) / height,
        (torch.arange(width, **at) + 0.5) / width,
        indexing="ij",
    )
    return torch.sin(2 * math.pi * (3 * x + f + c)) * torch.cos(2 * math.pi * (2 * y + c))
