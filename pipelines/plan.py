"""Which clip goes where: from probed assets to an ordered list of clips in shards, in constant memory.

Clips are ordered by a keyed hash of their id, so that neighbours come from different assets, and dealt into shards when
the build is planned; a clip that fails later leaves its shard one smaller and changes no other. What was found of an
asset waits in a small JSON file, and a clip's full sample is put together only when its turn comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.clip import clip_id, json_name
from manifests.config import BuildConfig
from manifests.publish import write_bytes
from manifests.seeds import digest, uniform
from manifests.shards import shard_name
from manifests.tables import CLIPS, RowWriter, empty_row, iter_rows
from manifests.tar import check_name

__all__ = ["PLAN", "Probes", "draw_animations", "plan_clips", "rejected_rows", "split_of_asset", "waves"]

_BUCKETS = 64
_WAVE_CLIPS = 1024

PLAN = pa.schema(
    [
        ("clip_id", pa.string()),
        ("asset_id", pa.string()),
        ("asset_sha256", pa.string()),
        ("animation", pa.int32()),
        ("window", pa.int32()),
        ("split", pa.string()),
        ("shard", pa.string()),
    ]
)
"""One row a clip, shard by shard in the order of the tars."""


@dataclass(frozen=True)
class Probes:
    """What was found of each asset, one JSON file by content hash."""

    folder: Path

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}.json"

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def put(self, asset: dict[str, Any], found: dict[str, Any]) -> None:
        """Keep a probe's result with the asset's row."""
        text = json.dumps({"asset": asset, "found": found}, sort_keys=True)
        write_bytes(self.path(asset["sha256"]), text.encode())

    def get(self, sha256: str) -> dict[str, Any]:
        """``asset`` and ``found``."""
        return json.loads(self.path(sha256).read_bytes())


def split_of_asset(sha256: str, config: BuildConfig) -> str:
    """The split of an asset by its content, so that copies never cross."""
    draw, edge = uniform(0, 1, config.seed, sha256, "split"), 0.0
    shares = config.pack.shares()
    for name, share in shares.items():
        edge += share
        if draw < edge:
            return name
    return next(reversed(shares))


def draw_animations(found: dict[str, Any], sha256: str, config: BuildConfig) -> None:
    """Mark accepted animations beyond the maximum as ``not-drawn``, in place; which ones, the seed decides."""
    accepted = [entry for entry in found["animations"] if entry["status"] == "accepted"]
    accepted.sort(key=lambda entry: digest(config.seed, sha256, entry["index"], "animation"))
    for entry in accepted[config.motion.max_animations :]:
        entry |= {
            "status": "rejected",
            "reason": "not-drawn",
            "detail": f"{len(accepted)} animations are acceptable, expected at most {config.motion.max_animations} an "
            "asset and drew others; raise --max-animations",
        }


def rejected_rows(asset: dict[str, Any], found: dict[str, Any], config: BuildConfig) -> Iterator[dict[str, Any]]:
    """Rows of clips.parquet for the animations and windows of an asset that are not rendered."""
    for entry in found["animations"]:
        base = empty_row(CLIPS) | {
            **{name: asset[name] for name in ("asset_id", "license", "attribution")},
            "asset_sha256": asset["sha256"],
            "animation": entry["index"],
            "animation_name": entry["name"],
            "animation_duration_s": entry["duration_s"],
            "window": -1,
            "position": -1,
            "fps": config.motion.fps,
            "loops": 1,
            "time_scale": 1.0,
            "frames": config.motion.frames,
            "views": config.camera.views,
            "width": config.camera.size,
            "height": config.camera.size,
            "split": split_of_asset(asset["sha256"], config),
            "status": "rejected",
        }
        if entry["status"] == "rejected":
            motion = {f"motion_{name}": value for name, value in entry["motion"].items()}
            yield base | motion | {"reason": entry["reason"], "detail": entry["detail"]}
            continue
        for clip in entry["clips"]:
            if clip["status"] == "rejected":
                window = clip["window"]
                yield base | {
                    **{f"motion_{name}": value for name, value in clip["motion"].items()},
                    "clip_id": clip_id(asset["asset_id"], entry["index"], window["index"]),
                    "window": window["index"],
                    "window_start_s": window["start_s"],
                    "loops": window["loops"],
                    "time_scale": window["time_scale"],
                    "fps": window["fps"],
                    "reason": clip["reason"],
                    "detail": clip["detail"],
                }


def plan_clips(
    probed: Iterable[dict[str, Any]], config: BuildConfig, folder: Path, out: Path, *, first_shard: dict[str, int]
) -> dict[str, int]:
    """Order the accepted clips and deal them into shards.

    Args:
        probed: ``asset`` and ``found`` of each asset, animations already drawn.
        config: of the build.
        folder: for bucket files; removed again.
        out: the plan to write, columns of `PLAN`.
        first_shard: split -> number of its first new shard; 0 where absent.

    Returns:
        split -> number of clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits = list(config.pack.shares())
    buckets = {(split, b): folder / f"{split}-{b:02d}.jsonl" for split in splits for b in range(_BUCKETS)}
    for path in buckets.values():
        path.unlink(missing_ok=True)
    waiting: dict[tuple[str, int], list[str]] = {}
    for entry in probed:
        for split, order, row in _rows_of(entry["asset"], entry["found"], config):
            lines = waiting.setdefault((split, order[0] * _BUCKETS // 256), [])
            lines.append(json.dumps([order.hex(), row]))
            if len(lines) >= 256:
                _append(buckets, waiting)
    _append(buckets, waiting)
    counts = dict.fromkeys(splits, 0)
    with RowWriter(out, PLAN) as writer:
        for (split, _), path in buckets.items():  # bucket order is hash order
            if not path.exists():
                continue
            for _, row in sorted(json.loads(line) for line in path.read_text().splitlines()):
                number = first_shard.get(split, 0) + counts[split] // config.pack.clips_per_shard
                writer.write({**row, "split": split, "shard": shard_name(split, number)})
                counts[split] += 1
            path.unlink()
    return {split: count for split, count in counts.items() if count}


def waves(plan: Path, skip: set[str]) -> Iterator[list[tuple[str, list[dict[str, Any]]]]]:
    """Runs of whole shards, about a thousand clips each: (shard, rows) without the shards in `skip`."""
    wave: list[tuple[str, list[dict[str, Any]]]] = []
    for shard, rows in _shards(plan):
        if shard in skip:
            continue
        wave.append((shard, rows))
        if sum(len(rows) for _, rows in wave) >= _WAVE_CLIPS:
            yield wave
            wave = []
    if wave:
        yield wave


def _shards(plan: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rows: list[dict[str, Any]] = []
    for row in iter_rows(plan, schema=PLAN):
        if rows and rows[0]["shard"] != row["shard"]:
            yield rows[0]["shard"], rows
            rows = []
        rows.append(row)
    if rows:
        yield rows[0]["shard"], rows


def _rows_of(
    asset: dict[str, Any], found: dict[str, Any], config: BuildConfig
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """(split, order, plan row without split and shard) of each clip to render."""
    split = split_of_asset(asset["sha256"], config)
    for entry in found["animations"]:
        for clip in entry["clips"] if entry["status"] == "accepted" else []:
            if clip["status"] != "accepted":
                continue
            name = clip_id(asset["asset_id"], entry["index"], clip["window"]["index"])
            check_name(json_name(name))
            row = {
                "clip_id": name,
                "asset_id": asset["asset_id"],
                "asset_sha256": asset["sha256"],
                "animation": entry["index"],
                "window": clip["window"]["index"],
            }
            yield split, digest(config.seed, name, "order")[:12], row


def _append(buckets: dict[tuple[str, int], Path], waiting: dict[tuple[str, int], list[str]]) -> None:
    for key, lines in waiting.items():
        with open(buckets[key], "a") as file:
            file.writelines(line + "\n" for line in lines)
    waiting.clear()
