"""Which ellipses reach which tile of an image: lists, nearest first, in groups that the compositor takes at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from animate.splat.project import Ellipses

__all__ = ["LAYERS", "SIDE", "Tiling", "from_tiles", "tiling_of"]

SIDE = 4
"""Height and width of a tile, px. 8 is slower from 64 to 512 px images: more of a tile lies beside the ellipse."""
LAYERS = 16
"""Ellipses in a group."""


class Tiling(NamedTuple):
    """The lists of all tiles, which count through images, then rows, then columns.

    Attributes:
        grid: images, rows of tiles, columns of tiles.
        groups: (G, LAYERS) int64 flat index of image and Gaussian, tile after tile, nearest first; what is left of a
            tile's last group is filled with I * N.
        starts: (tiles + 1,) int64: where the groups of each tile start.
        centers: (2, tiles) x and y of each tile's centre, px.
        pixels: (2, SIDE^2) x and y of a tile's pixels from its centre, px, row after row.
    """

    grid: tuple[int, int, int]
    groups: Tensor
    starts: Tensor
    centers: Tensor
    pixels: Tensor


@torch.no_grad()
def tiling_of(ellipses: Ellipses, size: tuple[int, int]) -> Tiling:
    """The lists for images of that size.

    Args:
        ellipses: of I images.
        size: (height, width), px.
    """
    num_images, num_gaussians = ellipses.depths.shape
    device = ellipses.depths.device
    grid = (num_images, -(-size[0] // SIDE), -(-size[1] // SIDE))
    num_tiles = grid[0] * grid[1] * grid[2]
    order = torch.argsort(ellipses.depths, dim=1, stable=True)
    order = (order + torch.arange(num_images, device=device)[:, None] * num_gaussians).flatten()
    reached, first, last = _tiles_reached(ellipses, size)
    order = order[reached.index_select(0, order)]
    index, keys = _pairs(order // num_gaussians, first.index_select(1, order), last.index_select(1, order), grid)
    counts = torch.bincount(keys, minlength=num_tiles)
    # Fillers stand at the very end, so that they come last in every list.
    fillers = torch.repeat_interleave(-counts % LAYERS)
    ids = torch.cat([order.index_select(0, index), order.new_full(fillers.shape, num_images * num_gaussians)])
    grouped = _grouped(torch.cat([keys, fillers.to(keys)]), num_tiles)
    starts = torch.cat([counts.new_zeros(1), (-(-counts // LAYERS)).cumsum(0)])
    tiles, steps = torch.arange(num_tiles, device=device), torch.arange(SIDE, device=device) - (SIDE - 1) / 2
    places = torch.stack([tiles % grid[2], tiles // grid[2] % grid[1]])
    pixels = torch.stack([steps.repeat(SIDE), steps.repeat_interleave(SIDE)])
    return Tiling(
        grid,
        ids.index_select(0, grouped).view(-1, LAYERS),
        starts,
        ((places + 0.5) * SIDE).to(ellipses.means),
        pixels.to(ellipses.means),
    )


def from_tiles(canvas: Tensor, tiling: Tiling, size: tuple[int, int]) -> Tensor:
    """Images (I, C, H, W) from tiles (tiles, C, SIDE^2)."""
    num_images, rows, columns = tiling.grid
    split = canvas.view(num_images, rows, columns, -1, SIDE, SIDE)
    whole = split.permute(0, 3, 1, 4, 2, 5).reshape(num_images, -1, rows * SIDE, columns * SIDE)
    return whole[:, :, : size[0], : size[1]]


def _tiles_reached(ellipses: Ellipses, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    # For each ellipse: does it reach a pixel's centre; the first and last column and row (2, I * N) of tiles.
    means, radii = (values.flatten(0, 1).T.contiguous() for values in (ellipses.means, ellipses.radii))
    limit = means.new_tensor([[size[1] - 1], [size[0] - 1]])
    first = torch.minimum((means - radii - 0.5).ceil_().clamp_(min=0), limit + 1)
    last = torch.minimum((means + radii - 0.5).floor_().clamp_(min=-1), limit)
    reached = ((first <= last) & (radii >= 0)).all(0)
    # Divided as integers: a float of a huge image could round to the next tile.
    first, last = (edge.nan_to_num_().int().div_(SIDE, rounding_mode="floor") for edge in (first, last))
    return reached, first, last


def _pairs(image: Tensor, first: Tensor, last: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    # One entry for each row of tiles that an ellipse reaches, then one for each tile of that row: ellipse and tile.
    counts = last - first + 1
    of_row, row = _spread_out(counts[1], (image.int() * grid[1] + first[1]))
    row_start = row * grid[2] + first[0].index_select(0, of_row)
    of_tile, tile = _spread_out(counts[0].index_select(0, of_row), row_start)
    return of_row.index_select(0, of_tile), tile


def _spread_out(counts: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    # `counts` entries for each: its index, and first, first + 1, ...
    index = torch.repeat_interleave(counts)
    shift = first - (counts.cumsum(0, dtype=torch.int32) - counts)
    return index, torch.arange(len(index), dtype=torch.int32, device=counts.device).add_(shift.index_select(0, index))


def _grouped(keys: Tensor, num_keys: int) -> Tensor:
    # The order that brings equal keys together and leaves them in theirs.
    if keys.is_cuda:
        return torch.sort(keys, stable=True).indices
    # Transposing a sparse matrix with one entry a row is a counting sort, several times faster than torch's sort.
    count = len(keys)
    entries = (np.ones(count, np.int8), keys.numpy(), np.arange(count + 1, dtype=np.int32))
    return torch.from_numpy(csr_matrix(entries, shape=(count, num_keys)).tocsc().indices)
