"""DynamiCrafter in our graph: names, weights, numbers of the released code, and what a prior promises.

Golden numbers: Doubiiu/DynamiCrafter at c453369 (LatentVisualDiffusion), built on a CPU from its
configs/inference_*.yaml with the sizes of `_tiny`; open_clip 3.3.0's class for its ViT-H-14, diffusers' port of resize
for kornia's; weights of `_weight` by its own state dict's names. Run once beside the repository, torch 2.14.1: whole
outputs of the towers, resampler, VAE and UNet differed from ours by less than 1e-5, guided predictions and ten steps of
its DDIM sampler by less than 1e-5 of their size.
"""

from __future__ import annotations

import hashlib
import pathlib
import pickle
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from animate.priors.dynamicrafter import DynamiCrafter
from animate.priors.dynamicrafter.conditions import ImageTower, TextTower, clip_image, tokens_of, word_positions
from animate.priors.dynamicrafter.config import (
    RELEASED,
    DynamiCrafterConfig,
    ResamplerConfig,
    TextConfig,
    UNetConfig,
    VisionConfig,
)
from animate.priors.dynamicrafter.load import (
    checkpoint_file,
    empty_networks,
    load_networks,
    recognise,
    stored_names,
    unused_shapes,
)
from animate.priors.dynamicrafter.schedule import schedule_of, timesteps_of
from animate.priors.prior import Guidance
from animate.shot import Shot
from manifests.errors import InputError

torch.set_num_threads(1)

PROMPT = "a cat, jumping over the catfish"
ALPHA = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.alpha"
ABSOLUTE = 2e-5  # 1e-5 when they were taken, and room for other kernels

NAMES = {
    "256": (2535, "fd9b91ad8d022362aa3da99543ce3cadecf73e6b7f7e3ab6b861a413385cdab8"),
    "512": (2520, "82c966f67d9b857b1b8f4f15cca0143a97742d6603f59efeee4d5f8183dad7ea"),
    "1024": (2520, "82c966f67d9b857b1b8f4f15cca0143a97742d6603f59efeee4d5f8183dad7ea"),
}
"""Of the full-size module on the device "meta", the VAE's attention as linear layers."""

CONDITIONS = {
    "text": [1.3271989822387695, -1.650689721107483, 0.11368905752897263, -0.9706951379776001],
    "image": [1.4827467203140259, -0.7255959510803223, 0.24306754767894745, -1.5472774505615234],
    "unseen": [0.7681601047515869, -0.3901686370372772, 0.1549992561340332, -1.2142183780670166],
    "latents": [-0.017354480922222137, -0.009586047381162643, 0.035757191479206085, -0.027527911588549614],
    "large": [0.7641720175743103, 1.7056435346603394, -0.5023026466369629, -2.7526004314422607],
}
RAW = {
    ("256", 20): [0.07077968865633011, -1.1349952220916748, -0.5223899483680725, -0.021540850400924683],
    ("256", 999): [0.10061120986938477, -1.0803953409194946, -0.5123589038848877, -0.03367772698402405],
    ("512", 20): [0.08225471526384354, -1.097414255142212, -0.5101302862167358, 0.04393285512924194],
    ("512", 999): [0.12433537095785141, -1.0297328233718872, -0.5034847855567932, 0.03731226921081543],
}
CLEAN = {
    ("256", 500): [0.7718154788017273, -1.090157151222229, 1.892223834991455],
    ("256", 999): [10.737726211547852, -6.98984432220459, 16.355628967285156],
    ("512", 500): [1.0340014696121216, 0.2463941127061844, 1.78432297706604],
    ("512", 999): [1.593321442604065, 1.1221002340316772, 2.179372549057007],
    ("1024", 500): [2.6066715717315674, 0.22449849545955658, 3.627582550048828],
    ("1024", 999): [3.5836846828460693, 2.4891293048858643, 4.134334564208984],
}
NOISE = {
    ("256", 500): [-0.6196362376213074, -0.5393710136413574, -1.4290850162506104],
    ("256", 999): [-0.8564008474349976, -0.5560382604598999, -1.3406541347503662],
    ("512", 500): [-0.5383732318878174, -1.2064777612686157, -0.941436767578125],
    ("512", 999): [-0.1213931292295456, -1.0319023132324219, -0.2210111916065216],
    ("1024", 500): [-0.5637897253036499, -1.0844972133636475, -0.8374126553535461],
    ("1024", 999): [-0.1213931292295456, -1.0319023132324219, -0.2210111916065216],
}
ATTENTION = {
    "256": [0.019140634685754776, 0.019084123894572258, 0.014540271833539009, 0.02200734056532383],
    "512": [0.01903892681002617, 0.019209856167435646, 0.014733280055224895, 0.022002818062901497],
}


# -- the tiny model ----------------------------------------------------------------------------------------------------


def _tiny(name: str) -> DynamiCrafterConfig:
    released = RELEASED[name]
    return replace(
        released,
        size=0,
        unet=UNetConfig(
            channels=32,
            multipliers=(1, 2, 2),
            attention_levels=(0, 1),
            blocks=1,
            head_channels=8,
            context_channels=32,
            learnt_image_scale=released.unet.learnt_image_scale,
        ),
        resampler=ResamplerConfig(
            channels=32, depth=2, head_channels=8, heads=3, frames=3, in_channels=40, out_channels=32
        ),
        text=TextConfig(channels=32, heads=4, layers=3, embedding=24),
        vision=VisionConfig(patch=56, channels=40, heads=4, layers=2),
        vae={
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "sample_size": 16,
            "scaling_factor": 0.18215,
        },
    )


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random, by the checkpoint's name; norms near one, so that nothing fades on the way."""
    if not shape:
        return torch.tensor(0.3)
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) >= 2:
        values = values / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.2 * values + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(values).float()


def _checkpoint(config: DynamiCrafterConfig) -> dict[str, Tensor]:
    names, shapes = stored_names(empty_networks(config))
    tensors = {theirs: _weight(theirs, shapes[ours]) for ours, theirs in names.items()}
    for name, value in tensors.items():
        if name.startswith("first_stage_model.") and ".attn_1." in name and value.ndim == 2:
            tensors[name] = value[:, :, None, None]  # stored as a convolution
    tensors |= {name: torch.zeros(shape) for name, shape in unused_shapes(config).items()}
    schedule = schedule_of(config)
    tensors["alphas_cumprod"] = torch.from_numpy(schedule.signal).float()
    if config.base_scale != 1:
        tensors["scale_arr"] = torch.cat(
            [torch.from_numpy(schedule.scale).float(), torch.full((config.turning_step,), config.base_scale)]
        )
    return tensors


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return _checkpoint(_tiny("256"))


@pytest.fixture(scope="module")
def priors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DynamiCrafter]:
    found = {}
    for name in RELEASED:
        folder = tmp_path_factory.mktemp(f"dynamicrafter_{name}")
        torch.save({"state_dict": _checkpoint(_tiny(name)), "global_step": 5}, folder / "model.ckpt")
        found[name] = DynamiCrafter.from_folder(folder, "cpu", config=_tiny(name))
    return found


def _inputs() -> tuple[Tensor, Tensor]:
    """First images (2, 3, 32, 32) and noisy latents (2, 3, 4, 16, 16)."""
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.random((2, 3, 32, 32))).float(), torch.from_numpy(
        rng.standard_normal((2, 3, 4, 16, 16))
    ).float()


def _shot(views: int = 2, prompt: str = PROMPT) -> Shot:
    return Shot(
        prompt=prompt,
        c2w=torch.eye(4).repeat(views, 1, 1),
        K=torch.eye(3).repeat(views, 1, 1),
        size=32,
        first=_inputs()[0][:views],
        times_s=torch.arange(3, dtype=torch.float64) / 8,
    )


def _close(found: Tensor, golden: list[float], absolute: float = ABSOLUTE) -> None:
    torch.testing.assert_close(found.detach().float(), torch.tensor(golden), atol=absolute, rtol=absolute)


# -- names and weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["256", "512"])
def test_dynamicrafter_full_size_names_and_shapes_are_the_released_code_s(name: str) -> None:
    """Golden: count and hash of the names and shapes of its module, instantiated without memory."""
    config = RELEASED[name]
    names, shapes = stored_names(empty_networks(config))
    stored = {theirs: shapes[ours] for ours, theirs in names.items()} | unused_shapes(config)
    lines = "".join(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in sorted(stored.items()))
    assert (len(stored), hashlib.sha256(lines.encode()).hexdigest()) == NAMES[name]
    assert len(stored) == len(names) + len(unused_shapes(config))


def test_dynamicrafter_recognises_the_released_models_by_their_weights() -> None:
    """Oracle: the configs' differences: a learnt image scale at 256, latents scaled to 0.7 at 512 and 0.3 at 1024."""
    mark = {"model.diffusion_model.init_attn.0.norm.weight": torch.ones(1)}
    assert recognise({**mark, ALPHA: torch.zeros(())}, "x") == RELEASED["256"]
    for name, last in (("512", 0.7), ("1024", 0.3)):
        assert recognise({**mark, "scale_arr": torch.linspace(1, last, 1400)}, "x") == RELEASED[name]
    for tensors, told in (
        ({}, "found no model"),
        (mark, "scaled by None"),
        ({**mark, "scale_arr": torch.ones(3)}, "1.0"),
    ):
        with pytest.raises(InputError, match=told):
            recognise(tensors, "x")


def _without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: value for other, value in tensors.items() if other != name}


_SOME = "image_proj_model.proj_in.bias"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: _without(tensors, _SOME), f"no {_SOME}"),
        (lambda tensors: {**tensors, "model.other": torch.ones(2)}, "model.other, for which there is no rule"),
        (lambda tensors: {**tensors, _SOME: torch.ones(7)}, r"\(7,\) for \(32,\)"),
        (lambda tensors: {**tensors, _SOME: torch.full((32,), torch.nan)}, "NaN"),
        (lambda tensors: {**tensors, "alphas_cumprod": torch.linspace(1, 0, 1000)}, "other values in alphas_cumprod"),
    ],
)
def test_dynamicrafter_refuses_a_checkpoint_that_does_not_fit(checkpoint, tmp_path, change, told) -> None:
    """Oracle: one change that makes the file another one."""
    save_file(change(checkpoint), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=told):
        load_networks(tmp_path, _tiny("256"))


def test_dynamicrafter_takes_every_form_of_the_file_with_equal_weights(checkpoint, tmp_path) -> None:
    """Oracle: the same tensors as safetensors, under DeepSpeed's names, and without what is not computed with."""
    config = _tiny("256")
    older = {name.replace("fps_embedding", "framestride_embed"): value for name, value in checkpoint.items()}
    save_file({name: value.contiguous() for name, value in older.items()}, tmp_path / "a.safetensors")
    torch.save({"module": {f"_forward_module.{name}": value for name, value in checkpoint.items()}}, tmp_path / "b.pt")
    bare = {name: value for name, value in checkpoint.items() if name not in unused_shapes(config)}
    torch.save(bare, tmp_path / "c.ckpt")
    for file in ("a.safetensors", "b.pt", "c.ckpt"):
        _, networks = load_networks(tmp_path / file, config)
        names, _ = stored_names(networks)
        for part, network in vars(networks).items():
            for name, value in network.state_dict().items():
                assert torch.equal(value.flatten(), checkpoint[names[f"{part}/{name}"]].flatten())
            assert not network.training
            assert not any(parameter.requires_grad for parameter in network.parameters())


def test_dynamicrafter_never_unpickles_objects(tmp_path) -> None:
    """Oracle: a file that holds a path object, which only code could rebuild."""
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps({"state_dict": pathlib.PurePosixPath("x")}))
    with pytest.raises(InputError, match=r"model\.ckpt"):
        load_networks(tmp_path)
    torch.save({"state_dict": {"x": pathlib.PurePosixPath("x")}}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="Python objects"):
        load_networks(tmp_path)


def test_dynamicrafter_folder_has_to_hold_one_weights_file(tmp_path) -> None:
    """Oracle: none, two, and the interpolation model by its name."""
    with pytest.raises(InputError, match="found none"):
        checkpoint_file(tmp_path)
    (tmp_path / "a.ckpt").touch()
    assert checkpoint_file(tmp_path) == tmp_path / "a.ckpt"
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(InputError, match=r"a\.ckpt, b\.safetensors"):
        checkpoint_file(tmp_path)
    with pytest.raises(InputError, match="interpolation"):
        load_networks(tmp_path / "model_interp.ckpt")
    with pytest.raises(InputError, match="No such file"):
        DynamiCrafter.from_folder(tmp_path / "none.ckpt")


# -- the released code's numbers ---------------------------------------------------------------------------------------


def test_dynamicrafter_conditions_are_the_released_code_s(priors) -> None:
    """Golden: text, image tokens of a small and features of a large image, of no image, latents."""
    networks, (first, _) = priors["256"].networks, _inputs()
    _close(networks.text(tokens_of([PROMPT]))[0, 5, :4], CONDITIONS["text"])
    _close(networks.resampler(networks.image(first))[1, 20, :4], CONDITIONS["image"])
    _close(networks.resampler(networks.image(torch.full((1, 3, 32, 32), 0.5)))[0, 40, :4], CONDITIONS["unseen"])
    large = torch.from_numpy(np.random.default_rng(3).random((1, 3, 300, 260))).float()
    _close(networks.image(large)[0, 3, :4], CONDITIONS["large"])
    _close(priors["256"].encode(first[:, None])[1, 0, 2, 3, :4], CONDITIONS["latents"])


@pytest.mark.parametrize(("name", "timestep"), RAW)
def test_dynamicrafter_network_is_the_released_code_s(priors, name: str, timestep: int) -> None:
    """Golden: the UNet's output for noisy latents with all conditions."""
    prior, (first, noisy) = priors[name], _inputs()
    networks = prior.networks
    with torch.no_grad():
        raw = networks.unet(
            noisy,
            first=prior.encode(first[:, None]),
            timesteps=torch.full((2,), timestep),
            text=networks.text(tokens_of([PROMPT] * 2)),
            image=networks.resampler(networks.image(first)),
            stride=torch.full((2,), prior.config.stride),
        )
    _close(raw[0, 0, 0, 0, :4], RAW[name, timestep])


@pytest.mark.parametrize(("name", "timestep"), CLEAN)
def test_dynamicrafter_guided_prediction_is_the_released_code_s(priors, name: str, timestep: int) -> None:
    """Golden: its clean latents (over s) and noise at guidance 7.5, its input scaled from the preserved variance."""
    pred = priors[name].predict(_inputs()[1], timestep, _shot(), Guidance(scale=7.5))
    _close(pred.clean[1, 1, 2, 3, :3], CLEAN[name, timestep], 1e-4)
    _close(pred.noise[1, 1, 2, 3, :3], NOISE[name, timestep], 1e-4)


@pytest.mark.parametrize("name", ATTENTION)
def test_dynamicrafter_attention_map_is_the_first_cross_attention(priors, name: str) -> None:
    """Golden: softmax of its first attn2, the word's tokens summed and heads averaged; then bounds of both kinds."""
    noisy = _inputs()[1]
    found = priors[name].attention_map("cat", noisy, 500, _shot())
    assert found.shape == (2, 3, 1, 16, 16)
    _close(found[1, 2, 0, 5, :4], ATTENTION[name], 1e-6)
    assert (found > 0).all()
    assert (found < 1).all()
    image = priors[name].attention_map("", noisy, 500, _shot(), kind="image")
    assert image.shape == found.shape
    assert (image >= 0).all()
    assert (image <= 1).all()
    assert image.std() > 0


def test_dynamicrafter_attention_map_refuses_other_words_and_kinds(priors) -> None:
    """Oracle: a word that is not in the prompt, and a kind that is none."""
    with pytest.raises(InputError, match='found "dog"'):
        priors["256"].attention_map("dog", _inputs()[1], 500, _shot())
    with pytest.raises(InputError, match="found depth"):
        priors["256"].attention_map("cat", _inputs()[1], 500, _shot(), kind="depth")


def test_word_positions_are_whole_words_wherever_they_stand() -> None:
    """Oracle: counted by hand; begin of text is token 0, and catfish is no cat."""
    assert word_positions(PROMPT, "cat") == [2]
    assert word_positions("A Cat and a cat", "cat") == [2, 5]
    many = word_positions("a xylotheque burns", "xylotheque")
    assert many == list(range(2, 2 + len(many)))
    assert len(many) > 1
    for prompt, word in (("a cat", ""), ("a cat", "ca"), ("a hydrocat", "cat"), ("very " * 80 + "cat", "cat")):
        with pytest.raises(InputError, match="expected a whole word"):
            word_positions(prompt, word)


# -- foreign readers ---------------------------------------------------------------------------------------------------


def test_towers_are_open_clip_s() -> None:
    """Oracle: open_clip's own towers with the same weights, by its names."""
    from open_clip.model import CLIP

    torch.manual_seed(0)
    vision = {"image_size": 28, "layers": 2, "width": 40, "head_width": 10, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
    clip = CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text).eval()
    ours_text = TextTower(TextConfig(channels=32, heads=4, layers=3, embedding=24))
    ours_image = ImageTower(VisionConfig(size=28, patch=14, channels=40, heads=4, layers=2))
    state = clip.state_dict()
    for ours in (ours_text, ours_image):
        ours.load_state_dict({name: state[name] for name in ours.state_dict()}, strict=True)
    tokens, images = tokens_of(["a running fox", ""]), torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        x = clip.token_embedding(tokens) + clip.positional_embedding
        for block in list(clip.transformer.resblocks)[:-1]:
            x = block(x, attn_mask=clip.attn_mask)
        torch.testing.assert_close(ours_text(tokens), clip.ln_final(x), atol=1e-5, rtol=1e-5)
        x = clip.visual.transformer(clip.visual._embeds(clip_image(images, 28)))
        torch.testing.assert_close(ours_image(images), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (224, 300), (500, 224), (512, 512)])
def test_clip_image_is_kornia_s_resize(size: tuple[int, int]) -> None:
    """Oracle: diffusers' port of it, normalised afterwards."""
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    expected = (_resize_with_antialiasing(images, (224, 224)) - mean) / std
    torch.testing.assert_close(clip_image(images, 224), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", RELEASED)
def test_schedule_is_diffusers_scaled_linear(name: str) -> None:
    """Oracle: diffusers' scheduler, with its rescale to zero terminal signal where the model has it."""
    from diffusers import DDIMScheduler

    config = RELEASED[name]
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=config.zero_terminal_snr,
    )
    schedule = schedule_of(config)
    np.testing.assert_allclose(schedule.signal, scheduler.alphas_cumprod.numpy(), atol=2e-6)
    assert schedule.scale[0] == 1
    assert schedule.scale[-1] == config.base_scale
    assert (np.diff(schedule.alphas_cumprod) < 0).all()


def test_sampling_visits_the_released_timesteps() -> None:
    """Oracle: the lists of the released sampler, uniform from 981 to 1 and trailing from 999 to 19."""
    assert timesteps_of(RELEASED["256"], 50) == list(range(981, 0, -20))
    assert timesteps_of(RELEASED["512"], 50) == list(range(999, 0, -20))


# -- what a prior promises ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASED)
def test_dynamicrafter_prediction_adds_up_to_what_was_noisy(priors, name: str) -> None:
    """Oracle: noisy = sqrt(a) clean + sqrt(1 - a) noise, at any level, guided and rescaled or not."""
    prior, noisy, shot = priors[name], _inputs()[1], _shot()
    for timestep, guidance in ((0, Guidance()), (350, Guidance(scale=5.0, rescale=0.7)), (990, Guidance(scale=3.0))):
        clean, noise = prior.predict(noisy, timestep, shot, guidance)
        alpha = prior.alpha(timestep)
        size = float(clean.abs().max())
        assert (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise - noisy).abs().max() < 1e-5 * max(1, size)


def test_dynamicrafter_rescale_gives_each_view_its_conditional_spread(priors) -> None:
    """Oracle: standard deviations of each view; with factor 1 they are the conditional prediction's."""
    prior, noisy, shot = priors["256"], _inputs()[1], _shot()
    cond = prior.predict(noisy, 300, shot, Guidance()).clean
    found = prior.predict(noisy, 300, shot, Guidance(scale=7.5, rescale=1.0)).clean
    torch.testing.assert_close(found.flatten(1).std(1), cond.flatten(1).std(1), rtol=1e-4, atol=0)


def test_dynamicrafter_views_do_not_see_each_other(priors) -> None:
    """Oracle: each view predicted alone."""
    prior, noisy = priors["512"], _inputs()[1]
    both = prior.predict(noisy, 600, _shot(), Guidance(scale=2.0, rescale=0.5)).clean
    alone = prior.predict(noisy[:1], 600, _shot(1), Guidance(scale=2.0, rescale=0.5)).clean
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=1e-4)


def test_dynamicrafter_encode_passes_gradients_to_images(priors) -> None:
    """Oracle: a gradient that is finite, not zero, and only at the images."""
    images = _inputs()[0][:1, None].requires_grad_()
    latents = priors["256"].encode(images)
    assert latents.shape == (1, 1, 4, 16, 16)
    latents.square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0


def test_dynamicrafter_film_repeats_by_its_seed(priors) -> None:
    """Oracle: the same seed again, another one, and the one prediction that a single step is."""
    prior, shot = priors["512"], _shot(1)
    prior.steps, told = 2, []
    first = prior.film(shot, seed=3, told=lambda *done: told.append(done))
    again, other = prior.film(shot, seed=3), prior.film(shot, seed=4)
    assert told == [(1, 2), (2, 2)]
    assert first.images.shape == (1, 3, 3, 32, 32)
    assert first.masks.shape == (1, 3, 1, 32, 32)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    for values in (first.images, first.masks):
        assert values.min() >= 0
        assert values.max() <= 1
    prior.steps = 1
    noise = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    clean = prior.predict(noise, 999, shot, Guidance(scale=7.5, rescale=0.7)).clean
    with torch.no_grad():
        expected = prior.networks.vae.decode(clean[0, 1:2] / 0.18215).sample / 2 + 0.5
    torch.testing.assert_close(prior.film(shot, seed=3).images[0, 1:2], expected.clamp(0, 1))
    prior.steps = 50


def test_dynamicrafter_check_refuses_what_it_was_not_made_for(priors) -> None:
    """Oracle: 3 frames by the resampler; 4 latents a side have to halve evenly, 2 pixels each."""
    prior = priors["256"]
    prior.check(prompt="x", views=1, frames=3, size=16)
    for frames, size, told in ((4, 16, "found frames 4"), (3, 20, "found size 20, expected a multiple of 8")):
        with pytest.raises(InputError, match=told):
            prior.check(prompt="x", views=1, frames=frames, size=size)
    with pytest.raises(InputError, match="found an empty one"):
        prior.check(prompt=" ", views=1, frames=3, size=16)
    assert not prior.first_frame_clean
    assert not prior.joint_views
