"""Motion figures: a known translation, rotation and scaling give the numbers that a pencil gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.gltf import GlbWriter, Poser, read_bytes
from render.motion import frames_of, sweep
from tests.broken import CUBE, CUBE_TRIANGLES

HALF_DIAGONAL = math.sqrt(3)
"""Radius of the cube of half side 1 around its centre."""


def cube(*channels: dict, extra: bool = False) -> Poser:
    """A cube of half side 1 at the origin, moved by the channels."""
    writer = GlbWriter()
    mesh = writer.add_mesh("cube", [{"positions": CUBE, "triangles": CUBE_TRIANGLES}])
    node = writer.add_node("cube", mesh=mesh)
    if extra:
        writer.add_node("second", mesh=mesh, translation=[5, 0, 0])
    writer.add_animation("move", [{"node": node, "times": [0, 1], **channel} for channel in channels])
    return Poser(read_bytes(writer.to_bytes()))


def test_a_translation_gives_hand_derived_figures():
    # Oracle: by hand: 3 up and 4 along in 1 s, at five even times; glTF's +y is our +z, its +z our -y.
    swept = sweep(cube({"path": "translation", "values": [[0, 0, 0], [0, 3, 4]]}), 0, np.linspace(0, 1, 5))
    np.testing.assert_allclose(swept.center, 0, atol=1e-7)
    assert swept.frame0_radius == pytest.approx(HALF_DIAGONAL)
    assert swept.radius == pytest.approx(math.sqrt(1 + 4**2 + 5**2))  # the corner (1, -1 + 4 + 1 ...) furthest out
    np.testing.assert_allclose([swept.low, swept.high], [[-1, -5, -1], [1, 1, 4]], atol=1e-6)
    assert swept.peak_displacement == pytest.approx(5)
    assert swept.mean_displacement == pytest.approx(5 * (1 + 2 + 3 + 4) / 4 / 4)
    assert swept.mean_step == pytest.approx(5 / 4)
    assert swept.root_travel == pytest.approx(5)
    assert swept.scale_change == pytest.approx(0, abs=1e-6)
    assert swept.closing == pytest.approx(5)
    assert (swept.offsets == 0).all()
    radius = math.sqrt(42)
    assert swept.figures(4.0) == {
        "mean_displacement": pytest.approx(3.125 / radius, abs=1e-6),
        "peak_displacement": pytest.approx(5 / radius, abs=1e-6),
        "mean_speed": pytest.approx(5 / radius, abs=1e-6),  # 5 units in one second
        "root_travel": pytest.approx(5 / radius, abs=1e-6),
        "scale_change": pytest.approx(0, abs=1e-6),
    }


def test_a_half_turn_gives_hand_derived_figures():
    # Oracle: by hand: every corner is sqrt(2) from the axis; chords of a circle; the box breathes by sqrt(2).
    turn = {"path": "rotation", "values": [[0, 0, 0, 1], [0, 1, 0, 0]]}
    swept = sweep(cube(turn), 0, np.linspace(0, 1, 5))
    chord = lambda angle: 2 * math.sqrt(2) * math.sin(math.radians(angle) / 2)  # noqa: E731
    assert swept.peak_displacement == pytest.approx(2 * math.sqrt(2), rel=1e-6)
    assert swept.mean_displacement == pytest.approx(np.mean([chord(a) for a in (45, 90, 135, 180)]), rel=1e-6)
    assert swept.mean_step == pytest.approx(chord(45), rel=1e-6)
    assert swept.root_travel == pytest.approx(0, abs=1e-6)
    assert swept.scale_change == pytest.approx(0, abs=1e-6)
    assert swept.radius == pytest.approx(swept.frame0_radius)


def test_a_scaling_gives_hand_derived_figures():
    # Oracle: by hand: to 3 times the size.
    swept = sweep(cube({"path": "scale", "values": [[1, 1, 1], [3, 3, 3]]}), 0, np.array([0.0, 0.5, 1.0]))
    assert swept.scale_change == pytest.approx(2)
    assert swept.frame0_radius == pytest.approx(HALF_DIAGONAL)
    assert swept.radius == pytest.approx(3 * HALF_DIAGONAL)
    assert swept.peak_displacement == pytest.approx(2 * HALF_DIAGONAL)
    assert swept.root_travel == pytest.approx(0, abs=1e-6)


def test_removing_root_motion_leaves_what_is_vertical():
    # Oracle: by hand: 3 up stay, 4 along go; the offsets are what was taken.
    poser = cube({"path": "translation", "values": [[0, 0, 0], [0, 3, 4]]})
    swept = sweep(poser, 0, np.linspace(0, 1, 5), remove_root=True)
    assert swept.root_travel == pytest.approx(3, abs=1e-6)
    assert swept.peak_displacement == pytest.approx(3, abs=1e-6)
    np.testing.assert_allclose(swept.offsets, [[0, -k, 0] for k in range(5)], atol=1e-6)


def test_what_a_zero_scale_hides_does_not_count_in_the_box():
    # Oracle: the box of the second cube alone, at the end.
    poser = cube({"path": "scale", "values": [[1, 1, 1], [0, 0, 0]]}, extra=True)
    assert sweep(poser, 0, np.array([1.0])).frame0_radius == pytest.approx(HALF_DIAGONAL)
    np.testing.assert_allclose(sweep(poser, 0, np.array([1.0])).center, [5, 0, 0], atol=1e-6)


def test_a_first_frame_without_anything_is_rejected_and_a_later_one_is_not():
    # Oracle: design: nothing to centre on in frame 0.
    vanishing = cube({"path": "scale", "values": [[1, 1, 1], [0, 0, 0]]})
    assert sweep(vanishing, 0, np.array([0.0, 1.0])).radius == pytest.approx(HALF_DIAGONAL)
    with pytest.raises(Rejected) as caught:
        sweep(vanishing, 0, np.array([1.0, 0.0]))
    assert caught.value.reason == "no-visible-mesh"


def test_a_single_frame_does_not_move():
    # Oracle: the definition.
    swept = sweep(cube({"path": "scale", "values": [[1, 1, 1], [3, 3, 3]]}), 0, np.array([0.5]))
    assert set(swept.figures(24.0).values()) == {0.0}
    assert swept.radius == swept.frame0_radius


def test_frames_are_the_same_however_many_are_posed_at_once(monkeypatch):
    # Oracle: all at once.
    poser, times = cube({"path": "translation", "values": [[0, 0, 0], [0, 3, 4]]}), np.linspace(0, 1, 7)
    whole = [frame[0].copy() for frame in frames_of(poser, 0, times)]
    monkeypatch.setattr("render.motion._VERTICES_AT_ONCE", 20)
    parts = [frame[0].copy() for frame in frames_of(poser, 0, times)]
    np.testing.assert_array_equal(whole, parts)
    assert len(whole) == 7
