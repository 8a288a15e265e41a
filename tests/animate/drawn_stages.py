"""Two stages of a made-up method in which draws, order, weights and the optimiser's memory all decide the result.

As a program it runs them in a folder and says after each step how far it is, to be killed there:
``python -m tests.animate.drawn_stages FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from animate.run.stage import Stage, run_stages

STEPS = {"first": 12, "second": 3}


class Drawn(Stage):
    """Goes towards drawn targets; what it began with pulls it back, so that it matters whether that is restored."""

    def __init__(self, name: str, layer: nn.Linear) -> None:
        self.name, self.steps, self.layer = name, STEPS[name], layer
        self.modules = {"layer": layer}
        self.begun = 0

    def begin(self, folder: Path) -> torch.optim.Optimizer:
        self.begun += 1
        self.anchor = self.layer.weight.detach().clone()
        return torch.optim.Adam(self.layer.parameters(), lr=0.1)

    def step(self, step: int, generator: torch.Generator) -> dict[str, float]:
        target = torch.randn(4, 3, generator=generator)
        loss = (self.layer(target) - step).square().mean() + (self.layer.weight - self.anchor).square().sum()
        loss.backward()
        return {"loss": float(loss.detach())}


def stages(seed: int = 0) -> tuple[nn.Linear, list[Drawn]]:
    """One layer and both stages of it."""
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    return layer, [Drawn(name, layer) for name in STEPS]


def run(
    folder: Path,
    *,
    checkpoint_s: float = 0.0,
    told: Callable[[str, int], None] = lambda name, done: None,
    seed: int = 0,
) -> nn.Linear:
    """The layer after all that was left."""
    layer, both = stages()
    run_stages(
        both,
        folder,
        seed=seed,
        checkpoint_s=checkpoint_s,
        preview_s=1e9,
        told=lambda name, done, total, losses: told(name, done),
        show=lambda stage: None,
    )
    return layer


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), told=lambda name, done: print(name, done, flush=True))
