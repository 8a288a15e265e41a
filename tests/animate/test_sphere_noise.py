from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from animate.sphere_noise import SphereNoise, fitting_cell_deg
from manifests.cameras import intrinsics, look_at_origin, project

SIZE, DISTANCE, FOV = 32, 1.5, 40.0
FIT = fitting_cell_deg(SIZE, distance=DISTANCE, fov_y_deg=FOV)
K = torch.from_numpy(intrinsics(FOV, SIZE, SIZE))
F, C = 5, 3


def camera(azimuth_deg: float, elevation_deg: float = 12.0, distance: float = DISTANCE) -> Tensor:
    return torch.from_numpy(look_at_origin(azimuth_deg, elevation_deg, distance))


def noise_of(**options) -> SphereNoise:
    return SphereNoise(F, C, 7, **{"cell_deg": FIT} | options)


def correlation(a: Tensor, b: Tensor) -> float:
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


def strayed(share: float) -> Tensor:
    """Times of the frames, each by so much of the distance between frames after its own (the last one before)."""
    times = torch.arange(F, dtype=torch.float64) / (F - 1) + share / (F - 1)
    times[-1] = 1 - share / (F - 1)
    return times


def seen(c2w: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and points of the sphere that a view's pixels see, by the quadratic formula."""
    v, u = (grid.ravel() for grid in np.mgrid[:SIZE, :SIZE])
    rays = np.stack([(u + 0.5 - SIZE / 2) / K[0, 0], -(v + 0.5 - SIZE / 2) / K[1, 1], -np.ones(len(u))], -1)
    rays, origin = rays @ c2w[:3, :3].numpy().T, c2w[:3, 3].numpy()
    a, b, c = (rays**2).sum(1), 2 * rays @ origin, origin @ origin - 0.25
    hit = b**2 - 4 * a * c > 0
    v, u, rays, a, b = v[hit], u[hit], rays[hit], a[hit], b[hit]
    reach = (-b - np.sqrt(b**2 - 4 * a * c)) / (2 * a)
    return v, u, origin + reach[:, None] * rays


def seen_twice(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and columns of one view, and those of another that see the same points, by projection."""
    v, u, points = seen(one)
    uv, _ = project(points, other.numpy(), K.numpy())
    facing = points @ other[:3, 3].numpy() > 0.25
    within = facing & (uv >= 0).all(1) & (uv < SIZE).all(1)
    columns, rows = torch.from_numpy(uv[within]).long().unbind(1)
    return torch.from_numpy(v[within]), torch.from_numpy(u[within]), rows, columns


def test_cells_have_one_size():
    """Against the area of a cell: uniform points fall into each as often as into any other."""
    noise = noise_of(cell_deg=10)
    points = torch.nn.functional.normalize(torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    counts = torch.bincount(noise._cell(points.double()), minlength=len(noise.cells)).double()
    assert len(noise.cells) == pytest.approx(4 * np.pi / np.radians(10) ** 2, rel=0.05)
    assert float(counts.min() / counts.mean()) > 0.75
    assert float(counts.max() / counts.mean()) < 1.25


@pytest.mark.parametrize("angles", [(130, 25), (0, -40), (250, 90)])
def test_cells_are_where_the_camera_sees_them(angles):
    """Against points found by the quadratic formula, which `manifests.cameras.project` puts back on the pixels."""
    noise, c2w = noise_of(cell_deg=1), camera(*angles)
    v, u, points = seen(c2w)
    uv, _ = project(points, c2w.numpy(), K.numpy())
    np.testing.assert_allclose(uv, np.stack([u, v], 1) + 0.5, atol=1e-9)
    expected = torch.full((SIZE, SIZE), -1)
    expected[v, u] = noise._cell(torch.from_numpy(points) / 0.5)
    found = noise.cells_of(c2w, K, SIZE, SIZE)
    assert torch.equal(found >= 0, expected >= 0)
    assert float((found == expected).double().mean()) > 0.99, "rounding may move a pixel over an edge"


@pytest.mark.parametrize("roles", ["swapped", "printed"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_noise_is_standard_normal_in_any_role(roles, normalized, share):
    """Against mean 0 and variance 1 over seeds and pixels, on the sphere and beside it alike."""
    c2w, times = camera(40), strayed(share)
    drawn = torch.stack(
        [
            SphereNoise(F, C, seed, cell_deg=FIT, roles=roles, normalized=normalized).at(
                c2w, K, SIZE, SIZE, times=times
            )
            for seed in range(20)
        ]
    )
    inside = noise_of().cells_of(c2w, K, SIZE, SIZE) >= 0
    for part in (drawn[..., inside], drawn[..., ~inside]):
        assert float(part.mean()) == pytest.approx(0, abs=4 / part.numel() ** 0.5)
        assert float(part.var()) == pytest.approx(1, abs=4 * (2 / part.numel()) ** 0.5)
        assert float((part**4).mean()) == pytest.approx(3, abs=0.15)


def test_noise_is_white_within_a_view():
    """Property: hardly two pixels see one cell at the fitting size; neighbours, frames and channels are independent."""
    noise = noise_of()
    for azimuth, elevation in ((0, 0), (33, 12), (200, 30), (77, 85)):
        index = noise.cells_of(camera(azimuth, elevation), K, SIZE, SIZE)
        hit = index[index >= 0]
        assert hit.unique().numel() > 0.98 * hit.numel()
    found = noise.at(camera(33), K, SIZE, SIZE)
    assert abs(correlation(found[..., 1:], found[..., :-1])) < 0.03
    assert abs(correlation(found[1:], found[:-1])) < 0.03
    assert abs(correlation(found[:, 1:], found[:, :-1])) < 0.03


def test_cells_that_are_too_large_are_seen_twice():
    """What `fitting_cell_deg` is there for: at three times its size the noise is no longer white."""
    found = noise_of(cell_deg=3 * FIT).at(camera(33), K, SIZE, SIZE)
    assert correlation(found[..., 1:], found[..., :-1]) > 0.2


@pytest.mark.parametrize("turn_deg", [5.0, 10.0, 30.0])
def test_views_share_the_noise_of_what_both_see(turn_deg):
    """Against the pixels that see one point, found by projection; noise by pixel shares nothing there."""
    noise, one, other = noise_of(), camera(40), camera(40 + turn_deg)
    v, u, rows, columns = seen_twice(one, other)
    first, second = noise.at(torch.stack([one, other]), torch.stack([K, K]), SIZE, SIZE)
    assert correlation(first[..., v, u], second[..., rows, columns]) > 0.3
    frozen = noise.frozen(SIZE, SIZE)
    assert abs(correlation(frozen[..., v, u], frozen[..., rows, columns])) < 0.1
    same = noise.cells_of(one, K, SIZE, SIZE)[v, u] == noise.cells_of(other, K, SIZE, SIZE)[rows, columns]
    assert torch.equal(first[..., v[same], u[same]], second[..., rows[same], columns[same]])


def test_printed_roles_lose_the_sphere_where_swapped_ones_keep_it():
    """Against equation 4: at a frame's own time the printed mix is the frozen tensor; straying adds tau at most."""
    one, other = camera(40), camera(46)
    v, u, rows, columns = seen_twice(one, other)

    def agreement(share: float, **options) -> float:
        noise = noise_of(**options)
        views = noise.at(torch.stack([one, other]), torch.stack([K, K]), SIZE, SIZE, times=strayed(share))
        return correlation(views[0][..., v, u], views[1][..., rows, columns])

    assert torch.equal(noise_of(roles="printed").at(one, K, SIZE, SIZE), noise_of().frozen(SIZE, SIZE))
    whole = agreement(0.0)
    for share in (0.25, 0.5):
        assert abs(agreement(share, roles="printed")) < 0.2
        assert agreement(share, roles="printed", normalized=True) == pytest.approx(share * whole, abs=0.1)
        assert agreement(share, normalized=True) == pytest.approx((1 - share) * whole, abs=0.1)
        assert agreement(share) == pytest.approx((1 - share / (F - 1)) * whole, abs=0.1)


def test_noise_is_frozen_from_step_to_step():
    """Property: seed, camera and times decide it; a stack of views is the views; pixels beside the sphere stay."""
    one, other = camera(40), camera(140, 3)
    found = noise_of().at(one, K, SIZE, SIZE)
    assert found.dtype == torch.float32
    assert torch.equal(found, noise_of().at(one, K, SIZE, SIZE))
    stacked = noise_of().at(torch.stack([other, one]).float(), torch.stack([K, K]).float(), SIZE, SIZE)
    assert stacked.shape == (2, F, C, SIZE, SIZE)
    assert float((stacked[1] == found).double().mean()) > 0.99, "float32 cameras may move a pixel over an edge"
    assert torch.equal(stacked[0, ..., 0, 0], stacked[1, ..., 0, 0])
    assert not torch.equal(SphereNoise(F, C, 8, cell_deg=FIT).at(one, K, SIZE, SIZE), found)


def test_noise_takes_images_that_are_not_square():
    """Against the square image's middle rows: a lower image with the same lens sees the same cells there."""
    low = torch.from_numpy(np.array([[K[0, 0], 0, 16], [0, K[1, 1], 8], [0, 0, 1]]))
    whole = noise_of().cells_of(camera(10), K, 32, 32)
    assert torch.equal(noise_of().cells_of(camera(10), low, 16, 32), whole[8:24])
