"""One driver at a time on a dataset: a lock that dies with its holder, also on shared storage.

On one machine the kernel's file lock decides, and it is gone the moment the holder is. Between machines, whose file
locks may not see each other, a heartbeat does: a lock that was not renewed for a minute is taken over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

from manifests.errors import DatasetError
from manifests.publish import write_bytes

__all__ = ["STALE_S", "Lock"]

STALE_S = 60.0
_BEAT_S = 10.0


class Lock:
    """Held as a context manager.

    Args:
        folder: of the dataset's working files; created.

    Raises:
        DatasetError: on entering, when another driver holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._beat = folder / "lock", folder / "heartbeat.json"
        self._stop = threading.Event()
        self._me = {"host": socket.gethostname(), "pid": os.getpid()}

    def __enter__(self) -> Lock:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = open(self._file, "w")
        try:
            with contextlib.suppress(OSError):  # some shared file systems have no locks; the heartbeat remains
                try:
                    fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise self._held(self._read()) from None
            holder = self._read()
            fresh = time.time() - holder.get("time", 0.0) < STALE_S
            if holder and fresh and holder["host"] != self._me["host"]:
                raise self._held(holder)
        except BaseException:
            self._handle.close()
            raise
        self._write()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._beat.unlink()
        self._handle.close()

    def _renew(self) -> None:
        while not self._stop.wait(_BEAT_S):
            with contextlib.suppress(OSError):  # a full disk must not end the thread; the next beat may fit
                self._write()

    def _write(self) -> None:
        write_bytes(self._beat, json.dumps({**self._me, "time": time.time()}).encode())

    def _read(self) -> dict:
        try:
            holder = json.loads(self._beat.read_text())
        except (OSError, ValueError):
            return {}
        # A torn or foreign file is no sign of life.
        whole = isinstance(holder, dict) and holder.keys() >= {"host", "pid"} and isinstance(holder.get("time"), float)
        return holder if whole else {}

    def _held(self, holder: dict) -> DatasetError:
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        return DatasetError(
            f"{self._file.parent.parent}: found a running build ({who}), expected none; wait for it, or stop it and "
            f"repeat the command (a lock without a sign of life for {STALE_S:.0f} s is taken over)"
        )
