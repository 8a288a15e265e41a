"""Classifier-free guidance as every prior applies it: extrapolation of raw predictions, rescale of clean latents.

Nothing here knows a network or a schedule; turning a raw prediction into clean latents is each prior's own business.
Sources: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598; Lin et al., "Common Diffusion Noise
Schedules and Sample Steps are Flawed", arXiv 2305.08891, section 3.4.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["guided", "rescaled"]

_TINY = 1e-8


def guided(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """The guided prediction: `uncond + scale * (cond - uncond)`.

    Works on any prediction that is linear in noise and clean latents at a fixed timestep (noise, v, clean alike).

    Args:
        cond: raw prediction with the conditions, any shape.
        uncond: as `cond`, without them.
        scale: conventional, 1 gives `cond`. Animate3D's released code adds its guidance on top of the conditional
            prediction, so its 5 is 6 here.

    Source: arXiv 2207.12598, equation 6 with w = scale - 1.
    """
    return uncond + scale * (cond - uncond)


def rescaled(guided_clean: Tensor, cond_clean: Tensor, factor: float, *, first_frame_clean: bool = True) -> Tensor:
    """Guided clean latents, brought towards the standard deviation of the conditional ones.

    One standard deviation for the whole shot: views, frames, channels and pixels together, so that no view or frame
    is brightened against another. The mean is scaled with the rest, as in the paper.

    Args:
        guided_clean: (V, F, C, h, w) clean latents as the guided prediction has them.
        cond_clean: as `guided_clean`, of the conditional prediction alone.
        factor: 0 leaves them as they are, 1 gives them the conditional ones' spread, between is a mix.
        first_frame_clean: frame 0 is the condition: it is left out of both spreads (but scaled like the others; whoever
            holds the condition puts it back).

    Returns:
        (V, F, C, h, w).

    Source: arXiv 2305.08891, equations 15 and 16, applied to clean latents as Animate3D's refinement does.
    """
    if factor == 0:
        return guided_clean
    start = 1 if first_frame_clean and guided_clean.shape[1] > 1 else 0
    ratio = (cond_clean[:, start:].std() + _TINY) / (guided_clean[:, start:].std() + _TINY)
    return guided_clean * (factor * ratio + 1 - factor)
