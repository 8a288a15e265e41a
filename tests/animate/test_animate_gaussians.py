"""`animate.subject.gaussians` and `fit`: splats of a mesh, how they follow it, and their colours from a direction."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from animate.config import SubjectConfig
from animate.splat.rasterize import rasterize
from animate.subject.fit import fitted
from animate.subject.gaussians import Gaussians, from_mesh
from animate.subject.mesh import open_mesh
from animate.subject.raycast import Raycaster
from animate.subject.surface import Surface
from manifests.cameras import intrinsics, look_at_origin

VERTICES = SubjectConfig(gaussians="vertices")
SPREAD = SubjectConfig(gaussians="surface", surface_points=600)


@pytest.fixture(scope="module")
def fox(shared_assets):
    return open_mesh(shared_assets / "Fox.glb")


def test_a_gaussian_of_each_point_has_the_size_of_its_edges(fox):
    """Against a loop over neighbours: mean extent along each axis over 1.1, with a floor."""
    bound = from_mesh(fox, VERTICES)
    assert torch.equal(bound.gaussians.means, torch.from_numpy(fox.points))
    for point in range(0, len(fox.points), 17):
        around = [int(b if a == point else a) for a, b in fox.edges if point in (a, b)]
        mean = np.abs(fox.points[around].astype(float) - fox.points[point]).mean(0) / 1.1
        expected = np.maximum(mean, 0.05 * mean.max())
        assert np.allclose(bound.gaussians.scales[point], expected, rtol=1e-4)
    assert (bound.gaussians.scales > 0).all()
    assert bound.on_points


def test_colors_of_points_are_the_mean_over_all_their_corners(fox):
    """Against a loop over the corners of triangles, across seams."""
    bound, surface = from_mesh(fox, VERTICES), Surface(fox)
    for point in range(0, len(fox.points), 37):
        triangles, corners = np.nonzero(fox.weld[fox.triangles] == point)
        expected = surface.colors_at(triangles, np.eye(3)[corners])[:, :3].mean(0)
        assert np.allclose(bound.gaussians.colors[point], expected, atol=1e-5)


@pytest.mark.parametrize("config", [VERTICES, SPREAD], ids=["vertices", "surface"])
def test_gaussians_follow_an_affine_motion_exactly(fox, config):
    """Against applying the motion to the means themselves; at rest they stay, and gradients reach the points."""
    bound = from_mesh(fox, config)
    points = torch.from_numpy(fox.points)
    linear = torch.tensor([[1.1, 0.2, 0.0], [-0.1, 0.9, 0.3], [0.0, 0.1, 1.0]])
    moved = torch.stack([points, points @ linear.T + 0.1]).requires_grad_()
    means = bound.positions(moved)
    assert torch.allclose(means[0], bound.gaussians.means, atol=1e-6)
    assert torch.allclose(means[1], bound.gaussians.means @ linear.T + 0.1, atol=1e-5)
    means[1].sum().backward()
    assert moved.grad[1].sum() == pytest.approx(3 * len(bound.gaussians), rel=1e-4)


def test_surface_gaussians_are_the_less_opaque_the_more_a_pixel_blurs_them(fox):
    """Against the sum of their alpha over a square of the spacing."""
    plain, blurred = from_mesh(fox, SPREAD), from_mesh(fox, SPREAD, pixel=1.09 / 64)
    assert plain.gaussians.opacities[0] == pytest.approx(0.99)
    size = float(blurred.gaussians.scales[0, 0])
    spacing = Surface(fox).spread(600, seed=0).spacing
    thickness = float(blurred.gaussians.opacities[0]) * 2 * math.pi * (size**2 + 0.3 * (1.09 / 64) ** 2) / spacing**2
    assert thickness == pytest.approx(1.0, rel=1e-3)


def real_harmonic(degree: int, order: int, direction: np.ndarray) -> np.ndarray:
    """From SciPy's complex ones, whose phase of Condon and Shortley 3D Gaussian Splatting keeps."""
    polar, azimuth = np.arccos(np.clip(direction[:, 2], -1, 1)), np.arctan2(direction[:, 1], direction[:, 0])
    value = sph_harm_y(degree, abs(order), polar, azimuth)
    if order == 0:
        return value.real
    return math.sqrt(2) * (value.real if order > 0 else value.imag)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_colors_seen_evaluate_real_harmonics(degree):
    """Against SciPy's spherical harmonics for the direction from the camera to each mean."""
    rng = np.random.default_rng(degree)
    count, terms = 40, (degree + 1) ** 2 - 1
    means, sh = rng.normal(size=(count, 3)) * 0.2, rng.normal(size=(count, terms, 3)) * 0.05
    plain = Gaussians(
        means=torch.tensor(means, dtype=torch.float32), quats_wxyz=torch.eye(4)[:1].repeat(count, 1),
        scales=torch.full((count, 3), 0.01), opacities=torch.full((count,), 0.9),
        colors=torch.full((count, 3), 0.5), sh=torch.tensor(sh, dtype=torch.float32),
    )  # fmt: skip
    c2w = np.stack([look_at_origin(30, 10, 1.5), look_at_origin(200, -40, 1.2)])
    seen = plain.colors_seen(torch.from_numpy(c2w).float())
    for view in range(2):
        direction = means - c2w[view, :3, 3]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        orders = [(d, o) for d in range(1, degree + 1) for o in range(-d, d + 1)]
        basis = np.stack([real_harmonic(d, o, direction) for d, o in orders], 1)
        expected = np.maximum(0.5 + np.einsum("nk,nkc->nc", basis, sh), 0)
        assert np.abs(seen[view].numpy() - expected).max() < 1e-5
    flat = dataclasses.replace(plain, sh=None).colors_seen(torch.from_numpy(c2w).float())
    assert torch.equal(flat, plain.colors.expand(2, -1, -1))


def test_shapes_are_held_to(fox):
    """Against a wrong count: our own mistake is caught when it is made."""
    gaussians = from_mesh(fox, VERTICES).gaussians
    with pytest.raises(AssertionError, match="opacities"):
        dataclasses.replace(gaussians, opacities=gaussians.opacities[:-1])


def likeness(fox, gaussians: Gaussians, size: int) -> float:
    """Mean squared error of colour and coverage against the raycaster, from views between those of the fit."""
    c2w = np.stack([look_at_origin(azimuth, 10, 1.5) for azimuth in (10, 130, 250)])
    K = np.tile(intrinsics(40, size, size), (3, 1, 1))
    truth = Raycaster(fox).render(fox.vertices, c2w, K, size)
    images, alphas = rasterize(
        gaussians.means.expand(3, -1, -1), gaussians.quats_wxyz, gaussians.scales, gaussians.opacities,
        gaussians.colors, torch.from_numpy(c2w).float(), torch.from_numpy(K).float(), (size, size),
    )  # fmt: skip
    color = images.permute(0, 2, 3, 1).numpy() - truth.rgb
    return float(np.square(color).mean() + np.square(alphas[:, 0].numpy() - truth.alpha).mean())


def test_fitted_looks_more_like_the_mesh_and_keeps_its_places(fox):
    """Against the raycaster, before and after; the same seed gives the same."""
    torch.set_num_threads(1)
    bound, caster = from_mesh(fox, SPREAD, pixel=1.09 / 32), Raycaster(fox)
    better = fitted(bound, caster, size=32, steps=25)
    assert likeness(fox, better.gaussians, 32) < 0.6 * likeness(fox, bound.gaussians, 32)
    assert torch.equal(better.gaussians.means, bound.gaussians.means)
    assert torch.equal(better.corners, bound.corners)
    assert not better.gaussians.opacities.requires_grad
    again = fitted(bound, caster, size=32, steps=25)
    assert torch.equal(again.gaussians.colors, better.gaussians.colors)
    assert fitted(bound, caster, size=32, steps=0) is bound
