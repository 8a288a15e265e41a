"""What is made but not yet packed: one part a clip and series, and a note on how it went.

A part's name follows from everything that decides its bytes, so work of an interrupted run is found again and work of
another config never is. Parts appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.clip import from_json, members
from manifests.errors import DatasetError
from manifests.publish import write_bytes
from manifests.tar import Member, read_at, read_part

__all__ = ["Staged", "Staging"]


@dataclass(frozen=True)
class Staged:
    """The files of one clip."""

    stem: Path
    series: tuple[str, ...]

    def part(self, series: str = "") -> Path:
        """The part of a series, RGB by default."""
        return self.stem.with_name(f"{self.stem.name}{'.' + series if series else ''}.part")

    @property
    def note(self) -> Path:
        """JSON: ``status`` accepted, rejected or failed, ``seconds``, ``attempts``, ``reason``, ``detail``."""
        return self.stem.with_name(f"{self.stem.name}.json")

    def outcome(self) -> dict[str, Any] | None:
        """The note, made up where only the part is there; None where the clip is still to be rendered."""
        note = self._note()
        if note is not None and note["status"] != "accepted":
            return note
        try:
            for series in ("", *self.series):
                read_part(self.part(series))
        except (OSError, DatasetError):
            return None
        return note or {"status": "accepted", "reason": "", "detail": "", "seconds": 0.0, "attempts": 1}

    def sample(self) -> dict[str, Any]:
        """The clip's JSON, from the part.

        Raises:
            DatasetError: the part's members are not those of its sample.
        """
        path = self.part()
        found: list[Member] = read_part(path)
        sample = from_json(read_at(path, found[0].offset, found[0].size), path.name)
        if [member.name for member in found] != members(sample):
            raise DatasetError(f"{path}: found other members than its sample names; delete it and repeat the build")
        return sample

    def write_note(self, **note: Any) -> None:
        """Record how it went."""
        write_bytes(self.note, json.dumps(note).encode())

    def forget(self) -> None:
        """Remove everything."""
        for path in (self.note, *(self.part(series) for series in ("", *self.series))):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _note(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.note.read_bytes())
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Staging:
    """The folder of all of them.

    Args:
        folder: on storage that driver and workers share.
        identity: what decides a part's bytes beside its planned sample.
        series: parallel series that every clip has.
    """

    folder: Path
    identity: dict[str, Any]
    series: tuple[str, ...] = ()

    def of(self, planned: dict[str, Any]) -> Staged:
        """Where the clip of a planned sample is staged."""
        text = json.dumps([planned, self.identity, self.series], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:40]
        return Staged(self.folder / name[:2] / name, self.series)
