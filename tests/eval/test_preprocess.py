"""Resizes, crops and normalisation against torchvision's own transforms, put together as the sources do it."""

from __future__ import annotations

import dataclasses

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Lambda, Normalize, Resize, ToTensor

from eval.extractor import Clip
from eval.extractors.encode import distinct_images, encode, encode_clips
from eval.extractors.preprocess import CLIP, DINO_224, DINO_256_CROP, crop_square, object_square

BICUBIC = InterpolationMode.BICUBIC
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SCALE = Lambda(lambda x: x.float().div(255.0))
TENSORS = {
    # VBench-I2V e7f070a under a torchvision that anti-aliases, under one that does not, and VBench 45e79ec.
    "256crop": (DINO_256_CROP, Compose([Resize(256, BICUBIC, antialias=True), CenterCrop(224), SCALE, IMAGENET])),
    "256crop-noaa": (
        dataclasses.replace(DINO_256_CROP, antialias=False),
        Compose([Resize(256, BICUBIC, antialias=False), CenterCrop(224), SCALE, IMAGENET]),
    ),
    "224": (DINO_224, Compose([Resize(224, antialias=False), SCALE, IMAGENET])),
    "clip": (CLIP, Compose([Resize(224, BICUBIC, antialias=False), CenterCrop(224), SCALE, OPENAI])),
}
IMAGES = {
    "256crop": (DINO_256_CROP, Compose([Resize(256, BICUBIC), CenterCrop(224), ToTensor(), IMAGENET])),
    "224": (DINO_224, Compose([Resize(224), ToTensor(), IMAGENET])),
    "clip": (CLIP, Compose([Resize(224, BICUBIC), CenterCrop(224), ToTensor(), OPENAI])),
}
# 259 and 257: the crop's offset ends in a half, which Python rounds to even; 256 and 224: nothing to resize.
SIZES = [(256, 256), (224, 224), (256, 259), (257, 256), (300, 411), (97, 61), (512, 512)]


def draw(height: int, width: int, count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TENSORS)
def test_floats_are_the_sources_tensors(name, size):
    """Against torchvision's transforms on what VBench's load_video gives: float32 0..255, frame by channel first."""
    ours, theirs = TENSORS[name]
    frames = draw(*size)
    expected = theirs(torch.Tensor(frames).permute(0, 3, 1, 2))
    assert torch.equal(ours.floats(frames), expected)
    assert torch.equal(ours.floats(frames[1:]), expected[1:])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", IMAGES)
def test_eight_bit_is_the_sources_image_path(name, size):
    """Against torchvision's transforms on Pillow images, one at a time."""
    ours, theirs = IMAGES[name]
    images = draw(*size, seed=1)
    expected = torch.stack([theirs(Image.fromarray(image)) for image in images])
    assert torch.equal(ours.eight_bit(images), expected)


@pytest.mark.parametrize("size", SIZES)
def test_clips_own_preprocess_is_open_clips(size):
    """Against open_clip's evaluation transform."""
    transform = open_clip.image_transform(224, is_train=False)
    images = draw(*size, seed=2)
    assert torch.equal(CLIP.eight_bit(images), torch.stack([transform(Image.fromarray(image)) for image in images]))


def test_floats_overshoot_and_eight_bit_does_not():
    """Formula: bicubic between black and white leaves 0..255 on floats; Pillow cannot."""
    image = np.zeros((1, 96, 96, 3), np.uint8)
    image[:, :, 48:] = 255
    white, black = (
        (level - torch.tensor(CLIP.mean)[:, None, None]) / torch.tensor(CLIP.std)[:, None, None] for level in (1.0, 0.0)
    )
    floats, eight_bit = CLIP.floats(image)[0], CLIP.eight_bit(image)[0]
    assert (floats > white + 0.1).any()
    assert (floats < black - 0.1).any()
    assert (eight_bit <= white + 1e-5).all()
    assert (eight_bit >= black - 1e-5).all()


def test_object_square_holds_every_mask_with_a_tenth_around():
    """Against the definition, mask by mask: smallest box of all, its longer side times 1.2, around its middle."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        masks = np.zeros((4, 40, 60), bool)
        for mask in masks:
            top, left = rng.integers(0, 30), rng.integers(0, 50)
            mask[top : top + rng.integers(1, 10), left : left + rng.integers(1, 10)] = True
        y, x = np.nonzero(masks.any(axis=0))
        height, width = y.max() + 1 - y.min(), x.max() + 1 - x.min()
        top, left, side = object_square([masks[:3], masks[3]])
        assert 1.2 * max(height, width) <= side < 1.2 * max(height, width) + 1
        assert abs((top + side / 2) - (y.min() + height / 2)) <= 0.5
        assert abs((left + side / 2) - (x.min() + width / 2)) <= 0.5
    assert object_square([np.zeros((2, 8, 8), bool), np.zeros((8, 8), bool)]) is None


@pytest.mark.parametrize("square", [(3, 5, 10), (-4, -6, 12), (30, 50, 20), (-10, -10, 90)])
def test_crop_square_shows_the_background_outside(square):
    """Against padding the whole picture first."""
    images, (top, left, side) = draw(40, 60, seed=4), square
    padded = np.empty((2, 240, 260, 3), np.uint8)
    padded[...] = (9, 8, 7)
    padded[:, 100:140, 100:160] = images
    expected = padded[:, 100 + top : 100 + top + side, 100 + left : 100 + left + side]
    np.testing.assert_array_equal(crop_square(images, square, (9, 8, 7)), expected)
    np.testing.assert_array_equal(crop_square(images[0], square, (9, 8, 7)), expected[0])


def test_distinct_images_are_told_by_shape_and_values():
    """Against comparing every image with every other."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 2, shape, np.uint8) for shape in [(1, 2, 3), (2, 1, 3)] * 40]
    images.append(np.broadcast_to(images[0], (1, 2, 3))[::1])
    found, places = distinct_images(images)
    for image, place in zip(images, places, strict=True):
        equal = [k for k, other in enumerate(found) if image.shape == other.shape and (image == other).all()]
        assert equal == [place]


def test_encode_sees_each_distinct_image_once_in_batches_of_one_size():
    """Against the means of the images, and the calls that were made."""
    sizes: list[tuple[int, ...]] = []

    def means(images: np.ndarray) -> torch.Tensor:
        sizes.append(images.shape[:3])
        return torch.from_numpy(images).float().mean(dim=(1, 2))

    large, small = draw(6, 6, 5), draw(4, 5, 3)
    images = [*large, *small, *large[::-1], small[0]]
    rows = encode(images, means, 2)
    np.testing.assert_allclose(rows, [image.mean(axis=(0, 1), dtype=float) for image in images], rtol=1e-6)
    assert sizes == [(2, 6, 6), (2, 6, 6), (1, 6, 6), (2, 4, 5), (1, 4, 5)]


def test_encode_clips_gives_every_clip_its_own_rows():
    """Against the means of each clip's frames and reference."""
    clips = [
        Clip(frames=draw(4, 4, 3, seed=1), reference=draw(4, 4, 1, seed=2)[0]),
        Clip(frames=draw(6, 4, 1, seed=3)),
        Clip(frames=draw(4, 4, 2, seed=4), reference=draw(4, 4, 1, seed=2)[0]),
    ]

    def means(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).float().mean(dim=(1, 2))

    def negative(images: np.ndarray) -> torch.Tensor:
        return -means(images)

    for reference_encoder, sign in ((means, 1), (negative, -1)):
        found = encode_clips(clips, means, reference_encoder, 2)
        for clip, features in zip(clips, found, strict=True):
            np.testing.assert_allclose(features["frames"], clip.frames.mean(axis=(1, 2)), rtol=1e-6)
            assert ("reference" in features) == (clip.reference is not None)
            if clip.reference is not None:
                np.testing.assert_allclose(features["reference"], sign * clip.reference.mean(axis=(0, 1)), rtol=1e-6)
    assert all(set(features) == {"frames"} for features in encode_clips(clips, means, None, 2))
