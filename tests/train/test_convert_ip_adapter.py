"""IP-Adapter's file against the loader and the network of diffusers."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from manifests.errors import InputError
from tests.train.tiny_models import SMALL, inputs, randomize, small_unet
from train.convert.ip_adapter import from_file, is_ip_adapter_file, names_of, to_file
from train.convert.keys import parts_of, unet_shapes

TOKENS = 4  # diffusers' loader knows no other number for the plain adapter


def image_unet(**changes):
    return small_unet(image_tokens=TOKENS, motion_modules=False, camera_embed_dim=None, **changes)


def grouped(file) -> dict[str, dict[str, torch.Tensor]]:
    """The two groups that the .bin file has."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, value in file.items():
        group, _, rest = name.partition(".")
        parts[group][rest] = value
    return parts


def test_names_are_those_of_the_released_file():
    """Oracle: its 36 names, odd numbers 1 to 31, and that 31 is the middle block."""
    names = names_of(unet_shapes({}))
    expected = {f"ip_adapter.{n}.to_{m}_ip.weight" for n in range(1, 32, 2) for m in "kv"}
    expected |= {f"image_proj.{part}.{kind}" for part in ("proj", "norm") for kind in ("weight", "bias")}
    assert set(names.values()) == expected
    assert names["mid_block.attentions.0.transformer_blocks.0.attn2.to_v_ip.weight"] == "ip_adapter.31.to_v_ip.weight"
    assert names["up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k_ip.weight"] == "ip_adapter.13.to_k_ip.weight"


def test_exported_file_gives_the_same_network_in_diffusers():
    """Oracle: diffusers' loader puts the file into its own UNet; equal output at one view and frame."""
    ours = image_unet()
    state = ours.state_dict()
    for name in state:  # attention to frame 0 is not in diffusers' network
        if ".to_out_i2v." in name:
            state[name].zero_()
    blocks = {key: tuple(f"{kind}2D" for kind in SMALL[key]) for key in ("down_block_types", "up_block_types")}
    theirs = UNet2DConditionModel(attention_head_dim=2, **{**SMALL, **blocks}).eval()
    theirs.load_state_dict(parts_of(state, "base"))
    theirs._load_ip_adapter_weights([grouped(to_file(state))])
    given = inputs(batch=2, views=1, frames=1)
    sample, timestep, text = (given[key] for key in ("sample", "timestep", "encoder_hidden_states"))
    embeds = given["image_embeds"]
    with torch.no_grad():
        added = {"image_embeds": [embeds]}
        expected = theirs(sample[:, 0, 0], timestep, text, added_cond_kwargs=added).sample
        pred = ours(sample, timestep, text, image_embeds=embeds).sample[:, 0, 0]
    torch.testing.assert_close(pred, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_export_and_import_are_inverse(tmp_path, form):
    """Oracle: round trip, bit-equal, through both forms of the file."""
    ours = image_unet()
    file = to_file(ours.state_dict())
    if form == "bin":
        torch.save(grouped(file), tmp_path / "x")
    else:
        save_file(file, tmp_path / "x")
    fields, taken = from_file(tmp_path / "x", SMALL)
    assert fields == {"mv2v_adapter": True, "image_tokens": TOKENS, "image_embed_dim": 10}
    expected = parts_of(ours.state_dict(), "image")
    assert taken.keys() == expected.keys()
    assert all(torch.equal(taken[name], expected[name]) for name in taken)


def test_other_adapters_are_refused(tmp_path):
    """Oracle: the plus variant has another projection; an adapter for SDXL other widths; a file may be incomplete."""
    file = to_file(image_unet().state_dict())
    key = "ip_adapter.3.to_k_ip.weight"
    cases = {
        "found no image_proj.proj.weight": {"image_proj.latents": torch.ones(1), **grouped(file)["ip_adapter"]},
        r"found it of shape \(50, 10\), expected one whose rows are tokens of 12": {
            **file,
            "image_proj.proj.weight": torch.ones(50, 10),
        },
        re.escape(f"found no {key}, expected the"): {name: value for name, value in file.items() if name != key},
        re.escape(f"{key} of shape (2, 2) for (32, 12)"): {**file, key: torch.ones(2, 2)},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "x.bin")
        with pytest.raises(InputError, match=message):
            from_file(tmp_path / "x.bin", SMALL)


def test_ip_adapter_files_are_told_from_others():
    """Oracle: by hand."""
    assert is_ip_adapter_file(["image_proj.norm.bias", "ip_adapter.1.to_k_ip.weight"])
    assert not is_ip_adapter_file(["image_proj.norm.bias", "conv_in.weight"])
    assert not is_ip_adapter_file([])


def test_random_network_has_no_silent_image_branch():
    """Oracle: another embedding changes the output, so that the comparison above compares it."""
    ours = randomize(image_unet())
    given = inputs(batch=1, views=1, frames=1)
    arguments = (given["sample"], given["timestep"], given["encoder_hidden_states"])
    with torch.no_grad():
        one, other = (ours(*arguments, image_embeds=given["image_embeds"] * k).sample for k in (1.0, -1.0))
    assert (one - other).abs().max() > 1e-4
