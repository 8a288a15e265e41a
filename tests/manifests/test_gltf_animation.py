"""Sampling of animation channels against values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.gltf import Channel, GlbWriter, Poser, read_bytes, sample, slerp
from tests.broken import CUBE, CUBE_TRIANGLES


def channel(times, values, path="translation", interpolation="LINEAR") -> Channel:
    return Channel(0, path, np.asarray(times, np.float64), np.asarray(values, np.float32), interpolation)


def about_z(degrees: float) -> list[float]:
    return [0.0, 0.0, float(np.sin(np.radians(degrees) / 2)), float(np.cos(np.radians(degrees) / 2))]


def angle_about_z(quat_xyzw: np.ndarray) -> np.ndarray:
    return np.degrees(2 * np.arctan2(quat_xyzw[:, 2], quat_xyzw[:, 3]))


def test_rotations_170_degrees_apart_turn_at_constant_speed():
    """Oracle: by hand; slerp turns 170 degrees in 2 s at 85 degrees a second, a component-wise mean does not."""
    times = np.linspace(0, 2, 41)
    posed = sample(channel([0, 2], [about_z(0), about_z(170)], "rotation"), times)
    np.testing.assert_allclose(angle_about_z(posed), 85 * times, atol=1e-4)
    componentwise = np.array(about_z(0)) + (times / 2)[:, None] * (np.array(about_z(170)) - about_z(0))
    assert np.abs(angle_about_z(componentwise) - 85 * times).max() > 5


def test_rotations_take_the_shorter_arc():
    """Oracle: by hand; q and -q are one rotation, so 350 degrees is 10 degrees the other way."""
    posed = sample(channel([0, 1], [about_z(0), about_z(350)], "rotation"), np.array([0.5]))
    np.testing.assert_allclose(np.abs(angle_about_z(posed)) % 360, 5, atol=1e-3)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 1e-3, 1.0, 90.0, 179.0, 179.9999])
def test_slerp_stays_on_the_arc_at_all_angles(degrees):
    """Oracle: by hand; a quarter of the arc is a quarter of the angle, also where sines vanish."""
    posed = slerp(np.array([about_z(0)]), np.array([about_z(degrees)]), np.array([0.25]))
    np.testing.assert_allclose(angle_about_z(posed), degrees / 4, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(posed, axis=1), 1, atol=1e-12)


def test_cubic_spline_follows_a_cubic_exactly():
    """Oracle: analytic; t^3 - 2t with its derivative as tangents is a cubic, which Hermite pieces reproduce."""
    keys = np.array([0.5, 1.25, 3.0])
    value, slope = keys**3 - 2 * keys, 3 * keys**2 - 2
    rows = np.stack([slope, value, slope], axis=1)[:, :, None] * np.array([1.0, 2.0, -1.0])
    times = np.linspace(0.5, 3, 31)
    expected = (times**3 - 2 * times)[:, None] * [1.0, 2.0, -1.0]
    np.testing.assert_allclose(sample(channel(keys, rows, interpolation="CUBICSPLINE"), times), expected, atol=1e-5)


def test_cubic_spline_tells_in_tangents_from_out_tangents():
    """Oracle: by hand; at the middle of one second p = (p0 + p1) / 2 + (out0 - in1) / 8."""
    rows = [[[9.0], [1.0], [2.0]], [[4.0], [3.0], [9.0]]]
    posed = sample(channel([0, 1], rows, "weights", "CUBICSPLINE"), np.array([0.5]))
    np.testing.assert_allclose(posed, [[2 + (2 - 4) / 8]])


def test_cubic_spline_rotations_have_unit_length():
    """Oracle: property."""
    rng = np.random.default_rng(0)
    posed = sample(channel([0, 1, 2], rng.normal(size=(3, 3, 4)), "rotation", "CUBICSPLINE"), np.linspace(0, 2, 20))
    np.testing.assert_allclose(np.linalg.norm(posed, axis=1), 1)


def test_step_holds_until_the_next_key():
    """Oracle: by hand."""
    posed = sample(
        channel([0, 1, 2], [[0] * 3, [1] * 3, [2] * 3], interpolation="STEP"), np.array([0, 0.99, 1, 1.5, 2])
    )
    np.testing.assert_array_equal(posed[:, 0], [0, 0, 1, 1, 2])


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP", "CUBICSPLINE"])
def test_times_outside_the_keys_are_clamped(interpolation):
    """Oracle: specification; before the first and after the last key its value holds, with one key always."""
    values = np.array([[1.0, 2, 3], [4, 5, 6]])
    tangents = np.ones((2, 3))
    rows = np.stack([tangents, values, tangents], axis=1) if interpolation == "CUBICSPLINE" else values
    posed = sample(channel([1, 2], rows, interpolation=interpolation), np.array([-5, 0.5, 2.5, 99]))
    np.testing.assert_allclose(posed, values[[0, 0, 1, 1]])
    posed = sample(channel([1], rows[:1], interpolation=interpolation), np.array([0, 1, 2]))
    np.testing.assert_allclose(posed, values[[0, 0, 0]])


def test_equal_times_jump_and_are_not_divided_by():
    """Oracle: by hand; exporters write a jump as two keys at one time."""
    source = channel([0, 1, 1, 2], [[0] * 3, [1] * 3, [5] * 3, [6] * 3])
    np.testing.assert_allclose(sample(source, np.array([0.5, 1, 1.5, 2]))[:, 0], [0.5, 5, 5.5, 6])
    ending = channel([0, 1, 1], [[0] * 3, [1] * 3, [5] * 3])
    np.testing.assert_allclose(sample(ending, np.array([1, 2]))[:, 0], [5, 5])


def test_active_interval_skips_dead_time_and_unseen_nodes():
    """Oracle: by hand; a node outside the scene is keyed longer and does not count."""
    writer = GlbWriter()
    mesh = writer.add_mesh("", [{"positions": CUBE, "triangles": CUBE_TRIANGLES}])
    shown, hidden = writer.add_node("shown", mesh=mesh), writer.add_node("hidden")
    moves = [[0, 0, 0], [1, 0, 0]]
    writer.add_animation("", [
        {"node": shown, "path": "translation", "times": [3, 4], "values": moves},
        {"node": hidden, "path": "translation", "times": [0, 9], "values": moves},
    ])  # fmt: skip
    asset = read_bytes(writer.to_bytes(scene_nodes=[shown]))
    (animation,) = asset.animations
    assert (animation.start_s, animation.end_s, animation.duration_s, animation.name) == (3.0, 4.0, 9.0, "")
    posed = Poser(asset).positions(0, np.array([0, 3.5, 10]))[0]
    np.testing.assert_allclose(posed[:, 0, 0], [-1, -0.5, 0])


def test_cubic_spline_with_too_few_values_is_rejected():
    """Oracle: specification; CUBICSPLINE has three values a key."""
    from tests.broken import patched, small_asset

    data = patched(
        small_asset().to_bytes(), lambda d: d["animations"][0]["samplers"][0].update(interpolation="CUBICSPLINE")
    )
    with pytest.raises(Rejected, match=r"animations\[0\].samplers\[0\].output: found 9 numbers .* expected 27"):
        read_bytes(data)
