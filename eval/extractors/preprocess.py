"""What stands between a frame and a network: shorter side resized, centre cropped, scaled, normalised.

The sources do it in two ways that differ in pixels. As ``floats`` a frame is resized as a float tensor, with or without
anti-aliasing, neither rounded nor clamped (bicubic overshoots). As ``eight_bit`` it is resized by Pillow, always
anti-aliased, to whole grey levels. VBench puts frames through the first and reference images through the second.

Sizes and offsets follow torchvision's Resize and CenterCrop; antialias is always said, since torchvision's default for
tensors became True in 0.17 (None or "warn", which mean off, up to 0.16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

__all__ = ["CLIP", "DINO_224", "DINO_256_CROP", "Preprocess", "crop_square", "object_square"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """One preprocess.

    Attributes:
        side: the shorter side after the resize, pixels.
        crop: side of the centre crop, pixels; None for none.
        filter: of the resize.
        antialias: of the resize of float tensors; Pillow's always is.
        mean, std: of each channel, of values 0..1.
    """

    side: int
    crop: int | None
    filter: Literal["bilinear", "bicubic"]
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def floats(self, images: np.ndarray, device: str = "cpu") -> torch.Tensor:
        """(image, 3, height, width) float32 for a network, resized as float tensors.

        Args:
            images: (image, height, width, 3) uint8.
            device: where it is done and stays.
        """
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
        size = self.resized(*pixels.shape[2:])
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size, mode=self.filter, align_corners=False, antialias=self.antialias)
        return self._normalised(pixels)

    def eight_bit(self, images: np.ndarray, device: str = "cpu") -> torch.Tensor:
        """(image, 3, height, width) float32 for a network, resized by Pillow; arguments as of `floats`."""
        height, width = self.resized(*images.shape[1:3])
        if (height, width) != images.shape[1:3]:
            # Pillow lets other threads run while it resizes.
            with ThreadPoolExecutor(_THREADS) as pool:
                images = np.stack(list(pool.map(lambda image: self._pillow(image, height, width), images)))
        return self._normalised(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float())

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize: the shorter side as asked, the longer one cut to whole pixels."""
        if height <= width:
            return self.side, int(self.side * width / height)
        return int(self.side * height / width), self.side

    def _pillow(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[self.filter]))

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.crop is not None:
            # Python's round: halves go to the even offset.
            top, left = (round((side - self.crop) / 2) for side in pixels.shape[2:])
            pixels = pixels[..., top : top + self.crop, left : left + self.crop]
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        return ((pixels / 255.0 - mean) / std).contiguous()


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DINO_256_CROP = Preprocess(side=256, crop=224, filter="bicubic", antialias=True, **_IMAGENET)
"""VBench-I2V from 2024-07-12 (e7f070a), where torchvision anti-aliases tensors."""
DINO_224 = Preprocess(side=224, crop=None, filter="bilinear", antialias=False, **_IMAGENET)
"""VBench's subject consistency (45e79ec), and VBench-I2V before 2024-07-12 with the torchvision it asked for."""
CLIP = Preprocess(
    side=224, crop=224, filter="bicubic", antialias=False,
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711),
)  # fmt: skip
"""As ``floats`` VBench's CLIP dimensions (45e79ec); as ``eight_bit`` CLIP's own preprocess, also open_clip's."""


def object_square(masks: Sequence[np.ndarray]) -> tuple[int, int, int] | None:
    """The square around an object that serves all its masks: (top, left, side); may reach outside of the image.

    Args:
        masks: (height, width) bool or (frame, height, width) bool each, of one image size.

    Returns:
        The box that holds every mask, made square around its middle and 10 % of its side wider on every side;
        None where the masks are empty.
    """
    seen = np.any([mask.reshape(-1, *mask.shape[-2:]).any(axis=0) for mask in masks], axis=0)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    side = math.ceil(1.2 * max(bottom - top, right - left))
    return (top + bottom - side) // 2, (left + right - side) // 2, side


def crop_square(images: np.ndarray, square: tuple[int, int, int], background: Sequence[int]) -> np.ndarray:
    """That part of images, (..., side, side, 3); background where the square reaches outside of them.

    Args:
        images: (..., height, width, 3) uint8.
        square: as of `object_square`.
        background: three values 0..255.
    """
    top, left, side = square
    height, width = images.shape[-3:-1]
    out = np.empty((*images.shape[:-3], side, side, 3), np.uint8)
    out[...] = background
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    out[..., y0 - top : y1 - top, x0 - left : x1 - left, :] = images[..., y0:y1, x0:x1, :]
    return out
