"""The figures of a report, counted in one pass over the tables of a dataset.

Memory grows with the number of reasons and licences and with the limits below, not with the number of clips: motion and
times are counted into fixed bins. What dataset.json has counted already is taken from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manifests.dataset import Dataset
from manifests.errors import CAUSES, REASONS

__all__ = ["Bins", "Facts", "Refusal", "gather"]

_FAILURES = 100
_EXAMPLES = 3


@dataclass
class Bins:
    """Counts of positive values in bins of equal width on a logarithmic axis; values outside go to the outermost bin.

    Args:
        low: lower edge of the first bin.
        high: upper edge of the last one.
        unit: printed behind the values.
    """

    low: float
    high: float
    unit: str
    counts: np.ndarray = field(default_factory=lambda: np.zeros(32, np.int64))
    total: float = 0.0

    def add(self, value: float) -> None:
        place = np.log(max(value, self.low) / self.low) / np.log(self.high / self.low) * len(self.counts)
        self.counts[min(int(place), len(self.counts) - 1)] += 1
        self.total += value

    @property
    def edges(self) -> np.ndarray:
        return np.geomspace(self.low, self.high, len(self.counts) + 1)

    def quantile(self, share: float) -> float:
        """About that quantile: the middle of the bin it falls into, so within 16 % for three decades."""
        if not self.counts.any():
            return 0.0
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return float(np.sqrt(self.edges[place] * self.edges[place + 1]))


@dataclass
class Refusal:
    """Rows of one reason: how many, and the first few as ``(who, detail)``."""

    level: str
    reason: str
    meaning: str
    rows: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Facts:
    """What a report says about the whole dataset.

    Args:
        counts: of dataset.json.
        motion: histograms by name of the figure.
        seconds: render time of a clip.
        retried: accepted clips that needed more than one attempt.
        rejected: by level (asset, clip) and reason, most frequent first.
        failures: rows of clips and assets that failed, at most 100.
        failed: how many failed in all.
        licenses: licence -> (models, clips), most frequent first.
    """

    counts: dict[str, Any]
    motion: dict[str, Bins]
    seconds: Bins
    retried: int
    rejected: list[Refusal]
    failures: list[dict[str, str]]
    failed: int
    licenses: dict[str, tuple[int, int]]

    @property
    def images_per_second(self) -> float:
        """Of one worker; 0 where no times were recorded."""
        return self.counts["images"] / self.seconds.total if self.seconds.total else 0.0


def gather(dataset: Dataset) -> Facts:
    """Read the tables of a dataset once, streaming."""
    motion = {
        "motion_mean_displacement": Bins(0.003, 3.0, "radii"),
        "motion_mean_speed": Bins(0.01, 10.0, "radii/s"),
    }
    seconds = Bins(0.1, 10_000.0, "s")
    refusals: dict[tuple[str, str], Refusal] = {}
    failures: list[dict[str, str]] = []
    failed = retried = 0
    models: dict[str, set[str]] = {}
    clips: Counter[str] = Counter()
    for level, row in _rows(dataset):
        if row["status"] == "rejected":
            _refuse(refusals, level, row)
        elif row["status"] == "failed":
            failed += 1
            if len(failures) < _FAILURES:
                failures.append(_failure(level, row))
        elif level == "clip":
            for name, bins in motion.items():
                bins.add(row[name])
            seconds.add(row["seconds"])
            retried += row["attempts"] > 1
            clips[row["license"]] += 1
            models.setdefault(row["license"], set()).add(row["asset_id"])
    return Facts(
        counts=dataset.manifest["counts"],
        motion=motion,
        seconds=seconds,
        retried=retried,
        rejected=sorted(refusals.values(), key=lambda refusal: (-refusal.rows, refusal.reason)),
        failures=failures,
        failed=failed,
        licenses={license: (len(models[license]), rows) for license, rows in clips.most_common()},
    )


def _rows(dataset: Dataset) -> Iterable[tuple[str, dict[str, Any]]]:
    for row in dataset.assets():
        yield "asset", row
    columns = ["clip_id", "asset_id", "animation_name", "license", "status", "reason", "detail", "seconds", "attempts"]
    columns += ["motion_mean_displacement", "motion_mean_speed"]
    for row in dataset.clips(status=None, columns=columns):
        yield "clip", row


def _refuse(refusals: dict[tuple[str, str], Refusal], level: str, row: dict[str, Any]) -> None:
    reason = row["reason"]
    refusal = refusals.setdefault((level, reason), Refusal(level, reason, REASONS.get(reason, "")))
    refusal.rows += 1
    if len(refusal.examples) < _EXAMPLES:
        refusal.examples.append((_who(level, row), row["detail"]))


def _failure(level: str, row: dict[str, Any]) -> dict[str, str]:
    """The first line of the detail says what happened; what follows are the last lines of the log."""
    said, _, log = row["detail"].partition("\n")
    cause = row["reason"]
    return {"who": _who(level, row), "cause": cause, "meaning": CAUSES.get(cause, ""), "said": said, "log": log.strip()}


def _who(level: str, row: dict[str, Any]) -> str:
    if level == "asset":
        return row["source"] or row["asset_id"]
    name = f" “{row['animation_name']}”" if row["animation_name"] else ""
    return f"{row['clip_id'] or row['asset_id']}{name}"
