"""Camera and light rigs: bounds of the ring, the exact cameras of the evaluation protocols, one rig per key."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from manifests.cameras import angles_of, project
from manifests.config import PRESETS, CameraConfig
from manifests.rigs import camera_rig, light_rig

FRONT = 270.0


def relative(rig: dict) -> np.ndarray:
    """Azimuths from the front, in (-180, 180]."""
    away = (np.array(rig["azimuth_deg"]) - rig["front_azimuth_deg"]) % 360
    return np.where(away > 180, away - 360, away)


@pytest.mark.parametrize("preset", ["mv-video", "demo"])
def test_ring_is_even_and_stays_within_its_bounds(preset):
    # Oracle: design 3.2: azimuth k * step + offset, offset within half a step, one elevation within 0..30.
    config = PRESETS[preset].camera
    step, offsets, elevations = 360 / config.views, [], []
    for animation in range(200):
        rig = camera_rig(config, 0, "sha", animation)
        azimuths = np.array(rig["azimuth_deg"])
        np.testing.assert_allclose(np.diff(azimuths) % 360, step, atol=2e-4)
        assert ((azimuths >= 0) & (azimuths < 360)).all()
        offsets.append(relative(rig)[0])
        assert len(set(rig["elevation_deg"])) == 1
        elevations.append(rig["elevation_deg"][0])
    assert max(map(abs, offsets)) <= step / 2
    assert max(offsets) > 0.4 * step > -0.4 * step > min(offsets)
    assert 0 <= min(elevations) < 2
    assert 28 < max(elevations) <= 30


def test_eval_animate3d_has_its_twelve_cameras():
    # Oracle: the table of design 3.2.
    rig = camera_rig(PRESETS["eval-animate3d"].camera, "any", "key")
    expected = [
        (15, 0), (15, 90), (15, 180), (15, -90),
        (0, 30), (0, 120), (0, -150), (0, -60),
        (30, -45), (30, 45), (30, 135), (30, -135),
    ]  # fmt: skip
    assert list(zip(rig["elevation_deg"], relative(rig).tolist(), strict=True)) == expected
    assert rig["width"] == rig["height"] == 1024
    assert rig == camera_rig(PRESETS["eval-animate3d"].camera, "another", 1)


def test_eval_3to4d_has_its_four_cameras():
    # Oracle: the table of design 3.2.
    rig = camera_rig(PRESETS["eval-3to4d"].camera)
    assert relative(rig).tolist() == [0, 90, 180, -90]
    assert rig["elevation_deg"] == [0.0] * 4


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_matrices_agree_with_the_angles_beside_them(preset):
    # Oracle: the angles of the position in c2w, and the projection of the object's centre.
    config = PRESETS[preset].camera
    rig = camera_rig(config, 1, "sha", 2)
    for view in range(config.views):
        found = angles_of(np.array(rig["c2w"][view]))
        assert found[0] == pytest.approx(rig["azimuth_deg"][view], abs=1e-9)
        assert found[1:] == pytest.approx((rig["elevation_deg"][view], rig["distance"][view]), abs=1e-9)
        uv, _ = project(np.zeros(3), rig["c2w"][view], rig["K"][view])
        np.testing.assert_allclose(uv, [config.size / 2] * 2, atol=1e-9)
    assert len(rig["K"]) == len(rig["c2w"]) == config.views


def test_view_0_of_a_fixed_rig_sees_the_front_of_a_gltf_object():
    # Oracle: glTF's front is +z, which is -y in our world; nearer to the camera than the back is.
    rig = camera_rig(PRESETS["eval-3to4d"].camera)
    _, depth = project(np.array([[0.0, -0.4, 0.0], [0.0, 0.4, 0.0]]), rig["c2w"][0], rig["K"][0])
    assert depth[0] < depth[1]


def test_rigs_depend_on_every_part_of_their_key_and_on_nothing_else():
    # Oracle: repetition, and pairs of keys.
    config = CameraConfig()
    keys = list(itertools.product([0, 1], ["sha-a", "sha-b"], [0, 1]))
    rigs = [camera_rig(config, *key) for key in keys]
    assert rigs == [camera_rig(config, *key) for key in keys]
    assert len({rig["azimuth_deg"][0] for rig in rigs}) == len({rig["elevation_deg"][0] for rig in rigs}) == len(keys)
    lights = [repr(light_rig("random", FRONT, *key)) for key in keys]
    assert lights == [repr(light_rig("random", FRONT, *key)) for key in keys]
    assert len(set(lights)) == len(keys)


def test_jitter_and_elevation_can_be_fixed():
    # Oracle: bounds that leave one value.
    rig = camera_rig(CameraConfig(views=4, azimuth_jitter_deg=0, elevation_min_deg=20, elevation_max_deg=20), "k")
    assert relative(rig).tolist() == [0, 90, 180, -90]
    assert rig["elevation_deg"] == [20.0] * 4


def test_studio_is_the_same_for_every_key_and_turns_with_the_front():
    # Oracle: the definition.
    lights, world = light_rig("studio-1", FRONT, "a")
    assert (lights, world) == light_rig("studio-1", FRONT, "b")
    turned, _ = light_rig("studio-1", FRONT + 30, "a")
    for one, other in zip(lights["lights"], turned["lights"], strict=True):
        assert (other["azimuth_deg"] - one["azimuth_deg"]) % 360 == pytest.approx(30)
        assert {k: v for k, v in one.items() if k != "azimuth_deg"} == {
            k: v for k, v in other.items() if k != "azimuth_deg"
        }


def test_random_lights_stay_within_their_ranges():
    # Oracle: the ranges that the function states.
    counts = set()
    for key in range(100):
        lights, world = light_rig("random", FRONT, key)
        counts.add(len(lights["lights"]))
        for light in lights["lights"]:
            assert 0 <= light["azimuth_deg"] < 360
            assert 5 <= light["elevation_deg"] <= 80
            assert 0.5 <= light["angle_deg"] <= 15
            assert 1.0 / 2 <= light["energy"] <= 4.0
            assert all(0.8 <= c <= 1 for c in light["color"])
        assert 0.2 <= world["strength"] <= 0.6
        assert len({light["name"] for light in lights["lights"]}) == len(lights["lights"])
    assert counts == {2, 3, 4}
