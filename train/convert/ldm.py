"""Names that the latent-diffusion code gives to the weights of SD-1.5's three networks, MVDream's camera among them.

Its UNet counts blocks through, ours has levels; its autoencoder counts the decoder's levels from the finest. Source:
bytedance/MVDream (openaimodel.py, diffusionmodules/model.py), which keeps CompVis' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from train.convert.keys import renamed

__all__ = ["TEXT", "text_name", "unet_name", "vae_name"]

TEXT = "cond_stage_model.transformer.text_model."
"""What stands before the names of the text encoder."""


def unet_name(name: str, layers: int, names: Mapping[str, Any]) -> str:
    """The latent-diffusion code's name of one of our UNet's base or camera weights.

    Args:
        name: ours.
        layers: `layers_per_block`.
        names: all of ours, to know which blocks have attention.
    """

    def down(match: re.Match[str]) -> str:
        level, kind, number = int(match[1]), match[2], int(match[3])
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0."
        return f"input_blocks.{1 + level * (layers + 1) + number}.{0 if kind == 'resnets' else 1}."

    def up(match: re.Match[str]) -> str:
        level, kind, number = int(match[1]), match[2], int(match[3])
        if kind == "upsamplers":
            has_attention = any(other.startswith(f"up_blocks.{level}.attentions.") for other in names)
            return f"output_blocks.{level * (layers + 1) + layers}.{2 if has_attention else 1}."
        return f"output_blocks.{level * (layers + 1) + number}.{0 if kind == 'resnets' else 1}."

    rules = (
        (r"(resnets\.\d+)\.norm1\.", r"\1.in_layers.0."),
        (r"(resnets\.\d+)\.norm2\.", r"\1.out_layers.0."),
        (r"\.conv1\.", ".in_layers.2."),
        (r"\.conv2\.", ".out_layers.3."),
        (r"\.time_emb_proj\.", ".emb_layers.1."),
        (r"\.conv_shortcut\.", ".skip_connection."),
        (r"^down_blocks\.(\d+)\.(downsamplers)\.(\d+)\.conv\.", lambda match: f"{down(match)}op."),
        (r"^down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", down),
        (r"^up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.", up),
        (r"^mid_block\.resnets\.0\.", "middle_block.0."),
        (r"^mid_block\.attentions\.0\.", "middle_block.1."),
        (r"^mid_block\.resnets\.1\.", "middle_block.2."),
        (r"^time_embedding\.linear_1\.", "time_embed.0."),
        (r"^time_embedding\.linear_2\.", "time_embed.2."),
        (r"^camera_embedding\.linear_1\.", "camera_embed.0."),
        (r"^camera_embedding\.linear_2\.", "camera_embed.2."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^conv_norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
    )
    return f"model.diffusion_model.{renamed(name, rules)}"


def vae_name(name: str, levels: int) -> str:
    """The latent-diffusion code's name of one of AutoencoderKL's weights; its decoder counts levels from the finest."""
    rules = (
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
        (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
        (r"\.up_blocks\.(\d+)\.resnets\.", lambda match: f".up.{levels - 1 - int(match[1])}.block."),
        (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f".up.{levels - 1 - int(match[1])}.upsample."),
        (r"\.mid_block\.resnets\.(\d)\.", lambda match: f".mid.block_{int(match[1]) + 1}."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        (r"\.group_norm\.", ".norm."),
        (r"\.to_(q|k|v)\.", r".\1."),
        (r"\.to_out\.0\.", ".proj_out."),
        (r"\.conv_norm_out\.", ".norm_out."),
    )
    return f"first_stage_model.{renamed(name, rules)}"


def text_name(name: str) -> str:
    """The latent-diffusion code's name of one of CLIPTextModel's weights."""
    return f"{TEXT}{name.removeprefix('text_model.')}"
