"""Cameras: each convention's own projection formula, written out here, puts known points where they have to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manifests.cameras import (
    angles_of,
    from_animate3d,
    from_mvdream,
    from_opencv,
    from_pytorch3d,
    intrinsics,
    look_at_origin,
    project,
    to_animate3d,
    to_mvdream,
    to_opencv,
    to_pytorch3d,
)

WIDTH = HEIGHT = 100
FOV_Y = 2 * math.degrees(math.atan(0.5))
"""So that the focal length is 100 px: a point 1 beside the axis at depth 1 lies 100 px from the middle."""
K = intrinsics(FOV_Y, WIDTH, HEIGHT)

# A camera at (2, 0, 0), looking along -x with z up: +y is to its right. Point -> pixel, by hand.
BY_HAND = {
    (0.0, 0.0, 0.0): (50.0, 50.0, 2.0),
    (0.0, 0.2, 0.0): (60.0, 50.0, 2.0),
    (0.0, 0.0, 0.2): (50.0, 40.0, 2.0),
    (1.0, 0.2, -0.3): (70.0, 80.0, 1.0),
    (-2.0, -0.4, 0.4): (40.0, 40.0, 4.0),
}
FRONT = look_at_origin(0.0, 0.0, 2.0)


def cameras(count: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    angles = zip(rng.uniform(-400, 400, count), rng.uniform(-89, 89, count), rng.uniform(0.6, 5, count), strict=True)
    return [look_at_origin(*map(float, each)) for each in angles]


@pytest.mark.parametrize("azimuth", [0.0, 37.5, 90.0, 200.0, -45.0])
@pytest.mark.parametrize("elevation", [-90.0, -30.0, 0.0, 15.0, 89.999, 90.0])
def test_look_at_origin_is_a_rotation_that_sees_the_origin_in_the_middle(azimuth, elevation):
    # Oracle: the definition of an orthonormal matrix, and where the origin is projected.
    c2w = look_at_origin(azimuth, elevation, 1.5)
    np.testing.assert_allclose(c2w[:3, :3].T @ c2w[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_array_equal(c2w[3], [0, 0, 0, 1])
    uv, depth = project(np.zeros(3), c2w, K)
    np.testing.assert_allclose([*uv, depth], [50, 50, 1.5], atol=1e-9)
    assert abs(c2w[2, 0]) < 1e-12, "the camera is tilted"


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position"),
    [(0, 0, (2, 0, 0)), (90, 0, (0, 2, 0)), (270, 0, (0, -2, 0)), (0, 90, (0, 0, 2)), (180, 30, (-(3**0.5), 0, 1))],
)
def test_look_at_origin_stands_where_the_angles_say(azimuth, elevation, position):
    # Oracle: points on the sphere, by hand.
    np.testing.assert_allclose(look_at_origin(azimuth, elevation, 2.0)[:3, 3], position, atol=1e-12)


def test_angles_of_is_the_inverse_of_look_at_origin():
    # Oracle: round trip, azimuth modulo 360.
    rng = np.random.default_rng(1)
    for azimuth, elevation, distance in rng.uniform([-720, -89.9, 0.1], [720, 89.9, 9], (50, 3)):
        found = angles_of(look_at_origin(azimuth, elevation, distance))
        assert found[0] == pytest.approx(azimuth % 360, abs=1e-7)
        assert found[1:] == pytest.approx((elevation, distance), abs=1e-7)
        assert 0 <= found[0] < 360


def test_intrinsics_see_the_edge_of_the_field_of_view_at_the_edge_of_the_image():
    # Oracle: a point on the edge of a field of view of 40 degrees, for an image that is not square.
    wide = intrinsics(40.0, 300, 200)
    edge = math.tan(math.radians(20.0))
    uv, _ = project(
        np.array([[0.0, 0.0, edge], [0.0, 0.0, -edge], [0.0, 1.5 * edge, 0.0]]), look_at_origin(0, 0, 1), wide
    )
    np.testing.assert_allclose(uv, [[150, 0], [150, 200], [300, 100]], atol=1e-9)


def test_project_puts_known_points_where_they_belong():
    # Oracle: pixels and depths by hand.
    uv, depth = project(np.array(list(BY_HAND)), FRONT, K)
    np.testing.assert_allclose(np.column_stack([uv, depth]), list(BY_HAND.values()), atol=1e-9)
    behind = project(np.array([[3.0, 0.0, 0.0]]), FRONT, K)[1]
    assert behind[0] == pytest.approx(-1.0)


def seen_by_opencv(point: np.ndarray, c2w: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (np.linalg.inv(to_opencv(c2w)) @ [*point, 1.0])[:3]
    return K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2], z


def seen_by_pytorch3d(point: np.ndarray, c2w: np.ndarray) -> tuple[float, float, float]:
    """x_view = x_world R + T; screen = middle - focal * x / z, since its NDC has +x left and +y up."""
    R, T = to_pytorch3d(c2w)
    x, y, z = np.asarray(point) @ R + T
    return WIDTH / 2 - K[0, 0] * x / z, HEIGHT / 2 - K[1, 1] * y / z, z


@pytest.mark.parametrize("seen", [seen_by_opencv, seen_by_pytorch3d])
def test_foreign_conventions_see_known_points_at_the_same_pixels(seen):
    # Oracle: the pixels by hand, and our own projection for other cameras.
    for point, expected in BY_HAND.items():
        np.testing.assert_allclose(seen(np.array(point), FRONT), expected, atol=1e-9)
    rng = np.random.default_rng(2)
    for c2w in cameras():
        point = rng.uniform(-0.3, 0.3, 3)
        uv, depth = project(point, c2w, K)
        np.testing.assert_allclose(seen(point, c2w), [*uv, depth], atol=1e-8)


def test_opencv_and_pytorch3d_round_trip_and_stay_rotations():
    # Oracle: round trip; determinant +1, since a mirrored camera would project just as well.
    for c2w in cameras():
        np.testing.assert_allclose(from_opencv(to_opencv(c2w)), c2w, atol=1e-12)
        np.testing.assert_allclose(from_pytorch3d(*to_pytorch3d(c2w)), c2w, atol=1e-12)
        assert np.linalg.det(to_opencv(c2w)[:3, :3]) == pytest.approx(1.0)
        assert np.linalg.det(to_pytorch3d(c2w)[0]) == pytest.approx(1.0)


def mvdream_camera(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """MVDream's own camera: built y up with azimuth from +z to +x, then turned to z up; unit distance."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    eye = np.array([
        math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth)
    ])  # fmt: skip
    right = np.cross([0.0, 1.0, 0.0], eye)
    right /= np.linalg.norm(right)
    y_up = np.eye(4)
    y_up[:3, :4] = np.column_stack([right, np.cross(eye, right), eye, eye])
    return np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ y_up


@pytest.mark.parametrize("front", [270.0, 0.0, 30.0])
@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (0, 15), (90, 15), (135, 30), (330, 0)])
def test_mvdream_vector_is_what_its_own_formula_gives_for_the_same_view(front, azimuth, elevation):
    # Oracle: MVDream's construction; its azimuth 0 sees the front from -y.
    ours = look_at_origin(front + azimuth, elevation, 1.5)
    vector = to_mvdream(ours, front)
    assert vector.shape == (16,)
    np.testing.assert_allclose(vector, mvdream_camera(azimuth, elevation).reshape(16), atol=1e-12)
    np.testing.assert_allclose(from_mvdream(vector, 1.5, front), ours, atol=1e-12)


def test_animate3d_camera_stands_at_plus_x_at_distance_3_and_sees_the_same_picture():
    # Oracle: its published camera (azimuth 0 at +x, distance 3); the object twice as large projects to the same pixels.
    front = 270.0
    theirs = to_animate3d(look_at_origin(front, 0.0, 1.5), front)
    np.testing.assert_allclose(theirs[:3, 3], [3, 0, 0], atol=1e-12)
    for c2w in cameras():
        theirs = to_animate3d(c2w, front)
        np.testing.assert_allclose(from_animate3d(theirs, front), c2w, atol=1e-12)
        x, y, z = point = np.random.default_rng(3).uniform(-0.3, 0.3, 3)
        turned = 2 * np.array([-y, x, z])  # a quarter turn takes the front from -y to +x
        np.testing.assert_allclose(project(turned, theirs, K)[0], project(point, c2w, K)[0], atol=1e-9)


def test_conversions_leave_their_argument_alone():
    # Oracle: a copy made before.
    for convert in (to_opencv, from_opencv, to_pytorch3d, to_mvdream, to_animate3d, from_animate3d):
        c2w = look_at_origin(10.0, 20.0, 1.5)
        before = c2w.copy()
        convert(c2w)
        np.testing.assert_array_equal(c2w, before)
    vector = to_mvdream(look_at_origin(10.0, 20.0, 1.5))
    before = vector.copy()
    from_mvdream(vector, 2.0)
    np.testing.assert_array_equal(vector, before)
