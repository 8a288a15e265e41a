"""The exact codec."""

from __future__ import annotations

import pytest
import torch

from manifests.errors import InputError
from train.conditions import decode_latents, encode_latents, encode_moments
from train.models.pixel_codec import PixelCodec


def _codec(patch_size: int) -> PixelCodec:
    halvings = patch_size.bit_length() - 1
    return PixelCodec(patch_size, 3 * patch_size**2, (1,) * (halvings + 1))


@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_codec_gives_every_byte_back(patch_size):
    """Round trip: all 256 values in every channel, also through the clip functions with drawn noise."""
    codec = _codec(patch_size)
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 1, 1, 3, 16, 16)
    for seeds in (None, [7]):
        latents = encode_latents(codec, pixels, seeds)
        assert latents.shape == (1, 1, 1, 3 * patch_size**2, 16 // patch_size, 16 // patch_size)
        assert torch.equal(decode_latents(codec, latents), pixels)
    assert codec.spatial_factor == patch_size


def test_codec_gathers_blocks_of_pixels():
    """Restatement: latent (c, i, j) at (y, x) is the pixel (c, 2y + i, 2x + j)."""
    pixels = torch.rand(2, 3, 4, 6) * 2 - 1
    latents = PixelCodec().encode(pixels).latent_dist.mode()
    for channel, i, j in [(0, 0, 0), (1, 0, 1), (2, 1, 0), (2, 1, 1)]:
        assert torch.equal(latents[:, channel * 4 + i * 2 + j], pixels[:, channel, i::2, j::2])


def test_codec_has_a_distribution_without_spread():
    """Against what diffusers' distribution promises: halves of parameters, and samples equal to the mode."""
    pixels = torch.rand(1, 3, 4, 4)
    before = torch.random.get_rng_state()
    found = PixelCodec().encode(pixels).latent_dist
    mean, logvar = found.parameters.chunk(2, 1)
    assert torch.equal(mean, found.mean)
    assert torch.equal(logvar, found.logvar)
    assert torch.equal(found.sample(), found.mode())
    assert not found.std.any()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_codec_saves_and_loads(tmp_path):
    """Round trip of the config through diffusers' own files."""
    _codec(4).save_pretrained(tmp_path)
    loaded = PixelCodec.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    assert loaded.config.patch_size == 4
    assert loaded.config.latent_channels == 48
    assert loaded.device == torch.device("cpu")


def test_codec_stays_exact_in_bf16():
    """Round trip after a cast of the whole module, as a trainer makes it."""
    codec = _codec(2).to(torch.bfloat16)
    pixels = torch.arange(192, dtype=torch.uint8).reshape(1, 3, 8, 8)
    assert codec.dtype == torch.float32
    assert torch.equal(decode_latents(codec, encode_latents(codec, pixels[None, None])), pixels[None, None])


def test_codec_refuses_what_does_not_fit():
    """Messages with the numbers."""
    with pytest.raises(InputError, match=r"found latent_channels .*\(12, 2\), expected \(48, 4\)"):
        PixelCodec(4)
    with pytest.raises(InputError, match=r"\(1, 3, 5, 4\), expected .* multiples of 2"):
        PixelCodec().encode(torch.zeros(1, 3, 5, 4))
    with pytest.raises(InputError, match="expected \\(N, 12, h, w\\)"):
        PixelCodec().decode(torch.zeros(1, 4, 2, 2))
    with pytest.raises(InputError, match="found size 6, expected a multiple of 4"):
        encode_moments(_codec(4), torch.zeros(1, 3, 6, 6, dtype=torch.uint8))
