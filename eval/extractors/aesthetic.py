"""LAION's aesthetic predictor, the first linear one: a weighted sum of the normalised CLIP ViT-L/14 embedding.

The head is sa_0_4_vit_l_14_linear.pth of LAION-AI/aesthetic-predictor (6d122ad), not the later perceptron ("V2").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network
from eval.extractors.clip import ClipL14
from eval.extractors.encode import encode_clips

__all__ = ["Aesthetic"]


class Aesthetic(ClipL14):
    """Feature ``scores`` (frame,) float32: as the head gives them, about 0..10."""

    name: ClassVar[str] = "aesthetic"
    weights = (*ClipL14.weights, "laion-aesthetic-vit-l-14-linear")

    def __init__(self, checkpoint: Path, head: Path, *, compute: Compute):
        """Loads CLIP and the head.

        Raises:
            InputError: a file of another format or network.
        """
        super().__init__(checkpoint, compute=compute)
        make = partial(torch.nn.Linear, self.network.visual.output_dim, 1)
        self.head = load_network(make, head, device=compute.device)

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        found = encode_clips(clips, self._scores, None, self.compute.batch_size)
        return [{"scores": features["frames"][:, 0]} for features in found]

    def _scores(self, images: np.ndarray) -> torch.Tensor:
        return self.head(F.normalize(self._frames(images), dim=-1))
