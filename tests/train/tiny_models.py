"""Small networks of the real classes with random weights, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from train.models.unet_mv_motion import MVUNetMotionModel

SMALL = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock", "CrossAttnDownBlock", "DownBlock"),
    "up_block_types": ("UpBlock", "CrossAttnUpBlock", "CrossAttnUpBlock"),
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
HEADS = {"num_attention_heads": 2, "motion_num_attention_heads": 2}


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fills every parameter, zero-initialised ones too, so that no branch is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return network.eval()


def small_unet(seed: int = 0, **changes: Any) -> MVUNetMotionModel:
    """A network of a few hundred thousand random weights, every branch on by default."""
    config = {**SMALL, **HEADS, "image_embed_dim": 10, "image_tokens": 3, **changes}
    return randomize(MVUNetMotionModel(**config), seed)


def inputs(
    batch: int = 2, views: int = 3, frames: int = 4, size: tuple[int, int] = (8, 8), *, seed: int = 0
) -> dict[str, Tensor]:
    """Arguments of the small network's forward pass."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "sample": normal(batch, views, frames, 4, *size),
        "timestep": torch.arange(batch) * 300 + 17,
        "encoder_hidden_states": normal(batch, 5, 12),
        "camera": normal(batch, views, 16),
        "image_embeds": normal(batch, views, 10),
    }
