"""A finished dataset through our reader and through foreign ones."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.dataset import Dataset, composite
from manifests.errors import DatasetError, InputError
from manifests.finish import config_sha256, finish, seal
from manifests.images import decode_frame, encode_frame
from manifests.shards import commit, read_shards, shard_name, split_of
from manifests.statistics import clips_statistics, fingerprint
from tests.tiny_dataset import make_depth, make_pixels, make_sample, make_tiny_dataset

SHAPE = {"views": 2, "frames": 3, "size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset with depth; not to be changed."""
    return make_tiny_dataset(tmp_path_factory.mktemp("tiny"), clips=7, depth=True, **SHAPE)


def samples(count: int = 7) -> list[dict]:
    return [make_sample(k, **SHAPE, animation_name=f"Walk <b>{k}</b>|") for k in range(count)]


def same(found, expected, path="sample") -> None:
    """Equal values of equal types, at any depth; the order of fields is free."""
    assert type(found) is type(expected), f"{path}: {type(found)} is not {type(expected)}"
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected), path
        for name, value in expected.items():
            same(found[name], value, f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for place, value in enumerate(expected):
            same(found[place], value, f"{path}[{place}]")
    else:
        assert found == expected, path


def test_dataset_gives_the_samples_and_pixels_that_went_in(folder):
    # Oracle: what was written.
    dataset = Dataset.open(folder)
    rows = list(dataset.clips())
    assert len(dataset) == len(rows) == 7
    for k, (row, sample) in enumerate(zip(rows, samples(), strict=True)):
        same(dataset.sample(row["clip_id"]), sample)
        assert np.array_equal(dataset.frames(row["clip_id"]), make_pixels(k, **SHAPE))
        assert np.array_equal(dataset.frame(row["clip_id"], 1, 2), make_pixels(k, **SHAPE)[1, 2])
        assert (row["clip_id"], row["position"]) == (sample["clip_id"], k % 3)
    some = dataset.frames(rows[4]["clip_id"], views=[1], frames=[2, 0])
    assert np.array_equal(some, make_pixels(4, **SHAPE)[1:, [2, 0]])


def test_depth_is_in_its_unit_with_nan_where_nothing_is(folder):
    # Oracle: the stored integers times the scale that dataset.json states.
    dataset = Dataset.open(folder)
    sample = samples()[3]
    stored = make_depth(3, **SHAPE)
    expected = np.where(stored == 0, np.nan, stored * (3.0 / 65535))
    np.testing.assert_allclose(dataset.depth(sample["clip_id"]), expected, rtol=1e-6)


def test_dataset_can_be_pickled_for_workers(folder):
    dataset = pickle.loads(pickle.dumps(Dataset.open(folder)))
    assert dataset.frame(samples()[0]["clip_id"], 0, 0).shape == (16, 16, 4)


def test_clips_are_filtered_by_status_split_and_columns(folder):
    dataset = Dataset.open(folder)
    assert [row["reason"] for row in dataset.clips(status="rejected")] == ["static", "too-short"]
    assert [row["reason"] for row in dataset.clips(status="failed")] == ["deadline"]
    assert list(dataset.clips(split="test")) == []
    assert next(dataset.clips(columns=["views"])) == {"views": 2}
    assert dataset.clips_table(["clip_id"]).num_rows == 10
    assert len(list(dataset.assets())) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.sample("nothing"), "no such clip"),
        (lambda d: d.sample(next(d.clips(status="failed"))["clip_id"]), "not rendered"),
        (lambda d: d.frame(next(d.clips())["clip_id"], 2, 0), "found view 2, expected 0 to 1"),
        (lambda d: d.frame(next(d.clips())["clip_id"], 0, -1), "found frame -1"),
        (lambda d: d.series(next(d.clips())["clip_id"], "flow"), "no modality 'flow'"),
    ],
)
def test_dataset_refuses_what_is_not_there(folder, call, message):
    with pytest.raises(InputError, match=message):
        call(Dataset.open(folder))


def test_open_refuses_an_unfinished_folder_and_another_schema(tmp_path):
    with pytest.raises(DatasetError, match="repeat the build"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema": "mvvideo.dataset/9"}')
    with pytest.raises(DatasetError, match="dataset/9"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="expected JSON"):
        Dataset.open(tmp_path)


def test_same_clips_give_the_same_files(folder, tmp_path):
    # Oracle: equality of every file.
    again = make_tiny_dataset(tmp_path / "again", clips=7, depth=True, **SHAPE)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file


def test_webdataset_reads_every_sample_and_pixel(folder):
    # Oracle: the webdataset package.
    webdataset = pytest.importorskip("webdataset")
    tars = [str(folder / "shards" / f"train-{k:05d}.tar") for k in range(3)]
    found = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgba8"))
    assert len(found) == 7
    for k, (entry, sample) in enumerate(zip(found, samples(), strict=True)):
        assert entry["__key__"] == sample["clip_id"]
        same(entry["json"], sample)
        for view in range(2):
            for frame in range(3):
                pixels = entry[f"v{view:02d}_f{frame:03d}.webp"]
                assert np.array_equal(pixels, make_pixels(k, **SHAPE)[view, frame])


def test_hugging_face_datasets_reads_equal_values_of_equal_types(folder, tmp_path, monkeypatch):
    # Oracle: the datasets package. It types columns from the first samples and changes what differs later.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    files = {"train": str(folder / "shards" / "train-?????.tar")}
    found = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(found) == 7
    for k, (entry, sample) in enumerate(zip(found, samples(), strict=True)):
        assert entry["__key__"] == sample["clip_id"]
        same(entry["json"], sample)
        assert np.array_equal(np.asarray(entry["v01_f002.webp"]), make_pixels(k, **SHAPE)[1, 2])


def test_hugging_face_datasets_loads_the_folder_by_its_card(folder, tmp_path, monkeypatch):
    # Oracle: the datasets package reads the front matter; parallel series must not become samples.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    assert found["__key__"][:] == [sample["clip_id"] for sample in samples()]


def test_pandas_reads_the_tables(folder):
    # Oracle: pandas.
    frame = pd.read_parquet(folder / "clips.parquet")
    assert frame["status"].tolist() == ["accepted"] * 7 + ["failed"] + ["rejected"] * 2
    assert frame["shard"].tolist()[:7] == [f"train-{k // 3:05d}" for k in range(7)]
    assert not frame.isna().any().any()
    shards = pd.read_parquet(folder / "shards.parquet")
    assert shards["series"].tolist() == ["", "depth"] * 3


def test_counts_are_those_of_the_rows(folder):
    # Oracle: counting rows with pandas.
    counts = clips_statistics(folder)
    frame = pd.read_parquet(folder / "clips.parquet")
    done = frame[frame["status"] == "accepted"]
    per_model = done.groupby("asset_id")["animation"].nunique()
    assert counts["models"] == len(per_model) == 4
    assert counts["animations"] == per_model.sum() == 7
    assert counts["animations_per_model"] == {"mean": round(per_model.mean(), 4), "max": per_model.max()}
    assert (counts["clips"], counts["multi_view_videos"], counts["images"]) == (7, 14, 42)
    assert counts["failed"] == {"deadline": 1}
    assert counts["rejected"] == {"assets": {"truncated": 1}, "clips": {"static": 1, "too-short": 1}}
    assert counts["licenses"] == done["license"].value_counts().sort_index().to_dict()
    assert counts["bytes"] == sum(path.stat().st_size for path in (folder / "shards").iterdir())
    assert json.loads((folder / "dataset.json").read_text())["counts"] == counts


def test_fingerprint_does_not_depend_on_the_order_of_shards(folder):
    shards = read_shards(folder)
    assert fingerprint(folder, shards) == fingerprint(folder, reversed(shards))
    assert fingerprint(folder, shards) != fingerprint(folder, shards[2:])


def test_empty_dataset_is_a_dataset(tmp_path):
    dataset = Dataset.open(make_tiny_dataset(tmp_path, clips=0))
    assert (len(dataset), list(dataset.clips()), dataset.manifest["counts"]["images"]) == (0, [], 0)


def test_finish_refuses_a_committed_shard_without_rows(tmp_path):
    with pytest.raises(DatasetError, match=r"shards\.parquet"):
        finish(tmp_path, config={}, tools={})
    folder = make_tiny_dataset(tmp_path / "d", clips=1)
    (folder / "clips" / "train-00000.parquet").unlink()
    with pytest.raises(DatasetError, match="train-00000"):
        finish(folder, config={}, tools={})


def test_seal_after_no_change_changes_nothing(tmp_path):
    folder = make_tiny_dataset(tmp_path, clips=2)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    seal(folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_commit_replaces_the_row_of_the_same_shard_and_sorts(tmp_path):
    row = {
        "shard": "train-00010",
        "split": "train",
        "clips": 1,
        "bytes": 1,
        "sha256": "",
        "index_sha256": "",
        "series": "",
    }
    commit(tmp_path, [row, row | {"shard": "test-00000", "split": "test"}])
    commit(tmp_path, [row | {"clips": 2}, row | {"shard": "train-00009"}, row | {"series": "depth"}])
    found = [(r["shard"], r["series"], r["clips"]) for r in read_shards(tmp_path)]
    expected = [("test-00000", "", 1), ("train-00009", "", 1), ("train-00010", "", 2), ("train-00010", "depth", 1)]
    assert found == expected


def test_shard_names_are_checked():
    assert (shard_name("train", 12), split_of("train-00012")) == ("train-00012", ("train", 12))
    with pytest.raises(InputError, match="split"):
        shard_name("../x", 0)
    with pytest.raises(DatasetError, match="SPLIT-NNNNN"):
        split_of("train")


def test_config_hash_ignores_the_order_of_fields():
    assert config_sha256({"a": 1, "b": {"c": 2.0, "d": 3}}) == config_sha256({"b": {"d": 3, "c": 2.0}, "a": 1})
    assert config_sha256({"a": 1}) != config_sha256({"a": 2})


def test_frames_survive_encoding_to_the_bit():
    # Property: any RGBA with RGB 0 behind alpha 0 comes back, low alpha and opaque frames included.
    for seed in range(3):
        rgba = make_pixels(seed, views=1, frames=1, size=33)[0, 0]
        assert np.array_equal(decode_frame(encode_frame(rgba), "x"), rgba)
    opaque = np.full((4, 5, 4), 255, np.uint8)
    assert np.array_equal(decode_frame(encode_frame(opaque), "x"), opaque)
    for bad in (opaque[..., :3], opaque.astype(np.float32), opaque * np.array([1, 1, 1, 0], np.uint8)):
        with pytest.raises(InputError, match="frame: found"):
            encode_frame(bad)
    with pytest.raises(DatasetError, match="expected an image"):
        decode_frame(b"RIFF", "x")


def test_composite_is_alpha_over_in_encoded_values():
    # Oracle: the formula, and Pillow's alpha_composite within its rounding.
    rgba = make_pixels(1, views=2, frames=1, size=20)
    a = rgba[..., 3:] / 255
    expected = np.rint(rgba[..., :3] * a + (1 - a) * np.array([0.25, 0.5, 1.0]) * 255)
    found = composite(rgba, (0.25, 0.5, 1.0))
    assert found.shape == (2, 1, 20, 20, 3)
    assert np.abs(found - expected).max() <= 1
    back = Image.new("RGBA", (20, 20), (64, 128, 255, 255))
    pillow = np.asarray(Image.alpha_composite(back, Image.fromarray(rgba[0, 0])).convert("RGB"))
    assert np.abs(found[0, 0].astype(int) - pillow).max() <= 2


def test_composite_resizes_without_dark_fringes():
    # Property: a white object over white stays white at any size; unpremultiplied resizing would darken its edge.
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[8:24, 8:24] = 255
    found = composite(rgba, (1.0, 1.0, 1.0), size=(13, 21))
    assert found.shape == (13, 21, 3)
    assert (found == 255).all()
    for bad in ((2.0, 0, 0), (0.5,), (math.nan, 0, 0)):
        with pytest.raises(InputError, match="background"):
            composite(rgba, bad)
