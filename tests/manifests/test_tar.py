"""Deterministic tars: bytes, index, torn parts, crashes."""

from __future__ import annotations

import hashlib
import itertools
import tarfile

import numpy as np
import pytest
from crc32c import crc32c

from manifests.errors import DatasetError, InputError
from manifests.publish import attempt, sweep, write_bytes
from manifests.tar import BLOCK, RECORD, IndexRow, member_bytes, pack, read_at, read_part, walk, write_part


def payloads(key: str, seed: int, count: int = 4) -> list[tuple[str, bytes]]:
    """Members of one clip with sizes around the block size, empty included."""
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in rng.choice([0, 1, 511, 512, 513, 1024, 3000], count)]
    frames = [(f"{key}.v00_f{k:03d}.webp", rng.bytes(size)) for k, size in enumerate(sizes)]
    return [(f"{key}.json", b"{}" * seed), *frames]


@pytest.fixture
def parts(tmp_path):
    """Three staged parts with what is in them."""
    content = {f"clip-{k}": payloads(f"clip-{k}", k + 1) for k in range(3)}
    paths = []
    for key, members in content.items():
        paths.append(tmp_path / "staging" / f"{key}.part")
        write_part(paths[-1], members)
    return paths, content


def test_pack_is_read_by_tarfile_with_the_same_names_and_bytes(parts, tmp_path):
    # Oracle: Python's tarfile.
    paths, content = parts
    pack(paths, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "r:") as tar:
        found = [(info.name, tar.extractfile(info).read()) for info in tar]
        tar_members = tar.getmembers()
    assert found == list(itertools.chain.from_iterable(content.values()))
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar_members} == {(0, 0, 0, "", "", 0o644)}
    assert all(m.isreg() for m in tar_members)
    assert (tmp_path / "a.tar").stat().st_size % RECORD == 0


def test_member_bytes_are_those_of_tarfile_in_all_fields_that_matter():
    # Oracle: tarfile parses our header, checksum included, to the values that we meant.
    data = member_bytes("key.v00_f000.webp", b"abc")
    info = tarfile.TarInfo.frombuf(data[:BLOCK], "ascii", "strict")
    assert (info.name, info.size, info.type) == ("key.v00_f000.webp", 3, tarfile.REGTYPE)
    assert data[BLOCK:] == b"abc" + bytes(BLOCK - 3)


def test_pack_gives_the_same_bytes_for_any_order_of_staging(parts, tmp_path):
    # Oracle: equality of files written in another order, into another folder.
    paths, content = parts
    first = pack(paths, tmp_path / "a.tar")
    for path in paths:
        path.unlink()
    other = {key: tmp_path / "elsewhere" / f"{k}" for k, key in enumerate(content)}
    for key in reversed(list(content)):
        write_part(other[key], content[key])
    second = pack([other[key] for key in content], tmp_path / "b.tar")
    assert first == second
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_index_row_leads_to_exactly_the_members_bytes(parts, tmp_path):
    # Oracle: the bytes that were staged, hashlib, crc32c over whole payloads.
    paths, content = parts
    packed = pack(paths, tmp_path / "a.tar")
    for row, (key, members) in zip(packed.rows, content.items(), strict=True):
        datas = [data for _, data in members]
        assert row.clip_id == key
        assert read_at(tmp_path / "a.tar", row.json_offset, row.json_size) == datas[0]
        offsets = row.frame_offsets()
        read = [read_at(tmp_path / "a.tar", at, n) for at, n in zip(offsets, row.frame_sizes, strict=True)]
        assert read == datas[1:]
        assert row.sizes == tuple(map(len, datas))
        assert row.crc32c == tuple(map(crc32c, datas))
        assert row.sha256 == hashlib.sha256(b"".join(datas)).hexdigest()
        assert IndexRow.from_row(row.to_row()) == row
    whole = (tmp_path / "a.tar").read_bytes()
    assert (packed.bytes, packed.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_series_without_json_has_no_json_offset_and_its_frames(tmp_path):
    # Oracle: the bytes that were staged.
    members = [(f"k.v00_f{f:03d}.png", bytes([f]) * 700) for f in range(3)]
    write_part(tmp_path / "p", members)
    (row,) = pack([tmp_path / "p"], tmp_path / "a.tar").rows
    assert (row.json_offset, row.json_size, len(row.frame_sizes)) == (-1, 0, 3)
    assert [read_at(tmp_path / "a.tar", at, 700) for at in row.frame_offsets()] == [data for _, data in members]


def test_pack_of_nothing_is_an_empty_tar(tmp_path):
    # Oracle: tarfile.
    assert pack([], tmp_path / "a.tar").rows == ()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == []


def test_read_part_refuses_every_truncation(parts):
    # Property: no prefix of a part is a valid part with the expected names.
    path, (_, members) = parts[0][0], next(iter(parts[1].items()))
    names = [name for name, _ in members]
    assert [member.name for member in read_part(path, names)] == names
    whole = path.read_bytes()
    for length in {0, 1, 511, 512, 513, len(whole) // 2, len(whole) - BLOCK, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError):
            read_part(path, names)


def test_read_part_refuses_any_flipped_bit_of_a_header(parts):
    # Property: every byte of the header counts.
    path = parts[0][0]
    whole = bytearray(path.read_bytes())
    for place in range(BLOCK):
        whole[place] ^= 1
        path.write_bytes(whole)
        with pytest.raises(DatasetError):
            read_part(path)
        whole[place] ^= 1


def test_read_part_refuses_other_names_other_keys_and_absence(parts, tmp_path):
    with pytest.raises(DatasetError, match="found 5 members"):
        read_part(parts[0][0], ["clip-0.json"])
    write_part(tmp_path / "two", [("a.json", b""), ("b.json", b"")])
    with pytest.raises(DatasetError, match="2 keys"):
        read_part(tmp_path / "two")
    with pytest.raises(DatasetError, match="No such file"):
        read_part(tmp_path / "absent")


def test_pack_refuses_a_torn_part_and_leaves_nothing(parts, tmp_path):
    # Oracle: the folder is empty after the error.
    paths, _ = parts
    paths[2].write_bytes(paths[2].read_bytes()[:-BLOCK])
    with pytest.raises(DatasetError, match=r"clip-2\.part"):
        pack(paths, tmp_path / "out" / "a.tar")
    assert list((tmp_path / "out").iterdir()) == []


def test_pack_keeps_the_former_tar_when_a_later_attempt_fails(parts, tmp_path):
    paths, _ = parts
    pack(paths, tmp_path / "a.tar")
    before = (tmp_path / "a.tar").read_bytes()

    def interrupted():
        yield paths[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(interrupted(), tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_pack_refuses_the_same_clip_twice(parts, tmp_path):
    with pytest.raises(DatasetError, match="clip-0 again"):
        pack([parts[0][0], parts[0][0]], tmp_path / "a.tar")


@pytest.mark.parametrize("damage", ["cut", "tail", "longer", "header"])
def test_walk_refuses_a_damaged_tar(parts, tmp_path, damage):
    paths, _ = parts
    pack(paths, tmp_path / "a.tar")
    data = bytearray((tmp_path / "a.tar").read_bytes())
    if damage == "cut":
        del data[-RECORD:]
    elif damage == "tail":
        data[-1] = 1
    elif damage == "longer":
        data += bytes(RECORD)
    else:
        data[BLOCK * 2 + 100] ^= 4
    (tmp_path / "a.tar").write_bytes(data)
    with open(tmp_path / "a.tar", "rb") as file, pytest.raises(DatasetError, match=r"a\.tar: found"):
        list(walk(file, "a.tar"))


@pytest.mark.parametrize("name", ["", "a" * 101, "ä.json", "../x.json", "a/b", ".hidden", "a\nb"])
def test_member_bytes_refuse_names_that_do_not_fit(name):
    with pytest.raises(InputError, match="tar member: found name"):
        member_bytes(name, b"")


def test_sweep_removes_attempts_alone(tmp_path):
    # What a killed process leaves: the attempt's file, never the final name.
    write_bytes(tmp_path / "sub" / "kept", b"1")
    with attempt(tmp_path / "sub" / "lost") as trial:
        trial.write_bytes(b"2")
        left = tmp_path / "sub" / trial.name.replace("lost", "gone")
        left.write_bytes(b"2")
    assert sweep(tmp_path) == 1
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["kept", "lost"]
