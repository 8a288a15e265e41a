"""Many tasks, few workers: the same stage in this process or on Ray, with retries, affinity and bounded work in flight.

A *task* names a method of a worker and its arguments; which workers a pool has is decided by the *factory* it is given:
`Worker`, around a Blender process, for builds, and those of other rooms for their stages. Results are small dicts:
images go to storage, never through Ray's object store. Only infrastructure failures are retried. Facts on Ray: actor
calls are at most once by default, a dead actor stays dead, and a call may have done its work although it raised, so
every task must be repeatable.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from manifests.errors import Failed, InputError, MvvError, Rejected, refusal
from render.process import BlenderProcess, Isolation

__all__ = [
    "Crew",
    "Factory",
    "InlinePool",
    "Outcome",
    "Pool",
    "RayPool",
    "Task",
    "Worker",
    "blender",
    "open_pool",
    "run_stage",
]


@dataclass(frozen=True)
class Task:
    """One call of a worker's method; repeating it must be harmless."""

    name: str
    method: str
    arguments: dict[str, Any]
    affinity: str = ""
    """Tasks with the same affinity prefer the same worker, which may hold what they share."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a ``value``, ``rejected`` or ``failed`` after all attempts."""

    task: Task
    attempts: int
    value: Any = None
    rejected: Rejected | None = None
    failed: Failed | None = None


class Crew(Protocol):
    """What runs in a worker, whichever room it is of."""

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """``{"ok": value}`` or ``{"error": exception}``, because an exception through Ray loses its type.

        Only `Failed` is tried again, `Rejected` is an outcome, and every other `MvvError` ends the stage.
        """

    def close(self) -> None:
        """End what the worker holds: processes, handles."""

    def pids(self) -> tuple[int | None, ...]:
        """Of the worker and of the processes it holds; for tests and for people who look."""


Factory = Callable[[], Crew]
"""Makes a worker where it will run; picklable, and cheap: what is slow or can fail belongs into the first call."""


class Worker:
    """The crew of a build: Blender through its child process, and packing, which needs none."""

    def __init__(self, isolation: Isolation) -> None:
        self._process = BlenderProcess(isolation)

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            if method == "pack":
                from manifests.shards import write_shard

                return {"ok": write_shard(**arguments)}
            return {"ok": self._process.ask(method, **arguments)}
        except MvvError as error:
            return {"error": error}
        except OSError as error:
            told = refusal(error)
            if told is None:
                raise
            return {"error": told}

    def close(self) -> None:
        self._process.close()

    def pids(self) -> tuple[int | None, ...]:
        return os.getpid(), self._process.pid


def blender(isolation: Isolation) -> Factory:
    """The factory of a build's workers."""
    return partial(Worker, isolation)


class Pool(ABC):
    """`submit` up to `size` tasks, then `wait` for any of them."""

    size: int

    @abstractmethod
    def submit(self, slot: int, task: Task) -> None:
        """Start a task on an idle worker."""

    @abstractmethod
    def wait(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        """(slot, answer) of workers that have finished."""

    @abstractmethod
    def close(self) -> None:
        """End the workers and their processes."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class InlinePool(Pool):
    """One worker in this process; for small jobs, debugging and tests."""

    size = 1

    def __init__(self, factory: Factory) -> None:
        self._worker, self._task = factory(), None

    def submit(self, slot: int, task: Task) -> None:
        self._task = task

    def wait(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        task, self._task = self._task, None
        if task is not None:
            yield 0, self._worker.call(task.method, task.arguments)

    def close(self) -> None:
        self._worker.close()


class _Seat:
    """A Ray actor's side: makes the worker where it runs, and hands everything on."""

    def __init__(self, factory: Factory) -> None:
        self._worker = factory()

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._worker.call(method, arguments)

    def close(self) -> None:
        self._worker.close()

    def pids(self) -> tuple[int | None, ...]:
        return self._worker.pids()


class RayPool(Pool):
    """Workers as Ray actors: embedded, or on a cluster.

    Args:
        size: workers.
        factory: of the workers.
        address: of a running cluster; "" starts an embedded one that ends with this process.
        num_gpus: GPUs of each worker; a fraction lets workers share one, 0 hides none.

    Raises:
        InputError: Ray cannot be reached, or has fewer GPUs than one worker wants.
    """

    def __init__(self, size: int, factory: Factory, address: str = "", *, num_gpus: float = 0.0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray, self.size, self._factory = ray, size, factory
        options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        if address:
            options |= {"address": address}
        else:
            options |= {
                "address": "local",
                "num_cpus": size,
                "include_dashboard": False,
                "object_store_memory": 80 << 20,
                "_system_config": {"automatic_object_spilling_enabled": False},
            }
        try:
            self._owned = not ray.is_initialized()
            if self._owned:
                ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--ray-address: found {address or 'no cluster'} ({error}), expected a Ray cluster that answers; start "
                "one with `ray start --head`, or leave the option out"
            ) from error
        there = float(ray.cluster_resources().get("GPU", 0.0))
        if num_gpus > there:  # Ray would wait for ever for a node that has them
            if self._owned:
                ray.shutdown()
            raise InputError(
                f"--gpus-per-worker: found {num_gpus:g}, expected at most the {there:g} GPUs that Ray sees; give 0 to "
                "work on the CPU, or another --ray-address"
            )
        # Bookkeeping, not enforcement: keeps Ray from placing more workers on a node than it has cores.
        self._actor_class = ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=0)(_Seat)
        self._actors: list[Any] = [None] * size
        self._flying: dict[Any, int] = {}

    def submit(self, slot: int, task: Task) -> None:
        if self._actors[slot] is None:
            self._actors[slot] = self._actor_class.remote(self._factory)
        self._flying[self._actors[slot].call.remote(task.method, task.arguments)] = slot

    def wait(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self._flying:
            return
        ready, _ = self._ray.wait(list(self._flying), num_returns=1, timeout=timeout_s)
        for reference in ready:
            slot = self._flying.pop(reference)
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._actors[slot] = None  # the next submit starts a new one
                text = str(error).strip().splitlines()
                # The first line tells what happened to the worker, the last one what a worker that cannot start lacks.
                told = " ... ".join(dict.fromkeys([*text[:1], *text[-1:]])) or type(error).__name__
                answer = {"error": Failed("killed", "worker", told)}
            yield slot, answer

    def pids(self) -> list[tuple[int | None, ...]]:
        """`Crew.pids` of every worker that is idle or finishes soon."""
        return self._ray.get([actor.pids.remote() for actor in self._actors if actor is not None])

    def close(self) -> None:
        busy = set(self._flying.values())
        idle = [actor for slot, actor in enumerate(self._actors) if actor is not None and slot not in busy]
        with contextlib.suppress(Exception):  # a worker that ends in peace takes its temporary folder with it
            self._ray.wait([actor.close.remote() for actor in idle], num_returns=len(idle), timeout=5.0)
        for actor in filter(None, self._actors):
            with contextlib.suppress(Exception):  # whatever state it is in, it has to go
                self._ray.kill(actor)
        if self._owned:
            self._ray.shutdown()


def open_pool(workers: int, factory: Factory, address: str = "", *, num_gpus: float = 0.0) -> Pool:
    """Ray with that many workers; 0 is one worker in this process, without Ray."""
    return RayPool(workers, factory, address, num_gpus=num_gpus) if workers else InlinePool(factory)


@dataclass
class _Queue:
    """Waiting tasks by affinity, in order of arrival."""

    groups: dict[str, deque[tuple[Task, int]]] = field(default_factory=lambda: defaultdict(deque))
    count: int = 0

    def put(self, task: Task, attempts: int) -> None:
        self.groups[task.affinity].append((task, attempts))
        self.count += 1

    def take(self, last: str, busy: set[str]) -> tuple[Task, int]:
        """The next task for a worker that did `last`; another group that nobody works on before one that is shared."""
        key = last if last in self.groups else next((k for k in self.groups if k not in busy), "")
        if key not in self.groups:  # all groups are being worked on: help with the longest
            key = max(self.groups, key=lambda k: len(self.groups[k]))
        taken = self.groups[key].popleft()
        if not self.groups[key]:
            del self.groups[key]
        self.count -= 1
        return taken


def run_stage(pool: Pool, tasks: Iterable[Task], *, attempts: int = 3, window: int = 4096) -> Iterator[Outcome]:
    """Run tasks and yield their outcomes as they come.

    Args:
        pool: of workers.
        tasks: consumed lazily; at most `window` wait at a time.
        attempts: how often a task that fails is tried in all.
        window: tasks looked ahead for affinity.

    Raises:
        StorageError: storage refuses; the stage cannot go on.
    """
    source, queue, exhausted = iter(tasks), _Queue(), False
    running: dict[int, tuple[Task, int]] = {}
    last = [""] * pool.size
    while True:
        while not exhausted and queue.count < window:
            task = next(source, None)
            if task is None:
                exhausted = True
            else:
                queue.put(task, 1)
        for slot in range(pool.size):
            if slot not in running and queue.count:
                busy = {last[other] for other in running}
                running[slot] = queue.take(last[slot], busy)
                last[slot] = running[slot][0].affinity
                pool.submit(slot, running[slot][0])
        if not running:
            return
        for slot, answer in pool.wait(1.0):
            task, tried = running.pop(slot)
            error = answer.get("error")
            if isinstance(error, Failed) and tried < attempts:
                queue.put(task, tried + 1)
            elif isinstance(error, Failed):
                yield Outcome(task, tried, failed=error)
            elif isinstance(error, Rejected):
                yield Outcome(task, tried, rejected=error)
            elif error is not None:
                raise error
            else:
                yield Outcome(task, tried, value=answer["ok"])
