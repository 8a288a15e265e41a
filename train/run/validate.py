"""Looks at a model on fixed clips: its loss at fixed timesteps, and samples beside the truth that play in any browser.

Clips, views, frames and noise are the same at every step of every run over the same dataset and config. Nothing global
changes: no weights, no generator.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manifests.errors import InputError
from manifests.publish import attempt, write_bytes
from train.conditions import decode_latents
from train.config import TrainConfig
from train.data.clips import ClipDataset, collate
from train.run.objective import QUARTERS
from train.run.step import autocast, inputs_of, loss_of

__all__ = ["Validation", "write_playing"]

_LOSS_CLIPS = 8
_GAP_PX = 2


class Validation:
    """The clips of a run's validation, chosen once.

    Args:
        config: of the run.
        data: folder or URL of the dataset.
        camera_convention: of the pipeline.

    Raises:
        InputError: the split that was asked for is not there.
    """

    def __init__(self, config: TrainConfig, data: str | Path, *, camera_convention: str) -> None:
        self._config = config
        self._clips = _clips_of(config, data, camera_convention)
        split, count = self._clips.split, min(len(self._clips), max(_LOSS_CLIPS, config.save.validate_clips))
        self._ids = [split.clip_id(k * len(self._clips) // count) for k in range(count)]

    @torch.no_grad()
    def run(self, pipeline: Any, folder: Path, device: torch.device) -> dict[str, float]:
        """Loss and samples of the pipeline as it is now.

        Args:
            pipeline: with the weights to look at, on the device.
            folder: for the samples, a WebP each (views as rows; left the truth, right the sample), and facts.json.
            device: where to.

        Returns:
            ``val_loss``, the mean squared error without weights; ``val_loss_t0`` to ``val_loss_t3`` by quarter of the
            timesteps; ``val_psnr`` of the samples to the truth, dB over frames 1 and later, and ``val_psnr_frozen`` of
            frame 0 held still, which a model that knows nothing of motion reaches.
        """
        errors = torch.stack([self._errors(pipeline, clip_id, device) for clip_id in self._ids]).mean(0)
        facts = {"val_loss": errors.mean().item()} | {f"val_loss_t{k}": errors[k].item() for k in range(QUARTERS)}
        psnrs, frozen = [], []
        for clip_id in self._ids[: self._config.save.validate_clips]:
            batch = self._batch(clip_id)
            truth, sample = self._sampled(pipeline, batch, device)
            psnrs.append(_psnr(truth[:, 1:], sample[:, 1:]))
            frozen.append(_psnr(truth[:, 1:], truth[:, :1]))
            times_s = batch["times_s"][0]
            step_ms = float(times_s[1] - times_s[0]) * 1000
            write_playing(folder / f"{clip_id}.webp", [truth, sample], frame_ms=round(step_ms))
        if psnrs:
            facts |= {"val_psnr": float(np.mean(psnrs)), "val_psnr_frozen": float(np.mean(frozen))}
        write_bytes(folder / "facts.json", json.dumps(facts, indent=1).encode())
        return facts

    def _batch(self, clip_id: str) -> dict[str, Any]:
        plain = {"drop_text": False, "drop_image": False, "background": self._config.data.background}
        drawn = dataclasses.replace(self._clips.draw(clip_id), **plain)
        return collate([self._clips.sample_of(clip_id, draw=drawn)])

    def _errors(self, pipeline: Any, clip_id: str, device: torch.device) -> Tensor:
        """Mean squared error in the middle of each quarter of the timesteps."""
        given = inputs_of(pipeline, self._batch(clip_id), device)
        steps = pipeline.scheduler.config.num_train_timesteps
        middles = [(2 * k + 1) * steps // (2 * QUARTERS) for k in range(QUARTERS)]
        found = [
            loss_of(pipeline.unet, pipeline.scheduler, given, self._config, timesteps=torch.tensor([middle]))
            for middle in middles
        ]
        return torch.stack([loss.per_sample[0] for _, loss in found])

    def _sampled(self, pipeline: Any, batch: dict[str, Any], device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """(view, frame, S, S, 3) uint8 each."""
        if "pixels" in batch:
            truth, frame0 = batch["pixels"], batch["pixels"][:, :, 0]
        else:
            given = inputs_of(pipeline, batch, device)
            truth, frame0 = decode_latents(pipeline.vae, given.latents), batch["frame0"]
        with autocast(self._config, device):
            result = pipeline(
                prompt=batch["caption"],
                images=frame0.to(device),
                cameras=batch["camera"].to(device),
                num_frames=truth.shape[2],
                num_inference_steps=self._config.save.validate_sampling_steps,
                generator=torch.Generator().manual_seed(int(batch["noise_seed"][0])),
            )
        return _images(truth), _images(result.frames)


def write_playing(path: Path, columns: list[np.ndarray], *, frame_ms: int) -> None:
    """A playing WebP: views as rows, one column for each video.

    Args:
        path: what to write; replaced as a whole.
        columns: (view, frame, height, width, 3) uint8 each, of one shape.
        frame_ms: how long a frame is shown.
    """
    views, _, height, width, _ = columns[0].shape
    gap = np.full((columns[0].shape[1], views * height, _GAP_PX, 3), 255, np.uint8)
    parts = []
    for column in columns:
        parts += [gap, column.swapaxes(0, 1).reshape(-1, views * height, width, 3)]
    images = [Image.fromarray(image) for image in np.concatenate(parts[1:], 2)]
    with attempt(path) as trial:
        images[0].save(trial, "WEBP", save_all=True, append_images=images[1:], duration=frame_ms, loop=0, lossless=True)


def _clips_of(config: TrainConfig, data: str | Path, camera_convention: str) -> ClipDataset:
    named, last = config.save.validate_split, config.data.split
    for split in [named] if named else ["val", last]:
        chosen = dataclasses.replace(config.data, split=split, background_random=0.0, on_damage="raise")
        try:
            return ClipDataset(data, chosen, config.objective, camera_convention=camera_convention)
        except InputError:
            if split in (named, last):
                raise
    raise AssertionError("one of the splits was opened or refused")


def _images(pixels: Tensor) -> np.ndarray:
    return pixels[0].permute(0, 1, 3, 4, 2).cpu().numpy()


def _psnr(truth: np.ndarray, sample: np.ndarray) -> float:
    error = np.mean((truth.astype(np.float64) - sample) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-4)))  # an exact copy has 88 dB, not infinitely many
