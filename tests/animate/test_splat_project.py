"""The projection, against pinhole cameras, sampled points and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from animate.splat.project import EPS_2D, MIN_ALPHA, NEAR, project, rotations_of
from tests.animate.splat_scenes import cameras_around, scene

SIZE = (17, 17)


def _ellipses(drawn, **changes):
    drawn = drawn._replace(**changes)
    return project(*drawn[:4], drawn.c2w, drawn.K, SIZE)


def _covariances(ellipses):
    xx, xy, yy = ellipses.conics.unbind(-1)
    return torch.linalg.inv(torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2))


def test_projected_centers_are_where_a_pinhole_camera_sees_them():
    """Formula: K times the point in the camera's axes, x right, y down, z ahead."""
    drawn = scene()
    ellipses = _ellipses(drawn)
    homogeneous = torch.cat([drawn.means, torch.ones_like(drawn.means[..., :1])], -1)
    blender = homogeneous @ torch.linalg.inv(drawn.c2w).mT
    ahead = blender[..., :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    seen = ahead @ drawn.K.mT
    torch.testing.assert_close(ellipses.means, seen[..., :2] / seen[..., 2:])
    torch.testing.assert_close(ellipses.depths, ahead[..., 2])


def test_projected_covariance_is_that_of_projected_points():
    """Monte Carlo: points drawn from one small Gaussian, each through the pinhole camera."""
    drawn = scene(num_gaussians=1, num_images=1, thickness=0.01)
    generator = torch.Generator().manual_seed(1)
    own = rotations_of(drawn.quats_wxyz[0]) * drawn.scales[0]
    points = drawn.means[0] + torch.randn(200_000, 3, generator=generator, dtype=torch.float64) @ own.mT
    pixels = _ellipses(
        drawn,
        means=points[None],
        quats_wxyz=drawn.quats_wxyz.expand(len(points), 4),
        scales=drawn.scales.expand(len(points), 3),
        opacities=drawn.opacities.expand(len(points)),
    ).means[0]
    found = _covariances(_ellipses(drawn))[0, 0] - EPS_2D * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(found, pixels.T.cov(), rtol=0.03, atol=0.03 * found.abs().max().item())


def test_rotation_matrices_are_rotations_about_the_quaternions_axis():
    """Formula: w = cos of half the angle; a quarter turn about z takes x to y. Any length is the same rotation."""
    half = math.pi / 4
    turn = rotations_of(3.0 * torch.tensor([math.cos(half), 0.0, 0.0, math.sin(half)], dtype=torch.float64))
    expected = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(turn, expected)


def test_round_gaussians_give_the_same_as_the_general_path():
    """Slow version: asking for the gradient of the scales switches the shortcut for round Gaussians off."""
    drawn = scene()
    scales = drawn.scales[:, :1].expand(-1, 3).contiguous()
    short, general = _ellipses(drawn, scales=scales), _ellipses(drawn, scales=scales.requires_grad_())
    torch.testing.assert_close(short.conics, general.conics.detach())
    torch.testing.assert_close(short.radii, general.radii)


def test_shapes_of_each_image_give_the_same_as_shared_ones():
    """Round trip: shared quaternions and scales, and the same repeated for every image."""
    drawn = scene()
    repeated = _ellipses(drawn, quats_wxyz=drawn.quats_wxyz.repeat(2, 1, 1), scales=drawn.scales.repeat(2, 1, 1))
    torch.testing.assert_close(_ellipses(drawn).conics, repeated.conics)


@pytest.mark.parametrize("out", [0.0, 2.0])
def test_projection_gradient_matches_finite_differences(out):
    """Finite differences; also beyond the image's border, where the Jacobian is clamped."""
    drawn = scene(num_gaussians=4)
    c2w, _ = cameras_around(2, 17)
    means = (drawn.means + out * c2w[:, None, :3, 0]).requires_grad_()

    def shapes(means, quats_wxyz, scales):
        return _ellipses(drawn, means=means, quats_wxyz=quats_wxyz, scales=scales)[:2]

    inputs = (means, drawn.quats_wxyz.clone().requires_grad_(), drawn.scales.clone().requires_grad_())
    assert torch.autograd.gradcheck(shapes, inputs)


def test_gaussians_behind_or_too_near_are_seen_nowhere():
    """Formula: depth along the axis below NEAR. Their numbers and gradients are finite."""
    drawn = scene(num_gaussians=4, num_images=1)
    eye, back = drawn.c2w[0, :3, 3], drawn.c2w[0, :3, 2]
    depths = torch.tensor([-1.0, 0.0, 0.99 * NEAR, 1.01 * NEAR], dtype=torch.float64)
    means = (eye - depths[:, None] * back)[None].requires_grad_()
    ellipses = _ellipses(drawn, means=means)
    assert (ellipses.radii[0] >= 0).all(1).tolist() == [False, False, False, True]
    (ellipses.means.sum() + ellipses.conics.sum()).backward()
    assert torch.isfinite(means.grad).all()


def test_box_is_where_coverage_falls_below_the_threshold():
    """Formula: along the conic's widest column, opacity exp(-r^2 / (2 variance)) is MIN_ALPHA at the box's border."""
    drawn = scene()
    ellipses = _ellipses(drawn)
    variances = _covariances(ellipses).diagonal(dim1=-2, dim2=-1)
    border = drawn.opacities[:, None] * torch.exp(-0.5 * ellipses.radii**2 / variances)
    torch.testing.assert_close(border, torch.full_like(border, MIN_ALPHA))
