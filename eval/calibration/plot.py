"""Response curves as one SVG, and the table behind them. A row a metric, a column a varied quantity, a line a kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eval.calibration.response import AXES, ROWS, Check
from manifests.publish import attempt, write_bytes

__all__ = ["read_rows", "response_svg", "write_plot"]

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
"""Told apart by people with any kind of colour blindness (Okabe and Ito; the yellow darkened for white paper)."""
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
_WIDTH, _HEIGHT, _GAP, _LEFT, _TOP, _LINE = 240, 130, 62, 64, 56, 210
"""Of a panel, between panels, and from one row of panels to the next, pixels."""


def write_plot(out_dir: Path | str, rows: Sequence[Mapping[str, Any]], checks: Sequence[Check]) -> list[Path]:
    """Writes the curves and the table they are drawn from.

    Args:
        out_dir: made if needed.
        rows: of `calibrate`.
        checks: of `monotonic`; curves that fail are named in their panel.

    Returns:
        calibration.svg, calibration.parquet (`ROWS`) and calibration.json ({rows, checks}).
    """
    folder = Path(out_dir)
    svg, table, text = (folder / f"calibration.{suffix}" for suffix in ("svg", "parquet", "json"))
    write_bytes(svg, response_svg(rows, checks).encode())
    with attempt(table) as trial:
        pq.write_table(pa.Table.from_pylist(list(rows), ROWS), trial, compression="zstd")
    content = {"rows": list(rows), "checks": [dataclasses.asdict(check) for check in checks]}
    write_bytes(text, json.dumps(content, indent=1, allow_nan=False).encode())
    return [svg, table, text]


def read_rows(out_dir: Path | str) -> list[dict[str, Any]]:
    """The rows that `write_plot` wrote."""
    return pq.read_table(Path(out_dir) / "calibration.parquet", schema=ROWS).to_pylist()


def response_svg(rows: Sequence[Mapping[str, Any]], checks: Sequence[Check] = ()) -> str:
    """A complete SVG document of all curves.

    Args:
        rows: of `calibrate`.
        checks: of `monotonic`.
    """
    metrics = list(dict.fromkeys(row["metric"] for row in rows if row["value"] is not None))
    silent = {row["metric"]: row["reason"] for row in rows if row["metric"] not in metrics}
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    parts = [_legend(kinds)]
    for number, metric in enumerate(metrics):
        mine = [row for row in rows if row["metric"] == metric]
        values = [row["value"] for row in mine if row["value"] is not None]
        span = min(values), max(values)
        y = _TOP + number * _LINE
        parts.append(_text(8, y + 2, metric, "title"))
        for column, axis in enumerate(AXES):
            wrong = [check.kind for check in checks if (check.metric, check.axis) == (metric, axis) and not check.holds]
            panel = _panel([row for row in mine if row["axis"] == axis], axis, kinds, span, wrong)
            parts.append(f'<g transform="translate({_LEFT + column * (_WIDTH + _GAP)} {y + 16})">{panel}</g>')
    y = _TOP + len(metrics) * _LINE
    parts += [_text(8, y + 18 * k, f"{metric} not scored: {why}") for k, (metric, why) in enumerate(silent.items())]
    width, height = _LEFT + len(AXES) * (_WIDTH + _GAP), y + 18 * len(silent)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="Response of each metric to known motion">{_STYLE}'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


_STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:13px;fill:#111}"
    ".end{text-anchor:end}.mid{text-anchor:middle}.wrong{fill:#b00020}.frame{fill:none;stroke:#bbb}"
    ".curve{fill:none;stroke-width:1.8}</style>"
)


def _legend(kinds: Sequence[str]) -> str:
    parts = []
    for number, kind in enumerate(kinds):
        x = _LEFT + number * 150
        parts.append(f'<path class="curve" {_stroke(number)} d="M{x} 22h34"/>{_text(x + 40, 26, kind)}')
    return "".join(parts)


def _panel(
    rows: Sequence[Mapping[str, Any]], axis: str, kinds: Sequence[str], span: tuple[float, float], wrong: Sequence[str]
) -> str:
    """One diagram; its upper left corner is the origin."""
    xs = sorted({row[axis] for row in rows})
    parts = [f'<rect class="frame" width="{_WIDTH}" height="{_HEIGHT}"/>']
    parts += [_text(-6, 8, f"{span[1]:.4g}", "end"), _text(-6, _HEIGHT, f"{span[0]:.4g}", "end")]
    parts += [_text(_across(x, xs), _HEIGHT + 14, f"{x:g}", "mid") for x in _apart(xs)]
    parts.append(_text(_WIDTH / 2, _HEIGHT + 30, AXES[axis], "mid"))
    for number, kind in enumerate(kinds):
        line = sorted((row[axis], row["value"]) for row in rows if row["kind"] == kind and row["value"] is not None)
        places = [(_across(x, xs), _down(value, span)) for x, value in line]
        if places:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path class="curve" {_stroke(number)} d="{path}"/>')
        for (x, y), (at, value) in zip(places, line, strict=True):
            label = f"{kind}, {at:g} {AXES[axis].rpartition(', ')[2]}: {value:.5g}"
            dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{_COLORS[number % 5]}">'
            parts.append(f"{dot}<title>{escape(label)}</title></circle>")
    if wrong:
        parts.append(_text(4, 13, "goes the wrong way: " + ", ".join(wrong), "wrong"))
    return "".join(parts)


def _apart(xs: Sequence[float]) -> list[float]:
    """Those values whose labels do not run into each other, from the largest down."""
    shown: list[float] = []
    for x in reversed(xs):
        if not shown or _across(shown[-1], xs) - _across(x, xs) >= 24:
            shown.append(x)
    return shown


def _across(x: float, xs: Sequence[float]) -> float:
    return _WIDTH / 2 if xs[-1] == xs[0] else 8 + (_WIDTH - 16) * (x - xs[0]) / (xs[-1] - xs[0])


def _down(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return _HEIGHT / 2 if high == low else _HEIGHT - 6 - (_HEIGHT - 12) * (value - low) / (high - low)


def _stroke(number: int) -> str:
    return f'stroke="{_COLORS[number % 5]}" stroke-dasharray="{_DASHES[number % 5]}"'


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'
