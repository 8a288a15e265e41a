"""Where the files of a shard lie, how one is written, and the commit that makes it part of a dataset.

Order of writing: tar, index, rows of its clips, then the row in ``shards.parquet``. Until that row is there the shard
does not exist and is simply written again. Which clips a shard holds is decided by the pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from manifests.errors import DatasetError, InputError
from manifests.publish import sha256_file
from manifests.tables import CLIPS, INDEX, SHARDS, iter_rows, write_rows
from manifests.tar import pack

__all__ = [
    "clips_path",
    "commit",
    "index_path",
    "read_shards",
    "shard_name",
    "shard_path",
    "split_of",
    "write_clip_rows",
    "write_shard",
]

_NAME = re.compile(r"([a-z][a-z0-9_]*)-(\d{5,})")


def shard_name(split: str, number: int) -> str:
    """``train-00012`` and the like.

    Raises:
        InputError: a split that is not lower-case letters, digits and underscores.
    """
    name = f"{split}-{number:05d}"
    if not _NAME.fullmatch(name):
        raise InputError(f"split: found {split!r}, expected lower-case letters, digits and underscores, e.g. train")
    return name


def split_of(shard: str) -> tuple[str, int]:
    """The split and number in a shard's name; sorting by it gives the order of the tables.

    Raises:
        DatasetError: not a shard's name.
    """
    match = _NAME.fullmatch(shard)
    if not match:
        raise DatasetError(f"shard: found name {shard!r}, expected SPLIT-NNNNN; run `mvv verify` on the dataset")
    return match[1], int(match[2])


def shard_path(folder: Path | str, shard: str, series: str = "") -> Path:
    """The tar; ``series`` is empty for RGB."""
    return Path(folder) / "shards" / f"{_with_series(shard, series)}.tar"


def index_path(folder: Path | str, shard: str, series: str = "") -> Path:
    """The member table of the tar."""
    return Path(folder) / "index" / f"{_with_series(shard, series)}.parquet"


def clips_path(folder: Path | str, shard: str) -> Path:
    """The rows of the clips planned for the shard, failed ones included."""
    return Path(folder) / "clips" / f"{shard}.parquet"


def write_shard(folder: Path | str, shard: str, parts: Iterable[Path | str], *, series: str = "") -> dict[str, Any]:
    """Packs staged parts into a tar and writes its index; not yet committed.

    Args:
        folder: the dataset.
        shard: its name.
        parts: staged parts in the order of the tar.
        series: empty for RGB, else the modality.

    Returns:
        the row for `commit`.

    Raises:
        DatasetError: a part that is torn or damaged.
    """
    packed = pack(parts, shard_path(folder, shard, series))
    index = index_path(folder, shard, series)
    write_rows(index, (row.to_row() for row in packed.rows), INDEX)
    return {
        "shard": shard,
        "split": split_of(shard)[0],
        "clips": len(packed.rows),
        "bytes": packed.bytes,
        "sha256": packed.sha256,
        "index_sha256": sha256_file(index),
        "series": series,
    }


def write_clip_rows(folder: Path | str, shard: str, rows: Iterable[dict[str, Any]]) -> int:
    """Writes the rows of the clips planned for a shard: accepted ones in tar order, failed ones with position -1."""
    return write_rows(clips_path(folder, shard), rows, CLIPS)


def read_shards(folder: Path | str) -> list[dict[str, Any]]:
    """The committed shards, RGB and parallel series, in order; empty before the first commit."""
    path = Path(folder) / "shards.parquet"
    return list(iter_rows(path, schema=SHARDS)) if path.exists() else []


def commit(folder: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Adds shards to ``shards.parquet``, replacing rows of the same shard and series. One writer at a time."""
    known = {(row["shard"], row["series"]): row for row in [*read_shards(folder), *rows]}
    ordered = sorted(known.values(), key=lambda row: (split_of(row["shard"]), row["series"]))
    write_rows(Path(folder) / "shards.parquet", ordered, SHARDS)


def _with_series(shard: str, series: str) -> str:
    return f"{shard}.{series}" if series else shard
