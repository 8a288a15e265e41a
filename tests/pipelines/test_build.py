"""Builds: the same bytes whatever the workers, and what further runs of the command do to a dataset.

The oracle is mostly another run: one without Ray, without haste and without disturbance.
"""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from manifests.dataset import Dataset
from manifests.errors import DatasetError, InputError
from manifests.verify import verify
from pipelines.build import RunOptions, build
from pipelines.progress import Progress
from tests.pipelines.runs import (
    FLAGS,
    Killer,
    clip_rows,
    contents,
    cube,
    driver,
    inline,
    make_cubes,
    mvv,
    reference,
    render_children,
    tiny,
    wait_for,
)  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """(assets, dataset) that an undisturbed run made; not to be changed."""
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """(assets, dataset) of three cubes with two clips each; not to be changed."""
    base = tmp_path_factory.mktemp("cubes")
    inline(make_cubes(base / "assets"), base / "dataset")
    return base / "assets", base / "dataset"


@pytest.fixture(scope="module")
def ray_cluster():
    """An embedded Ray that the builds of this module share, because its start takes long."""
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False,
        object_store_memory=80 << 20,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def state_of(folder):
    """(path, bytes, mtime) of every file."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("lock", "heartbeat.json")
    }


def failed_note(dataset):
    def there():
        for path in (dataset / ".build" / "staging").glob("*/*.json"):
            try:
                if json.loads(path.read_bytes())["status"] == "failed":
                    return True
            except (OSError, ValueError):
                continue
        return False

    return there


def staged(dataset, count=1):
    return lambda: len(list((dataset / ".build" / "staging").glob("*/*.part"))) >= count


def build_with_failures(assets, dataset, **more):
    """A build that accepts failures, while Blender is killed until a clip has failed."""
    with Killer(render_children, staged(dataset, 2), failed_note(dataset)) as killer:
        summary = inline(assets, dataset, accept_failures=True, **more)
    assert killer.kills
    assert summary.failed >= 1
    return summary


def test_reference_is_whole(zoo):
    # Oracle: verify, with every image decoded, and the counts of the plan.
    _, dataset = zoo
    assert verify(dataset, decode=True) == []
    rows = clip_rows(dataset, "accepted")
    assert len(rows) == len(Dataset.open(dataset)) == 12
    assert [row["shard"] for row in rows] == ["train-00000"] * 4 + ["train-00001"] * 4 + ["train-00002"] * 4
    assert all(row["motion_peak_displacement"] > 0.01 and row["quality_coverage_mean"] > 0 for row in rows)
    left = {path.name for path in (dataset / ".build").iterdir()}
    assert left <= {"lock", "state.json", "assets-000.parquet", "rejected-000.parquet", "plan-000.parquet"}


@pytest.mark.parametrize("workers", [1, 2])
def test_tars_are_the_same_for_any_number_of_workers(zoo, tmp_path, ray_cluster, workers):
    # Oracle: the run without Ray.
    assets, dataset = zoo
    summary = inline(assets, tmp_path / "d", workers=workers)
    assert (summary.rendered, summary.failed) == (12, 0)
    assert contents(tmp_path / "d") == contents(dataset)


def test_two_clips_of_one_asset_on_two_workers_are_the_same(tmp_path, ray_cluster):
    # Oracle: the run without Ray. Both workers are asked to help as soon as there is only one asset left.
    (tmp_path / "one.glb").write_bytes(cube(5, ("a", "b")))
    inline(tmp_path / "one.glb", tmp_path / "alone")
    inline(tmp_path / "one.glb", tmp_path / "together", workers=2)
    assert len(clip_rows(tmp_path / "alone", "accepted")) == 4
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


def test_killed_ray_worker_changes_no_byte(zoo, tmp_path, ray_cluster):
    # Oracle: the undisturbed run. The worker that holds a Blender process is killed while it renders.
    assets, dataset = zoo
    out = tmp_path / "d"

    def workers():
        return [child.parent() for child in render_children()]

    with Killer(workers, staged(out), lambda: False, most=1) as killer:
        summary = inline(assets, out, workers=2)
    assert killer.kills == 1
    assert summary.failed == 0
    assert contents(out) == contents(dataset)


def test_killed_blender_changes_no_byte(zoo, tmp_path):
    # Oracle: the undisturbed run. Two kills, so that a clip can need all three of its attempts.
    assets, dataset = zoo
    out = tmp_path / "d"
    with Killer(render_children, staged(out), lambda: False, most=2) as killer:
        summary = inline(assets, out)
    assert killer.kills == 2
    assert summary.failed == 0
    assert contents(out) == contents(dataset)
    assert verify(out) == []


def test_finished_build_does_nothing_and_says_so(zoo):
    # Oracle: every byte and every time stamp, and the clock.
    assets, dataset = zoo
    before, began = state_of(dataset), time.monotonic()
    done = mvv("build", assets, "--out", dataset, *FLAGS)
    assert time.monotonic() - began < 10
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done
    assert state_of(dataset) == before


def test_relative_out_folder_is_meant_from_here(tmp_path, monkeypatch):
    # Oracle: the file system. The render processes have working folders of their own.
    make_cubes(tmp_path / "assets", 1)
    monkeypatch.chdir(tmp_path)
    inline("assets", "dataset")
    assert verify("dataset") == []
    assert len(clip_rows(tmp_path / "dataset", "accepted")) == 2


def test_new_asset_is_refused_without_append_by_name(cubes, tmp_path):
    # Oracle: the message's parts, and a folder that did not change.
    shutil.copytree(cubes[0], tmp_path / "assets")
    shutil.copytree(cubes[1], tmp_path / "d")
    make_cubes(tmp_path / "assets", 1, first=7)
    before = state_of(tmp_path / "d")
    with pytest.raises(InputError, match=r"found 1 assets that are not in .*cube7\.glb.*--append"):
        inline(tmp_path / "assets", tmp_path / "d")
    assert state_of(tmp_path / "d") == before


def test_append_adds_shards_and_leaves_the_old_ones(cubes, tmp_path):
    # Oracle: the old files' bytes, and a build of the new asset alone for the new clips.
    shutil.copytree(cubes[0], tmp_path / "assets")
    shutil.copytree(cubes[1], tmp_path / "d")
    old = contents(tmp_path / "d")
    make_cubes(tmp_path / "assets", 1, first=7)
    summary = inline(tmp_path / "assets", tmp_path / "d", append=True)
    assert (summary.rendered, summary.counts["clips"], summary.counts["models"]) == (2, 8, 4)
    now = contents(tmp_path / "d")
    assert all(now[name] == value for name, value in old.items() if name != "fingerprint")
    assert now["fingerprint"] != old["fingerprint"]
    assert sorted(set(now) - set(old)) == ["index/train-00002.parquet", "shards/train-00002.tar"]
    assert verify(tmp_path / "d") == []
    inline(make_cubes(tmp_path / "alone", 1, first=7), tmp_path / "d1")
    a, b = Dataset.open(tmp_path / "d"), Dataset.open(tmp_path / "d1")
    for row in b.clips():
        assert a.sample(row["clip_id"]) == b.sample(row["clip_id"])
        assert (a.frames(row["clip_id"]) == b.frames(row["clip_id"])).all()
    assert inline(tmp_path / "assets", tmp_path / "d").finished_before


def test_build_of_fewer_assets_keeps_those_that_are_in(cubes, tmp_path):
    # Oracle: the dataset before. A scan that misses a file takes nothing away.
    shutil.copytree(cubes[1], tmp_path / "d")
    (tmp_path / "assets").mkdir()
    shutil.copy2(cubes[0] / "cube0.glb", tmp_path / "assets")
    assert inline(tmp_path / "assets", tmp_path / "d").finished_before
    assert contents(tmp_path / "d") == contents(cubes[1])


def test_other_config_is_refused_by_field(cubes):
    # Oracle: the fields that were changed.
    with pytest.raises(InputError) as error:
        inline(cubes[0], cubes[1], tiny(frames=5, seed=3, lights="random"))
    for field in ("motion.frames: 5 here, 4 there", "seed: 3 here, 0 there", "render.lights: random here"):
        assert field in str(error.value)
    with pytest.raises(InputError, match="pose"):
        inline(cubes[0], cubes[1], pose="bind")


def test_foreign_folder_is_refused(cubes, tmp_path):
    # Oracle: the folder is left alone.
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        inline(cubes[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_second_driver_is_refused(cubes, tmp_path):
    # Oracle: the first driver's process id, and its result.
    out = tmp_path / "d"
    with driver("build", cubes[0], "--out", out, *FLAGS, "--workers", 0) as first:
        assert wait_for((out / ".build" / "heartbeat.json").exists, first)
        with pytest.raises(DatasetError, match=rf"found a running build \(process {first.pid} on"):
            inline(cubes[0], out)
        assert first.wait(timeout=120) == 0
    assert contents(out) == contents(cubes[1])


def test_deleted_tar_is_made_again(zoo, tmp_path):
    # Oracle: its bytes before; only its clips are rendered.
    assets, dataset = zoo
    shutil.copytree(dataset, tmp_path / "d")
    (tmp_path / "d" / "shards" / "train-00001.tar").unlink()
    summary = inline(assets, tmp_path / "d")
    assert (summary.rendered, summary.finished_before) == (4, False)
    assert contents(tmp_path / "d") == contents(dataset)
    assert verify(tmp_path / "d") == []


def test_failures_are_rows_and_a_retry_gives_the_undisturbed_bytes(zoo, tmp_path):
    # Oracle: the undisturbed run; and the accepted clips of the first run, which must not be rendered again.
    assets, dataset = zoo
    out = tmp_path / "d"
    first = build_with_failures(assets, out)
    failed = clip_rows(out, "failed")
    assert len(failed) == first.failed == sum(first.counts["failed"].values())
    for row in failed:
        assert (row["reason"], row["position"], row["attempts"]) == ("crash", -1, 1)
        phase, _, rest = row["detail"].partition(": ")
        assert phase.split()[0] in ("import", "frame", "write"), row["detail"]
        assert rest.startswith("the process ended with signal SIGKILL")
    assert verify(out) == []
    assert first.counts["clips"] == 12 - len(failed)
    again = inline(assets, out)
    assert (again.finished_before, again.failed) == (True, len(failed))
    last = inline(assets, out, retry_failed=True)
    assert (last.rendered, last.failed, last.counts["clips"]) == (len(failed), 0, 12)
    assert contents(out) == contents(dataset)
    assert verify(out) == []
    assert clip_rows(out, "failed") == []


def test_shard_of_failures_only_keeps_the_numbering(cubes, tmp_path):
    # Oracle: verify, and the undisturbed run after a retry.
    out = tmp_path / "d"
    with Killer(render_children, lambda: (out / ".build" / "staging").exists(), lambda: False):
        summary = inline(cubes[0], out, accept_failures=True)
    assert summary.failed >= 1
    assert verify(out) == []
    inline(cubes[0], out, retry_failed=True)
    assert contents(out) == contents(cubes[1])


class Saboteur(Progress):
    """Puts other bytes in a file's place when the rendering begins, and says when it was told of a failure."""

    def __init__(self, path, *, stop=False):
        self.path, self.stop, self.good, self.failures = path, stop, path.read_bytes(), 0

    def stage(self, name, total, done=0):
        if name == "render":
            self.path.write_bytes(cube(99))

    def trouble(self, text, *, failed):
        self.failures += failed

    def advance(self, pieces=1, images=0):
        if self.stop and self.failures:
            raise KeyboardInterrupt

    def mend(self):
        self.path.write_bytes(self.good)


def test_failed_rows_carry_phase_cause_and_log_lines(cubes, tmp_path):
    # Oracle: an asset that changes under the build; then the undisturbed run.
    assets, out = shutil.copytree(cubes[0], tmp_path / "assets"), tmp_path / "d"
    saboteur = Saboteur(assets / "cube1.glb")
    summary = build(assets, out, tiny(), RunOptions(workers=0, attempts=2), progress=saboteur)
    failed = clip_rows(out, "failed")
    assert summary.failed == saboteur.failures == len(failed) == 2
    for row in failed:
        assert (row["reason"], row["attempts"], row["shard"] != "") == ("error", 2, True)
        first, *log = row["detail"].splitlines()
        assert first.startswith("import: RuntimeError: cube1.glb: found sha256")
        # Blender's own complaints about the machine may come first.
        assert any(line.startswith("Traceback") for line in log)
        assert 2 < len(log) <= 20
    assert verify(out) == []
    saboteur.mend()
    assert inline(assets, out, retry_failed=True).failed == 0
    assert contents(out) == contents(cubes[1])


def test_retry_reaches_failures_of_a_run_that_was_stopped_before_packing(cubes, tmp_path):
    # Oracle: the undisturbed run. The failed clip has a note in staging only, no shard names it yet.
    assets, out = shutil.copytree(cubes[0], tmp_path / "assets"), tmp_path / "d"
    saboteur = Saboteur(assets / "cube0.glb", stop=True)
    with pytest.raises(KeyboardInterrupt):
        build(assets, out, tiny(), RunOptions(workers=0, attempts=1), progress=saboteur)
    assert failed_note(out)()
    saboteur.mend()
    assert inline(assets, out, retry_failed=True).failed == 0
    assert contents(out) == contents(cubes[1])


def test_failed_asset_is_a_row_and_can_be_tried_again(tmp_path):
    # Oracle: a build of the same assets with nothing in the way.
    assets = make_cubes(tmp_path / "assets", 2)
    out = tmp_path / "d"
    with Killer(render_children, lambda: (out / ".build" / "assets-000.parquet").exists(),
                lambda: (out / ".build" / "plan-000.parquet").exists()):  # fmt: skip
        summary = inline(assets, out, accept_failures=True)
    rows = {row["source"]: row for row in Dataset.open(out).assets()}
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert len(failed) == summary.counts["assets"].get("failed", 0) >= 1
    # Killed while it starts or while it probes, whichever the killer met.
    assert all(row["reason"] == "crash" and row["detail"][:5] in ("start", "probe") for row in failed)
    assert verify(out) == []
    assert inline(assets, out).finished_before
    summary = inline(assets, out, retry_failed=True)
    assert (summary.failed, summary.counts["clips"]) == (0, 4)
    assert verify(out) == []
    assert [row["status"] for row in Dataset.open(out).assets()] == ["accepted"] * 2
    assert summary.counts["models"] == 2


def test_command_exits_with_3_when_rows_failed(cubes, tmp_path):
    # Oracle: the documented exit code and what the text promises.
    out = tmp_path / "d"
    command = ("build", cubes[0], "--out", out, *FLAGS, "--workers", 0)
    with driver(*command, "--accept-failures") as process:
        wait_for(staged(out, 1), process)
        while not failed_note(out)() and process.poll() is None:
            for child in render_children(process.pid):
                child.kill()
            time.sleep(0.05)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 3, errors
    assert "--retry-failed" in said
    assert "crash" in said
    assert "failed: " in errors
    assert "Traceback" not in errors
    again = mvv(*command)
    assert (again.returncode, "nothing to do" in again.stdout) == (3, True)
    assert mvv(*command, "--retry-failed").returncode == 0
    assert contents(out) == contents(cubes[1])


def test_config_fields_reach_the_samples(tmp_path):
    # Oracle: the JSON and the modalities of the dataset.
    short = cube(1, ("short",), seconds=1.0)
    writer_free = tmp_path / "a.glb"
    writer_free.write_bytes(short)
    config = tiny(lights="random", stretch=True, depth=True, normals=True, frames=12, normalization="frame0", seed=5)
    inline(writer_free, tmp_path / "d", config)
    dataset = Dataset.open(tmp_path / "d")
    [row] = dataset.clips()
    sample = dataset.sample(row["clip_id"])
    assert sample["render"]["lights"]["rig"] == "random"
    assert 2 <= len(sample["render"]["lights"]["lights"]) <= 4
    assert sample["normalization"]["mode"] == "frame0"
    assert len(sample["times_s"]) == 12
    assert sorted(dataset.modalities) == ["depth", "normals", "rgb"]
    assert verify(tmp_path / "d", decode=True) == []
    alpha = dataset.frames(row["clip_id"])[..., 3]
    depth, normals = dataset.depth(row["clip_id"]), dataset.series(row["clip_id"], "normals")
    assert depth.shape == alpha.shape
    solid = alpha == 255
    assert (abs(depth[solid] - 1.5) < 0.9).mean() > 0.99
    assert abs((normals[solid] ** 2).sum(-1) - 1).max() < 0.05


def test_stretch_samples_the_whole_of_a_short_animation(tmp_path):
    # Oracle: the animation's own length: last time = its end, fps follows.
    writer_bytes = cube(1, ("once",), seconds=0.4)
    from tests.broken import patched

    def cut(document):  # an animation that ends away from its start: only the first two keys
        for accessor in document["accessors"]:
            if accessor.get("count") == 3:
                accessor["count"] = 2
                accessor.pop("max", None), accessor.pop("min", None)

    (tmp_path / "a.glb").write_bytes(patched(writer_bytes, cut))
    rejected = inline(tmp_path / "a.glb", tmp_path / "d0")
    assert rejected.counts["clips"] == 0
    assert [row["reason"] for row in clip_rows(tmp_path / "d0")] == ["too-short"]
    inline(tmp_path / "a.glb", tmp_path / "d1", tiny(stretch=True))
    dataset = Dataset.open(tmp_path / "d1")
    [row] = dataset.clips()
    sample = dataset.sample(row["clip_id"])
    assert sample["times_s"][0] == 0.0
    assert sample["times_s"][-1] == pytest.approx(0.2, abs=1e-6)
    assert sample["window"]["time_scale"] != 1.0
    assert sample["fps"] == pytest.approx(3 / 0.2, rel=1e-6)


def test_random_lights_differ_between_clips_and_not_between_views(tmp_path):
    # Oracle: the recorded rigs; and the same clip alone, after another history of the process.
    assets = make_cubes(tmp_path / "assets", 2)
    inline(assets, tmp_path / "d", tiny(lights="random"))
    inline(assets / "cube1.glb", tmp_path / "d1", tiny(lights="random"))
    dataset, alone = Dataset.open(tmp_path / "d"), Dataset.open(tmp_path / "d1")
    rigs = [json.dumps(dataset.sample(row["clip_id"])["render"]["lights"]) for row in dataset.clips()]
    assert len(set(rigs)) == len(rigs) == 4
    for row in alone.clips():
        assert (alone.frames(row["clip_id"]) == dataset.frames(row["clip_id"])).all()


def test_changed_file_between_scan_and_build_is_told(tmp_path):
    # Oracle: the two hashes in the message. The table says one content, the file has another.
    (tmp_path / "a.glb").write_bytes(cube(1))
    assert mvv("assets", "scan", tmp_path / "a.glb", "--out", tmp_path / "assets.parquet").returncode == 0
    (tmp_path / "a.glb").write_bytes(cube(2))
    summary = inline(tmp_path / "assets.parquet", tmp_path / "d")
    [row] = Dataset.open(tmp_path / "d").assets()
    assert (row["status"], summary.failed) == ("failed", 1)
    assert "scan the assets again" in row["detail"]
    assert os.path.exists(tmp_path / "d" / "dataset.json")
