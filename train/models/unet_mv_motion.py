"""MV-VDM's network: a multi-view, multi-frame UNet with everything it can learn declared in its config.

SD-1.5's UNet whose self-attention spans all views of a frame (MVDream, arXiv 2308.16512), with AnimateDiff's motion
modules (arXiv 2307.04725), Animate3D's spatiotemporal block and MV2V-Adapter (arXiv 2407.11398, section 3; details
after its released code: yanqinJiang/Animate3D at 033a1be, animatediff/models). Nothing is attached after construction,
so a checkpoint round-trips; no number of views, frames or pixels is stored, so all four are free at run time.

Letters in shapes: B batch, V view, F frame, N = B*F*V images in that order, C channel, H height, W width, L = H*W
tokens of an image, T tokens of a text, E channels of the time embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin, AttentionModuleMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from manifests.errors import InputError

__all__ = [
    "CROSS_ATTENTION",
    "Attention",
    "Blend",
    "Condition",
    "CrossAttention",
    "DispatchProcessor",
    "DownStage",
    "MVUNetMotionModel",
    "MVUNetMotionOutput",
    "MidStage",
    "MotionBlock",
    "MotionModule",
    "MultiViewAttention",
    "Sizes",
    "SpatialBlock",
    "SpatialTransformer",
    "SpatioTemporalAttention",
    "Stage",
    "UpStage",
    "frame_code",
    "pixel_code",
]

CROSS_ATTENTION = {"CrossAttnDownBlock": True, "DownBlock": False, "CrossAttnUpBlock": True, "UpBlock": False}
"""Kind of block -> whether it has attention; named as in diffusers' configs."""


@dataclass
class MVUNetMotionOutput(BaseOutput):
    """What the network predicts: noise or v, (B, V, F, C, H, W); at frame 0, the clean condition, it means nothing."""

    sample: Tensor


class Sizes(NamedTuple):
    """How N images divide into batch, frames and views."""

    batch: int
    frames: int
    views: int


class Condition(NamedTuple):
    """What cross-attention reads: text (B, T, C) and, where given, image tokens (B, V, tokens, C)."""

    text: Tensor
    image: Tensor | None


# -- position codes ----------------------------------------------------------------------------------------------------


def _wavelengths(channels: int, device: torch.device) -> Tensor:
    return torch.exp(torch.arange(0, channels, 2, device=device) * (-math.log(10000.0) / channels))


def frame_code(num_frames: int, channels: int, device: torch.device) -> Tensor:
    """(F, C) sine and cosine of the frame's number, interleaved; AnimateDiff's table, for any length."""
    phase = torch.arange(num_frames, device=device)[:, None] * _wavelengths(channels, device)
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(1)


def pixel_code(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(L, C) 2D sine code: rows in the first half of the channels, columns in the second.

    Positions are normalised to 2 pi over the grid, so it fits any size. Source: DETR (arXiv 2005.12872), section A.4.
    """

    def axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device) / (length + 1e-6) * 2 * math.pi
        phase = position[:, None] * _wavelengths(channels // 2, device)
        return torch.stack([phase.sin(), phase.cos()], -1).flatten(1)

    rows, columns = axis(height), axis(width)
    shape = (height, width, channels // 2)
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], -1).flatten(0, 1)


# -- attention ---------------------------------------------------------------------------------------------------------


class DispatchProcessor:
    """The attention itself, by the backend that `set_attention_backend` chose; holds no weights and no sizes."""

    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of (batch, queries, C) over (batch, keys, C)."""
        query, key, value = (x.unflatten(-1, (attn.heads, -1)) for x in (query, key, value))
        out = dispatch_attention_fn(
            query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        return out.flatten(2).to(query.dtype)


class Attention(nn.Module, AttentionModuleMixin):
    """The projections that every attention here has, under diffusers' names.

    Args:
        channels: of queries and output.
        heads: among which they are divided.
        context_channels: of keys and values; None is `channels`.
    """

    _default_processor_cls = DispatchProcessor
    _available_processors = (DispatchProcessor,)
    _supports_qkv_fusion = False

    def __init__(self, channels: int, heads: int, context_channels: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.set_processor(DispatchProcessor())


class MultiViewAttention(Attention):
    """Self-attention over all views of a frame, and the MV2V-Adapter's attention to frame 0.

    The adapter asks with its own query for the frozen keys and values of frame 0; its output layer starts at zero
    (I2V-Adapter's recipe, arXiv 2312.16693, over the tokens of all views).
    """

    def __init__(self, channels: int, heads: int, adapter: bool) -> None:
        super().__init__(channels, heads)
        self.to_q_i2v = nn.Linear(channels, channels, bias=False) if adapter else None
        self.to_out_i2v = nn.Linear(channels, channels) if adapter else None

    def forward(self, x_NLC: Tensor, sizes: Sizes) -> Tensor:
        batch, frames, _ = sizes
        by_frame = x_NLC.reshape(batch * frames, -1, x_NLC.shape[-1])  # (B*F, V*L, C)
        key, value = self.to_k(by_frame), self.to_v(by_frame)
        out = self.processor(self, self.to_q(by_frame), key, value)
        if self.to_q_i2v is not None:
            # All frames of a clip ask the same keys: they are one long sequence of queries, and nothing is repeated.
            by_clip = x_NLC.reshape(batch, -1, x_NLC.shape[-1])  # (B, F*V*L, C)
            key0, value0 = (x.unflatten(0, (batch, frames))[:, 0] for x in (key, value))
            found = self.processor(self, self.to_q_i2v(by_clip), key0, value0)
            out = out + self.to_out_i2v(found).reshape(out.shape)
        return self.to_out[0](out).reshape(x_NLC.shape)


class CrossAttention(Attention):
    """Attention to the text, and IP-Adapter's to the image tokens of the own view (arXiv 2308.06721)."""

    def __init__(self, channels: int, heads: int, context_channels: int, adapter: bool) -> None:
        super().__init__(channels, heads, context_channels)
        self.to_k_ip = nn.Linear(context_channels, channels, bias=False) if adapter else None
        self.to_v_ip = nn.Linear(context_channels, channels, bias=False) if adapter else None

    def forward(self, x_NLC: Tensor, condition: Condition, sizes: Sizes) -> Tensor:
        query = self.to_q(x_NLC)
        by_clip = query.reshape(sizes.batch, -1, query.shape[-1])  # (B, F*V*L, C)
        out = self.processor(self, by_clip, self.to_k(condition.text), self.to_v(condition.text)).reshape(query.shape)
        if self.to_k_ip is not None and condition.image is not None:
            tokens = condition.image[:, None].expand(-1, sizes.frames, -1, -1, -1).flatten(0, 2)  # (N, tokens, C)
            out = out + self.processor(self, query, self.to_k_ip(tokens), self.to_v_ip(tokens))
        return self.to_out[0](out)


class Blend(nn.Module):
    """``a * first + (1 - a) * second`` with a = sigmoid(learned).

    diffusers' AlphaBlender under its names; that one is not made where a device context says (no meta tensors).
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.full((1,), start))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.lerp(second, first, self.mix_factor.sigmoid().to(first.dtype))


class SpatioTemporalAttention(Attention):
    """AnimateDiff's attention over frames, in parallel with one over all pixels of all views of a frame.

    ``out = a * spatial + (1 - a) * temporal`` with a = sigmoid(learned), one a layer (Animate3D, section 3.2). Each
    branch adds its own position code. Without the branch it is AnimateDiff's attention.
    """

    def __init__(self, channels: int, heads: int, spatial_branch: bool, blend_init: float) -> None:
        super().__init__(channels, heads)
        self.blender = Blend(blend_init) if spatial_branch else None
        for name in ("to_q_sp", "to_k_sp", "to_v_sp"):
            setattr(self, name, nn.Linear(channels, channels, bias=False) if spatial_branch else None)
        self.to_out_sp = nn.Linear(channels, channels) if spatial_branch else None

    def forward(self, x_BFVLC: Tensor, height: int, width: int) -> Tensor:
        temporal = self._temporal(x_BFVLC)
        if self.blender is None:
            return temporal
        return self.blender(self._spatial(x_BFVLC, height, width), temporal)

    def _temporal(self, x_BFVLC: Tensor) -> Tensor:
        frames, channels = x_BFVLC.shape[1], x_BFVLC.shape[-1]
        x = x_BFVLC.permute(0, 2, 3, 1, 4) + frame_code(frames, channels, x_BFVLC.device).to(x_BFVLC.dtype)
        flat = x.flatten(0, 2)  # (B*V*L, F, C)
        out = self.processor(self, self.to_q(flat), self.to_k(flat), self.to_v(flat))
        return self.to_out[0](out).reshape(x.shape).permute(0, 3, 1, 2, 4)

    def _spatial(self, x_BFVLC: Tensor, height: int, width: int) -> Tensor:
        x = x_BFVLC + pixel_code(height, width, x_BFVLC.shape[-1], x_BFVLC.device).to(x_BFVLC.dtype)
        flat = x.flatten(2, 3).flatten(0, 1)  # (B*F, V*L, C)
        out = self.processor(self, self.to_q_sp(flat), self.to_k_sp(flat), self.to_v_sp(flat))
        return self.to_out_sp(out).reshape(x.shape)


# -- transformers ------------------------------------------------------------------------------------------------------


class SpatialBlock(nn.Module):
    """Multi-view self-attention, cross-attention, feed-forward."""

    def __init__(self, channels: int, heads: int, context_channels: int, adapter: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = MultiViewAttention(channels, heads, adapter)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = CrossAttention(channels, heads, context_channels, adapter)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, x_NLC: Tensor, condition: Condition, sizes: Sizes) -> Tensor:
        x_NLC = x_NLC + self.attn1(self.norm1(x_NLC), sizes)
        x_NLC = x_NLC + self.attn2(self.norm2(x_NLC), condition, sizes)
        return x_NLC + self.ff(self.norm3(x_NLC))


class MotionBlock(nn.Module):
    """Two spatiotemporal attentions and a feed-forward."""

    def __init__(self, channels: int, heads: int, spatial_branch: bool, blend_init: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SpatioTemporalAttention(channels, heads, spatial_branch, blend_init)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = SpatioTemporalAttention(channels, heads, spatial_branch, blend_init)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, x_BFVLC: Tensor, height: int, width: int) -> Tensor:
        x_BFVLC = x_BFVLC + self.attn1(self.norm1(x_BFVLC), height, width)
        x_BFVLC = x_BFVLC + self.attn2(self.norm2(x_BFVLC), height, width)
        return x_BFVLC + self.ff(self.norm3(x_BFVLC))


class SpatialTransformer(nn.Module):
    """A residual transformer on the pixels of each image."""

    def __init__(self, channels: int, heads: int, context_channels: int, groups: int, adapter: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, heads, context_channels, adapter)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_NCHW: Tensor, condition: Condition, sizes: Sizes) -> Tensor:
        height, width = x_NCHW.shape[-2:]
        x_NLC = self.proj_in(self.norm(x_NCHW)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            x_NLC = block(x_NLC, condition, sizes)
        return x_NCHW + self.proj_out(x_NLC.transpose(1, 2).unflatten(2, (height, width)))


class MotionModule(nn.Module):
    """AnimateDiff's residual transformer, on all frames and views; its output layer starts at zero.

    The group norm takes its statistics over all frames of a view, as diffusers' UNetMotionModel does, on which
    Animate3D was trained (AnimateDiff's first code took them frame by frame).
    """

    def __init__(self, channels: int, heads: int, groups: int, spatial_branch: bool, blend_init: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, heads, spatial_branch, blend_init)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x_NCHW: Tensor, sizes: Sizes) -> Tensor:
        batch, frames, views = sizes
        channels, height, width = x_NCHW.shape[1:]
        by_view = x_NCHW.reshape(batch, frames, views, channels, height * width).permute(0, 2, 3, 1, 4)
        normed = self.norm(by_view.flatten(0, 1)).unflatten(0, (batch, views))  # (B, V, C, F, L)
        x = self.proj_in(normed.permute(0, 3, 1, 4, 2))  # (B, F, V, L, C)
        for block in self.transformer_blocks:
            x = block(x, height, width)
        return x_NCHW + self.proj_out(x).transpose(-1, -2).reshape(x_NCHW.shape)


# -- stages ------------------------------------------------------------------------------------------------------------


class Stage(nn.Module):
    """Layers of one resolution. Each layer is a unit of gradient checkpointing, the motion modules included."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def run(self, layer: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(layer, *inputs)
        return layer(*inputs)


class DownStage(Stage):
    """Resnet, attention and motion, layer by layer; then half the resolution."""

    def __init__(self, resnets: list, attentions: list, motions: list, downsampler: Downsample2D | None) -> None:
        super().__init__()
        _register(self, resnets, attentions, motions)
        self.downsamplers = nn.ModuleList([downsampler]) if downsampler is not None else None

    def forward(
        self, x_NCHW: Tensor, emb_NE: Tensor, condition: Condition, sizes: Sizes
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        skips: tuple[Tensor, ...] = ()
        for number, resnet in enumerate(self.resnets):
            x_NCHW = self.run(resnet, x_NCHW, emb_NE)
            if self.attentions is not None:
                x_NCHW = self.run(self.attentions[number], x_NCHW, condition, sizes)
            if self.motion_modules is not None:
                x_NCHW = self.run(self.motion_modules[number], x_NCHW, sizes)
            skips += (x_NCHW,)
        if self.downsamplers is not None:
            x_NCHW = self.downsamplers[0](x_NCHW)
            skips += (x_NCHW,)
        return x_NCHW, skips


class MidStage(Stage):
    """Resnet, attention, motion, resnet at the lowest resolution."""

    def __init__(self, resnets: list, attentions: list, motions: list) -> None:
        super().__init__()
        _register(self, resnets, attentions, motions)

    def forward(self, x_NCHW: Tensor, emb_NE: Tensor, condition: Condition, sizes: Sizes) -> Tensor:
        x_NCHW = self.run(self.resnets[0], x_NCHW, emb_NE)
        x_NCHW = self.run(self.attentions[0], x_NCHW, condition, sizes)
        if self.motion_modules is not None:
            x_NCHW = self.run(self.motion_modules[0], x_NCHW, sizes)
        return self.run(self.resnets[1], x_NCHW, emb_NE)


class UpStage(Stage):
    """Each layer takes in a skip of the way down; then the next skip's resolution."""

    def __init__(self, resnets: list, attentions: list, motions: list, upsampler: Upsample2D | None) -> None:
        super().__init__()
        _register(self, resnets, attentions, motions)
        self.upsamplers = nn.ModuleList([upsampler]) if upsampler is not None else None

    def forward(
        self, x_NCHW: Tensor, skips: list[Tensor], emb_NE: Tensor, condition: Condition, sizes: Sizes
    ) -> Tensor:
        for number, resnet in enumerate(self.resnets):
            x_NCHW = self.run(resnet, torch.cat([x_NCHW, skips.pop()], 1), emb_NE)
            if self.attentions is not None:
                x_NCHW = self.run(self.attentions[number], x_NCHW, condition, sizes)
            if self.motion_modules is not None:
                x_NCHW = self.run(self.motion_modules[number], x_NCHW, sizes)
        if self.upsamplers is not None:
            x_NCHW = self.upsamplers[0](x_NCHW, skips[-1].shape[-2:])
        return x_NCHW


def _register(stage: Stage, resnets: list, attentions: list, motions: list) -> None:
    stage.resnets = nn.ModuleList(resnets)
    stage.attentions = nn.ModuleList(attentions) if attentions else None
    stage.motion_modules = nn.ModuleList(motions) if motions else None


# -- the network -------------------------------------------------------------------------------------------------------


class MVUNetMotionModel(ModelMixin, AttentionMixin, ConfigMixin):
    """MV-VDM's UNet; the defaults are Animate3D's (1.53 G parameters, 643 M of them trained there).

    With ``camera_embed_dim=None, mv2v_adapter=False, motion_modules=False`` it is SD-1.5's UNet at one view and one
    frame, and MVDream's with ``camera_embed_dim=16``; the switches are the paper's ablations.

    Args:
        in_channels: of the latents.
        out_channels: of the prediction.
        down_block_types: one a resolution, from the finest; CrossAttnDownBlock or DownBlock.
        up_block_types: one a resolution, from the coarsest; UpBlock or CrossAttnUpBlock.
        block_out_channels: one a resolution.
        layers_per_block: resnets of a down block; an up block has one more.
        num_attention_heads: of self- and cross-attention.
        cross_attention_dim: channels of the text.
        norm_num_groups: of every group norm.
        norm_eps: of the resnets' group norms.
        camera_embed_dim: numbers of a camera; None is no cameras.
        mv2v_adapter: attention to frame 0, and image tokens.
        image_embed_dim: channels of an image embedding.
        image_tokens: tokens made of it.
        motion_modules: False is a multi-view image model.
        motion_num_attention_heads: of the motion modules.
        spatial_branch: of the spatiotemporal blocks; False is AnimateDiff's motion modules.
        blend_init: where the blend starts, before the sigmoid; 0 is half and half, as published.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("SpatialTransformer", "MotionModule", "ResnetBlock2D")
    _repeated_blocks = ("SpatialBlock", "MotionBlock")
    _skip_layerwise_casting_patterns = ("norm",)

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock",) * 3 + ("DownBlock",),
        up_block_types: Sequence[str] = ("UpBlock",) + ("CrossAttnUpBlock",) * 3,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        num_attention_heads: int = 8,
        cross_attention_dim: int = 768,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        camera_embed_dim: int | None = 16,
        mv2v_adapter: bool = True,
        image_embed_dim: int = 1024,
        image_tokens: int = 4,
        motion_modules: bool = True,
        motion_num_attention_heads: int = 8,
        spatial_branch: bool = True,
        blend_init: float = 0.0,
    ) -> None:
        super().__init__()
        _check_blocks(down_block_types, up_block_types, block_out_channels)
        channels, top = list(block_out_channels), block_out_channels[0]
        self.time_proj = Timesteps(top, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(top, 4 * top)
        self.camera_embedding = TimestepEmbedding(camera_embed_dim, 4 * top) if camera_embed_dim else None
        self.image_projection = (
            ImageProjection(image_embed_dim, cross_attention_dim, image_tokens) if mv2v_adapter else None
        )
        self.conv_in = nn.Conv2d(in_channels, top, 3, padding=1)

        def resnet(before: int, after: int) -> ResnetBlock2D:
            return ResnetBlock2D(
                in_channels=before, out_channels=after, temb_channels=4 * top, groups=norm_num_groups, eps=norm_eps
            )

        def attentions(width: int, count: int) -> list[SpatialTransformer]:
            how = (num_attention_heads, cross_attention_dim, norm_num_groups, mv2v_adapter)
            return [SpatialTransformer(width, *how) for _ in range(count)]

        def motions(width: int, count: int) -> list[MotionModule]:
            how = (motion_num_attention_heads, norm_num_groups, spatial_branch, blend_init)
            return [MotionModule(width, *how) for _ in range(count if motion_modules else 0)]

        self.down_blocks = nn.ModuleList()
        for level, (kind, width) in enumerate(zip(down_block_types, channels, strict=True)):
            before, count = channels[max(level - 1, 0)], layers_per_block
            self.down_blocks.append(
                DownStage(
                    [resnet(before if number == 0 else width, width) for number in range(count)],
                    attentions(width, count if CROSS_ATTENTION[kind] else 0),
                    motions(width, count),
                    Downsample2D(width, use_conv=True, name="op") if level < len(channels) - 1 else None,
                )
            )
        lowest = channels[-1]
        self.mid_block = MidStage([resnet(lowest, lowest) for _ in range(2)], attentions(lowest, 1), motions(lowest, 1))
        self.up_blocks = nn.ModuleList()
        # The skips come back in the order they went: of each level its layers, and of the finer one what it sent down.
        for level, kind in zip(reversed(range(len(channels))), up_block_types, strict=True):
            width, count = channels[level], layers_per_block + 1
            before = channels[min(level + 1, len(channels) - 1)]
            skips = [width] * layers_per_block + [channels[max(level - 1, 0)]]
            self.up_blocks.append(
                UpStage(
                    [resnet((before if n == 0 else width) + skip, width) for n, skip in enumerate(skips)],
                    attentions(width, count if CROSS_ATTENTION[kind] else 0),
                    motions(width, count),
                    Upsample2D(width, use_conv=True) if level else None,
                )
            )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, top, eps=norm_eps)
        self.conv_out = nn.Conv2d(top, out_channels, 3, padding=1)
        self.start_new_layers()

    @torch.no_grad()
    def start_new_layers(self) -> None:
        """Gives the adapter its start from the base: own queries are copies, its outputs and motion's are zero.

        Call it again after the weights of a base have come in, and before those of motion modules do.
        """
        for module in self.modules():
            if isinstance(module, MultiViewAttention) and module.to_q_i2v is not None:
                module.to_q_i2v.weight.copy_(module.to_q.weight)
                nn.init.zeros_(module.to_out_i2v.weight)
                nn.init.zeros_(module.to_out_i2v.bias)
            elif isinstance(module, MotionModule):
                nn.init.zeros_(module.proj_out.weight)
                nn.init.zeros_(module.proj_out.bias)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of what Animate3D trains: the motion modules and the attention to frame 0."""
        return {name: value for name, value in self.named_parameters() if "motion_modules." in name or "_i2v." in name}

    @property
    def spatial_factor(self) -> int:
        """Height and width of the latents should be multiples of it; others work, with uneven borders."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        camera: Tensor | None = None,
        image_embeds: Tensor | None = None,
        return_dict: bool = True,
    ) -> MVUNetMotionOutput | tuple[Tensor]:
        """Predicts the noise (or v) of frames 1 and later.

        Args:
            sample: (B, V, F, C, H, W) latents; frame 0 clean, the others at noise level `timestep`.
            timestep: one for all, (B,), or (B, F) where frames differ, e.g. 0 for the clean frame 0.
            encoder_hidden_states: (B, T, C) text.
            camera: (B, V, 16), see `train.cameras`; needed exactly where the config has cameras.
            image_embeds: (B, V, D) CLIP embeddings of frame 0 of each view; zeros where dropped; None leaves the image
                attention out.
            return_dict: False gives a tuple.

        Returns:
            as `sample`; frame 0 of it means nothing.

        Raises:
            InputError: shapes that do not fit together or the config.
        """
        self._check(sample, timestep, encoder_hidden_states, camera, image_embeds)
        batch, views, frames = sample.shape[:3]
        sizes = Sizes(batch, frames, views)
        emb = self._embed(timestep, camera, sizes, sample)
        image = None
        if image_embeds is not None:
            image = self.image_projection(image_embeds.flatten(0, 1)).unflatten(0, (batch, views))
        condition = Condition(encoder_hidden_states, image)

        x = self.conv_in(sample.transpose(1, 2).flatten(0, 2))
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, emb, condition, sizes)
            skips.extend(more)
        x = self.mid_block(x, emb, condition, sizes)
        for block in self.up_blocks:
            x = block(x, skips, emb, condition, sizes)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))

        pred = x.unflatten(0, (batch, frames, views)).transpose(1, 2)
        return MVUNetMotionOutput(sample=pred) if return_dict else (pred,)

    def _embed(self, timestep: Tensor | float, camera: Tensor | None, sizes: Sizes, sample: Tensor) -> Tensor:
        """(N, E) of time plus camera."""
        batch, frames, views = sizes
        time = torch.as_tensor(timestep, device=sample.device)
        time = (time[:, None] if time.ndim == 1 else time).expand(batch, frames).flatten()
        emb = self.time_embedding(self.time_proj(time).to(sample.dtype)).unflatten(0, (batch, frames))[:, :, None]
        if camera is not None:
            emb = emb + self.camera_embedding(camera.to(sample.dtype))[:, None]
        return emb.expand(batch, frames, views, -1).flatten(0, 2)

    def _check(
        self, sample: Tensor, timestep: Any, text: Tensor, camera: Tensor | None, image_embeds: Tensor | None
    ) -> None:
        channels, width = self.config.in_channels, self.config.cross_attention_dim
        if sample.ndim != 6 or sample.shape[3] != channels:
            raise InputError(
                f"sample: found shape {tuple(sample.shape)}, expected (batch, views, frames, {channels}, height, width)"
                "; latents of another VAE, or a dimension too few"
            )
        batch, views, frames = sample.shape[:3]
        shape = tuple(getattr(timestep, "shape", ()))
        if shape not in ((), (batch,), (batch, frames)):
            raise InputError(f"timestep: found shape {shape}, expected (), ({batch},) or ({batch}, {frames})")
        if text.ndim != 3 or text.shape[0] != batch or text.shape[2] != width:
            raise InputError(
                f"encoder_hidden_states: found shape {tuple(text.shape)}, expected ({batch}, tokens, {width}); one text"
                " a clip, from the text encoder that the model was made with"
            )
        if (camera is None) != (self.camera_embedding is None):
            raise InputError(
                f"camera: found {'none' if camera is None else 'one'}, expected"
                f" {'none' if self.camera_embedding is None else 'one'}; camera_embed_dim is"
                f" {self.config.camera_embed_dim}"
            )
        if camera is not None and tuple(camera.shape) != (batch, views, self.config.camera_embed_dim):
            raise InputError(
                f"camera: found shape {tuple(camera.shape)}, expected ({batch}, {views},"
                f" {self.config.camera_embed_dim}); one camera a view"
            )
        if image_embeds is not None and self.image_projection is None:
            raise InputError("image_embeds: found some, expected none; mv2v_adapter is off")
        if image_embeds is not None and tuple(image_embeds.shape) != (batch, views, self.config.image_embed_dim):
            raise InputError(
                f"image_embeds: found shape {tuple(image_embeds.shape)}, expected ({batch}, {views},"
                f" {self.config.image_embed_dim}); one embedding a view"
            )


def _check_blocks(down: Sequence[str], up: Sequence[str], channels: Sequence[int]) -> None:
    for name, kinds, allowed in (
        ("down_block_types", down, ("CrossAttnDownBlock", "DownBlock")),
        ("up_block_types", up, ("CrossAttnUpBlock", "UpBlock")),
    ):
        if len(kinds) != len(channels) or not set(kinds) <= set(allowed):
            raise InputError(
                f"{name}: found {tuple(kinds)}, expected {len(channels)} of {allowed}, one for each of"
                f" block_out_channels {tuple(channels)}"
            )
