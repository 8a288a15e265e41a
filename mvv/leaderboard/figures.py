"""How pages print scores: scaled and rounded as their card says, with interval, direction and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.ranking import Table
from mvv.pages.markup import Html, element

__all__ = ["CONTROL_NAMES", "aim", "interval_text", "score_text", "table_name", "title_text", "unscored"]

CONTROL_NAMES: Mapping[str, str] = {
    "frozen": "Frozen copy",
    "jitter": "Frozen with noise",
    "orbit": "Camera orbit",
    "first_frame": "First frame only",
}
"""Variant -> its name in tables."""

_AIMS = {True: ("↑", "higher is better"), False: ("↓", "lower is better"), None: ("↕", "neither direction is better")}


def score_text(value: float | None, card: Mapping[str, Any]) -> str:
    """A score in the unit of tables; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value * card['scale']:.{card['decimals']}f}"
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text.replace("-", "\u2212")


def interval_text(low: float | None, high: float | None, card: Mapping[str, Any]) -> str:
    """``12.1 – 14.0``; empty where not available."""
    if low is None or high is None:
        return ""
    return f"{score_text(low, card)}\u2009–\u2009{score_text(high, card)}"


def aim(card: Mapping[str, Any]) -> Html:
    """The arrow of a metric's good direction."""
    arrow, meaning = _AIMS[card["higher_is_better"]]
    return element("span", arrow, class_="aim", title=meaning)


def table_name(table: Table) -> str:
    """Protocol and set: ``threetofour 1, tiny``."""
    return f"{table.protocol['name']} {table.protocol['version']}, {table.set['name']}"


def title_text(card: Mapping[str, Any]) -> str:
    """Title with the scale: ``LPIPS ×100``."""
    return card["title"] if card["scale"] == 1 else f"{card['title']} ×{card['scale']:g}"


def unscored(reason: str) -> Html:
    """What stands in place of a score that is not there; the reason shows on hovering and stands on the run's page."""
    return element("span", "not scored", class_="none", title=reason)
