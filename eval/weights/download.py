"""One file from one address: goes on where it stopped, tries again where that can help, never more than it may.

The standard library alone. What has arrived lies in the part file; beside it stands which version of the file it is of
(the server's ETag or date), so that two versions are never put together. Whether the bytes are right is for the caller
to say, by their hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InputError, refusal

__all__ = ["Download", "Failed", "Progress", "download", "exclusive"]

Progress = Callable[[int, int | None], None]
"""Bytes so far, bytes in all or None."""

_CHUNK = 1 << 18
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_LONGEST_WAIT_S = 60.0


class Failed(Exception):
    """The address does not give the file; the text says what it answered."""


class _Interrupted(Exception):
    """This attempt failed; another one can succeed."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class Download:
    """How to fetch.

    Attributes:
        attempts: in a row, counted from the last one that brought new bytes; then the address counts as failed.
        backoff_s: before the second attempt; doubles with each, up to a minute.
        timeout_s: without any byte.
        max_bytes: of a file whose size is not known beforehand.
    """

    attempts: int = 5
    backoff_s: float = 1.0
    timeout_s: float = 30.0
    max_bytes: int = 4_000_000_000


def download(
    url: str, part: Path, options: Download, *, likely_bytes: int | None = None, progress: Progress | None = None
) -> None:
    """Fetches a file into ``part``, after what is there already if it is of the same version.

    Args:
        url: http or https.
        part: grows; kept when this fails in a way that a later call can go on from.
        options: attempts and limits.
        likely_bytes: size of the published file; twice as much is never accepted.
        progress: called as bytes arrive.

    Raises:
        Failed: the server refuses, sends a page or too much, or does not answer after all attempts.
        StorageError: the disk is full or refuses.
    """
    limit = 2 * likely_bytes if likely_bytes else options.max_bytes
    failures, wait_s = 0, options.backoff_s
    while True:
        before = _size(part)
        try:
            _attempt(url, part, options.timeout_s, limit, progress)
            _version_file(part).unlink(missing_ok=True)
            return
        except _Interrupted as error:
            failures, wait_s = (1, options.backoff_s) if _size(part) > before else (failures + 1, wait_s)
            if failures >= options.attempts:
                raise Failed(
                    f"{url}: found {error} after {failures} attempts, expected the file; repeat the same command later"
                ) from error
            time.sleep(min(max(wait_s, error.wait_s), _LONGEST_WAIT_S))
            wait_s *= 2


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """The folder, made if need be, for one process at a time.

    Raises:
        InputError: another process works in it.
        StorageError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{folder}: found another process that adds or fetches there, expected none; wait until it is done"
                ) from error
            yield folder
    except OSError as error:
        told = refusal(error)
        if told is None:
            raise
        raise told from error


def _attempt(url: str, part: Path, timeout_s: float, limit: int, progress: Progress | None) -> None:
    start, version = _size(part), _version(part, url)
    headers = {"User-Agent": "mvvideo", "Accept-Encoding": "identity"}
    if start and version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    else:
        start = 0
    try:
        with _OPENER.open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response:
            if response.status != 206 or _range_start(response) != start:
                start = 0
            total = _total(response, start)
            if total is not None and total > limit:
                raise Failed(f"{url}: found {total:,} bytes, expected at most {limit:,}; get the file by hand")
            if response.headers.get_content_type() == "text/html":
                raise Failed(f"{url}: found an HTML page, expected a file; the address may ask for a login")
            _remember(part, url, response)
            _receive(response, part, start, total, limit, url, progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                if error.headers.get("Content-Range", "") == f"bytes */{start}":
                    return  # it was all there
                part.unlink(missing_ok=True)
                raise _Interrupted("a part that is longer than the file") from error
            if error.code in _AGAIN:
                raise _Interrupted(f"HTTP {error.code} {error.reason}", _retry_after(error.headers)) from error
            raise Failed(f"{url}: found HTTP {error.code} {error.reason}, expected the file; get it by hand") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, ValueError):
            raise Failed(f"{url}: found {error.reason}, expected an address to fetch") from error
        reason = getattr(error, "reason", None) or error
        raise _Interrupted(str(reason) or type(error).__name__) from error


def _receive(
    response, part: Path, start: int, total: int | None, limit: int, url: str, progress: Progress | None
) -> None:
    """Writes the body after the first ``start`` bytes of the part."""
    done = start
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if done > limit:
                break
            if progress:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if done > limit:
        part.unlink()
        raise Failed(f"{url}: found more than {limit:,} bytes, expected at most that; get the file by hand")
    if total is not None and done < total:
        raise _Interrupted(f"{done:,} of {total:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something that anybody on the way could change."""

    def redirect_request(self, request, fp, code, message, headers, new_url):
        if request.full_url.startswith("https:") and not new_url.startswith("https:"):
            raise urllib.error.URLError(ValueError(f"a redirect from https to {new_url.partition(':')[0]}"))
        return super().redirect_request(request, fp, code, message, headers, new_url)


_OPENER = urllib.request.build_opener(_Redirects)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _version(part: Path, url: str) -> str:
    """What the server called the version of which a part is; "" where it said nothing, or for another address."""
    try:
        found = json.loads(_version_file(part).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(found.get("version", "")) if isinstance(found, dict) and found.get("url") == url else ""


def _remember(part: Path, url: str, response) -> None:
    tag = response.headers.get("ETag", "")
    # A weak tag allows other bytes, so it cannot say that two halves belong together.
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    _version_file(part).write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")


def _range_start(response) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _total(response, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _retry_after(headers) -> float:
    value = headers.get("Retry-After", "") if headers else ""
    return float(value) if value.isdigit() else 0.0
