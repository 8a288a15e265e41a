"""MV-VDM as a prior against the pipeline's own sampler, on a tiny one with random weights."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from diffusers import AutoencoderKL

from animate.priors.mv_vdm import MultiView
from animate.priors.prior import Guidance
from animate.shot import Shot
from manifests.errors import InputError
from tests.animate.tiny_motion import shot_of
from tests.train.tiny_models import randomize
from tests.train.tiny_pipeline import latents_like, pixel_unet, tiny_pipeline
from train.cameras import camera_vectors
from train.config import ObjectiveConfig
from train.ddim import ddim_timesteps

EIGHTHS = [k / 8 for k in range(4)]
EPSILON = ObjectiveConfig(prediction="epsilon", beta_schedule="scaled_linear", zero_terminal_snr=False)


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


def picture_shot(seed: int = 0, prompt: str = "a fox runs") -> Shot:
    """Bytes as pictures, so that nothing is lost where they are handed on as bytes."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 256, (2, 3, 16, 16), generator=generator).float() / 255
    return shot_of(EIGHTHS, first=first, prompt=prompt)


@functools.cache
def plain() -> MultiView:
    return MultiView(tiny_pipeline())


def vectors_of(prior: MultiView, shot: Shot) -> torch.Tensor | None:
    """(1, V, 16) as the pipeline is told them, None where its network has no use for them."""
    if not prior.pipeline.unet.config.camera_embed_dim:
        return None
    convention = prior.pipeline.config.camera_convention
    return torch.from_numpy(camera_vectors(shot.c2w.numpy(), shot.front_azimuth_deg, convention))[None]


def sampled(prior: MultiView, shot: Shot, steps: int, scale: float) -> list[torch.Tensor]:
    """(V, F, C, h, w) latents that the pipeline's own sampler has before each step and at the end."""
    start = latents_like(views=2)
    first = prior.encode(shot.first[:, None])
    seen = [torch.cat([first, start[0, :, 1:]], 1)]
    vectors = vectors_of(prior, shot)

    def keep(_pipeline, _step, _timestep, kept):
        seen.append(kept["latents"][0])
        return kept

    prior.pipeline(
        shot.prompt,
        (shot.first * 255).round().to(torch.uint8)[None],
        vectors,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=start,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return seen


@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("kind", ["v", "epsilon", "time-zero", "no-branches"])
def test_prediction_is_the_pipelines_own(kind, scale):
    """Oracle: the pipeline's DDIM steps, which the prediction must repeat from the same latents."""
    prior = {
        "v": plain,
        "epsilon": lambda: MultiView(tiny_pipeline(EPSILON)),
        "time-zero": lambda: MultiView(tiny_pipeline(frame0_time_zero=True)),
        "no-branches": lambda: MultiView(
            tiny_pipeline(unet=pixel_unet(mv2v_adapter=False, camera_embed_dim=None), image_encoder=None)
        ),
    }[kind]()
    shot = picture_shot()
    seen = sampled(prior, shot, 2, scale)
    timesteps = ddim_timesteps(prior.pipeline.scheduler, 2)
    for number, timestep in enumerate(timesteps):
        pred = prior.predict(seen[number], timestep, shot, Guidance(scale=scale))
        alpha = prior.alpha(timesteps[number + 1]) if number == 0 else torch.tensor(1.0)
        step = alpha.sqrt() * pred.clean + (1 - alpha).sqrt() * pred.noise
        torch.testing.assert_close(step[:, 1:], seen[number + 1][:, 1:], rtol=1e-4, atol=1e-4)
        assert torch.equal(pred.clean[:, 0], seen[number][:, 0])
        assert not pred.noise[:, 0].any()


def test_rescale_brings_the_spread_of_the_conditional_prediction():
    """Oracle: standard deviations of frames 1 and later; clean and noise still make up the noisy latents."""
    prior, shot, noisy = (
        plain(),
        picture_shot(),
        torch.randn(2, 4, 48, 4, 4, generator=torch.Generator().manual_seed(1)),
    )
    cond, wide, back = (
        prior.predict(noisy, 600, shot, Guidance(scale=scale, rescale=factor))
        for scale, factor in ((1.0, 0.0), (9.0, 0.0), (9.0, 1.0))
    )
    torch.testing.assert_close(back.clean[:, 1:].std(), cond.clean[:, 1:].std())
    assert abs(wide.clean[:, 1:].std() - cond.clean[:, 1:].std()) > 1e-3
    alpha = prior.alpha(600)
    for pred in (cond, wide, back):
        mixed = alpha.sqrt() * pred.clean + (1 - alpha).sqrt() * pred.noise
        torch.testing.assert_close(mixed[:, 1:], noisy[:, 1:], rtol=0, atol=1e-4)


def test_conditions_are_those_of_the_shot_that_is_asked_for():
    """Oracle: a fresh prior; another prompt, image or camera changes the answer, and going back brings it back."""
    prior, noisy = plain(), torch.randn(2, 4, 48, 4, 4, generator=torch.Generator().manual_seed(2))
    shot = picture_shot()
    others = [
        picture_shot(prompt="a fox sleeps"),
        picture_shot(seed=1),
        dataclasses.replace(shot, front_azimuth_deg=0.0),
    ]

    def ask(one: Shot) -> torch.Tensor:
        return prior.predict(noisy, 500, one, Guidance(scale=2.0)).clean

    before = ask(shot)
    for other in others:
        assert (ask(other) - before).abs().max() > 1e-4
        assert torch.equal(ask(shot), before)


@pytest.mark.parametrize("codec", ["pixels", "vae"])
def test_gradient_flows_through_encode(codec):
    """Oracle: the plain encoder in one piece, and finite differences; the weights get no gradient."""
    if codec == "pixels":
        prior, vae = plain(), plain().pipeline.vae
    else:
        channels = {"block_out_channels": (8, 8), "latent_channels": 4, "norm_num_groups": 4}
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        vae = randomize(AutoencoderKL(**channels, **blocks))
        prior = MultiView(tiny_pipeline(vae=vae))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 4, 3, 16, 16, generator=generator)  # 12 images: more than are encoded at a time
    latents = prior.encode(images.requires_grad_())
    weights = torch.randn(latents.shape, generator=generator)
    (latents * weights).sum().backward()
    grad, images.grad = images.grad, None
    whole = vae.encode(images.flatten(0, 1) * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents, whole.unflatten(0, (3, 4)), rtol=1e-4, atol=1e-4)
    (whole.unflatten(0, (3, 4)) * weights).sum().backward()
    torch.testing.assert_close(grad, images.grad, rtol=1e-3, atol=1e-4)
    step = 1e-2 * torch.randn(images.shape, generator=generator)
    with torch.no_grad():
        change = ((prior.encode(images + step) - prior.encode(images - step)) * weights).sum() / 2
    torch.testing.assert_close((grad * step).sum(), change, rtol=1e-2, atol=1e-2)
    assert not any(value.requires_grad or value.grad is not None for value in vae.parameters())
    with pytest.raises(InputError, match="multiple of"):
        prior.encode(torch.zeros(1, 1, 3, 15, 15))


@pytest.mark.parametrize("free_init", [0, 2])
def test_film_is_the_pipelines_own_clip(free_init):
    """Oracle: the pipeline called by hand with the same noise; frame 0 is the shot's own image."""
    prior, shot, steps = MultiView(tiny_pipeline(), steps=2, free_init=free_init), picture_shot(), []
    footage = prior.film(shot, seed=7, told=lambda *done: steps.append(done))
    total = 2 * max(1, free_init)
    assert steps == [(k + 1, total) for k in range(total)]
    pipeline = prior.pipeline
    how = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(7)}
    by_hand = pipeline(shot.prompt, (shot.first * 255).round().to(torch.uint8)[None], vectors_of(prior, shot), **how)
    torch.testing.assert_close(footage.images[:, 1:], by_hand.frames[0, :, 1:].float() / 255)
    assert torch.equal(footage.images[:, 0], shot.first)
    assert footage.masks.shape == (2, 4, 1, 16, 16)
    assert torch.equal(footage.times_s, shot.times_s)
    if free_init:
        assert not torch.equal(footage.images, plain().film(shot, seed=7).images)
    assert not torch.equal(prior.film(shot, seed=8).images, footage.images)


def test_a_prior_says_what_it_was_made_for():
    """Against the pipeline's own values; other frames and sizes are refused before any work."""
    prior = plain()
    assert (prior.num_frames, prior.size, prior.fps, prior.background) == (4, 16, 8.0, (0.5, 0.5, 0.5))
    assert prior.joint_views
    assert prior.first_frame_clean
    prior.check(prompt="x", views=4, frames=4, size=16)
    for frames, size in ((5, 16), (4, 32)):
        with pytest.raises(InputError, match="which it was made for"):
            prior.check(prompt="x", views=4, frames=frames, size=size)
    with pytest.raises(InputError, match="without attention maps"):
        prior.attention_map("fox", torch.zeros(2, 4, 48, 4, 4), 10, picture_shot())
