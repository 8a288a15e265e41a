"""A stage of a method, and the loop that drives stages one after the other, with log, previews, checkpoints and resume.

Every step draws from a generator of its own, seeded by run, stage and step. So a run that was killed and goes on gives
the same bits on the CPU as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animate.run.checkpoint import Checkpoint, load_checkpoint, optimizer_state, restore_optimizer, save_checkpoint
from manifests.errors import InputError
from manifests.publish import write_bytes
from manifests.seeds import integer

__all__ = ["BEFORE", "CHECKPOINT", "LOG", "Stage", "run_stages"]

BEFORE = "before-"
"""How the file begins that holds the weights from before a stage."""
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
LOG_EVERY = 10
"""Steps between lines of the log."""


class Stage(ABC):
    """A number of optimiser steps with one aim.

    Attributes:
        name: of the stage, unique within a method.
        steps: how many.
        modules: name -> what is learnt in any stage of the method; all stages hold the same ones.
    """

    name: str
    steps: int
    modules: dict[str, nn.Module]

    @abstractmethod
    def begin(self, folder: Path) -> torch.optim.Optimizer:
        """Prepares what the steps need; a function of the modules as the stage before left them.

        Called again when a run goes on in the middle of the stage, before that moment's weights are put back.
        """

    @abstractmethod
    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        """Leaves gradients in the parameters, and gives the losses by name, ``loss`` among them."""

    def preview(self) -> Tensor | None:
        """(frame, height, width, 3) uint8 of how it looks now, or None."""
        return None


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    *,
    seed: int,
    checkpoint_s: float,
    preview_s: float,
    told: Callable[[str, int, int, dict[str, float]], None],
    show: Callable[[Stage], None],
) -> dict[str, float]:
    """Runs what is left of the stages.

    Args:
        stages: in order.
        folder: of the run; a checkpoint found in it is gone on from.
        seed: of every draw.
        checkpoint_s: seconds between checkpoints.
        preview_s: seconds between previews.
        told: called after each step with the stage's name, steps done, steps in all, losses.
        show: called where a preview is due.

    Returns:
        seconds spent in each stage.

    Raises:
        InputError: a loss that is not a number, or a checkpoint of another method.
    """
    path = folder / CHECKPOINT
    found = load_checkpoint(path) if path.is_file() else None
    names = [stage.name for stage in stages]
    if found is not None and found.stage not in names:
        raise InputError(f"{path}: found stage {found.stage}, expected one of {', '.join(names)}; use another --out")
    seconds = dict(found.seconds) if found is not None else {}
    start = names.index(found.stage) if found is not None else 0
    for stage in stages[start:]:
        resumed = found if found is not None and found.stage == stage.name else None
        _run(stage, folder, resumed, seconds, seed, (checkpoint_s, preview_s), told, show)
    return seconds


def _run(
    stage: Stage,
    folder: Path,
    resumed: Checkpoint | None,
    seconds: dict[str, float],
    seed: int,
    every_s: tuple[float, float],
    told: Callable[[str, int, int, dict[str, float]], None],
    show: Callable[[Stage], None],
) -> None:
    begun = folder / f"{BEFORE}{stage.name}.safetensors"
    if resumed is not None:
        _load(stage.modules, load_checkpoint(begun).weights)
    else:
        save_checkpoint(begun, _snapshot(stage, 0, None, seconds))
    began, spent = time.monotonic(), seconds.get(stage.name, 0.0)
    optimizer = stage.begin(folder)
    first = 0
    if resumed is not None:
        _load(stage.modules, resumed.weights)
        restore_optimizer(optimizer, resumed.optimizer)
        first = resumed.step
    _trim_log(folder, stage.name, first)
    saved = shown = time.monotonic()
    for step in range(first, stage.steps):
        generator = torch.Generator().manual_seed(integer(seed, stage.name, step))
        optimizer.zero_grad(set_to_none=True)
        losses = stage.step(step, generator)
        _check(stage, step, losses, folder)
        optimizer.step()
        told(stage.name, step + 1, stage.steps, losses)
        if step % LOG_EVERY == 0 or step + 1 == stage.steps:
            _log(folder, {"stage": stage.name, "step": step + 1} | losses)
        now = time.monotonic()
        seconds[stage.name] = spent + now - began
        if now - saved >= every_s[0]:
            _keep(stage, step + 1, optimizer, seconds, folder)
            saved = time.monotonic()
        if now - shown >= every_s[1] or step == first:
            show(stage)
            shown = time.monotonic()
    seconds[stage.name] = spent + time.monotonic() - began
    _keep(stage, stage.steps, optimizer, seconds, folder)
    show(stage)


def _check(stage: Stage, step: int, losses: dict[str, float], folder: Path) -> None:
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
        raise _not_finite(stage, step + 1, f"{wrong[0]} {losses[wrong[0]]}", folder)


def _not_finite(stage: Stage, step: int, found: str, folder: Path) -> InputError:
    return InputError(
        f"{folder}: found {found} in step {step} of stage {stage.name}, expected a finite number; lower the learning"
        " rates or weights and begin anew with another --out"
    )


def _keep(stage: Stage, step: int, optimizer: Any, seconds: dict[str, float], folder: Path) -> None:
    """Replaces the checkpoint, unless the weights are spoilt: a gradient can be, where the loss is not."""
    snapshot = _snapshot(stage, step, optimizer, seconds)
    for name, value in snapshot.weights.items():
        if not bool(torch.isfinite(value).all()):
            raise _not_finite(stage, step, f"NaN or infinity in {name}", folder)
    save_checkpoint(folder / CHECKPOINT, snapshot)


def _snapshot(stage: Stage, step: int, optimizer: Any, seconds: dict[str, float]) -> Checkpoint:
    weights = {f"{name}.{key}": value for name, module in stage.modules.items() for key, value in _state(module)}
    held = optimizer_state(optimizer) if optimizer is not None else {}
    return Checkpoint(stage=stage.name, step=step, weights=weights, optimizer=held, seconds=dict(seconds))


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.state_dict().items())


def _load(modules: dict[str, nn.Module], weights: dict[str, Tensor]) -> None:
    for name, module in modules.items():
        inside = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        module.load_state_dict(inside)


def _log(folder: Path, row: dict[str, Any]) -> None:
    with open(folder / LOG, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _trim_log(folder: Path, stage: str, step: int) -> None:
    """Takes back lines about steps that a killed run had done after its last checkpoint."""
    path = folder / LOG
    if not path.is_file():
        return
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
    kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
