"""The figures of a dataset, counted from its tables: what dataset.json, the card and `mvv report` print.

Counted by streaming aggregation: memory grows with the number of animations and assets, never with clips or images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import acero

from manifests.shards import index_path, read_shards
from manifests.tables import iter_batches

__all__ = ["clips_statistics", "fingerprint"]


def clips_statistics(folder: Path | str) -> dict[str, Any]:
    """Counts of a dataset from assets.parquet, clips.parquet and shards.parquet.

    Returns:
        models (assets with a clip), animations (that are shown), animations_per_model {mean, max}, clips,
        multi_view_videos (clips x views, as MV-Video counts), images, assets {status: rows},
        rejected {assets, clips} each {reason: rows}, failed {cause: rows}, splits and licenses {name: clips},
        shards (RGB tars), bytes (all tars).
    """
    folder = Path(folder)
    clips = folder / "clips.parquet"
    accepted = ds.field("status") == "accepted"
    by_animation = _count(clips, ["asset_id", "animation"], accepted)
    models = len({row["asset_id"] for row in by_animation})
    per_model: dict[str, int] = {}
    for row in by_animation:
        if row["animation"] >= 0:  # an object at rest is a clip, not an animation
            per_model[row["asset_id"]] = per_model.get(row["asset_id"], 0) + 1
    videos = images = 0
    for row in _count(clips, ["views", "frames"], accepted):
        videos += row["views"] * row["rows"]
        images += row["views"] * row["frames"] * row["rows"]
    shards = read_shards(folder)
    return {
        "models": models,
        "animations": sum(per_model.values()),
        "animations_per_model": {
            "mean": round(sum(per_model.values()) / max(len(per_model), 1), 4),
            "max": max(per_model.values(), default=0),
        },
        "clips": sum(row["rows"] for row in by_animation),
        "multi_view_videos": videos,
        "images": images,
        "assets": _counts(folder / "assets.parquet", "status", None),
        "rejected": {
            "assets": _counts(folder / "assets.parquet", "reason", ds.field("status") == "rejected"),
            "clips": _counts(clips, "reason", ds.field("status") == "rejected"),
        },
        "failed": _counts(clips, "reason", ds.field("status") == "failed"),
        "splits": _counts(clips, "split", accepted),
        "licenses": _counts(clips, "license", accepted),
        "shards": sum(row["series"] == "" for row in shards),
        "bytes": sum(row["bytes"] for row in shards),
    }


def fingerprint(folder: Path | str, shards: Iterable[dict[str, Any]]) -> str:
    """SHA-256 over the lines ``clip_id sha256`` of the RGB samples, sorted: equal for equal content, however sharded.

    Holds the two strings of every clip, about 110 bytes each, because the order is by clip and not by shard.
    """
    batches = []
    for row in shards:
        if row["series"] == "":
            batches += iter_batches(index_path(folder, row["shard"]), ["clip_id", "sha256"])
    digest = hashlib.sha256()
    if batches:
        table = pa.Table.from_batches(batches)
        # Indices and slices: a sorted copy would double the memory.
        order = pc.sort_indices(table, [("clip_id", "ascending"), ("sha256", "ascending")]).to_numpy()
        for start in range(0, len(order), 4096):
            part = table.take(np.asarray(order[start : start + 4096]))
            for clip_id, sha256 in zip(part["clip_id"].to_pylist(), part["sha256"].to_pylist(), strict=True):
                digest.update(f"{clip_id} {sha256}\n".encode())
    return digest.hexdigest()


def _count(path: Path, keys: Sequence[str], where: pc.Expression | None) -> list[dict[str, Any]]:
    """Rows per combination of keys, as dicts of the keys and ``rows``, sorted by the keys."""
    table = ds.dataset(path, format="parquet")
    names = list(dict.fromkeys([*keys, "status"]))
    scan = acero.Declaration(
        "scan", acero.ScanNodeOptions(table, columns={name: ds.field(name) for name in names}, filter=where)
    )
    steps = [scan]
    if where is not None:
        # The scan's filter only skips row groups; the rows are filtered here.
        steps.append(acero.Declaration("filter", acero.FilterNodeOptions(where)))
    options = acero.AggregateNodeOptions([("status", "hash_count", None, "rows")], keys=list(keys))
    steps.append(acero.Declaration("aggregate", options))
    rows = acero.Declaration.from_sequence(steps).to_table(use_threads=False).to_pylist()
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def _counts(path: Path, key: str, where: pc.Expression | None) -> dict[str, int]:
    return {row[key]: row["rows"] for row in _count(path, [key], where)}
