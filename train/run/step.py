"""From a batch of clips to a loss: conditions, noise, prediction. The same for training and validation.

Nothing here knows of ranks, accumulation or optimisers, and nothing draws from a global generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.conditions import encode_images, encode_latents, encode_text, latents_of_moments
from train.config import TrainConfig
from train.run.objective import Loss, Noised, loss, noised, per_frame

__all__ = ["Inputs", "autocast", "inputs_of", "loss_of", "runs_in_bf16"]


@dataclass(frozen=True)
class Inputs:
    """What the network reads about B clips, on its device."""

    latents: Tensor
    """(B, V, F, C, h, w) float32, clean."""
    text: Tensor
    """(B, T, D)."""
    camera: Tensor | None
    """(B, V, 16) float32; None where the network has none."""
    image: Tensor | None
    """(B, V, D) of frame 0, zeros where dropped; None where the network has no adapter."""
    noise_seeds: list[int]
    """One a clip."""


def runs_in_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the forward pass is in bf16."""
    return config.compute.precision == "bf16" or (config.compute.precision == "auto" and device.type == "cuda")


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """The precision of the forward pass, as a context; bf16 needs no scaled loss."""
    return torch.autocast(device.type, torch.bfloat16, enabled=runs_in_bf16(config, device))


def inputs_of(pipeline: Any, batch: dict[str, Any], device: torch.device) -> Inputs:
    """Runs the frozen networks.

    Args:
        pipeline: `train.pipeline.MVAnimatePipeline`, its networks on the device.
        batch: of `train.data.clips.collate`.
        device: where to.
    """
    seeds = [int(seed) for seed in batch["noise_seed"]]
    if "moments" in batch:
        moments = batch["moments"].to(device, non_blocking=True)
        latents = latents_of_moments(moments, pipeline.vae.config.scaling_factor, seeds)
        frame0 = batch["frame0"]
    else:
        pixels = batch["pixels"].to(device, non_blocking=True)
        latents, frame0 = encode_latents(pipeline.vae, pixels, seeds), pixels[:, :, 0]
    text = encode_text(pipeline.tokenizer, pipeline.text_encoder, batch["caption"]).float()
    image = camera = None
    if pipeline.unet.config.mv2v_adapter:
        image = encode_images(pipeline.image_encoder, pipeline.feature_extractor, frame0.to(device)).float()
        image = image * (~torch.as_tensor(batch["drop_image"], device=device))[:, None, None]
    if pipeline.unet.config.camera_embed_dim:
        camera = batch["camera"].to(device)
    return Inputs(latents, text, camera, image, seeds)


def loss_of(
    unet: nn.Module, scheduler: Any, given: Inputs, config: TrainConfig, *, timesteps: Tensor | None = None
) -> tuple[Noised, Loss]:
    """Noise, prediction and loss of a batch.

    Args:
        unet: the network, wrapped for data-parallel training or not.
        scheduler: of `train.models.build.scheduler_of`.
        given: of `inputs_of`.
        config: its objective and precision.
        timesteps: (B,) these instead of drawn ones.
    """
    device = given.latents.device
    truth = noised(given.latents, given.noise_seeds, scheduler, timesteps=timesteps)
    time = per_frame(truth.timesteps, truth.noisy.shape[2], config.objective.frame0_time_zero)
    with autocast(config, device):
        pred = unet(truth.noisy, time, given.text, camera=given.camera, image_embeds=given.image, return_dict=False)[0]
    return truth, loss(pred, truth, scheduler, config.objective.min_snr_gamma)
