"""The lock: one driver at a time, gone with its holder, taken over from machines that fell silent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from manifests.errors import DatasetError
from pipelines import lock as locks
from pipelines.lock import STALE_S, Lock

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from pipelines.lock import Lock
with Lock(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"])  # must not inherit the lock
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
"""


def hold(folder: Path) -> tuple[subprocess.Popen, int]:
    """Another process that holds the lock, and a child of it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return holder, int(holder.stdout.readline())


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "dataset" / "work"


def beat(folder: Path, host: str, age_s: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "heartbeat.json").write_text(json.dumps({"host": host, "pid": 7, "time": time.time() - age_s}))


def test_a_second_driver_is_refused_and_told_who_holds_it(folder):
    # Oracle: another process, by its pid.
    holder, _ = hold(folder)
    try:
        with pytest.raises(DatasetError, match="found a running build") as caught, Lock(folder):
            pass
        assert f"process {holder.pid} on {socket.gethostname()}" in str(caught.value)
        assert str(folder.parent) in str(caught.value)
    finally:
        holder.communicate("", timeout=20)
    with Lock(folder):
        pass
    assert not (folder / "heartbeat.json").exists()


def test_the_lock_goes_with_a_killed_holder_at_once(folder):
    # Oracle: SIGKILL; its heartbeat is seconds old and its child lives on.
    holder, child = hold(folder)
    try:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (folder / "heartbeat.json").exists()
        with Lock(folder):
            assert json.loads((folder / "heartbeat.json").read_text())["pid"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdin.close()
        holder.stdout.close()


def test_two_in_one_process_exclude_each_other(folder):
    # Oracle: the definition.
    with Lock(folder), pytest.raises(DatasetError), Lock(folder):
        pass
    with Lock(folder):
        pass


def test_another_machine_is_believed_while_its_heart_beats(folder):
    # Oracle: a heartbeat as another host writes it, fresh and old.
    beat(folder, "elsewhere", 5)
    with pytest.raises(DatasetError, match="process 7 on elsewhere"), Lock(folder):
        pass
    beat(folder, "elsewhere", STALE_S + 1)
    with Lock(folder):
        assert json.loads((folder / "heartbeat.json").read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', '{"time": "soon"}'])
def test_a_damaged_heartbeat_does_not_stop_anybody(folder, text):
    # Oracle: the kernel's lock, which is free.
    folder.mkdir(parents=True)
    (folder / "heartbeat.json").write_text(text)
    with Lock(folder):
        assert json.loads((folder / "heartbeat.json").read_text())["pid"] == os.getpid()


def test_a_refused_lock_leaves_the_holders_heartbeat(folder):
    # Oracle: the file before and after.
    beat(folder, "elsewhere", 5)
    before = (folder / "heartbeat.json").read_bytes()
    with pytest.raises(DatasetError), Lock(folder):
        pass
    assert (folder / "heartbeat.json").read_bytes() == before


def test_the_heart_beats_and_stops(folder, monkeypatch):
    # Oracle: the times in the file, and the threads that are left.
    monkeypatch.setattr(locks, "_BEAT_S", 0.05)
    threads = threading.active_count()
    with Lock(folder):
        first = json.loads((folder / "heartbeat.json").read_text())["time"]
        end = time.monotonic() + 10
        while json.loads((folder / "heartbeat.json").read_text())["time"] == first and time.monotonic() < end:
            time.sleep(0.02)
        assert json.loads((folder / "heartbeat.json").read_text())["time"] > first
    assert threading.active_count() == threads


def test_the_lock_is_released_by_an_error(folder):
    # Oracle: the next one gets it.
    with pytest.raises(ZeroDivisionError), Lock(folder):
        _ = 1 / 0
    with Lock(folder):
        pass
