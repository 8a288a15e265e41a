"""Isolation of the Blender child: deadlines, crashes, memory, network, orphans; what is left behind; what comes next.

The faults happen in the real process. Oracles are /proc and the kernel's answers to signals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from manifests.config import to_dict
from manifests.errors import Failed, InputError, Rejected, StorageError
from render.process import BlenderProcess, Isolation
from tests.broken import small_asset
from tests.render.studio import plan, render, tiny

CONFIG = tiny(views=1, frames=2, size=32, samples=1)
pytestmark = pytest.mark.timeout(180)


def alive(pid: int) -> bool:
    """A zombie, which nobody waits for in some containers, is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def group_gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return all(not alive(int(p)) for p in os.listdir("/proc") if p.isdigit() and pgid(int(p)) == pid)


def pgid(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def folders() -> set[str]:
    found = [Path(parent).glob(f"mvv-render-{os.getpid()}-*") for parent in {"/dev/shm", tempfile.gettempdir()}]
    return {str(path) for group in found for path in group}


@pytest.fixture(scope="module")
def asset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("asset") / "cube.glb"
    path.write_bytes(small_asset().to_bytes())
    return path


@pytest.fixture(scope="module")
def planned(asset):
    with BlenderProcess() as process:
        return plan(process, asset, CONFIG)


def request(asset: Path, planned, folder: Path, **more) -> dict:
    sample, offsets = planned
    return {
        "path": str(asset), "sample": sample, "source_animation": 0, "offsets": offsets, "config": to_dict(CONFIG),
        "out": {"": str(folder / "out.part")}, "threads": 1, **more,
    }  # fmt: skip


FAULTS = [
    ("hang", "deadline", "took more than 2 s", {"import_s": 2.0, "frame_s": 2.0}),
    ("crash", "crash", "signal SIGSEGV", {}),
    ("memory", "memory", "", {"memory_mb": 1536}),
]


@pytest.mark.parametrize(("fault", "cause", "detail", "limits"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_costs_one_request_and_leaves_nothing(asset, planned, tmp_path, fault, cause, detail, limits):
    # Oracle: the fault that was asked for; the same process object then renders the same clip.
    with BlenderProcess(Isolation(**{"memory_mb": 4096, **limits})) as process:
        process.ask("versions")
        pid, before = process.pid, folders()
        assert len(before) == 1
        with pytest.raises(Failed) as caught:
            process.ask("render", **request(asset, planned, tmp_path, fault=fault))
        failed = caught.value
        assert (failed.cause, failed.phase) == (cause, "import")
        assert detail in failed.detail
        assert process.pid is None
        assert not alive(pid)
        assert group_gone(pid)
        assert not folders()
        assert not (tmp_path / "out.part").exists()
        process.ask("render", **request(asset, planned, tmp_path))
        assert process.pid != pid
        assert (tmp_path / "out.part").stat().st_size > 1000
    assert not folders()


def test_a_failure_carries_phase_and_the_last_log_lines(asset, planned, tmp_path):
    # Oracle: a file that changed since it was planned: an error in the phase of reading it, with its traceback.
    sample, offsets = planned
    wrong = (sample | {"asset_sha256": "0" * 64}, offsets)
    with BlenderProcess() as process:
        with pytest.raises(Failed, match="changed since it was scanned") as caught:
            process.ask("render", **request(asset, wrong, tmp_path))
        failed = caught.value
        assert (failed.cause, failed.phase) == ("error", "import")
        assert "Traceback" in failed.log
        assert "RuntimeError" in failed.log
        assert len(failed.log.splitlines()) <= 20
        assert process.pid is None, "a process that broke is not used again"


def test_a_rejection_keeps_the_process(asset, tmp_path):
    # Oracle: the same pid before and after.
    (tmp_path / "empty.glb").write_bytes(b"")
    with BlenderProcess() as process:
        process.ask("identify", path=str(asset))
        pid = process.pid
        with pytest.raises(Rejected) as caught:
            process.ask("probe", path=str(tmp_path / "empty.glb"), config=to_dict(CONFIG))
        assert caught.value.reason == "empty-file"
        assert process.ask("identify", path=str(asset))["copyright"] == "CC0"
        assert process.pid == pid


def test_a_killed_child_is_a_crash_and_the_next_request_works(asset, planned, tmp_path):
    # Oracle: SIGKILL from outside in the middle of a request.
    with BlenderProcess() as process:
        process.ask("identify", path=str(asset))
        pid = process.pid
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(Failed) as caught:
            process.ask("render", **request(asset, planned, tmp_path, fault="hang"))
        assert (caught.value.cause, "SIGKILL" in caught.value.detail) == ("crash", True)
        process.ask("identify", path=str(asset))
        # Between two requests nobody loses anything.
        os.kill(process.pid, signal.SIGKILL)
        assert gone_within(process.pid)
        assert process.ask("identify", path=str(asset))["copyright"] == "CC0"


def test_an_interrupt_ends_the_child(asset, planned, tmp_path):
    # Oracle: an answer still under way must not meet the next request.
    def interrupt(phase: str) -> None:
        raise KeyboardInterrupt

    with BlenderProcess() as process:
        process.ask("identify", path=str(asset))
        pid = process.pid
        with pytest.raises(KeyboardInterrupt):
            process.ask("render", interrupt, **request(asset, planned, tmp_path))
        assert not alive(pid)
        assert process.ask("identify", path=str(asset))["copyright"] == "CC0"


def test_phases_are_told_in_order(asset, planned, tmp_path):
    # Oracle: what a render consists of: two frames of one view.
    phases: list[str] = []
    with BlenderProcess() as process:
        process.ask("render", phases.append, **request(asset, planned, tmp_path))
    assert phases == ["import", "frame 0", "frame 1", "write"]


def test_the_child_has_no_network(asset, planned, tmp_path):
    # Oracle: the kernel: another network namespace, where even this machine cannot be reached.
    with BlenderProcess() as process:
        process.ask("identify", path=str(asset))
        if not process.offline:
            pytest.skip("this system lets no process give up its network")
        assert os.stat(f"/proc/{process.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
        with pytest.raises(Failed, match="Network is unreachable") as caught:
            process.ask("render", **request(asset, planned, tmp_path, fault="network"))
        assert caught.value.cause == "error"


def test_the_child_gets_a_clean_environment_and_a_folder_of_its_own(asset, monkeypatch):
    # Oracle: /proc/PID/environ and cwd.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("BLENDER_USER_SCRIPTS", "/nowhere")
    with BlenderProcess() as process:
        process.ask("identify", path=str(asset))
        pairs = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if pair)
        assert set(environment) <= {
            "PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HOME", "TMPDIR",
            "XDG_RUNTIME_DIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANG",
        }  # fmt: skip
        (folder,) = folders()
        assert environment["TMPDIR"] == environment["HOME"] == os.readlink(f"/proc/{process.pid}/cwd") == folder
        assert os.stat(folder).st_mode & 0o077 == 0
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert f"{6144 << 20}" in next(line for line in limits.splitlines() if "address space" in line)
        assert " 0 " in next(line for line in limits.splitlines() if "core file" in line)
        pid = process.pid
    assert not alive(pid)
    assert group_gone(pid)
    assert not Path(folder).exists()


def test_a_child_is_recycled_by_count_and_by_memory(asset):
    # Oracle: pids.
    with BlenderProcess(Isolation(recycle_clips=2)) as process:
        pids = []
        for _ in range(4):
            process.ask("identify", path=str(asset))
            pids.append(process.pid)
        assert pids[0] is not None
        assert pids[1] is None, "ended after its second request"
        assert pids[2] not in (None, pids[0])
        assert pids[3] is None
    with BlenderProcess(Isolation(recycle_mb=1)) as process:
        process.ask("identify", path=str(asset))
        assert process.pid is None


def test_recycling_changes_no_byte(asset, planned, tmp_path):
    # Oracle: a process that is not recycled.
    with BlenderProcess() as process:
        expected = [render(process, asset, CONFIG, tmp_path, planned=planned).parts for _ in range(2)]
    with BlenderProcess(Isolation(recycle_clips=1)) as process:
        assert [render(process, asset, CONFIG, tmp_path, planned=planned).parts for _ in range(2)] == expected


PARENT = """
import json, sys
from render.process import BlenderProcess
process = BlenderProcess()
process.ask("identify", path=sys.argv[1])
print(process.pid, process._folder, flush=True)
process.ask("render", **json.loads(sys.argv[2]))
"""


def test_the_child_dies_with_its_parent(asset, planned, tmp_path):
    # Oracle: the pid, after SIGKILL of the parent in the middle of a request.
    text = json.dumps(request(asset, planned, tmp_path, fault="hang"))
    command = [sys.executable, "-c", PARENT, str(asset), text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid, folder = parent.stdout.readline().split()
        time.sleep(0.3)
        assert alive(int(pid))
        parent.kill()
    assert gone_within(int(pid))
    with BlenderProcess() as process:  # the next one sweeps what a killed parent left
        process.ask("identify", path=str(asset))
        assert not Path(folder).exists()


def test_the_folder_of_a_living_owner_is_not_swept(asset):
    # Oracle: the folder of another process that is at work.
    with BlenderProcess() as first, BlenderProcess() as second:
        first.ask("identify", path=str(asset))
        folder = first._folder
        second.ask("identify", path=str(asset))
        assert folder.exists()
        first.ask("identify", path=str(asset))


def test_storage_that_refuses_is_an_error_of_its_own(asset, planned, tmp_path):
    # Oracle: a folder in /sys, where nobody may make one; nothing about it is the clip's fault.
    blocked = Path("/sys/kernel/mvv")
    with BlenderProcess() as process, pytest.raises(StorageError, match="repeat the same command"):
        process.ask("render", **request(asset, planned, tmp_path, out={"": str(blocked / "out.part")}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_s": 0.0}, "--frame-s: found 0.0"),
        ({"start_s": -1.0}, "--start-s: found -1.0"),
        ({"memory_mb": 100}, "--memory-mb: found 100"),
    ],
)
def test_limits_out_of_range_are_refused_by_name(values, message):
    # Oracle: the form of messages.
    with pytest.raises(InputError, match=message):
        Isolation(**values)


def test_deadlines_belong_to_phases():
    # Oracle: the fields.
    limits = Isolation(start_s=1, import_s=2, probe_s=3, frame_s=4)
    found = [limits.deadline_s(phase) for phase in ("start", "import", "probe", "frame 17", "write", "identify")]
    assert found == [1, 2, 3, 4, 4, 4]
