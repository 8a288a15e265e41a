"""Clips of known motion, the response of metrics to them, and the drawing of it."""

from __future__ import annotations

from eval.calibration.clips import KINDS, moving_clip
from eval.calibration.plot import read_rows, response_svg, write_plot
from eval.calibration.response import AXES, EXPECTED, ROWS, Check, GridConfig, calibrate, monotonic

__all__ = [
    "AXES",
    "EXPECTED",
    "KINDS",
    "ROWS",
    "Check",
    "GridConfig",
    "calibrate",
    "monotonic",
    "moving_clip",
    "read_rows",
    "response_svg",
    "write_plot",
]
