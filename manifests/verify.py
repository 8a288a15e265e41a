"""Checks a dataset against its own hashes: every tar, member, index, table row and count.

One pass over each tar, memory of one shard's rows. Nothing is repaired; every problem says what to do. The tables are
checked against dataset.json, the shards against shards.parquet, the samples against their schema and their rows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.dataset import read_manifest
from manifests.errors import DatasetError
from manifests.finish import SEALED_TABLES, config_sha256
from manifests.publish import ATTEMPT_SUFFIX, sha256_file
from manifests.shards import clips_path, index_path, read_shards, shard_path, split_of
from manifests.statistics import clips_statistics, fingerprint
from manifests.tables import CLIPS, INDEX, iter_batches, iter_rows
from manifests.tar import IndexRow
from manifests.verify_tar import Problem, check_tar, problem_of, row_differences

__all__ = ["Problem", "iter_problems", "verify"]

Progress = Callable[[str, int], None]
_REPEAT = "repeat the build command"
_SEAL = "if the change was meant, seal the dataset again (manifests.finish.seal); if not, repeat the build command"
_REBUILD = "remove this shard's tar and repeat the command that made it, only this shard is made again"


@dataclass(frozen=True)
class _Context:
    folder: Path
    modalities: dict[str, dict[str, Any]]
    decode: bool
    progress: Progress | None


def verify(folder: Path | str, *, decode: bool = False, progress: Progress | None = None) -> list[Problem]:
    """Every problem of a dataset; an empty list means that all of it agrees.

    Args:
        folder: the dataset.
        decode: also decode every frame and check its size and the zeros behind alpha 0; several times slower.
        progress: called with a tar's name and its bytes when that tar is done.
    """
    return list(iter_problems(folder, decode=decode, progress=progress))


def iter_problems(folder: Path | str, *, decode: bool = False, progress: Progress | None = None) -> Iterator[Problem]:
    """As `verify`, one by one while reading."""
    folder = Path(folder)
    manifest: dict[str, Any] = {}
    try:
        manifest = read_manifest(folder)
    except DatasetError as error:
        yield problem_of(error, "dataset.json")
    try:
        shards = read_shards(folder)
    except DatasetError as error:
        yield problem_of(error, "shards.parquet")
        return  # without it nothing says what should be there
    context = _Context(folder, manifest.get("modalities", {}), decode, progress)
    if manifest:
        yield from _manifest_problems(context, manifest)
    yield from _listing_problems(context, shards)
    yield from _shard_problems(context, shards)
    if manifest:
        yield from _count_problems(folder, manifest, shards)


def _manifest_problems(context: _Context, manifest: dict[str, Any]) -> Iterator[Problem]:
    folder = context.folder
    missing = sorted(
        {"config", "config_sha256", "counts", "fingerprint", "modalities", "tables", "tools"} - set(manifest)
    )
    if missing:
        yield Problem("dataset.json", f"no {', '.join(missing)}", "all fields of its schema", _REPEAT)
    found = config_sha256(manifest.get("config", {}))
    if found != manifest.get("config_sha256"):
        yield Problem("dataset.json", f"a config of SHA-256 {found}", f"{manifest.get('config_sha256')}", _SEAL)
    for table in SEALED_TABLES:
        if not (folder / table).exists():
            yield Problem(table, "no file", "the table", _REPEAT)
            continue
        found, expected = sha256_file(folder / table), manifest.get("tables", {}).get(table)
        if found != expected:
            yield Problem(table, f"SHA-256 {found}", f"{expected} (dataset.json)", _SEAL)
    if not (folder / "README.md").exists():
        yield Problem("README.md", "no file", "the dataset card", _SEAL)
    try:
        listed = json.loads((folder / "croissant.json").read_bytes())["distribution"]
        hashes = {file["@id"]: file["sha256"] for file in listed if "sha256" in file}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Problem("croissant.json", f"{type(error).__name__}: {error}", "a Croissant description", _SEAL)
        return
    for table, sha256 in manifest.get("tables", {}).items():
        if hashes.get(table) != sha256:
            yield Problem("croissant.json", f"SHA-256 {hashes.get(table)} of {table}", sha256, _SEAL)


def _listing_problems(context: _Context, shards: list[dict[str, Any]]) -> Iterator[Problem]:
    """Files without a row, rows without a file, parallel series with holes."""
    folder = context.folder
    rgb = [row["shard"] for row in shards if row["series"] == ""]
    pairs = [(row["shard"], row["series"]) for row in shards]
    for shard, series in sorted({pair for pair in pairs if pairs.count(pair) > 1}):
        yield Problem("shards.parquet", f"{shard} {series or 'rgb'} twice", "one row", _REPEAT)
    expected = {
        "shards": {shard_path(folder, *pair).name for pair in pairs},
        "index": {index_path(folder, *pair).name for pair in pairs},
        "clips": {clips_path(folder, shard).name for shard in rgb},
    }
    for name, files in expected.items():
        there = {path.name for path in (folder / name).glob("*") if not path.name.endswith(ATTEMPT_SUFFIX)}
        for absent in sorted(files - there):
            yield Problem(f"{name}/{absent}", "no file", "a file, shards.parquet lists it", _REBUILD)
        for extra in sorted(there - files):
            if name == "clips" and _only_failed(folder / name / extra):
                continue  # a shard in which no clip could be rendered has rows and no tar
            found = "a file that shards.parquet does not list"
            yield Problem(
                f"{name}/{extra}", found, "no such file", "remove it, or repeat the build command to commit it"
            )
    declared = set(context.modalities) - {"rgb"}
    for shard, series in pairs:
        if series and context.modalities and series not in declared:
            yield Problem("shards.parquet", f"series {series!r}", f"one of {sorted(declared)} (dataset.json)", _SEAL)
        if series and (shard, "") not in pairs:
            yield Problem("shards.parquet", f"{shard} as {series} only", "its RGB tar too", _REBUILD)
    for shard, name in itertools.product(rgb, sorted(declared)):
        if (shard, name) not in pairs:
            missing = f"shards/{shard}.{name}.tar"
            yield Problem(missing, "no row in shards.parquet", f"the {name} series of every shard", _REBUILD)


def _only_failed(path: Path) -> bool:
    try:
        return all(row["status"] != "accepted" for row in iter_rows(path, ["status"]))
    except DatasetError:
        return False


def _shard_problems(context: _Context, shards: list[dict[str, Any]]) -> Iterator[Problem]:
    """Every tar with its index and rows, with the rows of clips.parquet alongside."""
    merged = _merged_rows(context.folder / "clips.parquet")
    for row in shards:
        path = shard_path(context.folder, row["shard"], row["series"])
        if row["split"] != split_of(row["shard"])[0]:
            yield Problem("shards.parquet", f"split {row['split']!r} of {row['shard']}", "that of its name", _REBUILD)
        index = yield from _index(context.folder, row)
        rows = yield from _clip_rows(context.folder, row["shard"], None if row["series"] else row["clips"])
        if not row["series"]:
            try:
                yield from _merged_problems(merged, row["shard"], rows)
            except DatasetError as error:
                yield problem_of(error, "clips.parquet")
                merged = iter(())
        if path.exists():
            modality = context.modalities.get(row["series"] or "rgb", {})
            yield from check_tar(path, row, index, rows, modality, decode=context.decode)
        if context.progress:
            context.progress(path.name, row["bytes"])
    try:
        for shard, _ in merged:
            found = f"clips in {shard!r}"
            yield Problem("clips.parquet", found, "shards of shards.parquet, sorted and each once", _SEAL)
    except DatasetError as error:
        yield problem_of(error, "clips.parquet")


def _index(folder: Path, row: dict[str, Any]) -> Iterator[Problem]:
    """The index of a shard; None when it cannot be read."""
    path = index_path(folder, row["shard"], row["series"])
    name = f"index/{path.name}"
    if not path.exists():
        return None  # listed already
    found = sha256_file(path)
    if found != row["index_sha256"]:
        yield Problem(name, f"SHA-256 {found}", f"{row['index_sha256']} (shards.parquet)", _REBUILD)
    try:
        index = [IndexRow.from_row(entry) for entry in iter_rows(path, schema=INDEX)]
    except DatasetError as error:
        yield problem_of(error, name)
        return None
    if len(index) != row["clips"]:
        yield Problem(name, f"{len(index)} rows", f"{row['clips']} (shards.parquet)", _REBUILD)
    return index


def _clip_rows(folder: Path, shard: str, count: int | None) -> Iterator[Problem]:
    """The accepted rows of a shard by clip id, in tar order; None when they cannot be read.

    A parallel series needs the rows as well; they are checked once, with the RGB tar, whose ``count`` is given.
    """
    path = clips_path(folder, shard)
    if not path.exists():
        return None  # listed already
    try:
        rows = [row for row in iter_rows(path, schema=CLIPS) if row["status"] == "accepted"]
    except DatasetError as error:
        if count is not None:
            yield problem_of(error, f"clips/{path.name}")
        return None
    rows.sort(key=lambda row: row["position"])
    wrong = [row["position"] for row in rows] != list(range(count or 0)) or any(row["shard"] != shard for row in rows)
    if count is not None and wrong:
        found = f"{len(rows)} accepted rows at {[row['position'] for row in rows][:8]}"
        yield Problem(f"clips/{path.name}", found, f"{count} at 0, 1, 2 ... of {shard}", _REBUILD)
    return {row["clip_id"]: row for row in rows}


def _merged_rows(path: Path) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    if not path.exists():
        return iter(())
    rows = (row for row in iter_rows(path, schema=CLIPS) if row["status"] == "accepted")
    return itertools.groupby(rows, key=lambda row: row["shard"])


def _merged_problems(merged: Iterator[Any], shard: str, rows: dict[str, Any] | None) -> Iterator[Problem]:
    """clips.parquet against the packer's rows of one shard; labels may differ, facts may not."""
    name, group = next(merged, ("", iter(())))
    if name != shard:
        if rows:
            yield Problem("clips.parquet", f"{name!r} after the shards before", f"clips of {shard!r}", _SEAL)
        return
    found = list(group)
    if rows is None:
        return
    if [row["clip_id"] for row in found] != list(rows):
        yield Problem(
            "clips.parquet", f"{len(found)} clips of {shard}", f"{len(rows)}, the same in the order of the tar", _SEAL
        )
    for row in found:
        if row["clip_id"] in rows:
            differences = row_differences(row, rows[row["clip_id"]], f"clips/{shard}.parquet")
            yield from (Problem("clips.parquet", was, should, _SEAL) for was, should in differences)


def _count_problems(folder: Path, manifest: dict[str, Any], shards: list[dict[str, Any]]) -> Iterator[Problem]:
    try:
        # As JSON, so that both sides have the same types.
        counts = json.loads(json.dumps(clips_statistics(folder)))
        content = fingerprint(folder, shards)
        unknown = _unknown_assets(folder)
    except (DatasetError, OSError, pa.ArrowException) as error:
        yield Problem("dataset.json", f"tables that cannot be counted ({error})", "whole tables", _REPEAT)
        return
    stated = manifest.get("counts", {})
    for name in sorted(counts.keys() | stated.keys()):
        if counts.get(name) != stated.get(name):
            found = f"counts.{name} {stated.get(name)}"
            yield Problem("dataset.json", found, f"{counts.get(name)} as the tables have it", _SEAL)
    if content != manifest.get("fingerprint"):
        yield Problem("dataset.json", f"fingerprint {manifest.get('fingerprint')}", f"{content} from index/", _SEAL)
    if unknown:
        yield Problem("clips.parquet", f"asset {unknown!r}", "an asset of assets.parquet", _REPEAT)


def _unknown_assets(folder: Path) -> str:
    """An asset id that a clip names and assets.parquet does not have; "" when there is none."""
    known = [batch["asset_id"] for batch in iter_batches(folder / "assets.parquet", ["asset_id"])]
    ids = pa.chunked_array(known, pa.string()).combine_chunks()
    for batch in iter_batches(folder / "clips.parquet", ["asset_id"]):
        strange = batch["asset_id"].filter(pc.invert(pc.is_in(batch["asset_id"], value_set=ids)))
        if len(strange):
            return strange[0].as_py()
    return ""
