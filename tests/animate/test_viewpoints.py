from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from animate.config import DynamicConfig, ReconstructionConfig, RefinementConfig
from animate.shot import intrinsics_of
from animate.viewpoints import WIDENING, Cameras, Viewpoints, orthogonal, ring, scattered
from manifests.cameras import angles_of, project, to_animate3d
from manifests.errors import InputError

FRONT = 250.0
KINDS = ("incremental", "uniform", "four-views", "sweep")


def angles(cameras: Cameras) -> np.ndarray:
    """(V, 3): azimuth_deg, elevation_deg, distance."""
    return np.array([angles_of(c2w) for c2w in cameras.c2w.double().numpy()])


def from_front(viewpoints: Viewpoints, steps) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth from the front in (-180, 180] and elevation, degrees, of some steps."""
    found = np.concatenate([angles(viewpoints.at(step)) for step in steps])
    return (found[:, 0] - FRONT + 180) % 360 - 180, found[:, 1]


def orthogonals(count: int, config: RefinementConfig) -> list[Cameras]:
    generator = torch.Generator().manual_seed(0)
    return [orthogonal(config, generator) for _ in range(count)]


def distance_to_distribution(draws: np.ndarray, cumulative) -> float:
    """Kolmogorov's distance of a sample to a continuous distribution."""
    draws = np.sort(draws)
    expected = cumulative(draws)
    steps = np.arange(len(draws) + 1) / len(draws)
    return float(max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max()))


def mixed(low: float, high: float):
    """threestudio's elevations: half uniform in angle, half uniform on the sphere."""
    a, b = math.sin(math.radians(low)), math.sin(math.radians(high))
    return lambda e: 0.5 * (e - low) / (high - low) + 0.5 * (np.sin(np.radians(e)) - a) / (b - a)


@pytest.mark.parametrize("views", [4, 3])
def test_orthogonal_views_share_everything_but_evenly_spaced_azimuths(views):
    """Against 360 / V between neighbours; and every camera sees the origin in the middle of its image."""
    for cameras in orthogonals(20, RefinementConfig(views=views)):
        azimuth, elevation, distance = angles(cameras).T
        np.testing.assert_allclose((azimuth - azimuth[0] + 1) % 360, 1 + 360 / views * np.arange(views), atol=1e-3)
        np.testing.assert_allclose(elevation, elevation[0], atol=1e-4)
        np.testing.assert_allclose(distance, distance[0], atol=1e-6)
        K = intrinsics_of(cameras.fov_y_deg, 32)
        for c2w, matrix in zip(cameras.c2w.numpy(), K.numpy(), strict=True):
            np.testing.assert_allclose(project(np.zeros(3), c2w, matrix)[0], [16, 16], atol=1e-4)
            np.testing.assert_allclose(c2w[:3, :3].T @ c2w[:3, :3], np.eye(3), atol=1e-6)
            assert c2w[2, 1] > 0, "up in the image is up in the world"


def test_orthogonal_views_are_drawn_as_threestudio_draws_them():
    """Against the released rule: distance u / tan(fov / 2) around an object of radius 1, and its distributions."""
    config = RefinementConfig(elevation_range_deg=(0, 80))
    drawn = orthogonals(1500, config)
    first = np.array([angles(cameras)[0] for cameras in drawn])
    fov = np.array([float(cameras.fov_y_deg[0]) for cameras in drawn])
    theirs = np.array([np.linalg.norm(to_animate3d(cameras.c2w[0].numpy())[:3, 3]) for cameras in drawn])
    depth = theirs * np.tan(np.radians(fov) / 2)
    limit = 1.63 / len(drawn) ** 0.5  # one in a hundred seeds fails
    assert distance_to_distribution(fov, lambda x: (x - 15) / 45) < limit
    assert distance_to_distribution(depth, lambda x: (x - 0.8) / 0.2) < limit
    assert distance_to_distribution(first[:, 0] % 90, lambda x: x / 90) < limit
    assert distance_to_distribution(first[:, 1], mixed(0, 80)) < limit
    assert distance_to_distribution(first[:, 1], lambda x: x / 80) > limit, "the two rules can be told apart"
    assert first[:, 2].min() > 0.69, "no camera within the object's sphere"


def test_orthogonal_views_within_the_object_are_refused():
    """The error names both options."""
    config = RefinementConfig(distance_range=(0.3, 1.0))
    with pytest.raises(InputError, match=r"--distance-range: found .*, expected .*--fov-range-deg"):
        orthogonal(config, torch.Generator())


def test_ring_starts_at_the_front():
    """Against the released target cameras: 0, 90, 180, 270 from the front, elevation 15, 3 at radius 1, fov 40."""
    cameras = ring(ReconstructionConfig(), FRONT)
    found = angles(cameras)
    np.testing.assert_allclose((found[:, 0] - FRONT + 1) % 360, [1, 91, 181, 271], atol=1e-3)
    np.testing.assert_allclose(found[:, 1:], [[15, 1.5]] * 4, atol=1e-4)
    assert cameras.fov_y_deg.tolist() == [40] * 4


def test_scattered_views_cover_all_sides():
    """Against the distributions of threestudio's rule, each view drawn by itself."""
    generator = torch.Generator().manual_seed(0)
    cameras = scattered(1500, elevation_range_deg=(-45, 45), distance=1.5, fov_y_deg=40, generator=generator)
    azimuth, elevation, distance = angles(cameras).T
    limit = 1.63 / 1500**0.5
    assert distance_to_distribution(azimuth, lambda x: x / 360) < limit
    assert distance_to_distribution(elevation, mixed(-45, 45)) < limit
    np.testing.assert_allclose(distance, 1.5, atol=1e-5)


# -- one view a step ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_viewpoints_depend_on_seed_and_step_alone(kind):
    """Property: a second one gives the same camera in any order; another seed does not, where something is drawn."""
    config = DynamicConfig()
    one, same, other = (Viewpoints(kind, config, 200, FRONT, seed=seed) for seed in (1, 1, 2))
    backward = {step: same.at(step).c2w for step in reversed(range(0, 200, 7))}
    assert all(torch.equal(one.at(step).c2w, backward[step]) for step in range(0, 200, 7))
    draws = kind in ("incremental", "uniform")
    assert torch.equal(one.at(150).c2w, other.at(150).c2w) != draws


@pytest.mark.parametrize("kind", KINDS)
def test_viewpoints_keep_to_the_config(kind):
    """Property: elevation in its range, the given distance and lens, one view."""
    config = DynamicConfig(elevation_range_deg=(5, 25), distance=1.7, fov_y_deg=33)
    viewpoints = Viewpoints(kind, config, 300, FRONT)
    for step in range(300):
        cameras = viewpoints.at(step)
        ((_, elevation, distance),) = angles(cameras)
        assert 5 - 1e-3 < elevation < 25 + 1e-3
        assert distance == pytest.approx(1.7, abs=1e-5)
        assert cameras.fov_y_deg.tolist() == [33]


def test_incremental_viewpoints_widen_as_sds_complete_does():
    """Against its iterations over 20,000: the front alone, then +-30, 45, 60, 90, 180 degrees, filled evenly."""
    steps = 4000
    viewpoints = Viewpoints("incremental", DynamicConfig(), steps, FRONT)
    azimuth, elevation = from_front(viewpoints, range(steps))
    share = np.arange(steps) / steps
    ends = [
        (0, 2000, 0),
        (2000, 5000, 30),
        (5000, 8000, 45),
        (8000, 10000, 60),
        (10000, 12000, 90),
        (12000, 20000, 180),
    ]
    for start, end, width in ends:
        part = azimuth[(share >= start / 20000) & (share < end / 20000)]
        assert np.abs(part).max() <= width + 1e-3
        if width:
            limit = 1.63 / len(part) ** 0.5
            assert distance_to_distribution(part, lambda x, w=width: (x + w) / (2 * w)) < limit
    np.testing.assert_allclose(elevation[share < 0.1], 0, atol=1e-3)
    assert elevation[share >= 0.1].max() > 29
    assert tuple(end / 20000 for _, end, _ in ends) == tuple(until for until, _ in WIDENING)


def test_incremental_viewpoints_stretch_with_the_run():
    """Property: a run of another length is as wide at the same share of it."""
    for steps in (50, 600, 20000):
        viewpoints = Viewpoints("incremental", DynamicConfig(), steps, FRONT)
        azimuth, _ = from_front(viewpoints, range(int(0.1 * steps)))
        np.testing.assert_allclose(azimuth, 0, atol=1e-3)
        azimuth, _ = from_front(viewpoints, range(int(0.6 * steps), steps, max(steps // 100, 1)))
        assert np.abs(azimuth).max() > 90


def test_uniform_viewpoints_see_every_side_from_the_start():
    """Against the uniform distribution, for the first and the last quarter of the run."""
    viewpoints = Viewpoints("uniform", DynamicConfig(), 4000, FRONT)
    for part in (range(1000), range(3000, 4000)):
        azimuth, elevation = from_front(viewpoints, part)
        assert distance_to_distribution(azimuth, lambda x: (x + 180) / 360) < 1.63 / 1000**0.5
        assert distance_to_distribution(elevation, mixed(0, 30)) < 1.63 / 1000**0.5


def test_four_views_take_turns():
    """Against the evaluation's cameras: 0, 90, 180, 270 at elevation 0, or the nearest that the config allows."""
    azimuth, elevation = from_front(Viewpoints("four-views", DynamicConfig(), 100, FRONT), range(8))
    np.testing.assert_allclose((azimuth + 1) % 360, [1, 91, 181, 271] * 2, atol=1e-3)
    np.testing.assert_allclose(elevation, 0, atol=1e-3)
    config = dataclasses.replace(DynamicConfig(), elevation_range_deg=(10, 30))
    assert from_front(Viewpoints("four-views", config, 100, FRONT), [1])[1] == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize("steps", [60, 600, 6000])
def test_sweep_moves_slowly_and_sees_every_side(steps):
    """Property: neighbouring steps are near each other, and any side and height is seen as long as any other."""
    azimuth, elevation = from_front(Viewpoints("sweep", DynamicConfig(), steps, FRONT), range(steps))
    turn = (np.diff(azimuth) + 180) % 360 - 180
    np.testing.assert_allclose(turn, max(2, 360 / steps), atol=1e-3)
    assert np.abs(np.diff(elevation)).max() < max(1.0, 60 / steps)
    counts, _ = np.histogram(azimuth, bins=12, range=(-180, 180))
    assert counts.min() > 0.5 * steps / 12
    if steps >= 600:  # several rounds, at other heights each
        counts, _ = np.histogram(elevation, bins=5, range=(0, 30))
        assert counts.min() > 0.5 * steps / 5
