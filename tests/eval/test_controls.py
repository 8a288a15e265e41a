"""Controls: what they are made of, what they keep, and that only the seed decides their noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from eval.calibration import moving_clip
from eval.controls import JITTER_LEVELS, TURN_DEG, describe, make_controls
from eval.extractor import Clip
from eval.runs import CONTROLS
from eval.silhouettes import object_masks
from manifests.errors import InputError
from manifests.images import composite

GREY = (127, 127, 127)


@pytest.fixture
def clip() -> Clip:
    moving, _ = moving_clip("translation", px_per_frame=3, object_size=40, frames=6, size=64)
    still, _ = moving_clip("rotation", px_per_frame=0, object_size=48, frames=1, size=64, seed=7)
    return dataclasses.replace(
        moving, reference=still.frames[0], reference_alpha=still.alpha[0], object_id="fox", view="a090e+00",
        truth=moving.frames, truth_alpha=moving.alpha, depth=np.zeros((6, 64, 64), np.float32),
        c2w=np.eye(4), K=np.eye(3), azimuth_deg=90.0, elevation_deg=0.0,
    )  # fmt: skip


def orbit_of(count: int, size: int = 64) -> np.ndarray:
    """Frames that tell their number: a square of grey 10 k, half covered at its left edge."""
    rgba = np.zeros((count, size, size, 4), np.uint8)
    for k in range(count):
        rgba[k, 16:48, 16:48] = (10 * k, 10 * k, 10 * k, 255)
        rgba[k, 16:48, 16, 3] = 128
    return rgba


def test_controls_are_those_of_the_run_and_keep_what_is_not_pixels(clip):
    """Oracle: the names in eval.runs, and the clip's own fields."""
    controls = make_controls(clip, orbit=None, seed=0)
    assert tuple(controls) == CONTROLS
    assert set(describe(clip, orbit=None)) == set(CONTROLS)
    for name, control in controls.items():
        assert control.frames.shape == clip.frames.shape, name
        assert control.frames.dtype == control.alpha.dtype == np.uint8
        assert control.alpha.shape == clip.alpha.shape
        for field in ("fps", "background", "prompt", "object_id", "view"):
            assert getattr(control, field) == getattr(clip, field)
        assert control.reference is clip.reference
        assert control.truth is clip.truth
        assert control.depth is None
        assert (control.c2w is None) == (name == "orbit")


def test_frozen_and_first_frame_repeat_without_memory(clip):
    """Oracle: the reference and frame 0 in every frame; a stride of 0 over time."""
    controls = make_controls(clip, orbit=None, seed=0)
    assert (controls["frozen"].frames == clip.reference).all()
    assert (controls["frozen"].alpha == clip.reference_alpha).all()
    assert (controls["first_frame"].frames == clip.frames[0]).all()
    assert (controls["first_frame"].alpha == clip.alpha[0]).all()
    for name in ("frozen", "first_frame"):
        assert controls[name].frames.strides[0] == controls[name].alpha.strides[0] == 0


def test_jitter_is_gaussian_noise_on_the_object(clip):
    """Oracle: moments of the noise where nothing clips: mean 0, deviation 8, independent from frame to frame."""
    jitter = make_controls(clip, orbit=None, seed=0)["jitter"]
    noise = jitter.frames.astype(float) - clip.reference
    assert not noise[:, clip.reference_alpha == 0].any()
    inside = (clip.reference_alpha == 255)[..., None] & (clip.reference > 50) & (clip.reference < 205)
    values = noise[:, inside]
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(JITTER_LEVELS, rel=0.03)
    assert abs(np.corrcoef(values)[~np.eye(6, dtype=bool)]).max() < 0.1


def test_jitter_depends_on_seed_object_and_view_only(clip):
    """Oracle: repeated calls; each part of the key changed alone."""
    first = make_controls(clip, orbit=None, seed=0)["jitter"].frames
    assert np.array_equal(first, make_controls(clip, orbit=orbit_of(6), seed=0)["jitter"].frames)
    others = [
        (clip, 1),
        (dataclasses.replace(clip, object_id="dog"), 0),
        (dataclasses.replace(clip, view="a180e+00"), 0),
    ]
    for other, seed in others:
        assert not np.array_equal(first, make_controls(other, orbit=None, seed=seed)["jitter"].frames)


def test_controls_without_reference_and_alpha_are_made_of_frame_zero(clip):
    """Oracle: frame 0; noise where its colours differ from the border; no alpha where the method has none."""
    bare = dataclasses.replace(clip, reference=None, reference_alpha=None, alpha=None)
    controls = make_controls(bare, orbit=None, seed=0)
    assert (controls["frozen"].frames == clip.frames[0]).all()
    changed = (controls["jitter"].frames != clip.frames[0]).any(axis=(0, 3))
    assert not changed[~object_masks(bare)[0]].any()
    assert changed.sum() > 0.95 * object_masks(bare)[0].sum()
    assert all(control.alpha is None for control in controls.values())
    assert "frame 0 of the method" in describe(bare, orbit=None)["frozen"]


def test_orbit_plays_its_frames_on_the_background(clip):
    """Oracle: composite of the same frames; longer orbits keep their speed, shorter ones are spread over the clip."""
    for count, expected in ((9, [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (3, [0, 0, 1, 1, 2, 2])):
        orbit = orbit_of(count)
        control = make_controls(clip, orbit=orbit, seed=0)["orbit"]
        assert np.array_equal(control.frames, composite(orbit[expected], [127 / 255] * 3))
        assert np.array_equal(control.alpha, orbit[expected, ..., 3])
    assert "circles" in describe(clip, orbit=orbit)["orbit"]


def test_orbit_is_resized_to_the_clip(clip):
    """Oracle: composite with the clip's size; the object's share of the picture stays."""
    orbit = orbit_of(6, size=64).repeat(2, axis=1).repeat(2, axis=2)
    control = make_controls(clip, orbit=orbit, seed=0)["orbit"]
    assert np.array_equal(control.frames, composite(orbit, [127 / 255] * 3, size=(64, 64)))
    assert control.alpha.mean() == pytest.approx(orbit[..., 3].mean(), rel=0.01)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 4)), np.zeros((0, 8, 8, 4), np.uint8)]
)
def test_orbit_of_another_shape_is_refused(clip, wrong):
    """Oracle: the message names the object, what was found and what is expected."""
    with pytest.raises(InputError, match=r"orbit of fox: found .*expected uint8 \(frame, height, width, 4\)"):
        make_controls(clip, orbit=wrong, seed=0)


def test_turned_picture_is_a_card_in_perspective():
    """Oracle: pinhole projection of the card's points, against where a bright dot is found in each frame."""
    size, frames = 128, 8
    still = np.full((size, size, 3), 127, np.uint8)
    dots = [(30, 40), (90, 64), (64, 100)]
    focal = 0.5 * size / math.tan(math.radians(20))
    for x, y in dots:
        picture = still.copy()
        picture[y - 3 : y + 4, x - 3 : x + 4] = 255
        clip = Clip(frames=np.repeat(still[None], frames, 0), reference=picture, background=GREY)
        control = make_controls(clip, orbit=None, seed=0)["orbit"].frames[..., 0].astype(float) - 127
        for t in range(frames):
            angle = math.radians(TURN_DEG) * math.sin(2 * math.pi * t / frames)
            across, up, behind = x + 0.5 - size / 2, y + 0.5 - size / 2, 0.1 * size
            turned = across * math.cos(angle) + behind * math.sin(angle)
            toward = -across * math.sin(angle) + behind * math.cos(angle) - behind
            scale = focal / (focal - toward)
            weights = np.maximum(control[t], 0)
            rows, columns = np.mgrid[:size, :size] + 0.5
            found = (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
            assert found == pytest.approx((turned * scale + size / 2, up * scale + size / 2), abs=0.1)


def test_turned_picture_starts_at_rest_and_keeps_the_background(clip):
    """Oracle: frame 0 is the reference; the border stays the background; alpha turns with the colours."""
    control = make_controls(clip, orbit=None, seed=0)["orbit"]
    assert np.array_equal(control.frames[0], clip.reference)
    assert np.array_equal(control.alpha[0], clip.reference_alpha)
    edge = np.ones((64, 64), bool)
    edge[2:-2, 2:-2] = False
    assert (control.frames[:, edge] == 127).all()
    assert np.abs(control.frames[control.alpha == 0].astype(int) - 127).max() <= 2  # less than half a level of alpha
    assert any(not np.array_equal(control.alpha[0], alpha) for alpha in control.alpha[1:])
