"""ViCLIP-L/14: a clip of eight frames and its prompt as vectors of one space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import open_clip
import torch
from torch import Tensor
from torchvision.transforms import functional as transforms

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network
from eval.extractors.encode import distinct_images
from eval.extractors.passes import batches, full_precision
from eval.extractors.preprocess import CLIP
from eval.extractors.sampling import middle_frames
from eval.extractors.viclip_network import VICLIP_L14, ViClipNetwork, ViClipShape

__all__ = ["ViClip"]

T = TypeVar("T")

ACTIVATIONS = 256 << 20
"""What one clip takes inside the network, roughly, bytes."""


class ViClip:
    """Features ``video`` (768,); where there is a prompt ``text`` (768,) and ``tokens`` (2,): how many it has and how
    many ViCLIP reads, the rest being cut off. Not normalised.

    The frames are the middles of eight equal intervals; a shorter clip is filled up with its last frame.
    """

    name: ClassVar[str] = "viclip-l14"
    weights: ClassVar[tuple[str, ...]] = ("viclip-l14",)

    def __init__(self, checkpoint: Path, *, compute: Compute, shape: ViClipShape = VICLIP_L14) -> None:
        """Loads ViClip-InternVid-10M-FLT.pth as its authors publish it, or the tensors of its ``model``.

        Args:
            checkpoint: the file.
            compute: device and batch size.
            shape: of the network; another one than the published only serves tests.

        Raises:
            InputError: the file is another.
        """
        make = partial(ViClipNetwork, shape)
        self.network = load_network(make, checkpoint, device=compute.device, key="model")
        # CLIP's own tokens; open_clip carries the vocabulary in its wheel.
        self.tokenize = open_clip.SimpleTokenizer(context_length=shape.context)
        self.compute, self.shape = compute, shape

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        shown = [clip.frames[middle_frames(clip.num_frames, self.shape.frames)] for clip in clips]
        stacks, places = distinct_images(shown)
        videos = [row for some in self._batches(stacks) for row in self._videos(some)]
        prompts = sorted({clip.prompt for clip in clips if clip.prompt})
        rows = [row for some in self._batches(prompts) for row in self._texts(some)]
        texts = {
            prompt: {"text": row, "tokens": np.array([len(self.tokenize.encode(prompt)) + 2, self.shape.context])}
            for prompt, row in zip(prompts, rows, strict=True)
        }
        return [
            {"video": videos[place]} | texts.get(clip.prompt, {}) for clip, place in zip(clips, places, strict=True)
        ]

    def _batches(self, items: Sequence[T]) -> Iterator[list[T]]:
        return batches(items, batch_size=self.compute.batch_size, bytes_each=ACTIVATIONS)

    def _videos(self, stacks: Sequence[np.ndarray]) -> np.ndarray:
        video = torch.stack([self._preprocessed(stack) for stack in stacks]).transpose(1, 2)
        with full_precision():
            return self.network.encode_video(video).cpu().numpy()

    def _texts(self, prompts: Sequence[str]) -> np.ndarray:
        with full_precision():
            return self.network.encode_text(self.tokenize(list(prompts)).to(self.compute.device)).cpu().numpy()

    def _preprocessed(self, frames: np.ndarray) -> Tensor:
        """(frame, 3, side, side); resized in 8 bits, so rounded and clamped, unlike in VBench's other dimensions."""
        side = self.shape.resolution
        images = torch.from_numpy(frames).permute(0, 3, 1, 2)
        images = transforms.resize(images, [side], transforms.InterpolationMode.BICUBIC, antialias=False)
        images = transforms.center_crop(images, [side]).to(self.compute.device).float() / 255
        return transforms.normalize(images, CLIP.mean, CLIP.std)
