"""`animate.fields.nerf` against integrals along rays, finite differences, chunks and a ball that moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animate.config import NerfConfig
from animate.fields.nerf import StaticDynamicNerf
from animate.shot import intrinsics_of

torch.set_num_threads(1)

TINY = NerfConfig(levels=3, log2_table=8, base=3, growth=1.6, hidden=8, samples=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cameras(azimuths_deg, distance=1.5):
    """Cameras in the plane z = 0.1 that look at the centre."""
    made = []
    for azimuth in torch.deg2rad(torch.tensor(azimuths_deg, dtype=torch.float64)):
        back = torch.nn.functional.normalize(torch.stack([azimuth.cos(), azimuth.sin(), azimuth * 0 + 0.1]), dim=0)
        right = torch.nn.functional.normalize(
            torch.linalg.cross(torch.tensor([0.0, 0, 1], dtype=torch.float64), back), dim=0
        )
        c2w = torch.eye(4, dtype=torch.float64)
        c2w[:3] = torch.stack([right, torch.linalg.cross(back, right), back, distance * back], 1)
        made.append(c2w)
    return torch.stack(made)


def intrinsics(count, size):
    return intrinsics_of(torch.full((count,), 40.0), size).double()


def blob():
    """A field whose density is the bias alone and whose colour is 0.5 everywhere."""
    field = StaticDynamicNerf(TINY, generator=generator()).double()
    for head in (field.density_head, field.color_head):
        head[-1].weight.data.zero_()
    return field


def rough(config=TINY):
    """A field whose weights are all far from the initial ones."""
    rng = generator(3)
    field = StaticDynamicNerf(config, generator=rng).double()
    for table in [*field.static.tables, *field.time.tables]:
        table.data.normal_(generator=rng)
    return field


def along_ray(pixel, K, c2w):
    """Coverage, expected depth and expected normal of the blob, by a fine integral in NumPy."""
    direction = c2w[:3, :3] @ np.array([(pixel[1] - K[0, 2]) / K[0, 0], (K[1, 2] - pixel[0]) / K[1, 1], -1.0])
    depth = np.linspace(0.9, 2.1, 120_001)
    points = c2w[:3, 3] + depth[:, None] * direction
    radius = np.linalg.norm(points, axis=1)
    # softplus(10 (1 - |p| / 0.25)) per radius of 0.5, and nothing outside the sphere.
    density = np.logaddexp(0, 10 * (1 - radius / 0.25)) / 0.5 * (radius < 0.5)
    step = (depth[1] - depth[0]) * np.linalg.norm(direction)
    weights = np.exp(-np.cumsum(density) * step) * density * step
    normals = points / np.maximum(radius, 1e-9)[:, None]
    return weights.sum(), (weights * depth).sum(), (weights[:, None] * normals).sum(0)


def test_images_are_the_integrals_along_rays():
    """Fine numerical integrals of a density that is known everywhere: coverage, depth, colour and normals."""
    c2w, K = cameras([20.0, 200.0]), intrinsics(2, 9)
    background = torch.tensor([0.2, 0.4, 1.0])
    with torch.no_grad():
        seen = blob().render(
            c2w, K, (9, 9), torch.tensor([0.0, 0.7]), samples=1500, background=background, normals=True
        )
    for image, row, column in [(0, 4, 4), (0, 2, 5), (1, 4, 1), (1, 7, 7), (0, 0, 4)]:
        alpha, depth, normal = along_ray((row + 0.5, column + 0.5), K[image].numpy(), c2w[image].numpy())
        at = (image, slice(None), row, column)
        assert float(seen.alphas[at]) == pytest.approx(alpha, abs=1e-4)
        assert float(seen.depth[at]) == pytest.approx(depth, abs=2e-4)
        torch.testing.assert_close(seen.images[at], 0.5 * alpha + (1 - alpha) * background.double(), atol=1e-4, rtol=0)
        # Finite differences a hundredth of the radius long, and samples too faint for a normal.
        np.testing.assert_allclose(seen.normals[at].numpy(), normal, atol=0.05)
    assert float(seen.alphas[0, 0, 4, 4]) > 0.99
    assert not bool(seen.alphas[:, 0, 0, 0].any())  # this corner's ray misses the sphere
    torch.testing.assert_close(seen.images[0, :, 0, 0], background.double())


def test_images_need_no_chunk():
    """The same images and gradients from one chunk and from many that are computed again."""
    c2w, K, times = cameras([0.0, 130.0]), intrinsics(2, 6), torch.tensor([0.3, 1.0])
    results = []
    for chunk in (10_000, 7):
        field = rough(dataclasses.replace(TINY, rays_chunk=chunk))
        seen = field.render(c2w, K, (6, 6), times, generator=None, normals=True)
        weight = torch.randn(2, 8, 6, 6, generator=generator(5), dtype=torch.float64)
        (torch.cat(seen, 1) * weight).sum().backward()
        results.append([*(part.detach() for part in seen), *(p.grad for p in field.parameters())])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, parts)


def test_gradients_are_those_of_finite_differences():
    """Central differences along one direction in all weights together, through every output."""
    field = rough()
    c2w, K, times = cameras([75.0]), intrinsics(1, 5), torch.tensor([0.4])
    start = [weight.detach().clone() for weight in field.parameters()]
    rng = generator(6)
    direction = [torch.randn(weight.shape, generator=rng, dtype=torch.float64) for weight in start]
    weights = torch.randn(1, 8, 5, 5, generator=rng, dtype=torch.float64)

    def value(step):
        for weight, place, way in zip(field.parameters(), start, direction, strict=True):
            weight.data.copy_(place + step * way)
        return (torch.cat(field.render(c2w, K, (5, 5), times, normals=True), 1) * weights).sum()

    gradients = torch.autograd.grad(value(0.0), list(field.parameters()))
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    with torch.no_grad():
        expected = (value(1e-6) - value(-1e-6)) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


def test_time_adds_nothing_before_it_is_trained():
    """The grid of space alone, bit by bit, at every time; the first step of training changes that."""
    field = StaticDynamicNerf(TINY, generator=generator())
    c2w, K = cameras([10.0]).float(), intrinsics(1, 8).float()
    still = field.render(c2w, K, (8, 8), None)
    for time in (0.0, 0.37, 1.0):
        seen = field.render(c2w, K, (8, 8), torch.tensor([time]))
        assert seen.images.equal(still.images)
    seen.images.square().sum().backward()
    assert all(bool(table.grad.any()) for table in field.time.tables)


def test_parameter_groups_of_the_stages():
    """The module's own parameters, each once; the static stage has none of time, and its rates are the config's."""
    field = StaticDynamicNerf(TINY)
    time = {id(table) for table in field.time.parameters()}
    still, moving = ({g["name"]: g for g in field.parameter_groups(stage)} for stage in ("static", "dynamic"))
    held = [id(p) for group in moving.values() for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in field.parameters())
    assert {id(p) for group in still.values() for p in group["params"]} == set(held) - time
    assert {name: group["lr"] for name, group in still.items()} == {"static": 1e-2, "heads": 1e-3}
    assert {name: group["lr"] for name, group in moving.items()} == {"static": 1e-4, "heads": 1e-3, "time": 1e-2}


def test_jitter_is_repeatable_and_about_the_middles():
    """The same seed twice; the mean over many seeds is near a fine sampling."""
    field, c2w, K = blob(), cameras([0.0]), intrinsics(1, 5)
    with torch.no_grad():
        first, again, other = (field.render(c2w, K, (5, 5), None, generator=generator(s)).images for s in (1, 1, 2))
        assert first.equal(again)
        assert not first.equal(other)
        mean = sum(field.render(c2w, K, (5, 5), None, generator=generator(s)).alphas for s in range(100)) / 100
        fine = field.render(c2w, K, (5, 5), None, samples=800).alphas
    torch.testing.assert_close(mean, fine, atol=0.05, rtol=0)


def test_field_gives_what_images_are_made_of():
    """The blob's formula, and a colour that moves with time only after the grid of time does."""
    points = torch.rand(20, 3, generator=generator(), dtype=torch.float64) - 0.5
    density, color = blob().field(points, 0.5)
    expected = torch.nn.functional.softplus(10 * (1 - points.norm(dim=1) / 0.25)) / 0.5
    torch.testing.assert_close(density.detach(), expected)
    assert bool((color == 0.5).all())
    moving = rough()
    assert not torch.allclose(moving.field(points, 0.2)[1], moving.field(points, 0.9)[1])


def ball_images(c2w, K, size, times):
    """Truth: an opaque ball of radius 0.15 that goes along x from -0.15 to 0.15, coloured by its normal's height."""
    pictures = []
    for camera, lens, time in zip(c2w, K, times, strict=True):
        grid = torch.stack(torch.meshgrid(*(torch.arange(size) + 0.5,) * 2, indexing="ij")).double()
        ways = torch.stack(
            [(grid[1] - lens[0, 2]) / lens[0, 0], (lens[1, 2] - grid[0]) / lens[1, 1], -torch.ones(size, size)], -1
        )
        ways = ways.double() @ camera[:3, :3].T
        start = camera[:3, 3] - torch.tensor([0.3 * float(time) - 0.15, 0.0, 0.0], dtype=torch.float64)
        square, along = ways.square().sum(-1), (ways * start).sum(-1)
        inside = along.square() - square * (start.square().sum() - 0.15**2)
        depth = (-along - inside.clamp_min(0).sqrt()) / square
        height = ((start + depth[..., None] * ways)[..., 2] / 0.3 + 0.5).clamp(0, 1)
        hit = (inside > 0).double()
        pictures.append(torch.stack([height * hit, 0.8 * hit, (1 - height) * hit, hit]))
    return torch.stack(pictures)


def test_field_learns_a_ball_that_moves():
    """A ray-cast ball from a few sides, first standing still, then moving: a side that was not shown is right."""
    config = NerfConfig(levels=5, log2_table=12, base=6, growth=1.5, hidden=16, samples=24)
    field, rng, size = StaticDynamicNerf(config, generator=generator()), generator(1), 14

    def loss(c2w, times):
        K = intrinsics(len(c2w), size)
        seen = field.render(c2w.float(), K.float(), (size, size), times, generator=rng)
        return (torch.cat([seen.images, seen.alphas], 1) - ball_images(c2w, K, size, times).float()).square().mean()

    for stage, steps in (("static", 60), ("dynamic", 100)):
        groups = field.parameter_groups(stage)
        for group in groups:
            group["lr"] = 2e-2
        optimizer = torch.optim.Adam(groups, eps=1e-15)
        for _ in range(steps):
            azimuths = (torch.rand(3, generator=rng) * 360).tolist()
            times = torch.tensor([0.0, 0.5, 1.0]) if stage == "dynamic" else torch.zeros(3)
            optimizer.zero_grad()
            loss(cameras(azimuths), times).backward()
            optimizer.step()
        with torch.no_grad():
            still, moved = (float(loss(cameras([33.0]), torch.tensor([time]))) for time in (0.0, 1.0))
        assert still < 0.005, f"{stage}: {still}"
        assert (moved > 0.03) if stage == "static" else (moved < 0.005), f"{stage}: {moved}"
