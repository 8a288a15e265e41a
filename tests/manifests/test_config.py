"""The config: presets as the design's table has them, messages that help, a hash that sees every field."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import pytest

from manifests.config import (
    PRESETS,
    BuildConfig,
    CameraConfig,
    MotionConfig,
    PackConfig,
    RenderConfig,
    config_hash,
    differences,
    from_dict,
    preset,
    to_dict,
)
from manifests.errors import InputError
from manifests.gltf import Limits

GROUPS = {"camera": CameraConfig, "motion": MotionConfig, "render": RenderConfig, "pack": PackConfig, "limits": Limits}


@pytest.mark.parametrize(
    ("name", "views", "frames", "fps", "size"),
    [
        ("mv-video", 16, 48, 24, 256),
        ("demo", 4, 16, 8, 128),
        ("eval-animate3d", 12, 16, 8, 1024),
        ("eval-3to4d", 4, 16, 8, 256),
    ],
)
def test_presets_are_those_of_the_design(name, views, frames, fps, size):
    # Oracle: the table of design 3.2.
    config = preset(name)
    assert config.preset == name
    assert (config.camera.views, config.motion.frames, config.motion.fps, config.camera.size) == (
        views,
        frames,
        fps,
        size,
    )
    assert (config.camera.fov_y_deg, config.camera.distance, config.camera.front_azimuth_deg) == (40, 1.5, 270)
    assert (config.motion.normalization, config.motion.root_motion, config.motion.max_animations) == ("clip", "keep", 6)
    assert config.motion.min_frame0_radius == 0.2
    assert config.render.lights == "studio-1"
    if not name.startswith("eval"):
        assert (config.camera.elevation_min_deg, config.camera.elevation_max_deg) == (0, 30)
        assert config.camera.azimuth_jitter_deg == -1
        assert config.camera.azimuths_deg == ()


def test_presets_have_the_shard_sizes_of_the_design():
    # Oracle: design 3.4.
    assert (preset("mv-video").pack.clips_per_shard, preset("demo").pack.clips_per_shard) == (64, 512)
    assert preset("demo").render.samples < preset("mv-video").render.samples


def test_every_sphere_of_radius_a_half_fits_into_every_preset():
    # Oracle: the sphere's tangent cone against the field of view.
    for config in PRESETS.values():
        camera = config.camera
        assert math.degrees(math.asin(0.5 / camera.distance)) < camera.fov_y_deg / 2


def test_an_unknown_preset_names_the_near_one():
    # Oracle: the message's form.
    with pytest.raises(
        InputError, match=r'--preset: found "mv-vidoe", expected one of demo, .*; did you mean mv-video\?'
    ):
        preset("mv-vidoe")
    with pytest.raises(InputError, match="choose one of them"):
        preset("xyz")


BAD: list[tuple[type, dict[str, Any], str]] = [
    (CameraConfig, {"views": 0}, "--views: found 0, expected at least 1"),
    (CameraConfig, {"views": 101}, "--views: found 101"),
    (CameraConfig, {"size": 4}, "--size: found 4"),
    (CameraConfig, {"fov_y_deg": 0.0}, "--fov-y-deg: found 0.0"),
    (CameraConfig, {"fov_y_deg": math.nan}, "--fov-y-deg: found nan"),
    (CameraConfig, {"distance": 0.5}, "--distance: found 0.5, expected more than 0.5"),
    (CameraConfig, {"distance": math.inf}, "--distance: found inf"),
    (CameraConfig, {"front_azimuth_deg": math.nan}, "--front-azimuth-deg: found nan"),
    (CameraConfig, {"azimuth_jitter_deg": math.nan}, "--azimuth-jitter-deg: found nan"),
    (CameraConfig, {"elevation_min_deg": 40.0}, "expected -90 <= min <= max <= 90"),
    (CameraConfig, {"azimuths_deg": (0.0,), "elevations_deg": (0.0, 1.0)}, "found 1 and 2 values"),
    (CameraConfig, {"azimuths_deg": (0.0,), "elevations_deg": (0.0,)}, "--views: found 16, expected 1: this preset's"),
    (CameraConfig, {"views": 1, "azimuths_deg": (0.0,), "elevations_deg": (91.0,)}, "--elevations-deg: found"),
    (CameraConfig, {"views": 1, "azimuths_deg": (math.inf,), "elevations_deg": (0.0,)}, "--azimuths-deg: found"),
    (MotionConfig, {"frames": 0}, "--frames: found 0"),
    (MotionConfig, {"frames": 1001}, "--frames: found 1001"),
    (MotionConfig, {"fps": 0.0}, "--fps: found 0.0"),
    (MotionConfig, {"fps": math.nan}, "--fps: found nan"),
    (MotionConfig, {"max_animations": 0}, "--max-animations: found 0"),
    (MotionConfig, {"min_motion": -1.0}, "--min-motion: found -1.0"),
    (MotionConfig, {"loop_tolerance": -0.1}, "--loop-tolerance"),
    (MotionConfig, {"min_frame0_radius": 0.6}, "--min-frame0-radius: found 0.6"),
    (MotionConfig, {"given_scale": 0.0}, "--given-scale: found 0.0"),
    (MotionConfig, {"given_scale": math.inf}, "--given-scale: found inf"),
    (MotionConfig, {"given_center": (0.0, math.nan, 0.0)}, "--given-center: found"),
    (RenderConfig, {"samples": 0}, "--samples: found 0"),
    (RenderConfig, {"filter_width_px": 0.0}, "--filter-width-px"),
    (RenderConfig, {"glossy_bounces": -1}, "--glossy-bounces: found -1"),
    (PackConfig, {"clips_per_shard": 0}, "--clips-per-shard: found 0"),
    (PackConfig, {"webp_method": 7}, "--webp-method: found 7"),
    (PackConfig, {"splits": "train"}, "--splits: found train, expected NAME:SHARE"),
    (PackConfig, {"splits": "train:x"}, "--splits: found train:x"),
    (PackConfig, {"splits": "Train:1"}, "--splits: found Train:1"),
    (PackConfig, {"splits": "train:0,val:1"}, "--splits: found train:0"),
    (PackConfig, {"splits": "train:nan"}, "--splits: found train:nan"),
    (PackConfig, {"splits": "train:inf"}, "--splits: found train:inf"),
    (PackConfig, {"splits": "train:0.9,train:0.1"}, "--splits: found train:0.1"),
    (PackConfig, {"splits": ""}, "--splits: found , expected"),
    (PackConfig, {"splits": "../x:1"}, "--splits: found ../x:1"),
]


@pytest.mark.parametrize(("kind", "values", "message"), BAD, ids=[f"{k.__name__}-{v}" for k, v, _ in BAD])
def test_values_out_of_range_are_refused_by_name(kind, values, message):
    # Oracle: the form of messages: option, found, expected.
    with pytest.raises(InputError, match=re.escape(message)):
        kind(**values)


def test_splits_sum_to_one_in_the_order_given():
    # Oracle: by hand.
    assert PackConfig().shares() == {"train": 1.0}
    shares = PackConfig(splits=" val:1, train:3").shares()
    assert list(shares.items()) == [("val", 0.25), ("train", 0.75)]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_config_survives_json(name):
    # Oracle: round trip through JSON text.
    config = PRESETS[name]
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert config_hash(from_dict(to_dict(config))) == config_hash(config)


def changed(value: Any) -> Any:
    """Another valid value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"clip": "frame0", "keep": "remove", "studio-1": "random", "train:1": "train:1,val:1"}.get(
            value, value + "x"
        )
    if isinstance(value, tuple):
        return (1.0, 2.0, 3.0) if len(value) == 3 else value
    return value + 1 if isinstance(value, int) else value + 0.125


def test_the_hash_and_the_differences_see_every_field():
    # Oracle: the fields as dataclasses lists them, each changed alone.
    base = BuildConfig()
    hashes = {config_hash(base)}
    for group, kind in GROUPS.items():
        for field in dataclasses.fields(kind):
            part = getattr(base, group)
            values = {field.name: changed(getattr(part, field.name))}
            if field.name in ("azimuths_deg", "elevations_deg"):
                values = {"azimuths_deg": (0.0,) * 16, "elevations_deg": (1.0,) * 16, field.name: (2.0,) * 16}
            other = dataclasses.replace(base, **{group: dataclasses.replace(part, **values)})
            lines = differences(to_dict(other), to_dict(base))
            assert any(line.startswith(f"{group}.{field.name}: ") for line in lines), (field.name, lines)
            assert len(lines) == len(values)
            hashes.add(config_hash(other))
    for values in ({"seed": 1}, {"preset": "demo"}):
        hashes.add(config_hash(dataclasses.replace(base, **values)))
    assert len(hashes) == 1 + sum(len(dataclasses.fields(kind)) for kind in GROUPS.values()) + 2


def test_differences_read_like_a_sentence():
    # Oracle: by hand.
    ours, theirs = to_dict(preset("demo")), to_dict(preset("demo"))
    assert differences(ours, theirs) == []
    theirs["motion"]["frames"], theirs["extra"] = 48, 1
    assert differences(ours, theirs) == ["extra: absent here, 1 there", "motion.frames: 16 here, 48 there"]


@pytest.mark.parametrize("spoil", [
    lambda d: d.update(unknown=1), lambda d: d.pop("camera"), lambda d: d["camera"].update(unknown=1),
    lambda d: d.update(camera=3), lambda d: d["motion"].update(fps="fast"), lambda d: d["render"].update(lights="x"),
])  # fmt: skip
def test_a_config_of_another_version_is_refused(spoil):
    # Oracle: InputError and no other, whatever is wrong.
    values = to_dict(BuildConfig())
    spoil(values)
    with pytest.raises(InputError):
        from_dict(values)


def test_a_config_cannot_be_changed_in_place():
    # Oracle: frozen dataclasses.
    with pytest.raises(dataclasses.FrozenInstanceError):
        BuildConfig().seed = 1
