"""Samples of clips through the loader: against the dataset's own reader, plain webdataset, tarfile and arithmetic."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import pickle
import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from manifests.cameras import to_animate3d, to_mvdream
from manifests.dataset import Dataset, composite
from manifests.errors import DatasetError, InputError, StorageError
from manifests.finish import finish, seal
from manifests.images import decode_frame
from manifests.shards import commit, read_shards, write_clip_rows, write_shard
from manifests.tables import ASSETS, CLIPS, iter_rows, write_rows
from manifests.tar import write_part
from tests.tiny_dataset import TOOLS, clip_row, make_pixels, make_sample, make_tiny_dataset, write_clip
from tests.train.range_server import served
from train.config import DataConfig, ObjectiveConfig
from train.data.captions import words_of_names
from train.data.clips import ClipDataset, collate, loader
from train.data.draws import Draw
from train.data.order import Batches

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core

CLIPS_IN = 31  # an epoch never ends with a batch
SHAPE = {"views": 4, "frames": 5, "size": 16}
CONFIG = DataConfig(views=2, frames=2, strides=(2, 3), size=16, block_shards=3, background_random=0.3)
OBJECTIVE = ObjectiveConfig(drop_text=0.3, drop_image=0.3)
ALL = Draw(
    views=(0, 1, 2, 3),
    frames=(0, 1, 2, 3, 4),
    background=(0.5, 0.25, 1.0),
    drop_text=False,
    drop_image=False,
    noise_seed=0,
)
G = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset of 31 clips in 11 shards; not to be changed."""
    return make_tiny_dataset(tmp_path_factory.mktemp("clips") / "set", clips=CLIPS_IN, **SHAPE)


@pytest.fixture
def mine(folder, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "mine")


def opened(folder, config: DataConfig = CONFIG, **options) -> ClipDataset:
    return ClipDataset(folder, config, OBJECTIVE, **options)


def changed(config: DataConfig = CONFIG, **values) -> DataConfig:
    return dataclasses.replace(config, **values)


def same(a: dict, b: dict) -> None:
    """Equal samples or batches, to the bit."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == b[name].dtype, name
            assert torch.equal(value, b[name]), name
        else:
            assert value == b[name], name


def member_of(folder: Path, clip_id: str, name: str) -> tuple[Path, tarfile.TarInfo]:
    """Tar and entry of a member, by tarfile."""
    for path in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                if entry.name == f"{clip_id}.{name}":
                    return path, entry
    raise AssertionError(f"no member {name} of {clip_id}")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# -- what a sample is --------------------------------------------------------------------------------------------------


def test_sample_equals_the_datasets_own_reader(folder):
    """Oracle: `manifests.dataset` decodes, `composite` mixes, `to_animate3d` turns; over two epochs."""
    dataset, reader = opened(folder), Dataset.open(folder)
    ids = [row["clip_id"] for row in reader.clips()]
    assert len(dataset) == len(ids) == CLIPS_IN
    assert (dataset.num_views, dataset.num_frames, dataset.width) == (4, 5, 16)
    for position in range(0, 2 * CLIPS_IN, 5):
        sample = dataset[position]
        epoch, index = dataset.order.locate(position)
        assert (sample["position"], sample["epoch"], sample["clip_id"]) == (position, epoch, ids[index])
        drawn, told = dataset.draw(ids[index], epoch), reader.sample(ids[index])
        frames = reader.frames(ids[index], drawn.views, drawn.frames)
        assert np.array_equal(sample["pixels"].permute(0, 1, 3, 4, 2), composite(frames, drawn.background))
        turned = np.stack([to_animate3d(np.array(told["cameras"]["c2w"][view])) for view in drawn.views])
        turned[:, :3, 3] /= np.linalg.norm(turned[:, :3, 3], axis=1, keepdims=True)
        expected = turned.reshape(-1, 16)
        np.testing.assert_allclose(sample["camera"], expected, rtol=0, atol=1e-7)
        assert sample["camera"].dtype == torch.float32
        assert sample["views"].tolist() == list(drawn.views)
        assert sample["frames"].tolist() == list(drawn.frames)
        assert sample["times_s"].tolist() == [told["times_s"][frame] for frame in drawn.frames]
        words = words_of_names("", told["source"], told["animation"]["name"])
        assert sample["caption"] == ("" if drawn.drop_text else words)
        assert (sample["drop_image"], sample["noise_seed"]) == (drawn.drop_image, drawn.noise_seed)
        assert sample["skipped"] == []


def test_every_epoch_draws_anew_and_shows_each_clip_once(folder):
    """Oracle: counting."""
    dataset = opened(folder)
    epochs = [[dataset[position] for position in range(e * CLIPS_IN, (e + 1) * CLIPS_IN)] for e in (0, 1)]
    for samples in epochs:
        assert len({sample["clip_id"] for sample in samples}) == CLIPS_IN
    by_id = [{sample["clip_id"]: sample["noise_seed"] for sample in samples} for samples in epochs]
    assert all(by_id[0][clip_id] != by_id[1][clip_id] for clip_id in by_id[0])


def test_sample_of_a_clip_takes_the_draw_it_is_given(folder):
    """Oracle: the pixels that were written."""
    dataset = opened(folder)
    clip_id = make_sample(7, **SHAPE)["clip_id"]
    sample = dataset.sample_of(clip_id, draw=ALL)
    expected = composite(make_pixels(7, **SHAPE), ALL.background)
    assert np.array_equal(sample["pixels"].permute(0, 1, 3, 4, 2), expected)
    assert (sample["position"], sample["clip_id"]) == (-1, clip_id)
    assert dataset.sample_of(clip_id, epoch=3)["noise_seed"] == dataset.draw(clip_id, 3).noise_seed
    with pytest.raises(InputError, match='no clip "nothing" in split train'):
        dataset.sample_of("nothing")


def test_captions_of_the_tables_come_first(mine):
    """Oracle: the row; captions in the table win over those in the tar, and names over nothing."""
    rows = list(iter_rows(mine / "clips.parquet"))
    captioned = [{**row, "caption": "a red fox" if k == 4 else ""} for k, row in enumerate(rows)]
    write_rows(mine / "clips.parquet", captioned, CLIPS)
    assets = [
        {**row, "name": "Old Robot 2" if row["asset_id"] == rows[6]["asset_id"] else ""}
        for row in Dataset.open(mine).assets()
    ]
    before = opened(mine).fingerprint
    write_rows(mine / "assets.parquet", assets, ASSETS)
    seal(mine)
    dataset = opened(mine)
    assert dataset.sample_of(rows[4]["clip_id"], draw=ALL)["caption"] == "a red fox"
    assert dataset.sample_of(rows[6]["clip_id"], draw=ALL)["caption"] == "old robot walk b"
    assert dataset.sample_of(rows[0]["clip_id"], draw=ALL)["caption"] == "asset0 walk b"
    none = opened(mine, changed(captions="none"))
    assert [none.sample_of(rows[k]["clip_id"], draw=ALL)["caption"] for k in (4, 6)] == ["a red fox", ""]
    assert dataset.fingerprint != before


def test_cameras_that_move_are_those_of_the_first_frame_in_both_conventions(tmp_path):
    """Oracle: `manifests.cameras` on the pose at the first drawn frame."""
    shape = {"views": 2, "frames": 4, "size": 16}
    samples = [make_sample(k, **shape, moving=True) for k in range(2)]
    for sample in samples:
        for view, frame in itertools.product(range(2), range(4)):
            pose = np.array(sample["cameras"]["c2w"][view][frame])
            pose[:3, 3] *= 1 + frame
            turn = np.eye(4)
            turn[:2, :2] = [[math.cos(frame), -math.sin(frame)], [math.sin(frame), math.cos(frame)]]
            sample["cameras"]["c2w"][view] = [*sample["cameras"]["c2w"][view]]
            sample["cameras"]["c2w"][view][frame] = (turn @ pose).tolist()
    folder = tmp_path / "set"
    parts = [write_clip(tmp_path / f"{k}.part", sample, make_pixels(k, **shape)) for k, sample in enumerate(samples)]
    commit(folder, [write_shard(folder, "train-00000", parts)])
    rows = [clip_row(sample, shard="train-00000", position=k) for k, sample in enumerate(samples)]
    write_clip_rows(folder, "train-00000", rows)
    write_rows(folder / "assets.parquet", [], ASSETS)
    finish(folder, config={}, tools=TOOLS, cpu=["test"])
    config = DataConfig(views=2, frames=2, strides=(1,), size=16)
    drawn = dataclasses.replace(ALL, views=(0, 1), frames=(2, 3))
    for convention, turned in (("mvdream", to_mvdream), ("animate3d", to_animate3d)):
        found = opened(folder, config, camera_convention=convention).sample_of(samples[1]["clip_id"], draw=drawn)
        for view in (0, 1):
            expected = turned(np.array(samples[1]["cameras"]["c2w"][view][2])).reshape(4, 4)
            expected[:3, 3] /= np.linalg.norm(expected[:3, 3])
            np.testing.assert_allclose(found["camera"][view].reshape(4, 4), expected, rtol=0, atol=1e-6)


# -- background and size -----------------------------------------------------------------------------------------------


def antialiased_bicubic(length: int, size: int) -> np.ndarray:
    """(size, length) weights of the antialiased bicubic filter with a = -0.5, in float64."""
    scale = length / size
    reach = max(scale, 1.0)
    at = (np.arange(length)[None] + 0.5 - (np.arange(size)[:, None] + 0.5) * scale) / reach
    x = np.abs(at)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [8, 11, 16, 24])
def test_resizing_and_compositing_are_alpha_correct(folder, size):
    """Oracle: premultiplied resampling with matrices in float64; at most a rounding apart."""
    found = opened(folder, changed(size=size)).sample_of(make_sample(3, **SHAPE)["clip_id"], draw=ALL)["pixels"]
    rgba = make_pixels(3, **SHAPE) / 255.0
    premultiplied = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)
    weights = antialiased_bicubic(16, size)
    layers = np.einsum("ih,jw,vfhwc->vfijc", weights, weights, premultiplied)
    mixed = layers[..., :3] + (1 - layers[..., 3:]) * np.array(ALL.background)
    expected = np.clip(mixed, 0, 1) * 255
    assert found.shape == (4, 5, 3, size, size)
    assert np.abs(found.permute(0, 1, 3, 4, 2).numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("size", [8, 16])
def test_no_fringe_shows_around_an_object_of_the_backgrounds_colour(tmp_path, size):
    """Oracle: white on white is white, although RGB is 0 where nothing is."""
    sample = make_sample(0, views=1, frames=1, size=16)
    rgba = make_pixels(0, views=1, frames=1, size=16)
    rgba[..., :3] = 255 * (rgba[..., 3:] > 0)
    folder = tmp_path / "set"
    commit(folder, [write_shard(folder, "train-00000", [write_clip(tmp_path / "a.part", sample, rgba)])])
    write_clip_rows(folder, "train-00000", [clip_row(sample, shard="train-00000", position=0)])
    write_rows(folder / "assets.parquet", [], ASSETS)
    finish(folder, config={}, tools=TOOLS, cpu=["test"])
    config = DataConfig(views=1, frames=1, strides=(1,), size=size, background=(1.0, 1.0, 1.0))
    assert (opened(folder, config)[0]["pixels"] == 255).all()


# -- order and topology ------------------------------------------------------------------------------------------------


def test_stream_is_the_same_through_every_topology(folder):
    """Oracle: one rank without workers. World size and workers change after every step, over more than two epochs."""
    dataset = opened(folder, changed(views=1, frames=1))
    topologies = list(itertools.product((1, 2, 3, 4), (0, 1, 2)))
    assert len(topologies) * G > 2 * CLIPS_IN
    expected = loader(dataset, Batches(0, G, G, stop=len(topologies) * G), 0)
    seen: list[str] = []
    for step, (whole, (ranks, workers)) in enumerate(zip(expected, topologies, strict=True)):
        parts = [Batches(step * G, G, 1, rank, ranks, stop=(step + 1) * G) for rank in range(ranks)]
        batches = [batch for part in parts for batch in loader(dataset, part, workers)]
        together = {
            name: torch.cat([batch[name] for batch in batches])
            if isinstance(value, torch.Tensor) else [item for batch in batches for item in batch[name]]
            for name, value in whole.items()
        }  # fmt: skip
        same(together, whole)
        seen += together["clip_id"]
    for epoch in range(len(seen) // CLIPS_IN):
        assert len(set(seen[epoch * CLIPS_IN : (epoch + 1) * CLIPS_IN])) == CLIPS_IN


def test_an_epoch_stopped_at_any_step_goes_on_where_it_stood(folder):
    """Oracle: the uninterrupted stream; the second half runs on other ranks and, at some stops, with workers."""
    dataset = opened(folder, changed(views=1, frames=1))
    steps = math.ceil(CLIPS_IN / G) + 1
    whole = [sample["noise_seed"] for sample in map(dataset.__getitem__, range(steps * G))]
    for stop in range(steps + 1):
        found = list(
            itertools.chain(*(b["noise_seed"].tolist() for b in loader(dataset, Batches(0, G, 4, stop=stop * G), 0)))
        )
        for step in range(stop, steps):
            for rank in range(3):
                part = Batches(step * G, G, 2, rank, 3, stop=(step + 1) * G)
                batches = loader(dataset, part, workers=2 if step == stop == 1 else 0)
                found += [seed for batch in batches for seed in batch["noise_seed"].tolist()]
        assert found == whole


def test_making_a_loader_draws_nothing_from_torchs_generator(folder):
    """Oracle: the generator's state before and after."""
    before = torch.get_rng_state()
    list(loader(opened(folder), Batches(0, 2, 1, stop=2), 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_have_the_types_they_promise(folder):
    """Oracle: the docstring of `collate`."""
    dataset = opened(folder)
    batch = next(iter(loader(dataset, Batches(28, 4, 4), 1)))  # over the border of the epoch
    assert batch["position"].tolist() == [28, 29, 30, 31]
    assert batch["epoch"].tolist() == [0, 0, 0, 1]
    kinds = {
        name: (value.dtype, tuple(value.shape)) for name, value in batch.items() if isinstance(value, torch.Tensor)
    }
    assert kinds == {
        "position": (torch.int64, (4,)),
        "epoch": (torch.int64, (4,)),
        "drop_image": (torch.bool, (4,)),
        "noise_seed": (torch.int64, (4,)),
        "pixels": (torch.uint8, (4, 2, 2, 3, 16, 16)),
        "camera": (torch.float32, (4, 2, 16)),
        "views": (torch.int64, (4, 2)),
        "frames": (torch.int64, (4, 2)),
        "times_s": (torch.float64, (4, 2)),
    }
    assert batch["skipped"] == []
    assert [len(batch["clip_id"]), len(batch["caption"])] == [4, 4]
    same(collate([dataset[position] for position in range(28, 32)]), batch)


def test_dataset_survives_pickling_for_spawned_workers(folder):
    """Oracle: the sample before."""
    dataset = opened(folder)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    same(again[5], dataset[5])
    assert again.fingerprint == dataset.fingerprint


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [-1, 0, 4096, 10**9])
def test_only_the_members_of_a_sample_are_read(folder, gap):
    """Oracle: sizes and offsets by tarfile; and the gaps between those that were joined, nothing else."""
    dataset = opened(folder, join_gap=gap)
    for position in range(6):
        before = dataset.reader.requests, dataset.reader.bytes
        sample = dataset[position]
        requests, came = dataset.reader.requests - before[0], dataset.reader.bytes - before[1]
        names = ["json"] + [f"v{v:02d}_f{f:03d}.webp" for v in sample["views"] for f in sample["frames"]]
        entries = [member_of(folder, sample["clip_id"], name)[1] for name in names]
        assert requests <= len(entries) == 5
        if gap == -1:
            assert (requests, came) == (5, sum(entry.size for entry in entries))
        joined = gaps = 0
        for a, b in itertools.pairwise(entries):
            between = b.offset_data - (a.offset_data + a.size)
            if 0 <= between <= gap:
                joined, gaps = joined + 1, gaps + between
        assert (requests, came) == (5 - joined, sum(entry.size for entry in entries) + gaps)


def test_remote_samples_are_equal_with_fewer_requests_than_members(folder, tmp_path):
    """Oracle: the local dataset; members counted by the sample."""
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/bucket/set/{path.relative_to(folder)}", path.read_bytes())
    here, there = opened(folder), opened("memory://bucket/set", cache_dir=tmp_path)
    assert there.fingerprint == here.fingerprint
    apart = opened("memory://bucket/set", cache_dir=tmp_path, join_gap=-1)
    for position in range(0, 2 * CLIPS_IN, 7):
        same(there[position], here[position])
        same(apart[position], here[position])
    samples = len(range(0, 2 * CLIPS_IN, 7))
    assert apart.reader.requests == samples * 5
    assert there.reader.requests < samples * 5 / 2
    [batch] = loader(there, Batches(0, 2, 2, stop=2), 1)
    same(batch, collate([here[0], here[1]]))


def test_samples_come_over_http_and_its_workers_are_spawned(folder, tmp_path):
    """Oracle: the local dataset, and what the server saw. A forked worker would lack the thread of the backend."""
    pytest.importorskip("aiohttp")
    here = opened(folder)
    with served(folder) as (url, asked):
        there = opened(url, cache_dir=tmp_path)
        for position in range(0, 12, 3):
            same(there[position], here[position])
        tars = [line for line in asked if ".tar" in line]
        assert len(tars) == there.reader.requests
        assert all("bytes=" in line for line in tars)
        started = [loader(dataset, Batches(0, 1), 1).multiprocessing_context for dataset in (here, there)]
        assert [context.get_start_method() for context in started] == ["fork", "spawn"]
        with pytest.raises(InputError, match=f"--data: {url}/no/dataset.json: found no such file"):
            opened(f"{url}/no", cache_dir=tmp_path)


def test_webdataset_reads_the_same_tars_and_pixels(folder):
    """Oracle: the webdataset package streams and decodes; its pixels on the background are the sample's."""
    webdataset = pytest.importorskip("webdataset")
    tars = [str(path) for path in sorted((folder / "shards").glob("train-?????.tar"))]
    dataset, count = opened(folder), 0
    for entry in webdataset.WebDataset(tars, shardshuffle=False).decode("rgba8"):
        epoch = count % 4
        sample, drawn = dataset.sample_of(entry["__key__"], epoch), dataset.draw(entry["__key__"], epoch)
        frames = np.stack([[entry[f"v{v:02d}_f{f:03d}.webp"] for f in drawn.frames] for v in drawn.views])
        assert np.array_equal(sample["pixels"].permute(0, 1, 3, 4, 2), composite(frames, drawn.background))
        place = dataset.split.place(dataset.split.find(entry["__key__"]))
        member = place.frame(drawn.views[1], drawn.frames[1])
        [data] = dataset.reader.read(place.path, [(member.offset, member.size)])
        assert np.array_equal(decode_frame(data, member.where), frames[1, 1])
        count += 1
    assert count == CLIPS_IN


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_damaged_member_is_named_with_shard_clip_and_offset(mine):
    """Oracle: the offset by tarfile; from this process and from a worker, without a traceback in the text."""
    clip_id = make_sample(5, **SHAPE)["clip_id"]
    path, entry = member_of(mine, clip_id, "v02_f003.webp")
    flip(path, entry.offset_data + entry.size // 2)
    dataset = opened(mine)
    where = rf"^train-00001\.tar: {clip_id}\.v02_f003\.webp at byte {entry.offset_data}: "
    expected = where + r"found CRC-32C \w+, expected \w+; .*--on-damage skip$"
    with pytest.raises(DatasetError, match=expected):
        dataset.sample_of(clip_id, draw=ALL)
    dataset.sample_of(clip_id, draw=dataclasses.replace(ALL, views=(0, 1)))
    everything = opened(mine, changed(views=4, frames=5, strides=(1,)))
    with pytest.raises(DatasetError, match=expected):
        list(loader(everything, Batches(0, 1, 1, stop=CLIPS_IN), 1))


@pytest.mark.parametrize("name", ["json", "v03_f004.webp"])
def test_a_tar_that_was_cut_off_is_damage_too(mine, name):
    """Oracle: a tar cut in the middle of the member."""
    clip_id = make_sample(5, **SHAPE)["clip_id"]
    path, entry = member_of(mine, clip_id, name)
    path.write_bytes(path.read_bytes()[: entry.offset_data + 10])
    with pytest.raises(
        DatasetError, match=rf"{name} at byte {entry.offset_data}: found 10 bytes, expected {entry.size};"
    ):
        opened(mine).sample_of(clip_id, draw=ALL)


def test_damaged_clips_are_replaced_by_the_next_and_counted(mine):
    """Oracle: the sample of the next row that reads, in any topology; all other samples stay as they are."""
    ids = [make_sample(k, **SHAPE)["clip_id"] for k in range(CLIPS_IN)]
    whole = opened(mine)
    intact = [whole[position] for position in range(CLIPS_IN)]
    for k in (5, 6, CLIPS_IN - 1):
        path, entry = member_of(mine, ids[k], "json")
        flip(path, entry.offset_data)
    dataset = opened(mine, changed(on_damage="skip"))
    stands_for = {5: 7, 6: 7, CLIPS_IN - 1: 0}
    lost = {5: [ids[5], ids[6]], 6: [ids[6]], CLIPS_IN - 1: [ids[-1]]}
    for position in range(CLIPS_IN):
        index, found = dataset.order.locate(position)[1], dataset[position]
        if index not in stands_for:
            same(found, intact[position])
            continue
        instead = dataset.sample_of(ids[stands_for[index]])
        same(found, {**instead, "position": position, "skipped": lost[index]})
    counted = [
        clip_id
        for rank in range(3)
        for batch in loader(dataset, Batches(0, 3 * 11, 11, rank, 3, stop=33), 1)
        for clip_id in batch["skipped"]
    ]
    assert sorted(counted)[:4] == sorted([ids[5], ids[6], ids[6], ids[-1]])[:4]


def test_skipping_ends_where_no_clip_reads(tmp_path):
    """Oracle: every clip damaged; and what is no damage is never skipped."""
    folder = make_tiny_dataset(tmp_path / "set", clips=2, **SHAPE)
    tar = folder / "shards" / "train-00000.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[:100])
    dataset = opened(folder, changed(on_damage="skip"))
    with pytest.raises(DatasetError, match="found 0 bytes"):
        dataset[0]
    tar.unlink()
    with pytest.raises(DatasetError, match=r"train-00000\.tar: found no such file"):
        dataset[0]
    tar.mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        dataset[0]


def test_tables_that_do_not_agree_are_refused(mine):
    """Oracle: rows taken away, and rows exchanged."""
    rows = list(iter_rows(mine / "clips.parquet"))
    write_rows(mine / "clips.parquet", [rows[1], rows[0], *rows[2:]], CLIPS)
    dataset = opened(mine, changed(on_damage="skip"))
    with pytest.raises(DatasetError, match=r"index/train-00000\.parquet: found .* in row 0, expected .* as in clips"):
        dataset.sample_of(rows[1]["clip_id"])
    write_rows(mine / "clips.parquet", rows[1:], CLIPS)
    with pytest.raises(DatasetError, match=r"clips\.parquet: found other clips of split train than shards\.parquet"):
        opened(mine)


def test_fingerprint_is_of_clips_and_their_order(folder, mine):
    """Oracle: a copy has the same; one with a shard less has another."""
    assert opened(mine).fingerprint == opened(folder).fingerprint
    a, b = (make_tiny_dataset(mine.parent / f"{k}", clips=k, **SHAPE) for k in (4, 5))
    assert opened(a).fingerprint != opened(b).fingerprint


# -- latents -----------------------------------------------------------------------------------------------------------


def moments_of(number: int) -> np.ndarray:
    """(view, frame, 4, 4, 6) float16, as `mvv latents` stores them: mean and log variance of 3 channels, last."""
    return np.random.default_rng(number).normal(size=(4, 5, 4, 4, 6)).astype(np.float16)


@pytest.fixture(scope="module")
def with_latents(folder, tmp_path_factory) -> Path:
    """The dataset with a series of random latents for 8 px on white."""
    target = shutil.copytree(folder, tmp_path_factory.mktemp("latents") / "set")
    rows = []
    for shard in [row["shard"] for row in read_shards(target)]:
        parts = []
        for clip_id in Dataset.open(target).index(shard):
            number = next(k for k in range(CLIPS_IN) if make_sample(k, **SHAPE)["clip_id"] == clip_id)
            members = []
            for view, frame in itertools.product(range(4), range(5)):
                out = io.BytesIO()
                np.save(out, moments_of(number)[view, frame])
                members.append((f"{clip_id}.v{view:02d}_f{frame:03d}.npy", out.getvalue()))
            parts.append(target.parent / f"{number}.part")
            write_part(parts[-1], members)
        rows.append(write_shard(target, shard, parts, series="latents"))
    commit(target, rows)
    manifest = Dataset.open(target).manifest
    how = {"series": "latents", "suffix": "npy", "dtype": "float16", "channels": 6, "unit": "moments"}
    how |= {"size": 8, "background": [1.0, 1.0, 1.0], "vae_sha256": "0" * 64}
    seal(target, {**manifest, "modalities": {**manifest["modalities"], "latents": how}})
    return target


def test_latents_come_with_the_first_frames_alone(with_latents, folder):
    """Oracle: the arrays that were written; the pixels of the first frames by the other source; bytes by the tables."""
    config = changed(source="latents", size=8, background=(1.0, 1.0, 1.0), background_random=0.0)
    dataset, rgb = opened(with_latents, config), opened(folder, changed(config, source="rgb"))
    assert dataset.modality["channels"] == 6
    for position in range(0, CLIPS_IN, 4):
        sample, expected = dataset[position], rgb[position]
        number = dataset.order.locate(position)[1]
        views, frames = sample["views"].numpy(), sample["frames"].numpy()
        moments = moments_of(number)[views][:, frames].transpose(0, 1, 4, 2, 3)
        assert sample["moments"].dtype == torch.float16
        assert np.array_equal(sample["moments"], moments)
        assert torch.equal(sample["frame0"], expected["pixels"][:, 0])
        assert "pixels" not in sample
        assert {name: sample[name] for name in ("clip_id", "caption", "noise_seed")} == {
            name: expected[name] for name in ("clip_id", "caption", "noise_seed")
        }
    apart = opened(with_latents, config, join_gap=-1)
    apart[0]
    assert apart.reader.requests == 1 + 2 + 4
    assert dataset.fingerprint != rgb.fingerprint
    assert opened(with_latents).fingerprint == opened(folder).fingerprint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 16}, r"found latents of 8 px on \(1.0, 1.0, 1.0\), expected 16 px"),
        ({"size": 8, "background": (0.5, 0.5, 0.5)}, r"expected 8 px on \(0.5, 0.5, 0.5\)"),
        ({"size": 8, "background_random": 0.1}, "--background-random 0.1"),
    ],
)
def test_latents_made_for_another_config_are_refused(with_latents, values, message):
    """What was made, what is wanted, what to do."""
    config = changed(**{"source": "latents", "background": (1.0, 1.0, 1.0), "background_random": 0.0, **values})
    with pytest.raises(InputError, match=message):
        opened(with_latents, config)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": 3}, "--views: found 3, expected a number that divides the 4 views"),
        ({"views": 8}, "--views: found 8"),
        ({"frames": 16}, "--frames: found 16 .* the 5 of a clip"),
        ({"split": "val"}, r'--split: found no clips of "val" .* it has train \(31\)'),
        ({"source": "latents", "background_random": 0.0}, "found latents for 0 of the 11 shards .*`mvv latents`"),
    ],
)
def test_configs_that_a_dataset_cannot_serve_are_refused(folder, values, message):
    """Found, expected, what to do; before anything is read."""
    with pytest.raises(InputError, match=message):
        opened(folder, changed(**values))


def test_datasets_and_conventions_of_another_kind_are_refused(mine, tmp_path):
    """The schema and the name are in the error."""
    with pytest.raises(InputError, match='camera convention: found "opengl", expected one of mvdream, animate3d'):
        opened(mine, camera_convention="opengl")
    (mine / "dataset.json").write_text('{"schema": "other/2"}')
    with pytest.raises(InputError, match=r"--data: .*dataset\.json: found schema 'other/2'"):
        opened(mine)
    with pytest.raises(InputError, match=r"--data: .*dataset\.json: found No such file"):
        opened(tmp_path / "nowhere")
