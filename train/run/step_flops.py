"""What a clip costs in one training step, by network: counted on shapes alone, before anything runs.

The networks that a config does not use cost nothing; weights that are not trained have no gradient to compute.
"""

from __future__ import annotations

from typing import Any

import torch

from train.conditions import image_inputs, spatial_factor
from train.config import TrainConfig
from train.run.flops import count

__all__ = ["clip_flops"]


_counted: dict[str, dict[str, int]] = {}
"""Counting takes seconds, and only depends on configs."""


def clip_flops(pipeline: Any, config: TrainConfig) -> dict[str, int]:
    """Network -> floating-point operations of one clip in one step, forward and, for the UNet, backward.

    Args:
        pipeline: `train.pipeline.MVAnimatePipeline`; only shapes and ``requires_grad`` are used.
        config: the sample's shape and where latents come from.
    """
    key = _key(pipeline, config)
    if key not in _counted:
        _counted[key] = _count(pipeline, config)
    return dict(_counted[key])


def _key(pipeline: Any, config: TrainConfig) -> str:
    data = config.data
    parts = [pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.image_encoder]
    told = [str(part and part.config) for part in parts]
    trained = [value.requires_grad for value in pipeline.unet.parameters()]
    return repr([data.views, data.frames, data.size, data.source, told, trained])


def _count(pipeline: Any, config: TrainConfig) -> dict[str, int]:
    data, unet = config.data, pipeline.unet.config
    side = data.size // spatial_factor(pipeline.vae)
    latents = torch.empty(1, data.views, data.frames, unet.in_channels, side, side, device="meta")
    text = torch.empty(1, pipeline.tokenizer.model_max_length, unet.cross_attention_dim, device="meta")
    camera = torch.empty(1, data.views, unet.camera_embed_dim, device="meta") if unet.camera_embed_dim else None
    image = torch.empty(1, data.views, unet.image_embed_dim, device="meta") if unet.mv2v_adapter else None
    time = torch.zeros(1, dtype=torch.long)
    given = {"camera": camera, "image_embeds": image, "return_dict": False}
    counts = {"unet": count(pipeline.unet, latents, time, text, backward=True, **given)}
    ids = torch.zeros(1, pipeline.tokenizer.model_max_length, dtype=torch.long)
    counts["text_encoder"] = count(pipeline.text_encoder, ids, backward=False, call=_text)
    if image is not None:
        frame0 = torch.zeros(data.views, 3, data.size, data.size, dtype=torch.uint8)
        seen = image_inputs(pipeline.feature_extractor, frame0)
        counts["image_encoder"] = count(pipeline.image_encoder, seen, backward=False, call=_embeds)
    if data.source == "rgb":
        # One image times the number of images: a VAE treats each alone.
        one = torch.empty(1, 3, data.size, data.size, device="meta")
        counts["vae"] = count(pipeline.vae, one, backward=False, call=_moments) * data.views * data.frames
    return counts


def _text(module: Any, ids: torch.Tensor) -> torch.Tensor:
    return module(ids).last_hidden_state


def _embeds(module: Any, pixels: torch.Tensor) -> torch.Tensor:
    return module(pixels).image_embeds


def _moments(module: Any, pixels: torch.Tensor) -> torch.Tensor:
    return module.encode(pixels).latent_dist.parameters
