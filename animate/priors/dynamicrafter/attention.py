"""Transformers of the video network: over the pixels of a frame, and over the frames of a pixel.

Parameter names are those of the released checkpoints. Source: Doubiiu/DynamiCrafter, lvdm/modules/attention.py;
DynamiCrafter (arXiv 2310.12190), section 3.2 and equation 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "SpatialTransformer", "TemporalTransformer"]

# Letters of shapes: B videos, F frames, N tokens, C channels, H W height and width.


class Attention(nn.Module):
    """Multi-head attention to itself, or to text and image tokens by the same queries.

    Args:
        channels: of the tokens.
        heads: their number.
        head_channels: of each.
        context_channels: of text and image tokens; None attends to itself.
        learnt_image_scale: image tokens count 1 + tanh(alpha), else 1.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_channels: int,
        context_channels: int | None = None,
        learnt_image_scale: bool = False,
    ) -> None:
        super().__init__()
        inner, source = heads * head_channels, context_channels or channels
        self.heads = heads
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(source, inner, bias=False)
        self.to_v = nn.Linear(source, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, channels))
        if context_channels is not None:
            self.to_k_ip = nn.Linear(source, inner, bias=False)
            self.to_v_ip = nn.Linear(source, inner, bias=False)
        if learnt_image_scale:
            self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x_BNC: Tensor, text: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """As `x_BNC`.

        Args:
            x_BNC: tokens.
            text: (B, text tokens, context); None attends to itself.
            image: (B, image tokens, context), beside `text`.
        """
        query = self._split(self.to_q(x_BNC))
        source = x_BNC if text is None else text
        out = F.scaled_dot_product_attention(query, self._split(self.to_k(source)), self._split(self.to_v(source)))
        if image is not None:
            key, value = self._split(self.to_k_ip(image)), self._split(self.to_v_ip(image))
            seen = F.scaled_dot_product_attention(query, key, value)
            out = out + (seen * (1 + self.alpha.tanh()) if hasattr(self, "alpha") else seen)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def weights(self, x_BNC: Tensor, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """How much each token looks at each text and each image token: (B, heads, N, tokens), rows sum to 1."""
        query = self._split(self.to_q(x_BNC))
        query = query * query.shape[-1] ** -0.5
        keys = self._split(self.to_k(text)), self._split(self.to_k_ip(image))
        return tuple((query @ key.transpose(-1, -2)).float().softmax(-1) for key in keys)

    def _split(self, x_BNC: Tensor) -> Tensor:
        """(B, heads, N, channels of a head)."""
        return x_BNC.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _GatedGelu(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class _FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        # Identity: where training drops out; the names count it.
        self.net = nn.Sequential(_GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Block(nn.Module):
    def __init__(
        self, channels: int, heads: int, head_channels: int, context_channels: int | None, learnt_image_scale: bool
    ) -> None:
        super().__init__()
        self.attn1 = Attention(channels, heads, head_channels)
        self.attn2 = Attention(channels, heads, head_channels, context_channels, learnt_image_scale)
        self.ff = _FeedForward(channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, text: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text, image)
        return x + self.ff(self.norm3(x))

    def weights(self, x: Tensor, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attn1(self.norm1(x))
        return self.attn2.weights(self.norm2(x), text, image)


class SpatialTransformer(nn.Module):
    """Each pixel looks at its frame, then at text and image tokens.

    Args:
        channels: of the features; also inside.
        head_channels: of an attention head.
        context_channels: of text and image tokens.
        learnt_image_scale: as in `Attention`.
    """

    def __init__(self, channels: int, head_channels: int, context_channels: int, learnt_image_scale: bool) -> None:
        super().__init__()
        heads = channels // head_channels
        inner = heads * head_channels
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            [_Block(inner, heads, head_channels, context_channels, learnt_image_scale)]
        )
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x_BCHW: Tensor, text: Tensor, image: Tensor) -> Tensor:
        """As `x_BCHW`; B here is frames of all videos, and so are the tokens' (B, tokens, context)."""
        x = self._tokens(x_BCHW)
        for block in self.transformer_blocks:
            x = block(x, text, image)
        return x_BCHW + self.proj_out(x).transpose(1, 2).reshape(x_BCHW.shape)

    def weights(self, x_BCHW: Tensor, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Of the first block: how much each pixel looks at each text and image token, (B, heads, H W, tokens)."""
        return self.transformer_blocks[0].weights(self._tokens(x_BCHW), text, image)

    def _tokens(self, x_BCHW: Tensor) -> Tensor:
        return self.proj_in(self.norm(x_BCHW).flatten(2).transpose(1, 2))


class TemporalTransformer(nn.Module):
    """Each pixel looks at itself in all frames, twice.

    Args:
        channels: of the features.
        heads: of attention.
        head_channels: of each.
        convolutions: its two projections are stored as convolutions of width 1, as the network's first one has it.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, convolutions: bool = False) -> None:
        super().__init__()
        inner = heads * head_channels
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Conv1d(channels, inner, 1) if convolutions else nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([_Block(inner, heads, head_channels, None, False)])
        self.proj_out = nn.Conv1d(inner, channels, 1) if convolutions else nn.Linear(inner, channels)

    def forward(self, x_BCHW: Tensor, num_frames: int) -> Tensor:
        """As `x_BCHW`, where B is frames of all videos, those of a video together."""
        x_BCFHW = x_BCHW.unflatten(0, (-1, num_frames)).transpose(1, 2)
        batch, _, _, height, width = x_BCFHW.shape
        # The norm is over all frames of a video.
        x = self.norm(x_BCFHW).permute(0, 3, 4, 2, 1).flatten(0, 2)
        x = _projected(self.proj_in, x)
        for block in self.transformer_blocks:
            x = block(x)
        x = _projected(self.proj_out, x).unflatten(0, (batch, height, width))
        return x_BCHW + x.permute(0, 3, 4, 1, 2).flatten(0, 1)


def _projected(layer: nn.Linear | nn.Conv1d, x_BNC: Tensor) -> Tensor:
    return layer(x_BNC) if isinstance(layer, nn.Linear) else layer(x_BNC.transpose(1, 2)).transpose(1, 2)
