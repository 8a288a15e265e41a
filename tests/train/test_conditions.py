"""Conditions against the stock classes that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPImageProcessor

from manifests.errors import InputError
from tests.train.tiny_pipeline import seeded, tiny_pipeline
from train.conditions import (
    decode_latents,
    encode_images,
    encode_latents,
    encode_moments,
    encode_text,
    from_unit,
    image_inputs,
    latents_of_moments,
    spatial_factor,
    to_unit,
)


@pytest.fixture(scope="module")
def parts():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 2, "latent_channels": 4, "layers_per_block": 1}
    return AutoencoderKL(**blocks, **sizes).eval().requires_grad_(False)


def _smooth(size: int, count: int = 1) -> torch.Tensor:
    """uint8 (count, 3, size, size), waves of low frequency."""
    y, x = np.mgrid[:size, :size] / size
    waves = [127.5 + 100 * np.sin(2 * np.pi * (fx * x + fy * y) + n) for n in range(count) for fx, fy in
             ((1, 0), (0, 1), (1, 1))]  # fmt: skip
    return torch.from_numpy(np.stack(waves).reshape(count, 3, size, size).round().astype(np.uint8))


def test_text_states_are_the_stock_models(parts):
    """Against the encoder called by hand, one text at a time."""
    captions = ["", "a fox runs", "日本語"]
    found = encode_text(parts.tokenizer, parts.text_encoder, captions)
    assert found.shape == (3, 77, 64)
    for row, caption in zip(found, captions, strict=True):
        ids = parts.tokenizer(caption, padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            assert torch.allclose(row, parts.text_encoder(input_ids=ids)[0][0], atol=1e-6)


def test_long_texts_are_cut_with_a_count(parts):
    """Formula: 2,002 tokens of which 77 are kept; a text of exactly 77 says nothing."""
    exact = " ".join(["fox"] * 75)
    with pytest.warns(UserWarning, match="found 2002 tokens, expected at most 77; the last 1925 are cut") as told:
        found = encode_text(parts.tokenizer, parts.text_encoder, [" ".join(["fox"] * 2000), exact])
    assert len(told) == 1
    assert torch.allclose(found[0], found[1], atol=1e-6)
    encode_text(parts.tokenizer, parts.text_encoder, [exact])


@pytest.mark.parametrize("size", [24, 48, 64, 100])
@pytest.mark.parametrize("target", [32, 56])
def test_image_inputs_are_the_processors(size, target):
    """Against CLIPImageProcessor on a PIL image: within a byte, as it rounds twice; 1 / 255 / std."""
    processor = CLIPImageProcessor(size={"shortest_edge": target}, crop_size={"height": target, "width": target})
    pixels = _smooth(size)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    expected = processor(images=image, return_tensors="pt").pixel_values
    found = image_inputs(processor, pixels)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1 / 255 / 0.26 + 1e-5
    assert (found - expected).abs().mean() < 0.15 / 255 / 0.26


def test_image_inputs_stay_in_range():
    """Bicubic weights overshoot at a hard edge; bytes do not."""
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    pixels[..., 10:] = 255
    found = image_inputs(processor, pixels)
    low, high = (image_inputs(processor, torch.full_like(pixels, value)) for value in (0, 255))
    assert (found >= low.min(dim=3, keepdim=True).values - 1e-6).all()
    assert (found <= high + 1e-6).all()


def test_image_embeddings_are_the_stock_models(parts):
    """Against the encoder on the processor's values, for any leading dimensions."""
    pixels = _smooth(32, 6)
    found = encode_images(parts.image_encoder, parts.feature_extractor, pixels.reshape(2, 3, 3, 32, 32))
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    with torch.no_grad():
        values = parts.feature_extractor(images=images, return_tensors="pt").pixel_values
        expected = parts.image_encoder(pixel_values=values).image_embeds
    assert found.shape == (2, 3, 64)
    assert torch.allclose(found.flatten(0, 1), expected, atol=1e-4)


def test_unit_range_holds_every_byte():
    """Formula at the ends, and round trip of all bytes."""
    every = torch.arange(256, dtype=torch.uint8)
    assert to_unit(every)[[0, 255]].tolist() == [-1, 1]
    assert torch.equal(from_unit(to_unit(every)), every)
    assert from_unit(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_latents_are_the_vaes(vae):
    """Against AutoencoderKL called by hand: means times the scaling factor, whatever the chunk."""
    pixels = _smooth(16, 12).reshape(2, 2, 3, 3, 16, 16)
    with torch.no_grad():
        expected = vae.encode(to_unit(pixels.flatten(0, 2))).latent_dist.mode() * vae.config.scaling_factor
    for chunk in (1, 5, 64):
        found = encode_latents(vae, pixels, chunk=chunk)
        assert found.shape == (2, 2, 3, 4, 8, 8)
        assert torch.allclose(found.flatten(0, 2), expected, atol=1e-5)
    assert spatial_factor(vae) == 2
    with torch.no_grad():
        images = vae.decode(expected / vae.config.scaling_factor).sample
    assert (decode_latents(vae, found, chunk=5).flatten(0, 2).int() - from_unit(images).int()).abs().max() <= 1


def test_drawn_latents_depend_on_the_seed_alone(vae):
    """Property: a clip's draw is the same in any batch; and what the moments give is what encoding gives."""
    pixels = _smooth(16, 12).reshape(2, 2, 3, 3, 16, 16)
    both = encode_latents(vae, pixels, [3, 4])
    assert torch.allclose(encode_latents(vae, pixels[1:], [4])[0], both[1], atol=1e-6)
    assert not torch.allclose(encode_latents(vae, pixels[1:], [3])[0], both[1], atol=1e-3)
    moments = encode_moments(vae, pixels)
    assert moments.shape == (2, 2, 3, 8, 8, 8)
    assert torch.equal(latents_of_moments(moments, vae.config.scaling_factor, [3, 4]), both)
    half = latents_of_moments(moments.half(), vae.config.scaling_factor, [3, 4])
    assert torch.allclose(half, both, atol=5e-3)


def test_drawn_latents_have_the_spread_of_the_moments():
    """Formula: mean and standard deviation over many draws."""
    moments = torch.cat([torch.full((1, 1, 1, 1, 64, 64), 2.0), torch.full((1, 1, 1, 1, 64, 64), np.log(0.25))], 3)
    drawn = latents_of_moments(moments, 3.0, [1])
    assert abs(drawn.mean() - 6.0) < 0.1
    assert abs(drawn.std() - 1.5) < 0.05


def test_latent_draw_is_not_the_diffusion_noise():
    """Property: correlation with what the same seed draws for the diffusion is that of independent noise."""
    moments = torch.zeros(1, 1, 1, 2, 64, 64)
    drawn = latents_of_moments(moments, 1.0, [11]).flatten()
    noise = torch.randn(drawn.shape, generator=seeded(11))
    assert abs(torch.corrcoef(torch.stack([drawn, noise]))[0, 1]) < 0.1


@pytest.mark.parametrize("pixels", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.uint8),
                                    torch.zeros(1, 3, 8, 6, dtype=torch.uint8)])  # fmt: skip
def test_images_of_another_kind_are_refused(vae, parts, pixels):
    """Floats, alpha and other shapes than a square."""
    with pytest.raises(InputError, match="expected uint8"):
        encode_moments(vae, pixels)
    with pytest.raises(InputError, match="expected uint8"):
        encode_images(parts.image_encoder, parts.feature_extractor, pixels)
