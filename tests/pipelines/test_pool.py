"""Stages: retries of failures alone, affinity, bounded lookahead, storage errors; and a killed Ray worker."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manifests.config import to_dict
from manifests.errors import DatasetError, Failed, InputError, Rejected, StorageError
from pipelines.pool import InlinePool, Outcome, Pool, Task, Worker, blender, open_pool, run_stage
from render.process import BlenderProcess, Isolation
from tests.broken import small_asset
from tests.render.studio import plan, tiny


class Slots(Pool):
    """Workers that answer by a function, the longest-waiting first; remembers what each was given."""

    def __init__(self, size: int, answer: Callable[[Task, int], dict[str, Any]]) -> None:
        self.size, self._answer = size, answer
        self._busy: dict[int, Task] = {}
        self.given: dict[int, list[str]] = defaultdict(list)
        self.tries: dict[str, int] = defaultdict(int)

    def submit(self, slot: int, task: Task) -> None:
        assert slot not in self._busy, "a busy worker was given a task"
        self._busy[slot] = task
        self.given[slot].append(task.name)
        self.tries[task.name] += 1

    def wait(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        slot = next(iter(self._busy))
        task = self._busy.pop(slot)
        yield slot, self._answer(task, self.tries[task.name])

    def close(self) -> None:
        pass


def tasks(*names: str) -> list[Task]:
    """Names such as a1, a2, b1; the letter is the affinity."""
    return [Task(name, "render", {}, affinity=name[0]) for name in names]


def ok(task: Task, tried: int) -> dict[str, Any]:
    return {"ok": task.name}


def test_every_task_is_done_once_whatever_the_number_of_workers():
    # Oracle: the set of names.
    names = [f"{letter}{k}" for letter in "abcde" for k in range(7)]
    for size in (1, 2, 3, 50):
        pool = Slots(size, ok)
        outcomes = list(run_stage(pool, tasks(*names), window=4))
        assert sorted(outcome.value for outcome in outcomes) == sorted(names)
        assert all(outcome.attempts == 1 for outcome in outcomes)


def test_no_tasks_are_no_outcomes():
    # Oracle: the definition.
    assert list(run_stage(Slots(2, ok), [])) == []


def test_failures_are_retried_and_rejections_are_not():
    # Oracle: the number of tries by hand.
    def answer(task: Task, tried: int) -> dict[str, Any]:
        if task.name == "a1" and tried < 3:
            return {"error": Failed("deadline", "import", "slow")}
        if task.name == "b1":
            return {"error": Failed("crash", "frame 0", f"try {tried}", "the log")}
        if task.name == "c1":
            return {"error": Rejected("static", "does not move")}
        return {"ok": task.name}

    pool = Slots(2, answer)
    found: dict[str, Outcome] = {o.task.name: o for o in run_stage(pool, tasks("a1", "b1", "c1", "d1"), attempts=3)}
    assert (found["a1"].value, found["a1"].attempts) == ("a1", 3)
    assert (found["b1"].failed.cause, found["b1"].attempts, found["b1"].failed.detail) == ("crash", 3, "try 3")
    assert (found["b1"].failed.log, found["b1"].value) == ("the log", None)
    assert (found["c1"].rejected.reason, found["c1"].attempts) == ("static", 1)
    assert found["d1"].attempts == 1
    assert dict(pool.tries) == {"a1": 3, "b1": 3, "c1": 1, "d1": 1}


@pytest.mark.parametrize("error", [StorageError("disk full; free some"), InputError("x"), ZeroDivisionError()])
def test_storage_errors_and_mistakes_of_ours_end_the_stage(error):
    # Oracle: the same exception comes out, and nothing is tried again.
    pool = Slots(1, lambda task, tried: {"error": error} if task.name == "b1" else {"ok": 1})
    with pytest.raises(type(error)):
        list(run_stage(pool, tasks("a1", "b1", "c1")))
    assert dict(pool.tries) == {"a1": 1, "b1": 1}


def test_workers_stay_with_their_asset():
    # Oracle: the groups that each worker touched: two workers, four assets of equal size, no asset on both.
    names = [f"{letter}{k}" for k in range(5) for letter in "abcd"]
    pool = Slots(2, ok)
    list(run_stage(pool, tasks(*names)))
    touched = [{name[0] for name in given} for given in pool.given.values()]
    assert touched[0].isdisjoint(touched[1])
    for given in pool.given.values():
        changes = sum(a[0] != b[0] for a, b in itertools.pairwise(given))
        assert changes == len({name[0] for name in given}) - 1


def test_idle_workers_help_with_an_asset_that_another_works_on():
    # Oracle: one asset, two workers: both are used.
    pool = Slots(2, ok)
    list(run_stage(pool, tasks(*[f"a{k}" for k in range(6)])))
    assert min(len(given) for given in pool.given.values()) >= 2


def test_tasks_without_affinity_are_shared_in_order():
    # Oracle: first come, first served.
    plain = [Task(str(k), "pack", {}) for k in range(6)]
    pool = Slots(1, ok)
    list(run_stage(pool, plain))
    assert pool.given[0] == [str(k) for k in range(6)]


def test_tasks_are_consumed_lazily():
    # Oracle: how far the source was read when each outcome came; a plan may have a hundred thousand rows.
    taken = 0

    def source() -> Iterator[Task]:
        nonlocal taken
        for k in range(5000):
            taken += 1
            yield Task(str(k), "render", {}, affinity=str(k % 3))

    most = done = 0
    for _ in run_stage(Slots(2, ok), source(), window=16):
        done += 1
        most = max(most, taken - done)
    assert done == 5000
    assert most <= 16 + 2 + 1


def test_retries_keep_the_bound_of_the_queue():
    # Oracle: the number of tasks in flight or waiting, while everything fails once.
    taken = 0

    def source() -> Iterator[Task]:
        nonlocal taken
        for k in range(300):
            taken += 1
            yield Task(str(k), "render", {}, affinity=str(k % 7))

    def answer(task: Task, tried: int) -> dict[str, Any]:
        return {"ok": 1} if tried > 1 else {"error": Failed("crash", "import", "once")}

    for ended, outcome in enumerate(run_stage(Slots(3, answer), source(), window=10), 1):
        assert outcome.attempts == 2
        assert taken - ended <= 10 + 3 + 1


def cube(folder: Path) -> Path:
    path = folder / "cube.glb"
    path.write_bytes(small_asset().to_bytes())
    return path


needs_blender = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")


def test_an_inline_pool_runs_the_real_worker(tmp_path):
    # Oracle: the real answers of the real child process.
    path, empty = cube(tmp_path), tmp_path / "empty.glb"
    empty.write_bytes(b"")
    with open_pool(0, blender(Isolation())) as pool:
        assert isinstance(pool, InlinePool)
        jobs = [Task(p.name, "identify", {"path": str(p)}, p.name) for p in (path, empty)]
        found = {outcome.task.name: outcome for outcome in run_stage(pool, jobs)}
    assert found["cube.glb"].value["copyright"] == "CC0"
    assert found["empty.glb"].rejected.reason == "empty-file"


def counter_class() -> type:
    """A worker of another room; a local class, which Ray takes along by value, as the tests are no package there."""

    class Counter:
        """Keeps a count, and refuses what it is told to."""

        def __init__(self, start: int) -> None:
            self.count, self.closed = start, False

        def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
            if method == "fail":
                return {"error": InputError("x: found y, expected z")}
            self.count += arguments["by"]
            return {"ok": (self.count, os.getpid())}

        def close(self) -> None:
            self.closed = True

        def pids(self) -> tuple[int | None, ...]:
            return (os.getpid(),)

    return Counter


def test_an_inline_pool_runs_the_worker_of_its_factory():
    # Oracle: the sum, kept by one worker that lives for the whole stage and is closed with the pool.
    made: list[Any] = []

    def factory() -> Any:
        made.append(counter_class()(10))
        return made[-1]

    with open_pool(0, factory) as pool:
        values = [outcome.value[0] for outcome in run_stage(pool, [Task(str(k), "add", {"by": k}) for k in range(5)])]
        with pytest.raises(InputError, match="expected z"):
            list(run_stage(pool, [Task("bad", "fail", {})]))
    assert values == [10, 11, 13, 16, 20]
    assert [worker.closed for worker in made] == [True]


def test_a_ray_pool_runs_the_worker_of_its_factory():
    # Oracle: sums of workers in other processes; more GPUs than there are is one clear error, not a wait for ever.
    pytest.importorskip("ray")
    with open_pool(2, partial(counter_class(), 10)) as pool:
        outcomes = list(run_stage(pool, [Task(str(k), "add", {"by": 1}, affinity=str(k % 2)) for k in range(8)]))
        assert [outcome.failed for outcome in outcomes] == [None] * 8
        pids = {outcome.value[1] for outcome in outcomes}
        assert {pid for (pid,) in pool.pids()} == pids
    assert os.getpid() not in pids
    assert sum(max(c.value[0] for c in outcomes if c.value[1] == pid) - 10 for pid in pids) == 8
    with pytest.raises(InputError, match="--gpus-per-worker: found 4096, expected at most"):
        open_pool(1, partial(counter_class(), 10), num_gpus=4096)


def test_a_worker_answers_with_errors_of_our_own_kinds(tmp_path):
    # Oracle: which exceptions may cross to the driver, each with its type.
    worker = Worker(Isolation())
    try:
        gone = worker.call("identify", {"path": str(tmp_path / "gone.glb")})["error"]
        assert isinstance(gone, Rejected)
        unknown = worker.call("identify", {"nonsense": 1})["error"]
        assert (type(unknown), unknown.cause) == (Failed, "error")
        torn = tmp_path / "torn.part"
        torn.write_bytes(b"x" * 700)
        damaged = worker.call("pack", {"folder": tmp_path / "dataset", "shard": "train-00000", "parts": [torn]})
        assert isinstance(damaged["error"], DatasetError), "it must not look like a killed worker"
    finally:
        worker.close()


@needs_blender
@pytest.mark.timeout(300)
def test_a_killed_ray_worker_costs_a_retry(tmp_path):
    # Oracle: SIGKILL of the worker's process in the middle of a clip; the same bytes as without it.
    pytest.importorskip("ray")
    path, config = cube(tmp_path), tiny(views=8, frames=8, fps=4.0, size=64, samples=32)
    with BlenderProcess() as process:
        sample, offsets = plan(process, path, config)

    def job(name: str) -> Task:
        arguments = {
            "path": str(path), "sample": sample, "source_animation": 0, "offsets": offsets, "config": to_dict(config),
            "out": {"": str(tmp_path / f"{name}.part")}, "threads": 1,
        }  # fmt: skip
        return Task(name, "render", arguments, "cube")

    with open_pool(1, blender(Isolation())) as pool:
        (quiet,) = run_stage(pool, [job("quiet")])
        assert quiet.attempts == 1
        ((worker, child),) = pool.pids()

        def kill() -> None:
            # Blender has begun with the clip when it has used processor time for it.
            begun = cpu_s(child)
            while cpu_s(child) < begun + 0.2:
                time.sleep(0.02)
            os.kill(worker, signal.SIGKILL)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        (outcome,) = run_stage(pool, [job("killed")])
        thread.join(10)
        assert (outcome.attempts, outcome.failed) == (2, None)
        ((again, _),) = pool.pids()
        assert again != worker
        end = time.monotonic() + 5
        while running(child) and time.monotonic() < end:
            time.sleep(0.05)
        assert not running(child), "the killed worker's Blender lives on"
        # A file that is not there is the same answer through Ray as without it.
        (gone,) = run_stage(pool, [Task("gone", "identify", {"path": str(tmp_path / "gone.glb")})])
        assert gone.rejected is not None
    assert (tmp_path / "killed.part").read_bytes() == (tmp_path / "quiet.part").read_bytes()
    assert not running(again)


def cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
