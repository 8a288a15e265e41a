"""Stable Video Diffusion (diffusers' StableVideoDiffusionPipeline) as a prior: a first image, no text.

It was trained on variance-exploding noise with v-prediction. Scaled by 1 / sqrt(1 + sigma^2), as its network takes
them, such latents are variance-preserving with alpha = 1 / (1 + sigma^2), and its answer is their v; no more is needed
to bring it into line. Sources: Blattmann et al., arXiv 2311.15127; Karras et al., arXiv 2206.00364, equation 7.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from animate.priors.video import Conditions, VideoPrior, frame_rate, still_images
from animate.shot import Shot

__all__ = ["StableVideo"]

_LEVELS = 1000
"""Noise levels that a timestep counts, spaced as the pipeline's own scheduler spaces its steps."""


class StableVideo(VideoPrior):
    """Made for 14 or 25 frames of 576 x 1024 pixels; takes squares, and is told the shot's frames a second.

    Guidance rises from 1 at frame 0 to the given scale at the last one, as in the pipeline.

    Attributes:
        motion_bucket: how much shall move, 0 to 255.
        image_noise: standard deviation of the noise on the first image, which it is told; more lets more change.
    """

    pipeline_name: ClassVar[str] = "StableVideoDiffusionPipeline"
    reads_text: ClassVar[bool] = False
    fps = 7.0
    default_guidance = 3.0
    steps = 25
    motion_bucket = 127
    image_noise = 0.02

    def __init__(self, pipeline: Any, *, name: str, device: str = "cpu") -> None:
        """Takes a pipeline as `load_video_pipeline` gives it; the number of frames is the network's."""
        super().__init__(pipeline, name=name, device=device)
        self.num_frames = self.unet.config.num_frames

    def _schedule(self) -> tuple[Tensor, Tensor]:
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(_LEVELS)
        sigmas = scheduler.sigmas[:_LEVELS].double().flip(0)
        return 1 / (1 + sigmas**2), scheduler.timesteps.float().cpu().flip(0)

    def _scale(self, scale: float, num_frames: int) -> Tensor:
        return torch.linspace(1, scale, num_frames, device=self.device)[:, None, None, None]

    def _raw(self, noisy: Tensor, timestep: int, told: dict[str, Any]) -> Tensor:
        level = self._levels[timestep].to(self.device)
        named = {name: value for name, value in told.items() if name != "image_latents"}
        beside = told["image_latents"][:, None].expand(-1, noisy.shape[1], -1, -1, -1)
        return self.unet(torch.cat([noisy, beside], 2), level, **named, return_dict=False)[0]

    def _conditions(self, shot: Shot) -> Conditions:
        stills = still_images(shot)
        seen = self.pipeline._encode_image(stills, self.device, 1, False)
        pixels = self.pipeline.video_processor.preprocess(stills, height=shot.size, width=shot.size)
        # The same noise whenever a shot is looked at: a prediction is a function of its inputs.
        noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(0))
        latents = self.vae.encode((pixels + self.image_noise * noise).to(self.device)).latent_dist.mode()
        # It was trained on the rate less one.
        times = [float(frame_rate(shot, self.fps) - 1), float(self.motion_bucket), self.image_noise]
        shared = {"added_time_ids": torch.tensor([times], device=self.device).expand(shot.num_views, -1)}
        return Conditions(
            shared | {"encoder_hidden_states": seen, "image_latents": latents},
            shared | {"encoder_hidden_states": torch.zeros_like(seen), "image_latents": torch.zeros_like(latents)},
        )

    def _sample(self, shot: Shot, view: int, generator: torch.Generator) -> Tensor:
        return self.pipeline(
            image=still_images(shot)[view],
            height=shot.size,
            width=shot.size,
            num_frames=shot.num_frames,
            num_inference_steps=self.steps,
            max_guidance_scale=self.default_guidance,
            fps=frame_rate(shot, self.fps),
            motion_bucket_id=self.motion_bucket,
            noise_aug_strength=self.image_noise,
            generator=generator,
            output_type="pt",
        ).frames[0]
