"""The folder of a run: who may train in it, what is there already, and the pipeline that others load from it.

    RUN/config.json     what decides the run           RUN/log.jsonl, tensorboard/   its numbers
    RUN/run.json        facts: versions, FLOPs, sizes  RUN/ledger.jsonl, datasets.jsonl   clips of each step
    RUN/model/          the latest pipeline            RUN/checkpoints/, validation/

Nothing here trains. Every file appears whole or not at all, except for lines that are appended.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from manifests.errors import InputError
from manifests.publish import ATTEMPT_SUFFIX, attempt, write_bytes
from train.config import FREE_ON_RESUME
from train.run.checkpoint import Checkpoint, found, latest, save_tensors

__all__ = ["RunFolder", "changed_fields"]

_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
_MARK = "training.json"


class RunFolder:
    """Paths of a run and the rules for them. One process at a time uses it, rank 0.

    Args:
        out: the folder; made by `begin`.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.checkpoints, self.model, self.validation = out / "checkpoints", out / "model", out / "validation"
        self.ledger, self.datasets = out / "ledger.jsonl", out / "datasets.jsonl"
        self._handle = -1

    def begin(self, config: dict[str, Any], *, resume: bool) -> Checkpoint | None:
        """Claims the folder and finds where to go on.

        Args:
            config: of `train.config.to_dict`; written to config.json.
            resume: go on with the run that is there.

        Returns:
            the newest whole checkpoint, None for a run that starts.

        Raises:
            InputError: a run is there and `resume` was not asked for, it has another config, none of its checkpoints
                is whole, or another process trains in it.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._claim()
        there = (self.out / "config.json").exists()
        ours = [path for path in (self.model, self.checkpoints) if path.exists() and not there]
        if ours:
            raise InputError(
                f"{ours[0]}: found files of something else, expected a run or nothing; choose another --out"
            )
        if there and not resume:
            raise InputError(f"{self.out}: found a run, expected none; go on with --resume or choose another --out")
        checkpoint = latest(self.checkpoints) if there else None
        if checkpoint is None and found(self.checkpoints):
            raise InputError(
                f"{self.checkpoints}: found no whole checkpoint, expected one; remove the folder to start anew"
            )
        if checkpoint is not None:
            _check_config(self.out, checkpoint.state["config"], config)
        self.write_json("config.json", config)
        return checkpoint

    def release(self) -> None:
        """Lets others train here."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Replaces a small file of the run."""
        write_bytes(self.out / name, (json.dumps(values, indent=1) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """A small file of the run; empty where it is not there or damaged."""
        try:
            return json.loads((self.out / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def write_model(self, pipeline: Any) -> None:
        """Puts a whole pipeline in ``model/``, replacing what a run that died at its start left."""
        trial = self.out / f".model{ATTEMPT_SUFFIX}"
        shutil.rmtree(trial, ignore_errors=True)
        pipeline.save_pretrained(trial, max_shard_size="1TB")
        shutil.rmtree(self.model, ignore_errors=True)
        os.rename(trial, self.model)

    def write_weights(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Replaces the network's weights in ``model/``, the only file of it that changes during a run."""
        with attempt(self.model / _WEIGHTS) as trial:
            save_tensors(trial, weights)
        write_bytes(self.model / _MARK, json.dumps({"step": step}).encode())

    def model_step(self) -> int:
        """Updates that the weights in ``model/`` have seen; -1 where there is no model yet."""
        try:
            return json.loads((self.model / _MARK).read_text())["step"]
        except (OSError, ValueError, KeyError):
            return -1

    def _claim(self) -> None:
        # The kernel lets go of the lock when the process dies, however it dies.
        self._handle = os.open(self.out / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(
                f"{self.out}: found another process that trains here, expected none; wait for it or stop it"
            ) from None


def changed_fields(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Fields that differ and must not when a run goes on, as ``group.field``; the preset is only where both began."""
    flat_old, flat_new = _flat(old), _flat(new)
    differ = sorted(name for name in flat_old.keys() | flat_new.keys() if flat_old.get(name) != flat_new.get(name))
    return [name for name in differ if not {name, name.split(".")[0]} & FREE_ON_RESUME and name != "preset"]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for group, value in config.items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{group}.{name}" if name else group: entry for name, entry in entries}
    return flat


def _check_config(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    names = changed_fields(old, new)
    if names:
        flat_old, flat_new = _flat(old), _flat(new)
        told = ", ".join(f"{name} {flat_new.get(name)} (was {flat_old.get(name)})" for name in names)
        raise InputError(f"{out}: found {told}, expected the config of the run; give the same, or another --out")
