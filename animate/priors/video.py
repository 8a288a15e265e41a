"""What the image-to-video and text-to-video pipelines of diffusers have in common as priors.

They know one camera: views are predicted and filmed each for itself. Frame 0 of their latents carries noise like the
others; what they know of the object comes beside it. Every prediction is brought to variance-preserving clean latents
and noise (Salimans & Ho, arXiv 2202.00512, appendix D, for v).
"""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from animate.guidance import guided, rescaled
from animate.priors.attention import attention_to, spread_out, word_positions
from animate.priors.matte import mattes
from animate.priors.prior import Guidance, Prediction, Prior
from animate.priors.saved_video import load_video_pipeline
from animate.shot import Footage, Shot
from manifests.errors import InputError

__all__ = ["Conditions", "VideoPrior", "frame_rate", "predicted", "still_images"]


class Conditions(NamedTuple):
    """What a network is told beside latents and timestep: with the shot, and with what guidance leaves out."""

    cond: dict[str, Any]
    uncond: dict[str, Any]


class VideoPrior(Prior):
    """A frozen pipeline of diffusers, its network asked directly.

    Attributes:
        steps: of sampling in `film`.
        device: networks are there; latents come from and go to where they were.
    """

    pipeline_name: ClassVar[str]
    first_frame_clean: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True
    sees_first: ClassVar[bool] = True
    image_tokens: ClassVar[bool] = False
    """Its cross-attention sees tokens of the image behind those of the text."""
    steps: int = 50

    def __init__(self, pipeline: Any, *, name: str, device: str = "cpu") -> None:
        """Takes a pipeline as `load_video_pipeline` gives it."""
        self.name, self.device = name, torch.device(device)
        self.pipeline = pipeline.to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self._prediction = pipeline.scheduler.config.prediction_type
        self._alphas, self._levels = self._schedule()
        self.alphas_cumprod = self._alphas.float()
        if self._prediction == "epsilon" and float(self.alphas_cumprod[-1]) == 0:
            raise InputError(
                f"{name}: found a schedule that ends in pure noise with prediction epsilon, expected v_prediction or"
                " sample there; correct scheduler/scheduler_config.json"
            )
        self._last: tuple[Shot, Conditions] | None = None

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> VideoPrior:
        """The prior of a saved pipeline; nothing is downloaded, no pickle and no code of the folder is read.

        Args:
            folder: holds `model_index.json`.
            device: of torch.

        Raises:
            InputError: another pipeline, pickles only, missing or damaged files.
        """
        return cls(load_video_pipeline(Path(folder), cls.pipeline_name), name=str(folder), device=device)

    # -- what differs --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _conditions(self, shot: Shot) -> Conditions:
        """Arguments of the network for a shot."""

    @abstractmethod
    def _sample(self, shot: Shot, view: int, generator: torch.Generator) -> Tensor:
        """(F, 3, S, S) of one view, 0 to 1, as the pipeline itself samples it."""

    def _schedule(self) -> tuple[Tensor, Tensor]:
        """Signal variances (T,) float64, falling, and what the network is told for each (T,)."""
        alphas = self.pipeline.scheduler.alphas_cumprod.double().cpu()
        return alphas, torch.arange(len(alphas))

    def _raw(self, noisy: Tensor, timestep: int, told: dict[str, Any]) -> Tensor:
        """The network's answer, (V, F, C, h, w) like its question."""
        level = self._levels[timestep].to(self.device)
        return self.unet(noisy.transpose(1, 2), level, **told, return_dict=False)[0].transpose(1, 2)

    def _scale(self, scale: float, num_frames: int) -> Any:
        """Guidance of each frame; a number where it is one for all."""
        return scale

    # -- what a prior offers -------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """As in `Prior`: the middle of the autoencoder's distribution, without a draw."""
        flat = images.to(self.device).flatten(0, 1) * 2 - 1
        latents = self.vae.encode(flat).latent_dist.mode() * self.vae.config.scaling_factor
        return latents.unflatten(0, images.shape[:2]).to(images.device)

    @torch.no_grad()
    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        """As in `Prior`."""
        place, noisy = noisy.device, noisy.to(self.device)
        conditions = self._conditions_of(shot)
        alpha = float(self._alphas[timestep])
        raw = cond = self._raw(noisy, timestep, conditions.cond)
        if guidance.scale != 1:
            scale = self._scale(guidance.scale, noisy.shape[1])
            raw = guided(cond, self._raw(noisy, timestep, conditions.uncond), scale)
        found = predicted(raw, noisy, alpha, self._prediction)
        if guidance.scale != 1 and guidance.rescale:
            plain = predicted(cond, noisy, alpha, self._prediction).clean
            clean = rescaled(found.clean, plain, guidance.rescale, first_frame_clean=False)
            found = Prediction(clean, (noisy - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha))
        return Prediction(*(value.to(place) for value in found))

    @torch.no_grad()
    def film(self, shot: Shot, *, seed: int, told: Callable[[int, int], None] | None = None) -> Footage:
        """As in `Prior`; every view starts from the same noise, masks are what differs from the shot's background.

        A text-to-video prior chooses its own background, so that its masks may cover the whole image.
        """
        places = [self.device] if self.device.type == "cuda" else []
        clips = []
        with self._counted(told, self.steps * shot.num_views), torch.random.fork_rng(devices=places):
            for view in range(shot.num_views):
                torch.manual_seed(seed)  # a pipeline may draw from the global generator as well
                clips.append(self._sample(shot, view, torch.Generator().manual_seed(seed)).float().cpu())
        images = torch.stack(clips).clamp(0, 1)
        masks = mattes(images, shot.first if self.sees_first else images[:, 0], shot.background)
        return Footage(
            images=images, masks=masks, c2w=shot.c2w, K=shot.K, times_s=shot.times_s, background=shot.background
        )

    @torch.no_grad()
    def attention_map(self, word: str, noisy: Tensor, timestep: int, shot: Shot, kind: str = "text") -> Tensor:
        """As in `Prior`: share of attention that goes to the word's tokens, or (`image`) to those of the image.

        Raises:
            InputError: the prompt lacks the word, or the network sees no such tokens.
        """
        if not self.reads_text or (kind == "image" and not self.image_tokens):
            return super().attention_map(word, noisy, timestep, shot, kind)
        tokenizer = self.pipeline.tokenizer
        behind_text = slice(tokenizer.model_max_length, None)
        columns = behind_text if kind == "image" else word_positions(tokenizer, shot.prompt, word)
        told, inside = self._conditions_of(shot).cond, noisy.to(self.device)
        shares = attention_to(self.unet, columns, lambda: self._raw(inside, timestep, told))
        return spread_out(shares, *noisy.shape[-2:]).unflatten(0, noisy.shape[:2]).to(noisy.device)

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """As in `Prior`; sizes that the pipeline cannot take, and a prompt that says nothing, too."""
        super().check(prompt=prompt, views=views, frames=frames, size=size)
        multiple = math.lcm(8, self.pipeline.vae_scale_factor)
        if size % multiple:
            raise InputError(
                f"--prior {self.name}: found size {size}, expected a multiple of {multiple}; set it in the config"
            )
        if self.reads_text and not prompt.strip():
            raise InputError(f"--prompt: found an empty one, expected what {self.name} shall show; say what happens")

    # -- within --------------------------------------------------------------------------------------------------------

    def _conditions_of(self, shot: Shot) -> Conditions:
        """Computed once a shot: a step asks for its prediction and its map."""
        if self._last is None or self._last[0] is not shot:
            self._last = (shot, self._conditions(shot))
        return self._last[1]

    @contextlib.contextmanager
    def _counted(self, told: Callable[[int, int], None] | None, total: int) -> Iterator[None]:
        """Reports passes of the network: one a step in every pipeline, which not all report themselves."""
        if told is None:
            yield
            return
        done = 0

        def count(*_: Any) -> None:
            nonlocal done
            done = min(done + 1, total)
            told(done, total)

        handle = self.unet.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()


def predicted(raw: Tensor, noisy: Tensor, alpha: float, kind: str) -> Prediction:
    """Clean latents and noise from what a network answers.

    Args:
        raw: the answer.
        noisy: variance-preserving: sqrt(alpha) clean + sqrt(1 - alpha) noise.
        alpha: share of signal variance, 0 to 1; above 0 for `epsilon`, below 1 for `sample`.
        kind: epsilon, v_prediction or sample, as schedulers of diffusers say.
    """
    signal, spread = math.sqrt(alpha), math.sqrt(1 - alpha)
    if kind == "v_prediction":
        return Prediction(signal * noisy - spread * raw, spread * noisy + signal * raw)
    if kind == "epsilon":
        return Prediction((noisy - spread * raw) / signal, raw)
    assert kind == "sample", f"prediction type {kind}"
    return Prediction(raw, (noisy - signal * raw) / spread)


def still_images(shot: Shot) -> list[Image.Image]:
    """The shot's first images with 8 bits, as the pipelines take them."""
    pixels = (shot.first.detach().cpu().permute(0, 2, 3, 1).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(view) for view in pixels]


def frame_rate(shot: Shot, otherwise: float) -> int:
    """Whole frames a second of a shot, at least 1."""
    span_s = float(shot.times_s[-1] - shot.times_s[0])
    return max(1, round((shot.num_frames - 1) / span_s if span_s > 0 else otherwise))
