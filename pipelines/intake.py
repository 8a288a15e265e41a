"""From files and folders to rows of assets.parquet: what there is, its hash, its licence, its duplicates.

Looks at names and hashes and at a file's own copyright line; whether a file can be rendered is the probe's question.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from manifests.errors import Failed, InputError, Rejected
from manifests.gltf import Limits
from manifests.gltf.container import split
from manifests.gltf.document import read_file
from manifests.publish import sha256_file
from manifests.tables import ASSETS, empty_row, iter_rows
from render.process import BlenderProcess

__all__ = ["SUFFIXES", "asset_id", "assets_of", "mark_duplicates", "scan", "spdx"]

SUFFIXES = (".glb", ".gltf")
_UID = re.compile(r"[0-9a-f]{32}")
_SPDX = re.compile(
    r"\b(?:CC0|CC[- ]BY(?:[- ](?:NC|SA|ND)){0,2})(?:[- ]?[1-4]\.[05])?\b|\bPublic Domain\b|\bMIT\b|\bApache-2\.0\b",
    re.I,
)


def assets_of(source: str | Path, *, known: dict[str, dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    """Rows for ASSETS of the command line: a file, a folder, or an assets.parquet.

    Args:
        source: the path.
        known: rows of an earlier scan by uri, whose hash is kept where size and time are the same.

    Raises:
        InputError: nothing there, or a folder that cannot be read.
    """
    path = Path(source)
    if path.suffix == ".parquet":
        if not path.is_file():
            raise InputError(f"{path}: found no file, expected an assets.parquet; make one with `mvv assets scan`")
        yield from iter_rows(path, schema=ASSETS)
    else:
        yield from scan([path], known=known)


def scan(
    paths: Sequence[str | Path],
    *,
    known: dict[str, dict[str, Any]] | None = None,
    suffixes: Sequence[str] = SUFFIXES,
    on_file: Callable[[str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of assets.parquet, sorted by source, without regard to duplicates.

    Args:
        paths: files and folders; folders are searched, links to folders are not followed.
        known: rows of an earlier scan by uri.
        suffixes: of the files to take.
        on_file: told each file's source.

    Raises:
        InputError: a path that does not exist, a folder that cannot be read, a folder without a model.
    """
    found: dict[str, Path] = {}
    for given in map(Path, paths):
        for file, source in _files(given, suffixes):
            while source in found and found[source].resolve() != file.resolve():
                source = f"{file.parent.name}/{source}"  # two roots with the same names inside
            found[source] = file
    with BlenderProcess() as process:  # started only if a file needs it
        for source in sorted(found):
            if on_file is not None:
                on_file(source)
            yield _row(source, found[source], known or {}, process)


def mark_duplicates(rows: Sequence[dict[str, Any]], taken: dict[str, str] | None = None) -> None:
    """Reject all but the smallest source of the same bytes, in place; of different bytes, none share an id.

    Args:
        rows: of one intake.
        taken: sha256 -> source of assets that are in the dataset already; those stay.
    """
    first = dict(taken or {})
    owner = {asset_id(Path(source).stem, sha256): sha256 for sha256, source in first.items()}
    for row in sorted(rows, key=lambda row: row["source"]):
        if row["status"] == "rejected" or not row["sha256"]:
            continue
        keeper = first.setdefault(row["sha256"], row["source"])
        if keeper != row["source"]:
            row |= {
                "status": "rejected",
                "reason": "duplicate-asset",
                "detail": f"found the bytes of {keeper}, expected new content; nothing to do",
            }
        elif owner.setdefault(row["asset_id"], row["sha256"]) != row["sha256"]:
            # Two files named by the same Objaverse uid; an id is a key in tars, so it has one owner.
            row["asset_id"] += f"-{row['sha256'][:10]}"


def asset_id(stem: str, sha256: str) -> str:
    """The Objaverse uid where the name is one, else ``slug(stem)[:24]-sha256[:10]``; only ``[A-Za-z0-9_-]``."""
    if _UID.fullmatch(stem):
        return stem
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:24].rstrip("-")
    return f"{slug or 'asset'}-{sha256[:10]}"


def spdx(text: str) -> str:
    """The SPDX identifier that a copyright line names, or ""; e.g. ``CC-BY 4.0 (Ann)`` gives ``CC-BY-4.0``."""
    match = _SPDX.search(text)
    if not match:
        return ""
    found = re.sub(r"[ -]+", "-", match[0].upper())
    if found.startswith("CC0") or found == "PUBLIC-DOMAIN":
        return "CC0-1.0"
    if found.startswith("CC-BY"):
        version = re.search(r"[1-4]\.[05]$", found)
        return f"{found.removesuffix(version[0]).rstrip('-')}-{version[0]}" if version else f"{found}-4.0"
    return {"APACHE-2.0": "Apache-2.0"}.get(found, found)


def _files(given: Path, suffixes: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """(file, source) below a path; the source is relative to it, with forward slashes."""
    try:
        is_file, is_folder = given.is_file(), given.is_dir()
    except OSError as error:  # a folder above it is closed
        raise InputError(
            f"{given}: found {error.strerror}, expected a file or folder that can be read; mend its permissions or "
            "leave it out"
        ) from error
    if is_file:
        yield given, given.name
        return
    if not is_folder:
        raise InputError(f"{given}: found nothing, expected a file or a folder of {' and '.join(suffixes)}")

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: found {error.strerror}, expected a folder that can be read; mend its permissions or "
            "leave it out"
        )

    count = 0
    for folder, folders, names in os.walk(given, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)):
                count += 1
                file = Path(folder) / name
                yield file, file.relative_to(given).as_posix()
    if not count:
        raise InputError(f"{given}: found no {' or '.join(suffixes)}, expected at least one below this folder")


def _row(source: str, file: Path, known: dict[str, dict[str, Any]], process: BlenderProcess) -> dict[str, Any]:
    uri = str(file.resolve())
    source = source.encode("utf-8", "replace").decode()  # file names need not be UTF-8; tables are
    row = empty_row(ASSETS) | {"source": source, "uri": uri, "name": Path(source).stem, "status": "accepted"}
    try:
        status = file.stat()
        row |= {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        before = known.get(uri)
        same = before is not None and (before["bytes"], before["mtime_ns"]) == (row["bytes"], row["mtime_ns"])
        if same and before["sha256"] and file.suffix.lower() == ".glb":
            row |= {name: before[name] for name in ("sha256", "license", "author", "attribution", "tags")}
        else:
            row |= _contents(file, process)
    except (OSError, ValueError) as error:
        detail = f"{Path(source).name}: found {error}, expected a readable file; mend its permissions"
        row |= {"status": "rejected", "reason": "unreadable", "detail": detail}
    row["asset_id"] = asset_id(Path(source).stem, row["sha256"] or "0" * 10)
    return row


def _contents(file: Path, process: BlenderProcess) -> dict[str, Any]:
    """Hash and copyright. What else is wrong with the file is the probe's to say."""
    found: dict[str, Any] = {"sha256": sha256_file(file)}
    text = ""
    try:
        if file.suffix.lower() == ".glb":
            document, _ = split(read_file(file, Limits()), Limits())
            text = document.required("asset").text("copyright")
        else:
            # The hash covers the files that a glTF refers to, so it has to be read, and that is done in isolation.
            answer = process.ask("identify", path=str(file.resolve()))
            found["sha256"], text = answer["sha256"], answer["copyright"]
    except (Rejected, Failed):
        pass
    return found | {"license": spdx(text), "attribution": text.strip()[:1000]}
