"""Where the members of a split's clips lie in its tars, from the tables alone; and the check of what was read there.

One row a clip is kept of clips.parquet, in arrow's memory, which forked workers share; the indexes of the last shards
are kept as arrays, 8 bytes a member. Tars are opened elsewhere (`ranges`), samples made in `clips`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from crc32c import crc32c

from manifests.clip import frame_name, json_name
from manifests.errors import DatasetError, InputError
from manifests.shards import index_path, read_shards
from manifests.tables import ASSETS, CLIPS, INDEX, iter_batches
from manifests.tar import BLOCK
from train.data.ranges import Tables

__all__ = ["Damaged", "Member", "Place", "Split"]

_COLUMNS = ("clip_id", "asset_id", "caption", "shard", "views", "frames", "width", "height")


class Damaged(DatasetError):
    """The bytes of a member are not those that were written."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: its name, offset of the first byte, size in bytes, CRC-32C, and its tar for errors."""

    tar: str
    name: str
    offset: int
    size: int
    crc32c: int

    def check(self, data: bytes) -> None:
        """Compares what was read with the index.

        Raises:
            Damaged: fewer bytes, or others.
        """
        found = ""
        if len(data) != self.size:
            found, expected = f"{len(data)} bytes", f"{self.size}"
        elif (crc := crc32c(data)) != self.crc32c:
            found, expected = f"CRC-32C {crc:08x}", f"{self.crc32c:08x}"
        if found:
            raise Damaged(f"{self.where}: found {found}, expected {expected}; {REMEDY}")

    @property
    def where(self) -> str:
        """For errors: tar, member (its name begins with the clip's id) and offset."""
        return f"{self.tar}: {self.name} at byte {self.offset}"


REMEDY = "run `mvv verify` on the dataset, or go on without the clip with --on-damage skip"


@dataclass(frozen=True)
class Place:
    """Where one clip lies in one tar.

    Attributes:
        path: path or URL of the tar.
        clip_id: the clip.
        num_frames: frames a view.
        suffix: of the frames' names.
        json: (offset, size) of KEY.json in bytes; size 0 in a parallel series, which has none.
        offsets: of the frames' first bytes, view-major.
        sizes: of every member in bytes, KEY.json first where there is one.
        sums: CRC-32C in the order of ``sizes``.
    """

    path: str
    clip_id: str
    num_frames: int
    suffix: str
    json: tuple[int, int]
    offsets: np.ndarray
    sizes: np.ndarray
    sums: np.ndarray

    @property
    def tar(self) -> str:
        """Name of the tar."""
        return self.path.rpartition("/")[2]

    def sample(self) -> Member:
        """The member that describes the clip."""
        assert self.json[1], f"{self.tar}: a parallel series has no JSON"
        return Member(self.tar, json_name(self.clip_id), *self.json, int(self.sums[0]))

    def frame(self, view: int, frame: int) -> Member:
        """The member of one image."""
        k = view * self.num_frames + frame
        j = k + bool(self.json[1])
        name = frame_name(self.clip_id, view, frame, self.suffix)
        return Member(self.tar, name, int(self.offsets[k]), int(self.sizes[j]), int(self.sums[j]))


class Split:
    """The clips of a split in shard order, by index.

    Args:
        tables: of the dataset.
        split: its name.
        series: modalities that are read beside RGB.
        cached_indexes: shards whose index is kept in memory.

    Attributes:
        counts: clips of each shard.
        num_views, num_frames: of every clip.
        width: height and width of every image, pixels.
        fingerprint: SHA-256 over the shards (names, counts, content) of RGB and ``series``, their order, and the
            captions and asset names: all that decides what a run sees. New shards and new captions change it, a new
            series or a copy elsewhere does not.

    Raises:
        InputError: no clips in the split, or the series is not there for all of it.
        DatasetError: tables that do not agree, or clips of several sizes.
    """

    def __init__(self, tables: Tables, split: str, *, series: Sequence[str] = (), cached_indexes: int = 16) -> None:
        self.tables, self.split, self.series, self.cached_indexes = tables, split, tuple(series), cached_indexes
        self.modalities = tables.manifest["modalities"]
        tables.fetch("shards.parquet")
        rows = [row for row in read_shards(tables.folder) if row["split"] == split]
        self._shards = {name: [row for row in rows if row["series"] == name] for name in ("", *series)}
        self.counts = [row["clips"] for row in self._shards[""]]
        if not sum(self.counts):
            known = ", ".join(f"{name} ({count})" for name, count in tables.manifest["counts"]["splits"].items())
            raise InputError(
                f'--split: found no clips of "{split}" in {tables.root}, expected a split with clips, it has'
                f" {known or 'none'}; choose another split"
            )
        for name in series:
            self._check_series(name)
        self._first_rows = np.concatenate([[0], np.cumsum(self.counts)])
        self._rows = self._read_rows()
        self.num_views, self.num_frames, self.width = self._check_rows()
        self.fingerprint = self._fingerprint()
        self._index = functools.lru_cache(cached_indexes)(self._read_index)

    def __reduce__(self) -> tuple[Any, ...]:
        again = functools.partial(type(self), series=self.series, cached_indexes=self.cached_indexes)
        return again, (self.tables, self.split)

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def clip_id(self, index: int) -> str:
        return self._rows["clip_id"][index].as_py()

    def find(self, clip_id: str) -> int:
        """The index of a clip.

        Raises:
            InputError: not in the split.
        """
        index = pc.index(self._rows["clip_id"], clip_id).as_py()
        if index < 0:
            raise InputError(
                f'{self.tables.root}: found no clip "{clip_id}" in split {self.split}, expected one of its'
                f" {len(self)}; `mvv inspect` lists them"
            )
        return index

    def texts(self, index: int) -> tuple[str, str]:
        """(caption, name of the asset) as the tables have them; either may be empty."""
        return self._rows["caption"][index].as_py(), self._rows["name"][index].as_py()

    def place(self, index: int, series: str = "") -> Place:
        """Where a clip lies; ``series`` is empty for RGB.

        Raises:
            DatasetError: the index of its shard is absent, damaged, or of other clips than clips.parquet says.
        """
        number = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        row, clip_id = index - int(self._first_rows[number]), self.clip_id(index)
        batch = self._index(number, series)
        found = batch["clip_id"][row].as_py() if row < len(batch) else "no row"
        shard = self._shards[series][number]["shard"] + (f".{series}" if series else "")
        if found != clip_id:
            raise DatasetError(
                f"index/{shard}.parquet: found {found} in row {row}, expected {clip_id} as in clips.parquet; run `mvv"
                " verify` on the dataset"
            )
        json = batch["json_offset"][row].as_py(), batch["json_size"][row].as_py()
        sizes, sums = (_values(batch[name], row) for name in ("sizes", "crc32c"))
        frames = sizes[1:] if json[1] else sizes
        if len(frames) != self.num_views * self.num_frames or len(sums) != len(sizes):
            raise DatasetError(
                f"index/{shard}.parquet: found {len(frames)} frames of {clip_id}, expected {self.num_views} views x"
                f" {self.num_frames} frames; run `mvv verify` on the dataset"
            )
        # Each frame is padded to whole blocks and followed by the header of the next.
        steps = -(-frames.astype(np.int64) // BLOCK) * BLOCK + BLOCK
        offsets = batch["first_frame_offset"][row].as_py() + np.concatenate([[0], np.cumsum(steps[:-1])])
        suffix = self.modalities[series or "rgb"]["suffix"]
        path = f"{self.tables.root}/shards/{shard}.tar"
        return Place(path, clip_id, self.num_frames, suffix, json, offsets, sizes, sums)

    def _check_series(self, name: str) -> None:
        ours, theirs = ([(row["shard"], row["clips"]) for row in self._shards[key]] for key in ("", name))
        if name not in self.modalities or ours != theirs:
            raise InputError(
                f"--source: found {name} for {len(theirs)} of the {len(ours)} shards of split {self.split} in"
                f" {self.tables.root}, expected all of them; write them with `mvv {name}`, or train with --source rgb"
            )

    def _read_rows(self) -> pa.Table:
        batches = [
            batch.filter((pc.field("status") == "accepted") & (pc.field("split") == self.split))
            for batch in iter_batches(self.tables.fetch("clips.parquet"), [*_COLUMNS, "status", "split"])
        ]
        rows = pa.Table.from_batches(batches, _part(CLIPS, [*_COLUMNS, "status", "split"])).select(_COLUMNS)
        named = ["asset_id", "name"]
        assets = pa.Table.from_batches(iter_batches(self.tables.fetch("assets.parquet"), named), _part(ASSETS, named))
        names = assets["name"].take(pc.index_in(rows["asset_id"], assets["asset_id"]))
        return rows.append_column("name", pc.fill_null(names, "")).combine_chunks()

    def _check_rows(self) -> tuple[int, int, int]:
        runs = pc.run_end_encode(self._rows["shard"].combine_chunks())
        found = dict(zip(runs.values.to_pylist(), np.diff(runs.run_ends, prepend=0).tolist(), strict=True))
        if found != {row["shard"]: row["clips"] for row in self._shards[""] if row["clips"]}:
            raise DatasetError(
                f"{self.tables.root}/clips.parquet: found other clips of split {self.split} than shards.parquet states,"
                " expected the same in the same order; run `mvv verify` on the dataset"
            )
        shapes = {
            tuple(row.values()) for row in pa.TableGroupBy(self._rows, list(_COLUMNS[4:])).aggregate([]).to_pylist()
        }
        views, frames, width, height = min(shapes)
        if len(shapes) > 1 or width != height:
            raise DatasetError(
                f"{self.tables.root}: found clips of (views, frames, width, height) {sorted(shapes)[:3]}, expected one"
                " number of views and frames and square images; train on a dataset of one preset"
            )
        return views, frames, width

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.split, self.series)).encode())
        for rows in self._shards.values():
            for row in rows:
                digest.update(repr((row["shard"], row["clips"], row["sha256"], row["index_sha256"])).encode())
        for batch in self._rows.select(["clip_id", "caption", "name"]).to_batches(4096):
            digest.update(repr([column.to_pylist() for column in batch.columns]).encode())
        return digest.hexdigest()

    def _read_index(self, number: int, series: str) -> pa.Table:
        row = self._shards[series][number]
        name = index_path("", row["shard"], series).as_posix()
        path: Path = self.tables.fetch(name, row["index_sha256"])
        columns = ["clip_id", "json_offset", "json_size", "first_frame_offset", "sizes", "crc32c"]
        return pa.Table.from_batches(iter_batches(path, schema=INDEX), INDEX).select(columns).combine_chunks()


def _part(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names])


def _values(column: pa.ChunkedArray, row: int) -> np.ndarray:
    """One list of a list column, without a Python object an entry."""
    return column[row].values.to_numpy()
