"""Checkpoints: whole or not there. Round trips, damage of every file, and interruptions at every write."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from manifests.errors import InputError
from train.run import checkpoint
from train.run.checkpoint import Checkpoint, found, latest, load, random_state, save, set_random_state


def make(step: int, width: int = 4) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {"layer.weight": torch.randn(width, 3, generator=generator), "layer.bias": torch.tensor(float(step))}
    return Checkpoint(
        step=step,
        weights=tensors,
        ema={name: value + 1 for name, value in tensors.items()},
        optimizer={f"{name}.exp_avg": value * 2 for name, value in tensors.items()},
        random=(random_state(), random_state()),
        state={"data": {"position": step * 4}, "ema_updates": step},
    )


def same(one: Checkpoint, two: Checkpoint) -> bool:
    groups = [(getattr(one, name), getattr(two, name)) for name in ("weights", "ema", "optimizer")]
    equal = all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in groups)
    return equal and (one.step, one.random, one.state) == (two.step, two.random, two.state)


def test_checkpoint_round_trip_is_exact(tmp_path):
    """Oracle: what was saved; files by the names that the documents give."""
    path = save(tmp_path / "checkpoints", make(100), keep=2)
    assert path.name == "step-00000100"
    assert same(load(path), make(100))
    names = {"weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert {file.name for file in path.iterdir()} == names | {"random-00000.json", "random-00001.json"}


def test_random_state_gives_the_same_numbers_again():
    """Oracle: the numbers themselves, of all three generators."""

    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.randn(()))]

    draw()
    state = random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first


def test_old_checkpoints_go_after_the_new_one_is_there(tmp_path):
    """Oracle: the newest two of five, and no attempt of a killed process."""
    (tmp_path / ".step-00000009.1-ab.attempt").mkdir()
    for step in range(1, 6):
        save(tmp_path, make(step), keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize("stop", ["_write", "_write_json", "save_tensors", "_sync", "rename"])
def test_interruption_anywhere_leaves_the_previous_one_as_latest(tmp_path, monkeypatch, stop):
    """Oracle: the previous checkpoint, whole; whatever raises, at whichever of its calls."""
    save(tmp_path, make(1), keep=1)
    for call in range(3 if stop in ("_write_json", "save_tensors") else 1):
        with monkeypatch.context() as patch:
            where = checkpoint.os if stop == "rename" else checkpoint
            whole, calls = getattr(where, stop), iter(range(100))

            def interrupted(*args, call=call, whole=whole, calls=calls):
                if next(calls) == call:
                    raise KeyboardInterrupt("stop")
                return whole(*args)

            patch.setattr(where, stop, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save(tmp_path, make(2), keep=1)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        assert same(latest(tmp_path), make(1))


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_file_is_named_and_the_previous_checkpoint_taken(tmp_path, name, damage):
    """Oracle: the name in the message, and step 1 instead of 2."""
    save(tmp_path, make(1), keep=3)
    file = save(tmp_path, make(2), keep=3) / name
    _damage(file, damage)
    with pytest.raises(InputError, match=rf"step-00000002/{name}: found .*, expected"):
        load(file.parent)
    with pytest.warns(UserWarning, match=rf"{name}.*passed over"):
        assert same(latest(tmp_path), make(1))


def _damage(file: Path, damage: str) -> None:
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
        return
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes(data[: len(data) - 1] if damage == "truncate" else data)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"files": {}}', '{"step": 2, "files": {}}'])
def test_checkpoint_without_a_true_manifest_is_not_one(tmp_path, text):
    """Oracle: the error; a manifest is written last, so what lacks one was never finished."""
    file = save(tmp_path, make(2), keep=1) / "manifest.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=r"step-00000002"):
        load(file.parent)


def test_damaged_checkpoint_makes_room_for_the_same_step(tmp_path):
    """Oracle: after going on from step 1, step 2 is saved again; a damaged step 3 of that past is gone."""
    for step in (1, 2, 3):
        (save(tmp_path, make(step), keep=3) / "state.json").write_text("" if step > 1 else "{}")
    save(tmp_path, make(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert same(latest(tmp_path), make(2))


def test_no_checkpoint_is_none(tmp_path):
    """Oracle: nothing there, or only what is none."""
    assert latest(tmp_path / "none") is None
    (tmp_path / "step-x").mkdir()
    assert found(tmp_path) == []


def test_moved_checkpoint_still_loads(tmp_path):
    """Oracle: the same content; no path of a machine is inside."""
    path = save(tmp_path / "a", make(3), keep=1)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert same(load(tmp_path / "b" / path.name), make(3))


@pytest.mark.parametrize("limit", [200, 20_000, 40_000])
def test_full_disk_is_an_os_error_and_leaves_the_previous_one(tmp_path, limit):
    """Oracle: the kernel's limit on file sizes in a child process, which meets JSON and tensors alike."""
    save(tmp_path, make(1, 4), keep=1)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_save_under_limit, args=(tmp_path, limit))
    child.start()
    child.join(60)
    assert child.exitcode == 27
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert same(latest(tmp_path), make(1, 4))


def _save_under_limit(folder: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save(folder, make(2, 5000 if limit > 30_000 else 4), keep=1)
    except OSError as error:
        os._exit(error.errno if error.errno == errno.EFBIG else 1)
    os._exit(2)
