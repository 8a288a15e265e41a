"""What happens between two lines of the log, summed where it happens and turned into facts once.

The sums stay on the device, so that logging does not make it wait at every step.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from train.run.objective import QUARTERS, Loss

__all__ = ["Counts"]


class Counts:
    """Sums of one rank since the last line.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Begins a new stretch."""
        self._sums = torch.zeros(2 + 2 * QUARTERS, dtype=torch.float64, device=self._device)
        self._norms, self._steps, self._waited_s, self._aside_s = 0.0, 0, 0.0, 0.0
        self._since = time.perf_counter()

    def micro_batch(self, loss: Loss, by_quarter: Tensor) -> None:
        """A loss, and `train.run.objective.quarters` of it."""
        mean = loss.mean.detach().double()[None]
        self._sums += torch.cat([mean, torch.ones_like(mean), by_quarter.flatten()])

    def update(self, norm: float) -> None:
        """An optimiser step, and the length of its gradient before it was shortened."""
        self._norms, self._steps = self._norms + norm, self._steps + 1

    def waited(self, seconds: float) -> None:
        """For the loader."""
        self._waited_s += seconds

    def aside(self, seconds: float) -> None:
        """For what is no training, such as a validation; not in the speed."""
        self._aside_s += seconds

    def facts(self, accelerator: Accelerator, *, batch_size: int, flops: int, peak: float | None) -> dict[str, Any]:
        """A line of the log, over all ranks, the same on each.

        Args:
            accelerator: of the run.
            batch_size: clips of a step.
            flops: of a clip.
            peak: of one device, TFLOP/s; without it there is no ``mfu``.

        Returns:
            ``loss`` as optimised, the mean over the stretch; ``mse_t0`` to ``mse_t3`` without weights by quarter of the
            timesteps, where there were any; grad_norm; clips_per_s; tflops_per_device; mfu; loader_wait, of rank 0, as
            a share of the time; memory_gib, the most so far.
        """
        sums = accelerator.reduce(self._sums, "sum").tolist()
        seconds = max(time.perf_counter() - self._since - self._aside_s, 1e-9)
        clips_per_s = self._steps * batch_size / seconds
        tflops = flops / 1e12 * clips_per_s / accelerator.num_processes
        facts = {
            "loss": sums[0] / sums[1],
            "grad_norm": self._norms / self._steps,
            "clips_per_s": clips_per_s,
            "tflops_per_device": tflops,
            "loader_wait": self._waited_s / seconds,
        }
        for quarter, (total, number) in enumerate(zip(sums[2::2], sums[3::2], strict=True)):
            facts |= {f"mse_t{quarter}": total / number} if number else {}
        if peak:
            facts["mfu"] = tflops / peak
        if self._device.type == "cuda":
            facts["memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return facts
