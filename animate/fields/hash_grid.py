"""Hash grids of three and four dimensions: features between the vertices of several lattices.

Plain torch, so that no compiled package is needed; on a CPU the sums over corners are SciPy's sparse products. Source:
Mueller et al., "Instant Neural Graphics Primitives" (SIGGRAPH 2022), section 3. A grid of space and time can be cut at
a moment, which gives the tables of a grid of space: frames cost as much as what stands still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["HashGrid"]

_PRIMES = (1, 2654435761, 805459861, 3674653429)
"""Of the hash of each axis; the first three are the paper's equation 4, the last is that of the authors' code."""


class HashGrid(nn.Module):
    """Features of points from the vertices of `levels` lattices, coarse to fine.

    A level whose vertices fit the table has one entry for each, x running fastest; a finer one shares entries by hash.

    Args:
        dims: 3 or 4; the fourth axis is time.
        levels: lattices.
        features: of a level.
        log2_table: most entries of a level, as a power of two.
        base: cells along an axis of the coarsest level.
        growth: from one level's cells to the next's; rounded down.
        zero: begin at zero instead of uniform within 1e-4.
        generator: of the initial values; None takes torch's own.
    """

    def __init__(
        self,
        dims: int,
        levels: int,
        features: int,
        log2_table: int,
        base: int,
        growth: float,
        *,
        zero: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        assert dims in (3, 4), f"{dims} dimensions"
        self.dims = dims
        self.size = 2**log2_table
        self.cells = tuple(math.floor(base * growth**level) for level in range(levels))
        self.tables = nn.ParameterList(
            torch.empty(min(self.size, (cells + 1) ** dims), features).uniform_(-1e-4, 1e-4, generator=generator)
            for cells in self.cells
        )
        if zero:
            for table in self.tables:
                nn.init.zeros_(table)

    def forward(self, points: Tensor, tables: Sequence[Tensor] | None = None) -> Tensor:
        """Features of points.

        Args:
            points: (N, dims), 0 to 1; outside, the border's values are taken. Not differentiable in these.
            tables: one for each level in place of the grid's own, e.g. `self.tables` plus those of a moment.

        Returns:
            (N, levels * features), the coarsest level first.
        """
        # A copy with the axes first: each step then works on long vectors.
        axes = points.detach().clamp(0, 1).t().contiguous()
        found = []
        for cells, table in zip(self.cells, self.tables if tables is None else tables, strict=True):
            place = axes * cells
            low = place.floor().clamp_(max=cells - 1)
            rows = self._rows(low.long(), cells)
            found.append(_summed(table, rows, _weights(place - low)))
        return torch.cat(found, 1)

    def _rows(self, low: Tensor, cells: int) -> Tensor:
        """Entries (2**dims, N) int32 of the corners around cells (dims, N)."""
        hashed = self._hashed(cells)
        rows = torch.zeros(1, low.shape[1], dtype=torch.int32, device=low.device)
        for axis in range(self.dims):
            ends = self._part(torch.stack([low[axis], low[axis] + 1]), axis, cells).int()[:, None]
            rows = ((rows ^ ends) if hashed else (rows + ends)).flatten(0, 1)
        return rows

    def _hashed(self, cells: int) -> bool:
        return (cells + 1) ** self.dims > self.size

    def _part(self, coordinates: Tensor, axis: int, cells: int) -> Tensor:
        """What an axis gives to the number of an entry."""
        if self._hashed(cells):
            return (coordinates * _PRIMES[axis]) & (self.size - 1)
        return coordinates * (cells + 1) ** axis

    def tables_at(self, time: float) -> list[Tensor]:
        """The grid of three dimensions that this one of four is at a moment.

        The hash joins axes by exclusive or, so that a moment only changes the order of entries. Blending two orders
        once costs less than twice the corners for every point.

        Args:
            time: 0 to 1.

        Returns:
            A table for each level, as in a `HashGrid` of three dimensions with the same other numbers.
        """
        assert self.dims == 4, f"{self.dims} dimensions have no time"
        return [self._cut(table, cells, time) for table, cells in zip(self.tables, self.cells, strict=True)]

    def _cut(self, table: Tensor, cells: int, time: float) -> Tensor:
        place = min(max(time, 0.0), 1.0) * cells
        low = min(int(place), cells - 1)
        if not self._hashed(cells):
            by_time = table.view(cells + 1, -1, table.shape[1])
            return torch.lerp(by_time[low], by_time[low + 1], place - low)
        rows = torch.arange(self.size, device=table.device)
        if (cells + 1) ** 3 <= self.size:  # space has an entry for each vertex, space and time have not
            along = torch.arange(cells + 1, device=table.device)
            x, y, z = (self._part(along, axis, cells) for axis in range(3))
            rows = (z[:, None, None] ^ y[:, None] ^ x).flatten()
        step, following = ((moment * _PRIMES[3]) & (self.size - 1) for moment in (low, low + 1))
        return torch.lerp(table[rows ^ step], table[rows ^ following], place - low)


def _weights(share: Tensor) -> Tensor:
    """Weights (2**dims, N) of the corners, in the order of their entries."""
    weights = torch.ones_like(share[:1])
    for part in share:
        weights = (weights * torch.stack([1 - part, part])[:, None]).flatten(0, 1)
    return weights


def _summed(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (N, features) of entries (corners, N) of a table."""
    if table.device.type == "cpu":
        return _SparseProduct.apply(table, rows.t().contiguous(), weights.t().contiguous())
    gathered = table[rows.long()]
    return torch.einsum("cn,cnf->nf", weights, gathered)


class _SparseProduct(torch.autograd.Function):
    """The sums as a sparse matrix times the table: backward 100 times faster than torch's `embedding_bag`."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        # Tensors are kept, not the matrix, which checkpointing could not forget; making it anew copies nothing.
        ctx.save_for_backward(rows, weights)
        ctx.entries = len(table)
        return torch.from_numpy(_matrix(rows, weights, len(table)) @ table.detach().numpy())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        transposed = _matrix(*ctx.saved_tensors, ctx.entries).T
        return torch.from_numpy(transposed @ gradient.contiguous().numpy()), None, None


def _matrix(rows: Tensor, weights: Tensor, entries: int) -> Any:
    """SciPy's sparse matrix (N, entries) with the weights (N, corners) at `rows`."""
    from scipy.sparse import csr_matrix

    count, corners = rows.shape
    starts = np.arange(0, count * corners + 1, corners, dtype=np.int32)
    return csr_matrix((weights.numpy().ravel(), rows.numpy().ravel(), starts), shape=(count, entries))
