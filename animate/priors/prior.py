"""What every prior offers: latents of images, their noise levels, a guided prediction, a clip to follow.

A method asks only this class. What a prior cannot give it refuses with one clear error, before any work where it can
be known then. Priors hold frozen networks; `predict`, `film` and `attention_map` run without gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from animate.shot import Footage, Shot
from manifests.errors import InputError

__all__ = ["Guidance", "Prediction", "Prior"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance of one prediction."""

    scale: float = 1.0
    """Conventional: 1 is the conditional prediction alone, at half the work."""
    rescale: float = 0.0
    """0 to 1: how far the guided clean latents are brought to the conditional ones' standard deviation, which is taken
    over views, frames after the first, channels and pixels together (arXiv 2305.08891, section 3.4)."""


class Prediction(NamedTuple):
    """What a prior makes of noisy latents; each (V, F, C, h, w) float32."""

    clean: Tensor
    noise: Tensor


class Prior(ABC):
    """A model of moving pictures, or something that stands in for one.

    Attributes:
        name: as the user gave it.
        joint_views: predicts all views of a shot together; else view by view, and a method may ask for one view.
        reads_image: shows the object of `Shot.first`; False is a model of text alone, None one that takes either.
        first_frame_clean: frame 0 of the latents is the clean condition and is no part of what is predicted.
        any_camera: shows the object through every camera; else only through its own.
        fps_free: takes any frames a second; else it has its own.
        num_frames: frames it was made for; 0 takes any number.
        size: height and width it was made for, pixels; 0 takes any.
        fps: frames a second of what it shows.
        background: it was trained on, sRGB-encoded 0 to 1; None: any.
        alphas_cumprod: (T,) float32, share of signal variance at each timestep, falling.
        default_guidance: guidance scale it is usually sampled with.
    """

    name: str = ""
    joint_views: ClassVar[bool] = False
    reads_image: ClassVar[bool | None] = True
    first_frame_clean: ClassVar[bool] = True
    any_camera: ClassVar[bool] = True
    fps_free: ClassVar[bool] = False
    num_frames: int = 0
    size: int = 0
    fps: float = 8.0
    background: tuple[float, float, float] | None = None
    alphas_cumprod: Tensor
    default_guidance: float = 1.0

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Latents of images, differentiable.

        Args:
            images: (V, F, 3, S, S) float32, sRGB-encoded 0 to 1, composited.

        Returns:
            (V, F, C, h, w) float32, scaled as the network wants them.
        """

    @abstractmethod
    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        """The guided prediction for noisy latents.

        Args:
            noisy: (V, F, C, h, w) float32, variance-preserving; with `first_frame_clean` its frame 0 is clean.
            timestep: index into `alphas_cumprod`.
            shot: what is filmed.
            guidance: how.
        """

    @abstractmethod
    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        """The clip that stage 1 follows: sampled, or known.

        Args:
            shot: what is filmed; a prior with cameras of its own (a recorded clip) may film through those.
            seed: of the noise.
            told: called with (steps done, steps in all).
        """

    def attention_map(self, word: str, noisy: Tensor, timestep: int, shot: Shot, kind: str = "text") -> Tensor:
        """Where the network looks for a word of the prompt: (V, F, 1, h, w) float32, not negative, at latent size.

        Raises:
            InputError: this prior has no such map.
        """
        raise InputError(
            f"--prior {self.name}: found a prior without attention maps, expected one that reads the prompt by words;"
            " switch the masked distillation off, or take another prior"
        )

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """Refuses what cannot work, before any work is done.

        Raises:
            InputError: frames or a size that the prior was not made for.
        """
        for name, found, wanted in (("frames", frames, self.num_frames), ("size", size, self.size)):
            if wanted and found != wanted:
                raise InputError(
                    f"--prior {self.name}: found {name} {found}, expected {wanted}, which it was made for;"
                    f" give --recon.{name} {wanted} (threetofour: --dynamic.{name}; refinement: --refine.{name})"
                )

    def alpha(self, timestep: int) -> Tensor:
        """Share of signal variance at a timestep, float32 scalar."""
        return self.alphas_cumprod[timestep]

    def noised(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Latents with noise; frame 0 stays clean where it is the condition.

        Args:
            latents: (V, F, C, h, w).
            noise: as `latents`, standard normal.
            timestep: index into `alphas_cumprod`.
        """
        alpha = self.alpha(timestep).to(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        return torch.cat([latents[:, :1], noisy[:, 1:]], 1) if self.first_frame_clean else noisy
