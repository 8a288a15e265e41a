"""Sizes of DynamiCrafter's five networks, and what the three released models differ in.

Numbers only; nothing is loaded here. Source: Doubiiu/DynamiCrafter, configs/inference_{256,512,1024}_v1.0.yaml and
scripts/run.sh; OpenCLIP's ViT-H-14.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from train.convert.mvdream import SD15

__all__ = ["RELEASED", "DynamiCrafterConfig", "ResamplerConfig", "TextConfig", "UNetConfig", "VisionConfig"]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The video network."""

    latent_channels: int = 4
    """Of the frames; as many come from the image in front, and as many are predicted."""
    channels: int = 320
    """Of the finest level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level, times `channels`."""
    attention_levels: tuple[int, ...] = (0, 1, 2)
    """Levels with transformers, the finest is 0."""
    blocks: int = 2
    """Residual blocks of a level, on the way down."""
    head_channels: int = 64
    """Of an attention head."""
    first_heads: int = 8
    """Of the attention over frames behind the first convolution."""
    context_channels: int = 1024
    """Of a text or image token."""
    learnt_image_scale: bool = True
    """A learnt weight on what comes from the image tokens; in the 256 model only."""


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    """Image features to tokens."""

    channels: int = 1024
    """Of a query inside."""
    depth: int = 4
    """Layers."""
    head_channels: int = 64
    """Of an attention head."""
    heads: int = 12
    """Of attention."""
    tokens_per_frame: int = 16
    """Queries, and so tokens, of a frame."""
    frames: int = 16
    """Of a video; the model takes no other number."""
    in_channels: int = 1280
    """Of an image feature."""
    out_channels: int = 1024
    """Of a token."""
    expansion: int = 4
    """Of the layers between looks."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """OpenCLIP's text tower."""

    vocabulary: int = 49408
    """Tokens that it knows."""
    tokens: int = 77
    """Of a text, begin and end included."""
    channels: int = 1024
    """Of a token."""
    heads: int = 16
    """Of attention."""
    layers: int = 24
    """As stored; the last one is not used."""
    embedding: int = 1024
    """Of the space that texts and images share; stored and not used."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """OpenCLIP's image tower, up to its last tokens."""

    size: int = 224
    """Height and width of its images, pixels."""
    patch: int = 14
    """Height and width of what becomes one token, pixels."""
    channels: int = 1280
    """Of a token."""
    heads: int = 16
    """Of attention."""
    layers: int = 32
    """All of them used."""


@dataclass(frozen=True, kw_only=True)
class DynamiCrafterConfig:
    """One model: its networks and how it is asked."""

    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the network gives."""
    zero_terminal_snr: bool = False
    """The last noise level has no signal left."""
    base_scale: float = 1.0
    """Latents are scaled by 1 at timestep 0, falling to this from `turning_step` on; 1 leaves them."""
    turning_step: int = 400
    """Where `base_scale` is reached."""
    stride: int = 3
    """What the network is told: the frame stride (256) or frames a second (512, 1024)."""
    size: int = 256
    """Height and width it was trained on, pixels; 0: trained on wide frames, takes any."""
    trailing: bool = False
    """Sampling starts from the last timestep."""
    guidance_rescale: float = 0.0
    """When sampling."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    vae: Mapping[str, Any] = field(default_factory=lambda: SD15["vae"])
    """Of diffusers' AutoencoderKL."""


def _wide(base_scale: float, stride: int) -> DynamiCrafterConfig:
    return DynamiCrafterConfig(
        prediction="v",
        zero_terminal_snr=True,
        base_scale=base_scale,
        stride=stride,
        size=0,
        trailing=True,
        guidance_rescale=0.7,
        unet=UNetConfig(learnt_image_scale=False),
    )


RELEASED: dict[str, DynamiCrafterConfig] = {
    "256": DynamiCrafterConfig(),
    "512": _wide(0.7, 24),
    "1024": _wide(0.3, 10),
}
"""Model by the width that it is named after."""
