"""The main job: assets in, a dataset out; stopped at any point, the same command goes on where it was.

Stages: intake (hash), probe (what clips an asset gives), plan (which clip goes where), then wave by wave render (staged
parts) and pack (shards, committed), and at the end the tables are merged and the dataset described. All state lies in
``DATASET/.build``, every step is repeatable, and nothing that is committed is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from manifests.config import BuildConfig, differences, to_dict
from manifests.errors import DatasetError, Failed, InputError, refusal
from manifests.finish import finish
from manifests.publish import sweep, write_bytes
from manifests.shards import (
    clips_path,
    commit,
    index_path,
    read_shards,
    shard_path,
    split_of,
    write_clip_rows,
    write_shard,
)
from manifests.tables import ASSETS, CLIPS, INDEX, empty_row, facts_of_sample, iter_rows, write_rows
from manifests.tar import BLOCK, IndexRow, padded, read_at
from pipelines.intake import SUFFIXES, assets_of, mark_duplicates, scan
from pipelines.lock import Lock
from pipelines.plan import Probes, draw_animations, plan_clips, rejected_rows, waves
from pipelines.pool import Outcome, Pool, Task, blender, open_pool, run_stage
from pipelines.progress import Progress
from pipelines.samples import planned_sample
from pipelines.staging import Staged, Staging
from render.process import Isolation
from render.series import SERIES

__all__ = ["RunOptions", "Summary", "build"]

_WORK = ".build"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the work is run; nothing here changes a byte of the result."""

    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Blender processes at a time; 0 runs in this process without Ray."""
    ray_address: str = ""
    """Address of a running Ray cluster, e.g. `auto` or `ray://head:10001`; empty starts an embedded one."""
    threads: int = 1
    """Render threads of each Blender process; one each is the fastest use of a machine."""
    attempts: int = 3
    """How often a clip that fails is tried in all."""
    append: bool = False
    """Add assets that are not in the dataset yet, as new shards."""
    retry_failed: bool = False
    """Try failed clips and assets again and write their shards anew."""
    accept_failures: bool = False
    """Publish shards without retrying the clips that fail."""
    isolation: Isolation = field(default_factory=Isolation)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"--workers: found {self.workers}, expected 0 or more")
        if self.attempts < 1 or self.threads < 1:
            raise InputError(f"--attempts, --threads: found {self.attempts}, {self.threads}, expected at least 1")


@dataclass(frozen=True)
class Summary:
    """What a build came to."""

    folder: Path
    counts: dict[str, Any]
    """As in dataset.json."""
    rendered: int
    """Clips rendered by this run."""
    images: int
    """Images rendered by this run."""
    seconds: float
    finished_before: bool
    """Whether there was nothing to do."""

    @property
    def failed(self) -> int:
        """Assets and clips in state `failed`."""
        return sum(self.counts["failed"].values()) + self.counts["assets"].get("failed", 0)


def build(
    source: str | Path, out: str | Path, config: BuildConfig, options: RunOptions, *, pose: str = "",
    progress: Progress | None = None,
) -> Summary:  # fmt: skip
    """Build a dataset, or go on with it.

    Args:
        source: a model, a folder of models, or an assets.parquet.
        out: the dataset's folder.
        config: what to make; must be that of the dataset where it exists.
        options: how to run it.
        pose: empty for clips of animations, else the still's pose (see `render.probe.probe_still`).
        progress: told what happens.

    Raises:
        InputError: bad arguments, inputs or another config.
        DatasetError: another driver is at work, or the folder holds something else.
        StorageError: the disk is full or refuses; nothing made is lost.
    """
    folder = Path(out).absolute()  # the render processes have working folders of their own
    work = folder / _WORK
    try:
        if folder.exists() and not work.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: found other files, expected an empty folder or a dataset of this tool")
        with Lock(work):
            return _Build(folder, config, options, pose, progress or Progress()).run(source)
    except OSError as error:
        told = refusal(error)
        if told is None:
            raise
        raise told from error


class _Build:
    def __init__(self, folder: Path, config: BuildConfig, options: RunOptions, pose: str, progress: Progress) -> None:
        self.folder, self.work = folder, folder / _WORK
        self.config, self.options, self.pose, self.progress = config, options, pose, progress
        self.values = to_dict(config)
        self.probes = Probes(self.work / "probes")
        self.series = tuple(name for name in SERIES if getattr(config.render, name))
        self.rendered = self.images = 0
        self._pool: Pool | None = None
        self._stack = contextlib.ExitStack()

    def run(self, source: str | Path) -> Summary:
        began = time.monotonic()
        sweep(self.folder)
        self.state = self._read_state()
        with self._stack:
            self._intake(source)
            for number, generation in enumerate(self.state["generations"]):
                if not generation["planned"]:
                    self._probe(number)
                    self._plan(number)
            if self.options.retry_failed:
                self._reopen_failed()
            worked = self._render_and_pack()
            finished = self._is_finished() and not worked
            manifest = self._manifest() if finished else self._finish()
        return Summary(self.folder, manifest["counts"], self.rendered, self.images, time.monotonic() - began, finished)

    # -- state ----------------------------------------------------------------------------------------------------

    def _read_state(self) -> dict[str, Any]:
        path = self.work / "state.json"
        if not path.exists():
            return {"config": self.values, "pose": self.pose, "tools": {}, "generations": [], "reopened": []}
        state = json.loads(path.read_bytes())
        changed = differences({**self.values, "pose": self.pose}, {**state["config"], "pose": state["pose"]})
        if changed and not any(generation["planned"] for generation in state["generations"]):
            shutil.rmtree(self.work / "probes", ignore_errors=True)  # nothing was made of the other config yet
            return {**state, "config": self.values, "pose": self.pose, "generations": []}
        if changed:
            raise InputError(
                f"{self.folder}: found a dataset of another config, expected the same; "
                f"{'; '.join(changed)} (there = in the dataset); build into another folder or repeat its own command"
            )
        return state

    def _write_state(self) -> None:
        write_bytes(self.work / "state.json", json.dumps(self.state, indent=1).encode())

    def _file(self, kind: str, number: int) -> Path:
        return self.work / f"{kind}-{number:03d}.parquet"

    def _tables(self, kind: str) -> list[Path]:
        return [self._file(kind, number) for number in range(len(self.state["generations"]))]

    def _is_finished(self) -> bool:
        return (self.folder / "dataset.json").exists() and self.state.get("sealed", False)

    def _manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "dataset.json").read_bytes())

    @property
    def pool(self) -> Pool:
        """Started only when there is work for it."""
        if self._pool is None:
            options = self.options
            opened = open_pool(options.workers, blender(options.isolation), options.ray_address)
            self._pool = self._stack.enter_context(opened)
        return self._pool

    # -- intake and probe -----------------------------------------------------------------------------------------

    def _intake(self, source: str | Path) -> None:
        """Open a generation for what is new."""
        old = [row for path in self._tables("assets") for row in iter_rows(path, schema=ASSETS)]
        known = {row["uri"]: row for row in old}
        if self.pose:
            rows = list(scan([source], known=known, suffixes=(*SUFFIXES, ".obj")))
        else:
            rows = list(assets_of(source, known=known))
        settled = {(row["source"], row["sha256"]) for row in old}
        if self.options.retry_failed:
            settled -= {(row["source"], row["sha256"]) for row in old if row["status"] == "failed"}
        generations = self.state["generations"]
        if generations and not generations[-1]["planned"]:
            settled -= {(row["source"], row["sha256"]) for row in iter_rows(self._tables("assets")[-1], schema=ASSETS)}
        new = [row for row in rows if (row["source"], row["sha256"]) not in settled]
        if not new:
            return
        again = {(row["source"], row["sha256"]) for row in old if row["status"] == "failed"}
        added = [row for row in new if (row["source"], row["sha256"]) not in again]
        planned = [generation for generation in generations if generation["planned"]]
        if planned and added and not self.options.append:
            names = ", ".join(row["source"] for row in added[:5])
            raise InputError(
                f"{source}: found {len(added)} assets that are not in {self.folder} "
                f"({names}{' ...' * (len(added) > 5)}), expected those of the first run; add them with --append"
            )
        before = (row for path in self._tables("assets")[: len(planned)] for row in iter_rows(path, schema=ASSETS))
        mark_duplicates(new, {row["sha256"]: row["source"] for row in before if row["status"] == "accepted"})
        if not generations or generations[-1]["planned"]:
            generations.append({"planned": False})
        write_rows(self._file("assets", len(generations) - 1), new, ASSETS)
        self.state["sealed"] = False
        self._write_state()
        # A failed asset that is tried again has one row only. Last, so that a kill in between loses no row.
        names = {(row["source"], row["sha256"]) for row in new}
        for path in self._tables("assets")[:-1]:
            rows = list(iter_rows(path, schema=ASSETS))
            kept = [row for row in rows if (row["source"], row["sha256"]) not in names]
            if len(kept) < len(rows):
                write_rows(path, kept, ASSETS)

    def _probe(self, number: int) -> None:
        """Fill the rows of a generation's assets, and `self.probes`."""
        rows = list(iter_rows(self._file("assets", number), schema=ASSETS))
        waiting = {row["sha256"]: row for row in rows if row["status"] != "rejected"}
        self.progress.stage("probe", len(waiting), sum(sha in self.probes for sha in waiting))
        tasks = (
            Task(sha, "probe", {"path": row["uri"], "config": self.values, "pose": self.pose})
            for sha, row in waiting.items()
            if sha not in self.probes
        )
        for outcome in run_stage(self.pool, tasks, attempts=self._attempts) if waiting else ():
            if len(rows) == 1 and outcome.rejected is not None and outcome.rejected.reason == "no-such-pose":
                raise InputError(outcome.rejected.detail)
            self._probed(waiting[outcome.task.name], outcome)
        for sha, row in waiting.items():
            if sha in self.probes:
                found = self.probes.get(sha)["found"]
                row |= {"vertices": found["vertices"], "triangles": found["triangles"], "status": "accepted"}
                row |= {"animations": len(found["animations"]), "reason": "", "detail": ""}
        write_rows(self._file("assets", number), sorted(rows, key=lambda row: row["source"]), ASSETS)

    def _probed(self, row: dict[str, Any], outcome: Outcome) -> None:
        if outcome.rejected is not None:
            row |= {"status": "rejected", "reason": outcome.rejected.reason, "detail": outcome.rejected.detail}
        elif outcome.failed is not None:
            row |= {"status": "failed", "reason": outcome.failed.cause, "detail": _told(outcome.failed)}
        elif outcome.value["sha256"] != row["sha256"]:
            detail = (
                f"found sha256 {outcome.value['sha256'][:12]}, expected {row['sha256'][:12]}; scan the assets again"
            )
            row |= {"status": "failed", "reason": "error", "detail": detail}
        else:
            draw_animations(outcome.value, row["sha256"], self.config)
            self.probes.put(row, outcome.value)
        if row["status"] != "accepted":
            self.progress.trouble(f"{row['source']}: {row['detail']}", failed=row["status"] == "failed")
        self.progress.advance()

    def _plan(self, number: int) -> None:
        rows = [row for row in iter_rows(self._file("assets", number), schema=ASSETS) if row["status"] == "accepted"]
        refused = (
            refused
            for row in rows
            for refused in rejected_rows(row, self.probes.get(row["sha256"])["found"], self.config)
        )
        write_rows(self._file("rejected", number), refused, CLIPS)
        first: dict[str, int] = {}
        for path in self._tables("plan")[:number]:
            for row in iter_rows(path, columns=["shard"]):
                split, index = split_of(row["shard"])
                first[split] = max(first.get(split, 0), index + 1)
        probed = (self.probes.get(row["sha256"]) for row in rows)
        counts = plan_clips(probed, self.config, self.work / "buckets", self._file("plan", number), first_shard=first)
        self.state["generations"][number] = {"planned": True, "assets": len(rows), "clips": sum(counts.values())}
        self._write_state()

    # -- render and pack ------------------------------------------------------------------------------------------

    def _render_and_pack(self) -> bool:
        """Whether there was anything to do."""
        committed = self._committed()
        plans = [path for path in self._tables("plan") if path.exists()]
        todo = [wave for path in plans for wave in _sizes(path, committed)]
        if not todo:
            return False
        self.state["sealed"] = False
        self._check_tools()
        self._write_state()
        staging = self._staging()
        self.progress.stage("render", sum(todo))
        for path in plans:
            for wave in waves(path, committed):
                self._wave(wave, staging)
        return True

    def _committed(self) -> set[str]:
        """Shards that are whole, all series."""
        found: dict[str, set[str]] = {}
        for row in read_shards(self.folder):
            files = (
                shard_path(self.folder, row["shard"], row["series"]),
                index_path(self.folder, row["shard"], row["series"]),
                clips_path(self.folder, row["shard"]),
            )
            if all(file.exists() for file in files) and files[0].stat().st_size == row["bytes"]:
                found.setdefault(row["shard"], set()).add(row["series"])
        whole = {"", *self.series}
        return {shard for shard, series in found.items() if series >= whole} - set(self.state["reopened"])

    def _check_tools(self) -> None:
        """The versions that decide bytes: those of the first run, or an error."""
        [outcome] = run_stage(self.pool, [Task("versions", "versions", {})], attempts=self._attempts)
        if outcome.failed is not None:
            raise DatasetError(
                f"Blender: found {outcome.failed} ({outcome.failed.log.splitlines()[-1:]}), expected bpy to start; "
                "see `mvv doctor`"
            )
        tools = {"mvvideo": version("mvvideo"), **outcome.value}
        changed = differences(tools, self.state["tools"]) if self.state["tools"] else []
        if changed:
            raise DatasetError(
                f"{self.folder}: found other tools than it was begun with ({'; '.join(changed)}), expected equal ones, "
                "or its bytes would differ; install those versions or build into another folder"
            )
        self.state["tools"] = tools

    def _wave(self, wave: list[tuple[str, list[dict[str, Any]]]], staging: Staging) -> None:
        staged: dict[str, Staged] = {}
        tasks = self._render_tasks(wave, staging, staged)
        for outcome in run_stage(self.pool, tasks, attempts=self._attempts):
            self._note(staged[outcome.task.name], outcome)
        ready = []
        for shard, rows in wave:
            clip_rows = [self._clip_row(row, staged[row["clip_id"]]) for row in rows]
            accepted = [row for row in clip_rows if row["status"] == "accepted"]
            for position, row in enumerate(accepted):
                row["position"] = position
            parts = [staged[row["clip_id"]] for row in accepted]
            ready.append((shard, accepted + [row for row in clip_rows if row["status"] != "accepted"], parts))
        pack = [
            Task(f"{shard}.{series}", "pack", {
                "folder": str(self.folder), "shard": shard, "series": series,
                "parts": [str(part.part(series)) for part in parts],
            })
            for shard, _, parts in ready if parts
            for series in ("", *self.series)
        ]  # fmt: skip
        committed = []
        for outcome in run_stage(self.pool, pack, attempts=self._attempts):
            if outcome.value is None:
                raise outcome.failed or outcome.rejected or AssertionError(outcome)
            committed.append(outcome.value)
        for shard, rows, parts in ready:
            write_clip_rows(self.folder, shard, rows)
            if not parts:  # every clip failed: an empty tar keeps the numbering without a gap
                committed += [_empty_shard(self.folder, shard, series) for series in ("", *self.series)]
        commit(self.folder, committed)
        self.state["reopened"] = [shard for shard in self.state["reopened"] if shard not in {s for s, _, _ in ready}]
        self._write_state()
        for entry in staged.values():
            entry.forget()

    def _render_tasks(
        self, wave: list[tuple[str, list[dict[str, Any]]]], staging: Staging, staged: dict[str, Staged]
    ) -> list[Task]:
        """Clips of a wave that are not staged, by asset; `staged` is filled for all of them."""
        rows = sorted((row for _, rows in wave for row in rows), key=lambda row: (row["asset_sha256"], row["clip_id"]))
        sha, entry = "", {}
        images = self.config.camera.views * (1 if self.pose else self.config.motion.frames)
        tasks = []
        for row in rows:
            if row["asset_sha256"] != sha:
                sha = row["asset_sha256"]
                entry = self._probe_of(sha)
            animation, clip = _find(entry["found"], row)
            planned = planned_sample(entry["asset"], animation, clip, self.config)
            place = staged[row["clip_id"]] = staging.of(planned)
            outcome = place.outcome()
            if outcome is not None and not (outcome["status"] == "failed" and self.options.retry_failed):
                self.progress.advance()
                continue
            arguments = {
                "path": entry["asset"]["uri"], "sample": planned, "config": self.values,
                "source_animation": animation.get("source_animation", animation["index"]),
                "offsets": clip["offsets"], "threads": self.options.threads,
                "out": {series: str(place.part(series)) for series in ("", *self.series)},
            }  # fmt: skip
            tasks.append(Task(row["clip_id"], "render", arguments, affinity=sha))
        self._images_a_clip = images
        return tasks

    def _probe_of(self, sha256: str) -> dict[str, Any]:
        """A probe's result, found again where an earlier run has cleaned up."""
        if sha256 not in self.probes:
            rows = (row for path in self._tables("assets") for row in iter_rows(path, schema=ASSETS))
            asset = next(row for row in rows if row["sha256"] == sha256 and row["status"] == "accepted")
            task = Task(sha256, "probe", {"path": asset["uri"], "config": self.values, "pose": self.pose})
            [outcome] = run_stage(self.pool, [task], attempts=self._attempts)
            if outcome.value is None:
                raise outcome.failed or outcome.rejected or AssertionError(outcome)
            draw_animations(outcome.value, sha256, self.config)
            self.probes.put(asset, outcome.value)
        return self.probes.get(sha256)

    def _note(self, place: Staged, outcome: Outcome) -> None:
        note = {"status": "accepted", "reason": "", "detail": "", "seconds": 0.0, "attempts": outcome.attempts}
        images = 0
        if outcome.rejected is not None:
            note |= {"status": "rejected", "reason": outcome.rejected.reason, "detail": outcome.rejected.detail}
        elif outcome.failed is not None:
            note |= {"status": "failed", "reason": outcome.failed.cause, "detail": _told(outcome.failed)}
        else:
            note["seconds"] = outcome.value["seconds"]
            images = self._images_a_clip
            self.rendered += 1
            self.images += images
        if note["status"] != "accepted":
            self.progress.trouble(f"{outcome.task.name}: {note['detail']}", failed=note["status"] == "failed")
        place.write_note(**note)
        self.progress.advance(1, images)

    def _clip_row(self, planned: dict[str, Any], place: Staged) -> dict[str, Any]:
        outcome = place.outcome()
        if outcome is None:
            raise DatasetError(f"{place.part()}: found a damaged part after rendering; repeat the same command")
        entry = self.probes.get(planned["asset_sha256"])
        if outcome["status"] == "accepted":
            sample = place.sample()
        else:
            animation, clip = _find(entry["found"], planned)
            sample = planned_sample(entry["asset"], animation, clip, self.config)
        row = empty_row(CLIPS) | facts_of_sample(sample)
        row |= {name: planned[name] for name in ("split", "shard")} | {"position": -1}
        row |= {name: entry["asset"][name] for name in ("license", "attribution")}
        return row | {name: outcome[name] for name in ("status", "reason", "detail", "seconds", "attempts")}

    # -- the end --------------------------------------------------------------------------------------------------

    def _reopen_failed(self) -> None:
        """Shards with failed clips are written anew; their good clips are copied out of the tar, not rendered."""
        reopened = set(self.state["reopened"])
        staging = self._staging()
        for shard in sorted(self._committed()):
            rows = list(iter_rows(clips_path(self.folder, shard), schema=CLIPS))
            if not any(row["status"] == "failed" for row in rows):
                continue
            for row in rows:
                if row["status"] == "accepted":
                    entry = self._probe_of(row["asset_sha256"])
                    animation, clip = _find(entry["found"], row)
                    place = staging.of(planned_sample(entry["asset"], animation, clip, self.config))
                    _copy_out(self.folder, shard, row, place)
            reopened.add(shard)
        self.state["reopened"] = sorted(reopened)
        self._write_state()

    def _finish(self) -> dict[str, Any]:
        self.progress.note("merging tables")
        if not (self.folder / "shards.parquet").exists():
            commit(self.folder, [])
        tools = self.state["tools"] or {"mvvideo": version("mvvideo")}
        manifest = finish(
            self.folder,
            config={**self.values, "pose": self.pose},
            tools=tools,
            rejected=self._tables("rejected"),
            assets=self._tables("assets"),
            modalities={**self._foreign_modalities(), **{name: SERIES[name] for name in self.series}},
        )
        for name in ("staging", "probes", "buckets"):
            shutil.rmtree(self.work / name, ignore_errors=True)
        self.state["sealed"] = True
        self._write_state()
        return manifest

    def _foreign_modalities(self) -> dict[str, dict[str, Any]]:
        """Series that other commands added and whose tars are listed; they still lack the shards that are new."""
        if not (self.folder / "dataset.json").exists():
            return {}
        listed = {row["series"] for row in read_shards(self.folder)}
        known = self._manifest()["modalities"]
        return {name: how for name, how in known.items() if how["series"] in listed - {"", *SERIES}}

    def _staging(self) -> Staging:
        """Where clips wait to be packed; the tools have to be known."""
        identity = {"render": self.values["render"], "webp": self.config.pack.webp_method, "tools": self.state["tools"]}
        return Staging(self.work / "staging", identity, self.series)

    @property
    def _attempts(self) -> int:
        return 1 if self.options.accept_failures else self.options.attempts


def _find(found: dict[str, Any], row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    animation = next(entry for entry in found["animations"] if entry["index"] == row["animation"])
    return animation, next(clip for clip in animation["clips"] if clip["window"]["index"] == row["window"])


def _told(failed: Failed) -> str:
    """For a table: what happened, then the last lines of the log."""
    return f"{failed.phase}: {failed.detail}\n{failed.log}".strip()


def _sizes(plan: Path, committed: set[str]) -> Iterator[int]:
    counts = Counter(row["shard"] for row in iter_rows(plan, columns=["shard"]))
    yield from (count for shard, count in counts.items() if shard not in committed)


def _copy_out(folder: Path, shard: str, row: dict[str, Any], place: Staged) -> None:
    """Stage a clip's members as they lie in a tar."""
    for series in ("", *place.series):
        rows = iter_rows(index_path(folder, shard, series), schema=INDEX)
        index = next(IndexRow.from_row(entry) for entry in rows if entry["clip_id"] == row["clip_id"])
        begin = (index.json_offset if index.json_offset >= 0 else index.first_frame_offset) - BLOCK
        size = sum(BLOCK + padded(size) for size in index.sizes)
        place.part(series).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place.part(series), read_at(shard_path(folder, shard, series), begin, size))
    place.write_note(status="accepted", reason="", detail="", seconds=row["seconds"], attempts=row["attempts"])


def _empty_shard(folder: Path, shard: str, series: str) -> dict[str, Any]:
    return write_shard(folder, shard, [], series=series)
