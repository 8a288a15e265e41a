"""ViCLIP-L/14, a CLIP whose image encoder attends over all patches of eight frames; names as in the InternVid file.

Facts: Wang et al., "InternVid"; layers and names as in OpenGVLab/InternVideo 3965eef, Data/InternVid/viclip, which
VBench carries unchanged in this size; the code is our own. No masking, no training.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["VICLIP_L14", "ViClipNetwork", "ViClipShape"]


@dataclass(frozen=True, kw_only=True)
class ViClipShape:
    """Sizes of the network."""

    resolution: int
    """Side of the frames, pixels."""
    patch: int
    """Side of a patch, pixels."""
    frames: int
    """Frames a clip."""
    vision: tuple[int, int, int]
    """Width, layers and heads of the video transformer."""
    text: tuple[int, int, int]
    """Width, layers and heads of the text transformer."""
    vocabulary: int
    """Number of tokens."""
    context: int
    """Tokens a text."""
    embedding: int
    """Length of the common vectors."""


VICLIP_L14 = ViClipShape(
    resolution=224, patch=14, frames=8, vision=(1024, 24, 16), text=(768, 12, 12), vocabulary=49408, context=32,
    embedding=768,
)  # fmt: skip


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": _QuickGelu(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        inside = self.ln_1(x)
        x = x + self.attn(inside, inside, inside, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Vision(nn.Module):
    def __init__(self, shape: ViClipShape) -> None:
        super().__init__()
        width, patches = shape.vision[0], (shape.resolution // shape.patch) ** 2
        size = (1, shape.patch, shape.patch)
        self.conv1 = nn.Conv3d(3, width, size, size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, shape.frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _Transformer(*shape.vision)
        self.proj = nn.Parameter(torch.empty(width, shape.embedding))

    def forward(self, video: Tensor) -> Tensor:
        patches = self.conv1(video).flatten(3).permute(0, 3, 2, 1)  # (clip, patch, frame, width)
        patches = patches + self.positional_embedding[1:, None] + self.temporal_positional_embedding
        # One class token for the whole clip; it has a place in the image but none in time.
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(video), 1, -1)
        x = self.ln_pre(torch.cat([first, patches.flatten(1, 2)], 1))
        return self.ln_post(self.transformer(x)[:, 0]) @ self.proj


class _Text(nn.Module):
    def __init__(self, shape: ViClipShape) -> None:
        super().__init__()
        width = shape.text[0]
        self.token_embedding = nn.Embedding(shape.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(shape.context, width))
        self.transformer = _Transformer(*shape.text)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, shape.embedding))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        earlier = torch.full((x.shape[1],) * 2, -torch.inf, device=x.device, dtype=x.dtype).triu(1)
        x = self.ln_final(self.transformer(x, earlier))
        # The end token has the highest number; what it has seen is the text.
        return x[torch.arange(len(x), device=x.device), tokens.argmax(-1)] @ self.text_projection


class ViClipNetwork(nn.Module):
    """Clips and texts as vectors whose cosine says how well they fit."""

    def __init__(self, shape: ViClipShape = VICLIP_L14) -> None:
        super().__init__()
        self.vision_encoder, self.text_encoder = _Vision(shape), _Text(shape)
        self.temp = nn.Parameter(torch.empty(()))
        """Of the training loss; unused, but a part of the file."""

    def encode_video(self, video: Tensor) -> Tensor:
        """(clip, embedding) from (clip, 3, frame, height, width), normalised as CLIP does."""
        return self.vision_encoder(video)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(text, embedding) from (text, token) numbers of CLIP's vocabulary, zeros behind the end token."""
        return self.text_encoder(tokens)
