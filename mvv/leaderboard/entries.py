"""What the pages know of a run: its values by object and view, its guards, its strips, and the addresses of its files.

Names of runs, objects and views come from users and become file names only through `safe_name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from eval.inputs.names import safe_name
from eval.runs import METHOD, Run
from eval.scores import Scores
from manifests.errors import InputError

__all__ = ["Entry", "Strip", "Value", "entries_of"]


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of one metric, or why there is none."""

    value: float | None
    reason: str = ""
    on_protocol: bool = True


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The small frames of one video, one above the other.

    Attributes:
        source: the file in the run.
        address: of its copy, relative to the site.
        frames: how many.
        fps: at which they play.
        ratio: width over height of one frame.
    """

    source: Path
    address: str
    frames: int
    fps: float
    ratio: float


@dataclass(frozen=True)
class Entry:
    """A run in the site.

    Attributes:
        run: the run.
        name: of its page and media folder; unique in the site.
    """

    run: Run
    name: str

    @property
    def method(self) -> str:
        return str(self.run.info["method"])

    @property
    def page(self) -> str:
        """Address relative to the site."""
        return f"runs/{self.name}.html"

    @cached_property
    def views(self) -> Mapping[str, tuple[str, ...]]:
        """Object -> its views, in order."""
        found: dict[str, list[str]] = {}
        for row in self.inputs:
            found.setdefault(row["object_id"], []).append(row["view"])
        return {name: tuple(views) for name, views in found.items()}

    @cached_property
    def inputs(self) -> list[dict[str, Any]]:
        """Rows of inputs.parquet."""
        return self.run.table("inputs").to_pylist()

    @cached_property
    def guards(self) -> list[dict[str, Any]]:
        """Rows of guards.parquet."""
        return self.run.table("guards").to_pylist()

    @cached_property
    def values(self) -> Mapping[tuple[str, str], Mapping[str, Value]]:
        """(object, metric) -> view -> value of the method; the view is "" where the value is of the whole object."""
        found: dict[tuple[str, str], dict[str, Value]] = {}
        for row in self.run.videos:
            if row["variant"] == METHOD:
                value = Value(value=row["value"], reason=row["reason"], on_protocol=row["on_protocol"])
                found.setdefault((row["object_id"], row["metric"]), {})[row["view"]] = value
        return found

    def failed_guards(self, object_id: str) -> list[dict[str, Any]]:
        """Rows of the guards that a method's videos of this object fail."""
        return [row for row in self._failed if row["object_id"] == object_id]

    @cached_property
    def _failed(self) -> list[dict[str, Any]]:
        return [row for row in self.guards if row["failed"] and row["variant"] == METHOD]

    def means(self, metric: str) -> Mapping[str, float]:
        """Object -> the method's value of it, as tables average it; objects without one are not in it."""
        if metric not in self._means:
            known = metric in self.run.info["cards"] and self._scores.level(metric) != "set"
            found = self._scores.means(metric) if known else None
            self._means[metric] = dict(zip(found.ids, map(float, found.values), strict=True)) if found else {}
        return self._means[metric]

    @cached_property
    def _scores(self) -> Scores:
        return Scores(self.run)

    @cached_property
    def _means(self) -> dict[str, dict[str, float]]:
        return {}

    @cached_property
    def strips(self) -> Mapping[str, Mapping[str, Strip]]:
        """Object -> view -> strip, where the run has a readable one."""
        found: dict[str, dict[str, Strip]] = {}
        for row in self.inputs:
            if strip := self._strip(row):
                found.setdefault(row["object_id"], {})[row["view"]] = strip
        return found

    def _strip(self, row: Mapping[str, Any]) -> Strip | None:
        """The strip of a row of inputs.parquet; its frames are fewer than the video's where that is very long."""
        folders = safe_name(row["object_id"]), f"{safe_name(row['view'])}.webp"
        path = self.run.folder.joinpath("media", *folders)
        try:
            with Image.open(path, formats=["WEBP"]) as image:
                width, height = image.size
        except (OSError, UnidentifiedImageError):
            return None
        said = self.run.info["media"]
        tall, wide = row["height"] or height, row["width"] or width
        step = max(1, round(tall * min(1.0, said["size"] / max(tall, wide))))  # as it was made smaller
        frames = max(1, round(height / step))
        fps = (row["fps"] or said["fps"]) * frames / (row["frames"] or frames)
        address = "/".join(["media", self.name, *folders])
        return Strip(source=path, address=address, frames=frames, fps=round(fps, 4), ratio=width * frames / height)


def entries_of(runs: Iterable[Path | str]) -> list[Entry]:
    """The runs, opened, in the order given; the same run twice counts once.

    Raises:
        InputError: none given, or one that is no finished run.
    """
    found: dict[str, Entry] = {}
    for folder in runs:
        run = Run.open(folder)
        name = f"{safe_name(str(run.info['method']))}-{run.info['hash'][:8]}"
        found.setdefault(name, Entry(run, name))
    if not found:
        raise InputError("RUN: found none, expected at least one folder that `mvv eval run` wrote; name it")
    return list(found.values())
