"""Reading ranges of files, local and remote, and the copies of a remote dataset's tables."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem

from manifests.errors import DatasetError, InputError, StorageError
from tests.tiny_dataset import make_tiny_dataset
from train.data.ranges import Reader, Tables, is_remote


class Counted(AbstractFileSystem):
    """Local files under another protocol; counts what is asked for, and can refuse."""

    protocol = "counted"
    cachable = False
    asked: list[tuple[str, int | None, int | None]] = []  # noqa: RUF012  (all instances count together)
    refuse: str = ""

    def cat_file(self, path, start=None, end=None, **kwargs):
        Counted.asked.append((path, start, end))
        if Counted.refuse and Counted.refuse in path:
            raise ConnectionResetError("the other side hung up")
        return Path("/" + path.lstrip("/")).read_bytes()[start:end]


@pytest.fixture(autouse=True)
def counted():
    """The protocol, fresh for each test."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    Counted.asked.clear()
    Counted.refuse = ""
    return Counted


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """100,000 random bytes."""
    path = tmp_path_factory.mktemp("ranges") / "file.bin"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A dataset of four clips."""
    return make_tiny_dataset(tmp_path_factory.mktemp("tiny") / "set", clips=4)


def forms(file: Path) -> list[str]:
    """The file as a path, as a path in a URL, and twice remote."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/ranges/file.bin", file.read_bytes())
    return [str(file), "memory://ranges/file.bin", f"counted://{file}"]


def test_ranges_equal_slices_for_any_gap(file):
    """Oracle: slicing the whole file; requests and bytes against a set of byte positions."""
    whole, rng = file.read_bytes(), np.random.default_rng(1)
    for form in forms(file):
        for gap in (None, -1, 0, 100, 10**6):
            for _ in range(10):
                offsets = rng.integers(0, 99_000, rng.integers(0, 12)).tolist()
                ranges = [(offset, int(rng.integers(1, 1000))) for offset in offsets]
                reader = Reader(gap)
                assert reader.read(form, ranges) == [whole[offset : offset + size] for offset, size in ranges]
                assert (reader.requests, reader.bytes) == cost(ranges, gap, form)


def cost(ranges: list[tuple[int, int]], gap: int | None, form: str) -> tuple[int, int]:
    if gap == -1:
        return len(ranges), sum(size for _, size in ranges)
    gap = {True: 64 << 10, False: 4 << 10}[is_remote(form)] if gap is None else gap
    ends = sorted(ranges)
    requests, came, end = 0, 0, -(10**9)
    for offset, size in ends:
        if offset - end > gap:
            requests, came, end = requests + 1, came + size, offset + size
        elif offset + size > end:
            came, end = came + offset + size - end, offset + size
    return requests, came


def test_a_request_is_one_call_of_the_file_system(file, counted):
    """Oracle: a file system that notes its calls."""
    reader = Reader(join_gap=50)
    reader.read(f"counted://{file}", [(1000, 100), (10, 20), (1150, 5), (1206, 1)])
    assert [(start, end) for _, start, end in counted.asked] == [(10, 30), (1000, 1155), (1206, 1207)]
    assert (reader.requests, reader.bytes) == (3, 20 + 155 + 1)


def test_ranges_beyond_the_end_come_back_short(file):
    """Oracle: slicing."""
    whole = file.read_bytes()
    for form in forms(file):
        assert Reader().read(form, [(99_990, 20), (5, 1), (99_995, 5)]) == [whole[99_990:], whole[5:6], whole[99_995:]]


def test_absent_files_and_storage_that_does_not_answer_are_told_apart(tmp_path, file, counted):
    """The first is the dataset's fault, the second may be gone in a minute."""
    for form in (str(tmp_path / "no.tar"), "memory://nowhere/no.tar", f"counted://{tmp_path}/no.tar"):
        with pytest.raises(DatasetError, match=r"no\.tar: found no such file"):
            Reader().read(form, [(0, 1)])
    counted.refuse = "file.bin"
    with pytest.raises(StorageError, match=r"file\.bin: found the other side hung up"):
        Reader().read(f"counted://{file}", [(0, 1)])
    with pytest.raises(StorageError, match="found Is a directory"):
        Reader().read(tmp_path, [(0, 1)])


def test_protocols_that_fsspec_does_not_know_are_refused():
    """The error says what to install."""
    with pytest.raises(InputError, match=r"^nothing://x/dataset\.json: found Protocol not known.*install its backend"):
        Tables("nothing://x")


def test_a_reader_works_after_fork_and_pickle(file):
    """Oracle: the bytes, read in a forked process that got the reader after it was used."""
    for form in forms(file):
        reader = Reader()
        expected = reader.read(form, [(7, 9)])
        assert pickle.loads(pickle.dumps(reader)).read(form, [(7, 9)]) == expected
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(reader.read, (form, [(7, 9)])) == expected


def test_local_tables_are_used_where_they_are(tiny):
    """Oracle: the paths."""
    for form in (tiny, str(tiny), f"{tiny}/", f"file://{tiny}"):
        tables = Tables(form)
        assert (tables.folder, tables.root, tables.remote) == (tiny, str(tiny), False)
        assert tables.fetch("clips.parquet") == tiny / "clips.parquet"


def test_remote_tables_are_copied_once_and_equal(tiny, tmp_path, counted):
    """Oracle: the files themselves, and a file system that notes its calls."""
    url = f"counted://{tiny}"
    for _ in range(2):
        tables = Tables(url, tmp_path)
        for name in ("clips.parquet", "shards.parquet"):
            assert tables.fetch(name).read_bytes() == (tiny / name).read_bytes()
    names = [path.rpartition("/")[2] for path, *_ in counted.asked]
    assert names == ["dataset.json", "clips.parquet", "shards.parquet", "dataset.json"]
    assert tables.folder.is_relative_to(tmp_path)


def test_remote_tables_go_to_the_users_cache_by_default(tiny, monkeypatch, tmp_path):
    """Oracle: the folder, with and without the variable."""
    assert Tables(f"counted://{tiny}").folder.is_relative_to(Path.home() / ".cache" / "mvvideo" / "tables")
    monkeypatch.setenv("MVVIDEO_TABLES", str(tmp_path / "mine"))
    assert Tables(f"counted://{tiny}").folder.is_relative_to(tmp_path / "mine")


def test_remote_tables_that_are_not_whole_are_refused(tmp_path, counted):
    """Oracle: a byte less than was sealed; a dataset that changed gets another folder."""
    folder = make_tiny_dataset(tmp_path / "set", clips=4)
    before = Tables(f"counted://{folder}", tmp_path / "cache").folder
    path = folder / "clips.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"set/clips.parquet: found sha256 \w+, expected \w+; the copy"):
        Tables(f"counted://{folder}", tmp_path / "cache").fetch("clips.parquet")
    assert not (before / "clips.parquet").exists()
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text() + "\n")
    assert Tables(f"counted://{folder}", tmp_path / "cache").folder != before


@pytest.mark.parametrize("form", ["{}", "counted://{}"])
def test_folders_that_are_no_dataset_are_refused_by_their_own_name(form, tmp_path, tiny):
    """The error names what was given, not a copy of it."""
    where = form.format(tmp_path / "set")
    with pytest.raises(InputError, match=f"^--data: {where}/dataset.json: found [Nn]o such file") as caught:
        Tables(where, tmp_path / "cache")
    assert "cache" not in str(caught.value)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset.json").write_text('{"schema": "mvvideo.dataset/9"}')
    with pytest.raises(InputError, match=f"--data: {where}/dataset.json: found schema 'mvvideo.dataset/9'"):
        Tables(where, tmp_path / "cache")
