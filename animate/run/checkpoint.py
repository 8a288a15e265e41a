"""One checkpoint file of an animation run: all learnt tensors, the optimiser's, and how far the run is.

A safetensors file, replaced in one rename, so that a run that is killed at any moment goes on from a whole one. Draws
need no state here: every step seeds its own generator (`animate.run.stage`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from manifests.errors import InputError
from manifests.publish import write_bytes

__all__ = ["Checkpoint", "load_checkpoint", "optimizer_state", "restore_optimizer", "save_checkpoint"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """Where a run stands.

    Attributes:
        stage: name of the stage that was being worked on.
        step: steps of it that are done.
        weights: name -> tensor of everything learnt.
        optimizer: as `optimizer_state` gives it.
        seconds: spent so far, per finished or current stage.
    """

    stage: str
    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    seconds: dict[str, float]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file in one step.

    Raises:
        StorageError: the disk refuses; the file that was there stays.
    """
    tensors = {f"weights/{name}": value for name, value in checkpoint.weights.items()}
    tensors |= {f"optimizer/{name}": value for name, value in checkpoint.optimizer.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {"stage": checkpoint.stage, "step": checkpoint.step, "seconds": checkpoint.seconds}
    write_bytes(path, save(tensors, {"run": json.dumps(told)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Inverse of `save_checkpoint`.

    Raises:
        InputError: the file is damaged or no checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        stage, step, seconds = told["stage"], told["step"], told["seconds"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: found a file that is no whole checkpoint ({error}), expected one of `mvv animate`;"
            " delete it and repeat the command, which then starts anew"
        ) from error
    return Checkpoint(
        stage=stage,
        step=step,
        seconds=seconds,
        weights=_under("weights/", tensors),
        optimizer=_under("optimizer/", tensors),
    )


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of an Adam, named by the number of the parameter: ``3.exp_avg``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": torch.as_tensor(value) for number, held in state.items() for key, value in held.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_state`, for an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
