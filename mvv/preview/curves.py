"""Losses of a run as inline SVG, a figure for each stage, read from the lines that the run logs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvv.pages.markup import Html, element

__all__ = ["loss_curve", "read_log"]

_WIDTH, _HEIGHT, _LEFT, _BASE, _TOP = 480.0, 170.0, 46.0, 142.0, 8.0
_POINTS = 300


def read_log(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Stage -> its lines in order; a line that is still being written is left out."""
    stages: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        stages.setdefault(row["stage"], []).append(row)
    return stages


def loss_curve(stage: str, rows: Sequence[dict[str, Any]]) -> Html:
    """The loss of a stage over its steps; logarithmic where it falls far.

    Args:
        stage: its name.
        rows: with ``step`` and ``loss``, at least one.
    """
    steps, values = _thinned([row["step"] for row in rows], [row["loss"] for row in rows])
    axis = _Axis(values)
    span = max(1, steps[-1] - steps[0])
    places = [_LEFT + (step - steps[0]) / span * (_WIDTH - _LEFT) for step in steps]
    line = "L".join(f"{x:.1f} {axis.at(value):.1f}" for x, value in zip(places, values, strict=True))
    parts = []
    for value in axis.ticks:
        y = axis.at(value)
        parts.append(element("path", class_="axis", d=f"M{_LEFT} {y:.1f}H{_WIDTH}"))
        parts.append(element("text", f"{value:.3g}", x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    parts.append(element("path", class_="loss", d=f"M{line}"))
    if len(values) == 1:
        parts.append(element("circle", class_="loss", cx=f"{places[0]:.1f}", cy=f"{axis.at(values[0]):.1f}", r="2.5"))
    for place, text, anchor in ((_LEFT, f"step {steps[0]:,}", "start"), (_WIDTH, f"{steps[-1]:,}", "end")):
        parts.append(element("text", text, x=place, y=_BASE + 20, text_anchor=anchor))
    label = f"Loss of {stage}: {values[0]:.3g} at step {steps[0]}, {values[-1]:.3g} at step {steps[-1]}"
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", role="img", aria_label=label,
                   class_="chart")  # fmt: skip


class _Axis:
    """Where a loss has its place, and which values are written beside it."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        self._log = low > 0 and high / low > 10
        low = math.log10(low) if self._log else min(0.0, low)
        high = math.log10(high) if self._log else max(high, low + 1e-9)
        self._low, self._span = low, high - low
        self.ticks = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)] if self._log else []
        if len(self.ticks) < 2:
            self.ticks = [10**value if self._log else value for value in (low, (low + high) / 2, high)]

    def at(self, value: float) -> float:
        """Pixels from the top."""
        share = ((math.log10(value) if self._log else value) - self._low) / self._span
        return _BASE - share * (_BASE - _TOP)


def _thinned(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    """At most `_POINTS` points, each the mean of as many lines; the last step keeps its place."""
    width = -(-len(steps) // _POINTS)
    parts = [slice(start, start + width) for start in range(0, len(steps), width)]
    return [steps[part][-1] for part in parts], [sum(values[part]) / len(values[part]) for part in parts]
