"""A finished dataset, read by position: rows, samples and frames of any clip without scanning a tar.

Nothing here writes; `manifests.finish` makes a dataset, `manifests.verify` checks one. File handles are opened for
each read, so that a `Dataset` can be shared between threads, forked, and pickled.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import clip as clips
from manifests.errors import DatasetError, InputError
from manifests.images import composite, decode_frame, decode_series
from manifests.shards import index_path, read_shards, shard_path
from manifests.tables import ASSETS, CLIPS, INDEX, iter_batches, iter_rows
from manifests.tar import IndexRow, read_at

__all__ = ["SCHEMA", "Dataset", "composite", "find_clip", "read_manifest"]

SCHEMA = "mvvideo.dataset/1"
CACHED_INDEXES = 16


class Dataset:
    """A dataset on disk. `Dataset.open` is the way in.

    Attributes:
        folder: the dataset.
        manifest: what dataset.json says: config, tools, modalities, counts, fingerprint.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self._index = functools.lru_cache(CACHED_INDEXES)(self._read_index)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.manifest)

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Opens a finished dataset.

        Raises:
            DatasetError: no dataset.json there, or one of another schema.
        """
        return cls(Path(path), read_manifest(path))

    def __len__(self) -> int:
        """Accepted clips."""
        return self.manifest["counts"]["clips"]

    def clips(
        self, *, status: str | None = "accepted", split: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of clips.parquet, streaming, in (split, shard, position) order.

        Args:
            status: accepted, rejected or failed; None is all.
            split: only this one; None is all.
            columns: only these in the rows; None is all.
        """
        wanted = None if columns is None else list(dict.fromkeys([*columns, "status", "split"]))
        for row in iter_rows(self.folder / "clips.parquet", wanted):
            if status in (None, row["status"]) and split in (None, row["split"]):
                yield row if columns is None else {name: row[name] for name in columns}

    def clips_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of clips.parquet as a table, in memory."""
        batches = list(iter_batches(self.folder / "clips.parquet", columns))
        schema = CLIPS if columns is None else pa.schema([CLIPS.field(name) for name in columns])
        return pa.Table.from_batches(batches, schema)

    def assets(self) -> Iterator[dict[str, Any]]:
        """Rows of assets.parquet, streaming."""
        return iter_rows(self.folder / "assets.parquet", schema=ASSETS)

    @functools.cached_property
    def shards(self) -> list[dict[str, Any]]:
        """Rows of shards.parquet: RGB and parallel series."""
        return read_shards(self.folder)

    @property
    def modalities(self) -> dict[str, dict[str, Any]]:
        """Modality -> how it is stored; ``rgb`` is always there."""
        return self.manifest["modalities"]

    def shard_path(self, shard: str, series: str = "") -> Path:
        """The tar of a shard, e.g. ``train-00000``; ``series`` is empty for RGB."""
        return shard_path(self.folder, shard, series)

    def index(self, shard: str, series: str = "") -> dict[str, IndexRow]:
        """Clip id -> place in the tar, in tar order; the last few are kept in memory."""
        return self._index(shard, series)

    def shard_of(self, clip_id: str) -> str:
        """The shard that holds a clip.

        Raises:
            InputError: no accepted clip of that id.
        """
        return self._place(clip_id)["shard"]

    def sample(self, clip_id: str) -> dict[str, Any]:
        """The clip's JSON: times, cameras, normalisation, figures (see clip.schema.json)."""
        shard = self.shard_of(clip_id)
        row = self.index(shard)[clip_id]
        data = read_at(self.shard_path(shard), row.json_offset, row.json_size)
        return clips.from_json(data, f"{shard}.tar: {clips.json_name(clip_id)}")

    def frame(self, clip_id: str, view: int, frame: int) -> np.ndarray:
        """One image: (height, width, 4) uint8, straight alpha, sRGB-encoded."""
        return self.frames(clip_id, [view], [frame])[0, 0]

    def frames(
        self, clip_id: str, views: Sequence[int] | None = None, frames: Sequence[int] | None = None
    ) -> np.ndarray:
        """Images of a clip; only those asked for are read.

        Args:
            clip_id: the clip.
            views: camera indices; None is all.
            frames: time indices; None is all.

        Returns:
            (view, frame, height, width, 4) uint8, straight alpha, sRGB-encoded.

        Raises:
            InputError: no such clip, view or frame.
            DatasetError: bytes that are not there or do not decode.
        """
        return _grid(
            [[decode_frame(data, where) for where, data in row] for row in self._read(clip_id, views, frames, "")]
        )

    def series(
        self, clip_id: str, name: str, views: Sequence[int] | None = None, frames: Sequence[int] | None = None
    ) -> np.ndarray:
        """Frames of a parallel series, in the unit that dataset.json states; NaN where there is no value.

        Args:
            clip_id: the clip.
            name: the modality, e.g. depth.
            views: camera indices; None is all.
            frames: time indices; None is all.

        Returns:
            (view, frame, height, width) or (view, frame, height, width, channels) float32.

        Raises:
            InputError: no such modality, clip, view or frame.
        """
        if name not in self.modalities or name == "rgb":
            known = sorted(set(self.modalities) - {"rgb"}) or "none"
            raise InputError(f"{self.folder}: found no modality {name!r}, expected one of {known}; render with it")
        how = self.modalities[name]
        return _grid(
            [
                [decode_series(data, how, where) for where, data in row]
                for row in self._read(clip_id, views, frames, name)
            ]
        )

    def depth(
        self, clip_id: str, views: Sequence[int] | None = None, frames: Sequence[int] | None = None
    ) -> np.ndarray:
        """(view, frame, height, width) float32 along the viewing axis, normalised units, NaN off the object."""
        return self.series(clip_id, "depth", views, frames)

    @functools.cached_property
    def _places(self) -> pa.Table:
        # About 60 bytes a clip; looking one up in a million takes milliseconds, a dict of them 150 MB.
        return self.clips_table(["clip_id", "shard", "position", "views"])

    def _place(self, clip_id: str) -> dict[str, Any]:
        at = pc.index(self._places["clip_id"], clip_id).as_py()
        place = self._places.slice(at, 1).to_pylist()[0] if at >= 0 else {"position": -1}
        if place["position"] < 0:
            found = "no such clip" if at < 0 else "a clip that was not rendered"
            raise InputError(
                f"{self.folder}: found {found} as {clip_id!r}, expected an accepted one; `mvv inspect` lists them"
            )
        return place

    def _read_index(self, shard: str, series: str) -> dict[str, IndexRow]:
        rows = iter_rows(index_path(self.folder, shard, series), schema=INDEX)
        return {row["clip_id"]: IndexRow.from_row(row) for row in rows}

    def _read(
        self, clip_id: str, views: Sequence[int] | None, frames: Sequence[int] | None, series: str
    ) -> Iterator[list[tuple[str, bytes]]]:
        """For each view (name for errors, bytes) of its frames."""
        place = self._place(clip_id)
        shard, num_views = place["shard"], place["views"]
        path, row = self.shard_path(shard, series), self.index(shard, series)[clip_id]
        num_frames = len(row.frame_sizes) // num_views
        offsets, sizes = row.frame_offsets(), row.frame_sizes
        for view in _checked("view", views, num_views, clip_id):
            places = [view * num_frames + frame for frame in _checked("frame", frames, num_frames, clip_id)]
            yield [
                (f"{path.name}: {clip_id} view {view} frame {k % num_frames}", read_at(path, offsets[k], sizes[k]))
                for k in places
            ]


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """dataset.json as a dict.

    Raises:
        DatasetError: not there, not JSON, or of another schema.
    """
    path = Path(folder) / "dataset.json"
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"{path}: found {error.strerror}, expected a finished dataset; repeat the build command, it goes on where"
            " it stopped"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path}: found {error}, expected JSON; repeat the build command") from error
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise DatasetError(f"{path}: found schema {found!r}, expected {SCHEMA!r}; use the version that wrote it")
    return manifest


def find_clip(dataset: Dataset, clip: str) -> str:
    """The clip of that id, else the only one whose id begins so.

    Raises:
        InputError: none, or several.
    """
    found: list[str] = []
    for row in dataset.clips(columns=["clip_id"]):
        if row["clip_id"] == clip:
            return clip
        if row["clip_id"].startswith(clip) and len(found) < 4:
            found.append(row["clip_id"])
    if len(found) == 1:
        return found[0]
    some = f"several clips: {', '.join(found[:3])} ..." if found else "no such clip"
    raise InputError(
        f"clip {clip!r}: found {some}, expected the id of one in {dataset.folder}; `mvv inspect` lists them"
    )


def _checked(what: str, asked: Sequence[int] | None, count: int, clip_id: str) -> Sequence[int]:
    if asked is None:
        return range(count)
    bad = [k for k in asked if not 0 <= k < count]
    if bad:
        raise InputError(f"{clip_id}: found {what} {bad[0]}, expected 0 to {count - 1}")
    return asked


def _grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    return np.stack([np.stack(row) for row in rows])
