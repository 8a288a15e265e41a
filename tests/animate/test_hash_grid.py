"""`animate.fields.hash_grid` against loops over corners, finite differences and the whole grid of space and time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from animate.fields.hash_grid import HashGrid

torch.set_num_threads(1)

SIZES = {"levels": 4, "features": 2, "log2_table": 9, "base": 3, "growth": 1.7}
"""With 3, 5, 8 and 14 cells: in three dimensions only the last two are hashed, in four all but the coarsest."""


def grid(dims, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    made = HashGrid(dims, **(SIZES | changes), generator=generator).double()
    for table in made.tables:
        table.data.normal_(generator=generator)
    return made


def places(count, dims, seed=1):
    return torch.rand(count, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(made, point):
    """Section 3 of the paper: multilinear interpolation of entries that are numbered or hashed."""
    primes = (1, 2654435761, 805459861, 3674653429)
    found = []
    for level, table in enumerate(made.tables):
        cells = math.floor(SIZES["base"] * SIZES["growth"] ** level)
        dense = (cells + 1) ** len(point) <= 2 ** SIZES["log2_table"]
        assert len(table) == ((cells + 1) ** len(point) if dense else 2 ** SIZES["log2_table"])
        low = [min(int(x * cells), cells - 1) for x in point]
        total = [0.0, 0.0]
        for corner in itertools.product((0, 1), repeat=len(point)):
            weight, row = 1.0, 0
            for axis, side in enumerate(corner):
                share = point[axis] * cells - low[axis]
                weight *= share if side else 1 - share
                vertex = low[axis] + side
                row = row + vertex * (cells + 1) ** axis if dense else row ^ (vertex * primes[axis])
            entry = table[row if dense else row % 2 ** SIZES["log2_table"]].tolist()
            total = [t + weight * e for t, e in zip(total, entry, strict=True)]
        found += total
    return found


@pytest.mark.parametrize("dims", [3, 4])
def test_features_are_those_of_loops_over_corners(dims):
    """A slow reference in plain numbers, with points on the borders and on vertices."""
    made = grid(dims)
    points = torch.cat([places(40, dims), torch.zeros(1, dims), torch.ones(1, dims), torch.full((1, dims), 1 / 3)])
    expected = torch.tensor([by_loops(made, point) for point in points.tolist()], dtype=torch.float64)
    torch.testing.assert_close(made(points).detach(), expected)
    assert [(cells + 1) ** dims <= 512 for cells in made.cells] == (
        [True] * 2 + [False] * 2 if dims == 3 else [True] + [False] * 3
    )


@pytest.mark.parametrize("dims", [3, 4])
def test_gradients_are_those_of_finite_differences(dims):
    """torch's gradcheck of all tables, where entries are shared as well."""
    made = grid(dims, log2_table=5, levels=2)
    points = places(12, dims)

    def features(*tables):
        return made(points, tables)

    assert torch.autograd.gradcheck(features, tuple(table.detach().requires_grad_() for table in made.tables))


def test_points_outside_get_the_border():
    """The values at the nearest point of the cube."""
    made = grid(3)
    points = places(30, 3) * 4 - 1.5
    assert made(points).equal(made(points.clamp(0, 1)))


@pytest.mark.parametrize("time", [0.0, 0.31, 0.5, 1.0, -1.0, 2.0])
def test_grid_at_a_moment_is_the_whole_grid_there(time):
    """The grid of four dimensions asked at that time, features and gradients; before and after, the border's."""
    made, space = grid(4), grid(3)
    points = places(50, 3)
    with_time = torch.cat([points, torch.full((50, 1), time, dtype=torch.float64)], 1)
    weight = torch.randn(50, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tables = made.tables_at(time)
    assert [table.shape for table in tables] == [table.shape for table in space.tables]
    cut, whole = space(points, tables), made(with_time)
    torch.testing.assert_close(cut, whole)
    gradients = [torch.autograd.grad((f * weight).sum(), list(made.tables)) for f in (cut, whole)]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_grid_begins_small_or_at_zero():
    """The paper's initial values, uniform within 1e-4, repeated by the generator; or nothing at all."""
    first, second = (HashGrid(3, **SIZES, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first.tables, second.tables, strict=True))
    values = torch.cat([table.detach().flatten() for table in first.tables])
    assert 0.9e-4 < float(values.abs().max()) <= 1e-4
    zero = HashGrid(4, **SIZES, zero=True)
    assert not bool(zero(torch.rand(5, 4)).any())


def test_released_sizes_are_those_of_the_paper():
    """16 levels from 16 to 4096 cells, of which the coarsest five fit a table of 2**19 entries."""
    made = HashGrid(3, levels=16, features=2, log2_table=19, base=16, growth=1.4473)
    assert (made.cells[0], len(made.cells)) == (16, 16)
    assert abs(made.cells[-1] - 4096) < 3
    assert [len(table) < 2**19 for table in made.tables] == [True] * 5 + [False] * 11


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_features_and_gradients_on_the_accelerator_are_those_of_the_cpu():
    """The CPU's sparse products, at the same points."""
    made, points = grid(3).float(), places(2000, 3).float()
    ours = made(points)
    ours.square().sum().backward()
    expected = [table.grad.clone() for table in made.tables]
    made.zero_grad()
    made.cuda()
    there = made(points.cuda())
    there.square().sum().backward()
    torch.testing.assert_close(there.cpu(), ours, atol=1e-5, rtol=1e-5)
    for table, gradient in zip(made.tables, expected, strict=True):
        torch.testing.assert_close(table.grad.cpu(), gradient, atol=1e-4, rtol=1e-4)
