"""A dataset that was really built, through readers that know nothing of us, and its pixels against the renderer's.

Oracle: tarfile, webdataset, Hugging Face datasets, pandas, jsonschema, and a fresh Blender process that renders again
from nothing but the samples.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.clip import members, validate
from manifests.config import to_dict
from manifests.dataset import Dataset
from manifests.seeds import integer
from manifests.tables import ASSETS, CLIPS, SHARDS
from manifests.tar import read_part
from render.process import BlenderProcess
from tests.pipelines.runs import contents, inline, reference, tiny

AGAIN = """
import json, sys
from pathlib import Path
import numpy as np
from manifests.config import from_dict
from manifests.gltf import Limits, Poser
from render.probe import load
from render.scene import Scene

job = json.loads(Path(sys.argv[1]).read_text())
sample, poser = job["sample"], Poser(load(job["path"], Limits()))
near, cameras = sample["normalization"], sample["cameras"]
images, scene = [], None
times_s = np.array(sample["times_s"])
points = poser.positions(sample["animation"]["index"], times_s)
normals = poser.normals(sample["animation"]["index"], times_s)
for frame in range(len(times_s)):
    at = [((p[frame].astype(float) - near["center"]) * near["scale"]).astype(np.float32) for p in points]
    towards = [None if n is None else n[frame] for n in normals]
    if scene is None:
        scene = Scene(poser, at, towards, from_dict(job["config"]).render, threads=1, folder=Path(sys.argv[2]))
        scene.light(sample["render"]["lights"], sample["render"]["world"])
    else:
        scene.pose(at, towards)
    for view, (c2w, K) in enumerate(zip(cameras["c2w"], cameras["K"])):
        seed = job["seeds"][view][frame]
        images.append(scene.image(np.array(c2w), np.array(K), cameras["width"], cameras["height"], seed))
np.save(sys.argv[3], np.stack(images).reshape(len(times_s), len(cameras["K"]), *images[0].shape).swapaxes(0, 1))
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """(assets, dataset) of 12 clips of four kinds; not to be changed."""
    return reference(tmp_path_factory.getbasetemp())


def pixels(data):
    return np.array(Image.open(io.BytesIO(data)))


def samples_of(dataset):
    opened = Dataset.open(dataset)
    return {row["clip_id"]: opened.sample(row["clip_id"]) for row in opened.clips()}


def test_tarfile_finds_the_members_in_order(zoo):
    # Oracle: the standard library's reader and the contract's names.
    _, dataset = zoo
    samples, keys = samples_of(dataset), []
    for path in sorted(dataset.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            entries = tar.getmembers()
            assert all((e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) == (0, 0, 0, "", "", 0o644) for e in entries)
            names = [entry.name for entry in entries]
            for begin in range(0, len(names), 9):
                key = names[begin].partition(".")[0]
                keys.append(key)
                assert names[begin : begin + 9] == members(samples[key])
                assert json.load(tar.extractfile(names[begin])) == samples[key]
                image = Image.open(io.BytesIO(tar.extractfile(names[begin + 1]).read()))
                assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (24, 24))
    assert sorted(keys) == sorted(samples)
    assert len(keys) == 12


def test_webdataset_reads_the_shards(zoo):
    # Oracle: webdataset's grouping and its own decoding of JSON.
    import webdataset as wds

    _, dataset = zoo
    samples, opened = samples_of(dataset), Dataset.open(dataset)
    urls = [str(path) for path in sorted(dataset.glob("shards/*.tar"))]
    found = list(wds.WebDataset(urls, shardshuffle=False))
    assert [entry["__key__"] for entry in found] == [row["clip_id"] for row in opened.clips()]
    for entry in found:
        key = entry["__key__"]
        assert json.loads(entry["json"]) == samples[key]
        frames = opened.frames(key)
        for view in range(2):
            for frame in range(4):
                assert (pixels(entry[f"v{view:02d}_f{frame:03d}.webp"]) == frames[view, frame]).all()


def equal(found, expected, path="sample"):
    """The same values at any depth; lists may come as other sequences."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), path
        for name, value in expected.items():
            equal(found[name], value, f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for place, value in enumerate(expected):
            equal(found[place], value, f"{path}[{place}]")
    else:
        assert found == expected, path
        assert isinstance(found, type(expected)), path


def test_hugging_face_reads_equal_values(zoo, tmp_path):
    # Oracle: every value of every KEY.json; it types columns from the first samples, so loading alone says little.
    from datasets import Features, load_dataset

    _, dataset = zoo
    samples, opened = samples_of(dataset), Dataset.open(dataset)
    files = sorted(str(path) for path in dataset.glob("shards/*.tar"))
    loaded = load_dataset("webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path))
    assert isinstance(loaded.features, Features)
    assert len(loaded) == 12
    for row in loaded:
        key = row["__key__"]
        equal(row["json"], samples[key], key)
        assert (np.array(row["v01_f002.webp"]) == opened.frame(key, 1, 2)).all()


def test_tables_open_in_pandas_with_documented_columns(zoo):
    # Oracle: pandas, and the descriptions in the schema of the files themselves.
    import pyarrow.parquet as pq

    _, dataset = zoo
    for name, schema in (("clips", CLIPS), ("assets", ASSETS), ("shards", SHARDS)):
        table = pd.read_parquet(dataset / f"{name}.parquet")
        assert list(table.columns) == schema.names
        written = pq.read_schema(dataset / f"{name}.parquet")
        assert all(len((field.metadata or {}).get(b"description", b"")) > 5 for field in written), name
    clips = pd.read_parquet(dataset / "clips.parquet")
    accepted = clips[clips.status == "accepted"]
    assert accepted.clip_id.is_unique
    assert (accepted.groupby("shard").position.max() == 3).all()
    assert set(clips.asset_id) <= set(pd.read_parquet(dataset / "assets.parquet").asset_id)


def test_every_sample_is_valid_and_names_no_path_of_this_machine(zoo):
    # Oracle: the published JSON Schema.
    assets, dataset = zoo
    for sample in samples_of(dataset).values():
        validate(sample)
        assert "/" not in sample["source"]
        assert str(assets) not in json.dumps(sample)
    for name in ("dataset.json", "README.md", "croissant.json"):
        assert str(assets.parent) not in (dataset / name).read_text(), name


def test_clip_rendered_again_alone_has_the_same_bytes(zoo, tmp_path):
    # Oracle: a fresh render process that is asked for one clip out of the middle.
    assets, dataset = zoo
    opened = Dataset.open(dataset)
    for row in list(opened.clips())[::5]:
        sample = opened.sample(row["clip_id"])
        planned = {**sample, "quality": {}, "render": {**sample["render"], "bpy": "", "encoder": ""}}
        part = tmp_path / "one.part"
        with BlenderProcess() as process:
            process.ask(
                "render", path=str(assets / sample["source"]), sample=planned, config=to_dict(tiny()), threads=1,
                source_animation=sample["animation"]["index"], offsets=[], out={"": str(part)},
            )  # fmt: skip
        data = part.read_bytes()
        tar = opened.shard_path(row["shard"]).read_bytes()
        index = opened.index(row["shard"])[row["clip_id"]]
        assert data == tar[index.json_offset - 512 :][: len(data)]
        assert len(read_part(part)) == 9


def test_decoded_frames_are_the_rendered_pixels(zoo, tmp_path):
    # Oracle: the renderer's own arrays, posed and framed from nothing but the recorded sample.
    assets, dataset = zoo
    opened = Dataset.open(dataset)
    kinds = {row["asset_id"].split("-")[0]: row["clip_id"] for row in opened.clips()}
    for kind, clip_id in kinds.items():
        sample = opened.sample(clip_id)
        seeds = [[integer(sample["render"]["seed"], view, frame) for frame in range(4)] for view in range(2)]
        job = {"sample": sample, "path": str(assets / sample["source"]), "config": to_dict(tiny()), "seeds": seeds}
        (tmp_path / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-c", AGAIN, str(tmp_path / "job.json"), str(tmp_path), str(tmp_path / "out.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        rendered = np.load(tmp_path / "out.npy")
        assert (opened.frames(clip_id) == rendered).all(), kind
        assert rendered[..., 3].any()


def test_dataset_card_counts_what_was_built(zoo):
    # Oracle: the tables, counted here.
    _, dataset = zoo
    counts = Dataset.open(dataset).manifest["counts"]
    clips = pd.read_parquet(dataset / "clips.parquet")
    accepted = clips[clips.status == "accepted"]
    assert counts["clips"] == len(accepted) == 12
    assert counts["images"] == 12 * 8
    assert counts["models"] == accepted.asset_id.nunique() == 4
    card = (dataset / "README.md").read_text()
    for word in ("12", "96", "CC0-1.0", "40", "1.5"):
        assert word in card, word


def test_second_build_elsewhere_is_the_same_dataset(zoo, tmp_path):
    # Oracle: the first; assets under another folder, time stamps of today.
    import shutil

    assets, dataset = zoo
    shutil.copytree(assets, tmp_path / "moved", copy_function=shutil.copyfile)
    inline(tmp_path / "moved", tmp_path / "d")
    assert contents(tmp_path / "d") == contents(dataset)
