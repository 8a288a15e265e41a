"""The probe: each reason from a file that earns it, and the properties of each normalisation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from manifests.config import PRESETS
from manifests.errors import REASONS, Rejected
from manifests.gltf import GlbWriter, Poser, read
from render.probe import probe, probe_still
from tests.broken import CUBE, CUBE_TRIANGLES, small_asset
from tests.render.studio import SHARED, tiny

CONFIG = tiny(frames=5, fps=4.0)
"""Needs 1.25 s."""


def asset(tmp_path, *animations: tuple[str, list[dict]], scale: float = 1.0):
    """A cube on a node; each animation is (name, channels on that node)."""
    writer = GlbWriter(copyright="CC0-1.0 nobody", generator="a test")
    mesh = writer.add_mesh("cube", [{"positions": CUBE * scale, "triangles": CUBE_TRIANGLES}])
    node = writer.add_node("cube", mesh=mesh)
    for name, channels in animations:
        writer.add_animation(name, [{"node": node, **channel} for channel in channels])
    path = tmp_path / "asset.glb"
    path.write_bytes(writer.to_bytes())
    return path


def move(*places, times=None, path="translation", **more) -> dict:
    times = list(np.linspace(0, 2, len(places))) if times is None else times
    return {"path": path, "times": times, "values": places, **more}


BACK_AND_FORTH = move([0, 0, 0], [1, 0, 0], [0, 0, 0])


def only(result: dict) -> dict:
    (entry,) = result["animations"]
    return entry


@pytest.mark.parametrize(
    ("reason", "channel"),
    [
        ("still-pose", move([1, 2, 3], times=[0.5])),
        ("static", move([1, 2, 3], [1, 2, 3])),
        ("static", move([0, 0, 0], [0.001, 0, 0])),
        ("too-short", move([0, 0, 0], [1, 0, 0], times=[0, 1.2])),
        ("no-visible-mesh", move([0, 0, 0], [0, 0, 0], path="scale")),
        ("no-visible-mesh", move([0, 0, 0], [1, 1, 1], path="scale")),
        ("frame0-too-small", move([0, 0, 0], [20, 0, 0])),
        ("frame0-too-small", move([0.1, 0.1, 0.1], [1, 1, 1], path="scale")),
    ],
)
def test_animations_are_rejected_with_their_own_reason(tmp_path, reason, channel):
    # Oracle: the meaning of each reason.
    entry = only(probe(asset(tmp_path, ("move", [channel])), CONFIG))
    assert (entry["status"], entry["reason"]) == ("rejected", reason)
    assert entry["clips"] == []
    assert "expected" in entry["detail"]
    assert reason in REASONS


def test_the_same_motion_again_is_a_duplicate_and_another_is_not(tmp_path):
    # Oracle: copies under another name; the same path at another speed is another motion.
    slower = BACK_AND_FORTH | {"times": [0, 2, 4]}
    path = asset(tmp_path, ("a", [BACK_AND_FORTH]), ("b", [BACK_AND_FORTH]), ("c", [slower]), ("d", [slower]))
    entries = probe(path, CONFIG)["animations"]
    assert [e["reason"] for e in entries] == ["", "duplicate-animation", "", "duplicate-animation"]
    assert "animation 0" in entries[1]["detail"]
    assert [e["name"] for e in entries] == ["a", "b", "c", "d"]


def test_one_bad_animation_does_not_cost_the_others(tmp_path):
    # Oracle: each alone.
    path = asset(tmp_path, ("pose", [move([0, 0, 0], times=[0])]), ("good", [BACK_AND_FORTH]))
    assert [e["status"] for e in probe(path, CONFIG)["animations"]] == ["rejected", "accepted"]


def test_an_asset_without_animations_is_rejected_as_a_whole(tmp_path):
    # Oracle: the reason and its way out.
    with pytest.raises(Rejected, match="mvv still") as caught:
        probe(asset(tmp_path), CONFIG)
    assert caught.value.reason == "no-animation"


def test_facts_and_entries_are_what_the_file_says(tmp_path):
    # Oracle: what was written.
    path = asset(tmp_path, ("go", [move([0, 0, 0], [1, 0, 0], times=[0.5, 3.0])]), ("", [BACK_AND_FORTH]))
    result = json.loads(json.dumps(probe(path, CONFIG), allow_nan=False))
    assert (result["vertices"], result["triangles"]) == (8, 12)
    assert (result["generator"], result["copyright"]) == ("a test", "CC0-1.0 nobody")
    go, unnamed = result["animations"]
    assert (go["start_s"], go["end_s"], go["duration_s"], go["channels"]) == (0.5, 3.0, 3.0, ["translation"])
    assert go["clips"][0]["window"]["times_s"] == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert unnamed["name"] == ""
    assert [clip["window"]["index"] for clip in go["clips"]] == [0]


def test_short_cycles_loop_and_short_ways_need_stretch(tmp_path):
    # Oracle: design 3.2.
    circle = BACK_AND_FORTH | {"times": [0, 0.25, 0.5]}
    way = move([0, 0, 0], [1, 0, 0], times=[0, 0.5])
    path = asset(tmp_path, ("cycle", [circle]), ("way", [way]))
    cycle, short = probe(path, CONFIG)["animations"]
    assert (cycle["status"], cycle["clips"][0]["window"]["loops"]) == ("accepted", 3)
    assert short["reason"] == "too-short"
    stretched = probe(path, tiny(frames=5, fps=4.0, stretch=True))["animations"][1]
    assert stretched["clips"][0]["window"]["time_scale"] == pytest.approx(0.5)
    assert stretched["clips"][0]["window"]["fps"] == pytest.approx(8.0)


def test_motion_of_a_clip_is_that_of_its_window(tmp_path):
    # Oracle: by hand: 1 unit a second for a span of a second; the corner (2, 1, 1) is furthest from the centre.
    path = asset(tmp_path, ("go", [move([0, 0, 0], [10, 0, 0], times=[0, 10])]))
    clips = only(probe(path, CONFIG))["clips"]
    assert len(clips) == 2
    radius = math.sqrt(2**2 + 1 + 1)
    for clip in clips:
        assert clip["motion"] == {
            "mean_displacement": pytest.approx(0.625 / radius, abs=2e-6),
            "peak_displacement": pytest.approx(1 / radius, abs=2e-6),
            "mean_speed": pytest.approx(1 / radius, abs=2e-6),
            "root_travel": pytest.approx(1 / radius, abs=2e-6),
            "scale_change": pytest.approx(0, abs=2e-6),
        }
        assert clip["normalization"]["scale"] == pytest.approx(0.5 / radius, rel=1e-6)
    np.testing.assert_allclose(clips[0]["normalization"]["center"], 0, atol=1e-6)
    np.testing.assert_allclose(clips[1]["normalization"]["center"], [9, 0, 0], atol=1e-6)


def test_a_window_that_does_not_move_is_left_out_alone(tmp_path):
    # Oracle: the figures of each window.
    path = asset(tmp_path, ("late", [move([0, 0, 0], [0, 0, 0], [1, 0, 0], times=[0, 8, 10])]))
    entry = only(probe(path, CONFIG))
    assert entry["status"] == "accepted"
    assert [(clip["status"], clip["reason"]) for clip in entry["clips"]] == [("rejected", "static"), ("accepted", "")]


def normalised(path, entry: dict, clip: dict) -> list[np.ndarray]:
    """Vertices of each frame as they are rendered, from the poser."""
    n, times = clip["normalization"], np.array(clip["window"]["times_s"])
    posed = np.concatenate(Poser(read(path)).positions(entry["index"], times), axis=1).astype(float)
    if clip["offsets"]:
        posed = posed - np.array(clip["offsets"])[:, None]
    return list((posed - n["center"]) * n["scale"])


def reach(points: np.ndarray) -> float:
    return float(np.linalg.norm(points, axis=1).max())


def wild(tmp_path, scale: float = 1.0):
    return asset(
        tmp_path,
        ("jump", [move([0, 0, 0], [scale, scale, 0], [2 * scale, 0, 0])]),
        ("run", [move([3 * scale, 0, 0], [4 * scale, 0, -2 * scale])]),
        scale=scale,
    )


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
def test_mode_clip_centres_frame_0_and_fits_every_frame(tmp_path, size):
    # Oracle: design 3.1, on vertices posed again, whatever the asset's units.
    path = wild(tmp_path, size)
    for entry in probe(path, CONFIG)["animations"]:
        for clip in entry["clips"]:
            frames = normalised(path, entry, clip)
            np.testing.assert_allclose((frames[0].max(0) + frames[0].min(0)) / 2, 0, atol=1e-6)
            assert max(map(reach, frames)) == pytest.approx(0.5, abs=1e-6)
            assert clip["normalization"]["frame0_center"] == pytest.approx([0, 0, 0], abs=1e-6)
            assert clip["normalization"]["frame0_radius"] == pytest.approx(reach(frames[0]), abs=2e-6)


def test_mode_asset_has_one_space_for_all_clips_that_holds_them(tmp_path):
    # Oracle: design 3.1.
    path = wild(tmp_path)
    entries = probe(path, tiny(frames=5, fps=4.0, normalization="asset"))["animations"]
    clips = [(entry, clip) for entry in entries for clip in entry["clips"]]
    assert len({json.dumps([c["normalization"]["center"], c["normalization"]["scale"]]) for _, c in clips}) == 1
    reaches = []
    for entry, clip in clips:
        frames = normalised(path, entry, clip)
        reaches += map(reach, frames)
        middle = (frames[0].max(0) + frames[0].min(0)) / 2
        np.testing.assert_allclose(clip["normalization"]["frame0_center"], middle, atol=1e-5)
        assert clip["normalization"]["frame0_radius"] == pytest.approx(reach(frames[0] - middle), abs=1e-5)
    assert 0.35 < max(reaches) <= 0.5 + 1e-6


def test_mode_asset_rejects_what_is_too_small_in_the_shared_space_and_says_so_of_its_animation(tmp_path):
    # Oracle: a far and an endless walk share their space, so both are small in it; nothing is left to draw from.
    path = asset(tmp_path, ("a", [BACK_AND_FORTH]), ("b", [move([90, 0, 0], [91, 0, 0])]))
    entries = probe(path, tiny(frames=5, fps=4.0, normalization="asset"))["animations"]
    assert {(e["status"], e["reason"]) for e in entries} == {("rejected", "frame0-too-small")}
    assert all("asset's sphere" in e["detail"] for e in entries)


def test_mode_frame0_fits_frame_0_alone(tmp_path):
    # Oracle: design 3.1: later frames may leave the sphere.
    path = wild(tmp_path)
    entry = probe(path, tiny(frames=5, fps=4.0, normalization="frame0"))["animations"][0]
    frames = normalised(path, entry, entry["clips"][0])
    assert reach(frames[0]) == pytest.approx(0.5, abs=1e-6)
    assert max(map(reach, frames)) > 0.6
    assert entry["clips"][0]["normalization"]["frame0_radius"] == pytest.approx(0.5, abs=1e-6)


def test_mode_given_takes_the_values_as_they_are(tmp_path):
    # Oracle: the values given; where frame 0 then lies, by hand.
    config = tiny(frames=5, fps=4.0, normalization="given", given_center=(1.0, 2.0, 3.0), given_scale=0.125)
    clip = probe(wild(tmp_path), config)["animations"][0]["clips"][0]
    n = clip["normalization"]
    assert (n["mode"], n["center"], n["scale"]) == ("given", [1.0, 2.0, 3.0], 0.125)
    assert n["frame0_center"] == pytest.approx([-0.125, -0.25, -0.375], abs=1e-6)
    assert n["frame0_radius"] == pytest.approx(math.sqrt(3) * 0.125, abs=1e-6)


def test_removed_root_motion_stays_over_the_spot(tmp_path):
    # Oracle: the horizontal centroid of the normalised vertices does not move, the vertical one does.
    path = wild(tmp_path)
    entry = probe(path, tiny(frames=5, fps=4.0, root_motion="remove"))["animations"][0]
    clip = entry["clips"][0]
    middles = np.array([frame.mean(0) for frame in normalised(path, entry, clip)])
    assert np.ptp(middles[:, :2], axis=0).max() < 1e-6
    assert np.ptp(middles[:, 2]) > 0.1
    assert clip["normalization"]["root_motion"] == "remove"
    assert max(map(reach, normalised(path, entry, clip))) == pytest.approx(0.5, abs=1e-6)


def test_normalisation_has_digits_that_any_machine_gives(tmp_path):
    # Oracle: nine significant digits, and a last bit of noise in the file does not reach them.
    clip = probe(wild(tmp_path), CONFIG)["animations"][0]["clips"][0]
    assert float(f"{clip['normalization']['scale']:.9g}") == clip["normalization"]["scale"]
    assert all(value == round(value, 9) for value in clip["normalization"]["center"])
    assert "-0.0" not in json.dumps(clip["normalization"])


@pytest.mark.parametrize("pose", ["move@0.5", "0@0.5"])
def test_stills_are_posed_by_name_or_index(tmp_path, pose):
    # Oracle: the cube halfway to (2, 0, 0), by hand.
    path = tmp_path / "a.glb"
    path.write_bytes(small_asset().to_bytes())
    entry = only(probe_still(path, PRESETS["eval-3to4d"], pose))
    assert (entry["index"], entry["source_animation"], entry["name"]) == (-1, 0, "move")
    (clip,) = entry["clips"]
    assert clip["window"]["times_s"] in ((0.5,), [0.5])
    np.testing.assert_allclose(clip["normalization"]["center"], [1, 0, 0], atol=1e-6)
    assert clip["normalization"]["frame0_radius"] == pytest.approx(0.5)
    assert set(clip["motion"].values()) == {0.0}


def test_a_still_at_rest_needs_no_animation(tmp_path):
    # Oracle: the mesh as it stands in the file.
    entry = only(probe_still(asset(tmp_path), PRESETS["demo"], "bind"))
    assert (entry["index"], entry["source_animation"]) == (-1, -1)
    np.testing.assert_allclose(entry["clips"][0]["normalization"]["center"], 0, atol=1e-9)


@pytest.mark.parametrize("pose", ["walk@0", "move", "move@", "move@nan", "7@0", "@1", ""])
def test_poses_that_do_not_exist_are_refused_with_those_that_do(tmp_path, pose):
    # Oracle: the message lists what there is.
    path = tmp_path / "a.glb"
    path.write_bytes(small_asset().to_bytes())
    with pytest.raises(Rejected, match='0 "move"'):
        probe_still(path, PRESETS["demo"], pose)


def test_a_still_that_has_collapsed_is_rejected(tmp_path):
    # Oracle: the reason.
    path = asset(tmp_path, ("gone", [move([0, 0, 0], [0, 0, 0], path="scale")]))
    with pytest.raises(Rejected) as caught:
        probe_still(path, PRESETS["demo"], "gone@0")
    assert caught.value.reason == "no-visible-mesh"


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/assets is not there")
@pytest.mark.parametrize(("name", "count"), [("Fox.glb", 3), ("robot.glb", 14), ("SimpleSkin.gltf", 1)])
def test_real_assets_have_the_animations_that_their_makers_say(name, count):
    # Oracle: the notes that come with the assets.
    result = probe(SHARED / name, PRESETS["demo"])
    assert len(result["animations"]) == count
    assert any(entry["status"] == "accepted" for entry in result["animations"])
