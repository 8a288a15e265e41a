"""Motion modules in diffusers' form and the original one, against diffusers' classes and its own conversion."""

from __future__ import annotations

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

from manifests.errors import InputError
from tests.train.tiny_models import SMALL, inputs, randomize, small_unet
from train.convert.animatediff import check_frame_codes, from_path, is_motion_file, original_name, to_adapter
from train.convert.keys import parts_of, unet_shapes

LIKE_SMALL = {
    "block_out_channels": SMALL["block_out_channels"],
    "motion_layers_per_block": SMALL["layers_per_block"],
    "motion_num_attention_heads": 2,
    "motion_norm_num_groups": SMALL["norm_num_groups"],
}


def small_adapter(**changes) -> MotionAdapter:
    return randomize(MotionAdapter(**{**LIKE_SMALL, **changes}))


def without_tables(tensors) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith("pos_embed.pe")}


def test_original_names_are_those_that_diffusers_converts():
    """Oracle: diffusers' conversion of the original file, at the real size."""
    shapes = parts_of(unet_shapes({}), "motion")
    file = {original_name(name): name for name in shapes}
    assert len(file) == 546
    assert (
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_q.weight"
        in file
    )
    assert convert_animatediff_checkpoint_to_diffusers(file) == {name: name for name in shapes}


@pytest.mark.parametrize("form", ["folder", "original", "distributed"])
def test_modules_are_read_from_every_form(tmp_path, form):
    """Oracle: the adapter they were written from, bit-equal."""
    adapter = small_adapter()
    if form == "folder":
        adapter.save_pretrained(tmp_path / "x")
    else:
        file = {
            original_name(name).replace(".pos_embed.pe", ".attention_blocks.0.pos_encoder.pe"): value
            for name, value in adapter.state_dict().items()
        }
        prefix = "module." if form == "distributed" else ""
        torch.save({"state_dict": {f"{prefix}{name}": value for name, value in file.items()}}, tmp_path / "x")
    fields, taken = from_path(tmp_path / "x", SMALL)
    assert fields == {"motion_modules": True, "motion_num_attention_heads": 2 if form == "folder" else 8}
    expected = without_tables(adapter.state_dict())
    assert taken.keys() == expected.keys()
    assert all(torch.equal(taken[name], expected[name]) for name in taken)


def test_exported_modules_make_the_same_video_network(tmp_path):
    """Oracle: diffusers' UNetMotionModel from a base and the exported folder; ours at one view, no new branch."""
    ours = small_unet(camera_embed_dim=None, mv2v_adapter=False, spatial_branch=False)
    config, tensors = to_adapter(ours.state_dict(), ours.config)
    adapter = MotionAdapter(**config)
    adapter.load_state_dict(tensors)
    adapter.save_pretrained(tmp_path)
    blocks = {key: tuple(f"{kind}2D" for kind in SMALL[key]) for key in ("down_block_types", "up_block_types")}
    base = UNet2DConditionModel(attention_head_dim=2, **{**SMALL, **blocks})
    base.load_state_dict(parts_of(ours.state_dict(), "base"))
    theirs = UNetMotionModel.from_unet2d(base, MotionAdapter.from_pretrained(tmp_path)).eval()
    given = inputs(batch=1, views=1)
    sample, timestep, text = (given[key] for key in ("sample", "timestep", "encoder_hidden_states"))
    with torch.no_grad():
        repeated = text.repeat_interleave(sample.shape[2], 0)
        expected = theirs(sample[:, 0].transpose(1, 2), timestep, repeated).sample.transpose(1, 2)
        torch.testing.assert_close(ours(sample, timestep, text).sample[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_export_and_import_are_inverse(tmp_path):
    """Oracle: round trips from both ends, bit-equal, position tables included."""
    adapter = small_adapter()
    adapter.save_pretrained(tmp_path)
    fields, taken = from_path(tmp_path, SMALL)
    config, tensors = to_adapter(taken, {**SMALL, **fields})
    assert tensors.keys() == adapter.state_dict().keys()
    for name, value in adapter.state_dict().items():
        if name.endswith("pos_embed.pe"):  # computed in another order of operations
            torch.testing.assert_close(tensors[name], value, rtol=0, atol=1e-6)
        else:
            assert torch.equal(tensors[name], value)
    assert {name: config[name] for name in LIKE_SMALL} == LIKE_SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_motion_mid_block": False}, "found use_motion_mid_block False"),
        ({"conv_in_channels": 9}, "found conv_in_channels 9"),
        ({"motion_norm_num_groups": 2}, "found motion_norm_num_groups 2"),
        ({"block_out_channels": (16, 32)}, "found no .* expected AnimateDiff's motion modules"),
        ({"motion_layers_per_block": 2}, "for which there is no rule"),
    ],
)
def test_modules_of_another_kind_are_refused(tmp_path, changes, message):
    """Oracle: one field differs, as in AnimateDiff v1 and v3 (no middle block) or PIA (9 channels)."""
    small_adapter(**changes).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        from_path(tmp_path, SMALL)


def test_position_tables_of_their_own_are_refused():
    """Oracle: diffusers' table passes in both precisions, a changed one and one of another form do not."""
    table = small_adapter().state_dict()["mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe"]
    check_frame_codes({"pe": table, "half": table.half()}, ["pe", "half"], "x")
    with pytest.raises(InputError, match="position codes of its own in pe"):
        check_frame_codes({"pe": table + 0.01}, ["pe"], "x")
    with pytest.raises(InputError, match=r"pe of shape \(32, 32\)"):
        check_frame_codes({"pe": table[0]}, ["pe"], "x")


def test_motion_files_are_told_from_others():
    """Oracle: by hand."""
    assert is_motion_file(["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"])
    assert not is_motion_file(["down_blocks.0.motion_modules.0.norm.weight", "conv_in.weight"])
    assert not is_motion_file([])
