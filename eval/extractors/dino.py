"""DINO (v1) ViT-B/16: the class token of every frame and reference, behind the preprocesses of VBench's versions.

The network is timm's ``vit_base_patch16_224.dino`` with the checkpoint that facebookresearch/dino publishes
(dino_vitbase16_pretrain.pth). Images that are not square run as in DINO's own code (7c446df, vision_transformer.py),
whose interpolation of the position codes differs from timm's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import timm
import torch
from torch.nn import functional as F

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network
from eval.extractors.encode import encode_clips
from eval.extractors.preprocess import DINO_224, DINO_256_CROP, Preprocess, crop_square, object_square

__all__ = ["Dino224", "Dino256Crop", "Dino256CropNoAntialias", "DinoObject", "class_token", "position_codes"]


class _Dino:
    """Features ``frames`` (frame, 768) float32 and, where the clip has one, ``reference`` (768,); not normalised."""

    weights: ClassVar[tuple[str, ...]] = ("dino-vitb16",)
    architecture: ClassVar[Mapping[str, Any]] = {"model_name": "vit_base_patch16_224.dino"}
    """Arguments of timm.create_model."""
    preprocess: ClassVar[Preprocess]

    def __init__(self, checkpoint: Path, *, compute: Compute):
        """Loads the checkpoint, a PyTorch state dict or safetensors with DINO's names.

        Raises:
            InputError: the file is not one, or of another network.
        """
        make = partial(timm.create_model, **self.architecture, pretrained=False, num_classes=0)
        self.network = load_network(make, checkpoint, device=compute.device)
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        return encode_clips(clips, self._frames, self._references, self.compute.batch_size)

    def _frames(self, images: np.ndarray) -> torch.Tensor:
        return class_token(self.network, self.preprocess.floats(images, self.compute.device))

    def _references(self, images: np.ndarray) -> torch.Tensor:
        return class_token(self.network, self.preprocess.eight_bit(images, self.compute.device))


class Dino256Crop(_Dino):
    """Shorter side 256 bicubic anti-aliased, centre crop 224."""

    name: ClassVar[str] = "dino@256crop"
    preprocess = DINO_256_CROP


class Dino256CropNoAntialias(_Dino):
    """The same with frames resized without anti-aliasing; references always have it."""

    name: ClassVar[str] = "dino@256crop-noaa"
    preprocess = dataclasses.replace(DINO_256_CROP, antialias=False)


class Dino224(_Dino):
    """Shorter side 224 bilinear, no crop; frames without anti-aliasing."""

    name: ClassVar[str] = "dino@224"
    preprocess = DINO_224


class DinoObject(Dino256Crop):
    """`Dino256Crop` on the square around the object, one for the clip and its reference.

    No features for a clip without alpha or with nothing that is at least half opaque.
    """

    name: ClassVar[str] = "dino@object"

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        cropped = [_around_object(clip) for clip in clips]
        shown = [clip for clip in cropped if clip is not None]
        features = iter(super().extract(shown) if shown else ())
        return [{} if clip is None else next(features) for clip in cropped]


def _around_object(clip: Clip) -> Clip | None:
    if clip.alpha is None:
        return None
    masks = [alpha >= 128 for alpha in (clip.alpha, clip.reference_alpha) if alpha is not None]
    square = object_square(masks)
    if square is None:
        return None
    reference = None if clip.reference is None else crop_square(clip.reference, square, clip.background)
    return dataclasses.replace(clip, frames=crop_square(clip.frames, square, clip.background), reference=reference)


def class_token(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The class token behind the last norm, (image, feature), as DINO's own code computes it.

    Args:
        network: a timm VisionTransformer with a class token and learnt position codes.
        images: (image, 3, height, width); rows and columns beyond whole patches are not seen.
    """
    patches = network.patch_embed.proj(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.cls_token.expand(len(images), -1, -1), patches], dim=1)
    side = network.patch_embed.patch_size[0]
    tokens = tokens + position_codes(network.pos_embed, *images.shape[2:], side)
    for block in network.blocks:
        tokens = block(tokens)
    return network.norm(tokens)[:, 0]


def position_codes(learnt: torch.Tensor, height: int, width: int, patch: int) -> torch.Tensor:
    """Position codes for an image of another shape than trained on, (1, 1 + patches, feature).

    Args:
        learnt: (1, 1 + side * side, feature), the class token's first.
        height, width: of the image, pixels.
        patch: side of a patch, pixels.

    Source: DINO, vision_transformer.py (7c446df): bicubic, by a scale that is 0.1 patches too large, and applied
    whenever the image is not square, even where the number of patches is the one trained on.
    """
    rows, columns, side = height // patch, width // patch, round((learnt.shape[1] - 1) ** 0.5)
    if height == width and rows == side:
        return learnt
    grid = learnt[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([learnt[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
