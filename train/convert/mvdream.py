"""MVDream on SD-1.5: the released single file, or its folder in diffusers' form, as parts of a pipeline of ours.

The file has three networks under the names of the latent-diffusion code; the folder has them apart, each with its
config. MVDream on SD-2.1 is another network and is refused. Sources: bytedance/MVDream (interface.py, openaimodel.py,
configs/sd-v1.yaml) and yanqinJiang/mvdream-sd1.5-diffusers as Animate3D's trainer reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from manifests.errors import InputError
from train.convert.files import read_folder, read_tensors
from train.convert.keys import parts_of, renamed, shapes_of, take, unet_shapes
from train.convert.ldm import TEXT, text_name, unet_name, vae_name

__all__ = [
    "SD15",
    "MVDream",
    "from_file",
    "from_folder",
    "is_mvdream_file",
    "text_shapes",
    "unet_config",
    "vae_shapes",
]

Config = dict[str, Any]

SD15: dict[str, Config] = {
    "unet": {"camera_embed_dim": 16},
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 256,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
}
"""Configs of the three networks in the single file, which has none itself. Text: CLIP ViT-L/14."""

_FILE = "sd-v1.5-4view.pt of MVDream/MVDream"
_BASE_ONLY = {"mv2v_adapter": False, "motion_modules": False}
_SCHEDULE = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)
"""Buffers of the noise schedule; what they hold follows from its two ends."""


@dataclass(frozen=True)
class MVDream:
    """The three networks: config and name -> float32 tensor of each, under the names that our classes have.

    `unet_config` is for `MVUNetMotionModel` and leaves the adapter and the motion modules to the caller.
    """

    unet_config: Config
    unet: dict[str, Tensor]
    vae_config: Config
    vae: dict[str, Tensor]
    text_config: Config
    text: dict[str, Tensor]


# -- the single file ---------------------------------------------------------------------------------------------------


def is_mvdream_file(names: Mapping[str, Any]) -> bool:
    """Whether these are names of a latent-diffusion file with cameras."""
    return "model.diffusion_model.camera_embed.0.weight" in names


def from_file(path: Path, configs: Mapping[str, Config] = SD15) -> MVDream:
    """The networks of the released file.

    Args:
        path: sd-v1.5-4view.pt, or the same tensors in safetensors.
        configs: of the networks `unet`, `vae`, `text_encoder`.

    Raises:
        InputError: another file; names, shapes or values that do not fit.
    """
    tensors = read_tensors(path)
    if any(name.startswith("cond_stage_model.model.") for name in tensors):
        raise InputError(f"{path}: found the text encoder of SD-2.1, expected SD-1.5's; take {_FILE}")
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    shapes = {
        "unet": parts_of(unet_shapes({**unet, **_BASE_ONLY}), "base", "camera"),
        "vae": vae_shapes(vae),
        "text": text_shapes(text),
    }
    layers = unet.get("layers_per_block", 2)
    names = {
        **{f"unet/{name}": unet_name(name, layers, shapes["unet"]) for name in shapes["unet"]},
        **{f"vae/{name}": vae_name(name, len(vae["block_out_channels"])) for name in shapes["vae"]},
        **{f"text/{name}": text_name(name) for name in shapes["text"]},
    }
    taken = take(
        tensors,
        names,
        {f"{part}/{name}": shape for part, some in shapes.items() for name, shape in some.items()},
        where=str(path),
        what=f"the {len(names)} tensors of {_FILE}",
        hint="fetch that file",
        dropped=(*_SCHEDULE, f"{TEXT}embeddings.position_ids"),
        flatten_convolutions=True,
    )
    parts = {part: _under(taken, f"{part}/") for part in shapes}
    return MVDream(unet, parts["unet"], vae, parts["vae"], text, parts["text"])


# -- the folder --------------------------------------------------------------------------------------------------------


def from_folder(folder: Path) -> MVDream:
    """The networks of the folder in diffusers' form, from its unet/, vae/ and text_encoder/.

    Raises:
        InputError: a part is missing; another kind of network; names, shapes or values that do not fit.
    """
    folder = Path(folder)
    config, tensors, path = read_folder(folder / "unet")
    ours = unet_config(config, folder / "unet/config.json")
    shapes = parts_of(unet_shapes({**ours, **_BASE_ONLY}), "base", "camera")
    hint = "take yanqinJiang/mvdream-sd1.5-diffusers, or another folder of an SD-1.5 network with a camera embedding"
    unet = take(
        tensors,
        {name: name for name in shapes},
        shapes,
        where=str(path),
        what="MVDream's UNet by its config",
        hint=hint,
    )
    vae_config, tensors, path = read_folder(folder / "vae")
    vae_config = _plain(vae_config)
    shapes = vae_shapes(vae_config)
    vae = take(
        tensors,
        {name: _older_vae_name(name, tensors) for name in shapes},
        shapes,
        where=str(path),
        what="the AutoencoderKL of its config",
        hint="fetch the folder again",
        flatten_convolutions=True,
    )
    text_config, tensors, path = read_folder(folder / "text_encoder")
    text_config = _plain(text_config)
    shapes = text_shapes(text_config)
    text = take(
        _text_prefixed(tensors),
        {name: f"text_model.{name.removeprefix('text_model.')}" for name in shapes},
        shapes,
        where=str(path),
        what="the CLIPTextModel of its config",
        hint="fetch the folder again",
        dropped=("text_model.embeddings.position_ids",),
    )
    return MVDream(ours, unet, vae_config, vae, text_config, text)


def unet_config(config: Mapping[str, Any], where: Path) -> Config:
    """Our UNet's config from the config.json of a UNet2DConditionModel with cameras.

    Raises:
        InputError: a field has a value that our network does not have.
    """
    fixed = {
        "act_fn": "silu",
        "use_linear_projection": False,
        "transformer_layers_per_block": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "class_embed_type": None,
        "addition_embed_type": None,
        "dual_cross_attention": False,
        "only_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "resnet_time_scale_shift": "default",
        "conv_in_kernel": 3,
    }
    wrong = [f"{name} {config[name]!r}" for name, value in fixed.items() if config.get(name, value) != value]
    if wrong:
        raise InputError(f"{where}: found {', '.join(wrong[:3])}, expected SD-1.5's values; take an SD-1.5 network")
    heads = config.get("num_attention_heads") or config.get("attention_head_dim") or 8
    if not isinstance(heads, int):
        raise InputError(f"{where}: found attention_head_dim {heads}, expected one number; take an SD-1.5 network")
    found: Config = {
        "num_attention_heads": heads,
        "camera_embed_dim": config.get("camera_embedding_dim") or config.get("camera_embed_dim") or 16,
    }
    for name in ("down_block_types", "up_block_types"):
        if name in config:
            found[name] = [kind.removesuffix("2D") for kind in config[name]]
    same = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
    found |= {name: config[name] for name in (*same, "norm_num_groups", "norm_eps") if name in config}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def vae_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of an AutoencoderKL's weights for its config."""
    from diffusers import AutoencoderKL

    return shapes_of(lambda: AutoencoderKL.from_config(dict(config)))


def text_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a CLIPTextModel's weights for its config."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return shapes_of(lambda: CLIPTextModel(CLIPTextConfig(**config)))


def _older_vae_name(name: str, names: Mapping[str, Any]) -> str:
    """diffusers before 0.15 had other names in the attention of the autoencoder; both are still on the hub."""
    older = (
        (r"\.to_q\.", ".query."),
        (r"\.to_k\.", ".key."),
        (r"\.to_v\.", ".value."),
        (r"\.to_out\.0\.", ".proj_attn."),
    )
    return name if name in names else renamed(name, older)


def _text_prefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 writes CLIPTextModel without the `text_model.` that older ones have."""
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in tensors.items()}


def _plain(config: Mapping[str, Any]) -> Config:
    """A config without the entries about who wrote it."""
    foreign = ("architectures", "model_type", "torch_dtype", "dtype", "transformers_version")
    return {name: value for name, value in config.items() if not name.startswith("_") and name not in foreign}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
