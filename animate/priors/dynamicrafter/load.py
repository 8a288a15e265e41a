"""Reads a DynamiCrafter checkpoint into our networks: every name in it is spoken for, every weight of ours is filled.

Nothing is converted on disk and nothing is fetched; files with more than tensors are refused. Source of the names:
Doubiiu/DynamiCrafter, lvdm/models/ddpm3d.py and scripts/evaluation/inference.py (load_model_checkpoint).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from animate.priors.dynamicrafter.conditions import ImageTower, TextTower
from animate.priors.dynamicrafter.config import RELEASED, DynamiCrafterConfig
from animate.priors.dynamicrafter.resampler import Resampler
from animate.priors.dynamicrafter.schedule import schedule_of
from animate.priors.dynamicrafter.unet import VideoUNet
from manifests.errors import InputError
from train.convert.files import read_tensors
from train.convert.keys import shapes_of, take
from train.convert.ldm import vae_name

__all__ = [
    "Networks",
    "checkpoint_file",
    "empty_networks",
    "load_networks",
    "recognise",
    "stored_names",
    "unused_shapes",
]

_SUFFIXES = (".ckpt", ".safetensors", ".pt", ".pth")
_BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)
"""Of the noise schedule; what they hold follows from its ends."""
_UNET = "model.diffusion_model."
_TEXT = "cond_stage_model.model."
_IMAGE = "embedder.model."
_RESAMPLER = "image_proj_model."
_WHAT = "model.ckpt of Doubiiu/DynamiCrafter, DynamiCrafter_512 or DynamiCrafter_1024"


@dataclass(frozen=True)
class Networks:
    """The five networks, frozen, in float32."""

    unet: VideoUNet
    resampler: Resampler
    text: TextTower
    image: ImageTower
    vae: Any

    def to(self, device: torch.device | str) -> Networks:
        """Moves all of them."""
        for part in vars(self).values():
            part.to(device)
        return self


def checkpoint_file(path: Path | str) -> Path:
    """The weights file of a folder, or the file itself.

    Raises:
        InputError: none, or more than one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:3]) or "none"
        raise InputError(
            f"{path}: found {names} among {', '.join(_SUFFIXES)}, expected one weights file, {_WHAT}; name the file"
        )
    return found[0]


def load_networks(path: Path | str, config: DynamiCrafterConfig | None = None) -> tuple[DynamiCrafterConfig, Networks]:
    """A checkpoint's networks on the CPU, and which model it is.

    Args:
        path: the file, or a folder with that one file.
        config: of another model than the released ones; None recognises these.

    Raises:
        InputError: unreadable, not DynamiCrafter, a model that interpolates, other noise levels; names, shapes or
            values that do not fit.
    """
    file = checkpoint_file(path)
    if "interp" in file.name.lower() or "interp" in file.parent.name.lower():
        raise InputError(
            f"{file}: found DynamiCrafter's interpolation model by its name, expected one that starts from one image;"
            f" take {_WHAT}"
        )
    tensors = {_mended(name): value for name, value in read_tensors(file).items()}
    config = recognise(tensors, str(file)) if config is None else config
    _check_schedule(tensors, config, str(file))
    networks = empty_networks(config)
    names, shapes = stored_names(networks)
    hint = f"take {_WHAT}, whole, or one trained on from it"
    taken = take(
        tensors, names, shapes, where=str(file), what=f"the {len(names)} tensors of DynamiCrafter", hint=hint,
        dropped=(*unused_shapes(config), "scale_arr", f"{_TEXT}attn_mask", f"{_IMAGE}attn_mask"),
        flatten_convolutions=True,
    )  # fmt: skip
    for part, network in vars(networks).items():
        state = {name: taken.pop(f"{part}/{name}") for name in network.state_dict()}
        network.load_state_dict(state, strict=True, assign=True)
        network.eval().requires_grad_(False)
    return config, networks


def recognise(tensors: Mapping[str, Tensor], where: str) -> DynamiCrafterConfig:
    """Which of the released models these are the weights of.

    Args:
        tensors: name -> tensor, as in the file.
        where: the file, for messages.

    Raises:
        InputError: none of them.
    """
    if f"{_UNET}init_attn.0.norm.weight" not in tensors:
        raise InputError(
            f"{where}: found no {_UNET}init_attn.0.norm.weight, expected DynamiCrafter's weights; take {_WHAT}"
        )
    if f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.alpha" in tensors:
        return RELEASED["256"]
    scale = tensors.get("scale_arr")
    last = float(scale[-1]) if scale is not None and scale.numel() else None
    for config in RELEASED.values():
        if last is not None and config.base_scale < 1 and abs(config.base_scale - last) < 1e-3:
            return config
    raise InputError(
        f"{where}: found latents scaled by {last}, expected scale_arr to end at 0.7 (512) or 0.3 (1024), which tells"
        f" these models apart; take {_WHAT}, unpruned"
    )


def empty_networks(config: DynamiCrafterConfig) -> Networks:
    """A model's networks without memory for weights, on the device "meta"."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return Networks(
            unet=VideoUNet(config.unet),
            resampler=Resampler(config.resampler),
            text=TextTower(config.text),
            image=ImageTower(config.vision),
            vae=AutoencoderKL.from_config(dict(config.vae)),
        )


def stored_names(networks: Networks) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """How the checkpoint calls our weights.

    Args:
        networks: with or without memory.

    Returns:
        part/our name -> the checkpoint's name; part/our name -> shape.
    """
    levels = len(networks.vae.config.block_out_channels)
    theirs = {
        "unet": lambda name: f"{_UNET}{name}",
        "resampler": lambda name: f"{_RESAMPLER}{name}",
        "text": lambda name: f"{_TEXT}{name}",
        "image": lambda name: f"{_IMAGE}{name}",
        "vae": lambda name: vae_name(name, levels),
    }
    names, shapes = {}, {}
    for part, network in vars(networks).items():
        for name, value in network.state_dict().items():
            names[f"{part}/{name}"] = theirs[part](name)
            shapes[f"{part}/{name}"] = tuple(value.shape)
    return names, shapes


def unused_shapes(config: DynamiCrafterConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what a checkpoint holds and nothing computes with: schedules, and the towers' other ends."""
    text, vision = config.text, config.vision
    found: dict[str, tuple[int, ...]] = dict.fromkeys(_BUFFERS, (1000,))
    if config.base_scale != 1:
        found["scale_arr"] = (config.turning_step + 1000,)
    last = _last_layer(config)
    found |= {f"{_TEXT}transformer.resblocks.{text.layers - 1}.{name}": shape for name, shape in last.items()}
    for prefix in (_TEXT, _IMAGE):
        found |= {f"{prefix}logit_scale": (), f"{prefix}text_projection": (text.channels, text.embedding)}
    # The image side keeps the text tower's ends; its layers were deleted.
    found |= {
        f"{_IMAGE}positional_embedding": (text.tokens, text.channels),
        f"{_IMAGE}token_embedding.weight": (text.vocabulary, text.channels),
        f"{_IMAGE}ln_final.weight": (text.channels,),
        f"{_IMAGE}ln_final.bias": (text.channels,),
        f"{_IMAGE}visual.ln_post.weight": (vision.channels,),
        f"{_IMAGE}visual.ln_post.bias": (vision.channels,),
        f"{_IMAGE}visual.proj": (vision.channels, text.embedding),
    }
    return found


def _last_layer(config: DynamiCrafterConfig) -> dict[str, tuple[int, ...]]:
    prefix = "transformer.resblocks.0."
    shapes = shapes_of(lambda: TextTower(config.text))
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _mended(name: str) -> str:
    """DeepSpeed puts a word in front, and the 256 model calls one layer otherwise."""
    return name.removeprefix("_forward_module.").replace("framestride_embed", "fps_embedding")


def _check_schedule(tensors: Mapping[str, Tensor], config: DynamiCrafterConfig, where: str) -> None:
    schedule = schedule_of(config)
    scale_known = {"scale_arr": schedule.scale} if config.base_scale != 1 else {}
    for name, known in {"alphas_cumprod": schedule.signal, **scale_known}.items():
        if name not in tensors:
            continue
        found = tensors[name].double().flatten()[:1000]
        # Half precision is good to 5e-4.
        if found.numel() != len(known) or not torch.allclose(found, torch.from_numpy(known), atol=1e-3):
            raise InputError(
                f"{where}: found other values in {name}, expected those of the released model; take {_WHAT}"
            )
