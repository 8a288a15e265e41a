from __future__ import annotations

import pytest
import torch

from animate.guidance import guided, rescaled


def latents(seed: int, *, frames: int = 4, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(2, frames, 4, 3, 5, generator=generator, dtype=torch.float64)


def test_guided_is_the_conditional_prediction_at_scale_1():
    """By definition; 0 is the unconditional one."""
    cond, uncond = latents(0), latents(1)
    torch.testing.assert_close(guided(cond, uncond, 1.0), cond)
    torch.testing.assert_close(guided(cond, uncond, 0.0), uncond)


@pytest.mark.parametrize("added", [0.0, 2.0, 5.0])
def test_guided_is_one_more_than_what_animate3d_adds(added):
    """Against the released code's rule: so much of the difference on top of the conditional prediction."""
    cond, uncond = latents(0), latents(1)
    torch.testing.assert_close(guided(cond, uncond, added + 1), cond + added * (cond - uncond))


@pytest.mark.parametrize("factor", [0.25, 0.7, 1.0])
def test_rescaled_is_diffusers_rescale(factor):
    """Against diffusers' function of the same paper, which takes one sample at a time and knows no frame 0."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    strong, cond = latents(0, spread=3.0), latents(1)
    expected = rescale_noise_cfg(strong[None, :, 1:], cond[None, :, 1:], guidance_rescale=factor)[0]
    torch.testing.assert_close(rescaled(strong, cond, factor)[:, 1:], expected, rtol=1e-6, atol=0)
    whole = rescale_noise_cfg(strong[None], cond[None], guidance_rescale=factor)[0]
    torch.testing.assert_close(rescaled(strong, cond, factor, first_frame_clean=False), whole, rtol=1e-6, atol=0)


def test_rescaled_has_the_conditional_spread_at_factor_1():
    """Property: one standard deviation over views, frames after the first, channels and pixels."""
    strong, cond = latents(0, spread=3.0), latents(1)
    strong[:, 0] = 100.0  # the condition may look as it likes
    found = rescaled(strong, cond, 1.0)
    torch.testing.assert_close(found[:, 1:].std(), cond[:, 1:].std(), rtol=1e-6, atol=0)
    torch.testing.assert_close(rescaled(strong, cond, 0.0), strong)


def test_rescaled_keeps_flat_latents_finite():
    """Property: no division by a spread of zero, nor by the missing spread of no frames."""
    flat = torch.zeros(1, 3, 4, 2, 2)
    assert rescaled(flat, flat, 1.0).isfinite().all()
    assert rescaled(latents(0, frames=1), latents(1, frames=1), 1.0).isfinite().all()
