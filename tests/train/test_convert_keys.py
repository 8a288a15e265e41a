"""Names and counts at the real size, against diffusers' own classes and published figures; tensors taken by name."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel

from manifests.errors import InputError
from train.convert.keys import PARTS, part_of, parts_of, renamed, take, unet_shapes

MILLION = 1e6


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    return unet_shapes({})


def shapes_in(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_base_has_the_names_and_shapes_of_sd15(shapes):
    """Oracle: diffusers' UNet2DConditionModel with SD-1.5's config, 686 names."""
    with torch.device("meta"):
        theirs = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
    assert parts_of(shapes, "base") == shapes_in(theirs)
    assert len(parts_of(shapes, "base")) == 686


def test_motion_has_the_names_and_shapes_of_animatediff(shapes):
    """Oracle: diffusers' MotionAdapter, whose defaults are v1-5-2; all but its 21 position tables."""
    with torch.device("meta"):
        theirs = shapes_in(MotionAdapter())
    tables = {name for name in theirs if name.endswith("pos_embed.pe")}
    assert len(tables) == 21
    assert parts_of(shapes, "motion") == {name: shape for name, shape in theirs.items() if name not in tables}


def test_frozen_names_are_those_that_the_released_loader_misses(shapes):
    """Oracle: Animate3D's inference script accepts 726 missing names: base, camera and IP-Adapter."""
    counts = {part: len(parts_of(shapes, part)) for part in PARTS}
    assert counts == {"base": 686, "camera": 4, "image": 36, "frame0": 48, "motion": 546, "spatial": 252}
    assert counts["base"] + counts["camera"] + counts["image"] == 726


@pytest.mark.parametrize(
    ("parts", "published"),
    [
        (("base",), 859.5),
        (("motion",), 453.2),
        (("frame0",), 24.8),
        (("spatial",), 164.7),
        (("motion", "frame0", "spatial"), 642.7),
    ],
)
def test_parameters_are_as_many_as_published(shapes, parts, published):
    """Oracle: SD-1.5 859.5 M, motion modules v2 453.2 M, trainable 643 M in Animate3D's logs."""
    found = sum(math.prod(shape) for shape in parts_of(shapes, *parts).values()) / MILLION
    assert found == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("camera_embedding.linear_1.weight", "camera"),
        ("image_projection.norm.bias", "image"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_v_ip.weight", "image"),
        ("mid_block.attentions.0.transformer_blocks.0.attn1.to_out_i2v.bias", "frame0"),
        ("mid_block.motion_modules.0.transformer_blocks.0.attn2.blender.mix_factor", "spatial"),
        ("mid_block.motion_modules.0.transformer_blocks.0.attn2.to_out.0.bias", "motion"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias", "base"),
    ],
)
def test_part_of_name_is_its_source(name, part):
    """Oracle: who published that weight."""
    assert part_of(name) == part


def test_renamed_applies_rules_in_order():
    """Oracle: by hand."""
    assert renamed("a.b.c", ((r"a\.", "x."), (r"^x\.(\w)", r"y.\1\1"))) == "y.bb.c"


NAMES, SHAPES = {"a.weight": "A", "b.weight": "B"}, {"a.weight": (2, 3), "b.weight": (4, 4)}
GOOD = {"A": torch.ones(2, 3), "B": torch.ones(4, 4, dtype=torch.float16)}


def taking(source, **changes):
    return take(source, NAMES, SHAPES, where="x.bin", what="two tensors", hint="take another", **changes)


def test_take_gives_float32_under_our_names():
    """Oracle: the values that went in."""
    taken = taking({**GOOD, "betas": torch.ones(1)}, dropped=("betas", "not there"))
    assert list(taken) == ["a.weight", "b.weight"]
    assert {value.dtype for value in taken.values()} == {torch.float32}
    torch.testing.assert_close(taken["b.weight"], torch.ones(4, 4))


def test_take_flattens_convolutions_only_when_asked():
    """Oracle: (out, in, 1, 1) holds the numbers of (out, in) in the same order."""
    source = {**GOOD, "B": torch.arange(16.0).reshape(4, 4, 1, 1)}
    torch.testing.assert_close(taking(source, flatten_convolutions=True)["b.weight"], torch.arange(16.0).reshape(4, 4))
    with pytest.raises(InputError, match=r"B of shape \(4, 4, 1, 1\) for \(4, 4\)"):
        taking(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"A": GOOD["A"]}, "x.bin: found no B, expected two tensors; take another"),
        ({**GOOD, "C": torch.ones(1)}, "found C, for which there is no rule,"),
        ({**GOOD, "A": torch.ones(3, 2)}, r"found A of shape \(3, 2\) for \(2, 3\),"),
        ({**GOOD, "A": torch.ones(2, 3, dtype=torch.int64)}, "found A of torch.int64,"),
        ({**GOOD, "A": torch.tensor([[1.0, math.inf, 0], [0, 0, 0]])}, "found NaN or infinity in A,"),
        ({**GOOD, "B": torch.full((4, 4), math.nan)}, "found NaN or infinity in B,"),
        ({"C": GOOD["A"], "D": GOOD["A"]}, "found no A, no B, C, for which there is no rule and 1 more,"),
    ],
)
def test_take_refuses_what_is_not_spoken_for(source, message):
    """Oracle: the message names the first three."""
    with pytest.raises(InputError, match=message):
        taking(source)
