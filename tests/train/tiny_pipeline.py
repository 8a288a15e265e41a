"""A pipeline of pixels with a very small network, and what to call it with."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tests.train.tiny_models import small_unet
from train.config import DataConfig, ModelConfig, ObjectiveConfig
from train.models.build import new_pipeline, scheduler_of
from train.models.unet_mv_motion import MVUNetMotionModel
from train.pipeline import MVAnimatePipeline

ZERO_SNR = ObjectiveConfig(prediction="v_prediction", beta_schedule="scaled_linear", zero_terminal_snr=True)
DATA = DataConfig(frames=4, strides=(2,), size=16)


@functools.cache
def _parts() -> dict[str, Any]:
    return dict(new_pipeline(ModelConfig(scale="tiny"), data=DATA, objective=ObjectiveConfig()).components)


def pixel_unet(seed: int = 0, **changes: Any) -> MVUNetMotionModel:
    """A network for the tiny scale's latents and encoders."""
    sizes = {"in_channels": 48, "out_channels": 48, "cross_attention_dim": 64, "image_embed_dim": 64}
    return small_unet(seed, **sizes, **changes)


def tiny_pipeline(objective: ObjectiveConfig = ZERO_SNR, unet: Any = None, **facts: Any) -> MVAnimatePipeline:
    """4 views, 4 frames, 16 pixels; encoders and codec of the tiny scale."""
    parts = _parts() | {"unet": unet or pixel_unet(), "scheduler": scheduler_of(objective)}
    pipeline = MVAnimatePipeline(**parts | {"num_frames": DATA.frames, "size": DATA.size} | facts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(batch: int = 1, views: int = 2, size: int = 16, seed: int = 0) -> dict[str, Any]:
    """Arguments of a call."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, views, 3, size, size), dtype=torch.uint8, generator=generator)
    cameras = torch.randn(batch, views, 16, generator=generator)
    return {"prompt": ["a fox runs"] * batch, "images": images, "cameras": cameras, "num_inference_steps": 2}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents_like(batch: int = 1, views: int = 2, frames: int = 4, seed: int = 5) -> Tensor:
    """Noise of the shape that a call of 16 pixels has."""
    return torch.randn(batch, views, frames, 48, 4, 4, generator=seeded(seed))
