"""Every damage is found, named by its file, and nothing is found in a whole dataset."""

from __future__ import annotations

import json
import shutil

import pytest

from manifests.clip import frame_name
from manifests.finish import seal, to_json
from manifests.images import encode_frame
from manifests.publish import ATTEMPT_SUFFIX
from manifests.shards import commit, read_shards, write_shard
from manifests.tables import ASSETS, CLIPS, INDEX, SHARDS, iter_rows, write_rows
from manifests.tar import BLOCK, member_bytes, write_part
from manifests.verify import Problem, verify
from tests.tiny_dataset import make_pixels, make_sample, make_tiny_dataset

SHAPE = {"views": 2, "frames": 3, "size": 16}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole dataset; copied before it is damaged."""
    return make_tiny_dataset(tmp_path_factory.mktemp("whole"), clips=5, depth=True, **SHAPE)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "dataset")


def flip(path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def edit(path, schema, where: int, **change) -> None:
    rows = list(iter_rows(path))
    rows[where] |= change
    write_rows(path, rows, schema)


def files(problems: list[Problem]) -> set[str]:
    return {problem.file for problem in problems}


def text(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def first_index(folder):
    return next(iter_rows(folder / "index" / "train-00000.parquet"))


def test_whole_dataset_has_no_problem(whole, tmp_path):
    seen = []
    assert verify(whole, progress=lambda name, size: seen.append((name, size))) == []
    assert sum(size for _, size in seen) == sum(path.stat().st_size for path in (whole / "shards").iterdir())
    assert verify(whole, decode=True) == []
    assert verify(make_tiny_dataset(tmp_path / "none", clips=0)) == []


def test_attempt_of_a_killed_process_is_no_problem(folder):
    (folder / "shards" / f".train-00000.tar.12-ab{ATTEMPT_SUFFIX}").write_bytes(b"x")
    assert verify(folder) == []


def test_flipped_byte_of_a_payload_is_found_by_member(folder):
    row = first_index(folder)
    flip(folder / "shards" / "train-00000.tar", row["first_frame_offset"] + 30)
    problems = verify(folder)
    assert f"{frame_name(row['clip_id'], 0, 0)}: found CRC-32C" in text(problems)
    assert "train-00000.tar: found SHA-256" in text(problems)
    assert files(problems) == {
        "shards/train-00000.tar",
        f"shards/train-00000.tar: {row['clip_id']}",
        f"shards/train-00000.tar: {frame_name(row['clip_id'], 0, 0)}",
    }


def test_flipped_byte_of_a_header_is_found(folder):
    flip(folder / "shards" / "train-00001.tar", 20)
    problems = verify(folder)
    assert "train-00001.tar: found 512 bytes at 0 that are not a header of ours" in text(problems)
    assert all(problem.file.startswith("shards/train-00001.tar") for problem in problems)


def test_flipped_byte_of_padding_is_found(folder):
    row = first_index(folder)
    assert row["json_size"] % BLOCK
    flip(folder / "shards" / "train-00000.tar", row["json_offset"] + row["json_size"])
    problems = verify(folder)
    assert [problem.file for problem in problems] == ["shards/train-00000.tar"]
    assert "SHA-256" in text(problems)


@pytest.mark.parametrize("keep", [0, 511, 5000, -512, -1])
def test_truncated_tar_is_found(folder, keep):
    path = folder / "shards" / "train-00000.tar"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    problems = verify(folder)
    assert f"found {len(data[:keep])} bytes" in text(problems)
    assert all(problem.file.startswith("shards/train-00000.tar") for problem in problems)


@pytest.mark.parametrize("name", ["shards/train-00000.tar", "index/train-00000.parquet", "clips/train-00000.parquet"])
def test_missing_file_is_found(folder, name):
    (folder / name).unlink()
    assert any(problem.file == name and problem.found == "no file" for problem in verify(folder))


@pytest.mark.parametrize("name", ["shards/train-00009.tar", "index/train-00009.parquet", "clips/train-00009.parquet"])
def test_orphan_is_found(folder, name):
    example = sorted((folder / name).parent.iterdir())[0]
    shutil.copy(example, folder / name)
    problems = verify(folder)
    assert files(problems) == {name}
    assert "does not list" in text(problems)


@pytest.mark.parametrize(
    "change", [{"json_offset": 0}, {"sizes": [1] * 7}, {"crc32c": [1] * 7}, {"sha256": "0" * 64}, {"clip_id": "other"}]
)
def test_edited_index_is_found(folder, change):
    edit(folder / "index" / "train-00001.parquet", INDEX, 0, **change)
    problems = verify(folder)
    assert "index/train-00001.parquet" in files(problems)
    assert any(problem.file.startswith("shards/train-00001.tar: ") for problem in problems)


def test_damaged_index_is_found(folder):
    (folder / "index" / "train-00001.parquet").write_bytes(b"PAR1")
    assert "expected a Parquet table" in text(verify(folder))


def test_edited_row_of_clips_is_found_by_column(folder):
    edit(folder / "clips.parquet", CLIPS, 1, motion_mean_speed=9.5)
    problems = verify(folder)
    assert files(problems) == {"clips.parquet", "croissant.json"} - {"croissant.json"}
    assert "motion_mean_speed 9.5" in text(problems)


def test_edited_facts_are_found_even_when_sealed_again(folder):
    # The tar is the witness: sealing anew covers labels, not facts.
    for name, where in (("clips.parquet", 1), ("clips/train-00000.parquet", 1)):
        edit(folder / name, CLIPS, where, fps=12.0)
    seal(folder)
    problems = verify(folder)
    assert files(problems) == {"clips/train-00000.parquet"}
    assert "fps 12.0, expected 8.0 (KEY.json)" in text(problems)


def test_caption_changed_and_sealed_is_no_problem(folder):
    edit(folder / "clips.parquet", CLIPS, 1, caption="a fox walks", caption_source="someone")
    assert "clips.parquet" in files(verify(folder))
    seal(folder)
    assert verify(folder) == []


def test_removed_row_of_clips_is_found_even_when_sealed_again(folder):
    rows = list(iter_rows(folder / "clips.parquet"))
    write_rows(folder / "clips.parquet", rows[:1] + rows[2:], CLIPS)
    seal(folder)
    assert "clips.parquet: found 2 clips of train-00000, expected 3, the same" in text(verify(folder))


def test_wrong_counts_fingerprint_and_config_are_found(folder):
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["counts"]["images"] += 1
    manifest["fingerprint"] = "0" * 64
    manifest["config"]["seed"] = 1
    (folder / "dataset.json").write_bytes(to_json(manifest))
    problems = verify(folder)
    assert files(problems) == {"dataset.json"}
    for words in ("counts.images 31, expected 30", "fingerprint 0000", "a config of SHA-256"):
        assert words in text(problems)


def test_swapped_tars_are_found(folder):
    a, b = (folder / "shards" / f"train-0000{k}.tar" for k in (0, 1))
    keep = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(keep)
    problems = verify(folder)
    assert {"shards/train-00000.tar", "shards/train-00001.tar"} <= files(problems)


def test_swapped_shards_with_index_and_rows_are_found(folder):
    for name in ("shards/train-0000{}.tar", "index/train-0000{}.parquet", "clips/train-0000{}.parquet"):
        a, b = (folder / name.format(k) for k in (0, 1))
        keep = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(keep)
    problems = verify(folder)
    assert {"shards/train-00000.tar", "index/train-00000.parquet", "clips/train-00000.parquet"} <= files(problems)


def rewrite(folder, change) -> None:
    """Packs the second shard anew with another JSON, committed and sealed as a faulty writer would."""
    samples = [make_sample(k, **SHAPE, animation_name=f"Walk <b>{k}</b>|") for k in (3, 4)]
    for sample in samples:
        sample["quality"]["coverage_min"] = 0.5  # json.dumps would write 1e-07, which is not canonical
    change(samples[0])
    parts = []
    for k, sample in enumerate(samples):
        key = make_sample(3 + k)["clip_id"]
        images = make_pixels(3 + k, **SHAPE).reshape(-1, 16, 16, 4)
        names = [frame_name(key, view, frame) for view in range(2) for frame in range(3)]
        frames = [(name, encode_frame(image)) for name, image in zip(names, images, strict=True)]
        parts.append(folder.parent / f"{k}.part")
        write_part(parts[-1], [(f"{key}.json", json.dumps(sample, separators=(",", ":")).encode()), *frames])
    commit(folder, [write_shard(folder, "train-00001", parts)])
    seal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sample: sample.pop("fps"), "the field fps"),
        (lambda sample: sample.update(fps=8), "with a point"),
        (lambda sample: sample["cameras"]["K"].pop(), "cameras.K"),
        (lambda sample: sample.update(zz=1.0, aa=1.0), "canonical"),
        (lambda sample: sample.update(times_s=[0.1, 0.2]), "7 members"),
    ],
)
def test_sample_that_is_not_valid_is_found(folder, change, message):
    rewrite(folder, change)
    assert message in text(verify(folder))


def test_missing_series_and_missing_member_of_a_series_are_found(folder):
    rows = [row for row in read_shards(folder) if (row["shard"], row["series"]) != ("train-00001", "depth")]
    write_rows(folder / "shards.parquet", rows, SHARDS)
    (folder / "shards" / "train-00001.depth.tar").unlink()
    (folder / "index" / "train-00001.depth.parquet").unlink()
    seal(folder)
    problems = verify(folder)
    assert files(problems) == {"shards/train-00001.depth.tar"}
    assert "the depth series of every shard" in text(problems)
    key = make_sample(3)["clip_id"]
    write_part(folder.parent / "short", [(frame_name(key, 0, 0, "png"), b"png")])
    commit(folder, [write_shard(folder, "train-00001", [folder.parent / "short"], series="depth")])
    seal(folder)
    problems = verify(folder)
    assert f"shards/train-00001.depth.tar: {key}: found 1 members" in text(problems)
    assert "train-00001.depth.tar: found 1 clips" in text(problems)


def test_undeclared_series_is_found(folder):
    key = make_sample(0)["clip_id"]
    write_part(folder.parent / "extra", [(frame_name(key, 0, 0, "npy"), b"npy")])
    commit(folder, [write_shard(folder, "train-00000", [folder.parent / "extra"], series="flow")])
    seal(folder)
    assert "shards.parquet: found series 'flow', expected one of ['depth']" in text(verify(folder))


def test_decode_finds_a_frame_that_is_not_an_image(folder):
    key = make_sample(3)["clip_id"]
    tar = folder / "shards" / "train-00001.tar"
    data = tar.read_bytes()
    row = next(iter_rows(folder / "index" / "train-00001.parquet"))
    size = row["sizes"][1]
    start = row["first_frame_offset"]
    tar.write_bytes(data[:start] + bytes(size) + data[start + size :])
    assert "expected an image" not in text(verify(folder))
    assert f"{frame_name(key, 0, 0)}: found cannot identify" in text(verify(folder, decode=True))


def test_added_member_is_found(folder):
    tar = folder / "shards" / "train-00001.tar"
    data = tar.read_bytes().rstrip(b"\0")
    ended = data + bytes(-len(data) % BLOCK) + member_bytes("stranger.json", b"{}")
    tar.write_bytes(ended + bytes(-len(ended) % (20 * BLOCK) or 20 * BLOCK))
    assert "shards/train-00001.tar: found 3 clips, or others" in text(verify(folder))


@pytest.mark.parametrize("name", ["dataset.json", "shards.parquet", "clips.parquet", "assets.parquet", "README.md"])
def test_missing_and_damaged_files_of_the_dataset_are_found(folder, name):
    (folder / name).write_bytes(b"garbage")
    if name != "README.md":  # people may write in the card
        assert name in files(verify(folder))
    (folder / name).unlink()
    assert name in files(verify(folder))


def test_clip_of_an_unknown_asset_is_found(folder):
    rows = [row for row in iter_rows(folder / "assets.parquet") if not row["asset_id"].startswith("asset1")]
    write_rows(folder / "assets.parquet", rows, ASSETS)
    seal(folder)
    assert "an asset of assets.parquet" in text(verify(folder))
