"""An exact stand-in for a VAE: moves blocks of pixels into channels, and back.

Lets a small model learn on pixels through the code that a big one uses for latents; it learns and compresses nothing.
Same calls as diffusers' AutoencoderKL, as far as this project makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from manifests.errors import InputError

__all__ = ["ExactLatents", "PixelCodec", "PixelDecoded", "PixelEncoded"]

_LOGVAR = -30.0
"""Where diffusers' Gaussian clamps its log variance: no spread at all."""


@dataclass
class ExactLatents:
    """A distribution without spread, with the names of diffusers' DiagonalGaussianDistribution."""

    mean: Tensor

    @property
    def logvar(self) -> Tensor:
        return torch.full_like(self.mean, _LOGVAR)

    @property
    def std(self) -> Tensor:
        return torch.zeros_like(self.mean)

    @property
    def parameters(self) -> Tensor:
        """(N, 2C, h, w): means, then log variances."""
        return torch.cat([self.mean, self.logvar], 1)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The mean; the generator is there for the signature and is not advanced."""
        return self.mean


@dataclass
class PixelEncoded(BaseOutput):
    """What `encode` gives."""

    latent_dist: ExactLatents


@dataclass
class PixelDecoded(BaseOutput):
    """What `decode` gives: (N, 3, H, W)."""

    sample: Tensor


class PixelCodec(ModelMixin, ConfigMixin):
    """Space to depth and back, without weights.

    Args:
        patch_size: pixels in each direction that go into the channels of one latent position; a power of 2.
        latent_channels: 3 * patch_size ** 2; declared because configs of VAEs say it.
        block_out_channels: one entry for each halving and one more, as in AutoencoderKL; only their number counts.
        scaling_factor: latents are multiplied by it before noise is added.

    Raises:
        InputError: values that contradict each other.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        latent_channels: int = 12,
        block_out_channels: Sequence[int] = (12, 12),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        found, expected = (latent_channels, 2 ** (len(block_out_channels) - 1)), (3 * patch_size**2, patch_size)
        if found != expected:
            raise InputError(
                f"PixelCodec: found latent_channels and 2 ** (number of block_out_channels - 1) {found}, expected"
                f" {expected} for patch_size {patch_size}; make the three agree"
            )
        # A module without any tensor has no device in diffusers' eyes, and nothing to save.
        self.register_buffer("place", torch.zeros((), dtype=torch.uint8))

    @property
    def dtype(self) -> torch.dtype:
        """float32 whatever the module was cast to: bytes do not fit into bf16, and there is no work to save."""
        return torch.float32

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent position, in each direction."""
        return self.config.patch_size

    def encode(self, pixels: Tensor) -> PixelEncoded:
        """(N, 3, H, W) in [-1, 1] to latents (N, latent_channels, H / patch_size, W / patch_size).

        Raises:
            InputError: another shape, or sides that do not divide.
        """
        factor = self.config.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % factor or pixels.shape[3] % factor:
            raise InputError(
                f"pixels: found shape {tuple(pixels.shape)}, expected (N, 3, height, width) with sides that are"
                f" multiples of {factor}; change the size of the images"
            )
        return PixelEncoded(latent_dist=ExactLatents(F.pixel_unshuffle(pixels, factor)))

    def decode(self, latents: Tensor) -> PixelDecoded:
        """Inverse of `encode`.

        Raises:
            InputError: another number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise InputError(
                f"latents: found shape {tuple(latents.shape)}, expected (N, {self.config.latent_channels}, h, w); these"
                " are latents of another codec"
            )
        return PixelDecoded(sample=F.pixel_shuffle(latents, self.config.patch_size))
