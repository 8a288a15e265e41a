"""What is rendered between keys follows the specification: slerp and tangents, seen in where the mask lies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manifests.gltf import GlbWriter
from tests.render.studio import Clip, block, render, tiny, write

ARM = 2.0


def arm(channels, **parent) -> GlbWriter:
    """A small cube at the end of an invisible arm along glTF's +x, on a node that the channels move."""
    writer = GlbWriter()
    tip = writer.add_node("tip", mesh=writer.add_mesh("cube", [block(0.12)]), translation=[ARM, 0, 0])
    hub = writer.add_node("hub", children=[tip], **parent)
    writer.add_animation("move", [{"node": hub, **channel} for channel in channels])
    return writer


def about_y(angle_deg: float) -> list[float]:
    """glTF's y is our z: the angle by which the arm's azimuth grows."""
    half = math.radians(angle_deg) / 2
    return [0.0, math.sin(half), 0.0, math.cos(half)]


def seen_at(clip: Clip, view: int, world: np.ndarray) -> np.ndarray:
    """Pixel of a point of the world."""
    normalization, cameras = clip.sample["normalization"], clip.sample["cameras"]
    point = (np.asarray(world) - normalization["center"]) * normalization["scale"]
    c2w, K = np.array(cameras["c2w"][view]), np.array(cameras["K"][view])
    x, y, z = (point - c2w[:3, 3]) @ c2w[:3, :3]
    return np.array([K[0, 2] - K[0, 0] * x / z, K[1, 2] + K[1, 1] * y / z])


def centroid(alpha: np.ndarray) -> np.ndarray:
    """Of the mask, in pixels."""
    weight = alpha / 255.0
    rows, columns = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def check(clip: Clip, expected, wrong, *, apart_px: float) -> None:
    """The mask lies at `expected(time)`, and in some frame `wrong(time)` is clearly somewhere else."""
    most = 0.0
    for view in range(clip.alpha.shape[0]):
        for frame, time_s in enumerate(clip.sample["times_s"]):
            found = centroid(clip.alpha[view, frame])
            right = seen_at(clip, view, expected(time_s))
            assert np.abs(found - right).max() < 0.35, (view, frame, found, right)
            most = max(most, float(np.abs(found - seen_at(clip, view, wrong(time_s))).max()))
    print(f"other interpolation is {most:.1f} px away")
    assert most > apart_px


def at_angle(angle_deg: float) -> list[float]:
    angle = math.radians(angle_deg)
    return [ARM * math.cos(angle), ARM * math.sin(angle), 0.0]


OPTIONS = {"views": 2, "frames": 5, "fps": 5.0, "size": 128, "samples": 16, "min_frame0_radius": 0.0}


@pytest.mark.parametrize("shorter", [1.0, -1.0])
def test_keys_170_degrees_apart_follow_the_arc_at_even_speed(blender, tmp_path, shorter):
    # Oracle: slerp: 170 degrees times the phase; a quaternion and its negative are the same key.
    end = shorter * np.array(about_y(170))
    channel = {"path": "rotation", "times": [0.13, 1.13], "values": [about_y(0), end]}
    clip = render(blender, write(tmp_path / "a.glb", arm([channel])), tiny(**OPTIONS), tmp_path)
    assert clip.sample["times_s"] == pytest.approx([0.13, 0.33, 0.53, 0.73, 0.93])

    def chord(time_s: float) -> list[float]:
        phase = time_s - 0.13
        q = (1 - phase) * np.array(about_y(0)) + phase * np.array(about_y(170))
        return at_angle(math.degrees(2 * math.atan2(q[1], q[3])))

    check(clip, lambda t: at_angle(170 * (t - 0.13)), chord, apart_px=3)


def test_cubic_splines_follow_their_tangents(blender, tmp_path):
    # Oracle: the Hermite polynomial of the specification's appendix C, by hand, at times between keys.
    p0, m0, p1, m1 = np.array([0, 0, 0]), np.array([0, 3.0, 0]), np.array([0.5, 0, 0.5]), np.array([0, 3.0, -2.0])
    values = [[p0, p0, m0], [m1, p1, p1]]  # in-tangent, value, out-tangent
    channel = {"path": "translation", "times": [0, 2], "values": values, "interpolation": "CUBICSPLINE"}
    clip = render(blender, write(tmp_path / "a.glb", arm([channel])), tiny(**OPTIONS | {"fps": 2.5}), tmp_path)

    def place(value: np.ndarray) -> list[float]:
        return [ARM + value[0], -value[2], value[1]]

    def hermite(time_s: float) -> list[float]:
        u, span = time_s / 2, 2.0
        return place(
            (1 + 2 * u) * (1 - u) ** 2 * p0 + span * u * (1 - u) ** 2 * m0
            + u**2 * (3 - 2 * u) * p1 + span * u**2 * (u - 1) * m1
        )  # fmt: skip

    check(clip, hermite, lambda t: place(p0 + (p1 - p0) * t / 2), apart_px=5)


def test_cubic_splines_of_rotations_are_normalised_component_by_component(blender, tmp_path):
    # Oracle: the specification: Hermite on the four components, then unit length; not slerp.
    q0, q1 = np.array(about_y(0)), np.array(about_y(150))
    values = [[np.zeros(4), q0, np.zeros(4)], [np.zeros(4), q1, np.zeros(4)]]
    channel = {"path": "rotation", "times": [0, 1], "values": values, "interpolation": "CUBICSPLINE"}
    clip = render(blender, write(tmp_path / "a.glb", arm([channel])), tiny(**OPTIONS), tmp_path)

    def spline(u: float) -> list[float]:
        q = (1 + 2 * u) * (1 - u) ** 2 * q0 + u**2 * (3 - 2 * u) * q1
        return at_angle(math.degrees(2 * math.atan2(q[1], q[3])))

    check(clip, spline, lambda u: at_angle(150 * u), apart_px=3)


def test_steps_stay_until_their_next_key(blender, tmp_path):
    # Oracle: STEP, one frame exactly on the key.
    channel = {"path": "rotation", "times": [0, 0.5, 1.25], "values": [about_y(0), about_y(60), about_y(120)]}
    writer = arm([channel | {"interpolation": "STEP"}])
    clip = render(blender, write(tmp_path / "a.glb", writer), tiny(**OPTIONS | {"fps": 4.0}), tmp_path)
    assert clip.sample["times_s"] == [0, 0.25, 0.5, 0.75, 1.0]
    check(clip, lambda t: at_angle(60 if t >= 0.5 else 0), lambda t: at_angle(120 * t), apart_px=3)
