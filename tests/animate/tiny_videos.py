"""Video pipelines of diffusers' own classes, very small and with random weights, and a shot for them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from animate.shot import Shot, intrinsics_of
from tests.train.tiny_models import randomize
from train.tokenizer import clip_tokenizer

WIDE = 16
"""Channels of the text and image embeddings."""
_CLIP = {"hidden_size": WIDE, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_WORDS = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
NAMES = ("I2VGenXLPipeline", "StableVideoDiffusionPipeline", "AnimateDiffPipeline")


def shot(views: int = 2, frames: int = 3, size: int = 16, prompt: str = "a Fox jumps, the fox lands") -> Shot:
    """Some cameras and random images; 8 frames a second."""
    generator = torch.Generator().manual_seed(4)
    return Shot(
        prompt=prompt,
        c2w=torch.eye(4).repeat(views, 1, 1),
        K=intrinsics_of(torch.full((views,), 40.0), size),
        size=size,
        first=torch.rand(views, 3, size, size, generator=generator),
        times_s=torch.arange(frames, dtype=torch.float64) / 8,
    )


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def pipeline(name: str, prediction: str = "v_prediction") -> Any:
    """A pipeline whose autoencoder has no spread, so that drawing from it is taking its mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = _svd() if name.startswith("Stable") else _i2v() if name.startswith("I2V") else _animatediff()
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            randomize(part)
    _without_spread(parts["vae"])
    if not name.startswith("Stable"):
        parts["scheduler"] = ddim(prediction)
    made = getattr(diffusers, name)(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def saved(name: str, folder: Path, prediction: str = "v_prediction") -> Path:
    """The same as a folder."""
    pipeline(name, prediction).save_pretrained(folder)
    return folder


def ddim(prediction: str) -> Any:
    """Noise levels as in Stable Diffusion, sampled from the last one on."""
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
        timestep_spacing="trailing",
    )


def _text() -> dict[str, Any]:
    config = transformers.CLIPTextConfig(**_CLIP, **_WORDS)
    return {"text_encoder": transformers.CLIPTextModel(config), "tokenizer": clip_tokenizer()}


def _image(side: int) -> dict[str, Any]:
    config = transformers.CLIPVisionConfig(**_CLIP, image_size=side, patch_size=side // 4, projection_dim=WIDE)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return {"image_encoder": transformers.CLIPVisionModelWithProjection(config), "feature_extractor": processor}


def _vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )


def _without_spread(vae: Any) -> None:
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -60


def _i2v() -> dict[str, Any]:
    unet = diffusers.models.I2VGenXLUNet(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        cross_attention_dim=WIDE,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    return {**_text(), **_image(32), "vae": _vae(), "unet": unet}


def _svd() -> dict[str, Any]:
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        cross_attention_dim=WIDE,
        num_attention_heads=(2, 2),
        num_frames=3,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
        use_karras_sigmas=True,
    )
    return {**_image(224), "vae": vae, "unet": unet, "scheduler": scheduler}


def unet2d() -> Any:
    """The network of pictures that AnimateDiff's adapter goes into."""
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDE,
        attention_head_dim=2,
        norm_num_groups=2,
    )


def motion_adapter() -> Any:
    """Its motion modules, for up to 4 frames."""
    return diffusers.MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=2,
        motion_max_seq_length=4,
    )


def _animatediff() -> dict[str, Any]:
    merged = diffusers.UNetMotionModel.from_unet2d(unet2d(), motion_adapter())
    return {**_text(), "vae": _vae(), "unet": merged, "motion_adapter": motion_adapter()}
