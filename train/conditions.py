"""From captions and images to what the UNet reads: text states, image embeddings, latents; and latents to images.

Frozen networks only, no gradients. Every random draw is seeded by the clip, so nothing here depends on which clips
share a batch. Sources: SD-1.5's and IP-Adapter's use of CLIP; the order of steps of transformers' CLIPImageProcessor.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests import seeds
from manifests.errors import InputError

__all__ = [
    "decode_latents",
    "encode_images",
    "encode_latents",
    "encode_moments",
    "encode_text",
    "from_unit",
    "image_inputs",
    "latents_of_moments",
    "spatial_factor",
    "to_unit",
]

_EXACT_LOGVAR = -30.0
"""diffusers' lower limit of a log variance; here it means no spread."""


@torch.no_grad()
def encode_text(tokenizer: Any, text_encoder: nn.Module, captions: Sequence[str]) -> Tensor:
    """Last hidden states of CLIP's text encoder, padded to the tokenizer's length, without a mask, as SD-1.5 has them.

    Args:
        tokenizer: transformers' CLIPTokenizer.
        text_encoder: transformers' CLIPTextModel.
        captions: one a clip; "" is the text of guidance's unconditional branch.

    Returns:
        (B, T, C) in the encoder's dtype. A longer text is cut, with a warning that counts what was.
    """
    length = tokenizer.model_max_length
    how = {"max_length": length, "padding": "max_length", "truncation": True}
    ids = tokenizer(list(captions), return_tensors="pt", **how).input_ids
    for number in (ids[:, -2] != tokenizer.pad_token_id).nonzero().flatten().tolist():
        found = len(tokenizer(captions[number], verbose=False).input_ids)
        if found > length:
            begin = " ".join(captions[number][:40].split())
            warnings.warn(
                f'text "{begin}...": found {found} tokens, expected at most {length}; the last {found - length} are'
                " cut",
                stacklevel=2,
            )
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state


def image_inputs(feature_extractor: Any, pixels: Tensor) -> Tensor:
    """What CLIPImageProcessor gives, computed on the device where the images are.

    Args:
        feature_extractor: gives size, mean and standard deviation.
        pixels: uint8 (N, 3, S, S).

    Returns:
        (N, 3, size, size) float32.

    Raises:
        InputError: another dtype, or images that are not square.
    """
    _check_pixels(pixels, 4)
    size = feature_extractor.crop_size["height"]
    resized = F.interpolate(pixels.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    # The processor resizes bytes, so it rounds before it normalises; bicubic weights overshoot at edges.
    resized = resized.round().clamp(0, 255) / 255
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (feature_extractor.image_mean, feature_extractor.image_std)
    )
    return (resized - mean) / std


@torch.no_grad()
def encode_images(image_encoder: nn.Module, feature_extractor: Any, pixels: Tensor) -> Tensor:
    """CLIP embeddings of images.

    Args:
        image_encoder: transformers' CLIPVisionModelWithProjection.
        feature_extractor: its CLIPImageProcessor.
        pixels: uint8 (..., 3, S, S), composited.

    Returns:
        (..., D) in the encoder's dtype.
    """
    flat = image_inputs(feature_extractor, pixels.to(image_encoder.device).flatten(0, -4))
    return image_encoder(flat.to(image_encoder.dtype)).image_embeds.unflatten(0, pixels.shape[:-3])


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 0 to 255 to float32 -1 to 1."""
    return pixels.float() / 127.5 - 1


def from_unit(values: Tensor) -> Tensor:
    """Inverse of `to_unit`: rounded and clamped to uint8."""
    return ((values.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def spatial_factor(vae: nn.Module) -> int:
    """Pixels a latent position, in each direction."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


@torch.no_grad()
def encode_moments(vae: nn.Module, pixels: Tensor, *, chunk: int = 16) -> Tensor:
    """Means and log variances that the VAE gives, not scaled; what a latent cache stores.

    Args:
        vae: AutoencoderKL or PixelCodec.
        pixels: uint8 (..., 3, S, S), composited.
        chunk: images at a time; bounds memory.

    Returns:
        (..., 2C, h, w) float32.

    Raises:
        InputError: another dtype, or a size that does not divide.
    """
    _check_pixels(pixels, None)
    factor = spatial_factor(vae)
    if pixels.shape[-1] % factor:
        raise InputError(
            f"pixels: found size {pixels.shape[-1]}, expected a multiple of {factor}; choose another --size"
        )
    parts = pixels.flatten(0, -4).split(chunk)
    moments = [vae.encode(to_unit(part.to(vae.device)).to(vae.dtype)).latent_dist.parameters.float() for part in parts]
    return torch.cat(moments).unflatten(0, pixels.shape[:-3])


def latents_of_moments(moments: Tensor, scaling_factor: float, noise_seeds: Sequence[int] | None) -> Tensor:
    """Latents drawn from what `encode_moments` gave.

    Args:
        moments: (B, V, F, 2C, h, w), any float type.
        scaling_factor: of the VAE's config.
        noise_seeds: one a clip; None takes the means. The draw does not repeat the diffusion noise of the same seed.

    Returns:
        (B, V, F, C, h, w) float32, times `scaling_factor`.
    """
    mean, logvar = moments.float().chunk(2, dim=-3)
    if noise_seeds is not None:
        assert len(noise_seeds) == len(moments), f"found {len(noise_seeds)} seeds for {len(moments)} clips"
        std = torch.exp(0.5 * logvar.clamp(_EXACT_LOGVAR, 20)).masked_fill(logvar <= _EXACT_LOGVAR, 0)
        mean = mean + std * torch.stack([_vae_noise(seed, mean.shape[1:]) for seed in noise_seeds]).to(mean.device)
    return mean * scaling_factor


def _vae_noise(seed: int, shape: torch.Size) -> Tensor:
    # On the CPU, so that every device draws the same; with a key of its own, because `seed` itself seeds the diffusion
    # noise, and a latent that carries some of the noise it will be hidden under is easier to find than it should be.
    key = int.from_bytes(seeds.digest(seed, "vae")[:8]) >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(key))


def encode_latents(
    vae: nn.Module, pixels: Tensor, noise_seeds: Sequence[int] | None = None, *, chunk: int = 16
) -> Tensor:
    """Scaled latents of clips.

    Args:
        vae: AutoencoderKL or PixelCodec.
        pixels: uint8 (B, V, F, 3, S, S), composited.
        noise_seeds: one a clip, the latents are then drawn; None takes the means.
        chunk: images at a time; bounds memory.

    Returns:
        (B, V, F, C, h, w) float32.
    """
    return latents_of_moments(encode_moments(vae, pixels, chunk=chunk), vae.config.scaling_factor, noise_seeds)


@torch.no_grad()
def decode_latents(vae: nn.Module, latents: Tensor, *, chunk: int = 16) -> Tensor:
    """Images of latents; each is decoded without regard to the others.

    Args:
        vae: AutoencoderKL or PixelCodec.
        latents: (B, V, F, C, h, w), scaled.
        chunk: images at a time; bounds memory.

    Returns:
        uint8 (B, V, F, 3, S, S).
    """
    parts = (latents / vae.config.scaling_factor).flatten(0, -4).split(chunk)
    images = [from_unit(vae.decode(part.to(vae.device, vae.dtype)).sample) for part in parts]
    return torch.cat(images).unflatten(0, latents.shape[:-3])


def _check_pixels(pixels: Tensor, ndim: int | None) -> None:
    shape = tuple(pixels.shape)
    good = pixels.dtype == torch.uint8 and len(shape) >= 4 and shape[-3] == 3 and shape[-2] == shape[-1]
    if not good or ndim not in (None, len(shape)):
        raise InputError(
            f"pixels: found {pixels.dtype} {shape}, expected uint8 (..., 3, size, size); composite RGBA on a background"
            " and crop it to a square"
        )
