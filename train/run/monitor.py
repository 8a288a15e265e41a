"""Where a run's numbers go: a line of JSON each, TensorBoard, and Weights & Biases if asked for.

`log.jsonl` is the record and goes on after a restart without doubled or lost lines; the other two are views of it.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from manifests.errors import InputError
from manifests.publish import write_bytes

__all__ = ["Monitor", "append_lines", "check_wandb", "cut_after", "read_lines"]


class Monitor:
    """The log of one process, that of rank 0.

    Args:
        out: folder of the run.
        step: updates done; lines after it, of a run that was killed, are dropped.
        config: of the run, for Weights & Biases.
        wandb: also log there.
    """

    def __init__(self, out: Path, *, step: int, config: dict[str, Any], wandb: bool = False) -> None:
        cut_after(out / "log.jsonl", step)
        self._lines = out / "log.jsonl"
        self._board = _tensorboard(out / "tensorboard", step)
        self._wandb = _wandb(out, config) if wandb else None

    def log(self, step: int, facts: dict[str, Any]) -> None:
        """One line: ``step`` and facts, in every place; numbers that are not finite are left out."""
        kept = {name: value for name, value in facts.items() if not isinstance(value, float) or math.isfinite(value)}
        append_lines(self._lines, [{"step": step, **kept}])
        for name, value in kept.items():
            if self._board is not None and isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(kept, step=step)

    def close(self) -> None:
        """Everything on disk."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_wandb(wanted: bool) -> None:
    """Refuses a wish that cannot be met, before any work.

    Raises:
        InputError: Weights & Biases is not installed.
    """
    if wanted and importlib.util.find_spec("wandb") is None:
        raise InputError("--wandb: found no package wandb, expected it; install wandb or leave the option out")


def append_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Lines of JSON at the end of a file, which is created; they are the system's when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON-lines file; a torn last line, of a killed process, is left out."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    read = []
    for number, line in enumerate(lines):
        try:
            read.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise InputError(f"{path}: found {error} in line {number + 1}, expected JSON") from error
    return read


def cut_after(path: Path, step: int) -> None:
    """Drops lines of a JSON-lines file that were written after a step."""
    if path.exists():
        kept = [line for line in read_lines(path) if line["step"] <= step]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _tensorboard(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def _wandb(out: Path, config: dict[str, Any]) -> Any:
    import wandb

    return wandb.init(project="mvvideo", name=out.name, dir=str(out), config=config, resume="allow")
