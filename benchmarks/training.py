"""What a training step and a sampled clip cost: arithmetic, levers one by one, and the released recipe in the same run.

``python benchmarks/training.py flops`` counts on tensors without memory and runs anywhere. ``... levers`` and ``...
sampling`` want a GPU (``--scale tiny --device cpu`` tries them on small networks). Each prints JSON and writes it to
``benchmarks/results/``. Weights are random: time does not depend on their values.

The recipe is the released trainer of Animate3D restated: fp16 autocast with a gradient scaler, fp32 weights, the VAE
and both CLIP encoders run on every step in fp32, AdamW as it comes, no compilation. Its network is ours, whose frame-0
attention repeats no keys and whose temporal attention stores no scores, so the ratio is not in our favour.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.conditions import encode_images, encode_moments, encode_text, latents_of_moments
from train.config import PRESETS, DataConfig, ModelConfig, TrainConfig
from train.models.build import new_pipeline
from train.run import flops
from train.run.objective import loss, noised

HERE = Path(__file__).parent
PROMPT = "a fox runs and looks back"


@dataclasses.dataclass(frozen=True)
class Lever:
    """How a step is done; each lever of the table changes one field of the one before."""

    name: str
    autocast: torch.dtype = torch.float16
    frozen: torch.dtype = torch.float32
    tf32: bool = False
    cached: bool = False
    fused: bool = False
    compiled: bool = False
    channels_last: bool = False
    checkpointing: bool = False
    clips: int = 1


RECIPE = Lever("the released recipe")


def levers() -> list[Lever]:
    """From the recipe to ours, cumulative; the last two are alternatives for less memory and more clips a step."""
    table = [RECIPE]
    for name, change in (
        ("bf16 throughout, TF32", {"autocast": torch.bfloat16, "frozen": torch.bfloat16, "tf32": True}),
        ("latents from the cache", {"cached": True}),
        ("fused AdamW", {"fused": True}),
        ("compiled blocks", {"compiled": True}),
        ("channels last", {"channels_last": True}),
        ("4 clips a step", {"clips": 4}),
        ("gradient checkpointing", {"checkpointing": True}),
    ):  # fmt: skip
        table.append(dataclasses.replace(table[-1], name=f"+ {name}", **change))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("flops", "levers", "sampling"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scale", choices=("sd15", "tiny"), default="sd15")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="rows of the lever table, 0 is the recipe")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    report = {"flops": count_flops, "levers": time_levers, "sampling": time_sampling}[arguments.part](arguments)
    report |= {
        "command": f"python benchmarks/training.py {arguments.part}",
        "date": f"{datetime.date.today()}",
        "machine": machine(arguments),
    }
    print(json.dumps(report, indent=1))
    where = "meta" if arguments.part == "flops" else device_name(arguments.device).split()[-1].lower()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"training-{arguments.part}_{where}{os.cpu_count()}_{datetime.date.today():%Y%m}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


def config_of(arguments: argparse.Namespace) -> TrainConfig:
    if arguments.scale == "tiny":
        return PRESETS["tiny"]
    return dataclasses.replace(PRESETS["base"], data=DataConfig(), model=ModelConfig(scale="sd15"))


# -- arithmetic --------------------------------------------------------------------------------------------------------


def count_flops(arguments: argparse.Namespace) -> dict[str, Any]:
    """TFLOP of one clip, by parts and in all; the parts by switching them off."""
    config = config_of(arguments)
    with torch.device("meta"):
        pipeline = new_pipeline(config.model, data=config.data, objective=config.objective)
    base = type(pipeline.unet)
    # Without diffusers' list of fields at their defaults, which would undo the switches.
    config_of_unet = {name: value for name, value in pipeline.unet.config.items() if name[0] != "_"}
    off = {"mv2v_adapter": False, "motion_modules": False}
    variants = {
        "multi-view UNet (MVDream)": off,
        "+ motion modules (AnimateDiff)": off | {"motion_modules": True, "spatial_branch": False},
        "+ spatial branch": {"mv2v_adapter": False},
        "+ MV2V adapter = MV-VDM": {},
    }
    rows = {}
    for name, switches in variants.items():
        with torch.device("meta"):
            unet = base(**config_of_unet | switches)
        given = unet_inputs(pipeline, config, "meta", 1, image=unet.image_projection is not None)
        unet.requires_grad_(False)
        for value in unet.trainable_parameters().values():
            value.requires_grad_(True)
        rows[name] = {
            "parameters_m": round(sum(value.numel() for value in unet.parameters()) / 1e6, 1),
            "trained_m": round(sum(value.numel() for value in unet.trainable_parameters().values()) / 1e6, 1),
            "forward_tflop": round(flops.count(unet, **given, backward=False) / 1e12, 2),
        }
        if unet.trainable_parameters():
            rows[name]["forward_backward_tflop"] = round(flops.count(unet, **given, backward=True) / 1e12, 2)
    views, frames, size = config.data.views, config.data.frames, config.data.size
    pixels = torch.empty(views * frames, 3, size, size, device="meta")
    encode = flops.count(pipeline.vae, pixels, backward=False, call=lambda vae, x: vae.encode(x).latent_dist.parameters)
    step = rows["+ MV2V adapter = MV-VDM"]["forward_backward_tflop"]
    return {
        "what": f"one clip: {views} views x {frames} frames x {size} px; a multiplication and an addition are two",
        "unet": rows,
        "vae_encode_tflop": round(encode / 1e12, 2),
        "step_from_latents_tflop": step,
        "step_with_vae_tflop": round(step + encode / 1e12, 2),
        "clips_per_s_at_40_percent_of_989_tflop_per_s": round(0.4 * 989 / step, 2),
    }


def unet_inputs(
    pipeline: Any, config: TrainConfig, device: str, clips: int, *, image: bool = True
) -> dict[str, Tensor]:
    unet, data = pipeline.unet.config, config.data
    side = data.size // pipeline_factor(pipeline)
    given = {
        "sample": torch.zeros(clips, data.views, data.frames, unet.in_channels, side, side, device=device),
        "timestep": torch.zeros(clips, dtype=torch.int64, device=device),
        "encoder_hidden_states": torch.zeros(clips, 77, unet.cross_attention_dim, device=device),
        "camera": torch.zeros(clips, data.views, unet.camera_embed_dim, device=device),
    }
    if image:
        given["image_embeds"] = torch.zeros(clips, data.views, unet.image_embed_dim, device=device)
    return given


def pipeline_factor(pipeline: Any) -> int:
    from train.conditions import spatial_factor

    return spatial_factor(pipeline.vae)


# -- a training step ---------------------------------------------------------------------------------------------------


def time_levers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, clips a second, memory and MFU of each row of the table; the loader is not in it."""
    config, device = config_of(arguments), arguments.device
    counted = count_flops(arguments)
    peak = flops.peak_tflops(device_name(device), "bf16")
    table = levers()
    rows = []
    for number in arguments.only if arguments.only else range(len(table)):
        row = {"row": number, "name": table[number].name}
        try:
            row |= time_step(table[number], config, arguments)
            done = counted["step_from_latents_tflop"] * row["clips_per_s"]
            row |= {"tflops": round(done, 1), "mfu": round(done / peak, 3) if peak else "peak of this device unknown"}
        except torch.OutOfMemoryError:
            row["failed"] = "out of memory"
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        release(device)
    first = next((row["clips_per_s"] for row in rows if row["row"] == 0 and "clips_per_s" in row), None)
    for row in rows:
        if first and "clips_per_s" in row:
            row["times_the_recipe"] = round(row["clips_per_s"] / first, 2)
    return {"what": "one optimiser step on random clips, loader excluded", "levers": rows, "flops": counted}


def time_step(lever: Lever, config: TrainConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    device = arguments.device
    step = make_step(lever, config, device)
    for _ in range(arguments.warmup):
        step()
    synchronize(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(arguments.repeats):
        begin = time.perf_counter()
        step()
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    middle = statistics.median(seconds)
    row = {
        "clips_a_step": lever.clips,
        "seconds": round(middle, 4),
        "spread": round((max(seconds) - min(seconds)) / middle, 3),
        "clips_per_s": round(lever.clips / middle, 3),
    }
    if device.startswith("cuda"):
        row["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return row


def make_step(lever: Lever, config: TrainConfig, device: str) -> Callable[[], None]:
    """One optimiser step as a function without arguments, on new noise each time."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = lever.tf32
    with torch.device(device):
        pipeline = new_pipeline(config.model, data=config.data, objective=config.objective)
    unet, vae = pipeline.unet.to(device), pipeline.vae.to(device)
    frozen = [vae, pipeline.text_encoder.to(device), pipeline.image_encoder.to(device)]
    for network in frozen:
        network.requires_grad_(False).eval().to(lever.frozen)
    unet.requires_grad_(False).train()
    trained = list(unet.trainable_parameters().values())
    for value in trained:
        value.requires_grad_(True)
    if lever.frozen != torch.float32:
        kept = set(map(id, trained))
        for value in unet.parameters():
            if id(value) not in kept:
                value.data = value.data.to(lever.frozen)
    if lever.channels_last:
        unet.to(memory_format=torch.channels_last)
    if lever.checkpointing:
        unet.enable_gradient_checkpointing()
    if lever.compiled:
        unet.compile_repeated_blocks()
    data = config.data
    pixels = torch.randint(256, (lever.clips, data.views, data.frames, 3, data.size, data.size), dtype=torch.uint8)
    pixels, camera = pixels.to(device), torch.randn(lever.clips, data.views, 16, device=device)
    moments = encode_moments(vae, pixels) if lever.cached else None
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=lever.fused or None)
    scaler = torch.amp.GradScaler(enabled=lever.autocast == torch.float16 and device.startswith("cuda"))
    seeds = itertools.count()

    def step() -> None:
        number = [next(seeds) for _ in range(lever.clips)]
        with torch.no_grad():
            text = encode_text(pipeline.tokenizer, pipeline.text_encoder, [PROMPT] * lever.clips)
            image = encode_images(pipeline.image_encoder, pipeline.feature_extractor, pixels[:, :, 0])
            drawn = encode_moments(vae, pixels, chunk=64) if moments is None else moments
            latents = latents_of_moments(drawn, vae.config.scaling_factor, number)
            truth = noised(latents, number, pipeline.scheduler)
        with torch.autocast(device.partition(":")[0], lever.autocast):
            pred = unet(truth.noisy, truth.timesteps, text, camera, image).sample
        found = loss(pred, truth, pipeline.scheduler, 0.0)
        optimizer.zero_grad()
        scaler.scale(found.mean).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()

    return step


# -- sampling ----------------------------------------------------------------------------------------------------------


def time_sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds a clip: 25 steps, compiled or not, with guidance; and FreeInit's three times 25."""
    config, device = config_of(arguments), arguments.device
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    data, rows = config.data, {}
    pixels = torch.randint(256, (1, data.views, 3, data.size, data.size), dtype=torch.uint8)
    for name, compiled, free_init in (
        ("25 steps", False, 0),
        ("25 steps, compiled", True, 0),
        ("FreeInit, 3 x 25 steps", False, 3),
        ("FreeInit, 3 x 25 steps, compiled", True, 3),
    ):
        with torch.device(device):
            pipeline = new_pipeline(config.model, data=config.data, objective=config.objective)
        pipeline.to(device, dtype)
        pipeline.set_progress_bar_config(disable=True)
        if compiled:
            pipeline.unet.compile_repeated_blocks()
        if free_init:
            pipeline.enable_free_init(num_iters=free_init)
        with generating():
            seconds = []
            for seed in range(2 + (not free_init)):  # the first one warms up, and compiles
                synchronize(device)
                begin = time.perf_counter()
                pipeline(
                    PROMPT, pixels, torch.randn(1, data.views, 16), num_frames=data.frames,
                    generator=torch.Generator().manual_seed(seed),
                )  # fmt: skip
                synchronize(device)
                seconds.append(time.perf_counter() - begin)
        rows[name] = {"seconds_a_clip": round(min(seconds[1:]), 3), "first_clip_s": round(seconds[0], 3)}
        print(json.dumps({name: rows[name]}), file=sys.stderr, flush=True)
        release(device)
    return {"what": "one clip with guidance 7.5 (two network passes a step), VAE included", "sampling": rows}


@contextlib.contextmanager
def generating() -> Iterator[None]:
    with torch.no_grad():
        yield


# -- the machine -------------------------------------------------------------------------------------------------------


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    packages = ("torch", "diffusers", "transformers")
    return {
        "device": "none, tensors without memory" if arguments.part == "flops" else device_name(arguments.device),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def release(device: str) -> None:
    torch._dynamo.reset()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
