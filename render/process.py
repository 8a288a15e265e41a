"""The parent's side of `render.child`: starts it, asks it, watches the clock and its memory, and ends it for good.

Whatever happens inside becomes `Failed` with cause, phase and the last log lines, or `Rejected`. A process that broke
is killed with its group and a fresh one is started for the next request; a healthy one is recycled by count and memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from manifests.errors import Failed, InputError, Rejected, StorageError

__all__ = ["BlenderProcess", "Isolation"]

_LOG_LINES = 20
_POLL_S = 0.5
_KEPT = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_PREFIX = "mvv-render-"


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Limits of one Blender process; none of them changes what a successful render looks like."""

    memory_mb: int = 6144
    """Address space of the process; more is a failure of cause `memory`."""
    recycle_clips: int = 64
    """Start afresh after this many requests."""
    recycle_mb: int = 2048
    """Start afresh after a request that leaves this much resident memory."""
    start_s: float = 120.0
    """Deadline for the process to start."""
    import_s: float = 180.0
    """Deadline for reading an asset and handing it to Blender."""
    probe_s: float = 300.0
    """Deadline for probing all animations of an asset."""
    frame_s: float = 300.0
    """Deadline for each image."""

    def __post_init__(self) -> None:
        for name in ("start_s", "import_s", "probe_s", "frame_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name.replace('_', '-')}: found {getattr(self, name)}, expected seconds above 0")
        if self.memory_mb < 1536:
            raise InputError(f"--memory-mb: found {self.memory_mb}, expected at least 1536; Blender alone needs that")

    def deadline_s(self, phase: str) -> float:
        """Of a phase as the child names it: start, import, probe, ``frame N``, write."""
        named = "start" if phase == "versions" else phase.split()[0]
        return getattr(self, f"{named}_s", self.frame_s)


class BlenderProcess:
    """One child process at a time; use it as a context manager."""

    def __init__(self, isolation: Isolation = Isolation()) -> None:
        self._isolation = isolation
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._guard: TextIO | None = None
        self._requests = 0
        self.offline = False
        """Whether the child has no network; known after the first request."""

    def __enter__(self) -> BlenderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the running child."""
        return None if self._child is None else self._child.pid

    def ask(self, do: str, on_phase: Callable[[str], None] | None = None, **request: Any) -> Any:
        """One request, answered.

        Args:
            do: ``probe``, ``render`` or ``versions``.
            on_phase: told each phase that the child enters.
            request: arguments of the child's ``do_...`` method, as JSON values.

        Raises:
            Rejected: the asset is refused.
            Failed: deadline, memory, crash or an unexpected error.
        """
        phase = "start"
        try:
            self._start()
            assert self._child is not None
            line = (json.dumps({"do": do, **request}) + "\n").encode()
            phase = "import" if do == "render" else do
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(line)
                self._child.stdin.flush()
            while True:
                message = self._receive(phase)
                if "phase" in message:
                    phase = message["phase"]
                    if on_phase is not None:
                        on_phase(phase)
                elif "rejected" in message:
                    raise Rejected(*message["rejected"])
                elif message.get("storage"):
                    raise StorageError(message["error"])
                elif "error" in message:
                    raise Failed(message["cause"], phase, message["error"], self._log_tail())
                else:
                    self._requests += 1
                    if (
                        self._requests >= self._isolation.recycle_clips
                        or message["rss_mb"] > self._isolation.recycle_mb
                    ):
                        self.close()
                    return message["ok"]
        except Failed:
            self.close()
            raise
        except BaseException as error:
            # An interrupt between two messages leaves an answer under way that the next request would take for its own.
            if not isinstance(error, Rejected):
                self.close()
            raise

    def close(self) -> None:
        """End the child, its group and its temporary folder."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            if self._guard is not None:
                self._guard.close()
                self._guard = None

    # -- the child ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._child is not None and self._child.poll() is None:
            return
        self.close()
        _sweep_folders()
        # Frames pass through this folder, so memory is the better place for it.
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
        self._guard = open(self._folder / "guard", "w")  # noqa: SIM115 (held as long as the folder is)
        fcntl.flock(self._guard, fcntl.LOCK_EX)
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(self._folder))
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {"LANG": "C.UTF-8"}
        memory = self._isolation.memory_mb << 20
        with open(self._folder / "log", "wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-m", "render.child", str(os.getpid()), str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._requests, self._buffer = 0, b""
        self.offline = self._receive("start")["offline"]

    def _receive(self, phase: str) -> dict[str, Any]:
        assert self._child is not None
        limit = self._isolation.deadline_s(phase)
        deadline = time.monotonic() + limit
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._child.stdout], [], [], _POLL_S)
            if readable:
                data = os.read(self._child.stdout.fileno(), 1 << 20)
                if not data:
                    raise self._died(phase)
                self._buffer += data
            elif time.monotonic() > deadline:
                raise Failed(
                    "deadline", phase, f"took more than {limit:g} s; raise the limit or leave it out", self._log_tail()
                )
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _died(self, phase: str) -> Failed:
        assert self._child is not None
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        log = self._log_tail()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hungry = re.search(
            r"bad_alloc|MemoryError|out of memory|failed to allocate|Cannot allocate", log, re.IGNORECASE
        )
        return Failed("memory" if hungry else "crash", phase, f"the process ended with {how}", log)

    def _log_tail(self) -> str:
        if self._folder is None:
            return ""
        with contextlib.suppress(OSError), open(self._folder / "log", "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 16384))
            lines = log.read().decode(errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""


def _sweep_folders() -> None:
    """Remove folders that killed parents left behind."""
    for parent in {"/dev/shm", tempfile.gettempdir()}:
        for folder in Path(parent).glob(f"{_PREFIX}*"):
            # The owner holds a lock until it dies, which is seen across containers too, where its pid is not.
            with contextlib.suppress(OSError), open(folder / "guard") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
