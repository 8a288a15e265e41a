"""Turns the image's features into tokens for each frame, by learnt queries that look at them.

Parameter names are those of the checkpoints. Source: Doubiiu/DynamiCrafter, lvdm/modules/encoders/resampler.py;
DynamiCrafter (arXiv 2310.12190), section 3.2 (query transformer).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animate.priors.dynamicrafter.config import ResamplerConfig

__all__ = ["Resampler"]


class _Look(nn.Module):
    """Queries look at the features and at each other."""

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        inner = heads * head_channels
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_kv = nn.Linear(channels, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, channels, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        features, queries = self.norm1(features), self.norm2(queries)
        key, value = self.to_kv(torch.cat([features, queries], 1)).chunk(2, dim=-1)
        parts = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(queries), key, value))
        return self.to_out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """The query transformer.

    Args:
        config: its sizes.
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.latents = nn.Parameter(torch.zeros(1, config.frames * config.tokens_per_frame, channels))
        self.proj_in = nn.Linear(config.in_channels, channels)
        self.proj_out = nn.Linear(channels, config.out_channels)
        self.norm_out = nn.LayerNorm(config.out_channels)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _Look(channels, config.heads, config.head_channels),
                    nn.Sequential(
                        nn.LayerNorm(channels),
                        nn.Linear(channels, config.expansion * channels, bias=False),
                        nn.GELU(),
                        nn.Linear(config.expansion * channels, channels, bias=False),
                    ),
                ]
            )
            for _ in range(config.depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, frames x tokens of a frame, out_channels), those of a frame together.

        Args:
            features: (B, N, in_channels) of the image.
        """
        queries = self.latents.expand(len(features), -1, -1)
        features = self.proj_in(features)
        for look, forward in self.layers:
            queries = queries + look(features, queries)
            queries = queries + forward(queries)
        return self.norm_out(self.proj_out(queries))
