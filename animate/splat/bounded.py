"""The compositor for processors: Gaussians only where they reach, front to back until a pixel is full.

Small tiles take the ellipses of their lists a group at a time: one matrix product gives the exponents at all pixels,
one running product what shines through; tiles that are full drop out. The gradient is written by hand. It gives what
`dense` gives. Source: "3D Gaussian Splatting" (arXiv 2308.04079, eq. 3), with gsplat's thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from animate.splat.project import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, Ellipses
from animate.splat.tiling import LAYERS, Tiling, from_tiles, tiling_of

__all__ = ["composite_bounded"]

_BLOCK_TILES = 512
"""Tiles of one step: its arrays stay in a core's cache, and there are few enough steps."""
_KEPT_BYTES = 512 << 20
"""What the forward pass may keep for the backward pass; where more would be needed it is worked out again."""
_NOTHING = -20.0
"""Exponent of what fills lists up, and least of all: far below log(MIN_ALPHA), far above where exp is slow."""
_keep_above = torch.ops.aten.threshold_backward
# x where y > limit, else 0. A mask and a product take ten times as long on a processor.


class _Block(NamedTuple):
    # What B tiles see in L layers of P pixels.
    tiles: Tensor  # (B,)
    ellipses: Tensor  # (B * L,)
    offsets: Tensor  # (2, B * L) centres from the tile's centre, px
    rows: Tensor  # (B * L, 6 + channels): what _exponents made of the table's rows
    weights: Tensor  # (B, L, P) what each adds
    odds: Tensor | None  # (B, L, P) alpha / (1 - alpha) of those that add something; only where asked for
    free: Tensor | None  # (B, L, P) not held to MAX_ALPHA; None: all


def composite_bounded(
    ellipses: Ellipses, opacities: Tensor, colors: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Blends ellipses front to back, on black; equals `composite_dense`.

    Args:
        ellipses: of I images.
        opacities: (N,), 0 to 1.
        colors: (N, C) or (I, N, C).
        size: (height, width), px.

    Returns:
        Images (I, C, H, W) and coverage (I, 1, H, W).
    """
    tiling = tiling_of(ellipses, size)
    # Inside the function gradients are always off, so whether anybody wants one is asked here.
    learns = torch.is_grad_enabled()
    canvas = _Composite.apply(ellipses.means, ellipses.conics, opacities, colors, tiling, learns)
    images = from_tiles(canvas, tiling, size)
    return images[:, :-1], images[:, -1:]


def _table(means: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor) -> Tensor:
    # A row for each ellipse and one for the filler: x, y, log opacity, conic, channels, 1 for coverage.
    num_images, num_gaussians = means.shape[:2]
    table = means.new_zeros(num_images * num_gaussians + 1, 7 + colors.shape[-1])
    rows = table[:-1].view(num_images, num_gaussians, table.shape[1])
    rows[..., 0:2], rows[..., 3:6], rows[..., 6:-1], rows[..., -1] = means, conics, colors, 1
    rows[..., 2] = torch.log(opacities.clamp(min=MIN_ALPHA / 2))
    table[-1, 2] = _NOTHING
    return table


def _basis(pixels: Tensor) -> Tensor:
    x, y = pixels
    return torch.stack([x, y, torch.ones_like(x), -0.5 * x * x, -x * y, -0.5 * y * y])


def _exponents(rows: Tensor, offsets: Tensor, basis: Tensor) -> Tensor:
    # log(opacity) - (p - m)^T conic (p - m) / 2, multiplied out so that one matrix product gives it at all pixels.
    (dx, dy), (_, _, constant, xx, xy, yy) = offsets, rows[:, :6].unbind(1)
    u, v = xx * dx + xy * dy, xy * dx + yy * dy
    rows[:, 0], rows[:, 1] = u, v
    constant -= 0.5 * (u * dx + v * dy)
    return rows[:, :6] @ basis


def _blocks(tiling: Tiling, table: Tensor, *, clamps: bool, learns: bool) -> Iterator[_Block]:
    # Group after group, each for all tiles that still have one and are not yet full.
    basis = _basis(tiling.pixels)
    starts, counts = tiling.starts[:-1], tiling.starts.diff()
    through = table.new_ones(len(counts), basis.shape[1])
    active, group = counts.nonzero()[:, 0], 0
    while len(active):
        for tiles in active.split(_BLOCK_TILES):
            shape = (len(tiles), LAYERS, basis.shape[1])
            ellipses = tiling.groups.index_select(0, starts.index_select(0, tiles) + group).flatten()
            rows = table.index_select(0, ellipses)
            centers = tiling.centers.index_select(1, tiles)[..., None]
            offsets = (rows[:, :2].T.unflatten(1, shape[:2]) - centers).flatten(1)
            alpha = _exponents(rows, offsets, basis).clamp_(min=_NOTHING).exp_().view(shape)
            free = (alpha <= MAX_ALPHA) if clamps else None
            alpha = torch.threshold_(alpha.clamp_(max=MAX_ALPHA) if clamps else alpha, MIN_ALPHA, 0)
            before, clear = through.index_select(0, tiles), 1 - alpha
            after = torch.empty_like(alpha)
            clear[:, 0] *= before
            torch.cumprod(clear, 1, out=after)
            weights = torch.empty_like(alpha)
            torch.mul(alpha[:, 0], before, out=weights[:, 0])
            torch.mul(alpha[:, 1:], after[:, :-1], out=weights[:, 1:])
            weights = _keep_above(weights, after, MIN_TRANSMITTANCE)
            odds = None
            if learns:
                torch.sub(1, alpha[:, 0], out=clear[:, 0])
                odds = _keep_above(alpha.div_(clear), after, MIN_TRANSMITTANCE)
            yield _Block(tiles, ellipses, offsets, rows, weights, odds, free)
            # Full pixels need no count: numbers too small for full precision are many times slower.
            through.index_copy_(0, tiles, after[:, -1].clamp(min=0.1 * MIN_TRANSMITTANCE))
        group += 1
        open_ = through.index_select(0, active).amax(1) > MIN_TRANSMITTANCE
        active = active[open_ & (counts.index_select(0, active) > group)]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, tiling: Tiling, learns: bool
    ) -> Tensor:
        """Pixels of tiles (tiles, C + 1, P); the last channel is coverage."""
        table = _table(means, conics, opacities, colors)
        canvas = table.new_zeros(len(tiling.starts) - 1, table.shape[1] - 6, tiling.pixels.shape[1])
        ctx.clamps = bool((opacities > MAX_ALPHA).any())
        keeps = learns and any(ctx.needs_input_grad) and _bytes_to_keep(tiling, table) <= _KEPT_BYTES
        ctx.kept = [] if keeps else None
        for block in _blocks(tiling, table, clamps=ctx.clamps, learns=keeps):
            rows = block.rows[:, 6:].unflatten(0, (-1, LAYERS))
            canvas.index_add_(0, block.tiles, torch.bmm(rows.mT, block.weights))
            if ctx.kept is not None:
                ctx.kept.append(block)
        ctx.save_for_backward(means, conics, opacities, colors, canvas)
        ctx.tiling = tiling
        return canvas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients to what asks for them."""
        means, _, opacities, colors, canvas = ctx.saved_tensors
        to_means, to_conics, to_opacities, to_colors, *_ = ctx.needs_input_grad
        if (blocks := ctx.kept) is None:
            blocks = _blocks(ctx.tiling, _table(*ctx.saved_tensors[:4]), clamps=ctx.clamps, learns=True)
        num_rows = means.shape[0] * means.shape[1] + 1
        shape_sums = means.new_zeros(6, num_rows)
        color_sums = means.new_zeros(num_rows, colors.shape[-1]) if to_colors else None
        basis = _basis(ctx.tiling.pixels)
        upstream = upstream.contiguous()
        # What the ellipses behind add to the loss; on the way from front to back it grows less.
        behind = (upstream * canvas).sum(1)
        for block in blocks:
            above = upstream.index_select(0, block.tiles)
            if color_sums is not None:
                color_sums.index_add_(0, block.ellipses, torch.bmm(block.weights, above[:, :-1].mT).flatten(0, 1))
            if to_means or to_conics or to_opacities:
                grads = _exponent_grads(block, above, behind)
                _add_shape_grads(shape_sums, block, basis @ grads.flatten(0, 1).T)
        x, y, log_opacity, xx, xy, yy = shape_sums[:, :-1].view(6, *means.shape[:2])
        color_sums = None if color_sums is None else color_sums[:-1].view(*means.shape[:2], colors.shape[-1])
        return (
            torch.stack([x, y], -1) if to_means else None,
            torch.stack([xx, xy, yy], -1) if to_conics else None,
            log_opacity.sum(0) / opacities.clamp(min=MIN_ALPHA / 2) if to_opacities else None,
            color_sums if color_sums is None or colors.dim() == 3 else color_sums.sum(0),
            None,
            None,
        )


def _bytes_to_keep(tiling: Tiling, table: Tensor) -> int:
    return tiling.groups.numel() * (2 * tiling.pixels.shape[1] + table.shape[1] + 4) * table.element_size()


def _exponent_grads(block: _Block, above: Tensor, behind: Tensor) -> Tensor:
    # alpha_i adds T_i alpha_i worth_i to the loss and takes alpha_i of all that is behind:
    # d loss / d exponent_i = weight_i worth_i - alpha_i / (1 - alpha_i) * sum of weight_j worth_j over all j behind i.
    worth = torch.bmm(block.rows[:, 6:].unflatten(0, (-1, LAYERS)), above).mul_(block.weights)
    taken = worth.new_full((LAYERS, LAYERS), -1.0).tril_().expand(len(worth), -1, -1)
    rest = torch.baddbmm(behind.index_select(0, block.tiles)[:, None].expand_as(worth), taken, worth)
    behind.index_copy_(0, block.tiles, rest[:, -1])
    grads = worth.sub_(rest.mul_(block.odds))
    return grads if block.free is None else grads.mul_(block.free)


def _add_shape_grads(sums: Tensor, block: _Block, grads: Tensor) -> None:
    # From the six numbers of `_exponents` back to x, y, log opacity and conic.
    (dx, dy), (u, v, _, xx, xy, yy) = block.offsets, block.rows[:, :6].unbind(1)
    to_u, to_v, to_constant, to_xx, to_xy, to_yy = grads
    parts = (
        to_u * xx + to_v * xy - to_constant * u,
        to_u * xy + to_v * yy - to_constant * v,
        to_constant,
        to_xx + dx * (to_u - 0.5 * to_constant * dx),
        to_xy + dy * (to_u - to_constant * dx) + to_v * dx,
        to_yy + dy * (to_v - 0.5 * to_constant * dy),
    )
    for total, part in zip(sums, parts, strict=True):
        total.index_add_(0, block.ellipses, part)
