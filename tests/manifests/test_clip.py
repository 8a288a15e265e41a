"""The sample's JSON: schema, rules between fields, canonical bytes."""

from __future__ import annotations

import copy
import json
import math
import re

import jsonschema
import numpy as np
import pytest

from manifests import clip as clips
from manifests.errors import InputError
from tests.tiny_dataset import make_sample


def changed(path: str, value, sample=None):
    """A copy of a valid sample with one field set, e.g. ``cameras.K.0``; value ... removes it."""
    sample = copy.deepcopy(sample or make_sample())
    *folders, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = sample
    for part in folders:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return sample


def test_json_schema_is_valid_and_accepts_the_sample_for_a_foreign_validator():
    # Oracle: jsonschema with its own type rules.
    jsonschema.Draft202012Validator.check_schema(clips.json_schema())
    for sample in (make_sample(), make_sample(3, moving=True)):
        jsonschema.Draft202012Validator(clips.json_schema()).validate(json.loads(clips.to_json(sample)))


def test_json_schema_describes_every_field():
    def walk(rule, path):
        for name, inner in rule.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name} has no description"
            assert name in rule["required"], f"{path}.{name} is not required"
            walk(inner, f"{path}.{name}")

    walk(clips.json_schema(), "")


def test_to_json_reads_back_equal_with_the_same_types():
    # Oracle: json.loads; floats by repr.
    sample = make_sample(7)
    back = json.loads(clips.to_json(sample))
    assert back == sample
    assert repr(back) == repr(clips.canonical(sample))


def test_to_json_is_the_same_for_another_order_and_for_numpy_values():
    # Oracle: equality of bytes.
    sample = make_sample(2)
    other = dict(reversed(sample.items())) | {"times_s": np.array(sample["times_s"]), "fps": np.int64(8)}
    other["cameras"] = dict(reversed(sample["cameras"].items())) | {"c2w": np.array(sample["cameras"]["c2w"])}
    other["normalization"] = {**sample["normalization"], "center": (0.1, -0.2, 1.0 / 3.0)}
    assert clips.to_json(other) == clips.to_json(sample)


def test_to_json_writes_every_float_with_a_point_and_ascii():
    values = [0.0, -0.0, 1.0, 1e-7, 1.5e-9, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3]
    sample = {**make_sample(), "times_s": [0.1, 0.2, 0.3], "zz_extra": values, "caption": "naïve 猫 \ud83d\ude00"}
    data = clips.to_json(sample)
    data.decode("ascii")
    assert json.loads(data)["zz_extra"] == values
    text = data[data.index(b'"zz_extra"') :].decode()
    for number in re.findall(r"-?\d[\d.e+-]*", text):
        assert "." in number
    assert b"-0.0" not in data[data.index(b'"zz_extra"') :]


def test_to_json_replaces_lone_surrogates_which_no_reader_takes():
    sample = changed("animation.name", "a\ud800b \ud83d\ude00")
    data = clips.to_json(sample)
    assert json.loads(data)["animation"]["name"] == "a\ufffdb \U0001f600"


def test_to_json_keeps_unknown_fields_sorted_behind_the_known():
    data = json.loads(clips.to_json({**make_sample(), "zebra": 1, "apple": {"b": 1, "a": 2}}))
    assert list(data)[-2:] == ["apple", "zebra"]
    assert list(data)[: len(clips.json_schema()["properties"])] == list(clips.json_schema()["properties"])


def nan_rotation() -> list[list[float]]:
    return [[math.nan] * 4] * 4


BROKEN = [
    ("schema", "mvvideo.clip/2", "schema"),
    ("clip_id", "other-000-00", "clip_id"),
    ("clip_id", "no/slash", "clip_id"),
    ("asset_sha256", "abc", "asset_sha256"),
    ("source", "/home/someone/fox.glb", "source"),
    ("caption", None, "caption"),
    ("license", ..., "sample.*license"),
    ("fps", 8, "fps.*with a point"),
    ("fps", 0.0, "fps"),
    ("fps", math.inf, "fps"),
    ("window.loops", 1.0, "window.loops.*whole"),
    ("window.loops", True, "window.loops"),
    ("times_s", [], "times_s"),
    ("times_s.1", math.nan, r"times_s\[1\]"),
    ("normalization.mode", "sphere", "normalization.mode.*one of"),
    ("normalization.center", [0.0, 0.0], "normalization.center"),
    ("cameras.width", 17, r"cameras.K\[0\]"),
    ("cameras.fov_y_deg", 41.0, r"cameras.K\[0\]"),
    ("cameras.K.1", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], r"cameras.K\[1\]"),
    ("cameras.c2w.0.3", [0.0, 0.0, 0.0, 2.0], "cameras.c2w.*last row"),
    ("cameras.c2w.0.0", [2.0, 0.0, 0.0, 0.0], "cameras.c2w.*rotation"),
    (
        "cameras.c2w.0",
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
        "mirror",
    ),
    ("cameras.c2w.0", nan_rotation(), r"cameras.c2w\[0\].*4x4 matrix"),
    ("cameras.c2w.1.0", [1.0, 2.0], r"cameras.c2w\[1\].*4x4 matrix"),
    ("cameras.azimuth_deg", [0.0], r"cameras.azimuth_deg.*\(1,\).*\(2,\)"),
    ("cameras.distance", [[1.5], [1.5, 1.5]], "cameras.distance.*different lengths"),
    ("motion", {}, "motion"),
    ("motion.extra", 1.0, "motion"),
    ("quality.border_images", 0.0, "quality.border_images"),
    ("render.lights.lights", [], "render.lights.lights"),
    ("render.seed", -1, "render.seed.*at least 0"),
    ("animation.index", -2, "animation.index.*at least -1"),
    ("zz_extra", [{"deep": None}], r"zz_extra\[0\].deep"),
]


@pytest.mark.parametrize(("path", "value", "message"), BROKEN)
def test_validate_names_the_field_that_is_wrong(path, value, message):
    sample = changed(path, value)
    with pytest.raises(InputError, match=message) as caught:
        clips.validate(sample)
    assert "found" in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_validate_takes_a_moving_camera_and_a_still():
    moving = make_sample(1, moving=True)
    clips.validate(moving)
    assert np.array(moving["cameras"]["c2w"]).ndim == 4
    still = make_sample(0, frames=1)
    still["animation"] = {"index": -1, "name": "", "duration_s": 0.0, "start_s": 0.0}
    still["clip_id"] = f"{still['asset_id']}-still-00"
    clips.validate(still)
    assert clips.from_json(clips.to_json(still), "still") == clips.canonical(still)


def test_members_are_view_major_with_the_json_first():
    sample = make_sample(views=2, frames=2)
    key = sample["clip_id"]
    frames = [f"{key}.v00_f000", f"{key}.v00_f001", f"{key}.v01_f000", f"{key}.v01_f001"]
    assert clips.members(sample) == [f"{key}.json", *(f"{name}.webp" for name in frames)]
    assert clips.members(sample, "png") == [f"{name}.png" for name in frames]


def test_clip_id_writes_a_still_as_such():
    assert clips.clip_id("fox", 2, 1) == "fox-002-01"
    assert clips.clip_id("fox", -1, 0) == "fox-still-00"
