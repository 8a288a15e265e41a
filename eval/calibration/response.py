"""How each metric answers to motion that is known: its value against pixels a frame, object size and frame rate.

One quantity is varied at a time, the others stay at their base, for every kind of motion. A metric whose curve turns
back where it should rise cannot rank methods by what it claims to measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from eval.calibration.clips import KINDS, moving_clip
from eval.extractor import Extractor
from eval.metric import Metric, NotScored, Subject
from manifests.errors import InputError

__all__ = ["AXES", "EXPECTED", "ROWS", "Check", "GridConfig", "calibrate", "monotonic"]

AXES: dict[str, str] = {
    "px_per_frame": "motion of the fastest point, pixels a frame",
    "object_size": "diameter of the object, pixels",
    "fps": "frames a second",
}
"""What is varied -> how it is written on an axis."""

ROWS = pa.schema(
    [
        pa.field("metric", pa.string(), metadata={"doc": "id@version of the card"}),
        pa.field("kind", pa.string(), metadata={"doc": "of motion"}),
        pa.field("axis", pa.string(), metadata={"doc": "which of the next three is varied"}),
        pa.field("px_per_frame", pa.float64(), metadata={"doc": "motion of the fastest point between two frames"}),
        pa.field("object_size", pa.float64(), metadata={"doc": "diameter of the object at rest, pixels"}),
        pa.field("fps", pa.float64(), metadata={"doc": "frames a second"}),
        pa.field("value", pa.float64(), metadata={"doc": "the score; null where there is none"}),
        pa.field("reason", pa.string(), metadata={"doc": "why there is none; empty where there is a value"}),
    ]
)
"""Columns of the table of curves."""

EXPECTED: dict[str, dict[str, int]] = {
    "flow_magnitude": {"px_per_frame": 1, "fps": 0},
    "dynamic_object": {"px_per_frame": 1, "object_size": -1, "fps": 1},
    "dynamic_degree": {"px_per_frame": 1, "object_size": 1},
    "dynamic_margin": {"px_per_frame": 1},
    "temporal_flickering": {"px_per_frame": -1, "object_size": -1, "fps": 0},
    "motion_smoothness": {"px_per_frame": -1, "fps": 0},
    "motion_smoothness_object": {"px_per_frame": -1, "fps": 0},
    "mask_stability": {"px_per_frame": -1, "fps": 0},
    "lpips_f": {"px_per_frame": 1, "fps": 0},
    "clip_f": {"fps": 0},
}
"""Metric id -> axis -> how its value must go: 1 never down, -1 never up, 0 not at all."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Which clips the curves are made of."""

    kinds: tuple[str, ...] = KINDS
    """Kinds of motion."""
    px_per_frame: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
    """Motion of the fastest point between two frames, pixels."""
    object_size: tuple[float, ...] = (48.0, 72.0, 96.0, 128.0)
    """Diameter of the object, pixels."""
    fps: tuple[float, ...] = (4.0, 8.0, 12.0, 16.0, 24.0)
    """Frames a second, of the same frames."""
    base_px_per_frame: float = 4.0
    """Motion while another quantity is varied."""
    base_object_size: float = 96.0
    """Diameter while another quantity is varied."""
    base_fps: float = 8.0
    """Frame rate while another quantity is varied."""
    frames: int = 16
    """Length of every clip."""
    size: int = 256
    """Width and height of the picture, pixels."""
    seed: int = 0
    """Of patterns and directions."""

    @property
    def base(self) -> dict[str, float]:
        """Axis -> its value while another is varied."""
        return {axis: getattr(self, f"base_{axis}") for axis in AXES}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Whether one curve goes as it must.

    Attributes:
        metric, kind, axis: which curve.
        expected: 1, -1 or 0, as in `EXPECTED`.
        holds: it does.
        change: its last value minus its first.
        worst: the largest step the wrong way, at least 0; of an expected 0, the largest difference.
    """

    metric: str
    kind: str
    axis: str
    expected: int
    holds: bool
    change: float
    worst: float


def calibrate(
    metrics: Sequence[Metric], extractors: Mapping[str, Extractor], grid: GridConfig | None = None
) -> Iterator[dict[str, Any]]:
    """The points of all curves, one kind of motion at a time.

    Args:
        metrics: any; those that cannot score such a clip (it has no truth and a single view) give the reason.
        extractors: name -> loaded extractor, at least those that the metrics read.
        grid: None for the default.

    Yields:
        rows as in `ROWS`.

    Raises:
        InputError: an extractor that is not there, or a motion without room in the picture.
    """
    grid = grid or GridConfig()
    for metric in metrics:
        absent = [name for name in metric.extractors if name not in extractors]
        if absent:
            raise InputError(f"{metric.card.name}: found no {', '.join(absent)}, expected it loaded; add its weights")
    for kind in grid.kinds:
        points = sorted({tuple((grid.base | {axis: x}).values()) for axis in AXES for x in getattr(grid, axis)})
        subjects = dict(zip(points, _subjects(kind, points, metrics, extractors, grid), strict=True))
        for metric in metrics:
            found = {point: _value(metric, subject) for point, subject in subjects.items()}
            for axis in AXES:
                for x in getattr(grid, axis):
                    where = grid.base | {axis: x}
                    value, reason = found[tuple(where.values())]
                    yield {
                        "metric": metric.card.name,
                        "kind": kind,
                        "axis": axis,
                        **where,
                        "value": value,
                        "reason": reason,
                    }


def _subjects(
    kind: str,
    points: Sequence[tuple[float, ...]],
    metrics: Sequence[Metric],
    extractors: Mapping[str, Extractor],
    grid: GridConfig,
) -> list[Subject]:
    """A clip with all its features for each (px_per_frame, object_size, fps)."""
    fixed = {"frames": grid.frames, "size": grid.size, "seed": grid.seed}
    clips = [moving_clip(kind, **dict(zip(AXES, point, strict=True)), **fixed)[0] for point in points]
    names = sorted({name for metric in metrics for name in metric.extractors})
    features = {name: extractors[name].extract(clips) for name in names}
    return [
        Subject(clip=clip, features={name: found[k] for name, found in features.items()})
        for k, clip in enumerate(clips)
    ]


def _value(metric: Metric, subject: Subject) -> tuple[float | None, str]:
    if metric.card.level == "set":
        return None, "a score of a set of videos, not of one"
    try:
        return metric.score([subject] if metric.card.level == "object" else subject).value, ""
    except NotScored as reason:
        return None, str(reason)


def monotonic(rows: Sequence[Mapping[str, Any]], *, slack: float = 0.02) -> list[Check]:
    """Checks every curve of which `EXPECTED` says how it must go.

    Args:
        rows: of `calibrate`; those without a value are left out, and so are curves of fewer than two points.
        slack: a step the wrong way is forgiven up to this share of the largest range that a curve of the metric has.

    Returns:
        one check a (metric, axis, kind), in the order of the rows.
    """
    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["value"] is not None and row["axis"] in EXPECTED.get(row["metric"].partition("@")[0], {}):
            curve = curves.setdefault((row["metric"], row["kind"], row["axis"]), [])
            curve.append((row[row["axis"]], row["value"]))
    ranges: dict[str, float] = {}
    for (metric, _, _), curve in curves.items():
        values = [value for _, value in curve]
        ranges[metric] = max(ranges.get(metric, 0.0), max(values) - min(values))
    checks = []
    for (metric, kind, axis), curve in curves.items():
        if len(curve) < 2:
            continue
        values = np.array([value for _, value in sorted(curve)])
        expected = EXPECTED[metric.partition("@")[0]][axis]
        steps = np.diff(values)
        worst = float(np.ptp(values) if expected == 0 else max(0.0, -(expected * steps).min()))
        allowed = max(slack * ranges[metric], 1e-9)
        checks.append(
            Check(
                metric=metric, kind=kind, axis=axis, expected=expected, holds=worst <= allowed,
                change=float(values[-1] - values[0]), worst=worst,
            )
        )  # fmt: skip
    return checks
