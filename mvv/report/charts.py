"""Drawings of a report as inline SVG: cameras around the object, and histograms.

Colours come from the style sheet by class, so that the drawings follow light and dark. Only numbers go in; the few
words are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mvv.pages.markup import Html, element
from mvv.report.facts import Bins

__all__ = ["Camera", "camera_plots", "histogram"]

Camera = tuple[float, float, float]
"""Azimuth (degrees from +x towards +y), elevation (degrees), distance (normalised units); the object has radius 0.5."""


_HALF = 190.0  # pixels from the origin to the edge of the plan; the elevation has the same scale


def camera_plots(
    others: Sequence[Camera], named: Sequence[Camera], front_azimuth_deg: float, fov_y_deg: float
) -> tuple[Html, Html]:
    """Where the cameras are: seen from above, and by elevation, both to one scale.

    Args:
        others: cameras drawn as faint dots.
        named: cameras of one clip, drawn with their number and field of view.
        front_azimuth_deg: where the object's front points.
        fov_y_deg: vertical field of view.

    Returns:
        the plan (x to the right, y up) and the elevation (distance from the axis to the right, z up).
    """
    unit = _HALF / (1.22 * max([0.75, *(distance for _, _, distance in (*others, *named))]))
    return _plan(others, named, front_azimuth_deg, fov_y_deg, unit), _elevation(others, named, unit)


def _plan(others: Sequence[Camera], named: Sequence[Camera], front: float, fov: float, unit: float) -> Html:
    x, y = _polar(front, 0.82 * unit)
    parts = [_line("axis", -_HALF, 0, _HALF, 0), _line("axis", 0, -_HALF, 0, _HALF), _sphere(unit)]
    parts += [_line("front", 0, 0, x, y), _label(x * 1.15, y * 1.15, "front")]
    for azimuth, elevation, distance in others:
        parts.append(_dot(*_polar(azimuth, unit * distance * math.cos(math.radians(elevation)))))
    for view, (azimuth, elevation, distance) in enumerate(named):
        away = unit * distance * math.cos(math.radians(elevation))
        x, y = _polar(azimuth, away)
        # The field of view as seen from above: a wedge a quarter of the way to the object.
        sides = (_polar(azimuth + 180 + side, unit * distance * 0.26) for side in (-fov / 2, fov / 2))
        wedge = "".join(f"L{x + dx:.1f} {-y - dy:.1f}" for dx, dy in sides)
        parts.append(element("path", class_="wedge", d=f"M{x:.1f} {-y:.1f}{wedge}Z"))
        parts.append(_dot(x, y, f"view {view}: azimuth {azimuth:.1f}°, elevation {elevation:.1f}°"))
        parts.append(_label(*_polar(azimuth, away + 15), str(view)))
    return _svg(-_HALF, -_HALF, 2 * _HALF, 2 * _HALF, "Cameras seen from above", parts)


def _elevation(others: Sequence[Camera], named: Sequence[Camera], unit: float) -> Html:
    heights = [unit * distance * math.sin(math.radians(elevation)) for _, elevation, distance in (*others, *named)]
    low, high = min([-0.58 * unit, *(h - 20 for h in heights)]), max([0.8 * unit, *(h + 30 for h in heights)])
    left = -0.58 * unit
    parts = [_line("axis", left, 0, _HALF, 0), _line("axis", 0, low, 0, high), _sphere(unit)]
    for angle in (15, 30, 45, 60):
        x, y = _polar(angle, _HALF)
        if y < high:
            parts += [_line("ray", 0, 0, x, y), _label(*_polar(angle, _HALF + 16), f"{angle}°")]
    parts += [_dot(*_polar(elevation, unit * distance)) for _, elevation, distance in others]
    for view, (_, elevation, distance) in enumerate(named):
        title = f"view {view}: elevation {elevation:.1f}°, distance {distance:.2f}"
        parts.append(_dot(*_polar(elevation, unit * distance), title))
    return _svg(left, -high, _HALF + 32 - left, high - low, "Cameras by elevation", parts)


def histogram(bins: Bins, label: str) -> Html:
    """Bars on a logarithmic axis with round tick marks; every bar tells its range and count."""
    width, height, base = 480.0, 150.0, 122.0
    used = bins.counts.nonzero()[0]
    # The bins that are used and two on each side: empty decades only make the bars thin.
    first = max(0, int(used[0]) - 2) if len(used) else 0
    last = min(len(bins.counts), int(used[-1]) + 3) if len(used) else len(bins.counts)
    counts, edges = bins.counts[first:last], bins.edges[first : last + 1]
    step, most = width / len(counts), max(1, int(counts.max()))
    parts = []
    for place, count in enumerate(counts):
        if count:
            tall = max(2.0, (base - 14) * count / most)
            title = element("title", f"{_short(edges[place])} to {_short(edges[place + 1])} {bins.unit}: {count} clips")
            parts.append(
                element("rect", title, class_="bar", x=f"{place * step + 1:.1f}", y=f"{base - tall:.1f}",
                        width=f"{step - 2:.1f}", height=f"{tall:.1f}", rx="1.5")
            )  # fmt: skip
    parts.append(element("path", class_="axis", d=f"M0 {base}H{width}"))
    for value in _ticks(edges[0], edges[-1]):
        x = math.log(value / edges[0]) / math.log(edges[-1] / edges[0]) * width
        anchor = "start" if x < 16 else "end" if x > width - 16 else "middle"
        parts.append(element("path", class_="axis", d=f"M{x:.1f} {base}v4"))
        parts.append(element("text", _short(value), x=f"{x:.1f}", y=f"{base + 19:.0f}", text_anchor=anchor))
    parts.append(element("text", f"{most}", x="0", y="10", class_="most"))
    return element("svg", *parts, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=label, class_="chart")


def _svg(left: float, top: float, width: float, height: float, label: str, parts: Sequence[Html]) -> Html:
    box = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
    return element(
        "svg", *parts, viewBox=box, width=f"{width:.0f}", height=f"{height:.0f}", role="img", aria_label=label,
        class_="cameras",
    )  # fmt: skip


def _polar(angle_deg: float, length: float) -> tuple[float, float]:
    angle = math.radians(angle_deg)
    return length * math.cos(angle), length * math.sin(angle)


def _line(kind: str, x0: float, y0: float, x1: float, y1: float) -> Html:
    """y upwards here and below, downwards in the drawing."""
    return element("path", class_=kind, d=f"M{x0:.1f} {-y0:.1f}L{x1:.1f} {-y1:.1f}")


def _sphere(unit: float) -> Html:
    title = element("title", "the object's sphere, radius 0.5")
    return element("circle", title, class_="sphere", cx="0", cy="0", r=f"{unit / 2:.1f}")


def _dot(x: float, y: float, title: str = "") -> Html:
    """A camera: of the named clip with a title, of another without."""
    inside, kind, radius = (element("title", title), "camera", "4.5") if title else ("", "other", "2.2")
    return element("circle", inside, class_=kind, cx=f"{x:.1f}", cy=f"{-y:.1f}", r=radius)


def _label(x: float, y: float, text: str) -> Html:
    place = {"x": f"{x:.1f}", "y": f"{-y:.1f}"}
    return element("text", text, text_anchor="middle", dominant_baseline="central", **place)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 in every decade, or only the decades where that is too dense."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
