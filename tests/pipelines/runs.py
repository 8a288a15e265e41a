"""Tiny builds for the tests of batch jobs: assets, configs, the command line in a process of its own, and killers.

Everything is a real run with the smallest settings; nothing is replaced. Used by the tests of `pipelines` and `mvv`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from manifests.config import BuildConfig, preset
from manifests.tables import CLIPS, iter_rows
from pipelines.build import RunOptions, Summary, build
from pipelines.procedural import make
from tests.broken import png, small_asset

__all__ = [
    "FLAGS",
    "Killer",
    "alive",
    "clip_rows",
    "contents",
    "cube",
    "driver",
    "family",
    "inline",
    "make_cubes",
    "make_zoo",
    "mvv",
    "reference",
    "render_children",
    "tiny",
    "wait_for",
]

FLAGS = (
    "--preset", "demo", "--samples", "1", "--size", "24", "--frames", "4", "--views", "2", "--clips-per-shard", "4",
    "--max-animations", "2",
)  # fmt: skip
"""`tiny()` on the command line."""


def tiny(**changes: Any) -> BuildConfig:
    """The config of `FLAGS`, with fields changed by their own names."""
    changes = {"samples": 1, "size": 24, "frames": 4, "views": 2, "clips_per_shard": 4, "max_animations": 2} | changes
    config = preset("demo")
    for name in ("camera", "motion", "render", "pack"):
        group = getattr(config, name)
        own = {entry.name for entry in dataclasses.fields(group)}
        here = {field: changes.pop(field) for field in own & changes.keys()}
        config = dataclasses.replace(config, **{name: dataclasses.replace(group, **here)})
    return dataclasses.replace(config, **changes)


def inline(source: Path, out: Path, config: BuildConfig | None = None, pose: str = "", **options: Any) -> Summary:
    """A build in this process, without Ray unless workers are asked for."""
    return build(source, out, config or tiny(), RunOptions(**({"workers": 0} | options)), pose=pose)


def cube(k: int = 0, names: tuple[str, ...] = ("move",), *, seconds: float = 2.0) -> bytes:
    """A textured cube with animations that differ by ``k``; each gives two clips, or one if it is short."""
    writer = small_asset(animated=False, image=png(color=(200, 40 + k % 200, 30)))
    for j, name in enumerate(names):
        reach = 2 + k / 10 + j / 3
        times, values = [0.0, seconds / 2, seconds], [[0, 0, 0], [reach, j, 0], [0, 0, 0]]
        writer.add_animation(name, [{"node": 1, "path": "translation", "times": times, "values": values}])
    return writer.to_bytes()


def make_cubes(folder: Path, count: int = 3, first: int = 0) -> Path:
    """Cubes, two clips each."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        (folder / f"cube{k}.glb").write_bytes(cube(k))
    return folder


def make_zoo(folder: Path) -> Path:
    """A cube, a skinned animal, a machine and a face: 12 clips with the tiny config, in three shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cube.glb").write_bytes(cube(names=("slide", "leap")))
    with tempfile.TemporaryDirectory() as made:
        for path in make(Path(made), 3, 0):
            shutil.copy(path, folder)
    return folder


def reference(base: Path) -> tuple[Path, Path]:
    """(assets, dataset) of the zoo, built once a test session without Ray or disturbance; not to be changed."""
    assets, dataset = base / "zoo-assets", base / "zoo-dataset"
    if not (dataset / "dataset.json").exists():
        inline(make_zoo(assets), dataset)
    return assets, dataset


def contents(dataset: Path) -> dict[str, str]:
    """What has to be the same in every build: hash of each tar and index, and the fingerprint."""
    files = [*dataset.glob("shards/*"), *dataset.glob("index/*")]
    found = {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found | {"fingerprint": json.loads((dataset / "dataset.json").read_bytes())["fingerprint"]}


def clip_rows(dataset: Path, status: str = "") -> list[dict[str, Any]]:
    """Rows of clips.parquet, all or of one status."""
    return [row for row in iter_rows(dataset / "clips.parquet", schema=CLIPS) if status in ("", row["status"])]


# -- the command line in its own process ------------------------------------------------------------------------------


def mvv(*arguments: Any, timeout: float = 240, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `mvv` and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "mvv.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, check=False, **more,
    )  # fmt: skip


@contextlib.contextmanager
def driver(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `mvv` as a terminal would, in a process group of its own; whatever is left of it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mvv.cli", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for left in [*family(process.pid), process]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                left.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen | None = None, timeout: float = 120) -> bool:
    """Poll every few milliseconds until the condition holds; False when the process ended before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None and process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.003)
    return True


def family(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def alive(processes: list[psutil.Process]) -> list[str]:
    """Command lines of those that still run."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()) or process.name())
    return found


def render_children(pid: int | None = None) -> list[psutil.Process]:
    """Blender processes below this process, or another."""
    found = []
    for process in family(pid or os.getpid()):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "render.child" in process.cmdline():
                found.append(process)
    return found


class Killer:
    """Kills processes from a thread while a build runs in this one.

    Args:
        targets: gives those to kill now.
        start: nothing is killed before it holds.
        stop: nothing is killed after it holds.
        most: kills at most; 0 is any number.
    """

    def __init__(
        self, targets: Callable[[], list[psutil.Process]], start: Callable[[], Any], stop: Callable[[], Any],
        most: int = 0,
    ) -> None:  # fmt: skip
        self._targets, self._start, self._stop, self._most = targets, start, stop, most
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._work)
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(0.005):
            if not self._start():
                continue
            for process in self._targets():
                if self._stop() or (self._most and self.kills >= self._most):
                    return
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
                    self.kills += 1
            self._ended.wait(0.1)
