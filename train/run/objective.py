"""The loss: clean latents become noisy ones, and a prediction becomes a number.

Frame 0 of every view stays clean and is never in the loss. Timestep and noise of a clip come from its own seed, so a
clip costs the same in any batch, on any rank. Sources: DDPM (arXiv 2006.11239, eq. 4), v-prediction (arXiv 2202.00512,
section 4), min-SNR weights (arXiv 2303.09556, section 3.4); frame 0 after Animate3D (arXiv 2407.11398, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["QUARTERS", "Loss", "Noised", "loss", "min_snr_weights", "noised", "per_frame", "quarters"]

QUARTERS = 4
"""Ranges of timesteps that the log tells apart."""


@dataclass(frozen=True)
class Noised:
    """What the network gets and what it should say."""

    noisy: Tensor
    """(B, V, F, C, H, W) float32; frame 0 is the clean one."""
    noise: Tensor
    """The noise that was drawn, frame 0 included, where it is not used."""
    timesteps: Tensor
    """(B,) int64, one a clip."""
    target: Tensor
    """(B, V, F, C, H, W) float32; frame 0 means nothing."""


@dataclass(frozen=True)
class Loss:
    """A loss, whole and by clip."""

    mean: Tensor
    """() float32, weighted; what is optimised."""
    per_sample: Tensor
    """(B,) float32, detached, without weights: the mean squared error of a clip."""


def noised(latents: Tensor, noise_seeds: Sequence[int], scheduler: Any, *, timesteps: Tensor | None = None) -> Noised:
    """Noise on all frames but the first.

    Args:
        latents: (B, V, F, C, H, W), scaled as the network wants them; any device and type.
        noise_seeds: one a clip, 0 to 2**63 - 1; decides its timestep, then its noise.
        scheduler: a diffusers scheduler with ``alphas_cumprod``; its config says what is predicted.
        timesteps: (B,) int64, these instead of drawn ones; the noise stays the same.

    Returns:
        float32 on the latents' device; drawn on the CPU, because a GPU's generator draws other numbers.
    """
    assert len(noise_seeds) == len(latents), f"found {len(noise_seeds)} seeds for {len(latents)} clips"
    drawn, noise = zip(*(_draw(seed, latents.shape[1:], scheduler) for seed in noise_seeds), strict=True)
    clean, noise = latents.float(), torch.stack(noise).to(latents.device)
    timesteps = (torch.stack(drawn) if timesteps is None else timesteps).to(latents.device)
    kept = scheduler.alphas_cumprod.to(latents.device, torch.float32)[timesteps].reshape(-1, 1, 1, 1, 1, 1)
    signal, strength = kept.sqrt(), (1 - kept).sqrt()
    noisy = signal * clean + strength * noise
    noisy[:, :, 0] = clean[:, :, 0]
    targets = {"epsilon": noise, "v_prediction": signal * noise - strength * clean, "sample": clean}
    target = targets[_kind(scheduler)]
    return Noised(noisy, noise, timesteps, target)


def loss(pred: Tensor, truth: Noised, scheduler: Any, gamma: float) -> Loss:
    """Mean squared error over frames 1 and later, weighted by min-SNR where gamma is not 0.

    Args:
        pred: (B, V, F, C, H, W) of the network, F at least 2; compared in float32.
        truth: of `noised`.
        scheduler: the one that made it.
        gamma: of the weights; 0 is the plain mean.
    """
    squared = (pred[:, :, 1:].float() - truth.target[:, :, 1:]) ** 2
    per_sample = squared.flatten(1).mean(1)
    weights = min_snr_weights(truth.timesteps, scheduler, gamma) if gamma else torch.ones_like(per_sample)
    return Loss((weights * per_sample).mean(), per_sample.detach())


def min_snr_weights(timesteps: Tensor, scheduler: Any, gamma: float) -> Tensor:
    """min(SNR, gamma), / SNR for epsilon, / (SNR + 1) for v: all the same weight on the clean image.

    Args:
        timesteps: (B,) int64.
        scheduler: with ``alphas_cumprod``; SNR = kept / (1 - kept).
        gamma: more than 0.

    Returns:
        (B,) float32. The last step of a zero-SNR schedule has weight 0; epsilon is refused there by the config.
    """
    kept = scheduler.alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    snr = kept / (1 - kept)
    per = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return snr.clamp(max=gamma) / per[_kind(scheduler)]


def per_frame(timesteps: Tensor, num_frames: int, frame0_time_zero: bool) -> Tensor:
    """What the network is told of time: (B,) as they are, or (B, F) with 0 at the clean frame 0."""
    if not frame0_time_zero:
        return timesteps
    told = timesteps[:, None].repeat(1, num_frames)
    told[:, 0] = 0
    return told


def quarters(truth: Noised, found: Loss, scheduler: Any) -> Tensor:
    """Sums for the log: (4, 2) float64, the unweighted loss and the count of clips in each quarter of the timesteps."""
    place = truth.timesteps * QUARTERS // scheduler.config.num_train_timesteps
    sums = torch.zeros(QUARTERS, 2, dtype=torch.float64, device=place.device)
    both = torch.stack([found.per_sample, torch.ones_like(found.per_sample)], 1)
    return sums.index_add(0, place, both.double())


def _draw(seed: int, shape: Sequence[int], scheduler: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    timestep = torch.randint(scheduler.config.num_train_timesteps, (), generator=generator)
    return timestep, torch.randn(tuple(shape), generator=generator)


def _kind(scheduler: Any) -> str:
    kind = scheduler.config.prediction_type
    assert kind in ("epsilon", "v_prediction", "sample"), f"prediction_type is {kind}, which this loss does not know"
    return kind
