"""Score distillation: how a prior's opinion of rendered latents becomes a gradient on them, in two forms.

The prior is asked through `Prior.predict` and nothing flows back through it. Sources: Poole et al., "DreamFusion",
arXiv 2209.14988, equation 3 (noise form, weighted and put into a loss as 4D-fy does); Animate3D's released refinement
(clean form); 3to4D, arXiv 2412.20422, equation 5 (mask). Not here: guidance (`animate.guidance`), noise that is painted
on a sphere (`animate.sphere_noise`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from animate.priors.prior import Guidance, Prediction, Prior
from animate.shot import Shot
from manifests.errors import InputError

__all__ = ["Sds", "mask_weights", "sds_loss", "timestep_of"]


class Sds(NamedTuple):
    """One distillation term."""

    loss: Tensor
    """Scalar, unweighted; its gradient reaches the latents alone."""
    clean: Tensor
    """(V, F, C, h, w) where the prior would have the latents; frame 0 their own where it is the condition."""
    residual: Tensor
    """Scalar without gradient: root mean square of latents minus `clean` over the predicted frames, for the log."""


def sds_loss(
    prior: Prior,
    latents: Tensor,
    shot: Shot,
    *,
    timestep: int,
    noise: Tensor,
    guidance: Guidance,
    form: Literal["clean", "noise"] = "clean",
    weight: Tensor | None = None,
) -> Sds:
    """The distillation term of one shot.

    With z the latents, z0 and e the predicted clean latents and noise, m the weight, N the predicted images (all, or
    V (F - 1) where frame 0 is the condition), the gradient on the latents is

        clean form:  m (z - z0) / N                      the loss is m |z - z0|^2 / 2 N
        noise form:  m (1 - alpha_bar) (e - noise) / V   the loss is half the squared length of that, times V

    and zero on a frame 0 that is the condition. Where z0 and e are one prediction, the noise form is therefore
    m sqrt(alpha_bar (1 - alpha_bar)) (z - z0) / V: one direction, but another length at each timestep.

    Args:
        prior: what is distilled.
        latents: (V, F, C, h, w), of the rendered images, with gradient.
        shot: what is filmed.
        timestep: index into the prior's schedule.
        noise: (V, F, C, h, w) standard normal; its frame 0 is not used where that is the condition.
        guidance: of the prediction.
        form: distance to the predicted clean latents, or noise residual.
        weight: (V, F, 1, h, w) not negative, times the gradient point by point; None: 1.

    Raises:
        InputError: the prior's answer has another shape than the latents, or is not finite.

    Source: noise form: arXiv 2209.14988 equation 3 with w = 1 - alpha_bar, over the number of videos as in 4D-fy. Clean
    form: the released code's sum over V F images, divided by their number, times F / (F - 1). Mask: arXiv 2412.20422
    equation 5.
    """
    assert form in ("clean", "noise"), f"form is {form}"
    assert noise.shape == latents.shape, f"noise is {tuple(noise.shape)}, latents are {tuple(latents.shape)}"
    views, frames = latents.shape[:2]
    start = 1 if prior.first_frame_clean else 0
    assert frames > start, f"{frames} frame(s), of which {start} is the condition"
    pred = _ask(prior, latents.detach(), shot, timestep, noise, guidance)
    mask = _predicted(weight, latents, start)
    moving, clean = latents[:, start:], pred.clean[:, start:].to(latents)
    if form == "clean":
        loss = 0.5 * (mask * (moving - clean).square()).sum() / (views * (frames - start))
    else:
        spread = 1 - prior.alpha(timestep).to(latents)
        grad = mask * spread * (pred.noise - noise)[:, start:].to(latents)
        # |z - sg(z - grad)|^2 with the difference taken first: the gradient is then `grad` to the last bit.
        loss = 0.5 * (grad + (moving - moving.detach())).square().sum() / views
    kept = torch.cat([latents[:, :start].detach(), clean], 1)
    return Sds(loss, kept, (moving.detach() - clean).square().mean().sqrt())


def _ask(prior: Prior, latents: Tensor, shot: Shot, timestep: int, noise: Tensor, guidance: Guidance) -> Prediction:
    with torch.no_grad():
        pred = prior.predict(prior.noised(latents, noise, timestep), timestep, shot, guidance)
    for found in pred:
        if found.shape != latents.shape:
            raise InputError(
                f"--prior {prior.name}: found a prediction of shape {tuple(found.shape)}, expected that of the latents,"
                f" {tuple(latents.shape)}; take a prior made for this number of views, frames and pixels"
            )
        if not bool(torch.isfinite(found).all()):
            raise InputError(
                f"--prior {prior.name}: found NaN or infinity in its prediction at timestep {timestep}, expected"
                " numbers; check its weights, or run it in float32"
            )
    return pred


def _predicted(weight: Tensor | None, latents: Tensor, start: int) -> Tensor:
    """The weight of the predicted frames, 1 where there is none."""
    if weight is None:
        return latents.new_ones(())
    views, frames, _, height, width = latents.shape
    assert weight.shape == (views, frames, 1, height, width), f"weight is {tuple(weight.shape)}"
    return weight[:, start:].detach().to(latents)


def mask_weights(attention: Tensor, normalization: Literal["max", "minmax", "mean", "none"]) -> Tensor:
    """An attention map as the weight of a gradient, each frame of each view by itself.

    Args:
        attention: (V, F, 1, h, w), not negative.
        normalization: over the frame's maximum; stretched from its minimum and maximum to 0..1; over its mean; or as
            it is. A frame that is the same everywhere prefers no place and weighs 1 everywhere; one of zeros weighs 0.

    Returns:
        (V, F, 1, h, w), finite.

    Source: arXiv 2412.20422, section 3.4, which uses the map as it comes and does not name a normalisation.
    """
    assert attention.ndim == 5, f"attention is {tuple(attention.shape)}"
    assert bool((attention >= 0).all()), "attention is negative or not a number somewhere"
    if normalization == "none":
        return attention
    if normalization == "mean":
        return _ratio(attention, attention.mean((-3, -2, -1), keepdim=True))
    high = attention.amax((-3, -2, -1), keepdim=True)
    if normalization == "max":
        return _ratio(attention, high)
    assert normalization == "minmax", f"normalization is {normalization}"
    low = attention.amin((-3, -2, -1), keepdim=True)
    return torch.where(high > low, _ratio(attention - low, high - low), (high > 0).to(attention))


def _ratio(values: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, values / torch.where(whole > 0, whole, 1), 0)


def timestep_of(
    share_range: tuple[float, float],
    schedule: Literal["uniform", "decrease"],
    step: int,
    steps: int,
    generator: torch.Generator,
    num_timesteps: int,
) -> int:
    """Draws the timestep of an optimiser step.

    Args:
        share_range: lowest and highest timestep, both included, as shares of the prior's schedule.
        schedule: uniform throughout, or with an upper end that falls in a straight line to the middle of the range,
            where the last step finds it (4D-fy, too, ends its 0.98 at 0.5).
        step: from 0.
        steps: of the whole stage.
        generator: of the draw, on the CPU.
        num_timesteps: length of the prior's schedule.
    """
    low, high = (min(round(share * num_timesteps), num_timesteps - 1) for share in share_range)
    if schedule == "decrease":
        high = round(high - (high - low) / 2 * min(step / max(steps - 1, 1), 1))
    else:
        assert schedule == "uniform", f"schedule is {schedule}"
    return int(torch.randint(low, high + 1, (), generator=generator))
