"""Animate3D's checkpoint against a stand-in for its network: diffusers' own classes with what it attaches to them."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import (
    ImageProjection,
    MultiIPAdapterImageProjection,
    SinusoidalPositionalEmbedding,
    TimestepEmbedding,
)
from diffusers.models.resnet import AlphaBlender
from torch import nn

from manifests.errors import InputError
from tests.train.tiny_models import SMALL, small_unet
from train.convert.animate3d import TRAINED, from_file, is_animate3d_file, released_name, to_file
from train.convert.keys import parts_of, unet_shapes

REAL = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}


class FrameZero(nn.Module):
    """The weights that upstream's processor of multi-view self-attention has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q_i2v, self.to_out_i2v = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels)


class SpatioTemporal(nn.Module):
    """The weights that upstream's processor of a motion module has, its table of frames included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("to_q_sp", "to_k_sp", "to_v_sp"):
            setattr(self, name, nn.Linear(channels, channels, bias=False))
        self.to_out_sp = nn.Linear(channels, channels)
        self.time_pos_embed = SinusoidalPositionalEmbedding(channels, 32)
        self.alpha_blender = AlphaBlender(alpha=0.0, merge_strategy="learned")


def upstream(sizes=REAL, embed_dim: int = 1024, tokens: int = 4, **more) -> UNetMotionModel:
    """diffusers' network with cameras, IP-Adapter and both processors attached, as upstream's scripts do."""
    width = sizes["cross_attention_dim"]
    network = UNetMotionModel(**sizes, **more)
    network.camera_embedding = TimestepEmbedding(16, 4 * sizes["block_out_channels"][0])
    network.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(embed_dim, width, tokens)])
    for name, module in list(network.named_modules()):
        if name.endswith((".attn1", ".attn2")):
            channels = module.to_q.in_features
            if "motion_modules" in name:
                module.set_processor(SpatioTemporal(channels))
            elif name.endswith(".attn1"):
                module.set_processor(FrameZero(channels))
            else:
                module.set_processor(IPAdapterAttnProcessor2_0(channels, width, num_tokens=(tokens,)))
        if hasattr(module, "pos_embed"):
            module.pos_embed = None
    return network


def small_upstream() -> UNetMotionModel:
    sizes = {name: SMALL[name] for name in REAL}
    blocks = {
        "down_block_types": ("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
    }
    return upstream(sizes, embed_dim=10, tokens=3, num_attention_heads=2, motion_num_attention_heads=2, **blocks)


def test_names_and_shapes_are_upstreams_at_the_real_size():
    """Oracle: the stand-in at SD-1.5's size, without memory; 1572 weights of ours and 42 tables."""
    with torch.device("meta"):
        theirs = {name: tuple(value.shape) for name, value in upstream().state_dict().items()}
    ours = {released_name(name): shape for name, shape in unet_shapes({}).items()}
    tables = {name: shape for name, shape in theirs.items() if name.endswith(".processor.time_pos_embed.pe")}
    assert (len(ours), len(tables)) == (1572, 42)
    assert {**ours, **tables} == theirs


def test_released_file_leaves_726_names_missing():
    """Oracle: upstream's loader asserts 726 missing and no unexpected name for the motion modules alone."""
    ours = small_unet()
    theirs = small_upstream()
    missing, unexpected = theirs.load_state_dict(to_file(ours.state_dict()), strict=False)
    assert unexpected == []
    assert set(missing) == {released_name(name) for name in parts_of(ours.state_dict(), "base", "camera", "image")}
    shapes = unet_shapes({})
    assert len(parts_of(shapes, "base", "camera", "image")) == 726
    assert len(shapes) - 726 + 42 == len(
        to_file({name: torch.empty(shape[0] if shape else 1) for name, shape in shapes.items()})
    )


@pytest.mark.parametrize("whole", [False, True], ids=["trained", "whole"])
def test_checkpoint_of_upstream_gives_its_weights(tmp_path, whole):
    """Oracle: the stand-in; every weight under our name, bit-equal, with the prefix of distributed training."""
    theirs = small_upstream().state_dict()
    kept = {name: value for name, value in theirs.items() if whole or "motion_modules." in name or "i2v." in name}
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in kept.items()}}, tmp_path / "x.ckpt"
    )
    sizes = {**SMALL, "image_embed_dim": 10, "image_tokens": 3}
    fields, taken = from_file(tmp_path / "x.ckpt", sizes)
    assert fields == {"motion_modules": True, "spatial_branch": True, "mv2v_adapter": True}
    expected = small_unet().state_dict() if whole else parts_of(small_unet().state_dict(), *TRAINED)
    assert taken.keys() == expected.keys()
    assert all(torch.equal(taken[name], theirs[released_name(name)]) for name in taken)


@pytest.mark.parametrize("whole", [False, True], ids=["trained", "whole"])
def test_export_and_import_are_inverse(tmp_path, whole):
    """Oracle: round trip, bit-equal; the whole export loads strictly into the stand-in."""
    state = small_unet().state_dict()
    file = to_file(state, whole=whole)
    if whole:
        small_upstream().load_state_dict(file, strict=True)
    torch.save(file, tmp_path / "x.ckpt")
    _, taken = from_file(tmp_path / "x.ckpt", {**SMALL, "image_embed_dim": 10, "image_tokens": 3})
    expected = state if whole else parts_of(state, *TRAINED)
    assert taken.keys() == expected.keys()
    assert all(torch.equal(taken[name], expected[name]) for name in taken)


def test_other_checkpoints_are_refused(tmp_path):
    """Oracle: trained with camera codes, without the blend, with other position tables, or cut down."""
    file = to_file(small_unet().state_dict())
    module = "mid_block.motion_modules.0.transformer_blocks.0.attn1.processor"
    table, blend = f"{module}.time_pos_embed.pe", f"{module}.alpha_blender.mix_factor"
    cases = {
        re.escape(f"found {module}.camera_embed.pe, for which there is no rule"): {
            **file,
            f"{module}.camera_embed.pe": torch.ones(1),
        },
        re.escape(f"found no {blend}, expected the"): {name: value for name, value in file.items() if name != blend},
        re.escape(f"found position codes of its own in {table}"): {**file, table: file[table] * 2},
        re.escape(f"found NaN or infinity in {blend}"): {**file, blend: torch.tensor([float("nan")])},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(InputError, match=message):
            from_file(tmp_path / "x.ckpt", SMALL)


def test_animate3d_files_are_told_from_others():
    """Oracle: the blend has no other owner."""
    assert is_animate3d_file(to_file(small_unet().state_dict()))
    assert not is_animate3d_file(["down_blocks.0.motion_modules.0.norm.weight"])
