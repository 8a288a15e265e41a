"""Animate3D's released weights: motion modules with the spatial branch and the attention to frame 0, and back.

Upstream attaches what it adds as attention processors, whose names differ from ours; its checkpoint has either those
weights and the motion modules, or the whole network. Source: yanqinJiang/Animate3D (inference.py, train.py,
animatediff/models/attention_processor.py, diffusers 0.28).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.convert.animatediff import MAX_FRAMES, check_frame_codes
from train.convert.files import read_tensors
from train.convert.keys import PARTS, parts_of, renamed, take, unet_shapes
from train.models.unet_mv_motion import frame_code

__all__ = ["TRAINED", "from_file", "is_animate3d_file", "released_name", "to_file"]

TRAINED = ("motion", "spatial", "frame0")
"""Parts that Animate3D trains and its released file holds."""

_RULES = (
    (r"\.(to_q_i2v|to_out_i2v|to_q_sp|to_k_sp|to_v_sp|to_out_sp)\.", r".processor.\1."),
    (r"\.(to_k_ip|to_v_ip)\.", r".processor.\1.0."),
    (r"\.blender\.", ".processor.alpha_blender."),
    (r"^image_projection\.", "encoder_hid_proj.image_projection_layers.0."),
)
"""Our names -> upstream's; what no rule touches has the same name."""
_CODE = ".processor.time_pos_embed.pe"


def is_animate3d_file(names: Iterable[str]) -> bool:
    """Whether these are names of an Animate3D checkpoint."""
    return any(name.endswith(".processor.alpha_blender.mix_factor") for name in names)


def released_name(name: str) -> str:
    """Upstream's name of one of our UNet's weights."""
    return renamed(name, _RULES)


def from_file(path: Path, unet_config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The weights of a checkpoint, for a UNet of this config.

    Args:
        path: `animate3d_motion_modules.ckpt`, or what upstream's trainer saved (the whole network).
        unet_config: of our UNet; what it says about motion modules and adapter is not looked at.

    Returns:
        Fields of our UNet's config that the weights decide; our name -> float32 tensor.

    Raises:
        InputError: another network; names, shapes or values that do not fit.
    """
    tensors = read_tensors(path)
    fields = {"motion_modules": True, "spatial_branch": True, "mv2v_adapter": True}
    whole = "conv_in.weight" in tensors
    shapes = parts_of(unet_shapes({**unet_config, **fields}), *(PARTS if whole else TRAINED))
    codes = [name for name in tensors if name.endswith(_CODE)]
    taken = take(
        tensors,
        {name: released_name(name) for name in shapes},
        shapes,
        where=str(path),
        what=f"the {len(shapes)} weights of {'the whole network' if whole else 'what Animate3D trains'}",
        hint="take animate3d_motion_modules.ckpt, made with the spatial branch and its blend",
        dropped=codes,
    )
    check_frame_codes(tensors, codes, str(path))
    return fields, taken


def to_file(tensors: Mapping[str, Tensor], *, whole: bool = False) -> dict[str, Tensor]:
    """Upstream's name -> tensor, from our UNet's weights, with the position tables that its loader counts.

    Args:
        tensors: our name -> tensor.
        whole: the whole network rather than what Animate3D trains.
    """
    found = {released_name(name): value for name, value in parts_of(tensors, *(PARTS if whole else TRAINED)).items()}
    for name in [name for name in found if name.endswith(".processor.to_q_sp.weight")]:
        weight = found[name]
        code = frame_code(MAX_FRAMES, len(weight), torch.device("cpu"))
        found[name.replace(".processor.to_q_sp.weight", _CODE)] = code[None].to(weight.dtype)
    return found
