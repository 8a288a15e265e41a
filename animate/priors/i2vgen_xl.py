"""I2VGen-XL (diffusers' I2VGenXLPipeline) as a prior: a first image and a text, 16 frames.

The image reaches the network three ways: as latents beside the noisy ones, as tokens made of these latents, and as
tokens of CLIP's embedding. Source: Zhang et al., arXiv 2311.04145; diffusers' pipeline, which draws the image's
latents from the autoencoder where we take their mean, so that a prediction is a function of its inputs.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from animate.priors.video import Conditions, VideoPrior, frame_rate, still_images
from animate.shot import Shot

__all__ = ["I2VGenXL"]


class I2VGenXL(VideoPrior):
    """Made for 16 frames of 704 x 1280 pixels; takes squares, and is told the shot's frames a second."""

    pipeline_name: ClassVar[str] = "I2VGenXLPipeline"
    image_tokens: ClassVar[bool] = True
    fps = 16.0
    default_guidance = 9.0

    def _conditions(self, shot: Shot) -> Conditions:
        stills = still_images(shot)
        seen = self._embeddings(stills)
        shared = {
            "fps": torch.full((shot.num_views,), frame_rate(shot, self.fps), device=self.device),
            "image_latents": self._image_latents(stills, shot.num_frames),
        }
        said, silent = (self._text(text).expand(shot.num_views, -1, -1) for text in (shot.prompt, ""))
        # Guidance leaves the text and CLIP's embedding out; the latents stay.
        return Conditions(
            shared | {"encoder_hidden_states": said, "image_embeddings": seen},
            shared | {"encoder_hidden_states": silent, "image_embeddings": torch.zeros_like(seen)},
        )

    def _text(self, prompt: str) -> Tensor:
        """(1, T, C): states before CLIP's last layer, normalised as behind it; as the pipeline's `clip_skip` of 1.

        The pipeline's own way there breaks with transformers 5, whose text model holds the norm itself.
        """
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        how = {"max_length": tokenizer.model_max_length, "padding": "max_length", "truncation": True}
        ids = tokenizer([prompt], return_tensors="pt", **how).input_ids.to(self.device)
        states = encoder(ids, output_hidden_states=True).hidden_states[-2]
        return getattr(encoder, "text_model", encoder).final_layer_norm(states)

    def _embeddings(self, stills: list[Image.Image]) -> Tensor:
        """(V, 1, C) of CLIP, for images that Pillow resized as the pipeline has it."""
        processor = self.pipeline.feature_extractor
        side = (processor.crop_size["width"], processor.crop_size["height"])
        small = np.stack([np.asarray(still.resize(side, Image.Resampling.BILINEAR)) for still in stills])
        pixels = torch.from_numpy(small).to(self.device).float().permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(values, device=self.device) for values in (processor.image_mean, processor.image_std))
        inputs = (pixels - mean[:, None, None]) / std[:, None, None]
        return self.pipeline.image_encoder(inputs).image_embeds[:, None]

    def _image_latents(self, stills: list[Image.Image], num_frames: int) -> Tensor:
        """(V, C, F, h, w): the image's latents at frame 0, then planes that say how far along a frame is."""
        pixels = torch.from_numpy(np.stack([np.asarray(still) for still in stills])).to(self.device)
        flat = pixels.float().permute(0, 3, 1, 2) / 127.5 - 1
        latents = self.vae.encode(flat).latent_dist.mode() * self.vae.config.scaling_factor
        along = torch.linspace(0, 1, num_frames, device=self.device)[1:, None, None]
        planes = along.expand(*latents.shape[:2], -1, *latents.shape[2:]) if num_frames > 1 else None
        first = latents[:, :, None]
        return first if planes is None else torch.cat([first, planes], 2)

    def _sample(self, shot: Shot, view: int, generator: torch.Generator) -> Tensor:
        return self.pipeline(
            prompt_embeds=self._text(shot.prompt),
            negative_prompt_embeds=self._text(""),
            image=still_images(shot)[view],
            height=shot.size,
            width=shot.size,
            target_fps=frame_rate(shot, self.fps),
            num_frames=shot.num_frames,
            num_inference_steps=self.steps,
            guidance_scale=self.default_guidance,
            generator=generator,
            output_type="pt",
        ).frames[0]
