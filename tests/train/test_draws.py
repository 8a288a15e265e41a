"""What is drawn about a clip, and the words that stand in for a caption."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from manifests.errors import InputError
from train.config import DataConfig, ObjectiveConfig
from train.data.captions import words_of_names
from train.data.draws import Draw, draw, fitting_strides

PLAIN = ObjectiveConfig()


def draws(config: DataConfig, objective: ObjectiveConfig = PLAIN, *, count: int = 2000, views: int = 16, frames=48):
    shape = {"num_views": views, "num_frames": frames}
    return [draw(config, objective, epoch=k % 3, clip_id=f"clip-{k // 3}", **shape) for k in range(count)]


def test_views_are_evenly_spaced_from_every_group():
    """Oracle: Animate3D's four groups of four among sixteen views, each as likely."""
    groups = Counter(found.views for found in draws(DataConfig()))
    assert set(groups) == {tuple(range(start, 16, 4)) for start in range(4)}
    assert min(groups.values()) > 2000 / 4 * 0.85
    assert {found.views for found in draws(DataConfig(views=4), views=4, count=50)} == {(0, 1, 2, 3)}
    assert {found.views for found in draws(DataConfig(views=1), views=3, count=50)} == {(0,), (1,), (2,)}


def test_frames_are_evenly_spaced_with_every_phase_and_stride_that_fits():
    """Oracle: enumeration of the strides that fit and their phases."""
    config = DataConfig(frames=4, strides=(1, 2, 3, 9))
    found = Counter(drawn.frames for drawn in draws(config, count=6000, frames=10))
    expected = {
        tuple(range(phase, phase + 3 * stride + 1, stride)): 1 / 3 / (10 - 3 * stride)
        for stride in (1, 2, 3)
        for phase in range(10 - 3 * stride)
    }
    assert set(found) == set(expected)
    for frames, share in expected.items():
        assert abs(found[frames] / 6000 - share) < 5 * np.sqrt(share / 6000)
    assert {drawn.frames[0] for drawn in draws(DataConfig(), count=100)} == {0, 1, 2}  # 16 of 48 by 3


def test_dropping_and_backgrounds_come_at_their_rates():
    """Oracle: the shares that were asked for, to five standard deviations."""
    objective = ObjectiveConfig(drop_text=0.1, drop_image=0.3)
    found = draws(DataConfig(background_random=0.25, background=(0.5, 0.25, 1.0)), objective, count=4000)
    for share, flags in (
        (0.1, [drawn.drop_text for drawn in found]),
        (0.3, [drawn.drop_image for drawn in found]),
        (0.03, [drawn.drop_text and drawn.drop_image for drawn in found]),
        (0.25, [drawn.background != (0.5, 0.25, 1.0) for drawn in found]),
    ):
        assert abs(np.mean(flags) - share) < 5 * np.sqrt(share / 4000)
    colors = np.array([drawn.background for drawn in found if drawn.background != (0.5, 0.25, 1.0)])
    assert colors.min() < 0.01 < 0.99 < colors.max()
    assert np.abs(np.corrcoef(colors.T) - np.eye(3)).max() < 0.15


def test_noise_seeds_are_63_bits_and_never_met_again():
    """Oracle: the range of torch's generators, and uniqueness over clips and epochs."""
    seeds = [drawn.noise_seed for drawn in draws(DataConfig())]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < 2**58 < 2**62 < max(seeds) < 2**63


def test_a_draw_depends_on_its_key_alone_and_shifts_no_other():
    """Oracle: equality where a setting must not matter, over many clips."""
    base = DataConfig()
    for change, objective, may_differ in (
        ({}, PLAIN, set()),
        ({"background_random": 1.0}, PLAIN, {"background"}),
        ({}, ObjectiveConfig(drop_text=0.9, drop_image=0.9), {"drop_text", "drop_image"}),
        ({"frames": 8, "strides": (2, 3)}, PLAIN, {"frames"}),
        ({"views": 8}, PLAIN, {"views"}),
        ({"size": 64, "block_shards": 1, "captions": "none"}, PLAIN, set()),
    ):
        for a, b in zip(
            draws(base, count=60), draws(dataclasses.replace(base, **change), objective, count=60), strict=True
        ):
            different = {
                field.name for field in dataclasses.fields(Draw) if getattr(a, field.name) != getattr(b, field.name)
            }
            assert different <= may_differ
    assert draws(base, count=60) != draws(dataclasses.replace(base, order_seed=1), count=60)


def test_draws_never_change_between_versions():
    """Oracle: values of the first version; a run that goes on under a newer one depends on them."""
    shape = {"num_views": 16, "num_frames": 48}
    found = draw(DataConfig(background_random=1.0), PLAIN, epoch=1, clip_id="fox-000-00", **shape)
    assert (found.views, found.frames) == ((0, 4, 8, 12), tuple(range(2, 48, 3)))
    assert found.noise_seed == 4113931767516251704
    assert [round(value, 12) for value in found.background] == [0.786381316926, 0.954404674483, 0.906732692491]


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (
            {"views": 4},
            (6, 48),
            r"--views: found 4, expected a number that divides the 6 views of a clip, one of 1, 2, 3, 6",
        ),
        ({"views": 8}, (4, 48), "--views: found 8"),
        (
            {},
            (4, 16),
            r"--frames: found 16 at --strides 3, which need 46 frames.*16 of a clip.*--frames 6.*--strides 1",
        ),
        (
            {"frames": 20, "strides": (2, 4)},
            (4, 16),
            r"found 20 at --strides 2 4, which need 39 .* set --frames 8 or less,",
        ),
    ],
)
def test_clips_too_small_for_the_config_are_refused(config, shape, message):
    """Found, expected, and settings that would do."""
    with pytest.raises(InputError, match=message):
        fitting_strides(DataConfig(**config), num_views=shape[0], num_frames=shape[1])


def test_the_settings_that_a_refusal_proposes_do():
    """Oracle: trying them."""
    assert fitting_strides(DataConfig(frames=6), num_views=4, num_frames=16) == (3,)
    assert fitting_strides(DataConfig(strides=(1,)), num_views=4, num_frames=16) == (1,)
    assert fitting_strides(DataConfig(frames=8, strides=(2, 4)), num_views=4, num_frames=16) == (2,)


@pytest.mark.parametrize(
    ("name", "source", "animation", "expected"),
    [
        ("", "models/Fox.glb", "Run", "fox run"),
        ("", "models/fox_red-02.glb", "Fox_Walk.001", "fox red walk"),
        ("Low-Poly Fox!", "https://x.org/a/8ff7f1f2465347cd8b80c9b206c2781e.glb", "", "low poly fox"),
        ("", "https://x.org/a/8ff7f1f2465347cd8b80c9b206c2781e.glb?x=1", "Armature|Idle", "armature idle"),
        ("1234", "a/CesiumMan.glb", "", "cesium man"),
        ("Füchse%20", "", "", "füchse"),
        ("", "still.glb", "", "still"),
        ("", "a/0011.glb", "01", ""),
    ],
)
def test_names_become_words(name, source, animation, expected):
    """Oracle: what a reader would say."""
    assert words_of_names(name, source, animation) == expected
