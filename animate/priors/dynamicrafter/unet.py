"""DynamiCrafter's video network: noisy latents beside the image's, text and image tokens in, its prediction out.

Own graph with the parameter names of the released checkpoints, so that their weights load without renaming. Inference
only: no dropout. Source: Doubiiu/DynamiCrafter, lvdm/modules/networks/openaimodel3d.py; DynamiCrafter (arXiv
2310.12190), section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from animate.priors.dynamicrafter.attention import SpatialTransformer, TemporalTransformer
from animate.priors.dynamicrafter.config import UNetConfig

__all__ = ["VideoUNet"]

# Letters of shapes: B videos, F frames, C channels, H W height and width; inside, B is frames of all videos.


class _TemporalConvolutions(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        for number in range(1, 5):
            # Identity: where training drops out, from the second on; the names count it.
            drop = [nn.Identity()] if number > 1 else []
            convolution = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
            self.add_module(f"conv{number}", nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), *drop, convolution))

    def forward(self, x_BCHW: Tensor, num_frames: int) -> Tensor:
        x = x_BCHW.unflatten(0, (-1, num_frames)).transpose(1, 2)
        for convolutions in self.children():
            x = convolutions(x)
        return x_BCHW + x.transpose(1, 2).flatten(0, 1)


class _ResBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, time_channels: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)
        # Spelled as in the checkpoints.
        self.temopral_conv = _TemporalConvolutions(out_channels)

    def forward(self, x_BCHW: Tensor, time_BC: Tensor, num_frames: int) -> Tensor:
        x = self.in_layers(x_BCHW) + self.emb_layers(time_BC)[:, :, None, None]
        return self.temopral_conv(self.skip_connection(x_BCHW) + self.out_layers(x), num_frames)


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.op(x_BCHW)


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2, mode="nearest"))


class _Given:
    """What every layer is given: (B, time), (B, text tokens, context), (B, image tokens, context), frames."""

    def __init__(self, time: Tensor, text: Tensor, image: Tensor, num_frames: int) -> None:
        self.time, self.text, self.image, self.num_frames = time, text, image, num_frames


class _Stage(nn.ModuleList):
    def forward(self, x_BCHW: Tensor, given: _Given) -> Tensor:
        for layer in self:
            if isinstance(layer, _ResBlock):
                x_BCHW = layer(x_BCHW, given.time, given.num_frames)
            elif isinstance(layer, SpatialTransformer):
                x_BCHW = layer(x_BCHW, given.text, given.image)
            elif isinstance(layer, TemporalTransformer):
                x_BCHW = layer(x_BCHW, given.num_frames)
            else:
                x_BCHW = layer(x_BCHW)
        return x_BCHW


class VideoUNet(nn.Module):
    """The network.

    Args:
        config: its sizes.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, time = config.channels, 4 * config.channels
        self.time_embed = _embedding(channels, time)
        self.fps_embedding = _embedding(channels, time)
        self.init_attn = _Stage([TemporalTransformer(channels, config.first_heads, config.head_channels, True)])
        self.input_blocks = nn.ModuleList([_Stage([nn.Conv2d(2 * config.latent_channels, channels, 3, padding=1)])])
        widths, width, last = [channels], channels, len(config.multipliers) - 1
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                self.input_blocks.append(self._stage(width, multiplier * channels, level in config.attention_levels))
                width = multiplier * channels
                widths.append(width)
            if level < last:
                self.input_blocks.append(_Stage([_Down(width)]))
                widths.append(width)
        self.middle_block = self._stage(width, width, True)
        self.middle_block.append(_ResBlock(width, width, time))
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for number in range(config.blocks + 1):
                has_attention = level in config.attention_levels
                stage = self._stage(width + widths.pop(), multiplier * channels, has_attention)
                width = multiplier * channels
                if level and number == config.blocks:
                    stage.append(_Up(width))
                self.output_blocks.append(stage)
        self.out = nn.Sequential(
            nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, config.latent_channels, 3, padding=1)
        )

    @property
    def size_multiple(self) -> int:
        """Latents' height and width that halve evenly all the way down are multiples of it."""
        return 2 ** (len(self.config.multipliers) - 1)

    def forward(
        self, latents: Tensor, first: Tensor, timesteps: Tensor, text: Tensor, image: Tensor, stride: Tensor
    ) -> Tensor:
        """The prediction, (B, F, C, H, W).

        Args:
            latents: (B, F, C, H, W) noisy ones.
            first: (B, 1, C, H, W) clean ones of the image, for all frames.
            timesteps: (B,) noise levels.
            text: (B, text tokens, context).
            image: (B, F x tokens of a frame, context), those of a frame together.
            stride: (B,) frame stride, or frames a second.
        """
        given = self._given(latents.shape[1], timesteps, text, image, stride)
        x = self.init_attn(self.input_blocks[0](_beside(latents, first), given), given)
        kept = [x]
        for stage in self.input_blocks[1:]:
            x = stage(x, given)
            kept.append(x)
        x = self.middle_block(x, given)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, kept.pop()], 1), given)
        return self.out(x).unflatten(0, latents.shape[:2])

    def first_weights(
        self, latents: Tensor, first: Tensor, timesteps: Tensor, text: Tensor, image: Tensor, stride: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first cross-attention's weights, at the latents' own size; nothing behind it is computed.

        Args: as in `forward`.

        Returns:
            (B, F, heads, H, W, text tokens) and (B, F, heads, H, W, image tokens of a frame); the last axis sums to 1.
        """
        assert 0 in self.config.attention_levels, "the finest level has no attention"
        given = self._given(latents.shape[1], timesteps, text, image, stride)
        x = self.init_attn(self.input_blocks[0](_beside(latents, first), given), given)
        block, transformer = self.input_blocks[1][:2]
        found = transformer.weights(block(x, given.time, given.num_frames), given.text, given.image)
        return tuple(part.unflatten(2, latents.shape[3:]).unflatten(0, latents.shape[:2]) for part in found)

    def _stage(self, channels: int, out_channels: int, has_attention: bool) -> _Stage:
        config = self.config
        stage = _Stage([_ResBlock(channels, out_channels, 4 * config.channels)])
        if has_attention:
            head, context = config.head_channels, config.context_channels
            stage.append(SpatialTransformer(out_channels, head, context, config.learnt_image_scale))
            stage.append(TemporalTransformer(out_channels, out_channels // head, head))
        return stage

    def _given(self, num_frames: int, timesteps: Tensor, text: Tensor, image: Tensor, stride: Tensor) -> _Given:
        def embedded(values: Tensor) -> Tensor:
            waves = get_timestep_embedding(values, self.config.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
            return waves.to(self.out[2].weight.dtype)

        time = self.time_embed(embedded(timesteps)) + self.fps_embedding(embedded(stride))
        image = image.unflatten(1, (num_frames, -1)).flatten(0, 1)
        return _Given(time.repeat_interleave(num_frames, 0), text.repeat_interleave(num_frames, 0), image, num_frames)


def _embedding(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, out_channels), nn.SiLU(), nn.Linear(out_channels, out_channels))


def _beside(latents: Tensor, first: Tensor) -> Tensor:
    """(frames of all videos, 2 C, H, W)."""
    return torch.cat([latents, first.expand_as(latents)], 2).flatten(0, 1)
