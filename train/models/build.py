"""A whole pipeline from a config: new with random weights, or from a folder with every weight accounted for.

Sizes of the two scales are here and nowhere else. Sources: SD-1.5's configs as diffusers has them, OpenAI's CLIP
ViT-L/14 (text), OpenCLIP's ViT-H/14 (the image encoder of IP-Adapter); `tiny` is our own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from manifests.errors import InputError
from train.codec import load_codec
from train.config import DataConfig, ModelConfig, ObjectiveConfig
from train.convert.assemble import build_unet, own_unet
from train.convert.keys import unet_shapes
from train.models.pixel_codec import PixelCodec
from train.models.unet_mv_motion import MVUNetMotionModel
from train.pipeline import MVAnimatePipeline
from train.saved_pipeline import check_saved_pipeline, weight_names
from train.tokenizer import clip_tokenizer

__all__ = ["load_pipeline", "new_pipeline", "scheduler_of"]

_CLIP_WORDS: dict[str, Any] = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}

_TINY: dict[str, dict[str, Any]] = {
    # 4 x 4 pixels a latent position: attention over four views of 16 x 16 positions would take most of a step.
    "vae": {"patch_size": 4, "latent_channels": 48, "block_out_channels": (48, 48, 48), "scaling_factor": 4.0},
    "unet": {
        "in_channels": 48,
        "out_channels": 48,
        "block_out_channels": (48, 64, 96),
        "down_block_types": ("CrossAttnDownBlock", "CrossAttnDownBlock", "DownBlock"),
        "up_block_types": ("UpBlock", "CrossAttnUpBlock", "CrossAttnUpBlock"),
        "layers_per_block": 1,
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
        "image_embed_dim": 64,
    },
    "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "image": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 64,
    },
}
_SD15: dict[str, dict[str, Any]] = {
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
    },
    "unet": {},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "image": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
}


def scheduler_of(objective: ObjectiveConfig) -> DDIMScheduler:
    """Noise levels of training and sampling: 1000, beta from 0.00085 to 0.012.

    The last step of sampling ends without noise (`set_alpha_to_one`), as in the released sampler of Animate3D; on
    pixels the remainder of the first level would be seen.
    """
    with torch.device("cpu"):  # also where a pipeline without memory is made
        return DDIMScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule=objective.beta_schedule,
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=True,
            prediction_type=objective.prediction,
            rescale_betas_zero_snr=objective.zero_terminal_snr,
            # A schedule that ends in pure noise has to be sampled from its very end (arXiv 2305.08891, section 3.3).
            timestep_spacing="trailing" if objective.zero_terminal_snr else "leading",
        )


def new_pipeline(config: ModelConfig, *, data: DataConfig, objective: ObjectiveConfig) -> MVAnimatePipeline:
    """A pipeline with random weights; under `torch.device("meta")` one without memory.

    Args:
        config: its scale, switches and seed; `base` is not looked at.
        data: views, frames, size and background, which the pipeline records.
        objective: noise levels and what is predicted.

    The global generators are left as they were.
    """
    sizes = _TINY if config.scale == "tiny" else _SD15
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.init_seed)
        vae = PixelCodec(**sizes["vae"]) if config.scale == "tiny" else AutoencoderKL(**sizes["vae"])
        text_encoder = CLIPTextModel(CLIPTextConfig(**_CLIP_WORDS, **sizes["text"]))
        image_encoder = (
            CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes["image"])) if config.mv2v_adapter else None
        )
        unet = MVUNetMotionModel(**sizes["unet"], **_switches(config))
    side = sizes["image"]["image_size"]
    return MVAnimatePipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=clip_tokenizer(),
        unet=unet.eval(),
        scheduler=scheduler_of(objective),
        image_encoder=image_encoder.eval() if image_encoder is not None else None,
        feature_extractor=_feature_extractor(side) if image_encoder is not None else None,
        background=data.background,
        num_views=data.views,
        num_frames=data.frames,
        size=data.size,
        frame0_time_zero=objective.frame0_time_zero,
    )


def load_pipeline(folder: Path | str, config: ModelConfig | None = None) -> MVAnimatePipeline:
    """A saved pipeline in float32, with its own weights, all of them and no others.

    Args:
        folder: as `save_pretrained` wrote it.
        config: switches to apply. Layers that it adds start from `init_seed`, those it takes away are left out; None
            loads the pipeline as it is.

    Raises:
        InputError: another folder, a file that is missing, cut short or of another model; names it.
    """
    folder = Path(folder)
    classes = check_saved_pipeline(folder)
    unet, vae = _load_unet(folder, config), folder / "vae"
    parts: dict[str, Any] = {"unet": unet, "vae": _all_there(load_codec(vae), vae)}
    parts["text_encoder"] = _load_clip(CLIPTextModel, folder / "text_encoder")
    if not unet.config.mv2v_adapter:
        parts |= {"image_encoder": None, "feature_extractor": None}
    elif "image_encoder" in classes:
        parts["image_encoder"] = _load_clip(CLIPVisionModelWithProjection, folder / "image_encoder")
    try:
        # What is left has no weights; diffusers reads it, and the pipeline's own values.
        pipeline = MVAnimatePipeline.from_pretrained(folder, **parts)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: found {_first_line(error)}, expected a whole pipeline; save it again") from error
    _check_fit(pipeline, folder)
    return pipeline


def _load_unet(folder: Path, config: ModelConfig | None) -> MVUNetMotionModel:
    """The network, strictly by name and shape; with switches, what both it and the changed one have."""
    stored, tensors = own_unet(folder)
    tensors = {name: value.float() for name, value in tensors.items()}
    wanted = stored | (_switches(config) | {"motion_modules": True} if config is not None else {})
    shapes = unet_shapes(wanted)
    kept = {name: value for name, value in tensors.items() if name in shapes}
    return build_unet(wanted, kept, kept, config.init_seed if config is not None else 0)


def _load_clip(kind: Any, folder: Path) -> Any:
    try:
        network, told = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: found {_first_line(error)}, expected a whole {kind.__name__}; save it again"
        ) from error
    wrong = [*told["missing_keys"], *told["unexpected_keys"], *(entry[0] for entry in told["mismatched_keys"])]
    _refuse_names(wrong, folder)
    return network.float().eval().requires_grad_(False)


def _all_there(codec: nn.Module, folder: Path) -> nn.Module:
    _refuse_names(weight_names(folder) ^ set(codec.state_dict()), folder)
    return codec


def _refuse_names(names: Any, folder: Path) -> None:
    if names:
        raise InputError(
            f"{folder}: found {len(names)} weights that are missing, of another shape or not its own, among them"
            f" {', '.join(sorted(names)[:3])}, expected those that config.json declares; copy the whole folder again"
        )


def _check_fit(pipeline: MVAnimatePipeline, folder: Path) -> None:
    """That the parts were made for each other; a folder put together by hand may look whole."""
    unet, text = pipeline.unet.config, pipeline.text_encoder.config
    pairs = [
        ("unet takes and vae gives latent channels", unet.in_channels, pipeline.vae.config.latent_channels),
        ("unet takes and text_encoder gives channels", unet.cross_attention_dim, text.hidden_size),
        ("text_encoder knows and tokenizer has words", text.vocab_size, len(pipeline.tokenizer)),
    ]
    if unet.mv2v_adapter:
        if pipeline.image_encoder is None:
            raise InputError(
                f"{folder}: found no image_encoder, expected one for the MV2V-Adapter; convert the base with"
                " --image-encoder, or switch the adapter off"
            )
        given = pipeline.image_encoder.config.projection_dim
        pairs.append(("unet takes and image_encoder gives channels", unet.image_embed_dim, given))
    for what, left, right in pairs:
        if left != right:
            raise InputError(f"{folder}: found that {what}: {left} and {right}, expected equal numbers; save it again")


def _switches(config: ModelConfig) -> dict[str, bool]:
    return {"spatial_branch": config.spatial_branch, "mv2v_adapter": config.mv2v_adapter}


def _feature_extractor(side: int) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
