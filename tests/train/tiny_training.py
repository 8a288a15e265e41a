"""Training runs of a second or two: a pipeline of the real classes with a few ten thousand weights, and its configs.

What runs in other processes (killed ones, ranks) is started by a fork server that has already imported the heavy
packages and has computed nothing: forking a process with a used autograd fails, and importing anew takes too long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from manifests.errors import MvvError
from train.config import ObjectiveConfig, TrainConfig, preset
from train.models.build import scheduler_of
from train.models.pixel_codec import PixelCodec
from train.models.unet_mv_motion import MVUNetMotionModel
from train.pipeline import MVAnimatePipeline
from train.run.trainer import Summary, train
from train.tokenizer import clip_tokenizer

VIEWS, FRAMES, SIZE = 2, 3, 16
NARROW = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
UNET = {
    "in_channels": 12,
    "out_channels": 12,
    "block_out_channels": (16, 16),
    "down_block_types": ("CrossAttnDownBlock", "DownBlock"),
    "up_block_types": ("UpBlock", "CrossAttnUpBlock"),
    "layers_per_block": 1,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "image_embed_dim": 16,
}


def make_base(folder: Path) -> Path:
    """Saves the pipeline that all these runs start from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = CLIPVisionConfig(**NARROW, image_size=16, patch_size=8, projection_dim=16)
        pipeline = MVAnimatePipeline(
            vae=PixelCodec(),
            text_encoder=CLIPTextModel(CLIPTextConfig(**WORDS, **NARROW)),
            tokenizer=clip_tokenizer(),
            unet=MVUNetMotionModel(**UNET),
            scheduler=scheduler_of(ObjectiveConfig()),
            image_encoder=CLIPVisionModelWithProjection(vision),
            feature_extractor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        )
    pipeline.save_pretrained(folder)
    return folder


def make_config(base: Path, **changes: dict[str, Any]) -> TrainConfig:
    """A config for `make_base` and the tiny dataset; ``save={"steps": 3}`` changes a group's fields."""
    config = preset("tiny")
    mine: dict[str, dict[str, Any]] = {
        "data": {"views": VIEWS, "frames": FRAMES, "strides": (1,), "size": SIZE, "block_shards": 1},
        "model": {"base": str(base), "train_all": False},
        "optimizer": {"batch_size": 4, "micro_batch": 2, "learning_rate": 1e-3, "warmup_steps": 2, "ema_decay": 0.9},
        "compute": {"loader_workers": 0},
        "save": {"steps": 4, "checkpoint_every": 2, "log_every": 1, "validate_every": 0},
    }
    groups = {name: mine.get(name, {}) | changes.get(name, {}) for name in mine.keys() | changes.keys()}
    replaced = {name: dataclasses.replace(getattr(config, name), **values) for name, values in groups.items()}
    return dataclasses.replace(config, **replaced)


def run(config: TrainConfig, data: Path, out: Path, **more: Any) -> Summary:
    """`train`, on one thread."""
    torch.set_num_threads(1)
    return train(config, data=data, out=out, **more)


@dataclasses.dataclass(frozen=True)
class KillAt:
    """Ends the process as a power cut does, after an update."""

    step: int

    def __call__(self, step: int, steps: int, facts: dict[str, Any]) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def start(task: Callable[..., None], *args: Any, **kwargs: Any) -> BaseProcess:
    """Starts a function of a test module in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.tiny_training"])
    process = context.Process(target=_quietly, args=(task, dict(os.environ), args, kwargs))
    process.start()
    return process


def ended(process: BaseProcess, timeout_s: float = 120) -> int:
    """Waits for the process; its exit code."""
    process.join(timeout_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"a training process did not end in {timeout_s} s")
    return process.exitcode


def run_ranks(world_size: int, config: TrainConfig, data: Path, out: Path, **more: Any) -> list[int]:
    """`train` on ranks that talk over gloo, as torchrun would start them; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [start(_rank, rank, world_size, port, config, data, out, more) for rank in range(world_size)]
    return [ended(process) for process in ranks]


def _rank(rank: int, world_size: int, port: int, config: TrainConfig, data: Path, out: Path, more: dict) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in told.items()})
    try:
        run(config, data, out, **more)
    except MvvError as error:
        (out.parent / f"rank-{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


def _quietly(task: Callable[..., None], environment: dict[str, str], args: tuple, kwargs: dict) -> None:
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("error", UserWarning)
    torch.set_num_threads(1)
    with contextlib.redirect_stderr(sys.stdout):
        task(*args, **kwargs)
