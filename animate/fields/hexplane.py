"""HexPlane: features of space and time as products of six planes, at several resolutions.

Space alone is read once for all frames, and time along the planes before the points are: a step costs little more
than the features that it returns. Factorisation: arXiv 2301.09632, section 3; initial values and sampling as in the
code that Animate3D released. Nothing here is a network; see `animate.fields.deformation`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HexPlane"]

_SPACE = ((0, 1), (0, 2), (1, 2))
"""Axes of the three planes without time; the second one runs along the rows."""


class HexPlane(nn.Module):
    """Features of points at times: the product of six interpolated planes, scales one after the other.

    Args:
        space: cells along x, y and z of each scale, at least 2.
        time: cells along time of each scale, at least 2.
        channels: features of a scale.
        generator: of the initial values; None takes torch's own.

    Source: arXiv 2301.09632, section 3. Planes of space begin uniform in 0.1 to 0.5, those with time at 1.
    """

    def __init__(
        self,
        space: tuple[int, ...],
        time: tuple[int, ...],
        channels: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        assert len(space) == len(time) >= 1, f"scales of space and time: {space}, {time}"
        self.channels = channels
        # (plane, row, column, channel): what interpolation reads lies together, a row of the table for each cell.
        self.space = nn.ParameterList(
            torch.empty(3, cells, cells, channels).uniform_(0.1, 0.5, generator=generator) for cells in space
        )
        self.time = nn.ParameterList(
            torch.ones(3, steps, cells, channels) for steps, cells in zip(time, space, strict=True)
        )

    @property
    def num_features(self) -> int:
        """Features of a point at a time."""
        return self.channels * len(self.space)

    def forward(self, points: Tensor, times: Tensor) -> Tensor:
        """Features of every point at every time.

        Args:
            points: (N, 3), -1 to 1; outside, the border's values are taken.
            times: (F,), -1 to 1, likewise.

        Returns:
            (F, N, features); its transpose over the first two axes is contiguous. Differentiable in the points too.
        """
        scales = [self._scale(*planes, points, times) for planes in zip(self.space, self.time, strict=True)]
        return torch.cat(scales, -1).transpose(0, 1)

    def _scale(self, space: Tensor, time: Tensor, points: Tensor, times: Tensor) -> Tensor:
        cells, channels = space.shape[1], space.shape[-1]
        low, share = _between(points, cells)
        still = math.prod(
            _bilinear(plane.reshape(-1, channels), cells, low[:, axes], share[:, axes])
            for plane, axes in zip(space, _SPACE, strict=True)
        )
        step, part = _between(times, time.shape[1])
        # (axis, frame, cell, channel): only as many cells as one axis has, whatever the number of points.
        at_times = torch.lerp(time[:, step], time[:, step + 1], part[None, :, None, None])
        tables = at_times.transpose(1, 2).reshape(3, cells, -1)
        moving = [_linear(tables[axis], low[:, axis], share[:, axis]) for axis in range(3)]
        product = moving[0].mul(moving[1]).mul(moving[2]).unflatten(1, (len(times), channels))
        return product * still[:, None]


def _between(coordinates: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The cell at or below each coordinate of -1 to 1 and the share of the next one; the ends are cells' centres."""
    place = ((coordinates + 1) * (0.5 * (cells - 1))).clamp(0, cells - 1)
    low = place.detach().floor().clamp(max=cells - 2)
    return low.long(), place - low


def _linear(table: Tensor, low: Tensor, share: Tensor) -> Tensor:
    """Rows (N, width) between two neighbours each, of a table (cells, width)."""
    rows, weights = torch.stack([low, low + 1], 1), torch.stack([1 - share, share], 1)
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


def _bilinear(table: Tensor, cells: int, low: Tensor, share: Tensor) -> Tensor:
    """Rows (N, channels) between four neighbours each, of a plane (cells * cells, channels)."""
    corner = low[:, 1] * cells + low[:, 0]
    rows = torch.stack([corner, corner + 1, corner + cells, corner + cells + 1], 1)
    column, row = share.unbind(1)
    weights = torch.stack([(1 - row) * (1 - column), (1 - row) * column, row * (1 - column), row * column], 1)
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
