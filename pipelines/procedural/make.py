"""Writes a number of procedural assets into a folder; the same seed gives the same bytes.

Families take turns, so asset i is of family i modulo their number. Beside the GLBs only ``LICENSE.txt`` is written.
Each file appears under its final name at once and complete, so an interrupted run can be repeated.
"""

from __future__ import annotations

import os
from pathlib import Path

from .assembly import COPYRIGHT
from .draw import Draw
from .families import FAMILIES

__all__ = ["LICENSE", "make"]

LICENSE = f"""{COPYRIGHT}

The files in this folder that are named FAMILY-NUMBER.glb were computed from a number, without using anybody's work.
To the extent possible under law, their makers have waived all copyright and related or neighbouring rights to them.
https://creativecommons.org/publicdomain/zero/1.0/
"""


def make(out_dir: str | os.PathLike[str], count: int, seed: int) -> list[Path]:
    """Write `count` assets as ``{family}-{k:03d}.glb``.

    Args:
        out_dir: made if it does not exist; files of the same name are replaced.
        count: how many, at least 1.
        seed: any whole number; another seed gives other shapes, colours and speeds.

    Returns:
        The files in order of making.

    Raises:
        ValueError: the count is not positive.
    """
    if count < 1:
        raise ValueError(f"count: found {count}, expected at least 1; ask for one asset or more")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        turn, which = divmod(index, len(FAMILIES))
        family = list(FAMILIES)[which]
        key = f"{family}-{turn:03d}"
        paths.append(folder / f"{key}.glb")
        _write(paths[-1], FAMILIES[family](Draw(seed, key)).to_bytes())
    _write(folder / "LICENSE.txt", LICENSE.encode())
    return paths


def _write(path: Path, data: bytes) -> None:
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        attempt.write_bytes(data)
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
