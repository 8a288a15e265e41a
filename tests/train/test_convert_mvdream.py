"""MVDream's file and folder: names against diffusers' own conversion, networks against what they were made from."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.models.embeddings import TimestepEmbedding
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from manifests.errors import InputError
from tests.train.tiny_models import SMALL, inputs, randomize
from train.convert.keys import parts_of, unet_shapes
from train.convert.ldm import text_name, unet_name, vae_name
from train.convert.mvdream import SD15, from_file, from_folder, text_shapes, unet_config, vae_shapes
from train.models.unet_mv_motion import MVUNetMotionModel

IMAGE = {"mv2v_adapter": False, "motion_modules": False}
TEXT = {"vocab_size": 50, "hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY = {
    "unet": {**SMALL, "num_attention_heads": 2, "camera_embed_dim": 16},
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "text_encoder": {**TEXT, "max_position_embeddings": 9, "hidden_act": "quick_gelu", "eos_token_id": 49},
}


def networks() -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """Small UNet with a camera embedding, autoencoder and text encoder, all of diffusers and transformers."""
    blocks = {key: tuple(f"{kind}2D" for kind in SMALL[key]) for key in ("down_block_types", "up_block_types")}
    unet = UNet2DConditionModel(attention_head_dim=2, **{**SMALL, **blocks})
    unet.camera_embedding = TimestepEmbedding(16, 4 * SMALL["block_out_channels"][0])
    vae = AutoencoderKL(**TINY["vae"])
    text = CLIPTextModel(CLIPTextConfig(**TINY["text_encoder"]))
    return tuple(randomize(network, seed) for seed, network in enumerate((unet, vae, text)))


def as_ldm_file(unet, vae, text) -> dict[str, torch.Tensor]:
    """The released file's names for these networks, with the buffers it has beside them."""
    names = unet.state_dict()
    file = {unet_name(name, SMALL["layers_per_block"], names): value for name, value in names.items()}
    for name, value in vae.state_dict().items():
        is_attention = "mid_block.attentions" in name and value.ndim == 2
        file[vae_name(name, 2)] = value[..., None, None] if is_attention else value
    file |= {text_name(name): value for name, value in text.state_dict().items()}
    file |= {"betas": torch.ones(3), "posterior_mean_coef2": torch.ones(3)}
    return file | {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(9)[None]}


# -- names at the real size --------------------------------------------------------------------------------------------


def test_unet_names_are_those_that_diffusers_converts():
    """Oracle: diffusers' own conversion of a latent-diffusion UNet gives every tensor back under our name."""
    shapes = parts_of(unet_shapes({**SD15["unet"], **IMAGE}), "base", "camera")
    file = {unet_name(name, 2, shapes): torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(file) == 690
    assert file.keys() >= {f"model.diffusion_model.camera_embed.{n}.{w}" for n in (0, 2) for w in ("weight", "bias")}
    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    converted = convert_ldm_unet_checkpoint(dict(file), config)
    assert converted.keys() == parts_of(shapes, "base").keys()
    for name, value in converted.items():
        assert value is file[unet_name(name, 2, shapes)]


def test_vae_names_are_those_that_diffusers_converts():
    """Oracle: diffusers' own conversion of a latent-diffusion autoencoder."""
    shapes = vae_shapes(SD15["vae"])
    file = {vae_name(name, 4): torch.full(shape[:1], float(n)) for n, (name, shape) in enumerate(shapes.items())}
    converted = convert_ldm_vae_checkpoint(dict(file), SD15["vae"])
    assert converted.keys() == shapes.keys()
    for name, value in converted.items():
        assert torch.equal(value, file[vae_name(name, 4)])


def test_text_names_are_those_that_diffusers_converts():
    """Oracle: diffusers takes the front of the names away, and transformers' class has what is left."""
    shapes = text_shapes(SD15["text_encoder"])
    converted = convert_ldm_clip_checkpoint({text_name(name): torch.empty(0) for name in shapes})
    assert len(shapes) == 196
    assert {name.removeprefix("text_model.") for name in converted} == {
        name.removeprefix("text_model.") for name in shapes
    }


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_file_gives_the_networks_it_was_made_from(tmp_path, half):
    """Oracle: the networks; bit-equal, and half precision widened."""
    made = networks()
    file = as_ldm_file(*made)
    if half:
        file = {name: value.half() if value.is_floating_point() else value for name, value in file.items()}
    torch.save(file, tmp_path / "x.pt")
    found = from_file(tmp_path / "x.pt", TINY)
    for network, tensors in zip(made, (found.unet, found.vae, found.text), strict=True):
        expected = {name: value.half().float() if half else value for name, value in network.state_dict().items()}
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_unet_of_the_file_computes_what_diffusers_computes(tmp_path):
    """Oracle: diffusers' UNet at one view and frame, the camera's code added to its time embedding by hand."""
    made = networks()
    save_file({name: value.contiguous() for name, value in as_ldm_file(*made).items()}, tmp_path / "x.safetensors")
    found = from_file(tmp_path / "x.safetensors", TINY)
    ours = MVUNetMotionModel(**found.unet_config, **IMAGE).eval()
    ours.load_state_dict(found.unet)
    given = inputs(batch=1, views=1, frames=1)
    camera = given["camera"]
    code = made[0].camera_embedding(camera[:, 0])
    handle = made[0].time_embedding.register_forward_hook(lambda module, args, out: out + code)
    with torch.no_grad():
        expected = made[0](given["sample"][:, 0, 0], given["timestep"], given["encoder_hidden_states"]).sample
        pred = ours(given["sample"], given["timestep"], given["encoder_hidden_states"], camera).sample[:, 0, 0]
    handle.remove()
    torch.testing.assert_close(pred, expected, rtol=1e-5, atol=1e-5)


def test_other_files_are_refused_by_name(tmp_path):
    """Oracle: each has one thing wrong, which the message names."""
    file, path = as_ldm_file(*networks()), tmp_path / "x.pt"
    key = "model.diffusion_model.out.2.weight"
    cases = {
        "text encoder of SD-2.1": {**file, "cond_stage_model.model.positional_embedding": torch.ones(1)},
        "for which there is no rule": {**file, "model_ema.decay": torch.ones(1)},
        re.escape(f"found no {key},"): {name: value for name, value in file.items() if name != key},
        re.escape(f"{key} of shape (1,) for (4, 16, 3, 3)"): {**file, key: torch.ones(1)},
        re.escape(f"NaN or infinity in {key}"): {**file, key: file[key] / 0},
    }
    for message, content in cases.items():
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            from_file(path, TINY)
    torch.save(file, path)
    with pytest.raises(InputError, match=r"and \d+ more, expected the 1134 tensors of sd-v1\.5-4view"):
        from_file(path)


# -- the folder --------------------------------------------------------------------------------------------------------


def save_folder(folder, unet, vae, text) -> None:
    """As upstream's folder is: our names, and the camera's width in the config."""
    unet.register_to_config(camera_embedding_dim=16)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")


def test_folder_gives_the_networks_it_was_made_from(tmp_path):
    """Oracle: the networks, saved by their own classes; and the same config as the file's."""
    made = networks()
    save_folder(tmp_path, *made)
    found = from_folder(tmp_path)
    for network, tensors in zip(made, (found.unet, found.vae, found.text), strict=True):
        expected = network.state_dict()
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    shapes = {name: tuple(value.shape) for name, value in made[0].state_dict().items()}
    assert unet_shapes({**found.unet_config, **IMAGE}) == shapes
    assert found.unet_config["num_attention_heads"] == 2
    config = CLIPTextConfig(**found.text_config)
    assert {name: getattr(config, name) for name in TINY["text_encoder"]} == TINY["text_encoder"]


def test_older_names_in_a_folder_are_read(tmp_path):
    """Oracle: what diffusers before 0.15 called the autoencoder's attention, and transformers before 5 the text."""
    made = networks()
    save_folder(tmp_path, *made)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").unlink()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = dict(made[1].state_dict())
    for name in [name for name in vae if "mid_block.attentions" in name]:
        new = name
        for now, then in older.items():
            new = new.replace(f".{now}.", f".{then}.")
        vae[new] = vae.pop(name)
    torch.save(vae, tmp_path / "vae/diffusion_pytorch_model.bin")
    text = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in made[2].state_dict().items()}
    text["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(text, tmp_path / "text_encoder/model.safetensors")
    found = from_folder(tmp_path)
    assert all(torch.equal(found.vae[name], value) for name, value in made[1].state_dict().items())
    assert all(torch.equal(found.text[name], value) for name, value in made[2].state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_linear_projection": True}, "found use_linear_projection True, expected SD-1.5's values"),
        ({"attention_head_dim": [5, 10, 20, 20]}, r"found attention_head_dim \[5, 10, 20, 20\]"),
        ({"class_embed_type": "timestep", "act_fn": "gelu"}, "found act_fn 'gelu', class_embed_type 'timestep'"),
    ],
)
def test_config_of_another_network_is_refused(tmp_path, changes, message):
    """Oracle: SD-2.1's and SDXL's values."""
    with pytest.raises(InputError, match=message):
        unet_config(changes, tmp_path)
