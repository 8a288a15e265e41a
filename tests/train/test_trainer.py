"""Whole runs, each of a second or two: killed and gone on, refused, out of disk, on several ranks."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from manifests.errors import Failed, InputError, MvvError, StorageError
from tests.tiny_dataset import make_tiny_dataset
from tests.train.tiny_training import SIZE, KillAt, ended, make_base, make_config, run, run_ranks, start
from train.config import TrainConfig
from train.models.build import load_pipeline
from train.run.checkpoint import found, latest
from train.run.ledger import check_ledger
from train.run.monitor import read_lines

CLIPS = 7
MEASURED = {"clips_per_s", "tflops_per_device", "loader_wait"}
"""Facts of the log that are about the machine."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A pipeline to start from."""
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A dataset of 7 clips; batches of 4 meet the epoch's border within a batch."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data"), clips=CLIPS, views=4, frames=4, size=16)


@pytest.fixture(scope="module")
def config(base) -> TrainConfig:
    return make_config(base)


@pytest.fixture(scope="module")
def whole(config, data, tmp_path_factory) -> Path:
    """A run of four steps that nothing interrupted; not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    summary = run(config, data, out)
    assert (summary.step, summary.clips, summary.was_finished) == (4, 16, False)
    return out


def log(out: Path) -> list[dict[str, Any]]:
    """Lines of the log without what is measured."""
    lines = read_lines(out / "log.jsonl")
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """Everything a finished run has learned: weights, average, moments, and what is sampled from."""
    last = found(out / "checkpoints")[-1]
    files = [*sorted(last.glob("*.safetensors")), out / "model/unet/diffusion_pytorch_model.safetensors"]
    return {f"{file.name}:{name}": value for file in files for name, value in load_file(file).items()}


def same(one: Path, two: Path) -> bool:
    a, b = tensors(one), tensors(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- what a run leaves -------------------------------------------------------------------------------------------------


def test_run_folder_holds_what_the_documents_say(whole, config):
    """Oracle: the files by name, and a pipeline that loads and has the average in it."""
    names = {path.name for path in whole.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("config.json", "run.json", "log.jsonl", "ledger.jsonl", "datasets.jsonl"),
        *("tensorboard", "checkpoints", "model"),
    }
    assert [path.name for path in found(whole / "checkpoints")] == ["step-00000002", "step-00000004"]
    checkpoint, unet = latest(whole / "checkpoints"), load_pipeline(whole / "model").unet
    assert checkpoint.ema
    assert all(torch.equal(unet.state_dict()[name], value) for name, value in checkpoint.ema.items())
    assert not all(torch.equal(checkpoint.weights[name], value) for name, value in checkpoint.ema.items())
    assert set(checkpoint.weights) == set(unet.trainable_parameters())
    assert not [path for path in whole.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]
    facts = json.loads((whole / "run.json").read_text())
    assert facts["trained_parameters"] == sum(value.numel() for value in checkpoint.weights.values())
    assert facts["flop_per_clip"]["unet"] > 0


def test_log_has_the_loss_and_no_mfu_where_the_peak_is_not_known(whole):
    """Oracle: the list of facts; a CPU's peak is not known, and a guess would be a false number."""
    lines = read_lines(whole / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 5))
    for line in lines:
        assert line.keys() >= {"loss", "lr", "grad_norm", "clips", "epoch", "clips_per_s", "loader_wait", "skipped"}
        assert "mfu" not in line
        assert math.isfinite(line["loss"])
        assert any(f"mse_t{quarter}" in line for quarter in range(4))
    assert [line["lr"] for line in lines] == [0.0005, *[0.001] * 3]
    assert list((whole / "tensorboard").iterdir())


def test_training_lowers_the_loss(base, data, tmp_path):
    """Oracle: predicting the noise, mostly there to be seen, is learned in a few steps from the loss of a zero, 1."""
    objective = {"prediction": "epsilon", "zero_terminal_snr": False}
    more = {"optimizer": {"learning_rate": 1e-2, "batch_size": 2}, "model": {"train_all": True}}
    save = {"steps": 20, "checkpoint_every": 20}
    run(make_config(base, objective=objective, save=save, **more), data, tmp_path / "run")
    losses = [line["loss"] for line in read_lines(tmp_path / "run/log.jsonl")]
    assert 0.7 < sum(losses[:4]) / 4 < 1.3
    assert sum(losses[-4:]) / 4 < 0.85


def test_ledger_proves_that_each_clip_is_seen_once_an_epoch(whole, data, tmp_path):
    """Oracle: two whole epochs and a rest; a doubled, a missing and a moved clip are found."""
    assert check_ledger(whole) == []
    lines = read_lines(whole / "ledger.jsonl")
    ids = [clip for line in lines for clip in line["clips"]]
    assert [sorted(ids[first : first + CLIPS]) for first in (0, 7)] == [sorted(set(ids))] * 2
    shutil.copytree(whole, tmp_path / "run")
    for break_it in (_double, _lose_step):
        broken = break_it([dict(line, clips=list(line["clips"])) for line in lines])
        (tmp_path / "run/ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in broken))
        assert check_ledger(tmp_path / "run")


def _double(lines: list[dict]) -> list[dict]:
    lines[0]["clips"][1] = lines[0]["clips"][0]
    return lines


def _lose_step(lines: list[dict]) -> list[dict]:
    return lines[:2] + lines[3:]


# -- killed, gone on, finished -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2])
def test_killed_run_goes_on_bit_for_bit(step, config, data, whole, tmp_path):
    """Oracle: the run that nothing interrupted. SIGKILL after step 1 is before any checkpoint, 2 right after one."""
    out = tmp_path / "run"
    assert ended(start(run, config, data, out, progress=KillAt(step))) == -signal.SIGKILL
    assert not (out / "checkpoints/step-00000004").exists()
    summary = run(config, data, out, resume=True)
    assert (summary.step, summary.clips, summary.was_finished) == (4, 16, False)
    assert same(out, whole)
    assert log(out) == log(whole)
    assert (out / "ledger.jsonl").read_text() == (whole / "ledger.jsonl").read_text()
    assert check_ledger(out) == []


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_bit_for_bit(config, data, whole, tmp_path):
    """Oracle: the same, killed four times by the clock, wherever it is: starting, writing, renaming."""
    out = tmp_path / "run"
    for seconds in (1.5, 2.5, 3.5, 3.0):
        process = start(run, config, data, out, resume=True)
        time.sleep(seconds)
        process.kill()
        process.join()
    run(config, data, out, resume=True)
    assert same(out, whole)
    assert log(out) == log(whole)
    assert check_ledger(out) == []


def test_finished_run_repeated_does_nothing(config, data, whole):
    """Oracle: the summary, and every file as it was."""
    before = {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")}
    summary = run(config, data, whole, resume=True)
    assert (summary.step, summary.clips, summary.was_finished) == (4, 16, True)
    assert {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")} == before


def test_model_that_was_not_written_any_more_is_written_on_resume(config, data, whole, tmp_path):
    """Oracle: the average of the last checkpoint in model/, although the process died before putting it there."""
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.copy(
        config.model.base + "/unet/diffusion_pytorch_model.safetensors",
        out / "model/unet/diffusion_pytorch_model.safetensors",
    )
    (out / "model/training.json").write_text('{"step": 2}')
    assert not run(config, data, out, resume=True).was_finished
    assert same(out, whole)


def test_truncated_checkpoint_is_passed_over(config, data, whole, tmp_path):
    """Oracle: a warning that names the file, and the same end from the checkpoint before."""
    out = shutil.copytree(whole, tmp_path / "run")
    file = out / "checkpoints/step-00000004/weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"weights\.safetensors: found .* bytes.*passed over"):
        run(config, data, out, resume=True)
    assert same(out, whole)
    assert log(out) == log(whole)


def test_run_without_a_whole_checkpoint_is_not_started_anew(config, data, whole, tmp_path):
    """Oracle: the refusal; starting anew would throw the rest away."""
    out = shutil.copytree(whole, tmp_path / "run")
    for path in found(out / "checkpoints"):
        (path / "manifest.json").unlink()
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(InputError, match="found no whole checkpoint"),
    ):
        run(config, data, out, resume=True)


def test_run_in_two_parts_and_by_other_means_is_the_same(base, data, whole, tmp_path):
    """Oracle: the run at once. --resume starts anew where nothing is; steps, workers and the peak are free."""
    out = tmp_path / "run"
    run(make_config(base, save={"steps": 2}), data, out, resume=True)
    run(make_config(base, compute={"loader_workers": 2, "peak_tflops": 2.0}), data, out, resume=True)
    assert same(out, whole)
    lines = read_lines(out / "log.jsonl")
    assert ["mfu" in line for line in lines] == [False, False, True, True]
    assert lines[3]["mfu"] == pytest.approx(lines[3]["tflops_per_device"] / 2)


# -- refused -----------------------------------------------------------------------------------------------------------


def test_other_batch_size_on_resume_is_allowed_and_recorded(base, data, tmp_path):
    """Oracle: the history, and a ledger without gap or double."""
    out = tmp_path / "run"
    run(make_config(base, save={"steps": 2}), data, out)
    run(make_config(base, optimizer={"batch_size": 2, "micro_batch": 1}, save={"steps": 5}), data, out, resume=True)
    checkpoint = latest(out / "checkpoints")
    assert checkpoint.state["data"]["history"] == [[0, 4], [8, 2]]
    assert checkpoint.state["data"]["position"] == 14
    assert check_ledger(out) == []
    assert [len(line["clips"]) for line in read_lines(out / "ledger.jsonl")] == [4, 4, 2, 2, 2]


def test_other_config_on_resume_is_refused_by_field(base, data, whole):
    """Oracle: the two fields by name, with both values, and none of those that may differ."""
    changes = {"optimizer": {"learning_rate": 0.5, "micro_batch": 1}, "data": {"order_seed": 3}}
    with pytest.raises(InputError) as caught:
        run(make_config(base, save={"steps": 9}, compute={"channels_last": True}, **changes), data, whole, resume=True)
    text = str(caught.value)
    assert "optimizer.learning_rate 0.5 (was 0.001)" in text
    assert "data.order_seed 3 (was 0)" in text
    assert not any(name in text for name in ("micro_batch", "steps", "channels_last", "preset"))


def test_changed_dataset_is_refused_on_resume_and_can_be_accepted(config, base, data, tmp_path):
    """Oracle: the refusal, then a run over the other dataset whose ledger is checked by the clips of each."""
    out, other = tmp_path / "run", make_tiny_dataset(tmp_path / "data", clips=5, views=4, frames=4, size=16)
    run(make_config(base, save={"steps": 2}), data, out)
    with pytest.raises(InputError, match="accept-changed-data"):
        run(config, other, out, resume=True)
    run(config, other, out, resume=True, accept_changed_data=True)
    assert [span["clips"] for span in read_lines(out / "datasets.jsonl")] == [7, 5]
    assert check_ledger(out) == []


def test_run_in_a_used_folder_is_refused(config, data, whole, tmp_path):
    """Oracle: the refusals, with nothing written."""
    with pytest.raises(InputError, match=r"found a run, expected none; go on with --resume"):
        run(config, data, whole)
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/weights").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        run(config, data, tmp_path / "mine", resume=True)
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == ["model"]


def test_second_process_in_the_same_folder_is_refused(config, data, whole):
    """Oracle: the kernel's lock, held by this process."""
    import fcntl

    with open(whole / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            run(config, data, whole, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"views": 8}}, "--views: found 8"),
        ({"data": {"frames": 9}}, "--frames: found 9"),
        ({"data": {"frames": 1}}, "--frames: found 1, expected at least 2"),
        ({"data": {"size": 18}}, "--size: found 18, expected a multiple of 4"),
        ({"data": {"split": "nowhere"}}, "nowhere"),
        ({"data": {"source": "latents"}}, "latents"),
        ({"model": {"base": "no/such/folder"}}, "no/such/folder"),
    ],
)
def test_impossible_config_is_refused_before_any_step(changes, message, base, data, tmp_path):
    """Oracle: the option in the message, and no checkpoint."""
    with pytest.raises(InputError, match=message):
        run(make_config(base, **changes), data, tmp_path / "run")
    assert not (tmp_path / "run/log.jsonl").exists()
    assert not (tmp_path / "run/checkpoints").exists()


# -- troubles ----------------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_stops_before_the_update(base, data, tmp_path):
    """Oracle: a learning rate of 1e30 makes the second gradient infinite; the checkpoint of step 1 is what it was."""
    out = tmp_path / "run"
    save = {"checkpoint_every": 1}
    with pytest.raises(Failed, match=r"step 2: found a gradient of norm (nan|inf).*step-00000001.*--learning-rate"):
        run(make_config(base, optimizer={"learning_rate": 1e30, "warmup_steps": 0}, save=save), data, out)
    checkpoint = latest(out / "checkpoints")
    assert checkpoint.step == 1
    assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())
    assert [line["step"] for line in read_lines(out / "log.jsonl")] == [1]


@dataclasses.dataclass(frozen=True)
class FillDisk:
    """Files may not grow beyond a few kilobytes any more, after a step."""

    step: int

    def __call__(self, step: int, steps: int, facts: dict[str, Any]) -> None:
        if step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def _run_until_refused(config: TrainConfig, data: Path, out: Path, told: Path) -> None:
    pipe = os.open(told, os.O_WRONLY)  # opened before the limit, and a pipe has no size
    try:
        run(config, data, out, progress=FillDisk(3))
    except MvvError as error:
        os.write(pipe, f"{type(error).__name__}: {error}".encode())


def test_full_disk_leaves_the_last_checkpoint_usable(config, data, whole, tmp_path):
    """Oracle: the kernel's limit on file sizes; the run then goes on to the same end."""
    out, told = tmp_path / "run", tmp_path / "told"
    os.mkfifo(told)
    process = start(_run_until_refused, config, data, out, told)
    text = told.read_text()
    assert ended(process) == 0
    assert text.startswith("StorageError: ")
    assert "step-00000004" in text
    assert "--resume" in text
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    run(config, data, out, resume=True)
    assert same(out, whole)


def test_unwritable_folder_is_a_storage_error(config, data, tmp_path):
    """Oracle: the class; a file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        run(config, data, tmp_path / "file" / "run")


def test_too_little_memory_names_what_helps(config, data, tmp_path):
    """Oracle: torch's own error, raised where a GPU would raise it."""

    def short(step: int, steps: int, facts: dict[str, Any]) -> None:
        if step == 3:
            torch.empty(2**50)

    with pytest.raises(Failed, match=r"memory.*--micro-batch.*--gradient-checkpointing"):
        run(config, data, tmp_path / "run", progress=short)
    assert latest(tmp_path / "run/checkpoints").step == 2


def test_damaged_clip_raises_or_is_replaced_and_counted(base, data, tmp_path):
    """Oracle: the error names tar and clip; skipped, the log and the state count it and the ledger is still sound."""
    broken = shutil.copytree(data, tmp_path / "data")
    tar = broken / "shards/train-00000.tar"
    content = bytearray(tar.read_bytes())
    place = content.index(b"RIFF") + 30
    content[place : place + 8] = b"\0" * 8
    tar.write_bytes(content)
    every = {"views": 4, "frames": 4}  # so that the damaged member is read
    with pytest.raises(MvvError, match=r"train-00000\.tar"):
        run(make_config(base, data=every, save={"steps": 2}), broken, tmp_path / "raised")
    out = tmp_path / "skipped"
    run(make_config(base, data=every | {"on_damage": "skip"}, save={"steps": 3}), broken, out)
    skipped = latest(out / "checkpoints").state["data"]["skipped"]
    assert len(set(skipped)) == 1
    assert read_lines(out / "log.jsonl")[-1]["skipped"] == len(skipped) > 0
    assert check_ledger(out) == []


# -- one step, many ways -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("micro_batch", "checkpointing"), [(1, False), (4, True)])
def test_accumulated_batch_equals_the_whole_one(micro_batch, checkpointing, base, data, whole, tmp_path):
    """Oracle: 2 x 2 with all activations kept; sums in another order differ in the last bits only."""
    changes = {"optimizer": {"micro_batch": micro_batch}, "compute": {"gradient_checkpointing": checkpointing}}
    run(make_config(base, **changes), data, tmp_path / "run")
    for name in ("loss", "grad_norm"):
        values = [line[name] for line in log(tmp_path / "run")]
        assert values == pytest.approx([line[name] for line in log(whole)], rel=1e-5, abs=1e-6)
    assert (tmp_path / "run/ledger.jsonl").read_text() == (whole / "ledger.jsonl").read_text()


def test_cached_latents_train_as_their_images_do(base, data, whole, tmp_path):
    """Oracle: the run on images; the pixels of a PixelCodec are exact up to the cache's float16."""
    from mvv.latents import LatentsOptions, make_latents

    cached = tmp_path / "data"
    make_latents(data, base, cached, LatentsOptions(workers=0, device="cpu", size=SIZE))
    save = {"steps": 2, "validate_every": 2, "validate_clips": 1, "validate_sampling_steps": 1}
    run(make_config(base, data={"source": "latents"}, save=save), cached, tmp_path / "run")
    losses = [
        [line["loss"] for line in read_lines(out / "log.jsonl") if "loss" in line] for out in (tmp_path / "run", whole)
    ]
    assert losses[0] == pytest.approx(losses[1][:2], rel=0.01)


def test_two_ranks_take_the_same_steps_as_one(base, config, data, whole, tmp_path):
    """Oracle: one process; then one goes on where two stopped, and consumes exactly what is left."""
    out = tmp_path / "run"
    assert run_ranks(2, make_config(base, save={"steps": 2}), data, out) == [0, 0]
    run(config, data, out, resume=True)
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in log(out)] == pytest.approx([line[name] for line in log(whole)], abs=1e-5)
    assert (out / "ledger.jsonl").read_text() == (whole / "ledger.jsonl").read_text()
    a, b = tensors(out), tensors(whole)
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_two_ranks_refuse_together(base, data, tmp_path):
    """Oracle: both say what only rank 0 has seen, a folder with something else, and end; none waits."""
    (tmp_path / "run/model").mkdir(parents=True)
    run_ranks(2, make_config(base), data, tmp_path / "run")
    told = [path.read_text() for path in sorted(tmp_path.glob("rank-*.txt"))]
    assert len(told) == 2
    assert all("found files of something else" in text for text in told)


# -- validation --------------------------------------------------------------------------------------------------------


def test_validation_writes_playing_images_and_changes_nothing(base, data, whole, tmp_path):
    """Oracle: the run without validation bit for bit; Pillow plays the images, truth on the left."""
    out = tmp_path / "run"
    save = {"validate_every": 2, "validate_clips": 1, "validate_sampling_steps": 2}
    run(make_config(base, save=save), data, out)
    assert same(out, whole)
    assert [path.name for path in sorted((out / "validation").iterdir())] == ["step-00000002", "step-00000004"]
    [path] = (out / "validation/step-00000004").glob("*.webp")
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.size) == ("WEBP", 3, (2 * 16 + 2, 2 * 16))
        first = torch.tensor(list(image.convert("RGB").getdata())).reshape(32, 34, 3)
    assert torch.equal(first[:, :16], first[:, 18:])  # frame 0 is given
    lines = [line for line in read_lines(out / "log.jsonl") if "val_loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line.keys() >= {"val_loss_t0", "val_loss_t3", "val_psnr"} for line in lines)
