"""AnimateDiff's motion modules: the adapter folder of diffusers or the original file, into our UNet and back.

Only modules for SD-1.5 with a middle block fit (v1-5-2, `mm_sd_v15_v2.ckpt`). The position tables in these files are a
formula that our network computes; they are compared with it and left out, and written again on the way back. Sources:
diffusers' MotionAdapter; guoyww/AnimateDiff (models/motion_module.py) for the original names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manifests.errors import InputError
from train.convert.files import read_folder, read_tensors
from train.convert.keys import parts_of, renamed, take, unet_shapes
from train.models.unet_mv_motion import frame_code

__all__ = ["MAX_FRAMES", "check_frame_codes", "from_path", "is_motion_file", "original_name", "to_adapter"]

_HINT = "take guoyww/animatediff-motion-adapter-v1-5-2, or the file mm_sd_v15_v2.ckpt"
_WHAT = "AnimateDiff's motion modules for SD-1.5, with a middle block"
_ORIGINAL = (
    (r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer."),
    (r"\.attn1\.", ".attention_blocks.0."),
    (r"\.attn2\.", ".attention_blocks.1."),
    (r"\.norm1\.", ".norms.0."),
    (r"\.norm2\.", ".norms.1."),
    (r"\.norm3\.", ".ff_norm."),
)
"""diffusers' and our names -> those of the original file."""

MAX_FRAMES = 32
"""Length of the position tables of v1-5-2, and of those that are written."""


def is_motion_file(names: Iterable[str]) -> bool:
    """Whether these are names of motion modules and of nothing else."""
    names = list(names)
    return bool(names) and all(".motion_modules." in name and ".processor." not in name for name in names)


def from_path(path: Path, unet_config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The motion modules of a folder or file, for a UNet of this config.

    Args:
        path: folder that `MotionAdapter.save_pretrained` wrote, or an original file.
        unet_config: of our UNet; what it says about motion modules is not looked at.

    Returns:
        Fields of our UNet's config that the modules decide; our name -> float32 tensor.

    Raises:
        InputError: modules of another kind or size; names, shapes or values that do not fit.
    """
    path = Path(path)
    heads = 8
    if path.is_dir():
        config, tensors, where = read_folder(path)
        _check_config(config, unet_config, path / "config.json")
        heads = config.get("motion_num_attention_heads", 8)
    else:
        tensors, where = read_tensors(path), path
    shapes = _motion_shapes(unet_config)
    original = any(".temporal_transformer." in name for name in tensors)
    names = {name: original_name(name) if original else name for name in shapes}
    codes = [name for name in tensors if name.endswith((".pos_embed.pe", ".pos_encoder.pe"))]
    taken = take(tensors, names, shapes, where=str(where), what=_WHAT, hint=_HINT, dropped=codes)
    check_frame_codes(tensors, codes, str(where))
    return {"motion_modules": True, "motion_num_attention_heads": heads}, taken


def to_adapter(
    tensors: Mapping[str, Tensor], unet_config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, name -> tensor) of diffusers' MotionAdapter from our UNet's weights, the spatial branch left out.

    Args:
        tensors: our name -> tensor; more than the motion modules may be in it.
        unet_config: of our UNet.
    """
    found = parts_of(tensors, "motion")
    blocks = sorted(
        {name.split(".norm1.")[0] for name in found if ".transformer_blocks." in name and ".norm1." in name}
    )
    for block in blocks:
        weight = found[f"{block}.norm1.weight"]
        code = frame_code(MAX_FRAMES, len(weight), torch.device("cpu"))
        found[f"{block}.pos_embed.pe"] = code[None].to(weight.dtype)
    config = {
        "block_out_channels": tuple(unet_config["block_out_channels"]),
        "motion_layers_per_block": unet_config["layers_per_block"],
        "motion_num_attention_heads": unet_config["motion_num_attention_heads"],
        "motion_norm_num_groups": unet_config["norm_num_groups"],
        "motion_max_seq_length": MAX_FRAMES,
        "use_motion_mid_block": True,
    }
    return config, found


def original_name(name: str) -> str:
    """The original file's name of one of the motion modules' weights."""
    return renamed(name, _ORIGINAL)


def check_frame_codes(tensors: Mapping[str, Tensor], names: Iterable[str], where: str) -> None:
    """That position tables hold the formula that our network computes.

    Args:
        tensors: name -> tensor.
        names: of the tables, (1, frames, channels) each.
        where: for messages.

    Raises:
        InputError: a table of another shape, or with other values.
    """
    for name in names:
        table = tensors[name].float()
        if table.ndim != 3 or len(table) != 1:
            raise InputError(
                f"{where}: found {name} of shape {tuple(table.shape)}, expected (1, frames, channels); {_HINT}"
            )
        expected = frame_code(table.shape[1], table.shape[2], torch.device("cpu"))
        # Half precision rounds values near 1 by up to 0.0005.
        if not torch.allclose(table[0], expected, rtol=0, atol=1e-3):
            raise InputError(
                f"{where}: found position codes of its own in {name}, expected AnimateDiff's sines and cosines, which"
                f" this network computes; {_HINT}"
            )


def _motion_shapes(unet_config: Mapping[str, Any]) -> dict[str, Any]:
    switches = {"motion_modules": True, "spatial_branch": False, "mv2v_adapter": False}
    return parts_of(unet_shapes({**unet_config, **switches}), "motion")


def _check_config(config: Mapping[str, Any], unet_config: Mapping[str, Any], where: Path) -> None:
    expected = {
        "motion_transformer_layers_per_block": (1, [1] * len(config.get("block_out_channels", ()))),
        "motion_transformer_layers_per_mid_block": (1, [1]),
        "use_motion_mid_block": (True,),
        "conv_in_channels": (None,),
        "motion_norm_num_groups": (unet_config.get("norm_num_groups", 32),),
    }
    wrong = [
        f"{name} {config[name]!r}" for name, good in expected.items() if name in config and config[name] not in good
    ]
    if wrong:
        raise InputError(f"{where}: found {', '.join(wrong[:3])}, expected {_WHAT}; {_HINT}")
