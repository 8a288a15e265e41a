from __future__ import annotations

import dataclasses
import json
import shutil

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from animate.priors.animatediff import AnimateDiff
from animate.priors.i2vgen_xl import I2VGenXL
from animate.priors.prior import Guidance
from animate.priors.saved_video import load_video_pipeline
from animate.priors.stable_video import StableVideo
from animate.priors.video import predicted, still_images
from manifests.errors import InputError
from tests.animate import tiny_videos as tiny

KINDS = dict(zip(tiny.NAMES, (I2VGenXL, StableVideo, AnimateDiff), strict=True))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each pipeline saved once; tests that spoil one copy it."""
    root = tmp_path_factory.mktemp("pipelines")
    return {name: tiny.saved(name, root / name) for name in tiny.NAMES}


@pytest.fixture(scope="module")
def priors(folders):
    return {name: kind.from_folder(folders[name]) for name, kind in KINDS.items()}


def text_states(pipeline, prompt, *, layers):
    """Text states by an encoder that has only so many layers: another way to leave the last one out."""
    whole = pipeline.text_encoder
    config = transformers.CLIPTextConfig(**whole.config.to_dict() | {"num_hidden_layers": layers})
    encoder = transformers.CLIPTextModel(config).eval()
    encoder.load_state_dict(
        {name: value for name, value in whole.state_dict().items() if name in encoder.state_dict()}, strict=True
    )
    tokenizer = pipeline.tokenizer
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder(ids)[0]


def own_steps(prior, shot, latents, scale, steps):
    """DDIM without noise (arXiv 2010.02502, equation 12) on the prior's predictions."""
    scheduler = tiny.ddim("epsilon")
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps.tolist():
        pred = prior.predict(latents, timestep, shot, Guidance(scale=scale))
        below = timestep - 1000 // steps
        alpha = prior.alphas_cumprod[below] if below >= 0 else torch.tensor(1.0)
        latents = alpha.sqrt() * pred.clean + (1 - alpha).sqrt() * pred.noise
    return latents


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_i2vgen_predicts_what_its_pipeline_does(scale, prediction, tmp_path):
    """Against diffusers' pipeline, run for three steps on each view, with text states of a shorter encoder."""
    prior = I2VGenXL.from_folder(tiny.saved("I2VGenXLPipeline", tmp_path / "pipeline", prediction))
    shot, noise = tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    pipeline = tiny.pipeline("I2VGenXLPipeline", prediction)
    expected = [
        pipeline(
            prompt_embeds=text_states(pipeline, shot.prompt, layers=1),
            negative_prompt_embeds=text_states(pipeline, "", layers=1),
            image=still_images(shot)[view],
            height=16,
            width=16,
            target_fps=8,
            num_frames=3,
            num_inference_steps=3,
            guidance_scale=scale,
            latents=noise[view : view + 1].transpose(1, 2),
            output_type="latent",
        ).frames.transpose(1, 2)
        for view in range(2)
    ]
    found = own_steps(prior, shot, noise, scale, 3)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-4 * float(found.abs().max()))


def test_i2vgen_shows_its_image_encoder_what_the_pipeline_does(priors):
    """Against the pixels that reach CLIP in a run of diffusers' pipeline; a random network barely tells them apart."""
    prior, shot, seen = priors["I2VGenXLPipeline"], tiny.shot(views=1), []
    handle = prior.pipeline.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    prior.steps = 1
    prior.film(shot, seed=0)
    prior.predict(tiny.normal(1, 3, 4, 8, 8), 400, shot, Guidance())
    handle.remove()
    assert seen[0].shape == (1, 3, 32, 32)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_animatediff_predicts_what_its_pipeline_does(scale, prediction, tmp_path):
    """Against diffusers' pipeline, run for three steps on each view."""
    prior = AnimateDiff.from_folder(tiny.saved("AnimateDiffPipeline", tmp_path / "pipeline", prediction))
    shot, noise = tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    expected = tiny.pipeline("AnimateDiffPipeline", prediction)(
        [shot.prompt] * 2,
        num_frames=3,
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=scale,
        latents=noise.transpose(1, 2),
        output_type="latent",
    ).frames.transpose(1, 2)
    found = own_steps(prior, shot, noise, scale, 3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(found.abs().max()))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_stable_video_predicts_what_its_pipeline_does(scale, priors):
    """Against diffusers' pipeline, four steps of its own sigmas, whose latents are variance-exploding."""
    prior, shot, noise = priors["StableVideoDiffusionPipeline"], tiny.shot(views=1), tiny.normal(1, 3, 4, 8, 8)
    pipeline, inner = tiny.pipeline("StableVideoDiffusionPipeline"), []
    expected = pipeline(
        still_images(shot)[0],
        height=16,
        width=16,
        num_frames=3,
        num_inference_steps=4,
        max_guidance_scale=scale,
        fps=8,
        generator=torch.Generator().manual_seed(0),
        latents=noise,
        output_type="latent",
        callback_on_step_end=lambda _pipeline, _step, _timestep, named: inner.append(named["latents"]) or {},
    ).frames
    torch.testing.assert_close(expected, inner[-1])
    sigmas = pipeline.scheduler.sigmas.tolist()
    latents = noise * pipeline.scheduler.init_noise_sigma
    # Karras' spacing takes equal steps, so that every third of the levels is a step of four.
    for index, (timestep, sigma, below) in enumerate(zip((999, 666, 333, 0), sigmas[:-1], sigmas[1:], strict=True)):
        alpha = 1 / (1 + sigma**2)
        assert float(prior.alphas_cumprod[timestep]) == pytest.approx(alpha, rel=1e-4)
        clean = prior.predict(alpha**0.5 * latents, timestep, shot, Guidance(scale=scale)).clean
        latents = latents + (latents - clean) / sigma * (below - sigma)
        scale_of = float(inner[index].abs().max())
        torch.testing.assert_close(latents, inner[index], rtol=1e-3, atol=1e-4 * scale_of)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_predicted_is_the_schedulers(prediction):
    """Against diffusers' DDIM step, which gives the clean latents and, through them, the noise."""
    scheduler = tiny.ddim("epsilon")
    scheduler.register_to_config(prediction_type=prediction)
    scheduler.set_timesteps(10)
    raw, noisy = tiny.normal(1, 2, 3, 4, 4), tiny.normal(1, 2, 3, 4, 4, seed=1)
    expected = scheduler.step(raw, 599, noisy).pred_original_sample
    alpha = float(scheduler.alphas_cumprod[599])
    found = predicted(raw, noisy, alpha, prediction)
    torch.testing.assert_close(found.clean, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alpha**0.5 * found.clean + (1 - alpha) ** 0.5 * found.noise, noisy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(scale=4.0), Guidance(scale=4.0, rescale=0.7)])
def test_clean_and_noise_make_the_noisy_latents(name, guidance, priors):
    """By definition, whatever the guidance; views do not see each other, and conditions do not go stale."""
    prior, shot, noisy = priors[name], tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    found = prior.predict(noisy, 400, shot, guidance)
    alpha = prior.alpha(400)
    torch.testing.assert_close(
        alpha.sqrt() * found.clean + (1 - alpha).sqrt() * found.noise, noisy, rtol=1e-4, atol=1e-5
    )
    if not guidance.rescale:
        one = dataclasses.replace(shot, c2w=shot.c2w[1:], K=shot.K[1:], first=shot.first[1:])
        alone = prior.predict(noisy[1:], 400, one, guidance).clean
        torch.testing.assert_close(alone, found.clean[1:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_encode_is_the_autoencoders_and_differentiable(name, priors):
    """Against the autoencoder of the pipeline that was saved; the gradient reaches every pixel."""
    prior = priors[name]
    images = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latents = prior.encode(images)
    vae = tiny.pipeline(name).vae
    with torch.no_grad():
        expected = vae.encode(images[0] * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents[0], expected)
    latents.square().sum().backward()
    assert (images.grad.abs() > 0).all()
    assert not any(value.requires_grad for value in prior.unet.parameters())


def test_film_is_the_pipelines_own():
    """Against one call of diffusers' pipeline for each view with the same seed; the global draws go on undisturbed."""
    prior = StableVideo(tiny.pipeline("StableVideoDiffusionPipeline"), name="tiny")
    prior.steps, shot, told = 2, tiny.shot(), []
    torch.manual_seed(5)
    film = prior.film(shot, seed=7, told=lambda done, total: told.append((done, total)))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for view, still in enumerate(still_images(shot)):
        expected = prior.pipeline(
            still, 16, 16, 3, 2, fps=8, generator=torch.Generator().manual_seed(7), output_type="pt"
        ).frames[0]
        torch.testing.assert_close(film.images[view], expected.clamp(0, 1))
    assert film.images.shape == (2, 3, 3, 16, 16)
    assert film.masks.shape == (2, 3, 1, 16, 16)
    assert torch.equal(film.times_s, shot.times_s)


@pytest.mark.parametrize("name", ["I2VGenXLPipeline", "AnimateDiffPipeline"])
def test_film_depends_on_seed_and_prompt(name, priors):
    """Property: the same twice, whatever else drew numbers between; another prompt or seed is another clip."""
    prior, shot = priors[name], tiny.shot(views=1)
    prior.steps = 2
    first = prior.film(shot, seed=1).images
    torch.rand(3)
    assert torch.equal(first, prior.film(shot, seed=1).images)
    assert not torch.equal(first, prior.film(shot, seed=2).images)
    assert not torch.equal(first, prior.film(dataclasses.replace(shot, prompt="rain"), seed=1).images)


def test_text_to_video_does_not_see_the_object(priors):
    """Property: another first image is the same film and prediction; image-to-video is told apart by it."""
    shot = tiny.shot(views=1)
    other, noisy = dataclasses.replace(shot, first=1 - shot.first), tiny.normal(1, 3, 4, 8, 8)
    for name, prior in priors.items():
        pair = [prior.predict(noisy, 300, each, Guidance()).clean for each in (shot, other)]
        assert torch.equal(*pair) == (name == "AnimateDiffPipeline")


def test_stable_video_knows_the_rate_of_the_shot(priors):
    """Property: another spacing of the frames is another prediction, of a prior that is told frames a second."""
    shot, noisy = tiny.shot(views=1), tiny.normal(1, 3, 4, 8, 8)
    slow = dataclasses.replace(shot, times_s=shot.times_s * 4)
    for name, prior in priors.items():
        pair = [prior.predict(noisy, 300, each, Guidance()).clean for each in (shot, slow)]
        assert torch.equal(*pair) == (name == "AnimateDiffPipeline")


def test_a_picture_network_and_an_adapter_make_animatediff(folders, tmp_path):
    """Against diffusers' own merging: the form in which most AnimateDiff folders come."""
    folder = tmp_path / "mixed"
    shutil.copytree(folders["AnimateDiffPipeline"], folder)
    shutil.rmtree(folder / "unet")
    picture, adapter = tiny.randomize(tiny.unet2d(), 3), tiny.randomize(tiny.motion_adapter(), 4)
    picture.save_pretrained(folder / "unet")
    adapter.save_pretrained(folder / "motion_adapter")
    change_index(folder, unet=["diffusers", "UNet2DConditionModel"])
    found = AnimateDiff.from_folder(folder).unet.state_dict()
    expected = diffusers.UNetMotionModel.from_unet2d(picture, adapter).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", tiny.NAMES)
def test_half_precision_files_load_as_float32(name, folders, tmp_path):
    """Against the same weights in full: folders are often published with `fp16` files alone."""
    folder = tmp_path / "half"
    shutil.copytree(folders[name], folder)
    for path in list(folder.glob("*/*.safetensors")):
        half = {key: value.half() for key, value in load_file(path).items()}
        path.unlink()
        save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    found, expected = KINDS[name].from_folder(folder).unet, tiny.pipeline(name).unet
    for key, value in found.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected.state_dict()[key], rtol=1e-3, atol=1e-4)


def change_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


class _Trap:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _pickles(folder, trap):
    torch.save(_Trap(trap), folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def _pickled_shard(folder, trap):
    torch.save(_Trap(trap), folder / "unet" / "part.bin")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "part.bin"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _own_code(folder, trap):
    (folder / "unet" / "mine.py").write_text(f"open({str(trap)!r}, 'w')")
    change_index(folder, unet=["mine", "Network"])


def _own_pipeline(folder, trap):
    (folder / "pipeline.py").write_text(f"open({str(trap)!r}, 'w')")
    change_index(folder, _class_name=["pipeline", "AnimateDiffPipeline"])


def _other_class(folder, _):
    change_index(folder, scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])


def _less_weights(folder, _):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def _cut_off(folder, _):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _no_tokenizer(folder, _):
    shutil.rmtree(folder / "tokenizer")


def _no_config(folder, _):
    (folder / "unet" / "config.json").unlink()


def _broken_index(folder, _):
    (folder / "model_index.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_pickles, r"unet: found diffusion_pytorch_model\.bin, expected a \.safetensors file; pickles are never"),
        (_pickled_shard, r"index\.json: found part\.bin among its files, expected \.safetensors"),
        (_own_code, r"model_index\.json: found \['mine', 'Network'\] for unet, expected diffusers\.UNetMotionModel or"),
        (_own_pipeline, r"found a \['pipeline', 'AnimateDiffPipeline'\], expected a AnimateDiffPipeline"),
        (_other_class, r"for scheduler, expected diffusers\.DDIMScheduler"),
        (_less_weights, r"unet: found 1 weights missing or of another shape, among them conv_in\.weight"),
        (_cut_off, r"vae/diffusion_pytorch_model\.safetensors: found 1000 bytes"),
        (_no_tokenizer, r"tokenizer: found no folder, expected the pipeline's CLIPTokenizer"),
        (_no_config, r"unet/config\.json: found No such file"),
        (_broken_index, r"model_index\.json: found .*, expected JSON"),
    ],
)
def test_folders_that_cannot_be_trusted_or_used_are_refused(spoil, told, folders, tmp_path):
    """Against the rule for errors, by name of the file; and nothing that the folder brought has run."""
    folder, trap = tmp_path / "pipeline", tmp_path / "trap"
    shutil.copytree(folders["AnimateDiffPipeline"], folder)
    spoil(folder, trap)
    with pytest.raises(InputError, match=told):
        AnimateDiff.from_folder(folder)
    assert not trap.exists()


def test_another_pipeline_is_refused(folders, tmp_path):
    """Against the rule for errors: a folder of another class, and no folder at all."""
    with pytest.raises(InputError, match="found a AnimateDiffPipeline, expected a I2VGenXLPipeline"):
        I2VGenXL.from_folder(folders["AnimateDiffPipeline"])
    with pytest.raises(InputError, match="No such file"):
        load_video_pipeline(tmp_path / "nothing", "I2VGenXLPipeline")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("I2VGenXLPipeline", {"size": 20}, "found size 20, expected a multiple of 8"),
        ("I2VGenXLPipeline", {"prompt": " "}, "--prompt: found an empty one"),
        ("StableVideoDiffusionPipeline", {"frames": 4}, "found frames 4, expected 3, which it was made for"),
        ("AnimateDiffPipeline", {"frames": 5}, "found frames 5, expected at most 4"),
    ],
)
def test_what_cannot_work_is_refused_before(name, change, told, priors):
    """Against the rule for errors; what can work is not refused, and a prior without text needs no prompt."""
    good = {"prompt": "a fox", "views": 4, "frames": 3, "size": 16}
    priors[name].check(**good)
    priors["StableVideoDiffusionPipeline"].check(**good | {"prompt": ""})
    with pytest.raises(InputError, match=told):
        priors[name].check(**good | change)


def test_pure_noise_tells_epsilon_nothing(folders, tmp_path):
    """Against the rule for errors: such a schedule would divide by zero at its last level."""
    folder = tmp_path / "pipeline"
    shutil.copytree(folders["AnimateDiffPipeline"], folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(InputError, match="ends in pure noise with prediction epsilon"):
        AnimateDiff.from_folder(folder)
