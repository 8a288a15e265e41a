"""The networks of a run: where they come from, which weights are trained, and how they are put to work.

What is frozen stays exactly as it was opened until the run has written it; only then may it lose precision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from manifests.errors import InputError
from train.config import TrainConfig
from train.models.build import load_pipeline, new_pipeline, scheduler_of
from train.run.step import runs_in_bf16

__all__ = ["choose_trained", "frozen_parts", "open_pipeline", "put_to_work"]


def open_pipeline(config: TrainConfig, run_model: Path | None) -> Any:
    """The pipeline that a run trains.

    Args:
        config: says from what it starts, and the objective.
        run_model: ``model/`` of a run that goes on; its frozen weights are those of before, wherever the base is now.

    Returns:
        an `MVAnimatePipeline` on the CPU, whose scheduler and config are those of this training.

    Raises:
        InputError: no whole pipeline in the folder.
    """
    if run_model is not None:
        pipeline = load_pipeline(run_model)
    elif config.model.base:
        pipeline = load_pipeline(Path(config.model.base), config.model)
    else:
        pipeline = new_pipeline(config.model, data=config.data, objective=config.objective)
    pipeline.register_modules(scheduler=scheduler_of(config.objective))
    data = config.data
    pipeline.register_to_config(
        background=list(data.background),
        num_views=data.views,
        num_frames=data.frames,
        size=data.size,
        frame0_time_zero=config.objective.frame0_time_zero,
        guidance_scale=config.save.guidance,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def choose_trained(pipeline: Any, *, train_all: bool) -> dict[str, nn.Parameter]:
    """Name -> weight of the UNet that is trained; all else is frozen.

    Raises:
        InputError: the network has nothing of what Animate3D trains.
    """
    unet = pipeline.unet
    trained = dict(unet.named_parameters()) if train_all else unet.trainable_parameters()
    if not trained:
        raise InputError(
            "--train-all: found no motion modules and no adapter in the network, expected something to train; set it"
        )
    for part in [unet, *frozen_parts(pipeline)]:
        part.requires_grad_(False).eval()
    for value in trained.values():
        value.requires_grad_(True)
    return trained


def frozen_parts(pipeline: Any) -> list[nn.Module]:
    """Networks that no config trains."""
    parts = (pipeline.vae, pipeline.text_encoder, pipeline.image_encoder)
    return [part for part in parts if part is not None]


def put_to_work(pipeline: Any, config: TrainConfig, device: torch.device) -> None:
    """Moves the networks to the device and makes them as fast, or as small, as the config says; names stay."""
    compute, unet = config.compute, pipeline.unet
    if runs_in_bf16(config, device):
        for part in frozen_parts(pipeline):
            part.to(torch.bfloat16)
    pipeline.to(device)
    if compute.channels_last:
        unet.to(memory_format=torch.channels_last)
    if compute.attention != "native":
        unet.set_attention_backend(compute.attention)
    if compute.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if compute.compile:
        unet.compile_repeated_blocks()
    unet.train()
