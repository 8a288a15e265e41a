"""Whether the small model learns, and what the spatiotemporal block gives it: two trainings, scored on new objects.

``python benchmarks/learning.py DATASET`` trains preset `tiny` with and without the spatial branch on the `train` split,
samples every clip of the `val` split from its frame 0, and scores the samples against the truth: PSNR, flicker (mean
absolute difference of successive frames, as VBench's), and the cross-view error (share of silhouette pixels whose ray
meets no point that all other views see as object). Frame 0 held still is scored beside them. No weights are needed.
Differences are paired by clip, with a bootstrap interval. Repeated, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests.cameras import project
from manifests.dataset import Dataset
from train.config import PRESETS, TrainConfig
from train.data.clips import ClipDataset, collate
from train.models.build import load_pipeline
from train.run.trainer import train

HERE = Path(__file__).parent
VARIANTS = {"spatiotemporal": True, "temporal only": False}
NEAREST, FARTHEST, DEPTHS = 0.9, 2.1, 48
"""Where on a ray the object can be (distance 1.5, radius 0.5, and a margin), and how many points are tried."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=PRESETS["tiny"].save.steps)
    parser.add_argument("--runs", type=Path, default=Path("out/learning"), help="folder of the two runs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    report = measure(arguments)
    print(json.dumps(report, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"learning_cpu{os.cpu_count()}_{datetime.date.today():%Y%m}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    counts = Dataset.open(arguments.dataset).manifest["counts"]
    scores, rows = {}, {}
    for name, spatial in VARIANTS.items():
        config = config_of(spatial, arguments.steps)
        out = arguments.runs / name.replace(" ", "-")
        train(config, data=arguments.dataset, out=out, resume=True)
        scores[name] = score(out / "model", config, arguments.dataset)
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        lines = [line for line in log if "loss" in line]
        losses, clips = [line["loss"] for line in lines], [0, *(line["clips"] for line in lines)]
        # By the log and not by a clock here, because a run may have been stopped and gone on.
        seconds = sum((b - a) / line["clips_per_s"] for a, b, line in zip(clips, clips[1:], lines, strict=False))
        rows[name] = {
            "parameters": json.loads((out / "run.json").read_text())["parameters"],
            "training_s": round(seconds, 1),
            "loss_first_and_last": [round(losses[0], 5), round(losses[-1], 5)],
            "scores": {key: summary(values) for key, values in scores[name].items()},
        }
    first, second = (scores[name] for name in VARIANTS)
    return {
        "what": f"tiny, {arguments.steps} steps, {counts['clips']} clips; scored on those of split val, one seed",
        "variants": rows,
        "difference, spatiotemporal minus temporal only": {key: summary(first[key] - second[key]) for key in first},
        "command": f"python benchmarks/learning.py DATASET --steps {arguments.steps}",
        "date": f"{datetime.date.today()}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers")},
    }


def config_of(spatial: bool, steps: int) -> TrainConfig:
    base = PRESETS["tiny"]
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, spatial_branch=spatial),
        save=dataclasses.replace(base.save, steps=steps, validate_every=0),
    )


def score(model: Path, config: TrainConfig, dataset: Path) -> dict[str, np.ndarray]:
    """Name -> one value a clip of split val."""
    pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    data = dataclasses.replace(config.data, split="val")
    convention = pipeline.config.camera_convention
    clips = ClipDataset(dataset, data, config.objective, camera_convention=convention)
    opened = Dataset.open(dataset)
    rows = []
    for index in range(len(clips)):
        clip_id = clips.split.clip_id(index)
        plain = dataclasses.replace(clips.draw(clip_id), drop_text=False, drop_image=False)
        batch = collate([clips.sample_of(clip_id, draw=plain)])
        result = pipeline(
            batch["caption"], batch["pixels"][:, :, 0], batch["camera"], num_frames=config.data.frames,
            num_inference_steps=config.save.validate_sampling_steps, generator=torch.Generator().manual_seed(index),
        )  # fmt: skip
        truth, pred = (x[0].permute(0, 1, 3, 4, 2).numpy().astype(float) for x in (batch["pixels"], result.frames))
        cameras = opened.sample(clip_id)["cameras"]
        views = batch["views"][0].tolist()
        scale = config.data.size / cameras["width"]
        K = np.array(cameras["K"])[views] * np.array([[scale], [scale], [1.0]])
        c2w = np.array(cameras["c2w"])[views]
        frozen = np.broadcast_to(truth[:, :1], truth.shape)
        rows.append({
            "psnr": psnr(pred, truth),
            "psnr_frozen": psnr(frozen, truth),
            "flicker": flicker(pred),
            "flicker_truth": flicker(truth),
            "cross_view_error": cross_view_error(pred, c2w, K),
            "cross_view_error_truth": cross_view_error(truth, c2w, K),
        })  # fmt: skip
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def psnr(pred: np.ndarray, truth: np.ndarray) -> float:
    """dB over frames 1 and later; arrays are (view, frame, height, width, 3), 0 to 255."""
    return float(10 * np.log10(255**2 / np.mean((pred[:, 1:] - truth[:, 1:]) ** 2).clip(1e-3)))


def flicker(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames, axis=1)).mean())


def cross_view_error(frames: np.ndarray, c2w: np.ndarray, K: np.ndarray) -> float:
    """Share of silhouette pixels, over all views and frames but the first, that contradict another view."""
    masks = np.abs(frames - 127.5).max(-1) > 12
    views, num_frames, height, width = masks.shape
    wrong = total = 0
    for view in range(views):
        rows, columns = np.nonzero(masks[view, 1:].any(0))
        x = (columns + 0.5 - K[view, 0, 2]) / K[view, 0, 0]
        y = (rows + 0.5 - K[view, 1, 2]) / K[view, 1, 1]
        rays = np.stack([x, -y, -np.ones_like(x)], -1) @ c2w[view, :3, :3].T
        points = c2w[view, :3, 3] + rays[:, None] * np.linspace(NEAREST, FARTHEST, DEPTHS)[:, None]
        places = [seen(points, c2w[other], K[other], height, width) for other in range(views) if other != view]
        others = [other for other in range(views) if other != view]
        for frame in range(1, num_frames):
            there = masks[view, frame, rows, columns]
            common = np.ones(points.shape[:2], bool)
            for other, (inside, u, v) in zip(others, places, strict=True):
                common &= inside & masks[other, frame, v, u]
            wrong += int((there & ~common.any(1)).sum())
            total += int(there.sum())
    return wrong / max(total, 1)


def seen(points: np.ndarray, c2w: np.ndarray, K: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    uv, depth = project(points, c2w, K)
    inside = (depth > 0) & (uv >= 0).all(-1) & (uv[..., 0] < width) & (uv[..., 1] < height)
    whole = np.where(inside[..., None], uv, 0).astype(int)
    return inside, whole[..., 0], whole[..., 1]


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean over clips and its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": round(float(values.mean()), 4), "interval": [round(low, 4), round(high, 4)], "clips": len(values)}


if __name__ == "__main__":
    main()
