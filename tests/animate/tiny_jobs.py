"""Whole runs, as small as they get: configs, a watcher that remembers, and a cube as a Gaussian scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from animate.config import (
    AnimateConfig,
    DeformationConfig,
    DynamicConfig,
    NerfConfig,
    ReconstructionConfig,
    RefinementConfig,
    StaticConfig,
    SubjectConfig,
)
from animate.run.job import Summary, animate
from animate.subject.ply import write_ply
from tests.animate.tiny_motion import CUBE

SIZE, FRAMES, VIEWS = 16, 3, 2
PROMPT = "a red cube slides"


class Remembering:
    """A watcher; stops the run after so many steps where it is told to."""

    def __init__(self, stop_after: int = 0) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.losses: list[dict[str, float]] = []
        self.shown: list[tuple[str, tuple[int, ...]]] = []
        self.filmed: list[tuple[int, int]] = []
        self.stop_after = stop_after

    def say(self, text: str) -> None:
        self.said.append(text)

    def filming(self, done: int, total: int) -> None:
        self.filmed.append((done, total))

    def stage(self, name: str, done: int, total: int, losses: dict[str, float]) -> None:
        self.steps.append((name, done, total))
        self.losses.append(losses)
        if len(self.steps) == self.stop_after:
            raise KeyboardInterrupt

    def preview(self, stage: str, frames: Any) -> None:
        self.shown.append((stage, tuple(frames.shape)))


def tiny(method: str = "animate3d-mesh", **changes: dict[str, Any] | Any) -> AnimateConfig:
    """A config of few steps and pixels; changes are fields, or dicts of fields of its parts."""
    config = AnimateConfig(
        method=method,  # type: ignore[arg-type]
        device="cpu",
        subject=SubjectConfig(radius=0.3, gaussians="surface", surface_points=60, fit_steps=2),
        deformation=DeformationConfig(space=(4,), time=(4,), channels=4, hidden=8, learning_rate_heads=5e-3),
        recon=ReconstructionConfig(
            steps=6, views=VIEWS, frames=FRAMES, size=SIZE, fps=4.0, curriculum_steps=2, arap_unit="edge",
            visible_gradient=1.0,
        ),
        refine=RefinementConfig(
            steps=0 if method == "animate3d-mesh" else 2, views=VIEWS, size=SIZE, reconstruction_size=SIZE
        ),
        nerf=NerfConfig(levels=2, log2_table=8, base=4, hidden=8, samples=8),
        static=StaticConfig(steps=3, size=SIZE),
        dynamic=DynamicConfig(steps=3, frames=FRAMES, size=SIZE),
        frame_size=SIZE,
        checkpoint_s=0.0,
        preview_s=1e9,
    )  # fmt: skip
    parts = {
        name: replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **parts)


def start(model: Path, out: Path, config: AnimateConfig, prior: str, **changes: Any) -> tuple[Summary, Remembering]:
    """The run, and what was told of it."""
    watcher = changes.pop("watcher", Remembering())
    arguments = {"prompt": PROMPT, "prior": prior, "out": out, "config": config, "watcher": watcher}
    return animate(model, **arguments | changes), watcher


def write_cube_scene(path: Path, count: int = 50) -> Path:
    """The surface of the cube as Gaussians, its corners among them, with the z axis up as the file of the cube has."""
    rng = np.random.default_rng(0)
    means = rng.uniform(-1, 1, (count, 3))
    side = rng.integers(0, 3, count)
    means[np.arange(count), side] = np.sign(means[np.arange(count), side])
    means = np.concatenate([CUBE, means]).astype(np.float32)
    number = len(means)
    gaussians = SimpleNamespace(
        means=means,
        quats_wxyz=np.tile(np.float32([1, 0, 0, 0]), (number, 1)),
        scales=np.full((number, 3), 0.25, np.float32),
        opacities=np.full(number, 0.8, np.float32),
        colors=np.tile(np.float32([0.8, 0.1, 0.1]), (number, 1)),
        sh=None,
    )
    write_ply(path, gaussians)
    return path
