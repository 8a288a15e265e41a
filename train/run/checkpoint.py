"""Checkpoints: folders that are whole or not there, with everything a run needs to go on.

A folder is written under an attempt name, synced, renamed, and only then are older ones removed; its manifest, written
last, has the size and SHA-256 of each file. Tensors are safetensors, all else is JSON with plain numbers; nothing is
ever pickled.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from manifests.errors import InputError
from manifests.publish import ATTEMPT_SUFFIX, sha256_file

__all__ = [
    "Checkpoint",
    "found",
    "latest",
    "load",
    "random_state",
    "save",
    "save_tensors",
    "set_random_state",
    "step_of",
]

MANIFEST = "manifest.json"
TENSORS = ("weights", "ema", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that decides how a run goes on."""

    step: int
    """Updates done."""
    weights: Mapping[str, Tensor]
    """Trained weights by parameter name."""
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    """Their average; empty where the run has none."""
    optimizer: Mapping[str, Tensor]
    """``NAME.exp_avg``, ``NAME.exp_avg_sq``, ``NAME.step`` for each parameter."""
    random: tuple[dict[str, Any], ...]
    """`random_state` of each rank."""
    state: dict[str, Any]
    """Plain JSON: data position, updates of the average, config, versions."""


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes a checkpoint, then removes what is older than the newest ones, and unfinished ones.

    Args:
        folder: of all checkpoints; created.
        checkpoint: what to save.
        keep: newest checkpoints to keep, at least 1; those of later steps belong to a past that was given up.

    Returns:
        the checkpoint's folder, ``step-00000100``.

    Raises:
        OSError: storage refuses; no earlier checkpoint was touched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    trial = folder / f".{final.name}.{os.getpid()}-{secrets.token_hex(6)}{ATTEMPT_SUFFIX}"
    trial.mkdir(parents=True)
    try:
        _write(trial, checkpoint)
        _sync(trial)
        if final.exists():  # a damaged one that `latest` passed over; it makes room when the new one is whole
            os.rename(final, trial.with_name(f"{trial.name}-old{ATTEMPT_SUFFIX}"))
        os.rename(trial, final)
    except BaseException:
        shutil.rmtree(trial, ignore_errors=True)
        raise
    _sync(folder)
    _sweep(folder, final, keep)
    return final


def found(folder: Path) -> list[Path]:
    """Checkpoints by name, oldest first; whether they are whole is not looked at."""
    named = folder.iterdir() if folder.is_dir() else []
    return sorted((path for path in named if re.fullmatch(r"step-\d{8,}", path.name)), key=step_of)


def step_of(path: Path) -> int:
    """Updates done, by the folder's name."""
    return int(path.name.removeprefix("step-"))


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a warning names each one that is not. None where there is no whole one."""
    for path in reversed(found(folder)):
        try:
            return load(path)
        except InputError as error:
            warnings.warn(f"{error}; it is passed over", stacklevel=2)
    return None


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Args:
        path: its folder.

    Returns:
        tensors on the CPU.

    Raises:
        InputError: a file is missing, truncated or changed; the message names it.
    """
    manifest = _manifest(path / MANIFEST)
    for name, facts in manifest["files"].items():
        _check(path / name, facts)
    tensors = {name: load_file(path / f"{name}.safetensors") for name in TENSORS}
    ranks = sorted(name for name in manifest["files"] if name.startswith("random-"))
    states = tuple(_json(path / name) for name in ranks)
    return Checkpoint(step=manifest["step"], **tensors, random=states, state=_json(path / "state.json"))


def random_state() -> dict[str, Any]:
    """The generators of torch, numpy and Python of this process, as plain numbers."""
    name, keys, *rest = np.random.get_state()
    state = {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [name, keys.tolist(), *rest],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return json.loads(json.dumps(state))


def set_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of `random_state`; a GPU's state is only set where there is a GPU."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, synced.

    Raises:
        OSError: storage refuses; the library says so only in its text.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    _sync(path)


def _write(trial: Path, checkpoint: Checkpoint) -> None:
    for name in TENSORS:
        save_tensors(trial / f"{name}.safetensors", getattr(checkpoint, name))
    for rank, state in enumerate(checkpoint.random):
        _write_json(trial / f"random-{rank:05d}.json", state)
    _write_json(trial / "state.json", checkpoint.state)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(trial.iterdir())}
    _write_json(trial / MANIFEST, {"step": checkpoint.step, "files": files})


def _write_json(path: Path, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: found {error}, expected a file of a whole checkpoint") from error


def _manifest(path: Path) -> dict[str, Any]:
    manifest = _json(path)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    needed = {"state.json", *(f"{name}.safetensors" for name in TENSORS)}
    if not isinstance(files, dict) or not needed <= files.keys() or manifest.get("step") != step_of(path.parent):
        raise InputError(f"{path}: found another content, expected the files and the step of {path.parent.name}")
    return manifest


def _check(path: Path, facts: Mapping[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else -1
    if size != facts["bytes"]:
        there = f"{size} bytes" if size >= 0 else "no such file"
        raise InputError(f"{path}: found {there}, expected {facts['bytes']} bytes of a whole checkpoint")
    sha256 = sha256_file(path)
    if sha256 != facts["sha256"]:
        raise InputError(f"{path}: found sha256 {sha256[:8]}.., expected {facts['sha256'][:8]}.. of a whole checkpoint")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path, newest: Path, keep: int) -> None:
    kept = [path for path in found(folder) if step_of(path) <= step_of(newest)][-keep:]
    leftovers = [path for path in folder.iterdir() if path.name.endswith(ATTEMPT_SUFFIX)]
    for path in [*found(folder), *leftovers]:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
