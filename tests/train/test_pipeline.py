"""The sampler: against formulas, an oracle that knows the truth, and its own networks called by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from manifests.errors import InputError
from tests.train.tiny_pipeline import ZERO_SNR, call, latents_like, pixel_unet, seeded, tiny_pipeline
from train.conditions import encode_images, encode_latents, encode_text
from train.config import ObjectiveConfig
from train.ddim import ddim_step, ddim_timesteps
from train.models.build import scheduler_of
from train.models.unet_mv_motion import MVUNetMotionModel, MVUNetMotionOutput

LINEAR = ObjectiveConfig()
OBJECTIVES = [
    LINEAR,
    ZERO_SNR,
    ObjectiveConfig(prediction="v_prediction", beta_schedule="scaled_linear"),
    ObjectiveConfig(prediction="sample", beta_schedule="scaled_linear", zero_terminal_snr=True),
]


class Oracle(ModelMixin, ConfigMixin):
    """Knows the true latents and predicts exactly what leads to them; keeps what it was told."""

    @register_to_config
    def __init__(self, camera_embed_dim: int = 16, mv2v_adapter: bool = True, in_channels: int = 48) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.told: list[dict[str, Any]] = []

    def knows(self, truth: Tensor, objective: ObjectiveConfig) -> Oracle:
        self.truth, self.objective = truth, objective
        return self

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, *, camera: Tensor, image_embeds: Tensor) -> Any:
        self.told.append({"sample": sample, "timestep": timestep, "camera": camera, "image_embeds": image_embeds})
        alpha = levels(self.objective)[int(timestep[0, -1])]
        noise = (sample - math.sqrt(alpha) * self.truth) / math.sqrt(1 - alpha)
        pred = noise
        if self.objective.prediction == "v_prediction":
            pred = math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * self.truth
        elif self.objective.prediction == "sample":
            pred = self.truth.expand_as(sample)
        return MVUNetMotionOutput(sample=pred)


class Watching(MVUNetMotionModel):
    """The real network; keeps the samples it was given."""

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.__dict__.setdefault("samples", []).append(sample)
        return super().forward(sample, *args, **kwargs)


def watching_unet() -> Watching:
    unet = pixel_unet()
    watching = Watching(**{name: value for name, value in unet.config.items() if name[0] != "_"}).eval()
    watching.load_state_dict(unet.state_dict())
    return watching


def levels(objective: ObjectiveConfig) -> np.ndarray:
    """Cumulative products of alphas, in float64, by the formulas."""
    low, high = 0.00085, 0.012
    betas = np.linspace(low, high, 1000)
    if objective.beta_schedule == "scaled_linear":
        betas = np.linspace(low**0.5, high**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    if objective.zero_terminal_snr:  # arXiv 2305.08891, algorithm 1: shifted to 0 at the end, scaled back at the start
        roots = np.sqrt(alphas)
        alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return alphas


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 30, 61])
def test_sampler_finds_the_truth_that_an_oracle_knows(objective, steps):
    """A network that knows the answer: every schedule and count of steps ends in it, whatever the noise."""
    truth = latents_like(seed=9).clamp(-1, 1)
    pipeline = tiny_pipeline(objective, Oracle().knows(truth, objective))
    given = call() | {"num_inference_steps": steps}
    found = pipeline(**given, guidance_scale=1, generator=seeded(1), output_type="latent").frames
    assert (found - truth)[:, :, 1:].abs().max() < (0.02 if steps == 1 else 2e-3)
    assert len(pipeline.unet.told) == steps
    assert torch.equal(found[:, :, 0], encode_latents(pipeline.vae, given["images"][:, :, None])[:, :, 0])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("steps", [3, 7])
def test_trajectory_is_ddims(objective, steps):
    """Restatement in float64 with numpy: x0 and noise from the prediction, then noise again to the next level."""
    pipeline = tiny_pipeline(objective, watching_unet())
    given = call() | {"num_inference_steps": steps}
    seen: list[tuple[int, Tensor]] = []
    start = latents_like()
    pipeline(
        **given,
        guidance_scale=1,
        latents=start,
        callback_on_step_end=lambda _p, _n, t, kept: seen.append((t, kept["latents"])),
        output_type="latent",
    )
    alphas = levels(objective)
    text = encode_text(pipeline.tokenizer, pipeline.text_encoder, given["prompt"])
    embeds = encode_images(pipeline.image_encoder, pipeline.feature_extractor, given["images"])
    before = torch.cat([seen[0][1][:, :, :1], start[:, :, 1:]], 2)
    for number, (timestep, after) in enumerate(seen):
        with torch.no_grad():
            pred = pipeline.unet(before, timestep, text, given["cameras"], embeds).sample.double().numpy()
        x, alpha = before.double().numpy(), alphas[timestep]
        following = alphas[seen[number + 1][0]] if number + 1 < len(seen) else 1.0
        if objective.prediction == "epsilon":
            clean, noise = (x - np.sqrt(1 - alpha) * pred) / np.sqrt(alpha), pred
        elif objective.prediction == "sample":
            clean, noise = pred, (x - np.sqrt(alpha) * pred) / np.sqrt(1 - alpha)
        else:
            clean = np.sqrt(alpha) * x - np.sqrt(1 - alpha) * pred
            noise = np.sqrt(alpha) * pred + np.sqrt(1 - alpha) * x
        expected = np.sqrt(following) * clean + np.sqrt(1 - following) * noise
        scale = np.abs(expected).max()
        assert np.abs(expected - after.numpy())[:, :, 1:].max() < 1e-4 * max(1, scale)
        assert torch.equal(after[:, :, 0], before[:, :, 0])
        before = after


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_step_is_diffusers_where_the_count_divides(objective):
    """Against DDIMScheduler.step for counts that divide 1000."""
    scheduler = scheduler_of(objective)
    for count in (1, 5, 25, 100):
        timesteps = ddim_timesteps(scheduler, count)
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            latents, pred = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
            expected = scheduler.step(pred, timestep, latents).prev_sample
            assert torch.allclose(ddim_step(scheduler, pred, timestep, following, latents), expected, atol=1e-4)


def test_every_count_of_steps_has_that_many_levels():
    """Property over all counts: as many, falling, within 0 to 999; diffusers alone breaks it for 62 of them."""
    for objective in (LINEAR, ZERO_SNR):
        scheduler = scheduler_of(objective)
        for count in range(1, 1001):
            found = ddim_timesteps(scheduler, count)
            assert len(found) == count - (objective is LINEAR and count == 1000)
            assert all(0 <= low < high <= 999 for high, low in itertools.pairwise(found))
            assert found[0] == 999 or objective is LINEAR


def test_frame_0_does_not_depend_on_the_noise():
    """Bit-equal: the given image, for other generators and latents; the other frames differ."""
    pipeline, given = tiny_pipeline(), call(batch=2)
    frames = [pipeline(**given, generator=seeded(seed)).frames for seed in (0, 1)]
    frames.append(pipeline(**given, latents=latents_like(2)).frames)
    for found in frames:
        assert found.shape == (2, 2, 4, 3, 16, 16)
        assert found.dtype == torch.uint8
        assert torch.equal(found[:, :, 0], given["images"])
    assert not torch.equal(frames[0][:, :, 1:], frames[1][:, :, 1:])
    assert not torch.equal(frames[0][:, :, 1:], frames[2][:, :, 1:])


def test_frame_0_of_the_given_latents_is_not_used():
    """Property: noise in frame 0 of `latents` changes nothing at all."""
    pipeline, given, latents = tiny_pipeline(), call(), latents_like()
    one = pipeline(**given, latents=latents).frames
    latents[:, :, 0] = math.nan
    assert torch.equal(pipeline(**given, latents=latents).frames, one)


def test_guidance_scale_1_is_the_conditional_branch():
    """Bit-equal to the loop written out with the conditional inputs alone; at half the batch."""
    pipeline, given, start = tiny_pipeline(unet=watching_unet()), call(), latents_like()
    found = pipeline(**given, guidance_scale=1, latents=start, output_type="latent").frames
    assert [len(sample) for sample in pipeline.unet.samples] == [1, 1]
    text = encode_text(pipeline.tokenizer, pipeline.text_encoder, given["prompt"])
    embeds = encode_images(pipeline.image_encoder, pipeline.feature_extractor, given["images"])
    first = encode_latents(pipeline.vae, given["images"][:, :, None])
    rest, scheduler = start[:, :, 1:], scheduler_of(ZERO_SNR)
    scheduler.set_timesteps(2)
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            pred = pipeline.unet(torch.cat([first, rest], 2), timestep, text, given["cameras"], embeds).sample
        rest = scheduler.step(pred[:, :, 1:], timestep, rest).prev_sample
    assert torch.allclose(found, torch.cat([first, rest], 2), atol=1e-5)


@pytest.mark.parametrize("image_guidance", [True, False])
def test_guidance_extrapolates(image_guidance):
    """Formula: one step is linear in the prediction, so x(s) = x(0) + s (x(1) - x(0)); scale 0 is unconditional."""
    pipeline, given = tiny_pipeline(), call() | {"num_inference_steps": 1}
    how = {"latents": latents_like(), "output_type": "latent", "image_guidance": image_guidance}

    def at(scale: float, **changes: Any) -> Tensor:
        return pipeline(**(given | changes), guidance_scale=scale, negative_prompt="a dog", **how).frames

    none, full, three = at(0), at(1), at(3)
    assert torch.allclose(three, none + 3 * (full - none), atol=1e-4)
    assert torch.allclose(at(0, prompt="something else"), none, atol=1e-5)
    if not image_guidance:
        assert torch.allclose(at(1, prompt="a dog"), none, atol=1e-5)


def test_unconditional_branch_lacks_the_image_tokens():
    """What the network is told: zeros first, the embeddings second, or both the same."""
    truth = latents_like()
    for image_guidance in (True, False):
        pipeline = tiny_pipeline(LINEAR, Oracle().knows(truth, LINEAR))
        pipeline(**call(), image_guidance=image_guidance, generator=seeded(0))
        without, with_tokens = pipeline.unet.told[0]["image_embeds"]
        assert bool(without.any()) != image_guidance
        assert with_tokens.any()
        assert torch.equal(*pipeline.unet.told[0]["camera"])


@pytest.mark.parametrize("time_zero", [True, False])
def test_frame_0_is_told_its_time(time_zero):
    """What the network is told: 0 where it was trained so, else the time of the others."""
    pipeline = tiny_pipeline(LINEAR, Oracle().knows(latents_like(), LINEAR), frame0_time_zero=time_zero)
    pipeline(**call(), guidance_scale=1)
    timestep = pipeline.unet.told[0]["timestep"]
    assert timestep.shape == (1, 4)
    assert (timestep[0, 1:] == 501).all()
    assert int(timestep[0, 0]) == (0 if time_zero else 501)


def test_free_init_noises_frames_1_and_later_only():
    """What the network is given: frame 0 clean in all passes; 3 times the passes; another result."""
    pipeline, given = tiny_pipeline(LINEAR, watching_unet()), call()
    plain = pipeline(**given, guidance_scale=1, generator=seeded(0)).frames
    pipeline.unet.samples.clear()
    pipeline.enable_free_init(num_iters=3)
    found = pipeline(**given, guidance_scale=1, generator=seeded(0)).frames
    first = encode_latents(pipeline.vae, given["images"][:, :, None])[:, :, 0]
    assert len(pipeline.unet.samples) == 6
    for sample in pipeline.unet.samples:
        assert torch.equal(sample[:, :, 0], first)
    starts = [pipeline.unet.samples[number][:, :, 1:] for number in (0, 2, 4)]
    assert all(0.7 < start.std() < 1.3 for start in starts)
    assert not torch.allclose(starts[0], starts[1])
    assert torch.equal(found[:, :, 0], plain[:, :, 0])
    assert not torch.equal(found, plain)
    pipeline.disable_free_init()
    assert torch.equal(pipeline(**given, guidance_scale=1, generator=seeded(0)).frames, plain)


def test_free_init_mixes_low_frequencies_of_what_was_found():
    """Restatement by numpy's FFT with diffusers' mask; and a mask of zeros gives the fresh noise."""
    pipeline = tiny_pipeline(LINEAR)
    pipeline.enable_free_init(num_iters=2)
    rest, start, fresh = (latents_like(seed=seed)[:, :, 1:] for seed in (1, 2, 3))
    alpha = levels(LINEAR)[-1]
    noised = math.sqrt(alpha) * rest + math.sqrt(1 - alpha) * start
    found = pipeline._renoise(rest, start, fresh)
    mask = pipeline._get_free_init_freq_filter((3, 4, 4), "cpu", "butterworth", 4, 0.25, 0.25).numpy()
    axes = (2, 4, 5)  # frames, height, width

    def spectrum(x: Tensor) -> np.ndarray:
        return np.fft.fftshift(np.fft.fftn(x.numpy(), axes=axes), axes=axes)

    mask = mask[None, None, :, None]
    mixed = np.fft.ifftshift(spectrum(noised) * mask + spectrum(fresh) * (1 - mask), axes=axes)
    assert np.abs(np.fft.ifftn(mixed, axes=axes).real - found.numpy()).max() < 1e-5
    pipeline.enable_free_init(num_iters=2, spatial_stop_frequency=0)
    assert torch.allclose(pipeline._renoise(rest, start, fresh), fresh, atol=1e-5)


def test_fast_free_init_takes_fewer_steps_at_first():
    """Formula: 6 steps in 3 iterations are 2, 4 and 6."""
    pipeline = tiny_pipeline(LINEAR, watching_unet())
    pipeline.enable_free_init(num_iters=3, use_fast_sampling=True)
    pipeline(**call() | {"num_inference_steps": 6}, guidance_scale=1)
    assert len(pipeline.unet.samples) == 2 + 4 + 6


def test_clips_do_not_depend_on_their_batch():
    """Property: with a generator a clip, FreeInit too, a clip alone is what it is in a batch."""
    pipeline, given = tiny_pipeline(LINEAR), call(batch=2)
    pipeline.enable_free_init(num_iters=2)
    both = pipeline(**given, generator=[seeded(3), seeded(4)], output_type="latent").frames
    alone = {name: value[1:] if name != "num_inference_steps" else value for name, value in given.items()}
    found = pipeline(**alone, generator=[seeded(4)], output_type="latent").frames
    assert torch.allclose(found[0], both[1], atol=1e-3)


def test_views_frames_and_size_are_free():
    """Shapes other than those of the config."""
    found = tiny_pipeline()(**call(views=3, size=32), num_frames=6)
    assert found.frames.shape == (1, 3, 6, 3, 32, 32)


def test_callback_may_replace_latents():
    """What it returns goes on, frame 0 excepted; returning nothing changes nothing."""
    pipeline, given = tiny_pipeline(), call()
    told = []

    def zero(_pipeline: Any, number: int, timestep: int, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        told.append((number, timestep))
        return {"latents": torch.zeros_like(kept["latents"])}

    found = pipeline(**given, callback_on_step_end=zero).frames
    assert told == [(0, 999), (1, 499)]
    assert torch.equal(found[:, :, 0], given["images"])
    assert (found[:, :, 1:] == 128).all()
    plain = pipeline(**given, generator=seeded(0)).frames
    nothing = pipeline(**given, generator=seeded(0), callback_on_step_end=lambda *_: None).frames
    assert torch.equal(plain, nothing)


def test_pipeline_round_trip_gives_bit_equal_samples(tmp_path):
    """Round trip through save_pretrained and from_pretrained, values of the pipeline included."""
    facts = {"camera_convention": "animate3d", "background": (0.0, 0.25, 1.0), "fps": 4.0, "frame0_time_zero": True}
    pipeline, given = tiny_pipeline(**facts), call()
    pipeline.save_pretrained(tmp_path)
    loaded = type(pipeline).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    for name, value in (facts | {"num_views": 4, "num_frames": 4, "size": 16}).items():
        assert loaded.config[name] == (list(value) if isinstance(value, tuple) else value)
    assert dict(loaded.scheduler.config)["rescale_betas_zero_snr"]
    assert torch.equal(loaded(**given, generator=seeded(0)).frames, pipeline(**given, generator=seeded(0)).frames)
    assert loaded.size_multiple == 16


def test_pipeline_without_image_encoder_saves_and_samples(tmp_path):
    """Round trip where the UNet has no adapter."""
    pipeline = tiny_pipeline(unet=pixel_unet(mv2v_adapter=False), image_encoder=None, feature_extractor=None)
    assert pipeline(**call()).frames.shape == (1, 2, 4, 3, 16, 16)
    pipeline.save_pretrained(tmp_path)
    assert type(pipeline).from_pretrained(tmp_path).image_encoder is None


@pytest.mark.parametrize(
    ("option", "value"), [("custom_pipeline", "someone/else"), ("trust_remote_code", True), ("use_safetensors", False)]
)
def test_code_and_pickles_are_never_loaded(option, value, tmp_path):
    """Options that would let them in are refused before the folder is looked at."""
    with pytest.raises(InputError, match=f"{option}: found .* never loaded"):
        tiny_pipeline().from_pretrained(tmp_path, **{option: value})


def test_names_of_repositories_are_no_folders():
    """A name that a hub might know is only a path here."""
    with pytest.raises(InputError, match="stable-diffusion-v1-5: found no folder"):
        tiny_pipeline().from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")


def test_prompt_of_10000_characters_is_cut_with_a_warning():
    """The clip is that of the prompt's first 75 tokens."""
    pipeline, given = tiny_pipeline(), call()
    long = ("a fox runs over the hill " * 400)[:10_000]
    with pytest.warns(UserWarning, match=r"found \d+ tokens, expected at most 77; the last \d+ are cut"):
        found = pipeline(**given | {"prompt": long}, generator=seeded(0)).frames
    short = " ".join(long.split()[:75])
    assert torch.equal(found, pipeline(**given | {"prompt": short}, generator=seeded(0)).frames)


NAN_CAMERAS = torch.full((1, 2, 16), math.nan)
IMAGES = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES.float()}, "images: found torch.float32"),
        ({"images": IMAGES[0]}, r"images: found torch.uint8 \(2, 3, 16, 16\), expected"),
        ({"images": IMAGES[..., :12]}, "images: found"),
        ({"images": torch.zeros(1, 2, 3, 18, 18, dtype=torch.uint8)}, "a multiple of 4"),
        ({"images": torch.zeros(1, 2, 4, 16, 16, dtype=torch.uint8)}, "composite frame 0"),
        ({"images": IMAGES[:0], "cameras": NAN_CAMERAS[:0]}, "images: found"),
        ({"cameras": torch.zeros(1, 3, 16)}, r"cameras: found \(1, 3, 16\), expected \(1, 2, 16\)"),
        ({"cameras": None}, "cameras: found none"),
        ({"cameras": NAN_CAMERAS}, "of finite numbers"),
        ({"prompt": ["a", "b"]}, "prompt: found 2, expected one for all, or 1"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt: found 2"),
        ({"generator": [seeded(0)] * 3}, "generator: found 3"),
        ({"num_frames": 1}, "num_frames: found 1, expected at least 2"),
        ({"num_inference_steps": 0}, "num_inference_steps: found 0, expected 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps: found 1001"),
        ({"guidance_scale": math.nan}, "guidance_scale: found nan"),
        ({"output_type": "pil"}, "output_type: found pil"),
        ({"latents": torch.zeros(1, 2, 3, 48, 4, 4)}, r"latents: found shape .* expected \(1, 2, 4, 48, 4, 4\)"),
        ({"latents": torch.zeros(1, 2, 4, 4, 8, 8)}, "of this VAE"),
    ],
)
def test_calls_that_do_not_fit_are_refused(changes, message):
    """Shapes, counts and values: the message says what was found and what was expected."""
    with pytest.raises(InputError, match=message):
        tiny_pipeline()(**call() | changes)


def test_free_init_without_iterations_is_refused():
    """The mixin takes any number; nothing would be sampled."""
    pipeline = tiny_pipeline()
    pipeline.enable_free_init(num_iters=0)
    with pytest.raises(InputError, match="num_iters 0"):
        pipeline(**call())
