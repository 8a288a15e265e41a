"""One write under the final name: every file of a dataset appears whole or not at all.

A file is written under an attempt name in the same folder, synced, and renamed; on any error the attempt is removed.
A killed process leaves at most an attempt file, which no reader looks at and `sweep` removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ATTEMPT_SUFFIX", "attempt", "sha256_file", "sweep", "write_bytes"]

ATTEMPT_SUFFIX = ".attempt"
CHUNK = 1 << 20


@contextlib.contextmanager
def attempt(path: Path | str) -> Iterator[Path]:
    """Gives a fresh name beside ``path``; what was written there becomes ``path`` when the block ends without error.

    Args:
        path: the final name; its folder is created.

    Yields:
        the attempt's path, unique to this process and call. The block has to create and close the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name starts with a dot, so that globs such as shards/*.tar never meet it.
    trial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(6)}{ATTEMPT_SUFFIX}")
    try:
        yield trial
        with open(trial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(trial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            trial.unlink()
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Publishes ``data`` under ``path``, replacing what was there."""
    with attempt(path) as trial:
        trial.write_bytes(data)


def sweep(folder: Path | str) -> int:
    """Removes attempts that killed processes left anywhere under ``folder``; call it only while holding the lock.

    Returns:
        how many files were removed.
    """
    removed = 0
    for trial in Path(folder).rglob(f".*{ATTEMPT_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            trial.unlink()
            removed += 1
    return removed


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file in hex, read in bounded chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only when the folder is synced; some network file systems refuse that.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
