"""`Known`: a prior that need not guess, because it holds the motion; oracle and recorded clip are two of them.

It stands where a network would, with latents that are the pixels themselves, so that methods can be tested, and their
fixed points found, without weights. What is known comes from the subclass; nothing here renders or reads.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animate.priors.prior import Guidance, Prediction, Prior
from animate.shot import Footage, Shot
from manifests.errors import InputError

__all__ = ["Known", "Placement", "scaled_linear"]

_KEPT = 2
"""Shots whose pictures are kept: prediction, attention map and film of one step ask for the same."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Placement:
    """How the subject has to rest to be what frame 0 of a known motion shows.

    Attributes:
        animation: index in the file that the motion is of.
        start_s: time of frame 0 inside it.
        center: (3,) float64; normalised = (world - center) * scale, z up. None leaves it to the subject's own box.
        scale: see `center`.
        front_azimuth_deg: of the object's front, None where it is not known.
    """

    animation: int
    start_s: float
    center: np.ndarray | None = None
    scale: float | None = None
    front_azimuth_deg: float | None = None

    @property
    def pose(self) -> str:
        """As `manifests.gltf.rest.parse_pose` reads it."""
        return f"{self.animation}@{self.start_s!r}"


def scaled_linear(num_timesteps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Share of signal variance at each timestep, (T,) float32; beta's root rises evenly, as in Stable Diffusion."""
    beta = torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64).square()
    return (1 - beta).cumprod(0).float()


class Known(Prior):
    """Predicts what it knows, whatever it is shown and however it is guided.

    Latents are pixels from -1 to 1, three channels, averaged over `factor` x `factor` of them.

    Args:
        name: as the user gave it.
        factor: pixels a latent position, in each direction.
    """

    joint_views: ClassVar[bool] = False
    reads_image: ClassVar[bool | None] = None
    first_frame_clean: ClassVar[bool] = True
    fps_free: ClassVar[bool] = True

    def __init__(self, name: str, *, factor: int = 1) -> None:
        assert factor >= 1, f"factor is {factor}"
        self.name, self.factor = name, factor
        self.alphas_cumprod = scaled_linear()
        self._kept: OrderedDict[tuple[Any, ...], Footage] = OrderedDict()

    @abstractmethod
    def _filmed(self, shot: Shot) -> Footage:
        """What is to be seen through the shot's own cameras."""

    def _clean(self, shot: Shot) -> Tensor:
        """(V, F, 3, h, w) latents without noise, as it predicts them."""
        return self.encode(self._truth(shot).images)

    def _truth(self, shot: Shot) -> Footage:
        """`_filmed`, kept for the last few shots."""
        tensors = (shot.c2w, shot.K, shot.times_s)
        key = (*(x.cpu().numpy().tobytes() for x in tensors), shot.size, tuple(shot.background))
        if key not in self._kept:
            self._kept[key] = self._filmed(shot)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def encode(self, images: Tensor) -> Tensor:
        size = images.shape[-1]
        if size % self.factor:
            raise InputError(
                f"--prior {self.name}: found images of {size} pixels, expected a multiple of {self.factor}; set the"
                " size in the config"
            )
        pixels = images * 2 - 1
        if self.factor == 1:
            return pixels
        return F.avg_pool2d(pixels.flatten(0, 1), self.factor).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        clean = self._clean(shot).to(noisy)
        assert clean.shape == noisy.shape, f"noisy is {tuple(noisy.shape)}, expected {tuple(clean.shape)}"
        clean = torch.cat([noisy[:, :1], clean[:, 1:]], 1)
        alpha = self.alpha(timestep).to(noisy)
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return Prediction(clean, torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1))

    @torch.no_grad()
    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        footage = self._truth(shot)
        if told is not None:
            told(1, 1)
        return footage

    @torch.no_grad()
    def attention_map(self, word: str, noisy: Tensor, timestep: int, shot: Shot, kind: str = "text") -> Tensor:
        """Where the object is, now or at rest: coverage 0 to 1.

        Raises:
            InputError: the prompt does not have the word, which a network that reads it could not find either.
        """
        if not word.strip() or not re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", shot.prompt, re.IGNORECASE):
            raise InputError(
                f'--prompt: found "{shot.prompt}", expected the word "{word}" in it, which the masked distillation'
                " looks for; name a word of the prompt, or switch the mask off"
            )
        masks = self._truth(shot).masks
        union = torch.maximum(masks, masks[:, :1])
        return F.avg_pool2d(union.flatten(0, 1), self.factor).unflatten(0, union.shape[:2]).to(noisy)
