"""What DynamiCrafter reads beside latents: OpenCLIP's text tokens and image features, with their preprocessing.

Own towers with the parameter names that open_clip gives; of open_clip itself only the tokenizer is used. Each stops
where the released model does: the text before its last layer, the image after it. Sources: Doubiiu/DynamiCrafter,
lvdm/modules/encoders/condition.py; kornia's resize, which it calls; mlfoundations/open_clip, transformer.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animate.priors.dynamicrafter.config import TextConfig, VisionConfig
from manifests.errors import InputError

__all__ = ["ImageTower", "TextTower", "clip_image", "tokens_of", "word_positions"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class _SelfAttention(nn.Module):
    """As nn.MultiheadAttention names its weights."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, is_causal: bool) -> Tensor:
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        parts = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        return self.out_proj(F.scaled_dot_product_attention(*parts, is_causal=is_causal).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = _SelfAttention(channels, heads)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(channels, 4 * channels))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, is_causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), is_causal)
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, channels: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(channels, heads) for _ in range(layers))

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, is_causal)
        return x


class TextTower(nn.Module):
    """OpenCLIP's text tower without its last layer.

    Args:
        config: its sizes, the last layer counted.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.channels)
        self.positional_embedding = nn.Parameter(torch.zeros(config.tokens, config.channels))
        self.transformer = _Transformer(config.channels, config.heads, config.layers - 1)
        self.ln_final = nn.LayerNorm(config.channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, tokens, channels), normalised.

        Args:
            tokens: (B, tokens) int64.
        """
        x = self.token_embedding(tokens) + self.positional_embedding
        return self.ln_final(self.transformer(x, is_causal=True))


class _Visual(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        channels, count = config.channels, (config.size // config.patch) ** 2
        self.conv1 = nn.Conv2d(3, channels, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(channels))
        self.positional_embedding = nn.Parameter(torch.zeros(count + 1, channels))
        self.ln_pre = nn.LayerNorm(channels)
        self.transformer = _Transformer(channels, config.heads, config.layers)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        return self.transformer(self.ln_pre(x + self.positional_embedding))


class ImageTower(nn.Module):
    """OpenCLIP's image tower up to the tokens behind its last layer, not normalised.

    Args:
        config: its sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _Visual(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1 + patches, channels).

        Args:
            images: (B, 3, height, width) float32, sRGB-encoded 0 to 1, any size.
        """
        return self.visual(clip_image(images, self.config.size))


def clip_image(images: Tensor, size: int) -> Tensor:
    """Images as CLIP wants them: blurred where they shrink, resized bicubically corner to corner, normalised.

    Args:
        images: (B, 3, height, width) float32, sRGB-encoded 0 to 1.
        size: height and width that they get, pixels.

    Source: kornia.geometry.resize with bicubic interpolation, aligned corners and antialias.
    """
    for axis in (3, 2):
        factor = images.shape[axis] / size
        if factor > 1:
            images = _blurred(images, axis, sigma=(factor - 1) / 2)
    images = F.interpolate(images, size=(size, size), mode="bicubic", align_corners=True)
    mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images - mean) / std


def _blurred(images: Tensor, axis: int, sigma: float) -> Tensor:
    """By a Gaussian of two sigmas each way along an axis, mirrored at the border."""
    length = int(max(4 * sigma, 3)) // 2 * 2 + 1
    offsets = torch.arange(length, device=images.device, dtype=images.dtype) - length // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, length).unsqueeze(5 - axis)
    half = length // 2
    padded = F.pad(images, (half, half, 0, 0) if axis == 3 else (0, 0, half, half), mode="reflect")
    return F.conv2d(padded, kernel, groups=images.shape[1])


@functools.cache
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def tokens_of(prompts: Sequence[str]) -> Tensor:
    """(B, 77) int64 as open_clip has them: padded with 0, and longer texts cut."""
    return _tokenizer()(list(prompts), context_length=77)


def word_positions(prompt: str, word: str) -> list[int]:
    """Which of the prompt's 77 tokens are the word's, wherever it stands as a whole word, in any case.

    Raises:
        InputError: the word is not in the prompt, or too far back to be read.
    """
    tokenizer = _tokenizer()
    wanted, tokens = tokenizer.encode(word), tokens_of([prompt])[0].tolist()
    end, count = tokens.index(tokenizer.eot_token_id), len(wanted)
    # A match inside a word ("corn" in "unicorn") begins behind a token that does not end one.
    starts = [
        at
        for at in range(1, end + 1 - count)
        if count
        and tokens[at : at + count] == wanted
        and (at == 1 or tokenizer.decoder[tokens[at - 1]].endswith("</w>"))
    ]
    if not starts:
        raise InputError(
            f'--word: found "{word}", expected a whole word among the first 75 tokens of the prompt "{prompt}"; name'
            " the object as the prompt does, or switch the masked distillation off"
        )
    return [start + step for start in starts for step in range(count)]
