"""Refuses, before any work, what the parts of a run cannot do together although each is fine alone."""

from __future__ import annotations

from typing import Any

from manifests.errors import InputError
from train.codec import codec_sha256
from train.conditions import spatial_factor
from train.config import DataConfig

__all__ = ["check_shapes"]


def check_shapes(data: DataConfig, pipeline: Any, modality: dict[str, Any]) -> None:
    """Sample, VAE and network fit together.

    Args:
        data: the sample's shape and source.
        pipeline: `train.pipeline.MVAnimatePipeline`.
        modality: entry of dataset.json of what is read.

    Raises:
        InputError: no frame to learn from, a size that does not divide, a VAE with other channels than the network, or
            latents of another VAE.
    """
    vae, unet = pipeline.vae, pipeline.unet
    if data.frames < 2:
        raise InputError(f"--frames: found {data.frames}, expected at least 2; frame 0 is given and never in the loss")
    factor = spatial_factor(vae) * unet.spatial_factor
    if data.size % factor:
        raise InputError(
            f"--size: found {data.size}, expected a multiple of {factor}, by which the networks divide; choose"
            f" {max(1, round(data.size / factor)) * factor}"
        )
    if vae.config.latent_channels != unet.config.in_channels:
        raise InputError(
            f"--base: found a VAE of {vae.config.latent_channels} channels and a UNet for {unet.config.in_channels},"
            " expected the same number; take both from one model"
        )
    if data.source == "latents":
        made, ours = modality["vae_sha256"], codec_sha256(vae)
        if made != ours:
            raise InputError(
                f"--source latents: found latents of VAE {made[:16]}, expected {ours[:16]}, the model's; make others"
                " with `mvv latents`, or train with --source rgb"
            )
