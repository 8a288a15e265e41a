"""`MultiView`: MV-VDM as a prior; all views of a shot at once, frame 0 of each given.

Wraps a trained `MVAnimatePipeline` with its networks frozen. Its text and image conditions are worked out once a shot.
Sources: Animate3D's sampler and the guidance of its refinement (arXiv 2407.11398).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from animate.guidance import guided, rescaled
from animate.priors.matte import mattes
from animate.priors.prior import Guidance, Prediction, Prior
from animate.shot import Footage, Shot
from manifests.errors import InputError
from train.cameras import camera_vectors
from train.conditions import encode_images, encode_text, spatial_factor
from train.ddim import clean_latents
from train.models.build import load_pipeline
from train.pipeline import MVAnimatePipeline

__all__ = ["MultiView"]

_CHUNK = 8
"""Images encoded at a time; bounds memory, not the result."""


class _Conditions(NamedTuple):
    """Of one shot: unconditional and conditional."""

    text: tuple[Tensor, Tensor]
    camera: Tensor | None
    images: tuple[Tensor, Tensor] | None


class MultiView(Prior):
    """MV-VDM, asked for all views of a shot together.

    Args:
        pipeline: its networks are frozen here, in place.
        name: as the user gave it.
        steps: of the sampler, for `film`.
        free_init: rounds of FreeInit for `film`, 0 is none; Animate3D takes 3.
        negative_prompt: what the unconditional branch is told.
        device: of the networks.
    """

    joint_views: ClassVar[bool] = True
    first_frame_clean: ClassVar[bool] = True

    def __init__(
        self,
        pipeline: MVAnimatePipeline,
        *,
        name: str = "",
        steps: int = 25,
        free_init: int = 0,
        negative_prompt: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.pipeline, self.steps, self.free_init, self.negative_prompt = pipeline, steps, free_init, negative_prompt
        config = pipeline.config
        self.name = name or "an MV-VDM pipeline"
        self.num_frames, self.size, self.fps = config.num_frames, config.size, float(config.fps)
        red, green, blue = config.background
        self.background = (red, green, blue)
        self.default_guidance = config.guidance_scale
        self.alphas_cumprod = pipeline.scheduler.alphas_cumprod.float().cpu()
        self.device = torch.device(device)
        pipeline.to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        for network in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.image_encoder):
            if network is not None:
                network.eval().requires_grad_(False)
        self._texts: dict[str, Tensor] = {}
        self._shot: Shot | None = None
        self._conditions: _Conditions | None = None

    @classmethod
    def from_folder(cls, folder: Path | str, device: torch.device | str = "cpu", **options: Any) -> MultiView:
        """The pipeline that was saved in a folder.

        Args:
            folder: as `save_pretrained` wrote it.
            device: of the networks.
            options: see the class.

        Raises:
            InputError: no whole pipeline there.
        """
        return cls(load_pipeline(folder), device=device, **{"name": str(folder)} | options)

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """Also refuses a size that its networks cannot halve."""
        super().check(prompt=prompt, views=views, frames=frames, size=size)
        if size % self.pipeline.size_multiple:
            raise InputError(
                f"--prior {self.name}: found size {size}, expected a multiple of {self.pipeline.size_multiple}; set it"
                " in the config"
            )

    def encode(self, images: Tensor) -> Tensor:
        vae = self.pipeline.vae
        if images.shape[-1] % spatial_factor(vae):
            raise InputError(
                f"--prior {self.name}: found images of {images.shape[-1]} pixels, expected a multiple of"
                f" {spatial_factor(vae)}; set the size in the config"
            )

        def means(part: Tensor) -> Tensor:
            return vae.encode((part * 2 - 1).to(vae.dtype)).latent_dist.mode().float()

        # Activations of all images would fill a GPU many times; the encoder runs twice instead.
        remember = images.requires_grad and torch.is_grad_enabled()
        flat = images.flatten(0, 1).to(self.device)
        parts = [
            checkpoint(means, part, use_reentrant=False) if remember else means(part) for part in flat.split(_CHUNK)
        ]
        return (torch.cat(parts) * vae.config.scaling_factor).unflatten(0, images.shape[:2]).to(images.device)

    @torch.no_grad()
    def predict(self, noisy: Tensor, timestep: int, shot: Shot, guidance: Guidance) -> Prediction:
        conditions, scheduler = self._told(shot), self.pipeline.scheduler
        latents = noisy.to(self.device).float()
        raw = self._raw(latents, timestep, conditions, both=guidance.scale != 1)
        cond = raw[-1]
        clean, noise = clean_latents(scheduler, cond, timestep, latents)
        if guidance.scale != 1:
            alone = clean
            clean, noise = clean_latents(scheduler, guided(cond, raw[0], guidance.scale), timestep, latents)
            if guidance.rescale:
                clean = rescaled(clean, alone, guidance.rescale)
                alpha = self.alpha(timestep).to(latents)
                noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        clean = torch.cat([latents[:, :1], clean[:, 1:]], 1)
        noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1)
        return Prediction(clean.to(noisy), noise.to(noisy))

    @torch.no_grad()
    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        pipeline, rounds = self.pipeline, max(1, self.free_init)
        done = 0

        def step(_pipeline: Any, _step: int, _timestep: Any, kept: dict[str, Tensor]) -> dict[str, Tensor]:
            nonlocal done
            done += 1
            if told is not None:
                told(done, self.steps * rounds)
            return kept

        if self.free_init:
            pipeline.enable_free_init(num_iters=self.free_init)
        else:
            pipeline.disable_free_init()
        with self._precision():
            frames = pipeline(
                shot.prompt,
                _bytes(shot.first)[None],
                self._camera(shot),
                num_frames=shot.num_frames,
                num_inference_steps=self.steps,
                negative_prompt=self.negative_prompt,
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=step,
            ).frames[0]
        images = frames.to(shot.first.device).float() / 255
        masks = mattes(images, shot.first, shot.background)
        return Footage(
            images=torch.cat([shot.first[:, None], images[:, 1:]], 1),
            masks=masks,
            c2w=shot.c2w,
            K=shot.K,
            times_s=shot.times_s,
            background=shot.background,
        )

    def _raw(self, latents: Tensor, timestep: int, conditions: _Conditions, *, both: bool) -> Tensor:
        """(1 or 2, V, F, C, h, w) predictions of the network: unconditional first, where both are asked for."""
        unet, rows = self.pipeline.unet, slice(0 if both else 1, 2)
        count = 2 if both else 1
        times = torch.full((count, latents.shape[1]), timestep, device=self.device)
        if self.pipeline.config.frame0_time_zero:
            times[:, 0] = 0
        camera, images = conditions.camera, conditions.images
        with self._precision():
            return unet(
                latents[None].expand(count, *latents.shape).to(unet.dtype),
                times,
                torch.cat(conditions.text[rows]).to(unet.dtype),
                camera=None if camera is None else camera.expand(count, *camera.shape[1:]).to(unet.dtype),
                image_embeds=None if images is None else torch.cat(images[rows]).to(unet.dtype),
            ).sample.float()

    def _told(self, shot: Shot) -> _Conditions:
        """Conditions of a shot; those of the last one are kept."""
        if self._conditions is None or self._shot is not shot:
            self._shot, self._conditions = shot, self._make(shot)
        return self._conditions

    def _make(self, shot: Shot) -> _Conditions:
        pipeline, images = self.pipeline, None
        with self._precision():
            if pipeline.image_encoder is not None and pipeline.unet.config.mv2v_adapter:
                pixels = _bytes(shot.first)[None]
                given = encode_images(pipeline.image_encoder, pipeline.feature_extractor, pixels).to(self.device)
                images = torch.zeros_like(given), given
            text = self._text(self.negative_prompt), self._text(shot.prompt)
        return _Conditions(text, self._camera(shot), images)

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            pipeline = self.pipeline
            self._texts[prompt] = encode_text(pipeline.tokenizer, pipeline.text_encoder, [prompt]).to(self.device)
        return self._texts[prompt]

    def _camera(self, shot: Shot) -> Tensor | None:
        """(1, V, 16), or None where the network knows no cameras."""
        if not self.pipeline.unet.config.camera_embed_dim:
            return None
        convention = self.pipeline.config.camera_convention
        vectors = camera_vectors(shot.c2w.cpu().numpy(), shot.front_azimuth_deg, convention)
        return torch.from_numpy(vectors)[None].to(self.device)

    def _precision(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")


def _bytes(images: Tensor) -> Tensor:
    """uint8 of sRGB-encoded 0 to 1."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
