"""Camera vectors against the two published camera functions, written out here from their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.cameras import look_at_origin
from manifests.errors import InputError
from train.cameras import CONVENTIONS, camera_vectors


def looking_at_origin(position: np.ndarray, up: np.ndarray) -> np.ndarray:
    """c2w from three cross products, as both projects build theirs."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(right, forward), -forward], axis=1)
    c2w[:3, 3] = position
    return c2w


def mvdream_camera(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """MVDream: y up, azimuth 0 at +z, then y up becomes z up: (x, y, z) -> (x, -z, y). The camera's own axes stay."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    position = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    to_z_up = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return (to_z_up @ looking_at_origin(position, np.array([0.0, 1.0, 0.0]))).reshape(16)


def animate3d_camera(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """Animate3D's sampler: z up from the start, azimuth 0 at +x."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    position = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    return looking_at_origin(position, np.array([0.0, 0.0, 1.0])).reshape(16)


FORMULAS = {"mvdream": mvdream_camera, "animate3d": animate3d_camera}
VIEWS = [(0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (270.0, 15.0), (33.3, 0.0), (-47.0, 29.0), (205.0, -20.0)]


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
@pytest.mark.parametrize("front", [270.0, 0.0, 117.0])
def test_camera_vectors_are_what_the_published_functions_give(convention, front):
    """Oracle: both upstream formulas; an azimuth counts from the front, wherever the object has it."""
    c2w = np.stack([look_at_origin(front + azimuth, elevation, 1.5) for azimuth, elevation in VIEWS])
    vectors = camera_vectors(c2w, front, convention)
    assert vectors.dtype == np.float32
    expected = np.stack([FORMULAS[convention](azimuth, elevation) for azimuth, elevation in VIEWS])
    np.testing.assert_allclose(vectors, expected, atol=2e-7)


def test_conventions_are_a_quarter_turn_apart():
    """Oracle: the formulas themselves; one space, azimuth a of Animate3D is azimuth a + 90 of MVDream."""
    for azimuth, elevation in VIEWS:
        np.testing.assert_allclose(
            animate3d_camera(azimuth, elevation), mvdream_camera(azimuth + 90, elevation), atol=1e-9
        )
    c2w = np.stack([look_at_origin(270.0 + azimuth, 15.0, 1.5) for azimuth in (0, 90, 180, 270)])
    mvdream, animate3d = (camera_vectors(c2w, 270.0, convention) for convention in ("mvdream", "animate3d"))
    np.testing.assert_allclose(animate3d, np.roll(mvdream, -1, axis=0), atol=2e-7)


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_camera_vectors_say_nothing_of_distance(convention):
    """Oracle: the same view from elsewhere on its ray; leading axes are kept."""
    near, far = (np.stack([[look_at_origin(40.0, 10.0, d)] * 3] * 2) for d in (0.7, 4.0))
    assert camera_vectors(near, 270.0, convention).shape == (2, 3, 16)
    np.testing.assert_allclose(
        camera_vectors(near, 270.0, convention), camera_vectors(far, 270.0, convention), atol=1e-6
    )


@pytest.mark.parametrize(
    ("c2w", "convention", "message"),
    [
        (np.eye(4), "mvdream", "at the origin"),
        (np.zeros((4, 16)), "mvdream", r"shape \(4, 16\)"),
        (np.full((1, 4, 4), np.nan), "mvdream", "NaN"),
        (look_at_origin(0, 0, 1.5), "imagedream", 'found "imagedream", expected one of mvdream, animate3d'),
    ],
)
def test_camera_vectors_refuse_what_has_no_answer(c2w, convention, message):
    """Oracle: the message names what was found."""
    with pytest.raises(InputError, match=message):
        camera_vectors(c2w, 270.0, convention)
