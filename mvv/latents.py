"""`mvv latents`: the latent cache of `train.latents`, made on the worker pools of `pipelines`.

Adds the series to a dataset, or to a copy of it that shares the images by hard links. Stopped at any point, the same
command goes on; a shard that is committed is not made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.dataset import read_manifest
from manifests.errors import DatasetError, InputError
from manifests.finish import seal
from manifests.publish import attempt, sweep, write_bytes
from manifests.shards import commit, index_path, read_shards, shard_path

if TYPE_CHECKING:
    from pipelines.progress import Progress

__all__ = ["LatentsOptions", "LatentsSummary", "make_latents"]

_BUILD = ".build"
_GREY = (0.5, 0.5, 0.5)
_COMMIT_S = 5.0
"""Between commits, which write the whole table of shards; what a kill costs is at most this and what was in flight."""


@dataclass(frozen=True, kw_only=True)
class LatentsOptions:
    """What is encoded, and by how many."""

    size: int = 0
    """Height and width that images are resized to, pixels; 0 is that of the VAE's pipeline, else of the images."""
    background: tuple[float, float, float] | None = None
    """Behind the object, sRGB-encoded 0 to 1, as it will be trained with; by default that of the VAE's pipeline, else
    0.5 grey."""
    workers: int = -1
    """Processes at a time; 0 works in this one without Ray, -1 is one for each GPU, or each core without one."""
    ray_address: str = ""
    """Address of a running Ray cluster; empty starts an embedded one."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    gpus_per_worker: float = -1.0
    """GPUs that Ray reserves for each worker, a fraction shares one; -1 is 1 on a GPU, else 0."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InputError(f"--size: found {self.size}, expected pixels, or 0 for those of the images")
        if self.workers < -1:
            raise InputError(f"--workers: found {self.workers}, expected -1 or more")
        if self.gpus_per_worker < 0 and self.gpus_per_worker != -1:
            raise InputError(f"--gpus-per-worker: found {self.gpus_per_worker}, expected 0 or more, or -1")


@dataclass(frozen=True)
class LatentsSummary:
    """What a run came to."""

    folder: Path
    modality: dict[str, Any]
    shards: int
    """Encoded by this run; 0 where all was there before."""
    images: int
    seconds: float


def make_latents(
    dataset: Path | str, vae: Path | str, out: Path | str | None, options: LatentsOptions, *,
    progress: Progress | None = None,
) -> LatentsSummary:  # fmt: skip
    """Encodes every frame of a dataset, or goes on with it.

    Args:
        dataset: a finished dataset.
        vae: folder of a VAE, or of a pipeline with one.
        out: where the series goes: the dataset itself or None, or another folder, which becomes a dataset with the same
            images, hard-linked where the file system allows.
        options: what, and how.
        progress: told what happens.

    Raises:
        InputError: bad arguments, a folder of something else, or a series made with another VAE, size or background.
        DatasetError: not a finished dataset, a damaged frame, or another driver is at work.
    """
    from pipelines.lock import Lock
    from train.codec import load_codec
    from train.latents import WORK, describe

    began = time.monotonic()
    source = Path(dataset).absolute()  # workers may have working folders of their own
    folder = source if out is None else Path(out).absolute()
    manifest = read_manifest(source)
    codec = load_codec(vae)
    told = _pipeline_config(Path(vae))
    size = options.size or told.get("size") or _size_of(manifest, source)
    modality = describe(codec, size, options.background or told.get("background") or _GREY)
    del codec
    inside = folder.resolve() == source.resolve()
    if not inside:
        _check_target(folder, source, manifest, WORK)
    # A build of this folder must not run at the same time; where none is possible there is no folder of one either, and
    # making it would look like the remains of a build.
    place = folder / _BUILD if (folder / _BUILD).is_dir() else folder / WORK
    with Lock(place):
        sweep(folder)
        if not inside:
            _copy(source, folder, manifest)
        return _encode(folder, Path(vae).absolute(), modality, options, progress, began)


def _encode(
    folder: Path, vae: Path, modality: dict[str, Any], options: LatentsOptions, progress: Any, began: float
) -> LatentsSummary:
    from pipelines.pool import Task, open_pool, run_stage
    from pipelines.progress import Progress
    from train.latents import SERIES, LatentsWorker, begin, end, waiting

    told = progress or Progress()
    modality = begin(folder, modality)
    todo = waiting(folder)
    if not todo and read_manifest(folder)["modalities"].get(SERIES) == modality:
        return LatentsSummary(folder, modality, 0, 0, time.monotonic() - began)
    clips, images = dict(todo), 0
    workers, num_gpus = _placement(options, len(todo))
    told.stage("latents", sum(clips.values()))
    committer = _Committer(folder)
    factory = partial(LatentsWorker, str(folder), str(vae), modality, options.device)
    tasks = [Task(shard, "encode", {"shard": shard}) for shard in clips]
    with committer, open_pool(workers, factory, options.ray_address, num_gpus=num_gpus) as pool:
        for outcome in run_stage(pool, tasks):
            if outcome.value is None:
                failed = outcome.failed or outcome.rejected
                raise DatasetError(
                    f"{outcome.task.name}: found {failed}, expected its latents; repeat the same command to go on"
                )
            committer.add(outcome.value["row"])
            images += outcome.value["images"]
            told.advance(clips[outcome.task.name], outcome.value["images"])
    end(folder, modality)
    return LatentsSummary(folder, modality, len(todo), images, time.monotonic() - began)


class _Committer:
    """Collects rows of shards and commits them now and then, and in any case at the end, however that comes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._rows, self._last = folder, [], time.monotonic()

    def __enter__(self) -> _Committer:
        return self

    def __exit__(self, *_: object) -> None:
        self._commit()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if time.monotonic() - self._last > _COMMIT_S:
            self._commit()

    def _commit(self) -> None:
        if self._rows:
            commit(self._folder, self._rows)
        self._rows, self._last = [], time.monotonic()


def _placement(options: LatentsOptions, shards: int) -> tuple[int, float]:
    """(workers, GPUs of each)."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wants = options.device.startswith("cuda") or (options.device == "auto" and there > 0)
    workers = min(options.workers, shards)
    if workers < 0:
        workers = min(max(1, there) if wants else len(os.sched_getaffinity(0)), shards)
        workers = 0 if workers == 1 and not options.ray_address else workers
    if options.gpus_per_worker >= 0:
        return workers, options.gpus_per_worker
    return workers, float(wants and workers > 0)


def _pipeline_config(vae: Path) -> dict[str, Any]:
    """What a pipeline's folder says of the images it was made for; nothing where the folder is that of a VAE alone."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((vae / "model_index.json").read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _size_of(manifest: dict[str, Any], source: Path) -> int:
    from manifests.dataset import Dataset

    row = next(Dataset(source, manifest).clips(columns=["height", "width"]), None)
    if row is None:
        raise InputError(f"{source}: found no accepted clip, expected at least one to encode; see `mvv inspect`")
    return row["height"]


def _check_target(folder: Path, source: Path, manifest: dict[str, Any], work: str) -> None:
    """A new folder, or one of this command that holds the same images."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    begun = folder / work / "source"
    found = "other files"
    if (folder / "dataset.json").exists():
        found = read_manifest(folder)["fingerprint"]
    elif begun.exists():
        found = begun.read_text()
    if found != manifest["fingerprint"]:
        what = found if found == "other files" else f"a dataset of fingerprint {found[:12]}"
        raise InputError(
            f"--out: found {what} in {folder}, expected a new folder or one with the images of {source}; choose another"
        )


def _copy(source: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """The dataset without a latent series of its own; what is there is not copied again."""
    from train.latents import SERIES, WORK

    write_bytes(folder / WORK / "source", manifest["fingerprint"].encode())
    rows = [row for row in read_shards(source) if row["series"] != SERIES]
    known = {(row["shard"], row["series"]) for row in read_shards(folder)}
    if known >= {(row["shard"], row["series"]) for row in rows} and (folder / "dataset.json").exists():
        return
    for row in rows:
        for path in _files(folder, row):
            _link(source / path.relative_to(folder), path)
    for path in sorted((source / "clips").glob("*.parquet")):
        _duplicate(path, folder / "clips" / path.name)
    for name in ("assets.parquet", "clips.parquet"):
        _duplicate(source / name, folder / name)
    commit(folder, rows)
    others = {name: how for name, how in manifest["modalities"].items() if name != SERIES}
    seal(folder, {**manifest, "modalities": others})


def _files(folder: Path, row: dict[str, Any]) -> Iterator[Path]:
    yield shard_path(folder, row["shard"], row["series"])
    yield index_path(folder, row["shard"], row["series"])


def _link(source: Path, target: Path) -> None:
    """Tars never change, a new one replaces the name; so two datasets can share them."""
    if target.exists():
        return
    if not source.exists():
        raise DatasetError(f"{source}: found no file, expected a committed shard; run `mvv verify` on the dataset")
    with attempt(target) as trial:
        try:
            os.link(source, trial)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, trial)


def _duplicate(source: Path, target: Path) -> None:
    with attempt(target) as trial:
        shutil.copyfile(source, trial)
