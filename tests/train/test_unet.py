"""The network against diffusers' own, against restatements of the papers, and by its symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import nn

from manifests.errors import InputError
from tests.train.tiny_models import HEADS, SMALL, inputs, randomize, small_unet
from train.models.unet_mv_motion import (
    Condition,
    MotionModule,
    MultiViewAttention,
    MVUNetMotionModel,
    Sizes,
    SpatialBlock,
    SpatioTemporalAttention,
    frame_code,
    pixel_code,
)

PLAIN = {"camera_embed_dim": None, "mv2v_adapter": False, "motion_modules": False}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def count(parameters) -> int:
    return sum(value.numel() for value in parameters)


@pytest.fixture(scope="module")
def full_size() -> MVUNetMotionModel:
    with torch.device("meta"):
        return MVUNetMotionModel()


# -- parity ------------------------------------------------------------------------------------------------------------


def test_unet_at_one_view_and_frame_is_diffusers_sd15():
    """Against diffusers' UNet2DConditionModel with the same weights: equal outputs and gradients."""
    blocks = {key: tuple(f"{k}2D" for k in SMALL[key]) for key in ("down_block_types", "up_block_types")}
    theirs = randomize(UNet2DConditionModel(attention_head_dim=2, **{**SMALL, **blocks}))
    ours = MVUNetMotionModel(**SMALL, **HEADS, **PLAIN).eval()
    ours.load_state_dict(theirs.state_dict())
    given = inputs(views=1, frames=1)
    sample, timestep, text = (given[k] for k in ("sample", "timestep", "encoder_hidden_states"))
    expected = theirs(sample[:, 0, 0], timestep, text).sample
    found = ours(sample, timestep, text).sample[:, 0, 0]
    torch.testing.assert_close(found, expected, **TOLERANCE)
    expected.square().sum().backward()
    found.square().sum().backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters()}
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], rtol=1e-3, atol=1e-3)


def test_unet_at_one_view_is_diffusers_motion_model():
    """Against diffusers' UNetMotionModel: new branches absent, and present with output layers that give nothing."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
    }
    theirs = randomize(UNetMotionModel(num_attention_heads=2, motion_num_attention_heads=2, **{**SMALL, **blocks}))
    weights = {name: value for name, value in theirs.state_dict().items() if not name.endswith("pos_embed.pe")}
    given = inputs(views=1)
    sample, timestep, text = (given[k] for k in ("sample", "timestep", "encoder_hidden_states"))
    frames = sample.shape[2]
    # Theirs wants (B, C, F, H, W) and the text repeated over frames, whatever its docstring says.
    with torch.no_grad():
        expected = theirs(sample[:, 0].transpose(1, 2), timestep, text.repeat_interleave(frames, 0)).sample
    expected = expected.transpose(1, 2)

    without = MVUNetMotionModel(**SMALL, **HEADS, camera_embed_dim=None, mv2v_adapter=False, spatial_branch=False)
    without.eval().load_state_dict(weights)
    within = small_unet(camera_embed_dim=None, blend_init=-1e4)
    state = within.state_dict()
    state.update(weights)
    for name, value in state.items():
        if "to_out_i2v" in name:
            value.zero_()
        if "mix_factor" in name:
            value.fill_(-1e4)  # the sigmoid is 0: all temporal
    within.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(without(sample, timestep, text).sample[:, 0], expected, **TOLERANCE)
        torch.testing.assert_close(within(sample, timestep, text).sample[:, 0], expected, **TOLERANCE)


class MVDreamBlock(nn.Module):
    """MVDream's block, restated from the paper (section 3.1): tokens of all views joined, softmax by hand."""

    def __init__(self, block: SpatialBlock, heads: int) -> None:
        super().__init__()
        self.block, self.heads = block, heads

    def attend(self, layer, x, context):
        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(layer.to_q(x)), split(layer.to_k(context)), split(layer.to_v(context))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return layer.to_out[0]((weights @ value).transpose(1, 2).flatten(2))

    def forward(self, x, text, views):
        joined = self.block.norm1(x).reshape(-1, views * x.shape[1], x.shape[2])
        x = x + self.attend(self.block.attn1, joined, joined).reshape(x.shape)
        x = x + self.attend(self.block.attn2, self.block.norm2(x), text.repeat_interleave(views, 0))
        return x + self.block.ff(self.block.norm3(x))


def test_spatial_block_at_one_frame_is_mvdreams():
    """Against a restatement of MVDream's block with explicit softmax."""
    block = randomize(SpatialBlock(16, 2, 12, adapter=False))
    x, text = torch.randn(6, 9, 16), torch.randn(2, 5, 12)
    with torch.no_grad():
        found = block(x, Condition(text, None), Sizes(2, 1, 3))
        expected = MVDreamBlock(block, 2)(x, text, 3)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_camera_and_time_embeddings_add_up_as_in_mvdream():
    """Against MVDream's formula: linear, SiLU, linear of the 16 numbers, added to the time embedding."""
    unet = small_unet()
    given = inputs()
    emb = unet._embed(given["timestep"], given["camera"], Sizes(2, 4, 3), given["sample"]).unflatten(0, (2, 4, 3))
    layer = unet.camera_embedding
    hidden = given["camera"] @ layer.linear_1.weight.T + layer.linear_1.bias
    camera = (hidden * hidden.sigmoid()) @ layer.linear_2.weight.T + layer.linear_2.bias
    time = unet.time_embedding(unet.time_proj(given["timestep"]))
    torch.testing.assert_close(emb, (time[:, None] + camera)[:, None].expand(-1, 4, -1, -1), **TOLERANCE)


def by_hand(query, key, value, heads):
    """Attention of one sequence, head by head."""
    parts = []
    for q, k, v in zip(*(x.chunk(heads, -1) for x in (query, key, value)), strict=True):
        parts.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v)
    return torch.cat(parts, -1)


def test_spatiotemporal_attention_is_the_papers():
    """Against loops over views, pixels and frames: sigmoid blend of two branches, each with its own position code."""
    batch, frames, views, height, width, channels = 1, 3, 2, 2, 3, 8
    attention = randomize(SpatioTemporalAttention(channels, 2, spatial_branch=True, blend_init=0.0))
    with torch.no_grad():
        attention.blender.mix_factor.fill_(0.7)
        x = torch.randn(batch, frames, views, height * width, channels)
        expected = torch.empty_like(x)
        alpha = 1 / (1 + math.exp(-0.7))
        time = torch.tensor([
            [f(t / 10000 ** (2 * k / channels)) for k in range(channels // 2) for f in (math.sin, math.cos)]
            for t in range(frames)
        ])  # fmt: skip
        for view in range(views):
            for pixel in range(height * width):
                y = x[0, :, view, pixel] + time
                out = by_hand(attention.to_q(y), attention.to_k(y), attention.to_v(y), 2)
                expected[0, :, view, pixel] = (1 - alpha) * attention.to_out[0](out)
        for frame in range(frames):
            y = (x[0, frame] + pixel_code(height, width, channels, x.device)).flatten(0, 1)
            out = attention.to_out_sp(by_hand(attention.to_q_sp(y), attention.to_k_sp(y), attention.to_v_sp(y), 2))
            expected[0, frame] += alpha * out.reshape(views, -1, channels)
        torch.testing.assert_close(attention(x, height, width), expected, **TOLERANCE)


def test_adapter_attends_to_frame_0_of_all_views():
    """Against loops over frames: own query, frame 0's keys and values of every view, summed before the output layer."""
    batch, frames, views, tokens, channels = 2, 3, 2, 4, 8
    attention = randomize(MultiViewAttention(channels, 2, adapter=True))
    with torch.no_grad():
        x = torch.randn(batch, frames, views, tokens, channels)
        expected = torch.empty_like(x)
        for b in range(batch):
            first = x[b, 0].flatten(0, 1)
            for f in range(frames):
                y = x[b, f].flatten(0, 1)
                own = by_hand(attention.to_q(y), attention.to_k(y), attention.to_v(y), 2)
                seen = by_hand(attention.to_q_i2v(y), attention.to_k(first), attention.to_v(first), 2)
                expected[b, f] = attention.to_out[0](own + attention.to_out_i2v(seen)).reshape(views, tokens, channels)
        found = attention(x.flatten(0, 2), Sizes(batch, frames, views))
    torch.testing.assert_close(found, expected.flatten(0, 2), **TOLERANCE)


def test_position_codes_are_the_published_ones():
    """Against diffusers' SinusoidalPositionalEmbedding, and against DETR's formula written out."""
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    table = SinusoidalPositionalEmbedding(16, 32).pe[0]
    torch.testing.assert_close(frame_code(32, 16, table.device), table)
    height, width, channels = 3, 5, 8
    code = pixel_code(height, width, channels, table.device).unflatten(0, (height, width))
    for row in range(height):
        for column in range(width):
            for k in range(channels // 2):
                wavelength = 10000 ** (2 * (k // 2) / (channels // 2))
                wave = math.sin if k % 2 == 0 else math.cos
                y, x = (row + 1) / (height + 1e-6) * 2 * math.pi, (column + 1) / (width + 1e-6) * 2 * math.pi
                assert code[row, column, k].item() == pytest.approx(wave(y / wavelength), abs=1e-5)
                assert code[row, column, channels // 2 + k].item() == pytest.approx(wave(x / wavelength), abs=1e-5)


# -- size and names ----------------------------------------------------------------------------------------------------


def test_names_and_counts_are_those_of_the_public_checkpoints(full_size):
    """Against diffusers' classes at full size on the meta device, and the counts of the released loader."""
    with torch.device("meta"):
        base = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        motion = UNetMotionModel(cross_attention_dim=768, num_attention_heads=8)
    shapes = {name: value.shape for name, value in full_size.state_dict().items()}
    assert all(shapes[n] == v.shape for n, v in base.state_dict().items())
    theirs = {n: v.shape for n, v in motion.state_dict().items() if "motion_modules" in n and "pos_embed" not in n}
    ours = {n: s for n, s in shapes.items() if "motion_modules" in n and "_sp." not in n and "blender" not in n}
    assert ours == theirs
    trained = full_size.trainable_parameters()
    # animate3d_motion_modules.ckpt holds the trained weights alone; the released loader allows 726 missing keys.
    assert len(shapes) - len(trained) == 726 == len(base.state_dict()) + 4 + 32 + 4
    assert count(base.parameters()) == 859_520_964
    assert count(trained.values()) == 642_699_562
    assert count(v for n, v in trained.items() if "_i2v." in n) == 24_793_280
    assert count(v for n, v in trained.items() if "_sp." in n) == 164_696_960


# -- properties --------------------------------------------------------------------------------------------------------


def test_permuting_the_views_permutes_the_output():
    """No view is special: the network has no code of the view's number."""
    unet, given = small_unet(), inputs()
    order = torch.tensor([2, 0, 1])
    turned = given | {name: given[name][:, order] for name in ("sample", "camera", "image_embeds")}
    with torch.no_grad():
        torch.testing.assert_close(unet(**turned).sample, unet(**given).sample[:, order], **TOLERANCE)


def test_clips_of_a_batch_do_not_see_each_other():
    """Against each clip alone."""
    unet, given = small_unet(), inputs()
    with torch.no_grad():
        whole = unet(**given).sample
        for b in range(2):
            alone = unet(**{name: value[b : b + 1] for name, value in given.items()}).sample
            torch.testing.assert_close(whole[b : b + 1], alone, **TOLERANCE)


@pytest.mark.parametrize(
    ("views", "frames", "size"), [(1, 1, (8, 8)), (2, 7, (8, 16)), (5, 2, (12, 4)), (2, 2, (9, 7))]
)
def test_views_frames_and_pixels_are_free_at_run_time(views, frames, size):
    """One network takes them all, sizes that do not divide too."""
    given = inputs(1, views, frames, size)
    with torch.no_grad():
        assert small_unet()(**given).sample.shape == given["sample"].shape


def test_a_timestep_for_each_frame_equals_one_for_all_where_they_agree():
    """(B, F) against (B,); and frame 0 at time zero makes a difference."""
    unet, given = small_unet(), inputs()
    each = given["timestep"][:, None].expand(-1, 4).clone()
    with torch.no_grad():
        whole = unet(**given).sample
        torch.testing.assert_close(unet(**given | {"timestep": each}).sample, whole, **TOLERANCE)
        each[:, 0] = 0
        assert not torch.allclose(unet(**given | {"timestep": each}).sample, whole)


def test_every_condition_reaches_the_prediction():
    """Text, camera, image embedding and the clean frame 0 each change frames 1 and later."""
    unet, given = small_unet(), inputs()
    with torch.no_grad():
        whole = unet(**given).sample[:, :, 1:]
        for name in ("encoder_hidden_states", "camera", "image_embeds"):
            assert not torch.allclose(unet(**given | {name: given[name] + 1}).sample[:, :, 1:], whole, atol=1e-4), name
        other = given["sample"].clone()
        other[:, :, 0] += 1
        assert not torch.allclose(unet(**given | {"sample": other}).sample[:, :, 1:], whole, atol=1e-4)


def test_a_fresh_adapter_and_fresh_motion_change_nothing():
    """Against the same base without them: zero output layers; the adapter's queries are copies."""
    base = small_unet(motion_modules=False, mv2v_adapter=False)
    full = MVUNetMotionModel(**SMALL, **HEADS, image_embed_dim=10, image_tokens=3).eval()
    full.load_state_dict({**full.state_dict(), **base.state_dict()})
    full.start_new_layers()
    given = inputs()
    del given["image_embeds"]
    with torch.no_grad():
        torch.testing.assert_close(full(**given).sample, base(**given).sample, **TOLERANCE)
    attention = full.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    assert torch.equal(attention.to_q_i2v.weight, attention.to_q.weight)


@pytest.mark.parametrize(
    ("switch", "absent"),
    [
        ({"spatial_branch": False}, "_sp."),
        ({"mv2v_adapter": False}, "_i2v."),
        ({"motion_modules": False}, "motion_modules"),
        ({"camera_embed_dim": None}, "camera_embedding"),
    ],
)
def test_switches_of_the_ablations_remove_their_weights(switch, absent):
    """Nothing of a switched-off part is left, the rest stays."""
    names, rest = set(small_unet().state_dict()), set(small_unet(**switch).state_dict())
    assert rest < names
    assert not any(absent in name for name in rest)
    assert any(absent in name for name in names)


# -- diffusers' habits -------------------------------------------------------------------------------------------------


def test_checkpointed_gradients_equal_plain_ones_and_cover_the_motion_modules():
    """Gradients with recomputation against those without; every resnet, transformer and motion module is recomputed."""
    unet, given = small_unet().train(), inputs()
    unet(**given).sample.square().sum().backward()
    plain = {name: value.grad.clone() for name, value in unet.named_parameters()}
    unet.zero_grad()
    unet.enable_gradient_checkpointing()
    runs: dict[nn.Module, int] = {}
    for module in unet.modules():
        if isinstance(module, MotionModule):
            # Before, not after: recomputation stops as soon as it has what the backward pass needs.
            module.register_forward_pre_hook(lambda m, *_: runs.update({m: runs.get(m, 0) + 1}))
    unet(**given).sample.square().sum().backward()
    assert runs
    assert set(runs.values()) == {2}
    for name, value in unet.named_parameters():
        torch.testing.assert_close(value.grad, plain[name], rtol=1e-4, atol=1e-4)


def test_gradient_equals_finite_difference():
    """Against central differences in float64, through every kind of layer."""
    unet = small_unet().double()
    given = {name: value.double() if value.is_floating_point() else value for name, value in inputs(1, 2, 2).items()}
    weight = torch.randn(given["sample"].shape, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (unet(**given).sample * weight).sum()

    value().backward()
    names = dict(unet.named_parameters())
    wanted = (
        "to_q_i2v",
        "to_k_ip",
        "to_v_sp",
        "mix_factor",
        "camera_embedding.linear_1.weight",
        "image_projection.norm",
    )
    for part in wanted:
        name = next(n for n in names if part in n)
        parameter, index = names[name], (0,) * names[name].ndim
        gradient = parameter.grad[index].item()
        with torch.no_grad():
            before, step = parameter[index].item(), 1e-5
            parameter[index] = before + step
            up = value().item()
            parameter[index] = before - step
            down = value().item()
            parameter[index] = before
        assert gradient == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-6), name


def test_saved_and_loaded_network_gives_the_same_bits(tmp_path):
    """Round trip through diffusers' own save_pretrained and from_pretrained, adapters included."""
    unet, given = small_unet(), inputs()
    unet.save_pretrained(tmp_path)
    again, report = MVUNetMotionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    for name, value in dict(unet.config).items():
        assert name[0] == "_" or again.config[name] == (list(value) if isinstance(value, tuple) else value), name
    with torch.no_grad():
        assert torch.equal(again(**given).sample, unet(**given).sample)


def test_attention_backends_agree():
    """SDPA by its name and its math kernel; the setting reaches every attention."""
    unet, given = small_unet(), inputs()
    with torch.no_grad():
        default = unet(**given).sample
        unet.set_attention_backend("_native_math")
        assert all(p._attention_backend == "_native_math" for p in unet.attn_processors.values())
        torch.testing.assert_close(unet(**given).sample, default, **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": torch.zeros(2, 3, 4, 5, 8, 8)}, r"sample: found shape \(2, 3, 4, 5, 8, 8\)"),
        ({"sample": torch.zeros(2, 4, 8, 8)}, "sample: found shape"),
        ({"timestep": torch.zeros(3)}, r"timestep: found shape \(3,\)"),
        ({"encoder_hidden_states": torch.zeros(6, 5, 12)}, "one text a clip"),
        ({"camera": None}, "camera: found none"),
        ({"camera": torch.zeros(2, 4, 16)}, "one camera a view"),
        ({"image_embeds": torch.zeros(2, 3, 11)}, "one embedding a view"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    """One sentence with what was found, before anything is computed."""
    with pytest.raises(InputError, match=message):
        small_unet()(**inputs() | change)


def test_block_lists_that_do_not_fit_are_refused():
    """A config that cannot be built."""
    with pytest.raises(InputError, match="down_block_types: found"):
        MVUNetMotionModel(block_out_channels=(8, 16))
