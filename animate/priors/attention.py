"""Where a diffusers UNet looks for a word: the softmax of its first cross-attention, whatever kernel computes it.

The network itself is left as it is: a hook recomputes the one layer's weights from its inputs and ends the pass there.
Source: 3to4D (v2, section 3.4) masks by the video model's first cross-attention; which words' columns, and that heads
are averaged, is our reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from manifests.errors import InputError

__all__ = ["attention_to", "first_cross_attention", "spread_out", "word_positions"]

_ORDER = ("down_blocks", "mid_block", "up_blocks")
"""Parts of a UNet in the order of its forward pass; they are not registered in it."""


class _Seen(Exception):
    """Ends a forward pass behind the layer that was asked for."""


def word_positions(tokenizer: Any, prompt: str, word: str) -> list[int]:
    """Columns of a word's tokens in the text states of a prompt, begin token included in the count.

    Args:
        tokenizer: CLIP's, as transformers has it.
        prompt: cut to the tokenizer's length, as the text encoder gets it.
        word: one or more whole words, any case; every occurrence counts.

    Raises:
        InputError: the prompt does not have it, or not before it is cut.
    """
    wanted = tokenizer(word, add_special_tokens=False).input_ids
    ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
    pieces = tokenizer.convert_ids_to_tokens(ids)
    count = len(wanted)
    # A match inside a word ("corn" in "unicorn") begins behind a piece that does not end one.
    starts = [
        start
        for start in range(1, len(ids) - count + 1)
        if count and ids[start : start + count] == wanted and (start == 1 or pieces[start - 1].endswith("</w>"))
    ]
    if not starts:
        raise InputError(
            f'--word: found "{word}", expected a whole word among the first {tokenizer.model_max_length - 2} tokens of'
            f' the prompt "{prompt}"; name the object as the prompt does, or switch the masked distillation off'
        )
    return sorted({start + offset for start in starts for offset in range(count)})


def first_cross_attention(unet: nn.Module) -> Attention:
    """The first layer of a forward pass in which places look at the conditions.

    Args:
        unet: of diffusers, with `down_blocks`, `mid_block` and `up_blocks`.

    Raises:
        InputError: it has none.
    """
    for part in _ORDER:
        for module in getattr(unet, part).modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                return module
    raise InputError(
        f"{type(unet).__name__}: found no cross-attention, expected a network that reads a prompt; take another prior"
    )


@torch.no_grad()
def attention_to(unet: nn.Module, columns: list[int] | slice, forward: Callable[[], Any]) -> Tensor:
    """Share of its attention that each place gives to some of the conditions' tokens, mean over heads.

    Args:
        unet: as for `first_cross_attention`.
        columns: tokens whose shares are summed.
        forward: runs the network; it is left once the first cross-attention has its inputs.

    Returns:
        (B, Q) float32, 0 to 1; images and places as that layer has them.
    """
    seen: list[Tensor] = []

    def record(layer: Attention, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        places = inputs[0] if inputs else named["hidden_states"]
        tokens = inputs[1] if len(inputs) > 1 else named["encoder_hidden_states"]
        seen.append(_shares(layer, places, tokens)[..., columns].sum(-1).mean(1))
        raise _Seen("the map is complete")

    handle = first_cross_attention(unet).register_forward_pre_hook(record, with_kwargs=True)
    try:
        with contextlib.suppress(_Seen):
            forward()
    finally:
        handle.remove()
    assert len(seen) == 1, f"{len(seen)} passes through the first cross-attention"
    return seen[0]


def _shares(layer: Attention, places: Tensor, tokens: Tensor) -> Tensor:
    """(B, heads, Q, T) softmax over tokens, in float32 whatever the network computes in."""
    if layer.norm_cross:
        tokens = layer.norm_encoder_hidden_states(tokens)
    query = layer.to_q(places).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    key = layer.to_k(tokens).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    if layer.norm_q is not None:
        query = layer.norm_q(query)
    if layer.norm_k is not None:
        key = layer.norm_k(key)
    return (query.float() @ key.float().transpose(-1, -2) * layer.scale).softmax(-1)


def spread_out(shares: Tensor, height: int, width: int) -> Tensor:
    """A map at the size of the latents from shares of a layer that may see them halved some times.

    Args:
        shares: (B, Q), rows of places one after the other.
        height: of the latents.
        width: of the latents.

    Returns:
        (B, 1, height, width), bilinear where the layer is coarser.
    """
    rows, columns = height, width
    while rows * columns > shares.shape[1] and rows * columns > 1:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    assert rows * columns == shares.shape[1], f"{shares.shape[1]} places, latents of {height} x {width}"
    grid = shares.reshape(-1, 1, rows, columns)
    if (rows, columns) == (height, width):
        return grid
    return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
