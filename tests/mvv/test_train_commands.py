"""The commands around the model: help, errors in one line, and training, caching and sampling in a row at small size.

Oracle: the documented options and layouts, `eval.inputs` as the reader of what is sampled, Pillow for the pictures.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.inputs import open_input
from eval.inputs.names import parse_view
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.images import composite
from manifests.verify import verify
from mvv.cli import main
from mvv.objects import open_object
from mvv.sample import playing
from tests.broken import small_asset
from tests.tiny_dataset import make_tiny_dataset

COMMANDS = {
    "train": [
        "--preset", "--data", "--out", "--resume", "--steps", "--checkpoint-every", "--ray-workers", "--ray-address",
        "--accept-changed-data", "--views", "--frames", "--strides", "--size", "--background", "--source", "--base",
        "--spatial-branch", "--mv2v-adapter", "--prediction", "--batch-size", "--micro-batch", "--learning-rate",
        "--gradient-checkpointing", "--compile", "--precision", "--validate-every", "--wandb",
    ],
    "latents": ["--vae", "--out", "--size", "--background", "--workers", "--ray-address", "--device"],
    "sample": [
        "--model", "--object", "--prompt", "--out", "--steps", "--guidance", "--seed", "--views", "--frames",
        "--free-init", "--device",
    ],
    "model convert": ["--out", "--kind", "--to", "--base", "--motion", "--ip-adapter", "--animate3d"],
}  # fmt: skip
SMALL = (
    "--preset", "tiny", "--steps", "2", "--views", "2", "--frames", "3", "--strides", "1", "--size", "16",
    "--batch-size", "2", "--micro-batch", "2", "--loader-workers", "0", "--validate-every", "0", "--log-every", "1",
    "--checkpoint-every", "1",
)  # fmt: skip


@pytest.fixture
def call(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in arguments])
        return exit.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Such small layers are slower on several threads, and very slow where other processes want the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(dataset, run) of two steps; not to be changed."""
    base = tmp_path_factory.mktemp("trained")
    dataset = make_tiny_dataset(base / "dataset", clips=3, views=4, frames=6, size=16)
    with pytest.raises(SystemExit) as exit:
        main(["train", "--data", str(dataset), "--out", str(base / "run"), *SMALL])
    assert not exit.value.code
    return dataset, base / "run"


def first_clip(dataset: Path) -> str:
    return next(Dataset.open(dataset).clips())["clip_id"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_tells_its_options(call, name):
    # Oracle: the documented options.
    code, said, _ = call(*name.split(), "--help")
    assert code == 0
    assert f"usage: mvv {name}" in said
    assert [option for option in COMMANDS[name] if option not in said] == []


def test_overview_names_the_commands_and_a_first_training(call):
    # Oracle: the list of commands.
    said = call("--help")[1]
    assert [name for name in COMMANDS if f"mvv {name}" not in said] == []
    assert "mvv train --preset tiny --data dataset" in said
    assert "mvv model convert" in call("model")[1]


def test_defaults_shown_are_those_of_the_preset(call):
    # Oracle: the presets' fields.
    tiny, base = (" ".join(call("train", *words)[1].split()) for words in (["--preset", "tiny", "--help"], ["--help"]))
    assert "--size INT Height and width of an image, pixels. (default: 32)" in tiny.replace("│ ", "")
    assert "--size INT Height and width of an image, pixels. (default: 256)" in base.replace("│ ", "")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "did you mean `mvv train`?"),
        (["model", "covert"], "did you mean `mvv model convert`?"),
        (["train", "--data", "x", "--out", "y", "--preset", "tinny"], "did you mean tiny?"),
        (["train", "--data", "x", "--out", "y", "--size", "4"], "--size: found 4, expected 8 to 2048 pixels"),
        (["train", "--data", "x", "--out", "y", "--batch-size", "3", "--micro-batch", "2"], "a multiple of"),
        (["train", "--data", "x", "--out", "y", "--ray-workers", "-1"], "--ray-workers: found -1"),
        (["train", "--data", "nowhere", "--out", "y", "--preset", "tiny"], "nowhere"),
        (["train", "--out", "y"], "--data"),
        (["latents", "nowhere", "--vae", "x"], "expected a finished dataset"),
        (["latents", "x", "--vae", "x", "--workers", "-3"], "--workers: found -3"),
        (["sample", "--model", "nowhere", "--object", "x", "--out", "y"], "nowhere"),
        (["sample", "--model", "x", "--object", "x", "--out", "y", "--steps", "0"], "--steps: found 0"),
        (["sample", "--model", "x", "--object", "x", "--out", "y", "--frames", "1"], "--frames: found 1"),
        (["sample", "--model", "x", "--object", "x", "--out", "y", "--guidance", "-1"], "--guidance: found -1"),
        (["sample", "--object", "x", "--out", "y"], "--model"),
        (["model", "convert", "nowhere", "--out", "y"], "nowhere"),
        (["model", "convert", "x", "--out", "y", "--to", "animate3d", "--base", "z"], "--to animate3d: found --base"),
    ],
)
def test_wrong_arguments_are_one_clear_error(call, tmp_path, monkeypatch, arguments, hint):
    # Oracle: the hint; an exit code that is not 0; no model is left behind.
    monkeypatch.chdir(tmp_path)
    code, said, errors = call(*arguments)
    assert code in (1, 2)
    assert hint in " ".join((said + errors).split())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_dataset_of_another_schema_is_one_clear_error(call, tmp_path):
    # Oracle: the schema that was found, in every command that reads a dataset.
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset.json").write_text('{"schema": "somebody.else/3"}')
    for command in (
        ("train", "--preset", "tiny", "--data", tmp_path / "d", "--out", tmp_path / "r"),
        ("latents", tmp_path / "d", "--vae", tmp_path / "v"),
    ):
        code, _, errors = call(*command)
        assert (code, "somebody.else/3" in errors) == (1, True), errors


def test_train_sample_and_score_in_a_row(call, tmp_path, trained):
    # Oracle: the evaluation's reader of folders, the recorded cameras, and the object that was given as frame 0.
    dataset, run = trained
    clip = first_clip(dataset)
    code, said, errors = call(
        "sample", "--model", run, "--object", f"{dataset}/{clip}", "--prompt", "walks", "--steps", 2, "--guidance", 2,
        "--out", tmp_path / "s",
    )  # fmt: skip
    assert (code, "2 views x 3 frames" in said) == (0, True), errors
    [item] = open_input(tmp_path / "s", kind="folders", fps=8.0)
    assert item.object_id == clip
    cameras = Dataset.open(dataset).sample(clip)["cameras"]
    expected = [round((azimuth - cameras["front_azimuth_deg"]) % 360) for azimuth in cameras["azimuth_deg"][::2]]
    assert sorted(video.azimuth_deg for video in item.videos) == sorted(expected)
    assert {video.elevation_deg for video in item.videos} == {10.0}
    record = json.loads((tmp_path / "s" / f"{clip}.json").read_text())
    assert [parse_view(camera["folder"])[0] for camera in record["cameras"]] == expected
    assert record["prompt"] == "walks"
    assert (record["options"]["steps"], record["size"], record["prompt_tokens_cut"]) == (2, 16, 0)
    given = Dataset.open(dataset).frames(clip, [0, 2], [0])[:, 0]
    for image, camera in zip(composite(given, record["background"]), record["cameras"], strict=True):
        folder = tmp_path / "s" / clip / camera["folder"]
        assert sorted(path.name for path in folder.iterdir()) == ["000.png", "001.png", "002.png"]
        assert np.array_equal(np.asarray(Image.open(folder / "000.png")), image)
    with Image.open(tmp_path / "s" / f"{clip}.webp") as shown:
        assert (shown.size, shown.n_frames) == ((256, 128), 3)
    assert Image.open(tmp_path / "s" / f"{clip}.png").size > (48, 32)


def test_sampling_again_is_the_same_and_another_seed_is_not(call, tmp_path, trained):
    # Oracle: the bytes of the frames; another object into the same folder keeps the first one's.
    dataset, run = trained
    clip = first_clip(dataset)
    how = ("sample", "--model", run / "model", "--steps", 2, "--out", tmp_path / "s", "--object")
    frames = []
    for more in ((), (), ("--seed", 1), ("--frames", 2, "--views", 1, "--free-init", 2)):
        code, _, errors = call(*how, f"{dataset}:{clip}", *more)
        assert code == 0, errors
        frames.append({path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("[0-9]*.png")})
    assert frames[0] == frames[1]
    changed = {path for path in frames[0] if frames[0][path] != frames[2][path]}
    assert changed == {path for path in frames[0] if path.name != "000.png"}
    assert len(frames[3]) == 2
    other = [row["clip_id"] for row in Dataset.open(dataset).clips()][1]
    assert call(*how, f"{dataset}/{other}")[0] == 0
    assert {path.name for path in (tmp_path / "s").iterdir() if path.is_dir()} == {clip, other}


def test_prompt_of_ten_thousand_characters_is_cut_and_told(call, tmp_path, trained):
    # Oracle: exit code 0, the note, the record; no warning gets out.
    dataset, run = trained
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, _, errors = call(
            "sample", "--model", run, "--object", f"{dataset}/{first_clip(dataset)}", "--prompt", "run " * 2500,
            "--steps", 1, "--out", tmp_path / "s",
        )  # fmt: skip
    assert code == 0, errors
    cut = json.loads((tmp_path / "s" / f"{first_clip(dataset)}.json").read_text())["prompt_tokens_cut"]
    assert cut > 2000
    assert f"found {cut} tokens more" in " ".join(errors.split())


def test_objects_that_cannot_be_sampled_are_one_clear_error(tmp_path, trained):
    # Oracle: each message.
    dataset, _ = trained
    (tmp_path / "broken.glb").write_bytes(b"glTF")
    clip = first_clip(dataset)
    for object, views, hint in (
        (dataset, 2, "found 3 clips"),
        (f"{dataset}/nobody", 2, "found no such clip"),
        (f"{dataset}:{clip[:3]}", 2, "found several clips"),
        (tmp_path / "nothing.glb", 2, "found nothing at"),
        (tmp_path, 2, "found a folder without a dataset.json"),
        (tmp_path / "broken.glb", 2, "refused (truncated"),
        (f"{dataset}/{clip}", 3, "--views: found 3"),
    ):
        with pytest.raises(InputError) as error:
            open_object(str(object), views=views, size=16, background=(0.5, 0.5, 0.5))
        assert hint in str(error.value)
    assert open_object(f"{dataset}:{clip[:-1]}", views=4, size=8, background=(1, 1, 1)).images.shape == (4, 3, 8, 8)


def test_folders_and_devices_that_cannot_be_used_are_one_clear_error(call, tmp_path, trained):
    # Oracle: each message; nothing is written beside the user's own file.
    dataset, run = trained
    mine = tmp_path / "full" / first_clip(dataset)
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("x")
    for out, more, hint in (
        (tmp_path / "full", (), "no sample of ours"),
        (tmp_path / "s", ("--device", "cuda:77"), "--device: found cuda:77"),
    ):
        object = f"{dataset}/{first_clip(dataset)}"
        code, _, errors = call("sample", "--model", run, "--object", object, "--steps", 1, "--out", out, *more)
        assert (code, hint in " ".join(errors.split())) == (1, True), errors
        assert "Traceback" not in errors
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine / "mine.txt"]


def test_model_file_is_rendered_at_rest(call, tmp_path, trained):
    # Oracle: cameras at multiples of 360 / V from the front, elevation 15; the cube is in the picture.
    pytest.importorskip("bpy")
    (tmp_path / "cube.glb").write_bytes(small_asset().to_bytes())
    code, _, errors = call(
        "sample", "--model", trained[1], "--object", tmp_path / "cube.glb", "--steps", 1, "--out", tmp_path / "s",
        "--views", 4,
    )  # fmt: skip
    assert code == 0, errors
    folder = tmp_path / "s" / "cube"
    assert sorted(path.name for path in folder.iterdir()) == ["a000e+15", "a090e+15", "a180e+15", "a270e+15"]
    for view in folder.iterdir():
        image = np.asarray(Image.open(view / "000.png")).astype(int)
        assert abs(image[0, 0] - 128).max() <= 1
        assert abs(image[8, 8] - 128).max() > 10


def test_training_goes_on_and_a_finished_run_says_so(call, tmp_path, trained):
    # Oracle: exit codes and what is said; a folder with a run is not written over.
    dataset, run = trained
    shutil.copytree(run, tmp_path / "run")
    how = ("train", "--data", dataset, "--out", tmp_path / "run", *SMALL)
    code, said, errors = call(*how, "--resume")
    assert (code, "finished before, nothing to do (2 steps)" in said) == (0, True), errors
    code, _, errors = call(*how)
    assert (code, "--resume" in errors) == (1, True)
    code, said, errors = call(*how, "--steps", 3, "--resume")
    assert (code, "3 steps, 6 clips" in said) == (0, True), errors
    code, _, errors = call(*how, "--resume", "--size", 32, "--frames", 2)
    assert (code, "size" in errors, "frames" in errors) == (1, True, True)


def test_latents_of_the_trained_pipeline_are_trained_on(call, tmp_path, trained):
    # Oracle: verify, and a run on them; the size is the pipeline's, another one is refused.
    dataset, run = trained
    shutil.copytree(dataset, tmp_path / "d")
    how = ("latents", tmp_path / "d", "--vae", run / "model", "--device", "cpu", "--workers", 0)
    code, said, errors = call(*how)
    assert (code, " of 16 px images; 72 images in " in said) == (0, True), said + errors
    assert "--source latents --size 16 --background 0.5 0.5 0.5" in said
    assert "finished before" in call(*how)[1]
    assert verify(tmp_path / "d", decode=True) == []
    assert call("verify", tmp_path / "d", "--decode")[0] == 0
    trains = ("train", "--data", tmp_path / "d", "--source", "latents", *SMALL)
    code, said, errors = call(*trains, "--out", tmp_path / "run")
    assert (code, "2 steps, 4 clips" in said) == (0, True), errors
    code, _, errors = call(*trains, "--out", tmp_path / "other", "--size", 8)
    assert (code, "--source latents: found latents of 16 px" in errors) == (1, True), errors


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (("--views", "3"), "views"),
        (("--frames", "7"), "frames"),
        (("--strides", "3"), "strides"),
        (("--split", "val"), "val"),
        (("--batch-size", "3", "--micro-batch", "3", "--size", "20"), "--size: found 20"),
    ],
)
def test_impossible_trainings_are_refused_at_the_start(call, tmp_path, trained, more, hint):
    # Oracle: the field that has to change, and no run left behind that would need --resume.
    code, _, errors = call("train", "--data", trained[0], "--out", tmp_path / "run", *SMALL, *more)
    assert (code, hint in errors) == (1, True), errors
    assert not list(tmp_path.rglob("*.safetensors"))


def test_playing_picture_shows_views_side_by_side():
    # Oracle: the frames themselves, up to the loss of the encoder; the time of each.
    rng = np.random.default_rng(0)
    frames = np.repeat(np.repeat(rng.integers(0, 256, (2, 3, 2, 2, 3), np.uint8), 8, 2), 8, 3)
    with Image.open(io.BytesIO(playing(frames, 8.0))) as shown:
        for number in range(3):
            shown.seek(number)
            found = np.asarray(shown.convert("RGB")).astype(int)
            assert shown.info["duration"] == 125
            assert abs(found - np.concatenate(list(frames[:, number]), 1)).mean() < 20
