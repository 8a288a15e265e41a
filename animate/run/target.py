"""The clip that stage 1 follows, filmed once and kept in the run's folder, so that going on does not sample anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from animate.priors.prior import Prior
from animate.shot import Footage, Shot
from manifests.errors import InputError
from manifests.publish import write_bytes

__all__ = ["TARGET", "target_footage"]

TARGET = "target.safetensors"


def target_footage(
    prior: Prior, shot: Shot, folder: Path, *, seed: int, told: Callable[[int, int], None] | None = None
) -> Footage:
    """The prior's clip for a shot, from the folder where it lies there already.

    Args:
        prior: films.
        shot: what.
        folder: of the run.
        seed: of the prior's noise.
        told: called with steps done and in all.

    Raises:
        InputError: a damaged file, or a clip whose frames are not those of the shot.
    """
    path = folder / TARGET
    if path.is_file():
        return _load(path, shot.c2w.device)
    footage = _on(shot.c2w.device, prior.film(shot, seed=seed, told=told))
    if footage.images.shape[1] != shot.num_frames:
        raise InputError(
            f"--prior {prior.name}: found a clip of {footage.images.shape[1]} frames, expected {shot.num_frames};"
            " set --recon.frames"
        )
    tensors = {name: getattr(footage, name).cpu().contiguous() for name in ("images", "masks", "c2w", "K", "times_s")}
    write_bytes(path, save(tensors, {"background": json.dumps(list(footage.background))}))
    return footage


def _on(device: torch.device, footage: Footage) -> Footage:
    return replace(footage, **{name: getattr(footage, name).to(device) for name in ("images", "masks", "c2w", "K")})


def _load(path: Path, device: torch.device) -> Footage:
    try:
        with safe_open(path, "pt") as file:
            background = tuple(json.loads((file.metadata() or {})["background"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _on(device, Footage(background=background, **tensors))
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: found a damaged file ({error}), expected the clip; delete it and repeat") from error
