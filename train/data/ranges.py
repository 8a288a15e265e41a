"""Bytes from the middle of files, local or remote, in few requests; and the small tables of a remote dataset.

Local files are read by position, all others (``s3://``, ``gs://``, ``https://``, ``memory://`` ...) through fsspec,
whose backends find credentials where they always do. No handle stays open, so a reader can be forked and pickled.
Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.dataset import read_manifest
from manifests.errors import DatasetError, InputError, StorageError, refusal
from manifests.publish import write_bytes

__all__ = ["Reader", "Tables", "default_cache", "is_remote"]

JOIN_GAP_LOCAL = 4 << 10
"""Bytes between two ranges that are read along rather than asked for twice: a system call costs as much."""
JOIN_GAP_REMOTE = 64 << 10
"""The same for remote files, where a request costs tens of milliseconds."""


def is_remote(file: str | Path) -> bool:
    """Whether fsspec has to read it: a URL, but not ``file://``, which is a path."""
    return "://" in str(file) and not str(file).startswith(("file://", "local://"))


def default_cache() -> Path:
    """``$MVVIDEO_TABLES``, or ``~/.cache/mvvideo/tables``: where `Tables` keeps its copies."""
    given = os.environ.get("MVVIDEO_TABLES", "")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "mvvideo" / "tables"


class Reader:
    """Reads ranges of files and counts what it costs.

    Args:
        join_gap: ranges with at most that many bytes between them become one request; None is 4 KiB for local files
            and 64 KiB for remote ones, -1 joins nothing.

    Attributes:
        requests: reads so far, after joining; of this process.
        bytes: bytes that came, gaps included.
    """

    def __init__(self, join_gap: int | None = None) -> None:
        assert join_gap is None or join_gap >= -1, f"join_gap is {join_gap}, expected -1 or more"
        self.join_gap = join_gap
        self.requests = self.bytes = 0

    def read(self, file: str | Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of some ranges of one file, in the order asked for.

        Args:
            file: a path or URL.
            ranges: (offset, size) in bytes, in any order; they may overlap.

        Returns:
            one entry a range; where the file ends before, it is shorter than asked for.

        Raises:
            DatasetError: no such file.
            StorageError: storage refuses or does not answer.
        """
        remote = is_remote(file)
        gap = self.join_gap if self.join_gap is not None else JOIN_GAP_REMOTE if remote else JOIN_GAP_LOCAL
        joined, within = _joined(ranges, gap)
        parts = _remote(str(file), joined) if remote else _local(file, joined)
        self.requests += len(joined)
        self.bytes += sum(map(len, parts))
        return [
            parts[part][offset - joined[part][0] :][:size]
            for part, (offset, size) in zip(within, ranges, strict=True)
        ]  # fmt: skip

    def whole(self, file: str) -> bytes:
        """A whole remote file, for small ones; errors as `read`."""
        filesystem, path = _filesystem(file)
        try:
            data = filesystem.cat_file(path)
        except Exception as error:
            raise _unread(file, error) from error
        self.requests += 1
        self.bytes += len(data)
        return data


class Tables:
    """The tables of a dataset as local files: where they are, or copies of a remote dataset's.

    Of a remote dataset, dataset.json is fetched each time; every other table once, when it is first asked for, checked
    against the hash that dataset.json or shards.parquet states. The copies lie in a folder named by the URL and the
    content of dataset.json, so that a dataset that changed never meets old tables, and processes may share it.

    Args:
        dataset: folder or URL.
        cache_dir: where copies go; None is `default_cache`.

    Attributes:
        root: the dataset as given, without a slash at the end.
        folder: where the tables are.
        manifest: what dataset.json says.

    Raises:
        InputError: no dataset there, or one of another schema.
    """

    def __init__(self, dataset: str | Path, cache_dir: Path | None = None) -> None:
        self.root = str(dataset).removeprefix("file://").removeprefix("local://").rstrip("/") or "/"
        self.remote = is_remote(self.root)
        self.folder = Path(self.root)
        try:
            if self.remote:
                data = Reader().whole(f"{self.root}/dataset.json")
                name = hashlib.sha256(self.root.encode() + b"\n" + data).hexdigest()[:32]
                self.folder = (cache_dir or default_cache()) / name
                _publish(self.folder / "dataset.json", data)
            self.manifest = read_manifest(self.folder)
        except DatasetError as error:
            raise InputError(f"--data: {str(error).replace(str(self.folder), self.root)}") from error

    def fetch(self, name: str, sha256: str = "") -> Path:
        """The local path of a table, e.g. ``clips.parquet``; of a remote dataset after it was copied.

        Args:
            name: relative to the dataset.
            sha256: of the file (hex); empty takes that of dataset.json.

        Raises:
            DatasetError: absent, or other bytes than stated.
        """
        path = self.folder / name
        if not self.remote or path.exists():
            return path
        expected = sha256 or self.manifest["tables"][name]
        data = Reader().whole(f"{self.root}/{name}")
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise DatasetError(
                f"{self.root}/{name}: found sha256 {found[:16]}, expected {expected[:16]}; the copy there is not"
                " complete, copy the dataset again"
            )
        _publish(path, data)
        return path


def _publish(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        raise refusal(error) or error from error


def _joined(ranges: Sequence[tuple[int, int]], gap: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Joined ranges (offset, size), rising, and for each range asked for the number of the joined one it lies in."""
    joined: list[tuple[int, int]] = []
    within = [0] * len(ranges)
    for place in sorted(range(len(ranges)), key=lambda place: ranges[place]):
        offset, size = ranges[place]
        first, length = joined[-1] if joined else (0, 0)
        if joined and gap >= 0 and offset - (first + length) <= gap:
            joined[-1] = first, max(length, offset + size - first)
        else:
            joined.append((offset, size))
        within[place] = len(joined) - 1
    return joined, within


def _local(file: str | Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    try:
        # Opened for each sample: microseconds, against handles that would have to live through fork and pickle.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return [os.pread(handle, size, offset) for offset, size in ranges]
        finally:
            os.close(handle)
    except OSError as error:
        raise _unread(str(file), error) from error


def _remote(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    filesystem, path = _filesystem(url)
    starts, ends = [offset for offset, _ in ranges], [offset + size for offset, size in ranges]
    try:
        # Where the backend is asynchronous, these requests are under way at the same time.
        return [bytes(part) for part in filesystem.cat_ranges([path] * len(ranges), starts, ends, on_error="raise")]
    except Exception as error:
        raise _unread(url, error) from error


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        # fsspec keeps its instances by process, so that one made before a fork is not used after it.
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url}: found {str(error).rstrip('.')}, expected a protocol that fsspec knows; install its backend, e.g."
            " s3fs or gcsfs, or copy the dataset here"
        ) from error


def _unread(file: str, error: Exception) -> DatasetError | StorageError:
    """What a failed read means; each backend of fsspec raises errors of its own kind."""
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"{file}: found no such file, expected a file of a dataset; run `mvv verify` on it")
    found = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return StorageError(f"{file}: found {found}, expected its bytes; see that storage can be reached, then go on")
