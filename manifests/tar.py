"""Tars with the same bytes for the same members, and the index that makes them readable by position.

Plain USTAR with fixed time, owner and mode, so that any tar reader opens them. A *part* is the concatenated members of
one clip without end blocks: the staged form, which `pack` strings together into a shard. Layout after POSIX.1-1988
(ustar); headers are written here and not by `tarfile`, whose bytes changed between Python versions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from crc32c import crc32c

from manifests.errors import DatasetError, InputError
from manifests.publish import attempt

__all__ = [
    "BLOCK",
    "RECORD",
    "IndexRow",
    "Member",
    "Packed",
    "check_name",
    "member_bytes",
    "pack",
    "padded",
    "read_at",
    "read_part",
    "walk",
    "write_part",
]

BLOCK = 512
RECORD = 20 * BLOCK
CHUNK = 1 << 20
NAME_BYTES = 100
MAX_MEMBER = 2**31 - 1
"""Sizes are int32 in the index; a frame or JSON never comes near."""

_PART_REMEDY = "delete the part and repeat the build, only this clip is rendered again"


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar: its name, the offset of its first payload byte and its size, both in bytes."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The WebDataset key: the name up to the first dot."""
        return self.name.partition(".")[0]

    @property
    def end(self) -> int:
        """Offset of the next header."""
        return self.offset + padded(self.size)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """Where one clip lies in its tar; a row of ``index/SPLIT-NNNNN.parquet``.

    ``sizes`` and ``crc32c`` follow the member order. A parallel series has no JSON: ``json_offset`` is -1 and
    ``json_size`` 0. ``sha256`` is over the concatenated payloads, without headers and padding.
    """

    clip_id: str
    json_offset: int
    json_size: int
    first_frame_offset: int
    sizes: tuple[int, ...]
    crc32c: tuple[int, ...]
    sha256: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> IndexRow:
        """From a row of the index table."""
        return cls(**{**row, "sizes": tuple(row["sizes"]), "crc32c": tuple(row["crc32c"])})

    def to_row(self) -> dict[str, Any]:
        """As a row of the index table."""
        return {**asdict(self), "sizes": list(self.sizes), "crc32c": list(self.crc32c)}

    @property
    def frame_sizes(self) -> tuple[int, ...]:
        """Sizes of the frames alone, view-major."""
        return self.sizes[1:] if self.json_size else self.sizes

    def frame_offsets(self) -> list[int]:
        """Payload offset of every frame in the tar, view-major."""
        offsets, at = [], self.first_frame_offset
        for size in self.frame_sizes:
            offsets.append(at)
            at += padded(size) + BLOCK
        return offsets


@dataclass(frozen=True, slots=True)
class Packed:
    """What `pack` wrote: the index rows in tar order, the tar's size in bytes and its SHA-256 (hex)."""

    rows: tuple[IndexRow, ...]
    bytes: int
    sha256: str


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def check_name(name: str) -> None:
    """Refuses names that do not fit the name field; call it when a job is planned, before anything is rendered.

    Raises:
        InputError: longer than 100 bytes, not ASCII, empty, or leading out of the folder it is unpacked in.
    """
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= NAME_BYTES) or "/" in name or name[:1] == ".":
        raise InputError(
            f"tar member: found name {name[:120]!r} of {len(name)} characters, expected 1 to {NAME_BYTES} printable"
            " ASCII characters, no slash, no leading dot; use a shorter asset id"
        )


def member_bytes(name: str, data: bytes) -> bytes:
    """Header, payload and padding of one member: fixed time 0, owner 0, mode 0644.

    Raises:
        InputError: a name that `check_name` refuses, or more than 2 GiB of data.
    """
    check_name(name)
    if len(data) > MAX_MEMBER:
        raise InputError(f"{name}: found {len(data)} bytes, expected at most {MAX_MEMBER}; make the images smaller")
    return _header(name, len(data)) + data + bytes(padded(len(data)) - len(data))


def write_part(path: Path | str, members: Iterable[tuple[str, bytes]]) -> None:
    """Stages the members of one clip, atomically.

    Args:
        path: where the part is published.
        members: (name, payload) in the order of `manifests.clip.members`.
    """
    with attempt(path) as trial, open(trial, "xb") as file:
        for name, data in members:
            file.write(member_bytes(name, data))


def read_part(path: Path | str, names: Iterable[str] | None = None) -> list[Member]:
    """The members of a staged part; payloads are not read.

    Args:
        path: a file written by `write_part`.
        names: what the part has to contain, in order; None skips that check.

    Raises:
        DatasetError: absent, torn or damaged, more than one key, or other names than asked for.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            members = list(walk(file, path.name, ended=False))
    except OSError as error:
        raise DatasetError(f"{path}: found {error.strerror}, expected a staged part; {_PART_REMEDY}") from error
    _check_keys(path, members)
    expected = None if names is None else list(names)
    if expected is not None and [member.name for member in members] != expected:
        raise DatasetError(
            f"{path}: found {len(members)} members from {members[0].name} to {members[-1].name}, expected"
            f" {len(expected)} from {expected[0]} to {expected[-1]}; {_PART_REMEDY}"
        )
    return members


def walk(file: BinaryIO, where: str, *, ended: bool = True) -> Iterator[Member]:
    """The members of a tar or part, by its headers alone.

    After each member the file stands at its payload; the caller may read it or not.

    Args:
        file: binary, seekable, at its start.
        where: the name used in errors.
        ended: True for a whole tar with its end blocks, False for a part.

    Raises:
        DatasetError: a header that `member_bytes` would not have written, a file that ends too early or too late.
    """
    total = os.fstat(file.fileno()).st_size
    at, block = 0, b""
    while at < total or ended:
        file.seek(at)
        block = file.read(BLOCK)
        if ended and block == bytes(BLOCK):
            break
        member = _parse(block, at, where)
        if member.end > total:
            raise DatasetError(
                f"{where}: found the end of the file at byte {total} inside {member.name}, expected it at"
                f" {member.end} or later; it was cut off, repeat the build"
            )
        file.seek(member.offset)
        yield member
        at = member.end
    # Only forward from here, so that a file that hashes what it reads can be walked as well.
    if ended and (total != _ended(at) or any(file.read(total - at - len(block)))):
        raise DatasetError(
            f"{where}: found {total} bytes, expected {_ended(at)} with nothing but zeros after byte {at};"
            " it was cut off or added to, repeat the build"
        )


def pack(parts: Iterable[Path | str], out: Path | str) -> Packed:
    """Strings parts together into one shard, in the order given, hashing on the way.

    Memory is one chunk and the index rows. The tar appears under ``out`` when all of it is on disk; after an error
    nothing new is there.

    Args:
        parts: staged parts, one clip each.
        out: the tar.

    Raises:
        DatasetError: a part that is torn, damaged, or of a clip that an earlier part already brought.
    """
    rows: dict[str, IndexRow] = {}
    whole = hashlib.sha256()
    at = 0
    with attempt(out) as trial, open(trial, "xb", buffering=CHUNK) as tar:
        for part in map(Path, parts):
            row, at = _copy_part(part, tar, at, whole)
            if row.clip_id in rows:
                raise DatasetError(
                    f"{part}: found clip {row.clip_id} again, expected every clip once; repeat the build"
                )
            rows[row.clip_id] = row
        end = bytes(_ended(at) - at)
        whole.update(end)
        tar.write(end)
    return Packed(tuple(rows.values()), at + len(end), whole.hexdigest())


def read_at(path: Path | str, offset: int, size: int) -> bytes:
    """``size`` bytes at ``offset``; nothing else of the file is read.

    Raises:
        DatasetError: the file is absent or ends before.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise DatasetError(
            f"{path}: found {error.strerror}, expected a tar; run `mvv verify` on the dataset"
        ) from error
    if len(data) != size:
        raise DatasetError(
            f"{path}: found {len(data)} bytes at {offset}, expected {size}; run `mvv verify` on the dataset"
        )
    return data


def _copy_part(part: Path, tar: BinaryIO, at: int, whole: Any) -> tuple[IndexRow, int]:
    """Appends one part at offset ``at``; gives its index row and the offset behind it."""
    try:
        source = open(part, "rb", buffering=0)  # noqa: SIM115  (closed by the block below; the error is about opening)
    except OSError as error:
        raise DatasetError(f"{part}: found {error.strerror}, expected a staged part; repeat the build") from error
    members: list[Member] = []
    sums: list[int] = []
    payloads = hashlib.sha256()
    with source:
        for member in walk(source, str(part), ended=False):
            members.append(Member(member.name, at + member.offset, member.size))
            head = _header(member.name, member.size)
            whole.update(head)
            tar.write(head)
            crc, left = 0, member.size
            while left:
                chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise DatasetError(f"{part}: found its end inside {member.name}, expected more; {_PART_REMEDY}")
                crc = crc32c(chunk, crc)
                payloads.update(chunk)
                whole.update(chunk)
                tar.write(chunk)
                left -= len(chunk)
            padding = bytes(padded(member.size) - member.size)
            whole.update(padding)
            tar.write(padding)
            sums.append(crc)
    _check_keys(part, members)
    return _index_row(members, sums, payloads.hexdigest()), members[-1].end


def _index_row(members: list[Member], sums: list[int], sha256: str) -> IndexRow:
    has_json = members[0].name.endswith(".json")
    frames = members[1:] if has_json else members
    return IndexRow(
        clip_id=members[0].key,
        json_offset=members[0].offset if has_json else -1,
        json_size=members[0].size if has_json else 0,
        first_frame_offset=frames[0].offset if frames else -1,
        sizes=tuple(member.size for member in members),
        crc32c=tuple(sums),
        sha256=sha256,
    )


def _check_keys(part: Path, members: list[Member]) -> None:
    keys = {member.key for member in members}
    if len(keys) != 1:
        raise DatasetError(f"{part}: found {len(keys)} keys, expected the members of one clip; {_PART_REMEDY}")
    if len({member.name for member in members}) != len(members):
        raise DatasetError(f"{part}: found a member name twice, expected each once; {_PART_REMEDY}")


def _ended(at: int) -> int:
    """Length of a tar whose members end at ``at``: two zero blocks, filled up to a whole record."""
    return -(-(at + 2 * BLOCK) // RECORD) * RECORD


def _header(name: str, size: int) -> bytes:
    fields = [
        name.encode("ascii").ljust(NAME_BYTES, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, uid, gid
        b"%011o\0" % size + b"00000000000\0",  # size, mtime
        b" " * 8,  # the checksum counts its own field as blanks
        b"0" + bytes(100) + b"ustar\0" + b"00",  # a regular file, no link, magic, version
        bytes(64) + b"0000000\0" * 2 + bytes(155 + 12),  # no names of owners, device 0, no prefix
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _parse(block: bytes, at: int, where: str) -> Member:
    """Reads a header and demands that writing it again gives the same bytes: one flipped bit is one error."""
    try:
        name = block[:NAME_BYTES].rstrip(b"\0").decode("ascii")
        size = int(block[124:135], 8)
    except ValueError:
        name, size = "", -1
    if not name or size < 0 or _header(name, size) != block:
        raise DatasetError(
            f"{where}: found {len(block)} bytes at {at} that are not a header of ours, expected a USTAR header with"
            " fixed time and owner; the file is damaged, repeat the build"
        )
    return Member(name, at + BLOCK, size)
