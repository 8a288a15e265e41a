"""From a prompt, one image a view and the cameras to a multi-view clip: MV-VDM's sampler.

A diffusers pipeline: saved by `save_pretrained`, loaded by `MVAnimatePipeline.from_pretrained(folder)` or, with every
weight accounted for, by `train.models.build.load_pipeline`. Sources: Animate3D's sampler, whose frame 0 is a clean
condition; FreeInit (arXiv 2312.07537).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.pipelines.free_init_utils import FreeInitMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from manifests.errors import InputError
from train.conditions import decode_latents, encode_images, encode_latents, encode_text, spatial_factor
from train.ddim import ddim_step, ddim_timesteps

# diffusers finds a component's class only in a module that is already imported, so both models are named here.
from train.models.pixel_codec import PixelCodec
from train.models.unet_mv_motion import MVUNetMotionModel
from train.saved_pipeline import check_saved_pipeline

__all__ = ["MVAnimateOutput", "MVAnimatePipeline"]


@dataclass
class MVAnimateOutput(BaseOutput):
    """The clips: uint8 (B, V, F, 3, S, S), or scaled latents (B, V, F, C, h, w) where asked for."""

    frames: Tensor


class _Condition(NamedTuple):
    """What the UNet is told besides the latents; with guidance the unconditional half comes first."""

    text: Tensor
    camera: Tensor | None
    image_embeds: Tensor | None


class MVAnimatePipeline(DiffusionPipeline, FreeInitMixin):
    """MV-VDM: animates what one image a view shows, as a prompt says.

    Args:
        vae: of the frames; PixelCodec for a model of pixels.
        text_encoder: CLIP's.
        tokenizer: CLIP's.
        unet: MV-VDM's network.
        scheduler: its noise levels and what is predicted; steps are DDIM's.
        image_encoder: of the image tokens; None where the UNet has none, or to leave them out.
        feature_extractor: its preprocessing.
        camera_convention: a key of `train.cameras.CONVENTIONS`; whoever makes the camera vectors keeps to it.
        background: behind the object in the images it was trained on, sRGB-encoded 0 to 1; None is 0.5 grey.
        num_views: it was trained on; others work.
        num_frames: it was trained on; the default of a call.
        fps: of the clips it was trained on.
        size: height and width it was trained on, pixels; others work.
        frame0_time_zero: the clean frame 0 is told timestep 0, as in training.
        guidance_scale: the default of a call.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _optional_components: ClassVar[list[str]] = ["image_encoder", "feature_extractor"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL | PixelCodec,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: MVUNetMotionModel,
        scheduler: DDIMScheduler,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        camera_convention: str = "animate3d",
        background: list[float] | None = None,
        num_views: int = 4,
        num_frames: int = 16,
        fps: float = 8.0,
        size: int = 256,
        frame0_time_zero: bool = False,
        guidance_scale: float = 7.5,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(
            camera_convention=camera_convention,
            background=[0.5, 0.5, 0.5] if background is None else list(background),
            num_views=num_views,
            num_frames=num_frames,
            fps=fps,
            size=size,
            frame0_time_zero=frame0_time_zero,
            guidance_scale=guidance_scale,
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> MVAnimatePipeline:
        """Loads what `save_pretrained` wrote: from a local folder, safetensors only, no code but the installed one's.

        Args:
            folder: never the name of a repository.
            options: as in diffusers.

        Raises:
            InputError: no such pipeline there, a damaged file, or options that would load code or pickles.
        """
        for name, only in (("custom_pipeline", None), ("trust_remote_code", False), ("use_safetensors", True)):
            if options.get(name, only) != only:
                raise InputError(f"{name}: found {options[name]}, expected {only}; code and pickles are never loaded")
        check_saved_pipeline(folder)
        return super().from_pretrained(folder, **options | {"local_files_only": True, "use_safetensors": True})

    @property
    def size_multiple(self) -> int:
        """Image sizes that halve evenly all the way down are multiples of this many pixels."""
        return spatial_factor(self.vae) * self.unet.spatial_factor

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        images: Tensor,
        cameras: Tensor | None,
        num_frames: int | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] = "",
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "uint8",
        callback_on_step_end: Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None] | None = None,
        image_guidance: bool = True,
    ) -> MVAnimateOutput:
        """Samples clips.

        Args:
            prompt: one for all clips, or one a clip; more tokens than CLIP reads are cut with a warning.
            images: uint8 (B, V, 3, S, S), frame 0 of each view, composited on `config.background`.
            cameras: (B, V, 16) from `train.cameras`; None where the UNet knows no cameras.
            num_frames: with frame 0; default: `config.num_frames`.
            num_inference_steps: UNet passes, for each iteration of FreeInit where `enable_free_init` was called.
            guidance_scale: of classifier-free guidance; 1 is the conditional prediction alone, at half the work;
                default: `config.guidance_scale`.
            negative_prompt: of the unconditional branch.
            generator: one for all, or one a clip, which makes a clip independent of its batch.
            latents: (B, V, F, C, h, w) noise to start from; its frame 0 is not used.
            output_type: uint8 or latent.
            callback_on_step_end: called with the pipeline, the step's number, its timestep and {"latents": ...};
                latents in what it returns replace those of frames 1 and later.
            image_guidance: the unconditional branch also lacks the image tokens.

        Returns:
            the clips; frame 0 is the given image, encoded and decoded.

        Raises:
            InputError: shapes, counts or values that do not fit.
        """
        num_frames = self.config.num_frames if num_frames is None else num_frames
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        self._check(images, cameras, num_frames, num_inference_steps, guidance_scale, output_type)
        prompts = _one_each("prompt", prompt, len(images))
        negatives = _one_each("negative_prompt", negative_prompt, len(images))
        device = self._execution_device

        first = encode_latents(self.vae, images[:, :, None]).to(device)
        guided = guidance_scale != 1
        condition = self._condition(prompts, negatives if guided else [], images, cameras, image_guidance)
        batch, views, _, channels, height, width = first.shape
        shape = (batch, views, num_frames - 1, channels, height, width)
        draw = _Noise(shape, _one_each("generator", generator, batch), device)
        start = draw() if latents is None else self._start_from(latents, shape).to(device)

        # Frame 0 is no part of what is denoised: it is put in front anew for every pass, and so stays clean.
        rest, iterations = start, self._free_init_num_iters if self.free_init_enabled else 1
        for iteration in range(iterations):
            if iteration:
                rest = self._renoise(rest, start, draw())
            timesteps = self._timesteps(num_inference_steps, iteration, iterations)
            rest = self._denoise(first, rest, condition, timesteps, guidance_scale, callback_on_step_end)
        found = torch.cat([first, rest], 2)
        frames = found if output_type == "latent" else decode_latents(self.vae, found)
        self.maybe_free_model_hooks()
        return MVAnimateOutput(frames=frames)

    def _denoise(
        self,
        first: Tensor,
        rest: Tensor,
        condition: _Condition,
        timesteps: list[int],
        guidance_scale: float,
        callback: Callable[..., dict[str, Tensor] | None] | None,
    ) -> Tensor:
        with self.progress_bar(total=len(timesteps)) as progress:
            for number, (timestep, following) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
                pred = self._predict(torch.cat([first, rest], 2), timestep, condition, guidance_scale)[:, :, 1:]
                rest = ddim_step(self.scheduler, pred, timestep, following, rest)
                if callback is not None:
                    told = callback(self, number, timestep, {"latents": torch.cat([first, rest], 2)}) or {}
                    rest = told["latents"][:, :, 1:] if "latents" in told else rest
                progress.update()
        return rest

    def _predict(self, latents: Tensor, timestep: int, condition: _Condition, guidance_scale: float) -> Tensor:
        """(B, V, F, C, h, w) float32, guided."""
        if guidance_scale != 1:
            latents = torch.cat([latents, latents])
        times = torch.full((latents.shape[0], latents.shape[2]), timestep, device=latents.device)
        if self.config.frame0_time_zero:
            times[:, 0] = 0
        given = {"camera": condition.camera, "image_embeds": condition.image_embeds}
        given = {name: value.to(self.unet.dtype) if value is not None else None for name, value in given.items()}
        pred = self.unet(latents.to(self.unet.dtype), times, condition.text.to(self.unet.dtype), **given).sample.float()
        if guidance_scale == 1:
            return pred
        without, with_condition = pred.chunk(2)
        return without + guidance_scale * (with_condition - without)

    def _condition(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        images: Tensor,
        cameras: Tensor | None,
        image_guidance: bool,
    ) -> _Condition:
        """Of the conditional branch alone where there are no negative prompts."""
        device = self._execution_device
        text = encode_text(self.tokenizer, self.text_encoder, [*negatives, *prompts]).to(device)
        embeds = None
        if self.image_encoder is not None and self.unet.config.mv2v_adapter:
            embeds = encode_images(self.image_encoder, self.feature_extractor, images).to(device)
        camera = cameras.to(device).float() if cameras is not None else None
        if negatives:
            camera = torch.cat([camera, camera]) if camera is not None else None
            if embeds is not None:
                embeds = torch.cat([torch.zeros_like(embeds) if image_guidance else embeds, embeds])
        return _Condition(text, camera, embeds)

    def _timesteps(self, num_steps: int, iteration: int, iterations: int) -> list[int]:
        if self.free_init_enabled and self._free_init_use_fast_sampling:
            num_steps = max(1, num_steps * (iteration + 1) // iterations)
        return ddim_timesteps(self.scheduler, num_steps)

    def _renoise(self, rest: Tensor, start: Tensor, fresh: Tensor) -> Tensor:
        """FreeInit: what was found, noised again, gives the low frequencies, fresh noise the high ones.

        Frames 1 and later only. On a schedule that ends in pure noise nothing of what was found remains, by design.
        """
        last = torch.full((len(rest),), self.scheduler.config.num_train_timesteps - 1, device=rest.device)
        noised, fresh = (x.movedim(2, 3) for x in (self.scheduler.add_noise(rest, start, last), fresh))
        low = self._get_free_init_freq_filter(
            noised.shape[-3:],
            rest.device,
            self._free_init_method,
            self._free_init_order,
            self._free_init_spatial_stop_frequency,
            self._free_init_temporal_stop_frequency,
        )
        return self._apply_freq_filter(noised, fresh, low).movedim(3, 2)

    def _start_from(self, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
        expected = (*shape[:2], shape[2] + 1, *shape[3:])
        if tuple(latents.shape) != expected:
            raise InputError(
                f"latents: found shape {tuple(latents.shape)}, expected {expected}; (batch, views, frames, channels,"
                " height, width) of this VAE"
            )
        return latents[:, :, 1:].float()

    def _check(
        self,
        images: Tensor,
        cameras: Tensor | None,
        num_frames: int,
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str,
    ) -> None:
        shape, factor = tuple(images.shape), spatial_factor(self.vae)
        good = len(shape) == 5 and images.dtype == torch.uint8 and shape[2] == 3 and shape[3] == shape[4]
        if not good or min(shape) < 1 or shape[4] % factor:
            raise InputError(
                f"images: found {images.dtype} {shape}, expected uint8 (batch, views, 3, size, size) with a size that"
                f" is a multiple of {factor}; composite frame 0 of each view on {self.config.background}"
            )
        numbers = self.unet.config.camera_embed_dim
        expected = (*shape[:2], numbers) if numbers else None
        found = tuple(cameras.shape) if cameras is not None else None
        if found != expected or (cameras is not None and not cameras.isfinite().all()):
            raise InputError(
                f"cameras: found {found or 'none'}, expected {expected or 'none'} of finite numbers; make them with"
                f" train.cameras, convention {self.config.camera_convention}"
            )
        steps = self.scheduler.config.num_train_timesteps
        for name, value, good, rule in (
            ("num_frames", num_frames, num_frames >= 2, "at least 2, as frame 0 is given"),
            ("num_inference_steps", num_inference_steps, 1 <= num_inference_steps <= steps, f"1 to {steps}"),
            ("guidance_scale", guidance_scale, math.isfinite(guidance_scale), "a finite number"),
            ("output_type", output_type, output_type in ("uint8", "latent"), "uint8 or latent"),
        ):
            if not good:
                raise InputError(f"{name}: found {value}, expected {rule}")
        if self.free_init_enabled and self._free_init_num_iters < 1:
            raise InputError(f"enable_free_init: found num_iters {self._free_init_num_iters}, expected at least 1")


@dataclass
class _Noise:
    """Draws noise of one shape again and again, clip by clip."""

    shape: tuple[int, ...]
    generators: Sequence[torch.Generator | None]
    device: torch.device

    def __call__(self) -> Tensor:
        drawn = [randn_tensor(self.shape[1:], generator=generator) for generator in self.generators]
        return torch.stack([noise.to(self.device) for noise in drawn])


def _one_each(name: str, value: Any, batch: int) -> list[Any]:
    """One value a clip: as given, or the one given repeated."""
    if value is None or isinstance(value, str | torch.Generator):
        return [value] * batch
    if len(value) != batch:
        raise InputError(f"{name}: found {len(value)}, expected one for all, or {batch}, the number of clips in images")
    return list(value)
