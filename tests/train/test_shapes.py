"""What the parts of a run cannot do together is refused before any work, each with its own sentence."""

from __future__ import annotations

import dataclasses

import pytest

from manifests.errors import InputError
from train.codec import codec_sha256
from train.config import preset
from train.models.build import new_pipeline
from train.models.pixel_codec import PixelCodec
from train.run.shapes import check_shapes

TINY = preset("tiny")


@pytest.fixture(scope="module")
def pipeline():
    return new_pipeline(TINY.model, data=TINY.data, objective=TINY.objective)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"frames": 1}, "--frames: found 1, expected at least 2"), ({"size": 36}, "--size: found 36, .* choose 32")],
)
def test_samples_that_do_not_fit_the_networks_are_refused(pipeline, change, message):
    """Nothing to learn from, and a size that does not divide; the preset itself is fine."""
    check_shapes(TINY.data, pipeline, {})
    with pytest.raises(InputError, match=message):
        check_shapes(dataclasses.replace(TINY.data, **change), pipeline, {})


def test_a_vae_with_other_channels_is_refused(pipeline):
    """48 channels of the network against 12 of the codec."""
    other = PixelCodec(patch_size=2, latent_channels=12, block_out_channels=(12, 12))
    parts = {name: part for name, part in pipeline.components.items() if name != "vae"}
    with pytest.raises(InputError, match="found a VAE of 12 channels and a UNet for 48"):
        check_shapes(TINY.data, type(pipeline)(vae=other, **parts), {})


def test_latents_of_another_vae_are_refused(pipeline):
    """Told by the hash that the series records."""
    data = dataclasses.replace(TINY.data, source="latents")
    check_shapes(data, pipeline, {"vae_sha256": codec_sha256(pipeline.vae)})
    with pytest.raises(InputError, match="--source latents: found latents of VAE 0000"):
        check_shapes(data, pipeline, {"vae_sha256": "0" * 64})
