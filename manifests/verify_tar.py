"""One tar of a dataset against its row in shards.parquet, its index and the rows of its clips, in one pass.

The whole file is hashed while its members are walked; a member's payload is held only when it is the JSON or is to be
decoded.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from manifests import clip as clips
from manifests.errors import DatasetError, InputError
from manifests.images import decode_frame, decode_series
from manifests.tables import CLIPS, facts_of_sample
from manifests.tar import IndexRow, Member, walk

__all__ = ["Problem", "check_tar", "problem_of", "row_differences"]

CHUNK = 1 << 20
MAX_JSON = 64 << 20
LABELS = {"caption", "caption_source", "license", "attribution", "split"}
"""Columns of clips.parquet that may be corrected after packing."""
_REBUILD = "remove this tar and repeat the command that made it, only this shard is made again"


@dataclass(frozen=True)
class Problem:
    """One disagreement: where, what was found, what was expected, what to do."""

    file: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: found {self.found}, expected {self.expected}; {self.remedy}"


def problem_of(error: Exception, file: str) -> Problem:
    """An error of ours as a problem of ``file``, with the field when the error names one."""
    text = " ".join(str(error).split())
    match = re.fullmatch(r"(.*?): found (.*?), expected (.*); (.*?)", text)
    if not match:
        return Problem(file, text, "a readable file", _REBUILD)
    where, found, expected, remedy = match.groups()
    _, _, field = where.rpartition(": ") if ": " in where else ("", "", "")
    return Problem(f"{file}: {field}" if field else file, found, expected, remedy)


def row_differences(row: dict[str, Any], expected: dict[str, Any], source: str) -> Iterator[tuple[str, str]]:
    """(found, expected) for every column that differs, labels left out."""
    for name in CLIPS.names:
        if name not in LABELS and name in expected and row[name] != expected[name]:
            yield f"{row['clip_id']} {name} {row[name]!r}", f"{expected[name]!r} ({source})"


def check_tar(
    path: Path,
    row: dict[str, Any],
    index: list[IndexRow] | None,
    rows: dict[str, dict[str, Any]] | None,
    modality: dict[str, Any],
    *,
    decode: bool,
) -> Iterator[Problem]:
    """Everything that is wrong with one tar.

    Args:
        path: the tar.
        row: of shards.parquet.
        index: its index; None when that was not readable, then members go unchecked.
        rows: the accepted clips by id in tar order; None when not readable.
        modality: entry of dataset.json for this series.
        decode: also decode the frames.
    """
    name = f"shards/{path.name}"
    with open(path, "rb") as raw:
        file = _Hashed(raw)
        keys: list[str] = []
        try:
            groups = itertools.groupby(walk(file, name), key=lambda member: member.key)
            for key, members in groups:
                entry = index[len(keys)] if index is not None and len(keys) < len(index) else None
                keys.append(key)
                yield from _Clip(name, key, row["series"], modality, decode).check(file, members, entry, rows)
            if index is not None and len(keys) != len(index):
                yield Problem(name, f"{len(keys)} clips", f"{len(index)} (index)", _REBUILD)
            if rows is not None and keys != list(rows):
                expected = f"{len(rows)} clips in the order of clips/{row['shard']}.parquet"
                yield Problem(name, f"{len(keys)} clips, or others, or another order", expected, _REBUILD)
        except DatasetError as error:
            yield problem_of(error, name)
        size, sha256 = file.rest()
    if size != row["bytes"]:
        yield Problem(name, f"{size} bytes", f"{row['bytes']} (shards.parquet)", _REBUILD)
    if sha256 != row["sha256"]:
        yield Problem(name, f"SHA-256 {sha256}", f"{row['sha256']} (shards.parquet)", _REBUILD)


@dataclass(frozen=True)
class _Clip:
    """The members of one key in a tar."""

    tar: str
    key: str
    series: str
    modality: dict[str, Any]
    decode: bool

    def check(
        self, file: _Hashed, members: Iterator[Member], entry: IndexRow | None, rows: dict[str, dict[str, Any]] | None
    ) -> Iterator[Problem]:
        where = f"{self.tar}: {self.key}"
        sample: dict[str, Any] | None = None
        row = (rows or {}).get(self.key)
        payloads = hashlib.sha256()
        names, sizes, sums, offsets = [], [], [], []
        for member in members:
            held = member.name.endswith(".json") or self.decode
            if held and member.size > MAX_JSON:
                yield Problem(f"{self.tar}: {member.name}", f"{member.size} bytes", f"at most {MAX_JSON}", _REBUILD)
                held = False
            crc, data = _payload(file, member, payloads, held)
            names.append(member.name)
            sizes.append(member.size)
            sums.append(crc)
            offsets.append(member.offset)
            if entry and len(sums) <= len(entry.crc32c) and crc != entry.crc32c[len(sums) - 1]:
                expected = f"{entry.crc32c[len(sums) - 1]:08x} (index)"
                yield Problem(f"{self.tar}: {member.name}", f"CRC-32C {crc:08x}", expected, _REBUILD)
            if data is not None and member.name == clips.json_name(self.key):
                try:
                    sample = _sample(data, member.name)
                except InputError as error:
                    yield problem_of(error, f"{self.tar}: {member.name}")
            elif data is not None:
                yield from self._decoded(data, f"{self.tar}: {member.name}", row)
        if entry is not None:
            yield from _index_problems(where, entry, self.key, sizes, offsets, payloads.hexdigest())
        if sample is not None and row is not None:
            for found, expected in row_differences(row, facts_of_sample(sample), "KEY.json"):
                yield Problem(f"clips/{row['shard']}.parquet", found, expected, _REBUILD)
        if names != (expected_names := self._names(sample, row)) and expected_names:
            yield Problem(where, f"{len(names)} members to {names[-1]}", f"{len(expected_names)} in order", _REBUILD)

    def _names(self, sample: dict[str, Any] | None, row: dict[str, Any] | None) -> list[str]:
        """The names that the members should have; empty when nothing says so."""
        if not self.series:
            return clips.members(sample) if sample else []
        if row is None or not self.modality:
            return []
        grid = itertools.product(range(row["views"]), range(row["frames"]))
        return [clips.frame_name(self.key, view, frame, self.modality["suffix"]) for view, frame in grid]

    def _size(self, row: dict[str, Any]) -> tuple[int, int]:
        """(height, width) that a frame should have: the images', or the series' own where dataset.json states it."""
        return (self.modality.get("height", row["height"]), self.modality.get("width", row["width"]))

    def _decoded(self, data: bytes, where: str, row: dict[str, Any] | None) -> Iterator[Problem]:
        try:
            image = decode_series(data, self.modality, where) if self.series else decode_frame(data, where)
        except DatasetError as error:
            yield problem_of(error, where)
            return
        if row is not None and image.shape[:2] != (size := self._size(row)):
            yield Problem(where, f"{image.shape[:2]} pixels", f"{size}", _REBUILD)
        channels = image.shape[2] if image.ndim == 3 else 1
        if self.series and channels != self.modality.get("channels", channels):
            yield Problem(where, f"{channels} channels", f"{self.modality['channels']} (dataset.json)", _REBUILD)
        if not self.series and np.any(image[image[..., 3] == 0]):
            yield Problem(where, "colour where alpha is 0", "0 0 0 there", _REBUILD)


class _Hashed:
    """A file that is read forwards only and hashes every byte on the way."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._digest, self.at = raw, hashlib.sha256(), 0

    def fileno(self) -> int:
        return self._raw.fileno()

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._digest.update(data)
        self.at += len(data)
        return data

    def seek(self, place: int) -> None:
        assert place >= self.at, f"a walk went back from byte {self.at} to {place}"
        while self.at < place and self.read(min(CHUNK, place - self.at)):
            pass

    def rest(self) -> tuple[int, str]:
        """Reads on to the end; the file's size and SHA-256."""
        while self.read(CHUNK):
            pass
        return self.at, self._digest.hexdigest()


def _payload(file: _Hashed, member: Member, payloads: Any, held: bool) -> tuple[int, bytes | None]:
    crc, left, chunks = 0, member.size, []
    while left and (chunk := file.read(min(CHUNK, left))):
        crc = crc32c(chunk, crc)
        payloads.update(chunk)
        left -= len(chunk)
        if held:
            chunks.append(chunk)
    return crc, b"".join(chunks) if held else None


def _sample(data: bytes, where: str) -> dict[str, Any]:
    sample = clips.from_json(data, where)
    clips.validate(sample)
    if clips.to_json(sample) != data:
        raise InputError(f"{where}: found JSON in another form, expected its canonical bytes; {_REBUILD}")
    return sample


def _index_problems(
    where: str, entry: IndexRow, key: str, sizes: list[int], offsets: list[int], sha256: str
) -> Iterator[Problem]:
    first = 1 if entry.json_size else 0
    found = {
        "key": key,
        "sizes": tuple(sizes),
        "sha256": sha256,
        "json_offset": offsets[0] if first else -1,
        "first_frame_offset": offsets[first] if len(offsets) > first else -1,
    }
    expected = {
        "key": entry.clip_id,
        "sizes": entry.sizes,
        "sha256": entry.sha256,
        "json_offset": entry.json_offset,
        "first_frame_offset": entry.first_frame_offset,
    }
    for name, value in found.items():
        if value != expected[name]:
            short = value if name != "sizes" else f"of {len(value)} members, {sum(value)} bytes"
            should = expected[name] if name != "sizes" else f"{len(entry.sizes)} members, {sum(entry.sizes)} bytes"
            yield Problem(where, f"{name} {short}", f"{should} (index)", _REBUILD)
