"""The last step of a build: merges the tables and describes the dataset in dataset.json, README.md and croissant.json.

`finish` merges what the pipelines left and then calls `seal`; `seal` alone is for stages that changed a table
(captions, splits) or added a parallel series. Both can be repeated, and the same tables give the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.card import card
from manifests.croissant import croissant
from manifests.dataset import SCHEMA, read_manifest
from manifests.errors import DatasetError
from manifests.publish import sha256_file, write_bytes
from manifests.shards import clips_path, read_shards
from manifests.statistics import clips_statistics, fingerprint
from manifests.tables import ASSETS, CLIPS, RowWriter, iter_batches, merge

__all__ = ["RGB", "SEALED_TABLES", "config_sha256", "cpu_features", "finish", "seal", "to_json"]

RGB = {
    "series": "",
    "suffix": "webp",
    "dtype": "uint8",
    "channels": 4,
    "unit": "sRGB-encoded, straight alpha, RGB = 0 where alpha = 0",
}
"""Modality ``rgb``. Further ones have ``series`` (their name), ``suffix``, ``dtype``, ``channels``, ``unit`` and, where
they apply, ``scale`` and ``offset`` (value = stored * scale + offset), ``invalid`` (the stored value for none), and
``height`` and ``width`` where they are not those of the images."""

SEALED_TABLES = ("assets.parquet", "clips.parquet", "shards.parquet")


def finish(
    folder: Path | str,
    *,
    config: dict[str, Any],
    tools: dict[str, str],
    rejected: Sequence[Path | str] = (),
    assets: Sequence[Path | str] = (),
    modalities: dict[str, dict[str, Any]] | None = None,
    cpu: Sequence[str] | None = None,
    name: str = "",
) -> dict[str, Any]:
    """Merges the tables of a build and seals the dataset.

    Args:
        folder: the dataset; ``clips/`` and ``shards.parquet`` are there.
        config: the whole config of the build, as JSON values.
        tools: tool -> version, of everything that decides the bytes.
        rejected: tables of rejected animations and windows (columns of CLIPS).
        assets: tables to merge into assets.parquet; none means that it is there already.
        modalities: parallel series by name, see `RGB`; None is RGB alone.
        cpu: features of the machines that rendered; None is this machine's.
        name: of the dataset; empty is the folder's.

    Returns:
        what dataset.json says.

    Raises:
        DatasetError: a committed shard without its rows, or a damaged table.
    """
    folder = Path(folder)
    if assets:
        merge(assets, folder / "assets.parquet", ASSETS)
    if not (folder / "shards.parquet").exists():
        raise DatasetError(
            f"{folder}: found no shards.parquet, expected committed shards; repeat the build, or commit([]) when every"
            " clip was rejected"
        )
    shards = [row["shard"] for row in read_shards(folder) if row["series"] == ""]
    _merge_clips(folder, shards, rejected)
    manifest = {
        "schema": SCHEMA,
        "name": name or folder.resolve().name,
        "config": config,
        "config_sha256": config_sha256(config),
        "tools": tools,
        "cpu": sorted(cpu_features() if cpu is None else cpu),
        "modalities": {"rgb": RGB, **(modalities or {})},
    }
    return seal(folder, manifest)


def seal(folder: Path | str, manifest: dict[str, Any] | None = None) -> dict[str, Any]:
    """Counts anew and writes croissant.json, README.md and last dataset.json.

    Args:
        folder: the dataset with its merged tables.
        manifest: the part of dataset.json that is not counted; None keeps what dataset.json says.

    Returns:
        what dataset.json says now.
    """
    folder = Path(folder)
    base = read_manifest(folder) if manifest is None else manifest
    shards = read_shards(folder)
    sealed = {
        **base,
        "counts": clips_statistics(folder),
        "fingerprint": fingerprint(folder, shards),
        "tables": {table: sha256_file(folder / table) for table in SEALED_TABLES},
    }
    write_bytes(folder / "croissant.json", to_json(croissant(sealed, shards)))
    write_bytes(folder / "README.md", card(sealed).encode())
    write_bytes(folder / "dataset.json", to_json(sealed))
    return sealed


def to_json(value: dict[str, Any]) -> bytes:
    """JSON with sorted keys, indented for people; equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def config_sha256(config: dict[str, Any]) -> str:
    """SHA-256 (hex) of a config as compact JSON with sorted keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def cpu_features() -> list[str]:
    """Instruction sets of this machine that renderers choose their code by; the bytes are promised for equal ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    kept = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "asimd", "neon", "sve")
    return sorted({flag for flag in flags if flag.startswith(kept)})


def _merge_clips(folder: Path, shards: Sequence[str], rejected: Iterable[Path | str]) -> None:
    """clips.parquet: accepted clips in (split, shard, position) order, then failed, then rejected ones."""
    accepted = pc.field("status") == "accepted"
    with RowWriter(folder / "clips.parquet", CLIPS) as writer:
        for shard in shards:
            # At most clips_per_shard rows.
            table = pa.Table.from_batches(iter_batches(_existing(folder, shard), schema=CLIPS), CLIPS)
            for batch in table.filter(accepted).sort_by("position").to_batches():
                writer.write_batch(batch)
        # By the files and not by the shards: one in which every clip failed has rows and no tar.
        for path in sorted((folder / "clips").glob("*.parquet")):
            for batch in iter_batches(path, schema=CLIPS):
                writer.write_batch(batch.filter(~accepted))
        for path in rejected:
            for batch in iter_batches(path, schema=CLIPS):
                writer.write_batch(batch)


def _existing(folder: Path, shard: str) -> Path:
    path = clips_path(folder, shard)
    if not path.exists():
        raise DatasetError(f"{path}: found no file, expected the rows of a committed shard; repeat the build")
    return path
