"""A batch with every broken, hostile and odd file in it; folders that cannot be read; disks that are full.

Oracle: the expected reasons beside the files in tests/broken.py, and builds of the good assets alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from manifests.dataset import Dataset
from manifests.errors import REASONS
from manifests.publish import sha256_file
from manifests.verify import verify
from mvv.inspect import inspect
from mvv.report import build_report
from tests.broken import as_gltf, make_broken, small_asset
from tests.pipelines.runs import FLAGS, clip_rows, contents, cube, inline, make_cubes, mvv

ROOT = os.geteuid() == 0


class Listener:
    """A server on this machine that counts who connects."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.visits = self._socket.getsockname()[1], 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.visits += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """(folder, cases, dataset, answer of the command, visits over the network)."""
    base = tmp_path_factory.mktemp("batch")
    folder = base / "assets"
    cases = make_broken(folder)
    # Whoever opens the file outside the assets' folders waits until a deadline: a FIFO without a writer.
    (folder / "secret.png").unlink()
    os.mkfifo(folder / "secret.png")
    (folder / "good-a.glb").write_bytes(cube(20))
    (folder / "good-b.glb").write_bytes(cube(21))
    listener = Listener()
    caller = folder / "remote-local" / "asset.gltf"
    caller.parent.mkdir()
    images = [{"uri": f"http://127.0.0.1:{listener.port}/a.png"}]
    caller.write_bytes(as_gltf(small_asset().to_bytes(), lambda document: document.update(images=images)))
    done = mvv(
        "build", folder, "--out", base / "d", *FLAGS, "--workers", 0, "--attempts", 1, "--import-s", 30, "--probe-s", 30
    )
    listener.close()
    return folder, cases, base / "d", done, listener.visits


def test_each_bad_file_is_a_row_with_its_own_reason(batch):
    # Oracle: tests/broken.py. Files with equal bytes: the first by name has the reason, the others are duplicates.
    folder, cases, dataset, done, _ = batch
    assert done.returncode == 0, done.stderr
    assets = {row["source"]: row for row in Dataset.open(dataset).assets()}
    clips = clip_rows(dataset)
    assert len(cases) >= 100
    assert len(assets) == len(cases) + 3
    first: dict[bytes, str] = {}
    for case in sorted(cases, key=lambda case: case.path.relative_to(folder).as_posix()):
        if case.path.exists():
            first.setdefault(case.path.read_bytes(), case.path.relative_to(folder).as_posix())
    wrong = {}
    for case in cases:
        source = case.path.relative_to(folder).as_posix()
        row = assets[source]
        found = row["reason"]
        if row["status"] == "accepted":
            reasons = {clip["reason"] for clip in clips if clip["asset_sha256"] == row["sha256"]}
            found = reasons.pop() if len(reasons) == 1 else reasons
        copy_of_broken = case.path.exists() and first[case.path.read_bytes()] != source
        if found != case.reason and not (copy_of_broken and found == "duplicate-asset"):
            wrong[source] = (found, case.reason, row["detail"])
        assert row["status"] in ("accepted", "rejected")
        assert (row["status"] == "rejected") == (row["reason"] in REASONS) == bool(row["detail"])
    assert not wrong


def test_details_say_what_was_found_and_what_is_expected(batch):
    # Oracle: the form that every message has; the file's name is in the row itself.
    for row in Dataset.open(batch[2]).assets():
        if row["status"] == "rejected":
            assert "found" in row["detail"] or "expected" in row["detail"] or len(row["detail"]) > 20, row
            assert "Traceback" not in row["detail"]
            assert str(batch[0]) not in row["source"]


def test_rest_of_the_batch_is_built(batch, tmp_path):
    # Oracle: the two good assets built alone, and verify.
    _, cases, dataset, _, _ = batch
    built = Dataset.open(dataset)
    accepted = {row["asset_id"] for row in built.clips()}
    assert len(accepted) == sum(case.reason == "" for case in cases) + 2
    assert verify(dataset, decode=True) == []
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "good-a.glb").write_bytes(cube(20))
    (tmp_path / "assets" / "good-b.glb").write_bytes(cube(21))
    inline(tmp_path / "assets", tmp_path / "d")
    alone = Dataset.open(tmp_path / "d")
    for row in alone.clips():
        assert built.sample(row["clip_id"]) == alone.sample(row["clip_id"])
        assert (built.frames(row["clip_id"]) == alone.frames(row["clip_id"])).all()


def test_summary_counts_what_was_refused(batch):
    # Oracle: the rows.
    _, _, dataset, done, _ = batch
    counts = Counter(row["reason"] for row in Dataset.open(dataset).assets() if row["status"] == "rejected")
    assert Dataset.open(dataset).manifest["counts"]["assets"]["rejected"] == sum(counts.values())
    lines = [line.split() for line in done.stdout.splitlines()]
    for reason, count in counts.items():
        assert ["rejected", reason, str(count)] in [line[:3] for line in lines], reason
    assert "Traceback" not in done.stderr


def test_nothing_outside_is_read_or_fetched(batch):
    # Oracle: a FIFO in place of the file outside, on which any reader hangs; a server that counts its visitors.
    _, _, dataset, _, visits = batch
    assert visits == 0
    rows = {row["source"]: row for row in Dataset.open(dataset).assets()}
    assert rows["remote-local/asset.gltf"]["reason"] == "uri-remote"
    outside = [row for source, row in rows.items() if source.startswith("outside-")]
    assert len(outside) >= 11
    assert all(row["status"] == "rejected" for row in outside)


def test_text_of_assets_is_escaped_everywhere(batch, tmp_path):
    # Oracle: the HTML parser's view: no script element of ours comes from the asset.
    dataset = batch[2]
    name = "../../etc/<script>alert(1)</script>"
    assert name in {row["animation_name"] for row in clip_rows(dataset)}
    page = build_report(dataset, tmp_path / "report").read_text()
    assert "<script>alert(1)" not in page
    assert "<script>alert(1)" not in (dataset / "README.md").read_text()
    json.loads((dataset / "croissant.json").read_bytes())
    row = next(row for row in clip_rows(dataset, "accepted") if row["animation_name"] == name)
    assert inspect(dataset, row["clip_id"], out=tmp_path / "sheet.png").exists()
    for path in dataset.rglob("*"):
        assert "script" not in path.name


def test_no_clip_id_leaves_the_allowed_characters(batch):
    # Oracle: the contract's character set, on names with slashes, dots, quotes and other alphabets.
    for row in clip_rows(batch[2]):
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in row["clip_id"] + row["asset_id"]), row["clip_id"]


def test_batch_without_one_good_asset_is_an_empty_dataset(tmp_path):
    # Oracle: verify, the counts and the exit code.
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "empty.glb").write_bytes(b"")
    (tmp_path / "assets" / "static.glb").write_bytes(small_asset(values=[[0, 0, 0]] * 3).to_bytes())
    done = mvv("build", tmp_path / "assets", "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "d") == []
    assert len(Dataset.open(tmp_path / "d")) == 0
    again = mvv("build", tmp_path / "assets", "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_unusable_source_is_one_clear_error(tmp_path, what):
    # Oracle: exit code and the message's parts; nothing is left that would block the next try.
    source = tmp_path / "assets"
    if what == "empty":
        source.mkdir()
    command = ("build", source, "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    done = mvv(*command)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {source}: found no"), done.stderr
    assert "Traceback" not in done.stderr
    make_cubes(source, 1)
    assert mvv(*command).returncode == 0


def test_file_of_another_kind_is_a_row(tmp_path):
    # Oracle: the reader's reason.
    (tmp_path / "notes.txt").write_text("hello")
    inline(tmp_path / "notes.txt", tmp_path / "d")
    [row] = Dataset.open(tmp_path / "d").assets()
    assert (row["status"], row["reason"]) == ("rejected", "not-gltf")


# -- permissions and disks --------------------------------------------------------------------------------------------


def without_override(*command):
    """Run a command as someone whom permissions bind: root without the capability to ignore them."""
    if ROOT:
        caps = "-dac_override,-dac_read_search"
        command = ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", *command)
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def bound(tmp_path):
    """Skips where permissions cannot be made to bind."""
    if ROOT and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there and root ignores permissions")
    probe = tmp_path / "closed"
    probe.mkdir()
    probe.chmod(0)
    script = f"import os; os.listdir({str(probe)!r})"
    done = without_override(sys.executable, "-c", script)
    probe.chmod(0o700)
    if "PermissionError" not in done.stderr:
        pytest.skip(f"permissions do not bind here: {done.stderr[-200:]}")


def test_folder_without_permission_is_a_clear_error(bound, tmp_path):
    # Oracle: exit code and the message's parts; the same command goes on once the permissions are mended.
    assets = make_cubes(tmp_path / "assets", 1)
    inner = make_cubes(assets / "inner", 1, first=1)
    command = (sys.executable, "-m", "mvv.cli", "build", assets, "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    inner.chmod(0)
    try:
        done = without_override(*command)
    finally:
        inner.chmod(0o700)
    assert done.returncode == 1, done
    assert done.stderr.startswith(f"error: {inner}: found Permission denied"), done.stderr
    assert "mend its permissions" in done.stderr
    assert without_override(*command).returncode == 0
    assert verify(tmp_path / "d") == []


def test_file_without_permission_is_a_row(bound, tmp_path):
    # Oracle: the row's reason; the other asset is built.
    assets = make_cubes(tmp_path / "assets", 2)
    (assets / "cube1.glb").chmod(0)
    command = (sys.executable, "-m", "mvv.cli", "build", assets, "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    assert without_override(*command).returncode == 0
    rows = {row["source"]: row for row in Dataset.open(tmp_path / "d").assets()}
    assert (rows["cube1.glb"]["status"], rows["cube1.glb"]["reason"]) == ("rejected", "unreadable")
    assert len(Dataset.open(tmp_path / "d")) == 2


@pytest.mark.parametrize("made", [False, True])
def test_dataset_folder_without_permission_is_a_clear_error(bound, tmp_path, made):
    # Oracle: exit code and the message's parts.
    assets = make_cubes(tmp_path / "assets", 1)
    parent = tmp_path / "parent"
    (parent / "d" if made else parent).mkdir(parents=True)
    (parent / "d" if made else parent).chmod(0o500)
    try:
        done = without_override(
            sys.executable, "-m", "mvv.cli", "build", assets, "--out", parent / "d", *FLAGS, "--workers", 0
        )
    finally:
        (parent / "d" if made else parent).chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert "Permission denied" in done.stderr
    assert "repeat the same command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a tmpfs its size in kB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if not ROOT or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")

    def resize(kilobytes: int) -> Path:
        options = f"remount,size={kilobytes}k"
        subprocess.run(["mount", "-o", options, str(folder)], check=True, capture_output=True)
        return folder

    yield resize
    subprocess.run(["umount", "-l", str(folder)], check=True)


FEW, MANY = (16, 48, 80, 112, 144, 4096), (*range(16, 200, 8), 4096)


@pytest.mark.parametrize("sizes", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_full_disk_loses_nothing_at_any_size(small_disk, tmp_path, sizes):
    # Oracle: the build on a large disk. The disk grows a little each time, so it is full at many places of the build.
    assets = make_cubes(tmp_path / "assets", 4)
    inline(assets, tmp_path / "large")
    out, refusals = small_disk(16) / "d", 0
    for size in sizes:
        small_disk(size)
        done = mvv("build", assets, "--out", out, *FLAGS, "--workers", 0)
        assert "Traceback" not in done.stderr, f"{size} kB: {done.stderr}"
        if done.returncode == 0:
            break
        refusals += 1
        assert done.returncode == 1, f"{size} kB: {done.stderr}"
        last = done.stderr.strip().splitlines()[-1]
        assert "No space left on device" in last, f"{size} kB: {done.stderr}"
        assert "repeat the same command" in last, f"{size} kB: {done.stderr}"
    assert refusals >= 3
    assert contents(out) == contents(tmp_path / "large")
    assert verify(out) == []
    assert not list(out.rglob(".*.attempt"))
    assert sha256_file(out / "shards" / "train-00000.tar") == sha256_file(tmp_path / "large/shards/train-00000.tar")
