"""Whole runs from a file to its folder: what lies there, how they go on, and when they are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from animate.run.job import RECORD, SETTINGS
from animate.run.opened import memory_gib
from animate.run.stage import CHECKPOINT, LOG
from animate.run.target import TARGET
from animate.subject.ply import read_ply
from eval.decode import read_video
from eval.inputs.kinds import detect, open_input
from eval.protocols import PROTOCOLS
from manifests.errors import InputError
from manifests.gltf import Poser, read
from tests.animate.tiny_jobs import FRAMES, PROMPT, SIZE, VIEWS, Remembering, start, tiny, write_cube_scene
from tests.animate.tiny_motion import START_S, write_sliding_cube
from tests.tiny_dataset import make_sample, make_tiny_dataset

STAGES = {
    "animate3d-mesh": {"reconstruction": 6},
    "animate3d": {"reconstruction": 6, "refinement": 2},
    "threetofour": {"static": 3, "dynamic": 3, "mesh": 6},
}


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return write_sliding_cube(tmp_path_factory.mktemp("cube") / "cube.glb")


def oracle(cube: Path) -> str:
    return f"oracle:{cube}#slide"


@pytest.fixture(scope="module")
def runs(cube, tmp_path_factory):
    """A finished run of each method on the mesh, made when it is first asked for."""
    made = {}

    def run(method: str):
        if method not in made:
            out = tmp_path_factory.mktemp(method) / "out"
            made[method] = (out, *start(cube, out, tiny(method), oracle(cube)))
        return made[method]

    return run


def positions(path: Path, animation: int | None, times_s: list[float]) -> np.ndarray:
    """(F, N, 3) of all parts, as our own reader has them."""
    return np.concatenate(Poser(read(path)).positions(animation, np.array(times_s)), axis=1)


@pytest.mark.parametrize("method", STAGES)
def test_run_leaves_what_it_says(runs, method):
    """Oracle: the list of its summary and record against the folder; steps, previews and losses as they were told."""
    out, done, watcher = runs(method)
    record = json.loads((out / RECORD).read_text())
    assert not done.was_finished
    assert tuple(record["files"]) == done.files
    for name in done.files:
        path = out / name
        assert path.is_dir() if name.endswith("/") else path.stat().st_size > 0, name
    wanted = {"animated.glb", "animated.usdz", "frames/", "videos/"}
    wanted |= {"gaussians/"} if method == "animate3d" else {"videos/field.mp4"} if method == "threetofour" else set()
    assert set(done.files) == wanted
    assert watcher.steps == [(n, k + 1, total) for n, total in STAGES[method].items() for k in range(total)]
    assert {name for name, _ in watcher.shown} == set(STAGES[method])
    assert all(len(shape) == 4 and shape[-1] == 3 for _, shape in watcher.shown)
    assert set(record["losses"]) == set(STAGES[method])
    assert record["seconds"].keys() == {"preparation", *STAGES[method], "export"}
    assert (record["method"], record["prompt"], record["pose"]) == (method, PROMPT, f"0@{START_S}")
    assert record["times_s"] == pytest.approx([0, 0.25, 0.5])
    assert record["fps"] == pytest.approx(4)
    assert len(record["distortion"]) == FRAMES
    assert record["distortion"][0] == 0
    assert record["points"] == 8
    assert str(out) not in json.dumps(record)


@pytest.mark.parametrize("method", STAGES)
def test_animated_mesh_begins_as_the_input_rests_and_moves(runs, cube, method):
    """Oracle: the input's own vertices where its animation begins; keys at the frames' times."""
    out = runs(method)[0]
    rest = positions(cube, 0, [START_S])[0]
    asset = read(out / "animated.glb")
    moved = positions(out / "animated.glb", 0, [0.0, 0.25, 0.5])
    np.testing.assert_allclose(moved[0], rest, rtol=0, atol=1e-6)
    assert np.abs(moved[1:] - rest).max() > 1e-6
    assert len(asset.animations) == 1
    assert asset.animations[0].duration_s == pytest.approx(0.5)


@pytest.mark.parametrize("method", STAGES)
def test_frames_are_read_by_the_evaluation(runs, method):
    """Oracle: the suite's importer and protocols: views, sizes, frames, and something to be seen in the middle."""
    out = runs(method)[0]
    for preset in ("eval-3to4d", "eval-animate3d"):
        folder = out / "frames" / preset
        assert detect(folder) == "folders"
        (item,) = open_input(folder, fps=4)
        protocol = next(entry for entry in PROTOCOLS.values() if entry.preset == preset)
        assert item.object_id == "cube"
        assert sorted(video.view for video in item.videos) == sorted(protocol.views)
        for video in item.videos:
            rgba = video.read()
            assert rgba.shape == (FRAMES, SIZE, SIZE, 4)
            assert (rgba[:, SIZE // 2, SIZE // 2, 3] > 200).all()
            assert rgba[0, SIZE // 2, SIZE // 2, 0] > 2 * rgba[0, SIZE // 2, SIZE // 2, 1], "the cube is red"
    assert read_video(out / "videos" / "orbit.mp4").rgba.shape == (3 * FRAMES, SIZE, SIZE, 4)


def test_gaussian_scene_is_animated(cube, tmp_path):
    """Oracle: a PLY a frame, the first as the input, the others moved; no mesh is promised."""
    scene = write_cube_scene(tmp_path / "scene.ply")
    config = tiny("animate3d", subject={"up": "z"})
    done, watcher = start(scene, tmp_path / "out", config, oracle(cube))
    assert set(done.files) == {"gaussians/", "frames/", "videos/"}
    assert watcher.steps[-1] == ("refinement", 2, 2)
    found = [read_ply(path) for path in sorted((tmp_path / "out" / "gaussians").glob("*.ply"))]
    given = read_ply(scene)
    assert len(found) == FRAMES
    for name in ("means", "scales", "opacities", "colors"):
        np.testing.assert_allclose(getattr(found[0], name), getattr(given, name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.abs(found[-1].means - given.means).max() > 1e-5
    (item,) = open_input(tmp_path / "out" / "frames" / "eval-3to4d", fps=4)
    assert item.object_id == "scene"
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["pose"], record["points"]) == ("", len(given.means))


def test_clip_of_a_dataset_is_followed(cube, tmp_path):
    """Oracle: the clip's placement, times and frames; its own cameras forbid the refinement and 3to4D."""
    data = make_tiny_dataset(tmp_path / "data", clips=1, views=2, frames=4)
    sample = make_sample(0, views=2, frames=4)
    prior = f"clip:{data}/{sample['clip_id']}"
    config = tiny(recon={"fps": 8.0})
    done, watcher = start(cube, tmp_path / "out", config, prior)
    assert watcher.filmed == [(1, 1)]
    assert "animated.glb" in done.files
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["pose"] == "0@0.1"
    assert record["times_s"] == pytest.approx([0, 1 / 8, 2 / 8])
    for method, option in (("animate3d", r"--refine.steps 0"), ("threetofour", "--method animate3d-mesh")):
        with pytest.raises(InputError, match=rf"--prior clip:.*{option}"):
            start(cube, tmp_path / method, tiny(method, recon={"fps": 8.0}), prior)


def test_clip_of_fewer_frames_or_other_views_is_refused(cube, tmp_path):
    """Oracle: the sentence names the prior and both numbers."""
    data = make_tiny_dataset(tmp_path / "data", clips=1, views=2, frames=3)
    for changes, rule in (({"frames": 5}, "5 frames asked for, expected at most 3"), ({"views": 4}, "divides 2")):
        with pytest.raises(InputError, match=rf"--prior clip:.*{rule}"):
            start(cube, tmp_path / "out", tiny(recon=changes), f"clip:{data}")


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "stop"), [("animate3d-mesh", 3), ("animate3d", 7), ("threetofour", 8)])
def test_interrupted_run_goes_on_to_the_same_bytes(runs, cube, tmp_path, method, stop):
    """Oracle: the files of the run that nothing stopped; steps are not done twice, and nothing is filmed again."""
    whole = runs(method)[0]
    with pytest.raises(KeyboardInterrupt):
        start(cube, tmp_path / "out", tiny(method), oracle(cube), watcher=Remembering(stop))
    done, watcher = start(cube, tmp_path / "out", tiny(method), oracle(cube), resume=True)
    assert not done.was_finished
    assert len(watcher.steps) == sum(STAGES[method].values()) - stop + 1
    assert watcher.filmed == []
    for name in ("animated.glb", LOG):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name


def test_finished_run_is_left_alone(runs, cube):
    """Oracle: the summary of the run, and files that nobody touched."""
    out, done, _ = runs("animate3d-mesh")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again, watcher = start(cube, out, tiny(), oracle(cube), resume=True)
    assert again.was_finished
    assert again.files == done.files
    assert again.seconds.keys() == done.seconds.keys()
    assert (watcher.said, watcher.steps) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("prompt", {"prompt": "a cube turns"}),
        ("prior", {"prior": "oracle:other.glb"}),
        ("pose", {"pose": "bind"}),
        ("err_on_background", {"err_on_background": 0.1}),
        ("seed", {"config": tiny(seed=1)}),
        ("recon.steps, deformation.hidden", {"config": tiny(recon={"steps": 7}, deformation={"hidden": 9})}),
        ("model_sha256", {"model": "other"}),
    ],
)
def test_other_settings_are_refused_by_name(runs, cube, tmp_path, named, changes):
    """Oracle: the names of what differs, in the sentence."""
    model = cube
    if "model" in changes:
        model = tmp_path / "cube.glb"
        model.write_bytes(cube.read_bytes() + b"    ")
    changes = {"prior": oracle(cube), "config": tiny()} | {k: v for k, v in changes.items() if k != "model"}
    out = runs("animate3d-mesh")[0]
    with pytest.raises(InputError, match="found a run with other ") as caught:
        start(model, out, changes.pop("config"), changes.pop("prior"), resume=True, **changes)
    assert all(name in str(caught.value) for name in named.split(", "))


@pytest.mark.parametrize("changes", [{"checkpoint_s": 5.0}, {"preview_s": 5.0}, {"device": "auto"}, {"frame_size": 8}])
def test_settings_that_do_not_decide_the_motion_may_change(runs, cube, changes):
    """Oracle: the run counts as the same and is finished."""
    out = runs("animate3d-mesh")[0]
    assert start(cube, out, tiny(**changes), oracle(cube), resume=True)[0].was_finished


def test_run_is_not_gone_on_with_unasked(runs, cube):
    """Oracle: the sentence names --resume."""
    with pytest.raises(InputError, match="found a run, expected a new folder; give --resume"):
        start(cube, runs("animate3d-mesh")[0], tiny(), oracle(cube))


def test_refused_command_does_not_bar_the_folder(cube, tmp_path):
    """Oracle: the mended command works in the same folder without --resume; another --resume, too."""
    out = tmp_path / "out"
    for prior, changes in (("nowhere", {}), (oracle(cube), {"device": "nowhere"}), (oracle(cube), {"pose": "x@1"})):
        pose = changes.pop("pose", "")
        with pytest.raises(InputError):
            start(cube, out, tiny(**changes), prior, pose=pose, resume=prior == "nowhere" and out.exists())
    assert start(cube, out, tiny(), oracle(cube))[0].files


def test_folder_with_other_things_is_refused(cube, tmp_path):
    """Oracle: a sentence that names the folder, and the things as they were; files, foreign and damaged settings."""
    for name, content in (("a.txt", "mine"), (SETTINGS, "{"), (SETTINGS, "[]"), (SETTINGS, '{"font": 3}')):
        out = tmp_path / f"out{len(content)}"
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(InputError, match=rf"{out.name}.*: found .*expected .*; use another --out"):
            start(cube, out, tiny(), oracle(cube), resume=True)
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_text() == content
    with pytest.raises(InputError, match="found a file, expected a folder"):
        start(cube, cube, tiny(), oracle(cube))


def test_target_decides_a_resumed_run_and_not_the_prior(runs, cube, tmp_path):
    """Oracle: the kept clip is read, at the size, views and frames of the run."""
    from safetensors.torch import load_file

    out = runs("animate3d-mesh")[0]
    kept = load_file(out / TARGET)
    assert kept["images"].shape == (VIEWS, FRAMES, 3, SIZE, SIZE)
    assert kept["masks"].shape == (VIEWS, FRAMES, 1, SIZE, SIZE)
    assert (out / CHECKPOINT).is_file()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt_is_refused(cube, tmp_path, prompt):
    """Oracle: the sentence names the option, and no folder is made."""
    with pytest.raises(InputError, match=r"^--prompt: found no words"):
        start(cube, tmp_path / "out", tiny(), oracle(cube), prompt=prompt)
    assert not (tmp_path / "out").exists()


def test_missing_model_is_refused(tmp_path):
    """Oracle: the sentence names the path, and no folder is made."""
    with pytest.raises(InputError, match=r"fox\.glb: found no such file"):
        start(tmp_path / "fox.glb", tmp_path / "out", tiny(), "oracle:a.glb")
    assert not (tmp_path / "out").exists()


def test_work_beyond_the_memory_is_refused_with_an_estimate(cube, tmp_path):
    """Oracle: the sentence names file, gibibytes and options; the estimate grows with points, Gaussians and frames."""
    huge = tiny(recon={"chunk": 10**9})
    with pytest.raises(InputError, match=r"cube\.glb: found 8 points, which need about \d+ GiB, .*--recon\.chunk"):
        start(cube, tmp_path / "out", huge, oracle(cube))
    config = tiny()
    least = memory_gib(1000, 1000, config)
    more = dataclasses.replace(config, recon=dataclasses.replace(config.recon, frames=16))
    assert least < min(memory_gib(9000, 1000, config), memory_gib(1000, 9000, config), memory_gib(1000, 1000, more))


@pytest.mark.parametrize(
    ("method", "changes", "rule"),
    [
        ("animate3d-mesh", {"pose": "slide@0"}, "expected none; a Gaussian scene has no animations"),
        ("animate3d-mesh", {}, "expected a mesh"),
        ("threetofour", {}, "expected a mesh"),
    ],
)
def test_scene_is_refused_where_a_mesh_is_meant(cube, tmp_path, method, changes, rule):
    """Oracle: the sentence names the scene and what would do."""
    scene = write_cube_scene(tmp_path / "scene.ply")
    with pytest.raises(InputError, match=rf"scene\.ply.*{rule}"):
        start(scene, tmp_path / "out", tiny(method, subject={"up": "z"}), oracle(cube), **changes)
