"""IP-Adapter for SD-1.5: image projection and image keys and values of every cross-attention, into our UNet and back.

Only the plain adapter fits (`ip-adapter_sd15`, 4 tokens from one embedding); the plus, full and face variants have
other projections. Sources: tencent-ailab/IP-Adapter for the file, diffusers' loader (loaders/unet.py) for its order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from manifests.errors import InputError
from train.convert.files import read_tensors
from train.convert.keys import parts_of, take, unet_shapes

__all__ = ["from_file", "is_ip_adapter_file", "names_of", "to_file"]

_HINT = "take ip-adapter_sd15.safetensors or ip-adapter_sd15.bin of h94/IP-Adapter, models/"
_PROJECTION = {
    "image_projection.image_embeds.": "image_proj.proj.",
    "image_projection.norm.": "image_proj.norm.",
}


def is_ip_adapter_file(names: Iterable[str]) -> bool:
    """Whether these are names of an IP-Adapter."""
    names = list(names)
    return bool(names) and all(name.startswith(("image_proj.", "ip_adapter.")) for name in names)


def names_of(names: Iterable[str]) -> dict[str, str]:
    """Our name -> the file's, for the image part of our UNet.

    The file counts attentions in the order in which an early diffusers listed them, down, up, middle, and gives the odd
    numbers to cross-attention.
    """
    image = list(parts_of(dict.fromkeys(names), "image"))
    attentions = sorted({name.rsplit(".", 2)[0] for name in image if name.endswith("_ip.weight")}, key=_place)
    found = {}
    for name in image:
        for ours, theirs in _PROJECTION.items():
            if name.startswith(ours):
                found[name] = name.replace(ours, theirs)
        if name.endswith("_ip.weight"):
            attention, matrix, _ = name.rsplit(".", 2)
            found[name] = f"ip_adapter.{2 * attentions.index(attention) + 1}.{matrix}.weight"
    assert len(found) == len(image), "every image weight has a rule"
    return found


def from_file(path: Path, unet_config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The adapter of a file, for a UNet of this config.

    Args:
        path: .safetensors or .bin.
        unet_config: of our UNet; what it says about the adapter is not looked at.

    Returns:
        Fields of our UNet's config that the adapter decides; our name -> float32 tensor.

    Raises:
        InputError: an adapter of another kind or size; names, shapes or values that do not fit.
    """
    tensors = read_tensors(path)
    projection, width = tensors.get("image_proj.proj.weight"), unet_config.get("cross_attention_dim", 768)
    if projection is None or projection.ndim != 2 or len(projection) % width:
        found = "no image_proj.proj.weight" if projection is None else f"it of shape {tuple(projection.shape)}"
        raise InputError(
            f"{path}: found {found}, expected one whose rows are tokens of {width} channels (the plain IP-Adapter for"
            f" SD-1.5); {_HINT}"
        )
    fields = {"mv2v_adapter": True, "image_tokens": len(projection) // width, "image_embed_dim": projection.shape[1]}
    shapes = parts_of(unet_shapes({**unet_config, **fields, "motion_modules": False}), "image")
    what = f"the {len(shapes)} tensors of the plain IP-Adapter for SD-1.5"
    return fields, take(tensors, names_of(shapes), shapes, where=str(path), what=what, hint=_HINT)


def to_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's name -> tensor, from our UNet's weights; more than the image part may be among them."""
    return {theirs: tensors[ours].contiguous() for ours, theirs in names_of(tensors).items()}


def _place(attention: str) -> tuple[int, ...]:
    side = ("down_blocks", "up_blocks", "mid_block").index(attention.split(".")[0])
    return (side, *map(int, re.findall(r"\.(\d+)", attention)))
