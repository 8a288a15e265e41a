"""The command line: help that teaches, errors in one line, exit codes, and what each command leaves.

Oracle: the documented options and codes, pandas for the tables, and the rooms' own results.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.dataset import Dataset
from manifests.verify import verify
from mvv.cli import main
from tests.broken import small_asset
from tests.pipelines.runs import FLAGS, clip_rows, cube, inline, make_cubes, mvv, tiny

COMMANDS = {
    "assets make": ["--out", "--count", "--seed"],
    "assets scan": ["--out"],
    "clips": ["--out", "--preset"],
    "build": [
        "--out", "--preset", "--views", "--frames", "--fps", "--size", "--samples", "--max-animations", "--seed",
        "--workers", "--ray-address", "--append", "--retry-failed", "--accept-failures", "--lights", "--stretch",
    ],
    "still": ["--out", "--preset", "--pose", "--depth", "--normals"],
    "verify": ["--decode"],
    "inspect": ["--out"],
    "report": ["--out"],
    "doctor": [],
}  # fmt: skip
OBJ = """mtllib m.mtl
v -1 -1 0
v 1 -1 0
v 1 1 0
v -1 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vt 0.5 0.5
usemtl paint
f 1/1 2/2 5/5
f 2/2 3/3 5/5
f 3/3 4/4 5/5
f 4/4 1/1 5/5
f 4/4 3/3 2/2 1/1
"""
STILL = ("--preset", "eval-3to4d", "--samples", "4", "--size", "32", "--workers", "0")


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """(assets, dataset); not to be changed."""
    base = tmp_path_factory.mktemp("cubes")
    inline(make_cubes(base / "assets", 2), base / "dataset")
    return base / "assets", base / "dataset"


@pytest.fixture
def call(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in arguments])
        return exit.value.code or 0, *capsys.readouterr()

    return run


def test_help_needs_none_of_the_heavy_packages():
    # Oracle: the process itself; none of the heavy packages may be needed for it.
    script = "import sys\nfrom mvv.cli import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "mvv build" in done.stdout
    assert not any(f"'{name}'" in done.stdout for name in ("bpy", "ray", "torch", "datasets", "webdataset"))


def test_overview_names_every_command_and_a_first_dataset(call):
    # Oracle: the list of commands.
    for arguments in ([], ["--help"], ["-h"]):
        code, said, _ = call(*arguments)
        assert code == 0
        for name in COMMANDS:
            assert f"mvv {name}" in said
        assert "--preset demo" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_tells_its_options(call, name):
    # Oracle: the documented options, each with a sentence after it.
    code, said, _ = call(*name.split(), "--help")
    assert code == 0
    assert f"usage: mvv {name}" in said
    for option in COMMANDS[name]:
        assert option in said, option
    if name in ("build", "still", "clips"):
        for preset in ("mv-video", "demo", "eval-animate3d", "eval-3to4d"):
            assert preset in said


def test_defaults_shown_are_those_of_the_preset(call):
    # Oracle: design's table of presets.
    assert "(default: 128)" in call("build", "--preset", "demo", "--help")[1]
    assert "(default: 1024)" in call("build", "--preset=eval-animate3d", "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["biuld", "x"], "did you mean `mvv build`?"),
        (["assets", "mkae"], "did you mean `mvv assets make`?"),
        (["xyzzy"], "see `mvv --help`"),
        (["build", "x", "--out", "y", "--preset", "mv-vidoe"], "did you mean mv-video?"),
        (["build", "x", "--out", "y", "--preset", "eval-3to4d", "--views", "5"], "this preset's cameras are fixed"),
        (["build", "x", "--out", "y", "--size", "4"], "found 4, expected 8 to 8192 pixels"),
        (["build", "x", "--out", "y", "--workers", "-1"], "found -1, expected 0 or more"),
        (["build", "x", "--out", "y", "--frame-s", "0"], "expected seconds above 0"),
        (["build", "x", "--out", "y", "--splits", "train"], "NAME:SHARE"),
        (["assets", "scan", "--out", "t.parquet"], "expected at least one file or folder"),
        (["verify", "nowhere"], "expected a finished dataset"),
        (["inspect", "nowhere"], "nowhere"),
        (["report", "nowhere", "--out", "r"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_clear_error(call, tmp_path, monkeypatch, arguments, hint):
    # Oracle: the hint; an exit code that is not 0; no traceback, nothing written.
    monkeypatch.chdir(tmp_path)
    code, said, errors = call(*arguments)
    assert code in (1, 2)
    assert hint in " ".join((said + errors).split())
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_one_clear_error(call, tmp_path, cubes):
    # Oracle: exit code and text; a file stands where a folder is wanted, so it holds for root as well.
    (tmp_path / "file").write_text("")
    for command in (
        ("assets", "scan", cubes[0], "--out", tmp_path / "file" / "a.parquet"),
        ("assets", "make", "--out", tmp_path / "file" / "a", "--count", 1),
        ("report", cubes[1], "--out", tmp_path / "file" / "r"),
        ("build", cubes[0], "--out", tmp_path / "file" / "d", *FLAGS, "--workers", 0),
    ):
        code, _, errors = call(*command)
        assert code == 1, command
        assert errors.startswith("error: "), errors
        assert "Not a directory" in errors or "File exists" in errors


def test_unknown_option_is_named(call):
    # Oracle: argument errors exit with 2.
    code, _, errors = call("build", "x", "--out", "y", "--sizes", "32")
    assert code == 2
    assert "--sizes" in errors


def test_assets_make_is_deterministic_and_says_what_is_next(tmp_path):
    # Oracle: the bytes of two runs.
    for name in "ab":
        done = mvv("assets", "make", "--out", tmp_path / name, "--count", 2, "--seed", 3)
        assert done.returncode == 0
        assert "mvv build" in done.stdout
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]
    assert len([name for name in files[0] if name.endswith(".glb")]) == 2


def test_assets_scan_writes_a_table_for_pandas(tmp_path, cubes):
    # Oracle: pandas, and the files.
    (tmp_path / "copy.glb").write_bytes((cubes[0] / "cube0.glb").read_bytes())
    out = tmp_path / "assets.parquet"
    done = mvv("assets", "scan", cubes[0], tmp_path / "copy.glb", "--out", out)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(out)
    assert sorted(table["source"]) == ["copy.glb", "cube0.glb", "cube1.glb"]
    assert table.set_index("source")["reason"].to_dict() == {
        "copy.glb": "", "cube0.glb": "duplicate-asset", "cube1.glb": "",
    }  # fmt: skip
    assert table["license"].tolist() == ["CC0-1.0"] * 3
    assert table["sha256"].str.len().tolist() == [64] * 3
    assert not table["source"].str.startswith("/").any()
    built = mvv("build", out, "--out", tmp_path / "d", *FLAGS, "--workers", 0)
    assert built.returncode == 0, built.stderr
    assert len(Dataset.open(tmp_path / "d")) == 4


def test_clips_writes_the_verdicts(tmp_path, cubes):
    # Oracle: the build's rows.
    done = mvv("clips", cubes[0], "--out", tmp_path / "clips.parquet", *FLAGS, "--workers", 0)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "clips.parquet")
    assert sorted(table["clip_id"]) == sorted(row["clip_id"] for row in clip_rows(cubes[1]))


def test_verify_tells_what_is_wrong_and_exits_with_1(tmp_path, cubes):
    # Oracle: a byte that is flipped here.
    import shutil

    assert mvv("verify", cubes[1], "--decode").returncode == 0
    shutil.copytree(cubes[1], tmp_path / "d")
    tar = tmp_path / "d" / "shards" / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(data)
    done = mvv("verify", tmp_path / "d")
    assert done.returncode == 1
    assert "train-00000.tar: found" in done.stdout
    assert "Traceback" not in done.stderr


def test_inspect_and_report_leave_their_files(tmp_path, cubes):
    # Oracle: a PNG of views x frames, and a page.
    clip = clip_rows(cubes[1], "accepted")[0]["clip_id"]
    done = mvv("inspect", cubes[1], clip, "--out", tmp_path / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "sheet.png").size > (24 * 4, 24 * 2)
    done = mvv("report", cubes[1], "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "file://" in done.stdout
    assert (tmp_path / "report" / "index.html").exists()


# -- stills -----------------------------------------------------------------------------------------------------------


def still_of(dataset):
    [row] = Dataset.open(dataset).clips()
    return row, Dataset.open(dataset).sample(row["clip_id"])


def test_still_of_a_model_at_rest(tmp_path):
    # Oracle: the contract for stills; depth against the camera's distance.
    (tmp_path / "cube.glb").write_bytes(small_asset(animated=False).to_bytes())
    done = mvv("still", tmp_path / "cube.glb", "--out", tmp_path / "d", *STILL, "--depth", "--normals")
    assert done.returncode == 0, done.stderr
    row, sample = still_of(tmp_path / "d")
    assert row["clip_id"].endswith("-still-00")
    assert (sample["animation"]["index"], sample["times_s"]) == (-1, [0.0])
    assert verify(tmp_path / "d", decode=True) == []
    dataset = Dataset.open(tmp_path / "d")
    frames, depth = dataset.frames(row["clip_id"]), dataset.depth(row["clip_id"])
    assert frames.shape == (4, 1, 32, 32, 4)
    solid = frames[..., 3] == 255
    assert solid.any(axis=(1, 2, 3)).all()
    side = 1 / np.sqrt(3) / 2  # half an edge of a cube in a sphere of radius 0.5
    assert abs(np.nanmin(depth) - (1.5 - side)) < 1e-3  # seen straight from the front
    normals = dataset.series(row["clip_id"], "normals")
    assert abs(np.abs(normals[solid]).max(axis=-1) - 1).max() < 0.02


def test_still_of_an_obj_with_a_texture(tmp_path):
    # Oracle: the texture's colour dominates.
    (tmp_path / "m.obj").write_text(OBJ)
    (tmp_path / "m.mtl").write_text("newmtl paint\nKd 1 1 1\nmap_Kd t.png\n")
    Image.new("RGB", (8, 8), (220, 20, 20)).save(tmp_path / "t.png")
    done = mvv("still", tmp_path / "m.obj", "--out", tmp_path / "d", *STILL)
    assert done.returncode == 0, done.stderr
    row, _ = still_of(tmp_path / "d")
    frames = Dataset.open(tmp_path / "d").frames(row["clip_id"])
    seen = frames[frames[..., 3] == 255].astype(float)
    assert len(seen) > 50
    assert seen[:, 0].mean() > 2 * seen[:, 1:3].mean()
    assert verify(tmp_path / "d") == []


@pytest.mark.parametrize("name", ["0", "move"])
def test_still_of_an_animation_is_the_clip_at_that_time(tmp_path, name):
    # Oracle: the geometry of the clip's frame at that time, with its own normalisation given; depth has no noise.
    (tmp_path / "cube.glb").write_bytes(cube(3))
    cameras = {"azimuths_deg": (30.0, 120.0), "elevations_deg": (10.0, 20.0)}
    inline(tmp_path / "cube.glb", tmp_path / "d", tiny(depth=True, size=32, **cameras))
    dataset = Dataset.open(tmp_path / "d")
    row = next(row for row in dataset.clips() if row["window"] == 0)
    sample = dataset.sample(row["clip_id"])
    time_s, given = sample["times_s"][2], sample["normalization"]
    done = mvv(
        "still", tmp_path / "cube.glb", "--out", tmp_path / "s", *FLAGS, "--size", 32, "--workers", 0, "--depth",
        "--pose", f"{name}@{time_s}", "--normalization", "given", "--given-scale", given["scale"],
        "--given-center", *given["center"], "--azimuths-deg", 30, 120, "--elevations-deg", 10, 20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    still, posed = still_of(tmp_path / "s")
    assert posed["times_s"] == [time_s]
    assert posed["animation"]["name"] == "move"
    assert posed["cameras"]["c2w"] == sample["cameras"]["c2w"]
    a = Dataset.open(tmp_path / "s").depth(still["clip_id"])[:, 0]
    b = dataset.depth(row["clip_id"])[:, 2]
    assert np.isfinite(a).any()
    assert np.array_equal(np.isnan(a), np.isnan(b))
    assert np.nanmax(abs(a - b)) <= 1 / 16384


@pytest.mark.parametrize("pose", ["run@1", "move", "move@soon", "7@0"])
def test_unknown_pose_is_told_with_those_that_there_are(tmp_path, pose):
    # Oracle: the message's parts.
    (tmp_path / "cube.glb").write_bytes(cube())
    done = mvv("still", tmp_path / "cube.glb", "--out", tmp_path / "d", *STILL, "--pose", pose)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith(f'error: --pose: found "{pose}", expected bind or ANIMATION@SECONDS')
    assert '0 "move"' in error
    if pose == "run@1":  # a slip does not spoil the folder
        assert mvv("still", tmp_path / "cube.glb", "--out", tmp_path / "d", *STILL, "--pose", "move@1").returncode == 0
        assert verify(tmp_path / "d") == []
