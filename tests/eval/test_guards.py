"""Guards: what each finds, on clips made for it, on the controls, and that real motion passes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from scipy.interpolate import griddata

from eval.calibration import moving_clip
from eval.controls import make_controls
from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.guards import GUARDS, Guard, Limits, check, failing
from eval.orbit_motion import fit_orbit
from eval.runs import GUARDS as COLUMNS
from tests.eval.solids import box, draw, sphere

STATUE = [
    (sphere, (0.0, 0.0, 0.0), 0.2), (sphere, (0.25, 0.0, 0.15), 0.12), (box, (-0.2, 0.1, -0.1), (0.1, 0.15, 0.12)),
]  # fmt: skip
WAVES = (20.0, 33.0, 47.0, 60.0, 71.0)


@pytest.fixture(scope="module")
def dis():
    return find("flow-dis")(compute=Compute())


def failed(dis, clip: Clip, **options) -> list[str]:
    return [found.guard for found in check(clip, dis.extract([clip])[0], **options) if found.failed]


def found(dis, clip: Clip, guard: str, **options) -> Guard:
    [one] = [entry for entry in check(clip, dis.extract([clip])[0], **options) if entry.guard == guard]
    return one


def moving(kind: str = "articulated", **changes) -> Clip:
    options = {"px_per_frame": 2.5, "object_size": 64, "frames": 9, "size": 96} | changes
    return moving_clip(kind, **options)[0]


def orbit(step_deg: float, frames: int = 9, size: int = 128) -> np.ndarray:
    """(frame, size, size, 4) of a statue that a camera circles."""
    return np.stack([draw(40 + step_deg * k, 10, STATUE, size=size, waves=WAVES)[0] for k in range(frames)])


def as_clip(rgba: np.ndarray, **fields) -> Clip:
    alpha = rgba[..., 3:] / 255
    frames = np.rint(rgba[..., :3] * alpha + 127 * (1 - alpha)).astype(np.uint8)
    return Clip(
        frames=frames, alpha=rgba[..., 3], reference=frames[0], reference_alpha=rgba[0, ..., 3], fps=8.0, **fields
    )


def without_alpha(clip: Clip, noise: float = 0.0, seed: int = 0) -> Clip:
    """As an mp4 would bring it: no alpha, and some noise everywhere."""
    loud = clip.frames + np.random.default_rng(seed).normal(0, noise, clip.frames.shape)
    return dataclasses.replace(
        clip, frames=np.clip(np.rint(loud), 0, 255).astype(np.uint8), alpha=None, reference=None, reference_alpha=None
    )


# -- real motion and controls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("px_per_frame", [0.8, 2.5, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_articulated_motion_passes_every_guard(dis, px_per_frame, seed):
    """Oracle: two plates that really fold; with alpha, and as a video without it with a codec's noise."""
    clip = moving(px_per_frame=px_per_frame, seed=seed)
    assert failed(dis, clip) == []
    assert failed(dis, without_alpha(clip, noise=1.5)) == []


def test_controls_fail_the_guard_they_are_made_for(dis):
    """Oracle: how the controls are made: nothing, noise, one rigid turn, nothing."""
    controls = make_controls(moving(), orbit=None, seed=3)
    assert {name: failed(dis, clip) for name, clip in controls.items()} == {
        "frozen": ["static"], "jitter": ["static"], "orbit": ["camera-only"], "first_frame": ["static"],
    }  # fmt: skip


@pytest.mark.parametrize("step_deg", [2.0, 4.0, 8.0])
def test_a_camera_that_circles_a_still_object_fails_camera_only(dis, step_deg):
    """Oracle: exact renders of a statue; alone, and as the control of another clip."""
    rgba = orbit(step_deg)
    assert failed(dis, as_clip(rgba)) == ["camera-only"]
    control = make_controls(moving(size=128), orbit=rgba, seed=0)["orbit"]
    assert failed(dis, control) == ["camera-only"]


@pytest.mark.parametrize(("kind", "expected"), [("rotation", ["camera-only"]), ("scale", []), ("translation", [])])
def test_of_rigid_motions_only_turns_fail_camera_only(dis, kind, expected):
    """Oracle: exact motion: a turn is a camera that rolls; a disc that breathes or slides far does not turn."""
    assert failed(dis, moving(kind, px_per_frame=5, size=128)) == expected


def test_motion_of_a_part_is_no_camera(dis):
    """Oracle: a small disc that moves beside a large one at rest; all of an object moves before a camera."""
    large, small = moving("rotation", px_per_frame=0, object_size=70), moving("sinusoid", object_size=20, seed=2)
    there = np.roll(small.alpha, 30, axis=1)[..., None] / 255
    frames = np.rint(np.roll(small.frames, 30, axis=1) * there + large.frames * (1 - there)).astype(np.uint8)
    clip = dataclasses.replace(large, frames=frames)
    assert found(dis, clip, "static").failed is False
    assert found(dis, clip, "camera-only").failed is False


def exact_orbit(step_deg: float, frames: int = 9, size: int = 96) -> tuple[np.ndarray, np.ndarray, dict]:
    """Flow and masks of a bumpy shell in front of a camera that circles it, and the camera for `fit_orbit`.

    The flow of each pixel is the displacement of the point of the shell that is seen there, computed from the
    projection; the shell is followed by taking every frame for frame 0 of the next step.
    """
    focal, middle = 0.5 * size / np.tan(np.radians(20)), size / 2
    y, x = np.mgrid[:size, :size] + 0.5 - middle
    relief = 22 * np.cos(np.hypot(x, y) / 24) + 4 * np.sin(x / 5) * np.cos(y / 7)
    places = [np.stack([x, y], -1)]
    shell = np.stack([x * (focal - relief) / focal, y * (focal - relief) / focal, relief], -1)
    for t in range(1, frames):
        angle = np.radians(step_deg * t)
        c, s = np.cos(angle), np.sin(angle)
        turned = shell @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        places.append(turned[..., :2] * (focal / (focal - turned[..., 2:])))
    inside = np.hypot(x, y) < 30
    return np.stack(places), inside, {"focal_px": focal, "center": (middle, middle)}


@pytest.mark.parametrize("step_deg", [1.0, 3.0])
def test_orbit_fit_explains_an_exact_orbit(step_deg):
    """Oracle: projection of a turning shell; flow on a grid that is moved along (interpolated from its points)."""
    places, inside, camera = exact_orbit(step_deg)
    rows, columns = np.nonzero(inside)
    flow = np.zeros((8, 96, 96, 2))
    masks = np.zeros((9, 96, 96), bool)
    grid = np.mgrid[:96, :96][::-1].transpose(1, 2, 0) + 0.5 - 48
    for t in range(9):
        here = places[t][rows, columns]
        masks[t] = griddata(here, np.ones(len(here)), grid, fill_value=0) > 0
        if t < 8:
            flow[t] = griddata(here, places[t + 1][rows, columns] - here, grid, fill_value=0)
    sure = np.ones((8, 96, 96), bool)
    fit = fit_orbit(flow, sure, masks, **camera)
    assert fit.left_over < 0.06
    assert fit.spread > 0.5
    # The same places with one half moved on by itself are no orbit.
    split = flow.copy()
    split[:, :48, :, 1] -= 0.5 * step_deg * np.sin(np.arange(8))[:, None, None]
    assert fit_orbit(split, sure, masks, **camera).left_over > 0.11


def test_orbit_fit_does_not_explain_folding_plates():
    """Oracle: exact flow of two plates that fold in the picture plane."""
    clip, flow = moving_clip("articulated", px_per_frame=2, object_size=60, frames=9, size=96)
    sure = np.ones(flow.shape[:3], bool)
    assert fit_orbit(flow, sure, clip.alpha > 127, focal_px=132, center=(48, 48)).left_over > 0.2
    turn, flow = moving_clip("rotation", px_per_frame=2, object_size=60, frames=9, size=96)
    assert fit_orbit(flow, sure, turn.alpha > 127, focal_px=132, center=(48, 48)).left_over < 0.03


def test_orbit_fit_refuses_what_it_cannot_follow():
    """Oracle: three frames, an object of a few pixels, points that leave the object, flow that nothing supports."""
    clip, flow = moving_clip("rotation", px_per_frame=2, object_size=60, frames=9, size=96)
    masks, sure, camera = clip.alpha > 127, np.ones(flow.shape[:3], bool), {"focal_px": 132, "center": (48, 48)}
    assert fit_orbit(flow, sure, masks, **camera) is not None
    assert fit_orbit(flow[:2], sure[:2], masks[:3], **camera) is None
    speck = np.zeros_like(masks)
    speck[:, 40:44, 40:44] = True
    assert fit_orbit(flow, sure, speck, **camera) is None
    assert fit_orbit(flow + 30, sure, masks, **camera) is None
    assert fit_orbit(flow, ~sure, masks, **camera) is None


# -- one guard at a time -----------------------------------------------------------------------------------------------


def test_static_measures_object_diameters_a_frame(dis):
    """Oracle: the exact motion over the diameter of the disc; most of the change is explained."""
    entry = found(dis, moving("translation", px_per_frame=2.0), "static")
    assert entry.value == pytest.approx(2 / 64, rel=0.15)
    assert entry.limit == Limits().motion
    slow = found(dis, moving("translation", px_per_frame=0.1), "static")
    assert slow.failed
    assert slow.value == pytest.approx(0.1 / 64, rel=0.4)


def test_static_is_the_same_with_and_without_frame_rate(dis):
    """Oracle: the guard counts frames, so a folder of frames without fps is guarded too."""
    clip = moving()
    assert found(dis, clip, "static") == found(dis, dataclasses.replace(clip, fps=None), "static")


@pytest.mark.parametrize("levels", [2.0, 8.0, 15.0])
def test_noise_is_static(dis, levels):
    """Oracle: a still object with new noise in every frame; its flow is longer than that of slow motion."""
    still = moving("rotation", px_per_frame=0)
    noise = np.random.default_rng(1).normal(0, levels, still.frames.shape) * (still.alpha[..., None] / 255)
    clip = dataclasses.replace(still, frames=np.clip(np.rint(still.frames + noise), 0, 255).astype(np.uint8))
    assert failed(dis, clip) == ["static"]


def test_blank_finds_empty_and_one_coloured_videos(dis):
    """Oracle: no opaque pixel; a silhouette of one colour; a uniform picture without alpha; half of the frames."""
    clip = moving()
    empty = dataclasses.replace(clip, frames=np.full_like(clip.frames, 127), alpha=np.zeros_like(clip.alpha))
    flat = dataclasses.replace(clip, frames=np.where(clip.alpha[..., None] > 127, np.uint8(40), clip.frames))
    grey = dataclasses.replace(empty, alpha=None)
    for blank in (empty, flat, grey):
        assert "blank" in failed(dis, blank)
    for count, bad in ((4, False), (5, True)):
        alpha = clip.alpha.copy()
        alpha[:count] = 0
        assert ("blank" in failed(dis, dataclasses.replace(clip, alpha=alpha))) == bad


def test_subject_lost_compares_with_the_start(dis):
    """Oracle: areas of squares: a tenth fails, a third passes, the start itself may be what is missing."""
    textured = moving("rotation", px_per_frame=0, object_size=80).frames
    for side, bad in ((10, True), (18, False)):
        alpha = np.zeros(textured.shape[:3], np.uint8)
        alpha[:, 30:60, 30:60] = 255
        alpha[5] = 0
        alpha[5, 30 : 30 + side, 30 : 30 + side] = 255
        entry = found(dis, Clip(frames=textured, alpha=alpha), "subject-lost")
        assert entry.failed == bad
        assert entry.value == pytest.approx(side**2 / 900)
        assert "frame 5" in entry.detail
    alpha[0] = 0
    assert found(dis, Clip(frames=textured, alpha=alpha), "subject-lost").failed


def test_subject_lost_reads_similarity_where_there_is_one(dis):
    """Oracle: made-up cosines; the worst frame decides and is named."""
    clip = moving()
    good, bad = np.full(9, 0.9), np.full(9, 0.9)
    bad[4] = 0.1
    assert not found(dis, clip, "subject-lost", similarity=good).failed
    entry = found(dis, clip, "subject-lost", similarity=bad)
    assert (entry.failed, entry.value, entry.limit) == (True, pytest.approx(0.1), Limits().similarity_kept)
    assert "frame 4" in entry.detail


def test_background_flicker_measures_levels_beside_the_object(dis):
    """Oracle: a background that alternates by a known number of levels; with alpha, and without."""
    clip = moving()
    for levels, bad in ((1, False), (6, True), (60, True)):
        frames = clip.frames.copy()
        frames[1::2][clip.alpha[1::2] == 0] += np.uint8(levels)
        for seen in (dataclasses.replace(clip, frames=frames), without_alpha(dataclasses.replace(clip, frames=frames))):
            entry = found(dis, seen, "background-flicker")
            assert entry.failed == bad
            assert entry.value == pytest.approx(levels, rel=0.05)


def test_background_flicker_does_not_see_the_object(dis):
    """Oracle: fast motion on a still background; and a video that the object fills has no value."""
    assert found(dis, moving(px_per_frame=6), "background-flicker").value == 0
    clip = moving()
    filled = np.full_like(clip.alpha, 255)
    filled[:, 0, 0] = 0
    entry = found(dis, dataclasses.replace(clip, alpha=filled), "background-flicker")
    assert (entry.failed, entry.value) == (False, None)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_findings_are_rows_of_the_table(dis):
    """Oracle: the schema in eval.runs; every guard once, in order, also where nothing can be computed."""
    clips = [moving(), Clip(frames=np.full((1, 12, 12, 3), 127, np.uint8))]
    for clip in clips:
        rows = [one.row() for one in check(clip, dis.extract([clip])[0])]
        assert [row["guard"] for row in rows] == list(GUARDS)
        assert all(set(row) == set(COLUMNS.names) - {"object_id", "view", "variant"} for row in rows)
        assert all(isinstance(row["failed"], bool) for row in rows)
        assert all(row["value"] is None or isinstance(row["value"], float) for row in rows)


def test_limits_can_be_changed(dis):
    """Oracle: the same clip with a limit on either side of its value."""
    clip = moving()
    value = found(dis, clip, "static").value
    assert failed(dis, clip, limits=Limits(motion=value * 1.01, outline=1.0)) == ["static"]
    assert failed(dis, clip, limits=Limits(motion=value * 0.99)) == []


def test_a_row_fails_where_more_than_half_of_its_videos_fail():
    """Oracle: counts by hand: 2 of 4 passes, 3 of 4 fails."""
    rows = [{"guard": "static", "failed": k < 2} for k in range(4)]
    rows += [{"guard": "blank", "failed": k < 3} for k in range(4)]
    assert failing(rows) == {"blank": 0.75}
    assert failing([]) == {}


def test_importing_guards_and_controls_loads_no_opencv():
    """Oracle: sys.modules of a fresh interpreter: the room works where OpenCV and torch are not installed."""
    program = "import sys, eval.guards, eval.controls, eval.calibration; print({'cv2', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_frames_held_and_then_far_apart_are_motion(dis):
    # Oracle: a disc that jumps by its radius every fourth frame; flow follows none of it. The noisy still stays static.
    y, x = np.mgrid[:96, :96]
    centres = 24 + 16 * (np.arange(12) // 4)
    alpha = np.stack([np.where(np.hypot(x - c, y - 48) < 16, 255, 0) for c in centres]).astype(np.uint8)
    texture = np.random.default_rng(0).integers(0, 255, (12, 96, 96, 3), np.uint8)
    frames = np.where(alpha[..., None] > 0, texture[np.arange(12) // 4 * 4], 255).astype(np.uint8)
    clip = Clip(frames=frames, alpha=alpha, fps=8.0)
    static = next(guard for guard in check(clip, dis.extract([clip])[0]) if guard.guard == "static")
    assert not static.failed
    still = np.broadcast_to(alpha[:1], alpha.shape)
    noisy = np.clip(frames[0] + np.random.default_rng(1).normal(0, 8, frames.shape), 0, 255)
    clip = Clip(frames=np.where(still[..., None] > 0, noisy, 255).astype(np.uint8), alpha=still, fps=8.0)
    assert next(guard for guard in check(clip, dis.extract([clip])[0]) if guard.guard == "static").failed
