"""Weights and frames for networks whose trained weights cannot be had: drawn by name and seed, the same anywhere."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

__all__ = ["draw_alpha", "draw_frames", "draw_weights"]


def draw_weights(network: nn.Module, seed: int = 0, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """A state dict for ``network``: every tensor a pure function of its name, its shape and the seed (NumPy's PCG64).

    Matrices and kernels keep the variance of what passes through them, times ``gain`` squared; biases are small, norms
    and slopes lie between 0.2 and 1, variances between 0.5 and 1.5.
    """
    drawn = {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("num_batches_tracked"):
            drawn[name] = torch.zeros((), dtype=torch.long)
            continue
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("weight") and len(shape) == 1:
            values = rng.uniform(0.2, 1.0, shape)
        elif len(shape) > 1:
            values = gain * rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        else:
            values = 0.1 * rng.standard_normal(shape)
        drawn[name] = torch.from_numpy(np.asarray(values, np.float32))
    return drawn


def draw_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8: a soft pattern that drifts to the right and changes slowly."""
    noise = np.random.default_rng(seed).standard_normal((2, height, width + 8 * count, 3))
    first, second = gaussian_filter(noise, (0, 3, 3, 0))
    frames = []
    for k in range(count):
        part = (1 - k / count) * first[:, 3 * k : 3 * k + width] + k / count * second[:, :width]
        frames.append(np.clip(np.rint(128 + 400 * part), 0, 255))
    return np.stack(frames).astype(np.uint8)


def draw_alpha(count: int, height: int, width: int) -> np.ndarray:
    """(count, height, width) uint8: a disc that moves to the right, soft at its edge."""
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) / 4
    discs = [np.hypot(y - height / 2, x - width / 3 - 2 * k) for k in range(count)]
    return np.clip(np.rint(255 * (radius + 0.5 - np.stack(discs))), 0, 255).astype(np.uint8)
