"""Noise levels of DynamiCrafter, brought into the variance-preserving form that methods work in.

The wide models scale clean latents by s(t) before noise is added: x = sqrt(a) s z + sqrt(1 - a) n. Divided by its
standard deviation m(t) for latents of unit variance this is variance-preserving with signal share a s^2 / m^2, and the
network is asked at m(t) times the noisy latents. Sources: Doubiiu/DynamiCrafter, lvdm/models/ddpm3d.py; zero terminal
signal as in arXiv 2305.08891, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from animate.priors.dynamicrafter.config import DynamiCrafterConfig

__all__ = ["Level", "Schedule", "schedule_of", "timesteps_of"]

_TIMESTEPS = 1000
_BETAS = (0.00085, 0.012)


class Level(NamedTuple):
    """One timestep: the network's signal share a, the scale s of clean latents, the gain m."""

    signal: float
    scale: float
    gain: float


@dataclass(frozen=True, eq=False)
class Schedule:
    """Numbers for each of the 1000 timesteps, float64.

    Attributes:
        signal: the network's own share of signal variance, a.
        scale: of clean latents before noise, s.
    """

    signal: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """Standard deviation m of what the network sees."""
        return np.sqrt(self.signal * self.scale**2 + 1 - self.signal)

    @property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """Share of signal variance in the variance-preserving form."""
        return self.signal * self.scale**2 / self.gain**2

    def at(self, timestep: int) -> Level:
        """The numbers of a timestep."""
        return Level(*(float(values[timestep]) for values in (self.signal, self.scale, self.gain)))


def schedule_of(config: DynamiCrafterConfig) -> Schedule:
    """The schedule of a model."""
    low, high = _BETAS
    root = np.sqrt(np.cumprod(1 - np.linspace(low**0.5, high**0.5, _TIMESTEPS) ** 2))
    if config.zero_terminal_snr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    falling = np.linspace(1, config.base_scale, config.turning_step)
    scale = np.concatenate([falling, np.full(_TIMESTEPS, config.base_scale)])[:_TIMESTEPS]
    return Schedule(root**2, scale)


def timesteps_of(config: DynamiCrafterConfig, steps: int) -> list[int]:
    """Timesteps to visit when sampling, the noisiest first.

    Args:
        config: says whether the last one is visited.
        steps: 1 to 1000.
    """
    if config.trailing:
        return [round(at) - 1 for at in np.arange(_TIMESTEPS, 0, -_TIMESTEPS / steps)]
    return [min(at + 1, _TIMESTEPS - 1) for at in range(0, _TIMESTEPS, _TIMESTEPS // steps)][::-1]
