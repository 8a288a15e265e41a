"""DDIM's step, exact for every count of steps, from the noise levels of a diffusers scheduler.

`DDIMScheduler.step` derives the following timestep by an integer division, which is off by some where the count does
not divide 1000 and then leaves noise in the result; otherwise the two agree. Source: DDIM (arXiv 2010.02502), eq. 12.
"""

from __future__ import annotations

from diffusers import DDIMScheduler
from torch import Tensor

from manifests.errors import InputError

__all__ = ["clean_latents", "ddim_step", "ddim_timesteps"]


def ddim_timesteps(scheduler: DDIMScheduler, num_steps: int) -> list[int]:
    """Noise levels to visit, highest first, spaced as the scheduler's config says.

    For some counts diffusers' list has one more than asked for, -1 (trailing) or 1000 (leading), which are no levels
    (diffusers 0.42.1); they are left out.
    """
    scheduler.set_timesteps(num_steps)
    levels = scheduler.config.num_train_timesteps
    return [timestep for timestep in scheduler.timesteps.tolist() if 0 <= timestep < levels]


def clean_latents(scheduler: DDIMScheduler, pred: Tensor, timestep: int, latents: Tensor) -> tuple[Tensor, Tensor]:
    """What a prediction says of the latents without noise, and of the noise.

    Args:
        scheduler: noise levels, and whether `pred` is noise, v or the clean latents.
        pred: as the UNet gives it.
        timestep: noise level of `latents`.
        latents: noisy ones.

    Returns:
        clean latents and noise, each as `latents`.

    Raises:
        InputError: the scheduler is for another kind of prediction.

    Source: DDIM, equation 12; v as in arXiv 2202.00512, appendix D.
    """
    alpha = scheduler.alphas_cumprod[timestep].to(latents.device)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return alpha.sqrt() * latents - (1 - alpha).sqrt() * pred, alpha.sqrt() * pred + (1 - alpha).sqrt() * latents
    if kind == "sample":
        return pred, (latents - alpha.sqrt() * pred) / (1 - alpha).sqrt()
    if kind != "epsilon":
        raise InputError(
            f"scheduler: found prediction_type {kind}, expected epsilon, v_prediction or sample; make one with"
            " scheduler_of"
        )
    return (latents - (1 - alpha).sqrt() * pred) / alpha.sqrt(), pred


def ddim_step(scheduler: DDIMScheduler, pred: Tensor, timestep: int, following: int | None, latents: Tensor) -> Tensor:
    """One deterministic step from one noise level to the following one; None is the end.

    Args:
        scheduler: noise levels.
        pred: as the UNet gives it, guided.
        timestep: noise level of `latents`.
        following: the next of `ddim_timesteps`.
        latents: noisy ones.
    """
    clean, noise = clean_latents(scheduler, pred, timestep, latents)
    alpha = scheduler.final_alpha_cumprod if following is None else scheduler.alphas_cumprod[following]
    alpha = alpha.to(latents.device)
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
