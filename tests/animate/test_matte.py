"""Coverage from the known background, against pictures whose coverage is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animate.priors.matte import mattes

GREY = (0.5, 0.5, 0.5)
SIZE = 64


def disc(left: float, radius: float, background: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture and coverage of a striped disc with an eye of the background's colour, by 8 x 8 samples a pixel."""
    at = (np.arange(SIZE * 8) + 0.5) / 8
    x, y = np.meshgrid(at, at)
    distance = np.hypot(x - left, y - SIZE / 2)
    inside = distance < radius
    color = np.where((np.floor(x / 6) % 2 == 0)[..., None], (0.9, 0.2, 0.1), (0.1, 0.3, 0.8))
    color = np.where((distance < radius / 4)[..., None], background, color)
    picture = np.where(inside[..., None], color, background)
    parts = np.concatenate([picture, inside[..., None]], -1).reshape(SIZE, 8, SIZE, 8, 4).mean((1, 3))
    both = torch.from_numpy(parts).float().permute(2, 0, 1)
    return both[:3], both[3:]


def clip(noise: float, background: tuple[float, float, float] = GREY, drift: float = 0.0):
    """A disc that goes right, as a sampler would show it, and its coverage."""
    frames = [disc(24 + 6 * k, 14, background) for k in range(4)]
    images, truth = (torch.stack(parts)[None] for parts in zip(*frames, strict=True))
    strays = noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    drifts = drift * torch.arange(4)[:, None, None, None]
    return (images + strays + drifts).clamp(0, 1), images[:, 0], truth


@pytest.mark.parametrize("background", [GREY, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("drift", [0.0, -0.015])
def test_mattes_find_the_object(background, noise, drift):
    """Oracle: the coverage that the disc was drawn with; its grey eye belongs to it."""
    images, first, truth = clip(noise, background, drift)
    found = mattes(images, first, background)
    assert found.shape == truth.shape
    assert found.min() >= 0
    assert found.max() <= 1
    hard, known = found > 0.5, truth > 0.5
    assert (hard & known).sum() / (hard | known).sum() > 0.97
    assert (found - truth).abs().mean() < 0.008
    assert (found[0, :, 0, 32, 24 + 6 * 3] == 1).tolist()[-1]


def test_mattes_of_an_empty_picture_are_empty():
    """Oracle: nothing is there; noise alone is no object."""
    images, first, _ = clip(0.02)
    noise = torch.randn(images[:, 1:].shape, generator=torch.Generator().manual_seed(5))
    empty = 0.5 + 0.02 * noise.clamp(-3, 3)
    found = mattes(torch.cat([images[:, :1], empty], 1), first, GREY)
    assert found[:, 1:].max() == 0
    assert found[:, 0].max() == 1


def test_frame_0_is_that_of_the_render():
    """Oracle: the render's own coverage, whatever the sampler made of frame 0."""
    images, first, truth = clip(0.05)
    found = mattes(images, first, GREY)
    assert (found[:, 0] - truth[:, 0]).abs().mean() < 0.004
