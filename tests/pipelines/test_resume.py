"""A build that is killed or stopped goes on with the same command and ends with the same bytes, and leaves no process.

The oracle is an undisturbed run. Every driver is a real `mvv build` in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

from manifests.verify import verify
from tests.pipelines.runs import FLAGS, alive, clip_rows, contents, driver, family, mvv, reference, wait_for


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """(assets, dataset) that an undisturbed run made; not to be changed."""
    return reference(tmp_path_factory.getbasetemp())


def gone(processes, seconds=15.0):
    """What still runs of them after a while; nothing is what should be."""
    deadline = time.monotonic() + seconds
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive(processes)


def marked(mark):
    """Processes with the mark in their environment, wherever in the tree they are: a Ray process keeps the driver's."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MVV_TEST_RUN") == mark:
                found.append(process)
    return found


def leftovers(dataset):
    """Files that a finished build must not leave."""
    work = dataset / ".build"
    found = [str(path) for path in dataset.rglob(".*.attempt")]
    return found + [name for name in ("staging", "probes", "buckets", "heartbeat.json") if (work / name).exists()]


def moments(dataset):
    """Name -> whether a build has come that far."""
    work = dataset / ".build"

    def staged(count):
        return lambda: len(list((work / "staging").glob("*/*.part"))) >= count

    return {
        "started": (work / "lock").exists,
        "probe": lambda: any((work / "probes").glob("*/*.json")),
        "planned": (work / "plan-000.parquet").exists,
        "first part": staged(1),
        "half": staged(6),
        "part under way": lambda: any((work / "staging").glob("*/.*.attempt")),
        "first tar": lambda: any(dataset.glob("shards/train-*.tar")),
        "rows before commit": lambda: any(dataset.glob("clips/*.parquet")),
        "committed": (dataset / "shards.parquet").exists,
        "sealed": (dataset / "dataset.json").exists,
    }


def test_killed_driver_goes_on_at_any_moment(zoo, tmp_path):
    # Oracle: the undisturbed run. One dataset, killed at every moment on its way; each run goes on from the last.
    assets, dataset = zoo
    out, reached, processes = tmp_path / "d", [], []
    command = ("build", assets, "--out", out, *FLAGS, "--workers", 0)
    for name, condition in moments(out).items():
        with driver(*command) as process:
            if wait_for(condition, process):
                below = family(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                reached.append(name)
                processes += below
                assert gone(below) == [], f"after a kill at {name}"
            else:
                assert process.returncode == 0, process.stderr.read()
    assert len(reached) >= 8, reached
    assert processes, "no Blender was caught"
    done = mvv(*command)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(dataset)
    assert verify(out) == []
    assert leftovers(out) == []
    assert len(clip_rows(out, "accepted")) == 12


def test_killed_driver_takes_ray_and_blender_with_it(zoo, tmp_path, monkeypatch):
    # Oracle: the process table, and the undisturbed run for the bytes after a repeat with another number of workers.
    assets, dataset = zoo
    out = tmp_path / "d"
    monkeypatch.setenv("MVV_TEST_RUN", str(tmp_path))
    command = ("build", assets, "--out", out, *FLAGS)
    with driver(*command, "--workers", 2) as process:
        assert wait_for(moments(out)["half"], process), process.stderr.read()
        below = [*family(process.pid), *marked(str(tmp_path))]
        names = " ".join(alive(below))
        assert "render.child" in names
        assert "raylet" in names
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Ray's two agents are not waited for: they look for their dead head for a minute, then end by themselves.
        working = [p for p in below if "Agent" not in " ".join(alive([p]))]
        assert gone(working) == []
        left = " ".join(alive(marked(str(tmp_path))))
        assert not any(word in left for word in ("render.child", "raylet", "gcs_server", "ray::Worker")), left
    done = mvv(*command, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(dataset)
    assert leftovers(out) == []


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(zoo, tmp_path, workers):
    # Oracle: exit code, text, process table; and the undisturbed run after a repeat. As a terminal does, the signal
    # goes to the whole process group.
    assets, dataset = zoo
    out = tmp_path / "d"
    command = ("build", assets, "--out", out, *FLAGS)
    with driver(*command, "--workers", workers) as process:
        # Listing the processes of Ray takes its time; were it done after the first part, the rest could be finished.
        assert wait_for(lambda: moments(out)["part under way"]() or moments(out)["first part"](), process)
        below = family(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "repeat the same command to go on" in errors
        assert "Traceback" not in errors, errors
        assert gone(below) == []
    assert not (out / ".build" / "heartbeat.json").exists()
    done = mvv(*command, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(dataset)
    assert leftovers(out) == []


@pytest.mark.slow
def test_terminate_ends_everything_too(zoo, tmp_path):
    # Oracle: process table and a repeat. SIGTERM is what a cluster sends first.
    assets, dataset = zoo
    out = tmp_path / "d"
    command = ("build", assets, "--out", out, *FLAGS, "--workers", 0)
    with driver(*command) as process:
        assert wait_for(moments(out)["first part"], process)
        below = family(process.pid)
        process.terminate()
        process.wait(timeout=30)
        assert process.returncode != 0
        assert gone(below) == []
    assert mvv(*command).returncode == 0
    assert contents(out) == contents(dataset)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_driver_goes_on_at_random_moments(zoo, tmp_path, workers):
    # Oracle: the undisturbed run. 25 moments drawn from a seed over the time that an undisturbed run takes.
    assets, dataset = zoo
    rng, began = random.Random(workers), time.monotonic()
    assert mvv("build", assets, "--out", tmp_path / "timed", *FLAGS, "--workers", workers).returncode == 0
    usual = time.monotonic() - began
    number, kills = 0, 0
    while kills < (25 if workers == 0 else 8):
        out = tmp_path / f"d{number}"
        command = ("build", assets, "--out", out, *FLAGS, "--workers", workers)
        for _ in range(50):  # the same dataset until it is finished
            with driver(*command) as process:
                deadline = time.monotonic() + rng.uniform(0.3, 1.0) * usual
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                if process.poll() is not None:
                    assert process.returncode == 0, process.stderr.read()
                    break
                below = family(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                assert gone(below) == []
        assert mvv(*command).returncode == 0
        assert contents(out) == contents(dataset), f"round {number}"
        assert leftovers(out) == []
        number += 1
