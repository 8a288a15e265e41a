"""The folder that weights are kept in: each file with its hash beside it, checked when it comes and held from then on.

    FOLDER/NAME/FILE            as published
    FOLDER/NAME/record.json     hash, size, when and from where it came, whether it is custom
    FOLDER/NAME/FILE.part       a download under way

The folder can be copied to a machine without network as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from eval.weights.contents import Unusable, format_of
from eval.weights.download import Download, Failed, Progress, download, exclusive
from eval.weights.table import WEIGHTS, Weight, weight
from manifests.errors import InputError
from manifests.publish import write_bytes

__all__ = ["Problem", "Record", "Status", "Store", "default_folder"]

_CHUNK = 1 << 22


def default_folder() -> Path:
    """``$MVVIDEO_WEIGHTS``, or ``~/.cache/mvvideo/weights``."""
    given = os.environ.get("MVVIDEO_WEIGHTS", "")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "mvvideo" / "weights"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the store knows of a file that it keeps.

    Attributes:
        sha256, bytes: of the file.
        mtime_ns: of the file when it was last hashed; another time or size means that it must be hashed again.
        custom: other weights than the published ones, kept on purpose.
        known_by: ``hash``, ``prefix``, or ``first use`` where nothing was known and this file decided.
        origin: where it came from.
        added: date and time, UTC.
    """

    sha256: str
    bytes: int
    mtime_ns: int
    custom: bool
    known_by: str
    origin: str
    added: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """One weight and what the store has of it; ``record`` is None where the file is absent or not yet hashed."""

    weight: Weight
    path: Path | None
    record: Record | None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What `Store.verify` found wrong with a file."""

    name: str
    text: str


class Store:
    """Weights in a folder.

    Args:
        folder: `default_folder` where None; need not exist.
        download: how to fetch.
    """

    def __init__(self, folder: Path | str | None = None, *, download: Download | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self._download = download or Download()

    def list(self) -> tuple[Status, ...]:
        """All weights in the order of the table; nothing is hashed."""
        return tuple(
            Status(weight=entry, path=self._path(entry) if self.has(name) else None, record=self._fresh_record(entry))
            for name, entry in WEIGHTS.items()
        )

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return self._path(weight(name)).is_file()

    def path(self, name: str) -> Path:
        """Where the file is.

        Raises:
            InputError: it is not there; says how to get it.
        """
        entry = weight(name)
        if not self.has(name):
            raise InputError(f"{self._path(entry)}: found no file, expected the weights {name}; {_how_to_get(entry)}")
        return self._path(entry)

    def custom(self, name: str) -> bool:
        """Whether what is kept under this name are other weights than the published ones."""
        record = self._record(weight(name))
        return record is not None and record.custom

    def sha256(self, name: str, *, again: bool = False) -> str:
        """Hash of the file; computed once, and again when its size or time has changed.

        Args:
            name: of the weight.
            again: hash it in any case.

        Raises:
            InputError: no file; one that changed since it was added; or one that was put there by hand and is not what
                `add` would accept.
        """
        path, entry = self.path(name), weight(name)
        fresh, record = self._fresh_record(entry), self._record(entry)
        if fresh is not None and not again:
            return fresh.sha256
        found = _hash(path)
        if record is None:
            self._check(entry, path, found, custom=False)
            record = _record_of(entry, path, found, custom=False, origin="put into the folder by hand")
        elif found != record.sha256:
            raise InputError(
                f"{path}: found SHA-256 {found}, expected {record.sha256} as when it was added; the file has changed, "
                f"remove it and {_how_to_get(entry)}"
            )
        stat = path.stat()
        with contextlib.suppress(OSError):  # a store that others share may be read-only; it is hashed each time then
            self._save(entry, replace(record, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns))
        return found

    def add(self, name: str, file: Path | str, *, custom: bool = False) -> Record:
        """Copies a file into the store after checking what it is.

        Args:
            name: of the weight.
            file: the file.
            custom: keep it though its hash is another one. Cards then have another hash too, so that scores made with
                it are never ranked with those of the published weights.

        Raises:
            InputError: another hash than expected (or than the first file that was added, where none is known), or a
                file that is not named tensors; the store stays as it was.
            StorageError: the folder cannot be written.
        """
        entry, file = weight(name), Path(file)
        if not file.is_file():
            raise InputError(f"{file}: found no file, expected the weights {entry.file}; {_how_to_get(entry)}")
        with exclusive(self.folder / name) as folder:
            copy = folder / f"{entry.file}.adding"
            try:
                shutil.copyfile(file, copy)
                return self._keep(entry, copy, custom=custom, origin=f"file {file.name}", shown=str(file))
            finally:
                copy.unlink(missing_ok=True)

    def fetch(self, name: str, *, accept_licence: bool = False, progress: Progress | None = None) -> Record:
        """Downloads a file, going on where an earlier attempt stopped; what is there and whole is not fetched again.

        Args:
            name: of the weight.
            accept_licence: the user agrees to a licence that forbids commercial use.
            progress: called with (bytes so far, bytes in all or None).

        Raises:
            InputError: a licence that was not accepted, no address, no address that gives the file, or what came is not
                the published file.
            StorageError: the folder cannot be written.
        """
        entry = weight(name)
        if self.has(name):
            found = self.sha256(name)
            return self._record(entry) or _record_of(entry, self._path(entry), found, custom=False, origin="")
        if entry.noncommercial and not accept_licence:
            raise InputError(
                f"{name}: found the licence {entry.licence}, which forbids commercial use, expected your consent; "
                f"read it and fetch with --accept-licence, or go without {', '.join(entry.used_by)}"
            )
        if not entry.urls:
            raise InputError(f"{name}: found no address to fetch it from, expected one; {entry.by_hand}")
        failures: list[str] = []
        with exclusive(self.folder / name) as folder:
            part = folder / f"{entry.file}.part"
            for url in entry.urls:
                try:
                    download(url, part, self._download, likely_bytes=entry.bytes, progress=progress)
                    return self._keep(entry, part, custom=False, origin=url, shown=url)
                except (Failed, InputError) as error:
                    failures.append(str(error))
        if entry.by_hand not in failures[-1]:
            failures.append(f"{name}: {entry.by_hand}")
        raise InputError("\n".join(failures))

    def verify(self, progress: Callable[[str], None] | None = None) -> tuple[Problem, ...]:
        """Hashes every file again, whatever its time says.

        Args:
            progress: called with each name before its file is read.
        """
        problems = []
        for name in filter(self.has, WEIGHTS):
            if progress:
                progress(name)
            try:
                self.sha256(name, again=True)
            except InputError as error:
                problems.append(Problem(name=name, text=str(error)))
        return tuple(problems)

    def _path(self, entry: Weight) -> Path:
        return self.folder / entry.name / entry.file

    def _keep(self, entry: Weight, file: Path, *, custom: bool, origin: str, shown: str) -> Record:
        """Checks a file that lies in the weight's folder and gives it its name."""
        found = _hash(file)
        try:
            self._check(entry, file, found, custom=custom, shown=shown)
        except InputError:
            file.unlink()
            raise
        os.replace(file, self._path(entry))
        record = _record_of(entry, self._path(entry), found, custom=custom, origin=origin)
        self._save(entry, record)
        return record

    def _check(self, entry: Weight, file: Path, found: str, *, custom: bool, shown: str = "") -> None:
        """Raises InputError where a file is not what it should be."""
        where, record = shown or str(file), self._record(entry)
        if not custom and not entry.fits(found):
            raise InputError(
                f"{where}: found SHA-256 {found}, expected {entry.expected_hash} ({entry.file}); {entry.by_hand}, or "
                "keep other weights on purpose with --custom"
            )
        if not custom and record and not record.custom and record.known_by == "first use" and found != record.sha256:
            raise InputError(
                f"{where}: found SHA-256 {found}, expected {record.sha256} as of the file added on {record.added[:10]} "
                f"(no publisher states a hash for {entry.file}, so the first one counts); keep other weights on "
                f"purpose with --custom, or remove {self.folder / entry.name} to start anew"
            )
        try:
            kind = format_of(file)
        except Unusable as error:
            raise InputError(
                f"{where}: found {error}, expected tensors by name (PyTorch state dict or safetensors); {entry.by_hand}"
            ) from error
        if kind == "torchscript" and entry.format != kind:
            raise InputError(
                f"{where}: found a TorchScript archive, expected tensors by name ({entry.file}); {entry.by_hand}"
            )

    def _save(self, entry: Weight, record: Record) -> None:
        path = self.folder / entry.name / "record.json"
        write_bytes(path, (json.dumps({"file": entry.file, **asdict(record)}, indent=1) + "\n").encode())

    def _record(self, entry: Weight) -> Record | None:
        path = self.folder / entry.name / "record.json"
        try:
            found = json.loads(path.read_bytes())
            return Record(**{key: found[key] for key in Record.__annotations__})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: found {type(error).__name__}, expected the record of {entry.file}; remove {path.parent} and "
                f"{_how_to_get(entry)}"
            ) from error

    def _fresh_record(self, entry: Weight) -> Record | None:
        """The record, where the file is still as it was when it was hashed."""
        record = self._record(entry)
        if record is None or not self.has(entry.name):
            return None
        stat = self._path(entry).stat()
        return record if (stat.st_size, stat.st_mtime_ns) == (record.bytes, record.mtime_ns) else None


def _record_of(entry: Weight, path: Path, found: str, *, custom: bool, origin: str) -> Record:
    stat = path.stat()
    published = bool(entry.expected_hash) and entry.fits(found)
    return Record(
        sha256=found, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, origin=origin,
        known_by="hash" if entry.sha256 else "prefix" if entry.sha256_prefix else "first use",
        custom=custom and not published,  # the published file stays what it is, however it was added
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _how_to_get(entry: Weight) -> str:
    consent = " --accept-licence" if entry.noncommercial else ""
    return (f"run `mvv weights fetch {entry.name}{consent}`, or " if entry.urls else "") + entry.by_hand
