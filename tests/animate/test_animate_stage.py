"""The loop over stages: stopped at any step and gone on with, it is the loop that nothing stopped; and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from animate.priors.known import Known
from animate.run.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_state,
    restore_optimizer,
    save_checkpoint,
)
from animate.run.stage import BEFORE, CHECKPOINT, LOG, run_stages
from animate.run.target import TARGET, target_footage
from animate.shot import Footage
from manifests.errors import InputError
from tests.animate.drawn_stages import STEPS, run, stages
from tests.animate.tiny_motion import shot_of

ROOT = Path(__file__).resolve().parents[2]
WHOLE = sum(STEPS.values())


class _Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory):
    """Weights and log of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("unstopped")
    return run(folder).state_dict(), (folder / LOG).read_text()


def stopped_at(folder: Path, step: int, checkpoint_s: float) -> None:
    """Runs until that many steps in all are done, and is stopped by an error before anything is saved of the last."""
    done = []

    def told(name: str, _: int) -> None:
        done.append(name)
        if len(done) == step:
            raise _Stop

    with pytest.raises(_Stop):
        run(folder, checkpoint_s=checkpoint_s, told=told)


def same(layer: torch.nn.Linear, weights: dict) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    ("step", "checkpoint_s"), [(1 + k, 0.0) for k in range(WHOLE)] + [(step, 1e9) for step in (1, 11, 12, 13, WHOLE)]
)
def test_stopped_run_goes_on_to_the_same_bits(tmp_path, unstopped, step, checkpoint_s):
    """Oracle: weights and log of the run that nothing stopped; with checkpoints at every step and at ends alone."""
    stopped_at(tmp_path, step, checkpoint_s)
    weights, log = unstopped
    assert same(run(tmp_path, checkpoint_s=checkpoint_s), weights)
    assert (tmp_path / LOG).read_text() == log


def test_run_that_is_stopped_again_and_again_ends_the_same(tmp_path, unstopped):
    """Oracle: weights and log of the run that nothing stopped."""
    for _ in range(WHOLE - 1):
        stopped_at(tmp_path, 2, 0.0)
    weights, log = unstopped
    assert same(run(tmp_path), weights)
    assert (tmp_path / LOG).read_text() == log


def test_killed_run_goes_on_to_the_same_bits(tmp_path, unstopped):
    """Oracle: weights and log of the run that nothing stopped, after SIGKILL of a process of its own."""
    command = [sys.executable, "-m", "tests.animate.drawn_stages", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in process.stdout:
            if said.strip() == "second 2":
                process.kill()
                break
    assert process.returncode == -9, "it was not killed"
    weights, log = unstopped
    assert same(run(tmp_path), weights)
    assert (tmp_path / LOG).read_text() == log


def test_line_that_a_killed_run_left_unfinished_is_taken_back(tmp_path, unstopped):
    """Oracle: the log of the run that nothing stopped."""
    stopped_at(tmp_path, 12, 1e9)
    with open(tmp_path / LOG, "a") as file:
        file.write('{"stage": "first", "st')
    run(tmp_path)
    assert (tmp_path / LOG).read_text() == unstopped[1]


def test_finished_stages_are_not_run_again(tmp_path, unstopped):
    """Oracle: no step is told of, and the weights are those of the finished run."""
    run(tmp_path)
    steps = []
    layer = run(tmp_path, told=lambda name, done: steps.append(done))
    assert steps == []
    assert same(layer, unstopped[0])


def test_seed_decides_the_draws(tmp_path, unstopped):
    """Oracle: another seed, other weights."""
    assert not same(run(tmp_path, seed=1), unstopped[0])


def test_log_has_the_first_the_tenth_and_the_last_steps(tmp_path, unstopped):
    """Oracle: counting."""
    rows = [json.loads(line) for line in unstopped[1].splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("first", 1),
        ("first", 11),
        ("first", 12),
        ("second", 1),
        ("second", 3),
    ]
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_number_that_is_none_stops_the_run_and_spares_the_checkpoint(tmp_path, what):
    """Oracle: the sentence names folder, step and stage; the checkpoint is that of the step before."""
    layer, both = stages()
    own = both[0].step

    def step(number, generator):
        losses = own(number, generator)
        if number == 4 and what == "loss":
            losses["loss"] = float("nan")
        if number == 4 and what == "weights":
            layer.weight.grad[0, 0] = float("inf")
        return losses

    both[0].step = step
    with pytest.raises(InputError, match=r"found .*(nan|NaN).* in step 5 of stage first, expected .*;") as caught:
        run_stages(both, tmp_path, seed=0, checkpoint_s=0, preview_s=1e9, told=lambda *_: None, show=lambda _: None)
    assert str(caught.value).startswith(str(tmp_path))
    saved = load_checkpoint(tmp_path / CHECKPOINT)
    assert (saved.stage, saved.step) == ("first", 4)
    assert all(bool(torch.isfinite(value).all()) for value in saved.weights.values())


def test_checkpoint_of_another_method_is_refused(tmp_path):
    """Oracle: the sentence names the file, the stage that was found and those expected."""
    save_checkpoint(tmp_path / CHECKPOINT, Checkpoint(stage="static", step=1, weights={}, optimizer={}, seconds={}))
    with pytest.raises(
        InputError, match=r"checkpoint\.safetensors: found stage static, expected one of first, second;"
    ):
        run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\x08\0\0\0\0\0\0\0{}      ", None])
@pytest.mark.parametrize("name", [CHECKPOINT, f"{BEFORE}first.safetensors"])
def test_damaged_checkpoint_is_refused_with_what_to_do(tmp_path, name, content):
    """Oracle: the sentence names the file; cut off, foreign and empty ones alike."""
    stopped_at(tmp_path, 4, 0.0)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    with pytest.raises(InputError, match=rf"{name}: found .*expected .*; delete it"):
        run(tmp_path)


def test_checkpoint_reads_back_what_was_saved(tmp_path):
    """Oracle: the values that were saved, bit by bit."""
    values = {"a.b": torch.randn(3, 4), "c": torch.arange(3), "empty": torch.zeros(0, 2)}
    saved = Checkpoint(stage="x", step=7, weights=values, optimizer={"3.step": torch.tensor(2.0)}, seconds={"x": 1.5})
    save_checkpoint(tmp_path / "a", saved)
    found = load_checkpoint(tmp_path / "a")
    assert (found.stage, found.step, found.seconds) == ("x", 7, {"x": 1.5})
    assert found.weights.keys() == values.keys()
    assert all(torch.equal(found.weights[name], value) for name, value in values.items())
    assert torch.equal(found.optimizer["3.step"], torch.tensor(2.0))


def test_optimizer_goes_on_as_if_it_had_not_stopped():
    """Oracle: the same Adam without a stop; a parameter that never had a gradient among the others."""

    def made():
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(3)]
        return weights, torch.optim.Adam([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.01}])

    def step(weights, optimizer):
        optimizer.zero_grad(set_to_none=True)
        (weights[0].sin().sum() + weights[2].exp().sum()).backward()
        optimizer.step()

    whole, optimizer = made()
    for _ in range(5):
        step(whole, optimizer)
    parts, optimizer = made()
    for _ in range(2):
        step(parts, optimizer)
    held = {name: value.clone() for name, value in optimizer_state(optimizer).items()}
    assert {name.split(".")[0] for name in held} == {"0", "2"}
    _, again = made()
    again.param_groups[0]["params"], again.param_groups[1]["params"] = parts[:1], parts[1:]
    restore_optimizer(again, held)
    for _ in range(3):
        step(parts, again)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


class _Counting(Known):
    """Films a grey picture that grows lighter, and counts how often."""

    filmed = 0

    def _filmed(self, shot):
        self.filmed += 1
        images = torch.rand(shot.num_views, shot.num_frames, 3, shot.size, shot.size)
        masks = images[:, :, :1].clone()
        background = (0.1, 0.2, 0.3)
        return Footage(images=images, masks=masks, c2w=shot.c2w, K=shot.K, times_s=shot.times_s, background=background)


def test_target_is_filmed_once_and_read_back(tmp_path):
    """Oracle: the clip that was filmed, bit by bit, without asking the prior again."""
    prior, shot = _Counting("grey"), shot_of([0.0, 0.125, 0.25])
    first = target_footage(prior, shot, tmp_path, seed=0)
    again = target_footage(_Counting("other"), shot, tmp_path, seed=0)
    assert prior.filmed == 1
    assert again.background == first.background
    for name in ("images", "masks", "c2w", "K", "times_s"):
        found, wanted = getattr(again, name), getattr(first, name)
        assert found.dtype == wanted.dtype, name
        assert torch.equal(found, wanted), name


def test_damaged_target_is_refused_with_what_to_do(tmp_path):
    """Oracle: the sentence names the file."""
    target_footage(_Counting("grey"), shot_of([0.0, 0.5]), tmp_path, seed=0)
    path = tmp_path / TARGET
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"target\.safetensors: found a damaged file .*; delete it"):
        target_footage(_Counting("grey"), shot_of([0.0, 0.5]), tmp_path, seed=0)


def test_clip_of_another_length_is_refused(tmp_path):
    """Oracle: the sentence names the prior and both counts; nothing is kept."""

    class Short(_Counting):
        def film(self, shot, *, seed, told=None):
            footage = super().film(shot, seed=seed, told=told)
            return dataclasses.replace(footage, images=footage.images[:, :2])

    with pytest.raises(InputError, match="--prior grey: found a clip of 2 frames, expected 3; set"):
        target_footage(Short("grey"), shot_of([0.0, 0.5, 1.0]), tmp_path, seed=0)
    assert not (tmp_path / TARGET).exists()
