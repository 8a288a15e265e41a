"""Staged parts: found again when they are whole and of the same work, made again when they are not."""

from __future__ import annotations

import copy

import pytest

from manifests.clip import to_json
from manifests.errors import DatasetError
from manifests.tar import write_part
from pipelines.staging import Staging
from tests.tiny_dataset import make_depth, make_pixels, make_sample, write_clip, write_depth

SHAPE = {"views": 2, "frames": 3, "size": 16}
IDENTITY = {"render": {"samples": 1}, "webp": 2, "tools": {"bpy": "1"}}


def staged(tmp_path, series=()):
    sample = make_sample(1, **SHAPE)
    place = Staging(tmp_path, IDENTITY, series).of(sample)
    write_clip(place.part(), sample, make_pixels(1, **SHAPE))
    return place, sample


def test_place_depends_on_everything_that_decides_the_bytes(tmp_path):
    # Oracle: one change at a time gives another name; the same again gives the same.
    sample = make_sample(1, **SHAPE)
    first = Staging(tmp_path, IDENTITY).of(sample)
    assert Staging(tmp_path, copy.deepcopy(IDENTITY)).of(copy.deepcopy(sample)) == first
    changes = [("seed",), ("fps",), ("clip_id",), ("source",)]
    stems = {first.stem}
    for (field,) in changes:
        other = {**sample, field: "other"}
        stems.add(Staging(tmp_path, IDENTITY).of(other).stem)
    stems.add(Staging(tmp_path, {**IDENTITY, "tools": {"bpy": "2"}}).of(sample).stem)
    stems.add(Staging(tmp_path, {**IDENTITY, "webp": 3}).of(sample).stem)
    stems.add(Staging(tmp_path, IDENTITY, ("depth",)).of(sample).stem)
    assert len(stems) == 8


def test_whole_part_without_a_note_counts_as_accepted(tmp_path):
    # Oracle: a worker wrote the part, the driver died before its note.
    place, sample = staged(tmp_path)
    assert place.outcome()["status"] == "accepted"
    assert to_json(place.sample()) == to_json(sample)


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, -1, -512])
def test_torn_part_is_no_part(tmp_path, cut):
    # Oracle: any shorter file.
    place, _ = staged(tmp_path)
    place.write_note(status="accepted", reason="", detail="", seconds=1.0, attempts=1)
    data = place.part().read_bytes()
    place.part().write_bytes(data[:cut])
    assert place.outcome() is None or len(data[:cut]) % 512 == 0
    if place.outcome() is not None:  # cut between two members: the names tell
        with pytest.raises(DatasetError, match="other members"):
            place.sample()


def test_missing_series_means_not_rendered(tmp_path):
    # Oracle: depth is there or not.
    place, sample = staged(tmp_path, ("depth",))
    assert place.outcome() is None
    write_depth(place.part("depth"), sample, make_depth(1, **SHAPE))
    assert place.outcome()["status"] == "accepted"


def test_failed_note_is_an_outcome_without_a_part(tmp_path):
    # Oracle: what was noted; a damaged note is none.
    place = Staging(tmp_path, IDENTITY).of(make_sample(1, **SHAPE))
    assert place.outcome() is None
    place.write_note(status="failed", reason="deadline", detail="frame 3: slow", seconds=0.0, attempts=3)
    assert place.outcome()["reason"] == "deadline"
    place.note.write_bytes(b"{")
    assert place.outcome() is None


def test_accepted_note_without_its_part_is_no_outcome(tmp_path):
    # Oracle: the part is what is packed.
    place, _ = staged(tmp_path)
    place.write_note(status="accepted", reason="", detail="", seconds=2.5, attempts=2)
    assert place.outcome()["seconds"] == 2.5
    place.part().unlink()
    assert place.outcome() is None


def test_forget_removes_everything_and_can_be_repeated(tmp_path):
    # Oracle: the folder.
    place, sample = staged(tmp_path, ("depth",))
    write_depth(place.part("depth"), sample, make_depth(1, **SHAPE))
    place.write_note(status="accepted", reason="", detail="", seconds=2.5, attempts=2)
    place.forget()
    place.forget()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_part_of_another_sample_is_refused(tmp_path):
    # Oracle: members that are not those the JSON names.
    place, sample = staged(tmp_path)
    write_part(place.part(), [(f"{sample['clip_id']}.json", to_json(sample))])
    with pytest.raises(DatasetError, match="other members"):
        place.sample()
