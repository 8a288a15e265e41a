"""Dots and whiskers as inline SVG: a value with its interval, in a cell of a table or in a figure with an axis.

Positions are percentages, so that a drawing is as wide as its place and its text keeps its size. Colours come from the
style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.ranking import Cell
from mvv.leaderboard.figures import aim, interval_text, score_text, title_text
from mvv.pages.markup import Html, element, join

__all__ = ["Axis", "Mark", "axis_of", "dot_plot", "round_ticks", "whisker"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis from ``low`` to ``high``, in the unit of the values."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """The place of a value, as a percentage of the width."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One row of a plot.

    Attributes:
        name: at the left.
        cells: one of a method; of a control one for every run that scores it differently.
        control: drawn hollow.
    """

    name: str
    cells: tuple[Cell, ...]
    control: bool = False


def axis_of(cells: Iterable[Cell]) -> Axis | None:
    """An axis on which all values and intervals have their place; None without any value."""
    values = [
        v for cell in cells for v in (cell.value, cell.low, cell.high) if cell.value is not None and v is not None
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Axis(low=low - pad, high=high + pad)


def whisker(mark: Mark, axis: Axis, *, height: int = 9, ticks: Sequence[float] = ()) -> Html:
    """A dot at each value and a line over its interval."""
    middle = height / 2
    parts = [
        element("line", class_="tick", x1=axis.at(tick), x2=axis.at(tick), y1="0", y2=str(height)) for tick in ticks
    ]
    if not ticks:
        parts.append(element("line", class_="whole", x1="0", x2="100%", y1=f"{middle:g}", y2=f"{middle:g}"))
    for cell in mark.cells:
        if cell.low is not None and cell.high is not None:
            ends = {"x1": axis.at(cell.low), "x2": axis.at(cell.high)}
            parts.append(element("line", class_="span", y1=f"{middle:g}", y2=f"{middle:g}", **ends))
        if cell.value is not None:
            kind = "hollow" if mark.control else "dot"
            parts.append(element("circle", class_=kind, cx=axis.at(cell.value), cy=f"{middle:g}", r="3.5"))
    return element("svg", *parts, class_="whisker", height=str(height), aria_hidden="true")


def dot_plot(card: Mapping[str, Any], marks: Sequence[Mark]) -> Html | None:
    """A figure with a row a mark on one axis; None where nothing has a value.

    Args:
        card: of the metric; its scale and decimals are used.
        marks: methods and controls; those without a value are left out.
    """
    marks = [mark for mark in marks if any(cell.value is not None for cell in mark.cells)]
    axis = axis_of(cell for mark in marks for cell in mark.cells)
    if axis is None:
        return None
    ticks = [tick / card["scale"] for tick in round_ticks(axis.low * card["scale"], axis.high * card["scale"])]
    caption = element("figcaption", title_text(card), " ", aim(card), element("span", card["version"]))
    return element(
        "figure", caption, *(_line(mark, card, axis, ticks) for mark in marks), _tick_line(axis, ticks, card)
    )


def _line(mark: Mark, card: Mapping[str, Any], axis: Axis, ticks: Sequence[float]) -> Html:
    texts = [
        " ".join(filter(None, [score_text(cell.value, card), interval_text(cell.low, cell.high, card)]))
        for cell in mark.cells
    ]
    said = ", ".join(texts)
    best = any(cell.best_group or cell.rank == 1 for cell in mark.cells)
    classes = ["dots-row", "other" if mark.control else "", "best" if best else ""]
    drawing = whisker(mark, axis, height=24, ticks=ticks)
    name = element("span", mark.name, title=f"{mark.name}: {said}")
    return element("div", name, drawing, class_=" ".join(filter(None, classes)), title=said)


def _tick_line(axis: Axis, ticks: Sequence[float], card: Mapping[str, Any]) -> Html:
    step = abs(ticks[1] - ticks[0]) * card["scale"] if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [
        element("text", f"{tick * card['scale']:.{digits}f}", x=axis.at(tick), y="13", text_anchor="middle")
        for tick in ticks
    ]
    drawing = element("svg", *labels, height="20", aria_hidden="true")
    return element("div", join([element("span"), drawing]), class_="dots-row ticks")


def round_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range, about ``most`` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(k * step, 12) + 0.0 for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
