"""Probing without rendering: the table of every animation and window that assets have, accepted or not.

What `mvv clips` writes; the same probe, and so the same verdicts, as a build with the same config.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from manifests.config import BuildConfig, to_dict
from manifests.tables import CLIPS, RowWriter, empty_row, facts_of_sample
from pipelines.intake import assets_of, mark_duplicates
from pipelines.plan import draw_animations, rejected_rows, split_of_asset
from pipelines.pool import Task, blender, open_pool, run_stage
from pipelines.progress import Progress
from pipelines.samples import planned_sample

__all__ = ["survey"]


def survey(
    source: str | Path, out: str | Path, config: BuildConfig, options: Any, *, progress: Progress | None = None
) -> Counter[tuple[str, str]]:
    """Probe assets and write one row for each window, animation or refused asset.

    Args:
        source: a model, a folder, or an assets.parquet.
        out: the clips.parquet to write.
        config: of the build that it would be.
        options: `pipelines.build.RunOptions`; a single asset is probed in this process.
        progress: told what happens.

    Returns:
        (status, reason) -> rows.
    """
    told = progress or Progress()
    rows = list(assets_of(source))
    mark_duplicates(rows)
    by_hash = {row["sha256"]: row for row in rows if row["status"] == "accepted"}
    counts: Counter[tuple[str, str]] = Counter()
    values = to_dict(config)
    tasks = [Task(sha, "probe", {"path": row["uri"], "config": values}) for sha, row in by_hash.items()]
    workers = 0 if len(tasks) < 4 else options.workers
    factory = blender(options.isolation)
    with RowWriter(out, CLIPS) as writer, open_pool(workers, factory, options.ray_address) as pool:

        def put(row: dict[str, Any]) -> None:
            counts[row["status"], row["reason"]] += 1
            writer.write(row)

        for row in rows:
            if row["status"] != "accepted":
                put(_asset_row(row))
        told.stage("probe", len(tasks))
        results = {}
        for outcome in run_stage(pool, tasks, attempts=options.attempts):
            row = by_hash[outcome.task.name]
            if outcome.value is None:
                error = outcome.rejected or outcome.failed
                row |= {"status": "rejected" if outcome.rejected else "failed", "detail": error.detail}
                row["reason"] = outcome.rejected.reason if outcome.rejected else outcome.failed.cause
                told.trouble(f"{row['source']}: {row['detail']}", failed=outcome.failed is not None)
                results[row["sha256"]] = [_asset_row(row)]
            else:
                draw_animations(outcome.value, row["sha256"], config)
                results[row["sha256"]] = [
                    *_accepted_rows(row, outcome.value, config), *rejected_rows(row, outcome.value, config)
                ]  # fmt: skip
            told.advance()
        for sha in by_hash:  # in the order of the sources, whoever was faster
            for row in sorted(results[sha], key=lambda row: (row["animation"], row["window"])):
                put(row)
    return counts


def _accepted_rows(asset: dict[str, Any], found: dict[str, Any], config: BuildConfig) -> list[dict[str, Any]]:
    rows = []
    for entry in found["animations"]:
        for clip in entry["clips"] if entry["status"] == "accepted" else []:
            if clip["status"] == "accepted":
                facts = facts_of_sample(planned_sample(asset, entry, clip, config))
                extra = {name: asset[name] for name in ("license", "attribution")}
                split = split_of_asset(asset["sha256"], config)
                rows.append(empty_row(CLIPS) | facts | extra | {"split": split, "position": -1, "status": "accepted"})
    return rows


def _asset_row(asset: dict[str, Any]) -> dict[str, Any]:
    """A whole asset that is refused: animation -1, window -1."""
    row = empty_row(CLIPS) | {"animation": -1, "window": -1, "position": -1, "asset_sha256": asset["sha256"]}
    return row | {name: asset[name] for name in ("asset_id", "license", "attribution", "status", "reason", "detail")}
