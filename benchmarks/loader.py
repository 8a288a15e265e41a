"""How fast clips reach a trainer: 4 of 16 views and 16 of 48 frames by position, against streaming and decoding all.

``python benchmarks/loader.py`` makes a dataset of smooth pictures of 256 px, reads it on one core through our loader
and plain webdataset in turns, prints JSON and writes it to ``benchmarks/results/``; a few minutes, 1.1 GB on disk.
``--quick`` tries everything in small and writes nothing. Files are in the page cache: what is measured is the work of
the processor, and in the part with latency the number of requests. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
import webdataset
from fsspec.spec import AbstractFileSystem

from manifests import clip as clips
from manifests.finish import finish
from manifests.images import encode_frame
from manifests.shards import commit, shard_name, write_clip_rows, write_shard
from manifests.tables import ASSETS, write_rows
from manifests.tar import write_part

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' datasets are not installed
from tests.tiny_dataset import TOOLS, clip_row, make_sample
from train.config import DataConfig, ObjectiveConfig
from train.data.clips import ClipDataset, loader
from train.data.order import Batches

HERE = Path(__file__).parent
LATENCY_S = 0.05
CLIPS_PER_SHARD = 8
DISTINCT = 4
"""Clips that are drawn; the others have the same images under other names."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small pictures, few clips; writes nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mvv-bench-") as folder:
        report = measure(arguments, Path(folder) / "set")
    print(json.dumps(report, indent=1))
    if not arguments.quick:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"loader_cpu{os.cpu_count()}_{datetime.date.today():%Y%m}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Makes the dataset with every core, then measures on one."""
    size, count = (64, 9) if arguments.quick else (256, arguments.clips)
    # Here workers wait and do not compute; torch counts cores.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    make_dataset(folder, count, size)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    config = DataConfig(views=4, frames=16, strides=(3,), size=size, block_shards=2)
    resident = memory(folder, config)  # first, while nothing else has taken any
    speeds = speed(folder, config, 1 if arguments.quick else arguments.repeats)
    return {
        "benchmark": "loader", "what": __doc__.split("\n\n")[0].strip(), "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "cores_used": 1, "system": platform.platform()},
        "versions": {name: version(name) for name in ("mvvideo", "torch", "webdataset", "pillow", "numpy", "fsspec")},
        "command": "python " + " ".join(["benchmarks/loader.py", *sys.argv[1:]]),
        "dataset": {"clips": count, "views": 16, "frames": 48, "size": size,
                    "bytes_a_clip": bytes_a_clip(folder, count)},
        "sample": {"views": config.views, "frames": config.frames, "size": config.size},
        "target": "at least 6 times the clips a second of webdataset, decoding all members; memory flat over an epoch",
        "clips_per_s": speeds, "cost_a_sample": cost(folder, config), "resident_mb": resident,
        "latency_50_ms": latency(folder, config, 2 if arguments.quick else 8),
    }  # fmt: skip


# -- speed ---------------------------------------------------------------------------------------------------------


def speed(folder: Path, config: DataConfig, repeats: int) -> dict[str, Any]:
    """Each way over all clips, in turns, after a clip to warm up; clips a second, and the ratios of the means."""
    tars = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: iter(loader(ours(folder, config), one_by_one(0, count), 0)),
        "webdataset, all members": lambda: iter(webdataset.WebDataset(tars, shardshuffle=False).decode("rgba8")),
        # What one gets from webdataset by hand; it still streams every byte.
        "webdataset, members of the sample": lambda: iter(
            webdataset.WebDataset(tars, shardshuffle=False).map(thinned).decode("rgba8")
        ),
    }
    count = len(ours(folder, config))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        next(way())
    for name in list(ways) * repeats:
        began = time.perf_counter()
        done = sum(1 for _ in ways[name]())
        assert done == count, f"{name}: {done} clips of {count}"
        rates[name].append(count / (time.perf_counter() - began))
    means = {name: statistics.mean(values) for name, values in rates.items()}
    rounded = {
        name: {
            "mean": round(means[name], 3), "spread": round(max(values) - min(values), 3),
            "runs": [round(value, 3) for value in values],
        }
        for name, values in rates.items()
    }  # fmt: skip
    ratios = {f"ours / {name}": round(means["ours"] / means[name], 2) for name in list(ways)[1:]}
    return {"repeats": repeats, "clips_a_run": count, **rounded, **ratios}


def thinned(entry: dict[str, Any]) -> dict[str, Any]:
    """A streamed sample with the images of one draw alone."""
    names = {f"v{view:02d}_f{frame:03d}.webp" for view in range(0, 16, 4) for frame in range(0, 48, 3)}
    return {name: value for name, value in entry.items() if not name.endswith(".webp") or name in names}


def cost(folder: Path, config: DataConfig) -> dict[str, Any]:
    """Requests and bytes of a local sample, joined as by default and not joined."""
    found = {}
    for name, gap in (("joined within 4 KiB", None), ("not joined", -1)):
        dataset = ours(folder, config, join_gap=gap)
        for position in range(len(dataset)):
            dataset[position]
        requests, came = dataset.reader.requests / len(dataset), dataset.reader.bytes / len(dataset)
        found[name] = {"requests": round(requests, 1), "bytes": round(came)}
    return found


def memory(folder: Path, config: DataConfig) -> dict[str, Any]:
    """Resident memory after every clip of an epoch, in MB, beyond a warm-up of one block of shards."""
    dataset = ours(folder, config)
    warm_up = min(len(dataset) // 2, 2 * CLIPS_PER_SHARD)
    stop = warm_up + len(dataset)
    found = [resident_mb() for _ in loader(dataset, one_by_one(0, stop), 0)][warm_up:]
    third = len(found) // 3
    first, last = statistics.mean(found[:third]), statistics.mean(found[-third:])
    return {
        "clips": len(found), "first_third_mean": round(first, 1), "last_third_mean": round(last, 1),
        "growth": round(last - first, 1), "peak": round(max(found), 1),
    }  # fmt: skip


# -- latency -------------------------------------------------------------------------------------------------------


class Slow(AbstractFileSystem):
    """Local files, each request 50 ms late."""

    protocol = "slow"
    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        time.sleep(LATENCY_S)
        with open("/" + path.lstrip("/"), "rb") as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(end - (start or 0))


def latency(folder: Path, config: DataConfig, samples: int) -> dict[str, Any]:
    """Seconds, requests and bytes a sample, the requests one after the other; and with workers that wait together."""
    fsspec.register_implementation("slow", Slow, clobber=True)
    result: dict[str, Any] = {"samples": samples}
    ways = {"not joined": -1, "joined within 64 KiB": None, "joined within 8 MiB": 8 << 20}
    for name, gap in ways.items():
        dataset = ours(f"slow://{folder}", config, join_gap=gap, cache_dir=folder.parent / "tables")
        for position in range(len(dataset)):
            dataset.split.place(dataset.order.locate(position)[1])  # every index is copied before the clock runs
        began = time.perf_counter()
        for position in range(samples):
            dataset[position]
        seconds = (time.perf_counter() - began) / samples
        result[name] = {
            "s_a_sample": round(seconds, 3), "requests": round(dataset.reader.requests / samples, 1),
            "bytes": round(dataset.reader.bytes / samples),
        }  # fmt: skip
        began = time.perf_counter()
        whole = sum(1 for _ in loader(dataset, one_by_one(0, 2 * samples), 4))
        result[name]["s_a_sample_4_workers"] = round((time.perf_counter() - began) / whole, 3)
    result["not joined / joined within 64 KiB"] = round(
        result["not joined"]["s_a_sample"] / result["joined within 64 KiB"]["s_a_sample"], 2
    )
    return result


# -- parts ---------------------------------------------------------------------------------------------------------


def ours(folder: Path | str, config: DataConfig, **options: Any) -> ClipDataset:
    return ClipDataset(folder, config, ObjectiveConfig(), **options)


def one_by_one(start: int, stop: int) -> Batches:
    return Batches(start, 1, 1, stop=stop)


def make_dataset(folder: Path, count: int, size: int) -> None:
    """16 views x 48 frames of smooth textured blobs that turn; `DISTINCT` clips of pictures under ``count`` names."""
    samples = [make_sample(k, views=16, frames=48, size=size) for k in range(count)]
    jobs = [(clip, view, size) for clip in range(DISTINCT) for view in range(16)]
    with multiprocessing.get_context("fork").Pool() as pool:
        views = pool.starmap(encoded_view, jobs)
    staging = folder / "staging"
    shards = []
    for first in range(0, count, CLIPS_PER_SHARD):
        shard, parts = shard_name("train", first // CLIPS_PER_SHARD), []
        for k in range(first, min(first + CLIPS_PER_SHARD, count)):
            pictures = [image for view in views[16 * (k % DISTINCT) :][:16] for image in view]
            parts.append(staging / f"{k}.part")
            payloads = [clips.to_json(samples[k]), *pictures]
            write_part(parts[-1], zip(clips.members(samples[k]), payloads, strict=True))
        shards.append(write_shard(folder, shard, parts))
        rows = [clip_row(samples[first + k], shard=shard, position=k) for k in range(len(parts))]
        write_clip_rows(folder, shard, rows)
        for part in parts:
            part.unlink()
    staging.rmdir()
    commit(folder, shards)
    write_rows(folder / "assets.parquet", [], ASSETS)
    finish(folder, config={"preset": "benchmark"}, tools=TOOLS, cpu=["any"], name="benchmark")


def encoded_view(clip: int, view: int, size: int) -> list[bytes]:
    return [encode_frame(picture(clip, view, frame, size), method=2) for frame in range(48)]


def picture(clip: int, view: int, frame: int, size: int) -> np.ndarray:
    """(size, size, 4) uint8: a blob with a soft edge and waves of colour; about 23 KB as WebP at 256 px."""
    y, x = np.mgrid[:size, :size] / size
    angle, phase = 2 * np.pi * view / 16, frame / 8 + clip
    distance = np.hypot(x - 0.5 - 0.1 * np.sin(phase), y - 0.5 + 0.05 * np.cos(phase + angle))
    bumps = 1 + 0.15 * np.sin(5 * np.arctan2(y - 0.5, x - 0.5) + phase)
    alpha = np.clip((0.33 * bumps - distance) * size / 2, 0, 1)
    waves = [
        0.5 + 0.4 * np.sin(20 * x * (k + 1) + 7 * y + phase + k + angle) * np.cos(13 * y * k + angle) for k in range(3)
    ]
    rgba = np.rint(np.stack([*waves, alpha], -1) * 255).astype(np.uint8)
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def bytes_a_clip(folder: Path, count: int) -> int:
    return round(sum(path.stat().st_size for path in (folder / "shards").glob("*.tar")) / count)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
