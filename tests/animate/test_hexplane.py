"""`animate.fields.hexplane` against torch's own grid_sample and the interpolation written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import grid_sample

from animate.fields.hexplane import HexPlane

torch.set_num_threads(1)


def field(dtype=torch.float64):
    """A field whose planes are all different, with fewer cells along time."""
    generator = torch.Generator().manual_seed(0)
    planes = HexPlane((5, 9), (3, 4), 2, generator=generator).to(dtype)
    for plane in planes.time:
        plane.data.uniform_(-1, 2, generator=generator)
    return planes


def by_grid_sample(planes, points, times):
    """All six planes at every point and time, border padding and aligned corners, as the released code reads them."""
    frames, count = len(times), len(points)
    places = torch.cat([points.expand(frames, -1, -1), times[:, None, None].expand(-1, count, 1)], 2).reshape(-1, 4)
    scales = []
    for space, time in zip(planes.space, planes.time, strict=True):
        of_axes = {(0, 1): space[0], (0, 2): space[1], (1, 2): space[2]} | {(a, 3): time[a] for a in range(3)}
        product = 1.0
        for axes in itertools.combinations(range(4), 2):
            grid = of_axes[axes].permute(2, 0, 1)[None]
            at = places[None, None, :, list(axes)]
            product = product * grid_sample(grid, at, padding_mode="border", align_corners=True)[0, :, 0].T
        scales.append(product)
    return torch.cat(scales, 1).view(frames, count, -1)


def test_hexplane_is_the_product_of_six_planes():
    """torch's grid_sample over every point and time, features and gradients of planes and points."""
    planes = field()
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
    times = torch.linspace(-1, 1, 7, dtype=torch.float64)
    weight = torch.randn(7, 40, planes.num_features, generator=generator, dtype=torch.float64)
    wanted = [points, *planes.parameters()]
    ours, theirs = planes(points, times), by_grid_sample(planes, points, times)
    assert ours.shape == (7, 40, 4)
    torch.testing.assert_close(ours, theirs)
    for got, expected in zip(
        torch.autograd.grad((ours * weight).sum(), wanted),
        torch.autograd.grad((theirs * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_hexplane_takes_the_border_outside():
    """grid_sample's border padding, far outside and exactly on the ends."""
    planes = field()
    ends = torch.tensor([-7.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    points = torch.cartesian_prod(ends, ends, ends)
    torch.testing.assert_close(planes(points, ends), by_grid_sample(planes, points, ends))
    torch.testing.assert_close(planes(points, ends), planes(points.clamp(-1, 1), ends.clamp(-1, 1)))


def test_hexplane_begins_as_released():
    """The released initial values: space uniform in 0.1 to 0.5, time 1, hence nothing changes over time."""
    planes = HexPlane((50, 100), (8, 16), 16)
    for space, time in zip(planes.space, planes.time, strict=True):
        assert 0.1 <= float(space.detach().min()) < 0.11 < 0.49 < float(space.detach().max()) <= 0.5
        assert bool((time == 1).all())
    assert [tuple(plane.shape) for plane in planes.time] == [(3, 8, 50, 16), (3, 16, 100, 16)]
    features = planes(torch.rand(20, 3) * 2 - 1, torch.linspace(-1, 1, 5))
    torch.testing.assert_close(features, features[:1].expand(5, -1, -1))


def test_hexplane_is_repeatable():
    """The same generator twice gives the same planes."""
    first, second = (HexPlane((4,), (3,), 2, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(bool((a == b).all()) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("space", "time"), [((4, 8), (3,)), ((), ())])
def test_hexplane_wants_as_many_scales_of_time(space, time):
    """Our own mistake is an assertion that says what was passed."""
    with pytest.raises(AssertionError, match="scales of space and time"):
        HexPlane(space, time, 2)
