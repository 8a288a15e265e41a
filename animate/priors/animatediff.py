"""AnimateDiff (diffusers' AnimateDiffPipeline) as a prior: text alone, the ablation without image-to-video.

It has not seen the object: `first` of a shot does not reach it, and its film shows whatever the prompt says. Source:
Guo et al., arXiv 2307.04725; diffusers' pipeline.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from animate.priors.video import Conditions, VideoPrior
from animate.shot import Shot
from manifests.errors import InputError
from train.conditions import encode_text

__all__ = ["AnimateDiff"]


class AnimateDiff(VideoPrior):
    """Latents of Stable Diffusion 1.5 with motion modules, 8 frames a second, mostly 16 frames."""

    pipeline_name: ClassVar[str] = "AnimateDiffPipeline"
    sees_first: ClassVar[bool] = False
    reads_image: ClassVar[bool | None] = False
    fps = 8.0
    default_guidance = 7.5

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """As in `VideoPrior`; and no more frames than the motion modules have positions for."""
        super().check(prompt=prompt, views=views, frames=frames, size=size)
        most = self.unet.config.motion_max_seq_length
        if frames > most:
            raise InputError(
                f"--prior {self.name}: found frames {frames}, expected at most {most}, the positions that its motion"
                " modules have; set it in the config"
            )

    def _conditions(self, shot: Shot) -> Conditions:
        return Conditions(self._told(shot.prompt, shot), self._told("", shot))

    def _told(self, prompt: str, shot: Shot) -> dict[str, Any]:
        states = encode_text(self.pipeline.tokenizer, self.pipeline.text_encoder, [prompt])
        # The network counts frames as images, and wants the text of each.
        return {"encoder_hidden_states": states.expand(shot.num_views * shot.num_frames, -1, -1)}

    def _sample(self, shot: Shot, view: int, generator: torch.Generator) -> Tensor:
        return self.pipeline(
            prompt=shot.prompt,
            num_frames=shot.num_frames,
            height=shot.size,
            width=shot.size,
            num_inference_steps=self.steps,
            guidance_scale=self.default_guidance,
            generator=generator,
            output_type="pt",
        ).frames[0]
